"""`bitsum node`: the nodes, each in a process of its own, have the same result as `bitsum run`."""

import json
import pathlib
import subprocess
import sys

import pytest

from components.savedmodel import version_folder
from pipeline import cli
from pipeline import config as configuration
from pipeline.commands import node as node_command
from pipeline.runner import node as runner
from tests.pipeline.conftest import SMALL

BITSUM = str(pathlib.Path(sys.executable).with_name("bitsum"))


@pytest.fixture
def node(tmp_path):
    """A function: arguments -> the result of `bitsum node` with them, in tmp_path / "var"."""
    knobs = [word for knob in (f"pipeline.root={tmp_path / 'var'}", *SMALL) for word in ("--set", knob)]

    def run(*arguments: str) -> subprocess.CompletedProcess:
        return subprocess.run([BITSUM, "node", *arguments, *knobs], capture_output=True, text=True)

    return run


def test_the_list_is_the_graph_in_topological_order(node, tmp_path):
    done = node("--list", "--json", "--set", "data.span=3")
    plan = json.loads(done.stdout)
    assert plan["program"] == BITSUM and plan["root"] == str(tmp_path / "var")
    assert plan["options"][-2:] == ["--set", SMALL[-1]]
    seen = set()
    for one in plan["nodes"]:
        assert set(one["upstream"]) <= seen, one
        seen.add(one["id"])
    upstream = {one["id"]: set(one["upstream"]) for one in plan["nodes"]}
    assert {"DataGate"} <= upstream["Trainer"] and {"Trainer", "Prover", "InfraValidator"} <= upstream["Pusher"]


@pytest.mark.parametrize("knob", ["data.span=9", "train.warm_start=false", "spans.request_log=log"])
def test_the_edges_are_those_that_tfx_compiles(knob, tmp_path):
    config = configuration.load(None, [f"pipeline.root={tmp_path}", "data.span=1", knob])
    compiled = {
        one.pipeline_node.node_info.id: sorted(one.pipeline_node.upstream_nodes)
        for one in runner.compile_pipeline(config).nodes
    }
    assert {one: sorted(before) for one, before in node_command._graph(config).items()} == compiled


@pytest.mark.long
def test_exit_codes_are_3_for_a_refusal_1_for_a_failure_2_for_wrong_usage(node, tmp_path):
    done = node("Nobody", "--run-id", "one")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "unknown node 'Nobody'" in done.stderr and "Trainer" in done.stderr
    done = node("verdict", "--run-id", "one")
    assert done.returncode == 1 and "has pushed nothing" in done.stderr
    done = node("Trainer", "--run-id", "a/b")
    assert done.returncode == 2 and "'a/b'" in done.stderr

    for name in ("BitstringExampleGen", "ArithmeticValidator"):
        assert node(name, "--run-id", "one").returncode == 0
    assert node("ArithmeticValidator", "--run-id", "two").returncode == 1, "its examples are not there in another run"
    assert node("BitstringExampleGen", "--run-id", "two").returncode == 0
    # After the generator, which would not reuse damaged files from the cache.
    [folder] = (tmp_path / "var" / "artifacts" / "BitstringExampleGen" / "examples").iterdir()
    for file in (folder / "Split-eval").iterdir():
        file.write_bytes(file.read_bytes()[:100])
    # The cached result is that of the whole files.
    assert node("ArithmeticValidator", "--run-id", "two", "--set", "pipeline.cache=false").returncode == 0
    done = node("ReadabilityGate", "--run-id", "two")
    assert (done.returncode, len(done.stderr.splitlines())) == (3, 1)
    assert done.stderr.startswith("bitsum: data gate refused: ")


def test_check_refuses_a_span_before_that_of_the_newest_version(node, tmp_path):
    served = tmp_path / "var" / "serving" / "bitsum"
    assert node("check", "--run-id", "one").returncode == 0
    (tmp_path / "model").mkdir()
    version_folder.push(tmp_path / "model", served, "identity", {"span": 3})
    for span, code in ((2, 3), (3, 0), (4, 0)):
        done = node("check", "--run-id", "one", "--set", f"data.span={span}")
        assert done.returncode == code and len(done.stderr.splitlines()) == (code != 0)
        assert code == 0 or done.stderr.startswith("bitsum: push refused: span 2 is earlier than span 3 of version ")
    assert node("check", "--run-id", "one", "--set", "data.span=2", "--allow-older").returncode == 0


def test_node_requires_a_run_id(capsys):
    assert cli.main(["node", "Trainer"]) == 2
    assert "--run-id" in capsys.readouterr().err
