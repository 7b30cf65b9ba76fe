"""The metadata store on a real PostgreSQL, which these tests install and start themselves."""

import json
import os
import re
import subprocess
import sys

import pytest

from components.errors import BitsumError
from pipeline import cli
from pipeline import config as configuration
from pipeline.records import metadata_store, ownership
from pipeline.records.lineage_graph import LineageGraph
from tests.pipeline.conftest import SMALL
from tests.support import postgresql_server
from tests.support.metadata_stores import RUNNING, Store

_OPEN = (
    "import sys; from pipeline import config; from pipeline.records import metadata_store; config = "
    "config.load(None, sys.argv[1:]); sys.stdin.readline()\n"
    "print(len(metadata_store.open_store(config).get_contexts()))"
)


@pytest.fixture(scope="module")
def server():
    with postgresql_server.running() as found:
        yield found


def _options(*settings):
    return [word for setting in settings for word in ("--set", setting)]


def test_the_commands_read_and_write_there(server, tmp_path, capfd):
    settings = server.settings("metadata.database=by_hand")
    store = Store(tmp_path / "var", settings)
    gone = {**ownership.owner(), ownership.STARTED: "0f7d 17"}
    first = store.run("monday", span=1, version=7, margin=4.0)
    store.run("tuesday", span=2, exact=0.5, base=first["model"])
    store.run("wednesday", span=3, version=8, margin=4.5, base=first["model"])
    store.execution("thursday", "Trainer", {}, {}, RUNNING, **gone)
    assert cli.main(["history", *store.settings, "--json"]) == 0
    rows = json.loads(capfd.readouterr().out)["runs"]
    assert [(row["run"], row["state"]) for row in rows] == [
        ("monday", "done"),
        ("tuesday", "refused"),
        ("wednesday", "done"),
        ("thursday", "killed at Trainer"),
    ]
    assert cli.main(["lineage", *store.settings, "8", "--json"]) == 0
    assert [base["version"] for base in json.loads(capfd.readouterr().out)["bases"]] == [7]
    assert cli.main(["gc", *store.settings, "--keep", "1", "--delete"]) == 0
    output = capfd.readouterr().out
    assert "closed as failed: Trainer" in output and "of run tuesday" in output and "of run monday" not in output
    # Seen by the database's own program, and nowhere else: no SQLite file was made.
    assert server.query("by_hand", "SELECT count(*) FROM context WHERE name IN ('monday', 'thursday')") == ["2"]
    assert not list((tmp_path / "var").glob("*.sqlite"))


def test_a_moved_root_is_rewritten_only_on_request(server, tmp_path, capfd):
    settings = server.settings("metadata.database=moved")
    neighbour, store = Store(tmp_path / "var2", settings), Store(tmp_path / "var", settings)
    theirs = neighbour.execution("sunday", "Elsewhere", {}, {"model": {}})["model"]
    store._executions = 1
    store.run("monday", span=1, version=7)
    assert cli.main(["gc", *store.settings, "--delete"]) == 0
    now = store.root.rename(tmp_path / "moved")
    options = _options(f"pipeline.root={now}", *settings)
    capfd.readouterr()
    for command in ("history", "lineage", "gc", "status"):
        assert cli.main([command, *options]) == 1
        output = capfd.readouterr().err
        assert (
            f"was moved here from {tmp_path / 'var'}" in output
            and "bitsum relocate" in output
            and len(output.splitlines()) == 1
        )
    assert cli.main(["relocate", *options]) == 0
    assert server.query("moved", f"SELECT count(*) FROM artifact WHERE uri LIKE '{tmp_path}/moved/%'") == ["0"]
    assert cli.main(["relocate", *options, "--yes"]) == 0
    capfd.readouterr()
    assert cli.main(["lineage", *options, "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert found["path"] == f"{now}/serving/bitsum/7" and found["model"]["uri"].startswith(f"{now}/artifacts/")
    for table, column in (
        ("artifact", "uri"),
        ("artifactproperty", "string_value"),
        ("executionproperty", "string_value"),
    ):
        assert server.query("moved", f"SELECT count(*) FROM {table} WHERE {column} LIKE '{tmp_path}/var/%'") == ["0"]
    assert neighbour.folder(theirs).is_relative_to(tmp_path / "var2")


def test_concurrent_programs_can_set_up_a_new_database(server):
    settings = server.settings("metadata.database=new")
    command = [sys.executable, "-c", _OPEN, *settings]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    programs = [subprocess.Popen(command, **pipes) for _ in range(3)]
    for program in programs:
        program.stdin.write("\n")
        program.stdin.flush()
    output = [program.communicate(timeout=120) for program in programs]
    assert [out for out, _ in output] == ["0\n"] * 3, output


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ("metadata.port=1", "no server answers (Connection refused)"),
        ("metadata.host=no-such-host.invalid", "no server answers"),
        ("metadata.user=stranger", "the server refuses the login"),
        ("metadata.password_file=/dev/null", "metadata.password_file"),
    ],
)
@pytest.mark.parametrize("command", ["history", "lineage", "gc"])
def test_an_unreachable_or_refusing_database_is_one_line(server, tmp_path, command, wrong, words, capsys):
    assert cli.main([command, *_options(f"pipeline.root={tmp_path}", *server.settings(), wrong)]) in (1, 2)
    output = capsys.readouterr().err
    assert words in output and len(output.splitlines()) == 1


def test_a_database_that_restarts(server, tmp_path):
    config = configuration.load(None, server.settings("metadata.database=leaving"))
    with pytest.raises(BitsumError, match="no server answers"), metadata_store.existing(config) as store:
        server.stop()
        store.get_contexts()
    with pytest.raises(BitsumError, match="no server answers"):
        metadata_store.open_store(config)
    server.start()
    assert metadata_store.open_store(config).get_contexts() == []


@pytest.mark.long
def test_two_concurrent_runs_on_one_database(server, tmp_path):
    """Each has its own folder, so no lock of bitsum delays it; both start on an empty database."""
    settings = [*server.settings("metadata.database=two"), *SMALL]
    programs = []
    for name in ("one", "other"):
        command = [sys.executable, "-m", "pipeline", "run", *_options(f"pipeline.root={tmp_path / name}", *settings)]
        programs.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
    output = [program.communicate(timeout=900) for program in programs]
    assert [program.returncode for program in programs] == [0, 0], output
    lineage = LineageGraph(metadata_store.open_store(configuration.load(None, settings)))
    runs = [re.match(r"bitsum run (\S+) in ", out)[1] for out, _ in output]
    nodes = [[lineage.node_of[execution] for execution in lineage.executions_of(run)] for run in runs]
    assert sorted(nodes[0]) == sorted(nodes[1]) == sorted(set(nodes[0])) and "Pusher" in nodes[0]
    for run, program in zip(runs, programs, strict=True):
        executions = [lineage.executions[execution] for execution in lineage.executions_of(run)]
        assert {execution.custom_properties[ownership.PID].int_value for execution in executions} == {program.pid}
    # 3: complete, 5: from the cache.
    assert server.query("two", "SELECT count(*) FROM execution WHERE last_known_state NOT IN (3, 5)") == ["0"]
    assert os.path.exists(tmp_path / "one" / "serving") and os.path.exists(tmp_path / "other" / "serving")
