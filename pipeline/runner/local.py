"""Run the pipeline on this machine: all nodes in this process, or one node of a scheduled run."""

import contextlib
import pathlib
import tempfile
from collections.abc import Callable, Iterator

from components.errors import BitsumError, Refusal
from pipeline import nodes
from pipeline.config import Config
from pipeline.records import metadata_store, ownership
from pipeline.runner import node


def run(
    config: Config,
    run_id: str,
    begin: Callable[[str], None],
    end: Callable[[str], None],
    only: str = "",
    allow_older: bool = False,
) -> None:
    """Run every node in topological order, or `only` one; `begin` gets the stage, `end` its result.

    Args:
        allow_older: whether a model older than the newest version may be pushed (components.savedmodel.push_order).

    Raises:
        BitsumError: a gate refused, or a step failed; the text names the step.
    """
    graph = node.compile_pipeline(config, allow_older)
    node.set_run_id(graph, run_id)
    connection = metadata_store.connection(config)
    _close_abandoned(config, begin, end)
    with _temporary_files_in(config.root / "tmp"):
        for node_id in [only] if only else node.node_ids(graph):
            stage = nodes.STAGES.get(node_id, node_id)
            begin(stage)
            try:
                cached = node.run_node(graph, node_id, connection)
            except Exception as error:
                cause = bitsum_error(error)
                if isinstance(cause, Refusal):
                    node.record_rejection(graph, node_id, connection, cause.reason)
                raise cause or BitsumError(f"step {stage!r} failed: {_one_line(error)}") from error
            end("cached" if cached else "done")


@contextlib.contextmanager
def _temporary_files_in(folder: pathlib.Path) -> Iterator[None]:
    """Beam and AutoGraph leave files in the temporary folder: give them the pipeline's own."""
    before, tempfile.tempdir = tempfile.tempdir, str(folder)
    try:
        yield
    finally:
        tempfile.tempdir = before


def _close_abandoned(config: Config, begin: Callable[[str], None], end: Callable[[str], None]) -> None:
    """Close executions that a killed process left RUNNING, and report them if there are any."""
    with metadata_store.opened(config) as store:
        closed = ownership.close_abandoned(store)
    if closed:
        begin("housekeeping")
        first = f"{closed[0].kind}, execution {closed[0].execution}: {closed[0].reason}"
        end(f"closed as failed: {first}" + (f"; and {len(closed) - 1} more" if len(closed) > 1 else ""))


def _one_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or ["no message"]
    # TensorFlow begins with 'in user code:' and ends with the error.
    return f"{type(error).__name__}: {lines[-1 if lines[0].endswith(':') else 0]}"


def bitsum_error(error: BaseException | None) -> BitsumError | None:
    """The BitsumError among the causes, if any: Beam and TFX wrap it in their own."""
    while error is not None:
        if isinstance(error, BitsumError):
            # Beam appends the names of its transforms.
            error.args = (str(error).partition(" [while running ")[0],)
            return error
        error = error.__cause__ or error.__context__
    return None
