"""Every command, with hostile names in the places where it reads foreign text: its output steers no terminal and forges
no line."""

import io
import json
import shutil
import sys

import grpc
import pytest

from components.printable import printable
from components.task.transducer import TASKS
from pipeline import cli
from tests.support import certified
from tests.support.in_memory import Channel, Failure

pytestmark = pytest.mark.fast

# A file may be called so: it erases a line, begins another one, turns letters around and holds a byte that is no text.
HOSTILE = "x\x1b[2K\nproven: addition of any length\x9b\u202e\u2066\u200b\u2028\udcff"
TOML = json.dumps(HOSTILE.replace("\udcff", ""))
# verify reads knobs only once it exports the cell.
CONFIGURABLE = sorted(name for name, (_, _, configurable) in cli._COMMANDS.items() if configurable and name != "verify")
NEEDED = {"compile": ["--target=kubeflow", "--image=x"]}


@pytest.fixture
def told(monkeypatch):
    """A function: arguments -> (exit code, what was written), checked to be harmless; the streams can express ASCII
    alone."""

    def run(*arguments):
        files = [io.TextIOWrapper(io.BytesIO(), "ascii") for _ in range(2)]
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", files[0])
            patch.setattr(sys, "stderr", files[1])
            code = cli.main([str(argument) for argument in arguments])
        for file in files:
            file.flush()
        text = "".join(file.buffer.getvalue().decode() for file in files)
        assert all(char == "\n" or char.isprintable() for char in text), repr(text)
        assert not any(line.startswith("proven") for line in text.split("\n"))
        return code, text

    return run


@pytest.fixture
def folder(tmp_path):
    """A folder with a hostile name and one file in it."""
    folder = tmp_path / HOSTILE
    folder.mkdir()
    (folder / "file").touch()
    return folder


@pytest.mark.parametrize("command", CONFIGURABLE)
def test_names_of_knobs(told, tmp_path, command):
    file = tmp_path / "knobs.toml"
    file.write_text(f"[train]\n{TOML} = 1\n")
    code, text = told(command, "--config", file, *NEEDED.get(command, []))
    assert code == 2 and r"x\x1b[2K\nproven" in text.replace("\\\\", "\\")
    code, text = told(command, f"--set=train.{HOSTILE}=1", *NEEDED.get(command, []))
    assert code == 2 and r"x\x1b[2K\nproven" in text.replace("\\\\", "\\")


@pytest.mark.parametrize("command", cli._COMMANDS)
def test_arguments_that_no_command_knows(told, command):
    # With a space in it, it would be taken for a value.
    option = f"--{HOSTILE}".replace(" ", "")
    code, text = told(
        command, *{**NEEDED, "demo": ["bomb"], "probe": ["x:1"], "verify": ["x"]}.get(command, []), option
    )
    assert code == 2 and f"unrecognized arguments: {printable(option)}" in text


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_what_a_server_says(told, serve, task):
    line = HOSTILE.replace("\n", "").replace("\u2028", "")

    def refuse(signature, outputs):
        raise Failure(grpc.StatusCode.INVALID_ARGUMENT, line)

    serve(Channel(refuse, task))
    code, text = told(task.verb, "13", "29")
    assert code == 1 and printable(line) in text


def test_contents_and_names_of_files_of_pairs(told, folder, tmp_path):
    pairs = tmp_path / "pairs"
    pairs.write_bytes(HOSTILE.partition("\n")[0].encode() + b" 13\n")
    code, text = told("add", "--file", pairs)
    assert code == 2 and "x\\x1b[2K" in text
    code, text = told("add", "--file", folder)
    assert code == 1 and printable(HOSTILE) in text
    for number in (HOSTILE, "١٢"):
        code, text = told("add", number, "13")
        assert code == 2 and text.count("\n") == 1


