"""The pipeline as a DAG, built from the output of `bitsum node --list --json`: the graph's nodes and edges.

The DAG does not import TFX: the nodes run as programs in the pipeline's own Python environment. BITSUM_GRAPH names the
file.

    acquire_lock >> check >> nodes (a group) >> verdict >> rollout >> release_lock, outcome

`check` fails the run at once if the newest version is for a later span, unless the parameter `allow_older` is set.
`verdict` fails the run and names the gate if one refused the model. `rollout` exists if a server is configured.
Clearing a failed task clears the tasks after it, and acquire_lock and release_lock with them.
"""

import datetime
import json
import os
import pathlib
from typing import Any

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, CronDataIntervalTimetable, Param, TaskGroup
from bitsum_operators import (
    ACQUIRE_LOCK,
    RELEASE_LOCK,
    AcquireLock,
    FailureNotifier,
    NodeOperator,
    ReleaseLock,
    RolloutOperator,
)

_NODES = "nodes"
# The run lock serializes the runs; this many may wait. With 1, a run that waits for an earlier one would block it.
_ACTIVE_RUNS = 64
# A run may poll for the lock for days: a busy scheduler that loses one of these tasks must not end it.
_WAITING_RETRIES = 1000
# Airflow's default is a week; a backfill of a month can take longer.
_WAITING = datetime.timedelta(days=3650)


def pipeline_dag(plan: dict[str, Any]) -> DAG:
    """The DAG of a graph and its schedule."""
    knobs = plan["schedule"]
    notifier = FailureNotifier(plan["root"], plan["folder"], knobs["webhook_file"])
    folders = {"folder": plan["folder"], "root": plan["root"]}
    node_command = [plan["program"], "node", *plan["options"]]
    with DAG(
        plan["pipeline"],
        description="Generates a span, validates it, trains from the last blessed model, evaluates, proves, pushes",
        # The logical date, and so the span, is the start of the interval that has just ended: its data exist.
        schedule=CronDataIntervalTimetable(knobs["cron"], timezone="UTC") if knobs["cron"] else None,
        start_date=datetime.datetime.fromisoformat(knobs["start"]).replace(tzinfo=datetime.timezone.utc),
        catchup=knobs["catchup"],
        max_active_runs=_ACTIVE_RUNS,
        is_paused_upon_creation=False,
        tags=["bitsum", "tfx"],
        params={
            "span": Param(
                None,
                type=["null", "integer", "string"],
                description="A number or a date; empty for the run's logical date",
            ),
            "allow_older": Param(
                False, type="boolean", description="Push the model even if the newest version is for a later span"
            ),
            "set": Param(
                [], type="array", items={"type": "string"}, description="Knobs for this run, such as train.steps=300"
            ),
        },
        default_args={
            "retries": knobs["retries"],
            "retry_delay": datetime.timedelta(seconds=knobs["retry_delay"]),
            "retry_exponential_backoff": True,
            "execution_timeout": datetime.timedelta(seconds=knobs["node_timeout"]),
            "on_failure_callback": notifier,
        },
        on_failure_callback=notifier.run_failed,
        doc_md=__doc__,
    ) as dag:
        acquire = AcquireLock(
            task_id=ACQUIRE_LOCK,
            root=plan["root"],
            span_hours=knobs["span_hours"],
            retries=_WAITING_RETRIES,
            retry_delay=datetime.timedelta(seconds=10),
            retry_exponential_backoff=False,
            execution_timeout=None,
            timeout=_WAITING,
            # By default every waiting run would poll before the next node of the active run starts: the executor
            # queues any number of tasks and starts them in order.
            weight_rule="absolute",
            priority_weight=0,
            max_active_tis_per_dag=1,
        ).as_setup()
        check = NodeOperator(
            task_id="check", command=[*node_command, "check"], span_hours=knobs["span_hours"], **folders
        )
        acquire >> check
        with TaskGroup(_NODES, prefix_group_id=False, tooltip="The nodes of the TFX pipeline") as group:
            nodes = {
                node["id"]: NodeOperator(
                    task_id=node["id"], command=[*node_command, node["id"]], span_hours=knobs["span_hours"], **folders
                )
                for node in plan["nodes"]
            }
            for node in plan["nodes"]:
                [nodes[upstream] for upstream in node["upstream"]] >> nodes[node["id"]]
        last = NodeOperator(
            task_id="verdict", command=[*node_command, "verdict"], span_hours=knobs["span_hours"], **folders
        )
        check >> group >> last
        if knobs["rollout_server"]:
            last >> (last := _rollout(plan, knobs, folders))
        release = ReleaseLock(task_id=RELEASE_LOCK, root=plan["root"], nodes=_NODES, last="verdict")
        last >> release.as_teardown(setups=acquire, on_failure_fail_dagrun=True)
        # Airflow takes a run's state from its leaf tasks, and the verdict is not one once the teardown counts too.
        last >> EmptyOperator(task_id="outcome", trigger_rule="none_failed")
    return dag


def _rollout(plan: dict[str, Any], knobs: dict[str, Any], folders: dict[str, str]) -> RolloutOperator:
    file = knobs["rollout_config_file"]
    command = [
        plan["program"],
        "rollout",
        "--server",
        knobs["rollout_server"],
        "--model_name",
        plan["model_name"],
        "--config_file",
        file,
    ]
    return RolloutOperator(
        task_id="rollout", command=[*command, *knobs.get("rollout_options", [])], config_file=file, **folders
    )


dag = pipeline_dag(json.loads(pathlib.Path(os.environ["BITSUM_GRAPH"]).read_text()))
