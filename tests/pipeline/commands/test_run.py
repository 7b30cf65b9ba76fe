"""The whole pipeline as a user runs it: `bitsum run` in a process of its own, then again, then the server by hand."""

import json
import pathlib
import re
import shlex
import signal
import subprocess
import sys

import pytest

from components.errors import BitsumError
from components.savedmodel import version_folder
from pipeline import cli
from pipeline.records import relocation
from tests.support.waiting import wait_for

BITSUM = str(pathlib.Path(sys.executable).with_name("bitsum"))


def _bitsum(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([BITSUM, *arguments], capture_output=True, text=True)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("run") / "var"


@pytest.fixture(scope="module")
def first(root):
    """The first run, with every default but the folder."""
    return _bitsum("run", "--set", f"pipeline.root={root}")


def test_a_blessed_model_is_pushed_served_and_answers(first, root):
    assert first.returncode == 0, first.stderr
    assert "13 + 29 = 42" in first.stdout
    assert "evaluation: blessed" in first.stdout and "infra validation: blessed" in first.stdout
    [version] = version_folder.versions(root / "serving" / "bitsum")
    assert f"version {version} pushed" in first.stdout
    assert first.stderr == ""


def test_the_first_line_names_the_root_and_whether_it_is_new(tmp_path, monkeypatch, capfd):
    def stop(*_):
        raise BitsumError("enough")

    monkeypatch.setattr(relocation, "lock_and_update_paths", stop)
    monkeypatch.chdir(tmp_path)
    for new in (", a new folder", ""):
        assert cli.main(["run"]) == 1
        first = capfd.readouterr().out.splitlines()[0]
        begin = rf"bitsum run \d{{8}}-\d{{6}}-\d{{6}} in {tmp_path}/var{new}, log"
        assert re.fullmatch(rf"{begin} {tmp_path}/var/logs/\S+\.log", first)


def test_library_output_is_in_the_named_log(first):
    log = pathlib.Path(re.search(r"log (\S+)", first.stdout).group(1))
    assert len(log.read_text()) > 10_000


def test_a_second_run_reuses_every_expensive_step_and_pushes_nothing(first, root):
    before = version_folder.versions(root / "serving" / "bitsum")
    second = _bitsum("run", "--set", f"pipeline.root={root}")
    assert second.returncode == 0, second.stderr
    stages = dict(re.findall(r"^  (\S[\w -]*?) +[\d.]+ s   (\w+)$", second.stdout, re.MULTILINE))
    assert {name: stages[name] for name in ("generate", "statistics", "validate sums", "train", "infra-validate")} == {
        "generate": "cached",
        "statistics": "cached",
        "validate sums": "cached",
        "train": "cached",
        "infra-validate": "cached",
    }
    assert "already holds this model; nothing pushed" in second.stdout
    assert version_folder.versions(root / "serving" / "bitsum") == before


def test_the_printed_command_serves_and_add_answers(first, root, tmp_path):
    line = shlex.split(re.search(r"^  (\S*bitsum serve .*)$", first.stdout, re.MULTILINE).group(1))
    ready = tmp_path / "ready.json"
    command = [
        BITSUM,
        *(word for word in line[1:] if not word.startswith("--port")),
        "--port=0",
        f"--ready_file={ready}",
    ]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            wait_for(lambda: ready.exists() or server.poll() is not None)
            found = json.loads(ready.read_text())
            target = f"{found['host']}:{found['port']}"
            added = _bitsum("add", "13", "29", "--server", target)
            assert (added.returncode, added.stdout) == (0, "42\n"), added.stderr
            status = _bitsum("status", "--set", f"pipeline.root={root}", "--server", target)
            assert status.returncode == 0
            assert "files as pushed" in status.stdout and "AVAILABLE" in status.stdout
        finally:
            server.send_signal(signal.SIGTERM)
            assert server.wait(30) == 0


def test_status_reports_a_changed_file(first, root):
    folder = root / "serving" / "bitsum"
    file = folder / str(version_folder.versions(folder)[-1]) / "saved_model.pb"
    content = file.read_bytes()
    file.write_bytes(content + b"x")
    try:
        status = _bitsum("status", "--set", f"pipeline.root={root}", "--server", "127.0.0.1:1")
        assert status.returncode == 1
        assert "saved_model.pb was changed" in status.stdout
    finally:
        file.write_bytes(content)
