"""The DAG that a real Airflow makes of the pipeline's graph and schedule."""

import json
import os
import subprocess

import pytest

from benchmarks import airflow_service
from components.errors import ConfigError
from pipeline import config
from pipeline.cli import main

pytestmark = pytest.mark.airflow

_DAGS = str(airflow_service.TOP / "airflow" / "dags")
CRONS = (
    "@hourly @daily @weekly @monthly @quarterly @yearly @midnight @reboot|61 * * * *|every day|* * * *|0 0 * * 7"
    "|0 0 * * 8|*/15 8-17 * * mon-fri|0 0 l * *|0 0 32 1 *|0 0 0 * *|H 0 * * *|*/0 * * * *|-1 * * * *|0 0 * * sun#6"
)

_SCHEDULES = """
import json, sys
from airflow.timetables.interval import CronDataIntervalTimetable

def accepted(cron):
    try:
        CronDataIntervalTimetable(cron, "UTC").validate()
    except Exception:
        return False
    return True

print(json.dumps([accepted(cron) for cron in json.load(sys.stdin)]))
"""

_DAG = """
import json
from airflow.serialization.serialized_objects import DagSerialization
from airflow.utils.dag_edges import dag_edges
from bitsum_dag import dag

dag.validate()
edges = dag_edges(DagSerialization.from_dict(DagSerialization.to_dict(dag)))
print(json.dumps({
    "edges": [(edge["source_id"], edge["target_id"]) for edge in edges],
    "tasks": dag.task_ids,
    "grouped": sorted(dag.task_group.get_task_group_dict()["nodes"].children),
    "tags": sorted(dag.tags),
    "parameters": {name: dag.params.get_param(name).description for name in dag.params},
}))
"""

_RELEASE = """
import json, pathlib, sys, types
from airflow.sdk.exceptions import AirflowFailException, AirflowRescheduleException
from bitsum_operators import ReleaseLock, run_of
from bitsum_run_lock import RunLock

def ended(states, verdict):
    def of(dag, run_ids, task_group_id=None, task_ids=None):
        return {"run": states if task_group_id == "nodes" else {"verdict": verdict}}
    run = types.SimpleNamespace(dag_id="bitsum", run_id="run")
    context = {"dag_run": run, "ti": types.SimpleNamespace(get_task_states=of)}
    lock = RunLock(sys.argv[1])
    lock.acquire(run_of(context), lambda other: False)
    try:
        ReleaseLock(task_id="release_lock", root=sys.argv[1], nodes="nodes", last="verdict").execute(context)
        how = "done"
    except (AirflowFailException, AirflowRescheduleException) as error:
        how = type(error).__name__
    return [how, lock.file.exists()]

print(json.dumps([
    ended({"Trainer": "failed", "Evaluator": state}, "upstream_failed")
    for state in ("running", "up_for_retry", None, "upstream_failed", "success")
] + [ended({"Trainer": "skipped"}, "skipped")]))
"""


def airflow(script: str, home, text: str = "", **environment: str):
    """The JSON that a script prints in Airflow's environment."""
    done = subprocess.run(
        [airflow_service.PYTHON, "-c", script, str(home)],
        input=text,
        capture_output=True,
        text=True,
        env={**os.environ, "AIRFLOW_HOME": str(home), **environment},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def is_accepted(cron: str) -> bool:
    try:
        config.load(None, [f"schedule.cron='{cron}'"])
    except ConfigError:
        return False
    return True


def test_a_cron_is_accepted_if_airflow_can_schedule_it(tmp_path):
    crons = [cron for part in CRONS.split("|") for cron in (part.split() if part.startswith("@") else [part])]
    ours = {cron: is_accepted(cron) for cron in crons}
    assert ours == dict(zip(crons, airflow(_SCHEDULES, tmp_path, json.dumps(crons)), strict=True))
    assert {True, False} == set(ours.values())


def test_the_lock_is_released_once_no_node_runs(tmp_path):
    (tmp_path / "schedule").mkdir()
    waits, released = ["AirflowRescheduleException", True], ["done", False]
    assert airflow(_RELEASE, tmp_path, PYTHONPATH=_DAGS) == [
        waits,
        waits,
        waits,
        released,
        released,
        ["AirflowFailException", False],
    ]


def test_the_graph_has_its_own_edges_and_one_into_and_out_of_the_group(tmp_path, capsys):
    settings = [f"pipeline.root={tmp_path}", "schedule.rollout_server=127.0.0.1:9", "schedule.rollout_config_file=c"]
    assert main(["node", "--list", "--json", *(word for each in settings for word in ("--set", each))]) == 0
    plan = json.loads(capsys.readouterr().out)
    (tmp_path / "graph.json").write_text(json.dumps(plan))
    made = airflow(_DAG, tmp_path, BITSUM_GRAPH=str(tmp_path / "graph.json"), PYTHONPATH=_DAGS)
    nodes = {node["id"] for node in plan["nodes"]}
    assert set(made["grouped"]) == nodes and len(nodes) > 10
    outside = {tuple(edge) for edge in made["edges"] if not set(edge) <= nodes}
    inside = {tuple(edge) for edge in made["edges"]} - outside
    assert inside == {(upstream, node["id"]) for node in plan["nodes"] for upstream in node["upstream"]}
    assert {(source, target) for source, target in outside if not {source, target} & nodes} == {
        ("acquire_lock", "check"),
        ("acquire_lock", "release_lock"),
        ("check", "nodes.upstream_join_id"),
        ("nodes.downstream_join_id", "verdict"),
        ("verdict", "rollout"),
        ("rollout", "release_lock"),
        ("rollout", "outcome"),
    }
    assert {end for edge in outside if set(edge) & nodes for end in set(edge) - nodes} == {
        "nodes.upstream_join_id",
        "nodes.downstream_join_id",
    }
    assert made["tags"] == ["bitsum", "tfx"]
    assert all(made["parameters"].values()) and set(made["parameters"]) == {"span", "allow_older", "set"}
