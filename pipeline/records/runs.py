"""The runs that a metadata store knows, each as one row: how far it came, what every gate said, what it pushed, and its
margin."""

import contextlib
import dataclasses
import datetime
import json

from ml_metadata.proto import metadata_store_pb2 as mlmd

from components import results
from pipeline.records import ownership, recorded, verdicts
from pipeline.records.lineage_graph import LineageGraph, Output

DATA = "data"
PUSH = "push"
INFRA = "infra validation"
# These raise when they refuse, and so does the push, and infra validation where its server crashes; the others put out
# a blessing.
_DATA_GATES = ("BitstringExampleGen", "ReadabilityGate", "DataGate")
_DONE = (mlmd.Execution.COMPLETE, mlmd.Execution.CACHED)
_LAST_NODE = "Pusher"
_GATES = {**dict.fromkeys(_DATA_GATES, DATA), "InfraValidator": INFRA, _LAST_NODE: PUSH}
_NOT_REACHED = "-"


@dataclasses.dataclass(frozen=True)
class Run:
    """A run; times are in UTC.

    `state`: "done", "refused", "failed at NODE", "killed at NODE" or "running NODE", or "unfinished" between two nodes.
    `gates`: what each gate said, in a word, in the order of the graph; `reasons`: why, where it refused. `version`:
    what was pushed, also where it was pushed before; 0 for nothing. `margin`: the certified worst margin, and `change`
    the difference to the last run before that has one.
    """

    run: str
    span: int
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
    """The runs, oldest first; only the `last` ones if that is not 0."""
    ids = sorted(
        {run: execution for execution, run in sorted(lineage.run_of.items(), reverse=True)}.items(),
        key=lambda item: item[1],
    )
    rows: list[Run] = []
    before = None
    for position, (run_id, _) in enumerate(ids):
        outputs = lineage.outputs_of(run_id)
        margin = next((float(output.text(recorded.MARGIN)) for output in outputs if output.text(recorded.MARGIN)), None)
        if not last or position >= len(ids) - last:
            rows.append(_run(lineage, run_id, outputs, margin, before))
        before = before if margin is None else margin
    return History(rows)


def _run(lineage: LineageGraph, run_id: str, outputs: list[Output], margin: float | None, before: float | None) -> Run:
    attempts = [lineage.executions[id] for id in lineage.executions_of(run_id)]
    # What became of a node is what became of the last attempt at it.
    executions = list({lineage.node_of[execution.id]: execution for execution in attempts}.values())
    found = verdicts.of_run(outputs)
    push = verdicts.push_of_run(outputs)
    refusals = _refusals(lineage, executions)
    gates = {DATA: _data(lineage, executions)} | {verdict.gate: verdict.word for verdict in found}
    gates |= {INFRA: verdicts.REFUSED} if INFRA in refusals else {}
    return Run(
        run=run_id,
        span=_span(executions, outputs),
        started=results.from_milliseconds(min(execution.create_time_since_epoch for execution in attempts)),
        finished=results.from_milliseconds(max(execution.last_update_time_since_epoch for execution in attempts)),
        state=_state(lineage, executions, any(not verdict.passed for verdict in found)),
        cached=sum(execution.last_known_state == mlmd.Execution.CACHED for execution in executions),
        steps=len(executions),
        gates=gates,
        reasons=refusals | {verdict.gate: verdict.reason for verdict in found if not verdict.passed},
        version=push.version,
        is_new=push.is_new,
        margin=margin,
        change=None if margin is None or before is None else margin - before,
    )


def _span(executions: list[mlmd.Execution], outputs: list[Output]) -> int:
    """As the generator was told: a span that it refused to import has no output that would say so."""
    for execution in executions:
        if "data" in execution.custom_properties:
            # Knobs of another version may be unknown here, so that this is no settings.Data.
            with contextlib.suppress(ValueError, KeyError, TypeError):
                return int(json.loads(execution.custom_properties["data"].string_value)["span"])
    return max(
        (output.artifact.properties["span"].int_value for output in outputs if "span" in output.artifact.properties),
        default=0,
    )


def _refusals(lineage: LineageGraph, executions: list[mlmd.Execution]) -> dict[str, str]:
    """Why the gates refused that raise when they do."""
    return {
        _GATES.get(lineage.node_of[execution.id], lineage.node_of[execution.id]): execution.custom_properties[
            recorded.REFUSED_BECAUSE
        ].string_value
        for execution in executions
        if _refused(execution)
    }


def _data(lineage: LineageGraph, executions: list[mlmd.Execution]) -> str:
    states = {
        lineage.node_of[execution.id]: execution
        for execution in executions
        if lineage.node_of[execution.id] in _DATA_GATES
    }
    if any(map(_refused, states.values())):
        return verdicts.REFUSED
    last = states.get(_DATA_GATES[-1])
    return "passed" if last is not None and last.last_known_state in _DONE else _NOT_REACHED


def _state(lineage: LineageGraph, executions: list[mlmd.Execution], refused: bool) -> str:
    for execution in executions:
        node = lineage.node_of[execution.id]
        if execution.last_known_state == mlmd.Execution.RUNNING:
            return f"killed at {node}" if ownership.why_abandoned(execution) else f"running {node}"
        if execution.last_known_state == mlmd.Execution.FAILED:
            if _killed(execution):
                return f"killed at {node}"
            return "refused" if _refused(execution) else f"failed at {node}"
    if refused:
        return "refused"
    done = {lineage.node_of[execution.id] for execution in executions if execution.last_known_state in _DONE}
    return "done" if _LAST_NODE in done else "unfinished"


def _refused(execution: mlmd.Execution) -> bool:
    return (
        execution.last_known_state == mlmd.Execution.FAILED and recorded.REFUSED_BECAUSE in execution.custom_properties
    )


def _killed(execution: mlmd.Execution) -> bool:
    return ownership.CLOSED in execution.custom_properties
