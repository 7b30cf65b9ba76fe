"""`bitsum status`: what is wrong with a pushed version, and exit code 1 whenever something is."""

import json

import pytest

from components.savedmodel import graph_identity, version_folder
from pipeline import cli
from serving.rollout import deployment
from tests.support import json_tables
from tests.support.in_memory import Channel
from tests.support.unprivileged import closed

pytestmark = pytest.mark.fast


@pytest.fixture
def base(tmp_path):
    """The push folder of the root."""
    (tmp_path / "root" / "serving").mkdir(parents=True)
    return tmp_path / "root" / "serving" / "bitsum"


@pytest.fixture
def version(certified_model, base):
    """A function: run -> the folder of a pushed version of the certified model."""

    def push(run="run-1"):
        given = {"run": run, "task": "addition", "graph_sha256": graph_identity.graph_sha256(certified_model)}
        return version_folder.push(certified_model, base, run, given).path

    return push


@pytest.fixture
def answering(serve, monkeypatch):
    """A server with version 1 answers."""
    serve(Channel())
    monkeypatch.setattr(deployment, "served", lambda *_, **__: None)


@pytest.fixture
def status(tmp_path, capsys):
    """A function: arguments -> (exit code, lines); there is no server unless a test starts one."""

    def run(*arguments):
        code = cli.main(["status", "--set", f"pipeline.root={tmp_path / 'root'}", "--server=127.0.0.1:1", *arguments])
        output = capsys.readouterr()
        return code, (output.out or output.err).splitlines()

    return run


def test_foreign_and_missing_files_are_listed(version, status, answering):
    folder = version()
    (folder / "Thumbs.db").touch()
    code, lines = status()
    assert (code, len(lines)) == (0, 2)
    proven = "addition proven for any length, worst margin 5.278"
    assert lines[0] == f"version {folder.name}: files as pushed, ignored: Thumbs.db, {proven}, run run-1, {folder}"
    (folder / "model.tflite").touch()
    code, lines = status()
    assert code == 1 and "DAMAGED, NOT PROVEN (it has foreign files), run unknown" in lines[0]
    assert lines[1] == f"DAMAGED: {folder}: model.tflite is a file that no certified model has"
    (folder / "model.tflite").unlink()
    (folder / version_folder.MANIFEST).unlink()
    code, lines = status()
    assert code == 1 and "DAMAGED, ignored: Thumbs.db, NOT PROVEN (" in lines[0]
    assert lines[1].endswith("manifest.json is missing or damaged")


def test_a_server_that_does_not_answer_is_exit_code_1(version, status):
    version()
    code, lines = status()
    assert code == 1 and "files as pushed" in lines[0]
    assert lines[1].startswith("server 127.0.0.1:1: no model server answers at 127.0.0.1:1")


def test_a_version_of_another_user_is_unreadable_and_hides_no_other(version, status, answering):
    other, folder = version("run-1"), version("run-2")
    place = folder / version_folder.MANIFEST
    with closed(place):
        code, lines = status()
        _, [document] = status("--json")
    assert code == 1 and lines[0].startswith(f"version {other.name}: files as pushed")
    assert lines[1] == f"version {folder.name}: UNREADABLE, {folder}"
    assert lines[2].startswith(f"UNREADABLE: cannot read {place}")
    assert lines[2].endswith(": Permission denied; run this as a user who may read it, or grant that: chmod -R a+rX")
    assert lines[3].startswith("server ")
    json_tables.check("bitsum status", json.loads(document))


def test_a_push_folder_of_another_user_is_one_line(base, version, status, answering):
    version()
    for mode in (0o000, 0o444):
        with closed(base, mode):
            code, [line] = status()
        assert code == 1 and line.startswith(f"bitsum: cannot read {base}") and "chmod -R a+rX" in line
