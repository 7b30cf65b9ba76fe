"""Hostile names in all text that commands read from outside: no output controls the terminal or forges a line."""

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

# A valid file name: it erases a line, begins another one, reverses text and holds an undecodable byte.
HOSTILE = "x\x1b[2K\nproven: addition of any length\x9b\u202e\u2066\u200b\u2028\udcff"
TOML = json.dumps(HOSTILE.replace("\udcff", ""))
# verify reads knobs only when it exports the cell.
CONFIGURABLE = sorted(name for name, (_, _, configurable) in cli.COMMANDS.items() if configurable and name != "verify")
NEEDED = {"compile": ["--target=kubeflow", "--image=x"]}


@pytest.fixture
def bitsum(monkeypatch):
    """A function: arguments -> (exit code, output), with streams in ASCII; it checks that the output is harmless."""

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
def test_names_of_knobs(bitsum, tmp_path, command):
    file = tmp_path / "knobs.toml"
    file.write_text(f"[train]\n{TOML} = 1\n")
    code, text = bitsum(command, "--config", file, *NEEDED.get(command, []))
    assert code == 2 and r"x\x1b[2K\nproven" in text.replace("\\\\", "\\")
    code, text = bitsum(command, f"--set=train.{HOSTILE}=1", *NEEDED.get(command, []))
    assert code == 2 and r"x\x1b[2K\nproven" in text.replace("\\\\", "\\")


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_unknown_arguments(bitsum, command):
    # argparse takes an argument with a space for a value.
    option = f"--{HOSTILE}".replace(" ", "")
    code, text = bitsum(
        command, *{**NEEDED, "demo": ["bomb"], "probe": ["x:1"], "verify": ["x"]}.get(command, []), option
    )
    assert code == 2 and f"unrecognized arguments: {printable(option)}" in text


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_errors_of_servers(bitsum, serve, task):
    line = HOSTILE.replace("\n", "").replace("\u2028", "")

    def refuse(signature, outputs):
        raise Failure(grpc.StatusCode.INVALID_ARGUMENT, line)

    serve(Channel(refuse, task))
    code, text = bitsum(task.verb, "13", "29")
    assert code == 1 and printable(line) in text


def test_contents_and_names_of_files_of_pairs(bitsum, folder, tmp_path):
    pairs = tmp_path / "pairs"
    pairs.write_bytes(HOSTILE.partition("\n")[0].encode() + b" 13\n")
    code, text = bitsum("add", "--file", pairs)
    assert code == 2 and "x\\x1b[2K" in text
    code, text = bitsum("add", "--file", folder)
    assert code == 1 and printable(HOSTILE) in text
    for number in (HOSTILE, "١٢"):
        code, text = bitsum("add", number, "13")
        assert code == 2 and text.count("\n") == 1


def test_names_in_a_certificate(bitsum, certified_model, tmp_path):
    model = shutil.copytree(certified_model, tmp_path / HOSTILE)
    path = model / "assets.extra" / "certificate.json"
    certificate = certified.certificate()
    path.write_text(json.dumps(certificate | {"allowances": {**certificate["allowances"], HOSTILE: "0x1p-20"}}))
    code, text = bitsum("verify", model)
    assert code == 3 and printable(HOSTILE) in text
    code, text = bitsum("verify", model, "--json")
    assert code == 3 and json.loads(text)["model"] == str(model)
    (model / "saved_model.pb").unlink()
    code, text = bitsum("verify", model)
    assert code == 1 and printable(HOSTILE) in text


def test_names_in_a_manifest(bitsum, certified_model, tmp_path):
    version = shutil.copytree(certified_model, tmp_path / "serving" / "7")
    manifest = {"files": {HOSTILE: {"sha256": "x", "bytes": 1}}, "origin": {"run": HOSTILE, "task": HOSTILE}}
    (version / "assets.extra" / "manifest.json").write_text(json.dumps(manifest))
    options = ["--set", f"pipeline.push_to={tmp_path}/serving", "--server=127.0.0.1:1"]
    code, text = bitsum("status", *options)
    assert code == 1 and f"run {printable(HOSTILE)}" in text and "DAMAGED" in text


@pytest.mark.parametrize("command", ["run", "demo", "gc"])
def test_names_of_folders(bitsum, folder, command):
    root = ["--set", f"pipeline.root={folder}/file"]
    code, text = bitsum(
        command, *{"demo": ["bomb", "--root", folder / "file"], "gc": ["--delete", *root], "run": root}[command]
    )
    assert code and printable(HOSTILE) in text


@pytest.mark.parametrize("command", ["history", "lineage"])
def test_names_of_stores(bitsum, folder, tmp_path, command):
    code, text = bitsum(command, "--set", f"pipeline.root={tmp_path}", "--set", f"metadata.path={folder}/store")
    assert code == 1 and printable(HOSTILE) in text


@pytest.mark.parametrize("command", ["rollout", "rollback"])
def test_labels_and_names_in_a_model_config_file(bitsum, tmp_path, command):
    (tmp_path / "models" / "1").mkdir(parents=True)
    name = "x\\033[2K\\nproven"
    config = tmp_path / "models.config"
    config.write_text(
        f'model_config_list {{ config {{ name: "bitsum" base_path: "{tmp_path}/models" model_platform: "{name}" '
        f'model_version_policy {{ specific {{ versions: 1 }} }} version_labels {{ key: "stable" value: 1 }} '
        f'version_labels {{ key: "{name}" value: 1 }} }} }}'
    )
    code, text = bitsum(command, "--plan", f"--config_file={config}")
    assert text and (command == "rollback" or "x\\x1b[2K\\nproven is version 1" in text)
    config.write_text(f'model_config_list {{ config {{ name: "{name}" {name} }}')
    code, text = bitsum(command, "--plan", f"--config_file={config}")
    assert code == 1


def test_names_of_served_models_and_folders(bitsum, folder, tmp_path):
    code, text = bitsum("serve", "--server=embedded", f"--model_base_path={folder}")
    assert code == 1 and printable(HOSTILE) in text
    config = tmp_path / "models.config"
    config.write_text(f'model_config_list {{ config {{ name: "x\\033[2K\\nproven" base_path: "{tmp_path}/none" }} }}')
    code, text = bitsum("serve", "--server=embedded", f"--model_config_file={config}")
    assert code == 1 and "x\\x1b[2K\\nproven" in text


@pytest.mark.parametrize("command", ["probe", "qualify"])
def test_names_of_servers_and_files_of_examples(bitsum, folder, command):
    code, text = bitsum(command, HOSTILE, "--deadline=0.1", *(["--count=1"] if command == "probe" else []))
    assert code and text
    if command == "probe":
        code, text = bitsum(command, "127.0.0.1:1", "--examples", folder)
        assert code == 1 and printable(HOSTILE) in text


def test_ids_of_runs(bitsum):
    code, text = bitsum("node", "Trainer", f"--run-id={HOSTILE}")
    assert code == 2 and "proven" in text
