"""Run the pipeline here, node after node in this process."""

import tempfile
from collections.abc import Callable

from components.errors import BitsumError
from pipeline import metadata_store, node
from pipeline.config import Config

# What a person calls the nodes.
STAGES = {
    "BitstringExampleGen": "generate",
    "ArithmeticValidator": "validate sums",
    "ReadableGate": "readable gate",
    "StatisticsGen": "statistics",
    "ImportSchemaGen": "schema",
    "ExampleValidator": "validate schema",
    "DataGate": "data gate",
    "Trainer": "train",
    "LastBlessedModel": "last blessed",
    "Evaluator": "evaluate",
    "Prover": "prove",
    "InfraValidator": "infra-validate",
    "Pusher": "push",
}


def run(config: Config, run_id: str, begin: Callable[[str], None], end: Callable[[str], None]) -> None:
    """Run every node in topological order; `begin` is told the stage, `end` what came of it.

    Raises:
        BitsumError: a gate refused, or a step failed; the text names the step.
    """
    graph = node.compile_pipeline(config)
    node.set_run_id(graph, run_id)
    connection = metadata_store.connection(config)
    metadata_store.open_store(config)
    # Beam and AutoGraph leave files behind in the temporary folder: give them one of ours.
    tempfile.tempdir = str(config.root / "tmp")
    for node_id in node.node_ids(graph):
        stage = STAGES.get(node_id, node_id)
        begin(stage)
        try:
            cached = node.run_node(graph, node_id, connection)
        except Exception as error:
            raise _ours(error) or BitsumError(f"step {stage!r} failed: {_one_line(error)}") from error
        end("cached" if cached else "done")


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
