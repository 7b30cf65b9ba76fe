"""The pipeline as a DAG: a task per node with the graph's own edges, made of what `bitsum node --list --json` wrote.

Nothing of TFX is imported: the nodes run in the Python environment of the pipeline, as programs. BITSUM_GRAPH names the
file.

    take_turn >> check >> the nodes >> verdict >> rollout >> give_back_turn, outcome

`check` fails the run at once if the newest version is for a later span, unless the parameter `allow_older` is set.
`verdict` fails the run and names the gate if one refused the model; `rollout` is there where a server is configured.
Clearing a failed task clears the tasks after it, and take_turn and give_back_turn with them.
"""

import datetime
import json
import os
import pathlib
from typing import Any

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, CronDataIntervalTimetable, Param
from bitsum_operators import GIVE_BACK_TURN, Alarm, GiveBackTurn, NodeOperator, RolloutOperator, TakeTurn

# The turn makes the runs wait for one another; this many may wait. With 1, a run that waits for an earlier one would
# keep it out.
_ACTIVE_RUNS = 64
# A run may ask for its turn for days, once every few seconds: a busy scheduler that loses one of these tasks must not
# end it.
_WAITING_RETRIES = 1000
# Airflow's own limit is a week, which a backfill of a month may well take.
_WAITING = datetime.timedelta(days=3650)


def pipeline_dag(plan: dict[str, Any]) -> DAG:
    """The DAG of a graph and its schedule."""
    knobs = plan["schedule"]
    alarm = Alarm(plan["root"], plan["folder"], knobs["webhook_file"])
    place = {"folder": plan["folder"], "root": plan["root"]}
    node_command = [plan["program"], "node", *plan["options"]]
    with DAG(
        plan["pipeline"],
        description="Generates a span, validates it, trains from the last blessed model, evaluates, proves, pushes",
        # A run's logical date, and with it the span, is the start of the time that has just ended: its data are there.
        schedule=CronDataIntervalTimetable(knobs["cron"], timezone="UTC") if knobs["cron"] else None,
        start_date=datetime.datetime.fromisoformat(knobs["start"]).replace(tzinfo=datetime.timezone.utc),
        catchup=knobs["catchup"],
        max_active_runs=_ACTIVE_RUNS,
        is_paused_upon_creation=False,
        params={
            "span": Param(
                None,
                type=["null", "integer", "string"],
                description="A number, or a date; empty for the run's logical date",
            ),
            "allow_older": Param(
                False, type="boolean", description="Push the model also if the newest version is for a later span"
            ),
            "set": Param(
                [], type="array", items={"type": "string"}, description="Knobs for this run, as train.steps=300"
            ),
        },
        default_args={
            "retries": knobs["retries"],
            "retry_delay": datetime.timedelta(seconds=knobs["retry_delay"]),
            "retry_exponential_backoff": True,
            "execution_timeout": datetime.timedelta(seconds=knobs["node_timeout"]),
            "on_failure_callback": alarm,
        },
        on_failure_callback=alarm.of_run,
        doc_md=__doc__,
    ) as dag:
        first = TakeTurn(
            task_id="take_turn",
            root=plan["root"],
            span_hours=knobs["span_hours"],
            retries=_WAITING_RETRIES,
            retry_delay=datetime.timedelta(seconds=10),
            retry_exponential_backoff=False,
            execution_timeout=None,
            timeout=_WAITING,
            # Airflow's own rules would have all who wait ask before a node of the run that works begins: its executor
            # takes any number of tasks, and starts them in the order that they came in.
            weight_rule="absolute",
            priority_weight=0,
            max_active_tis_per_dag=1,
        ).as_setup()
        check = NodeOperator(task_id="check", command=[*node_command, "check"], span_hours=knobs["span_hours"], **place)
        first >> check
        nodes = {
            node["id"]: NodeOperator(
                task_id=node["id"], command=[*node_command, node["id"]], span_hours=knobs["span_hours"], **place
            )
            for node in plan["nodes"]
        }
        last = NodeOperator(
            task_id="verdict", command=[*node_command, "verdict"], span_hours=knobs["span_hours"], **place
        )
        waited_for = {upstream for node in plan["nodes"] for upstream in node["upstream"]}
        for node in plan["nodes"]:
            ([nodes[upstream] for upstream in node["upstream"]] or check) >> nodes[node["id"]]
            if node["id"] not in waited_for:
                nodes[node["id"]] >> last
        if knobs["rollout_server"]:
            last >> (last := _rollout(plan, knobs, place))
        # After every node and not just the last: where a gate refuses, others may still be at work when the last is
        # given up.
        give_back = GiveBackTurn(task_id=GIVE_BACK_TURN, root=plan["root"], last="verdict")
        [*nodes.values(), last] >> give_back.as_teardown(setups=first, on_failure_fail_dagrun=True)
        # What a run is called in the end: Airflow asks the last tasks, and the verdict is not one once the teardown
        # counts, too.
        last >> EmptyOperator(task_id="outcome", trigger_rule="none_failed")
    return dag


def _rollout(plan: dict[str, Any], knobs: dict[str, Any], place: dict[str, str]) -> RolloutOperator:
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
        task_id="rollout", command=[*command, *knobs.get("rollout_options", [])], config_file=file, **place
    )


dag = pipeline_dag(json.loads(pathlib.Path(os.environ["BITSUM_GRAPH"]).read_text()))
