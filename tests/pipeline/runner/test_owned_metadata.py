"""Executions that TFX begins through our connection have an owner at once; a node is adopted only from a dead owner."""

import sqlite3
import subprocess
import sys

import pytest
from ml_metadata.proto import metadata_store_pb2 as mlmd

from components import processes, properties
from components.errors import BitsumError
from pipeline import cli
from pipeline.records import metadata_store, ownership
from pipeline.runner.owned_metadata import OwnedMetadata, adopt_execution, record_rejection
from tests.support.metadata_stores import COMPLETE, FAILED, RUNNING

# Holds the lock of a SQLite file until its input ends.
_HOLDER = (
    "import sqlite3, sys; held = sqlite3.connect(sys.argv[1], isolation_level=None); held.execute('BEGIN EXCLUSIVE')\n"
    "print('held', flush=True); sys.stdin.read()"
)
_OTHER = {**ownership.owner(), ownership.PID: 1, ownership.STARTED: processes.started(1)}
_GONE = {**ownership.owner(), ownership.STARTED: "0f7d 17"}
_NODE = "bitsum-addition.Trainer"


def _owner(store, id):
    properties = store.client.get_executions_by_id([id])[0].custom_properties
    return {
        name: properties[name].int_value or properties[name].string_value
        for name in ownership.owner()
        if name in properties
    }


@pytest.mark.parametrize("put", ["put_execution", "put_executions"])
@pytest.mark.parametrize(("state", "stamped"), [(RUNNING, True), (COMPLETE, False), (FAILED, False)])
def test_a_new_execution_has_an_owner_from_the_start(store, put, state, stamped):
    kind = store.client.put_execution_type(mlmd.ExecutionType(name="somewhere.Trainer"))
    execution = mlmd.Execution(type_id=kind, last_known_state=state)
    with OwnedMetadata(metadata_store.connection(store.config)) as handle:
        if put == "put_execution":
            id = handle.store.put_execution(execution, [], [])[0]
        else:
            [id] = handle.store.put_executions([execution])
    assert _owner(store, id) == (ownership.owner() if stamped else {})


@pytest.mark.parametrize(
    ("owner", "state", "then"),
    [
        (_GONE, RUNNING, RUNNING),
        (_GONE, FAILED, RUNNING),
        (_OTHER, FAILED, RUNNING),
        ({}, FAILED, RUNNING),
        (_GONE, COMPLETE, COMPLETE),
    ],
)
def test_a_failed_attempt_is_adopted(store, owner, state, then):
    id = store.execution("run", "Trainer", {}, {}, state, **owner)["execution"]
    adopt_execution(store.client, "run", _NODE)
    assert store.state(id) == then
    assert _owner(store, id) == (ownership.owner() if then == RUNNING else owner)


def test_the_outcome_of_an_earlier_attempt_is_cleared(store):
    id = store.execution("run", "Trainer", {}, {}, RUNNING, **_GONE)["execution"]
    ownership.close_abandoned(store.client)
    adopt_execution(store.client, "run", _NODE)
    record_rejection(store.client, "run", _NODE, "it runs")
    [execution] = store.client.get_executions_by_id([id])
    assert {ownership.CLOSED, properties.REFUSED_BECAUSE}.isdisjoint(execution.custom_properties)
    execution.last_known_state = FAILED
    store.client.put_executions([execution])
    record_rejection(store.client, "run", _NODE, "3 + 3 = 7")
    [execution] = store.client.get_executions_by_id([id])
    assert execution.custom_properties[properties.REFUSED_BECAUSE].string_value == "3 + 3 = 7"
    adopt_execution(store.client, "run", _NODE)
    [execution] = store.client.get_executions_by_id([id])
    assert properties.REFUSED_BECAUSE not in execution.custom_properties


def test_a_node_that_a_living_process_runs_is_not_adopted(store):
    id = store.execution("run", "Trainer", {}, {}, RUNNING, **_OTHER)["execution"]
    store.execution("another", "Prover", {}, {})
    for run, node in (("another", _NODE), ("run", "bitsum-addition.Prover")):
        adopt_execution(store.client, run, node)
    with pytest.raises(BitsumError, match=r"process 1 on .* already runs .*Trainer of run run"):
        adopt_execution(store.client, "run", _NODE)
    assert _owner(store, id) == _OTHER


def test_a_file_that_stays_locked_is_one_line(store, monkeypatch, capsys):
    monkeypatch.setattr(metadata_store, "_LOCK_SECONDS", 0.3)
    file = str(metadata_store.sqlite_file(store.config))
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLDER, file], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    holder.stdout.readline()
    for command in ("history", "lineage", "gc"):
        assert cli.main([command, *store.settings]) == 1
        output = capsys.readouterr().err
        assert "held its lock for 0.3 s" in output and len(output.splitlines()) == 1
    with pytest.raises(BitsumError, match="held its lock"), OwnedMetadata(metadata_store.connection(store.config)):
        pass
    holder.communicate("")
    assert cli.main(["history", *store.settings]) == 0


def test_a_file_that_is_not_a_database_is_one_line(tmp_path, capsys):
    (tmp_path / "metadata.sqlite").write_text("This is a letter. " * 100)
    assert cli.main(["history", "--set", f"pipeline.root={tmp_path}"]) == 1
    output = capsys.readouterr().err
    assert "file is not a database" in output and len(output.splitlines()) == 1


def test_a_damaged_database_is_one_line(store, capsys):
    store.run("monday", version=7)
    with sqlite3.connect(metadata_store.sqlite_file(store.config)) as database:
        database.execute("DROP TABLE Event")
    assert cli.main(["history", *store.settings]) == 1
    output = capsys.readouterr().err
    assert "cannot use the metadata store" in output and len(output.splitlines()) == 1
