"""Run the pipeline here: node after node in this process, or one node of a run that somebody else schedules."""

import contextlib
import pathlib
import tempfile
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from components.errors import BitsumError, Refusal
from pipeline.config import Config
from pipeline.records import metadata_store, ownership
from pipeline.runner import node

if TYPE_CHECKING:
    from pipeline.records.verdicts import Push

# What a person calls the nodes.
STAGES = {
    "BitstringExampleGen": "generate",
    "ArithmeticValidator": "validate sums",
    "ReadabilityGate": "readability check",
    "StatisticsGen": "statistics",
    "ImportSchemaGen": "schema",
    "ExampleValidator": "validate schema",
    "PreviousSpan": "previous span",
    "RequestStatistics": "requests",
    "DriftValidator": "validate drift",
    "DataGate": "data gate",
    "WindowSpans": "spans",
    "SpanWindow": "window",
    "BaseModel": "base model",
    "Trainer": "train",
    "LastBlessedModel": "last blessed",
    "Evaluator": "evaluate",
    "Prover": "prove",
    "InfraValidator": "infra-validate",
    "Pusher": "push",
}


def run(
    config: Config,
    run_id: str,
    begin: Callable[[str], None],
    end: Callable[[str], None],
    only: str = "",
    allow_older: bool = False,
) -> None:
    """Run every node in topological order, or `only` one; `begin` is told the stage, `end` what came of it.

    Args:
        allow_older: whether a model may be pushed that is older than the newest version (components.savedmodel.push_order).

    Raises:
        BitsumError: a gate refused, or a step failed; the text names the step.
    """
    graph = node.compile_pipeline(config, allow_older)
    node.set_run_id(graph, run_id)
    connection = metadata_store.connection(config)
    _keep_house(config, begin, end)
    with _temporary_files_in(config.root / "tmp"):
        for node_id in [only] if only else node.node_ids(graph):
            stage = STAGES.get(node_id, node_id)
            begin(stage)
            try:
                cached = node.run_node(graph, node_id, connection)
            except Exception as error:
                ours = _ours(error)
                if isinstance(ours, Refusal):
                    node.record_rejection(graph, node_id, connection, ours.reason)
                raise ours or BitsumError(f"step {stage!r} failed: {_one_line(error)}") from error
            end("cached" if cached else "done")


@contextlib.contextmanager
def _temporary_files_in(folder: pathlib.Path) -> Iterator[None]:
    """Beam and AutoGraph leave files behind in the temporary folder: give them one of ours."""
    before, tempfile.tempdir = tempfile.tempdir, str(folder)
    try:
        yield
    finally:
        tempfile.tempdir = before


def _keep_house(config: Config, begin: Callable[[str], None], end: Callable[[str], None]) -> None:
    """Close what a killed process left RUNNING; nothing is said where there is nothing to close."""
    with metadata_store.opened(config) as store:
        closed = ownership.close_abandoned(store)
    if closed:
        begin("housekeeping")
        first = f"{closed[0].kind}, execution {closed[0].execution}: {closed[0].reason}"
        end(f"closed as failed: {first}" + (f"; and {len(closed) - 1} more" if len(closed) > 1 else ""))


def conclude(config: Config, run_id: str, line: Callable[[str], None]) -> "Push":
    """What the gates of a run said, a line each, and what it pushed.

    Raises:
        Refusal: of the first gate that refused the model; the text has the reason.
        BitsumError: the run has not come as far as the last gate.
    """
    from pipeline.records import verdicts
    from pipeline.records.lineage_graph import LineageGraph

    with metadata_store.opened(config) as store:
        outputs = LineageGraph(store).outputs_of(run_id)
    found = verdicts.of_run(outputs)
    for verdict in found:
        line(f"  {verdict.gate}: {verdict.word}, {verdict.reason}")
    refused = [verdict for verdict in found if not verdict.passed]
    if refused:
        raise Refusal(refused[0].gate, f"{refused[0].reason}; nothing was pushed")
    push = verdicts.push_of_run(outputs)
    if not push.version:
        raise BitsumError(f"run {run_id} has pushed nothing, and no gate of it refused: its nodes are not all done")
    line(f"  version {push.version} {'pushed' if push.is_new else 'is this very model, not pushed again'}: {push.path}")
    return push


def _one_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or ["no message"]
    # TensorFlow begins with 'in user code:' and ends with what went wrong there.
    return f"{type(error).__name__}: {lines[-1 if lines[0].endswith(':') else 0]}"


def _ours(error: BaseException | None) -> BitsumError | None:
    """The error of ours among the causes, if any: Beam and TFX put their own around it."""
    while error is not None:
        if isinstance(error, BitsumError):
            # Beam adds the names of its transforms to the text of what it passes on.
            error.args = (str(error).partition(" [while running ")[0],)
            return error
        error = error.__cause__ or error.__context__
    return None
