"""Executions are closed when their process is gone, and only then; every new execution records its owner."""

import json
import os
import re
import signal
import subprocess
import sys

import pytest

from components import processes
from pipeline import cli
from pipeline import config as configuration
from pipeline.records import ownership
from pipeline.records.metadata_store import open_store
from tests.pipeline.conftest import SMALL
from tests.support.metadata_stores import COMPLETE, FAILED, RUNNING

_SLEEPER = (
    "import json, time; from pipeline.records import ownership as housekeeping; "
    "print(json.dumps(housekeeping.owner()), flush=True); time.sleep(600)"
)


@pytest.fixture
def sleeper():
    """A process that is not reaped when killed, and its own record."""
    process = subprocess.Popen([sys.executable, "-c", _SLEEPER], stdout=subprocess.PIPE, text=True)
    owner = json.loads(process.stdout.readline())
    yield process, owner
    process.kill()
    process.wait()
    process.stdout.close()


def _begun(store, **owner):
    return store.execution("run", "Trainer", {}, {}, RUNNING, **owner)["execution"]


def test_an_execution_is_closed_once_its_process_is_killed(store, sleeper):
    process, owner = sleeper
    ours, theirs = _begun(store, **ownership.owner()), _begun(store, **owner)
    assert ownership.close_abandoned(store.client) == []
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    # It is a zombie: its id is still in use.
    [closed] = ownership.close_abandoned(store.client)
    assert (closed.execution, closed.kind) == (theirs, "Trainer")
    assert closed.reason == f"process {process.pid} on {os.uname().nodename} is gone"
    assert (store.state(ours), store.state(theirs)) == (RUNNING, FAILED)
    assert ownership.close_abandoned(store.client) == []


def test_a_stopped_process_is_not_gone(store, sleeper):
    process, owner = sleeper
    _begun(store, **owner)
    process.send_signal(signal.SIGSTOP)
    assert ownership.close_abandoned(store.client) == []


@pytest.mark.parametrize(
    ("changed", "closed"),
    [
        ({}, False),
        # The id was reused by a process that started later, or after another boot.
        ({ownership.STARTED: "0f7d 17"}, True),
        ({ownership.HOST: "elsewhere pid:[1]", ownership.STARTED: "0f7d 17"}, False),
        ({ownership.STARTED: ""}, False),
        ({ownership.PID: None}, False),
        ({ownership.HOST: None}, False),
        ({ownership.STARTED: None}, False),
    ],
)
def test_the_recorded_owner_decides(store, changed, closed):
    owner = {name: value for name, value in {**ownership.owner(), **changed}.items() if value is not None}
    id = _begun(store, **owner)
    assert [one.execution for one in ownership.close_abandoned(store.client)] == ([id] if closed else [])
    assert store.state(id) == (FAILED if closed else RUNNING)


def test_another_machine_of_the_same_name_is_left_alone(store, tmp_path, monkeypatch):
    (tmp_path / "machine-id").write_text("0123\n")
    with monkeypatch.context() as patch:
        patch.setattr(processes, "_MACHINE", tmp_path / "machine-id")
        elsewhere = ownership.owner()
    id = _begun(store, **{**elsewhere, ownership.STARTED: "0f7d 17"})
    assert ownership.close_abandoned(store.client) == [] and store.state(id) == RUNNING


def test_executions_of_a_gone_host_are_closed(store):
    id = _begun(store, **{**ownership.owner(), ownership.HOST: "elsewhere pid:[1]"})
    assert ownership.elsewhere(store.client) == {"elsewhere": 1}
    assert ownership.close_abandoned(store.client, ["another"]) == []
    assert [one.reason for one in ownership.close_abandoned(store.client, ["elsewhere"])] == ["host elsewhere is gone"]
    assert store.state(id) == FAILED


def test_ended_executions_are_unchanged(store):
    gone = {**ownership.owner(), ownership.STARTED: "0f7d 17"}
    done = store.execution("run", "Trainer", {}, {"model": {}}, COMPLETE, **gone)
    assert ownership.close_abandoned(store.client) == []
    assert store.state(done["execution"]) == COMPLETE


def test_more_than_one_page_of_executions(store):
    gone = {**ownership.owner(), ownership.STARTED: "0f7d 17"}
    ids = [_begun(store, **gone) for _ in range(101)]
    assert sorted(one.execution for one in ownership.close_abandoned(open_store(store.config))) == ids


@pytest.mark.long
def test_a_killed_run_is_closed_by_the_next_one_and_its_outputs_are_collected(tmp_path, capfd):
    root = tmp_path / "var"
    settings = [word for setting in (f"pipeline.root={root}", *SMALL) for word in ("--set", setting)]
    first = subprocess.Popen([sys.executable, "-m", "pipeline", "run", *settings], stdout=subprocess.PIPE, text=True)
    for line in first.stdout:
        if line.strip().startswith("train:"):
            break
    config = configuration.load(None, [f"pipeline.root={root}"])
    # It is alive: another run would not close it.
    assert ownership.close_abandoned(open_store(config)) == []
    assert [row["state"] for row in _history(settings, capfd)] == ["running Trainer"]
    first.kill()
    first.communicate()
    assert [row["state"] for row in _history(settings, capfd)] == ["killed at Trainer"]

    assert cli.main(["run", *settings]) == 0
    output = capfd.readouterr().out
    [closed] = [line for line in output.splitlines() if "housekeeping" in line]
    id = re.search(rf"closed as failed: Trainer, execution (\d+): process {first.pid} on", closed)[1]
    assert [row["state"] for row in _history(settings, capfd)] == ["killed at Trainer", "done"]
    orphan = root / "artifacts" / "Trainer" / "model_run" / id
    assert orphan.exists()
    before = {path for path in (root / "artifacts").rglob("*") if path.is_file() and path.parent.name != id}
    assert cli.main(["gc", *settings, "--delete"]) == 0
    assert not orphan.exists() and before == {path for path in (root / "artifacts").rglob("*") if path.is_file()}


def _history(settings, capfd):
    capfd.readouterr()
    assert cli.main(["history", *settings, "--json"]) == 0
    return json.loads(capfd.readouterr().out)["runs"]
