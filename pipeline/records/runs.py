"""The runs in a metadata store, one row each: state, verdicts of the gates, pushed version, and margin."""

import contextlib
import dataclasses
import datetime
from collections.abc import Iterable
from typing import Any

from ml_metadata.proto import metadata_store_pb2 as mlmd

from components import properties, regular_files, results
from components.errors import ConfigError
from components.settings import Data
from pipeline import nodes
from pipeline.records import ownership, verdicts
from pipeline.records.lineage_graph import LineageGraph, Output

_DONE = (mlmd.Execution.COMPLETE, mlmd.Execution.CACHED)
_NOT_REACHED = "-"


@dataclasses.dataclass(frozen=True)
class Run:
    """A run; times are in UTC. `date`: what the span was given as, empty for a number.

    `state`: "done", "refused", "failed at NODE", "killed at NODE" or "running NODE", or "unfinished" between two nodes.
    `gates`: each gate's verdict in a word, in the order of the graph; `reasons`: the reasons of refusals. `version`:
    the pushed version, new or not; 0 for none. `margin`: the certified worst margin; `change`: the difference from the
    previous run that has one.
    """

    run: str
    span: int
    date: str
    started: datetime.datetime
    finished: datetime.datetime
    state: str
    cached: int
    steps: int
    gates: dict[str, str]
    reasons: dict[str, str]
    version: int
    is_new: bool
    margin: float | None
    change: float | None


@dataclasses.dataclass(frozen=True)
class History:
    """The runs, oldest first."""

    runs: list[Run]


def all_runs(lineage: LineageGraph, last: int = 0) -> History:
    """The runs, oldest first; only the `last` ones unless that is 0."""
    first_execution = {run: execution for execution, run in sorted(lineage.run_of.items(), reverse=True)}
    ids = sorted(first_execution, key=first_execution.__getitem__)
    shown = set(ids[-last:])
    rows: list[Run] = []
    previous = None
    for run_id in ids:
        outputs = lineage.outputs_of(run_id)
        margin = verdicts.margin_of_run(outputs)
        if run_id in shown:
            rows.append(_run(lineage, run_id, outputs, margin, previous))
        previous = previous if margin is None else margin
    return History(rows)


def _run(
    lineage: LineageGraph, run_id: str, outputs: list[Output], margin: float | None, previous: float | None
) -> Run:
    attempts = [lineage.executions[id] for id in lineage.executions_of(run_id)]
    # The last attempt at a node counts.
    executions = {lineage.node_of[execution.id]: execution for execution in attempts}
    blessings = verdicts.of_run(outputs)
    push = verdicts.push_of_run(outputs)
    refusals = _refusals(executions)
    gates = {nodes.DATA: _data(executions)} | {verdict.gate: verdict.word for verdict in blessings}
    gates |= {nodes.INFRA_VALIDATION: verdicts.REFUSED} if nodes.INFRA_VALIDATION in refusals else {}
    span, date = _span(executions.values(), outputs)
    return Run(
        run=run_id,
        span=span,
        date=date,
        started=results.from_milliseconds(min(execution.create_time_since_epoch for execution in attempts)),
        finished=results.from_milliseconds(max(execution.last_update_time_since_epoch for execution in attempts)),
        state=_state(executions, any(not verdict.passed for verdict in blessings)),
        cached=sum(execution.last_known_state == mlmd.Execution.CACHED for execution in executions.values()),
        steps=len(executions),
        gates=gates,
        reasons=refusals | {verdict.gate: verdict.reason for verdict in blessings if not verdict.passed},
        version=push.version,
        is_new=push.is_new,
        margin=margin,
        change=None if margin is None or previous is None else margin - previous,
    )


def _span(executions: Iterable[mlmd.Execution], outputs: list[Output]) -> tuple[int, str]:
    """The number and the date in the generator's parameter: a span whose import was refused has no output that holds
    it."""
    for execution in executions:
        if "data" in execution.custom_properties:
            # settings.Data would reject the other knobs of another version.
            with contextlib.suppress(ValueError, KeyError, TypeError, ConfigError):
                knobs: Any = regular_files.parse_json(execution.custom_properties["data"].string_value)
                data = Data(span=knobs["span"])
                return data.span, data.span_date
    name = properties.SPAN
    return max(
        (output.artifact.properties[name].int_value for output in outputs if name in output.artifact.properties),
        default=0,
    ), ""


def _refusals(executions: dict[str, mlmd.Execution]) -> dict[str, str]:
    """The reasons of the gates that raise when they refuse."""
    return {
        nodes.REFUSING.get(node, node): execution.custom_properties[properties.REFUSED_BECAUSE].string_value
        for node, execution in executions.items()
        if _refused(execution)
    }


def _data(executions: dict[str, mlmd.Execution]) -> str:
    if any(_refused(execution) and nodes.REFUSING.get(node) == nodes.DATA for node, execution in executions.items()):
        return verdicts.REFUSED
    last = executions.get(nodes.DATA_GATE)
    return "passed" if last is not None and last.last_known_state in _DONE else _NOT_REACHED


def _state(executions: dict[str, mlmd.Execution], refused: bool) -> str:
    for node, execution in executions.items():
        if execution.last_known_state == mlmd.Execution.RUNNING:
            return f"killed at {node}" if ownership.why_abandoned(execution) else f"running {node}"
        if execution.last_known_state == mlmd.Execution.FAILED:
            if ownership.CLOSED in execution.custom_properties:
                return f"killed at {node}"
            return "refused" if _refused(execution) else f"failed at {node}"
    if refused:
        return "refused"
    push = executions.get(nodes.PUSHER)
    return "done" if push is not None and push.last_known_state in _DONE else "unfinished"


def _refused(execution: mlmd.Execution) -> bool:
    return (
        execution.last_known_state == mlmd.Execution.FAILED
        and properties.REFUSED_BECAUSE in execution.custom_properties
    )
