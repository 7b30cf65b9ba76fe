"""Every option that names a file or folder to be written: no device, FIFO or socket is replaced or waited for, and `-`
is standard output or refused; never a file of that name."""

import os
import pathlib
import socket
import sys

import pytest
import yaml

from pipeline import cli
from tests.pipeline.test_cli import parsers
from tests.support.in_memory import Channel

pytestmark = pytest.mark.fast

# Options whose output is text or bytes, and the others.
STREAMS = {("add", "--output"), ("subtract", "--output"), ("compare", "--output"), ("compile", "--output")}
PLACES = {
    ("qualify", "--export"),
    ("serve", "--ready_file"),
    ("serve", "--log_file"),
    ("serve", "--request_log_dir"),
    ("serve", "--model_config_file"),
    ("rollout", "--config_file"),
    ("rollback", "--config_file"),
    ("demo", "--root"),
}
# A log is appended to, whatever it is; the folder for requests needs a model that loads; a comparison has no output.
UNCHECKED = {("serve", "--log_file"), ("serve", "--request_log_dir"), ("compare", "--output")}
READ = {"--config", "--certificate", "--file", "--examples", "--requests", "--model_base_path", "--from", "MODEL_DIR"}
PATHS = ("FILE", "PATH", "FOLDER", "DIR", "MODEL_DIR", "TFRECORDS")


def arguments(command, option, value, folder):
    """Arguments with which the command gets as far as the output."""
    for name in ("a", "b"):
        (folder / name).write_bytes(b"1")
    (folder / "served" / "1").mkdir(parents=True, exist_ok=True)
    packed = [command, "--packed", folder / "a", folder / "b", "--server=127.0.0.1:1"]
    before = {
        "add": packed,
        "subtract": packed,
        "compile": ["compile", "--target=kubeflow", "--image=x"],
        "serve": ["serve", "--port=0", "--server=embedded", "--model_base_path", folder / "served"],
        "rollout": ["rollout", "--server=127.0.0.1:1"],
        "rollback": ["rollback", "--server=127.0.0.1:1"],
        "demo": ["demo", "bomb"],
    }.get(command, [command])
    return [*map(str, before), f"{option}={value}"]


def test_every_option_for_a_path_is_known_here():
    written = set()
    for name, parser in parsers():
        for action in parser._actions:
            option = (action.option_strings or [action.metavar])[-1]
            if action.metavar in PATHS and option not in READ and not option.startswith("--tls_"):
                written.add((name, option))
    # It only reads the model config file.
    assert written - {("gc", "--config_file")} == STREAMS | PLACES


@pytest.mark.parametrize(("command", "option"), sorted((STREAMS | PLACES) - UNCHECKED))
@pytest.mark.parametrize("kind", ["FIFO", "socket", "device"])
def test_what_is_no_regular_file_stays(command, option, kind, tmp_path, capfd):
    path = tmp_path / "there"
    if kind == "FIFO":
        os.mkfifo(path)
    elif kind == "socket":
        socket.socket(socket.AF_UNIX).bind(str(path))
    else:
        # A device that cannot be replaced by mistake.
        path.symlink_to(os.ttyname(os.openpty()[1]))
    before = os.lstat(path)
    assert cli.main(arguments(command, option, path, tmp_path)) in (1, 2)
    [line] = capfd.readouterr().err.splitlines()
    assert line.startswith("bitsum: ") and (str(path) in line or os.path.realpath(path) in line)
    assert os.path.samestat(before, os.lstat(path))
    assert before.st_mode == os.lstat(path).st_mode


@pytest.mark.parametrize(("command", "option"), sorted(PLACES))
def test_a_dash_is_refused_where_there_is_no_stream(command, option, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    assert cli.main(arguments(command, option, "-", tmp_path)) == 2
    line = f"bitsum: {command}: argument {option}: - is standard output, which makes no sense here: name a file"
    assert capfd.readouterr().err == f"{line} or folder\n"
    assert not pathlib.Path("-").exists()


def test_who_names_the_device_of_standard_output_is_told_the_dash(tmp_path, capfd):
    assert cli.main(arguments("add", "--output", os.ttyname(os.openpty()[1]), tmp_path)) == 1
    assert capfd.readouterr().err.endswith(": is not a regular file, so it is not replaced; - is standard output\n")


def test_the_answer_to_packed_numbers_goes_to_standard_output(tmp_path, monkeypatch, capfdbinary, serve):
    monkeypatch.chdir(tmp_path)
    serve(Channel())
    assert cli.main([*arguments("add", "--output", "-", tmp_path), "-q"]) == 0
    output = capfdbinary.readouterr()
    assert (output.out, output.err) == (b"b\0", b"") and not pathlib.Path("-").exists()


def test_a_compiled_pipeline_goes_to_standard_output_and_its_summary_to_standard_error(tmp_path, monkeypatch, capfd):
    from pipeline.commands import compile

    document = {"pipelineInfo": {"name": "x"}, "root": {"dag": {"tasks": {}}}}
    monkeypatch.setattr(compile, "compiled", lambda *_: [document])
    monkeypatch.chdir(tmp_path)
    assert cli.main(arguments("compile", "--output", "-", tmp_path)) == 0
    output = capfd.readouterr()
    assert yaml.safe_load(output.out) == document
    assert output.err.startswith("-: 0 nodes, image x") and not pathlib.Path("-").exists()


def test_a_full_standard_output_is_one_line(tmp_path, monkeypatch, capfd, serve):
    serve(Channel())
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert cli.main([*arguments("add", "--output", "-", tmp_path), "-q"]) == 1
        monkeypatch.undo()
    assert capfd.readouterr().err == "bitsum: cannot continue: No space left on device: standard output\n"
