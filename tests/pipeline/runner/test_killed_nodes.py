"""`bitsum node` is killed and retried, as by a scheduler: nothing stays RUNNING, and the store records the cause."""

import json
import signal
import subprocess
import sys

import pytest
from ml_metadata.proto import metadata_store_pb2 as mlmd

from pipeline import cli
from pipeline import config as configuration
from pipeline.records import ownership
from pipeline.records.metadata_store import open_store
from tests.pipeline.conftest import SMALL

# The process kills itself as soon as its execution is in the store, or once its executor has begun.
_DIES = """
import os, signal, sys
from pipeline import cli; from pipeline.runner import owned_metadata
def dying(put):
    def put_and_die(self, execution, *args, **options):
        result = put(self, execution, *args, **options)
        begun = execution if isinstance(execution, list) else [execution]
        if any(one.last_known_state == one.RUNNING for one in begun):
            os.kill(os.getpid(), signal.SIGKILL)
        return result
    return put_and_die
if sys.argv[1] == "registered":
    for name in ("put_execution", "put_executions"):
        setattr(owned_metadata._Stamping, name, dying(getattr(owned_metadata._Stamping, name)))
else:
    from tfx.orchestration.portable import outputs_utils
    outputs_utils.make_output_dirs = lambda outputs: os.kill(os.getpid(), signal.SIGKILL)
cli.main(sys.argv[2:])
"""
_STATE = mlmd.Execution.State.Name


class Root:
    """A folder in which nodes are run, each in a process of its own."""

    def __init__(self, folder):
        knobs = [f"pipeline.root={folder}", *SMALL, "data.span=3"]
        self.knobs = [word for knob in knobs for word in ("--set", knob)]
        self.config = configuration.load(None, knobs)

    def node(self, name: str, run: str = "one", *more: str) -> int:
        """The exit code of the node that is run here."""
        return cli.main(["node", name, "--run-id", run, *self.knobs, *more])

    def killed(self, name: str, when: str, run: str = "one") -> int:
        """The id of the process that was killed."""
        command = [sys.executable, "-c", _DIES, when, "node", name, "--run-id", run, *self.knobs]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            assert process.wait() == -signal.SIGKILL
            return process.pid

    def states(self, name: str) -> list[tuple[str, str]]:
        """(state, why it was closed) of the executions of a type of node, oldest first."""
        store = open_store(self.config)
        [context] = [context for context in store.get_contexts_by_type("node") if context.name.endswith(f".{name}")]
        found = sorted(store.get_executions_by_context(context.id), key=lambda execution: execution.id)
        return [(_STATE(one.last_known_state), one.custom_properties[ownership.CLOSED].string_value) for one in found]


@pytest.fixture
def root(tmp_path):
    return Root(tmp_path / "var")


def test_killed_attempts_at_a_resolver_are_closed_by_the_next_attempt(root, capfd):
    assert root.node("BitstringExampleGen") == 0
    pids = [root.killed("WindowSpans", "registered") for _ in range(2)]
    assert "RUNNING" in [state for state, _ in root.states("WindowSpans")]
    assert root.node("WindowSpans") == 0
    *closed, last = root.states("WindowSpans")
    assert last == ("COMPLETE", "") and closed
    for state, reason in closed:
        assert state == "FAILED" and any(f"process {pid} on" in reason and "is gone" in reason for pid in pids), (
            reason,
            pids,
        )
    capfd.readouterr()
    assert cli.main(["history", "--json", *root.knobs]) == 0
    [row] = json.loads(capfd.readouterr().out)["runs"]
    assert (row["state"], row["steps"]) == ("unfinished", 2), "the last attempt at the node went well"


@pytest.mark.parametrize("when", ["registered", "begun"])
def test_a_killed_node_with_an_executor_reuses_its_execution(root, when):
    root.killed("BitstringExampleGen", when)
    assert [state for state, _ in root.states("BitstringExampleGen")] == ["RUNNING"]
    assert root.node("BitstringExampleGen") == 0
    assert root.states("BitstringExampleGen") == [("COMPLETE", "")]


def test_a_retry_can_come_from_the_cache(root):
    assert root.node("BitstringExampleGen", "one") == 0
    root.killed("BitstringExampleGen", "registered", "two")
    assert root.node("BitstringExampleGen", "two") == 0
    assert root.states("BitstringExampleGen") == [("COMPLETE", ""), ("CACHED", "")]


def test_a_failed_retry_leaves_nothing_running(root):
    pid = root.killed("BitstringExampleGen", "registered")
    assert root.node("BitstringExampleGen", "one", "--set", "train.steps=none") == 2
    assert root.node("BitstringExampleGen", "one", "--set", f"spans.source={root.config.root}/none") == 1
    [(state, reason)] = root.states("BitstringExampleGen")
    assert state == "FAILED" and str(pid) not in reason