def test_a_certificate_s_names(told, certified_model, tmp_path):
    model = shutil.copytree(certified_model, tmp_path / HOSTILE)
    path = model / "assets.extra" / "certificate.json"
    certificate = certified.certificate()
    path.write_text(json.dumps(certificate | {"allowances": {**certificate["allowances"], HOSTILE: "0x1p-20"}}))
    code, text = told("verify", model)
    assert code == 3 and printable(HOSTILE) in text
    code, text = told("verify", model, "--json")
    assert code == 3 and json.loads(text)["model"] == str(model)
    (model / "saved_model.pb").unlink()
    code, text = told("verify", model)
    assert code == 1 and printable(HOSTILE) in text


def test_a_manifest_s_names(told, certified_model, tmp_path):
    version = shutil.copytree(certified_model, tmp_path / "serving" / "7")
    manifest = {"files": {HOSTILE: {"sha256": "x", "bytes": 1}}, "origin": {"run": HOSTILE, "task": HOSTILE}}
    (version / "assets.extra" / "manifest.json").write_text(json.dumps(manifest))
    told_of = ["--set", f"pipeline.push_to={tmp_path}/serving", "--server=127.0.0.1:1"]
    code, text = told("status", *told_of)
    assert code == 1 and f"run {printable(HOSTILE)}" in text and "DAMAGED" in text


@pytest.mark.parametrize("command", ["run", "demo", "gc"])
def test_names_of_folders(told, folder, command):
    root = ["--set", f"pipeline.root={folder}/file"]
    code, text = told(
        command, *{"demo": ["bomb", "--root", folder / "file"], "gc": ["--delete", *root], "run": root}[command]
    )
    assert code and printable(HOSTILE) in text


@pytest.mark.parametrize("command", ["history", "lineage"])
def test_names_of_stores(told, folder, command):
    code, text = told(command, "--set", f"pipeline.root={folder}")
    assert code == 1 and printable(HOSTILE) in text


@pytest.mark.parametrize("command", ["rollout", "rollback"])
def test_labels_and_names_in_a_model_config_file(told, tmp_path, command):
    (tmp_path / "models" / "1").mkdir(parents=True)
    name = "x\\033[2K\\nproven"
    config = tmp_path / "models.config"
    config.write_text(
        f'model_config_list {{ config {{ name: "bitsum" base_path: "{tmp_path}/models" model_platform: "{name}" '
        f'model_version_policy {{ specific {{ versions: 1 }} }} version_labels {{ key: "stable" value: 1 }} '
        f'version_labels {{ key: "{name}" value: 1 }} }} }}'
    )
    code, text = told(command, "--plan", f"--config_file={config}")
    assert text and (command == "rollback" or "x\\x1b[2K\\nproven is version 1" in text)
    config.write_text(f'model_config_list {{ config {{ name: "{name}" {name} }}')
    code, text = told(command, "--plan", f"--config_file={config}")
    assert code == 1


def test_names_of_models_and_folders_that_are_to_be_served(told, folder, tmp_path):
    code, text = told("serve", "--server=embedded", f"--model_base_path={folder}")
    assert code == 1 and printable(HOSTILE) in text
    config = tmp_path / "models.config"
    config.write_text(f'model_config_list {{ config {{ name: "x\\033[2K\\nproven" base_path: "{tmp_path}/none" }} }}')
    code, text = told("serve", "--server=embedded", f"--model_config_file={config}")
    assert code == 1 and "x\\x1b[2K\\nproven" in text


@pytest.mark.parametrize("command", ["probe", "qualify"])
def test_names_of_servers_and_files_of_examples(told, folder, command):
    code, text = told(command, HOSTILE, "--deadline=0.1", *(["--count=1"] if command == "probe" else []))
    assert code and text
    if command == "probe":
        code, text = told(command, "127.0.0.1:1", "--examples", folder)
        assert code == 1 and printable(HOSTILE) in text


def test_a_run_s_id(told):
    code, text = told("node", "Trainer", f"--run-id={HOSTILE}")
    assert code == 2 and "proven" in text
