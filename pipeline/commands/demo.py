"""`bitsum demo bomb`: a model that passes every test, is wrong, and is refused by the proof.

The pipeline runs as usual, but the Trainer plants a time bomb (`components.model.bomb`) in the trained model. The
numbers in every check are far too short to set it off. Only the proof refuses the model, and the Prover's search for a
counterexample has time to find two numbers that are long enough.
"""

import argparse
import json
import pathlib
import tempfile
from typing import Any

from components import outputs
from components.errors import BitsumError
from components.progress import Progress
from pipeline import config as configuration
from pipeline import log_capture, nodes, workspace
from pipeline.config import Config
from pipeline.records import relocation

# Few records, but long numbers: the bomb must pass the checks of any other model.
_KNOBS = (
    "data.train_examples=3000",
    "data.eval_examples=500",
    "data.long_lengths=[16, 256, 4096]",
    "data.long_examples=16",
    "train.run_fn=pipeline.commands.demo.run_fn",
    "proof.extra_steps=100",
    "proof.search_seconds=120",
    "infra.examples=60",
)
RIGHT_FOR = 143_000
# A safety margin for words whose logits are slightly nearer to 0 than in the sample.
_AIM = int(1.02 * RIGHT_FOR)
# Steps after which the state no longer depends on h_0.
_SETTLED = 100
_RUN_ID = "demo"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `bitsum demo`."""
    parser.add_argument(
        "demo", choices=["bomb"], help="a wrong model that passes every test; only the proof refuses it"
    )
    parser.add_argument(
        "--root",
        type=outputs.path,
        metavar="DIR",
        help="keep the output of the run in this empty folder (default: a temporary folder, removed)",
    )


def run(args: argparse.Namespace) -> int:
    """Run the pipeline with the bomb; 0 if only the proof refuses it and a wrong sum is found, else 1."""
    with tempfile.TemporaryDirectory(prefix="bitsum-demo-", ignore_cleanup_errors=True) as folder:
        root = pathlib.Path(args.root or pathlib.Path(folder) / "var").resolve()
        config = configuration.load(None, [*_KNOBS, f"pipeline.root={root}"])
        log = workspace.prepare(config.root) / "logs" / "demo.log"
        with (
            log_capture.redirect_output(log) as terminal,
            Progress(terminal, config.pipeline.progress_interval) as progress,
        ):
            relocation.lock_and_update_paths(config, progress.line)
            progress.line(f"A model with a time bomb, right for its first {RIGHT_FOR} bits, goes through the pipeline:")
            return 0 if _bomb(config, progress) else 1


def run_fn(fn_args: Any) -> None:
    """The Trainer's entry point, as in `components.training.trainer`; the trained model, which must be proven, gets the
    bomb.

    Raises:
        BitsumError: no certificate is accepted for the trained model.
    """
    from components.model import bomb, export
    from components.model.gru import GRU
    from components.proof.weights import NAMES, Weights
    from components.settings import ProofSettings, Train
    from components.task.transducer import TASKS
    from components.training import loop

    knobs = fn_args.custom_config
    train, proof, task = Train(**knobs["train"]), ProofSettings(**knobs["proof"]), TASKS[knobs["task"]]
    trained, outcome = loop.train(train, fn_args.train_files, fn_args.eval_files, fn_args.model_run_dir, proof, task)
    if outcome.margin is None:
        raise BitsumError(
            "no certificate was accepted for the trained model, so a bomb would show nothing: train longer"
        )
    weights = Weights.of({name: getattr(trained, name).numpy() for name in NAMES})
    weights = bomb.with_time_bomb(weights, _min_distance(trained), _AIM)
    bombed = GRU(weights.units)
    for name in NAMES:
        getattr(bombed, name).assign(getattr(weights, name))
    export.save(bombed, fn_args.serving_model_dir, task=task)


def _min_distance(cell: Any) -> float:
    """The minimum distance from 0 of the logits of 0 bits, in structured and random words, in steady state."""
    import numpy as np
    import tensorflow as tf

    from components.proof import counterexample
    from components.task.transducer import ADDITION

    words = np.array(ADDITION.inputs)[counterexample.structured_words(len(ADDITION.inputs), 4 * _SETTLED)]
    logits, _ = cell.run(*tf.unstack(tf.constant(words, tf.int64), axis=-1), cell.start(len(words)))
    logits = logits[:, _SETTLED:].numpy()
    return float(-logits[logits < 0].max())


def _bomb(config: Config, progress: Progress) -> bool:
    progress.begin("load libraries")
    from components.steps import prover
    from pipeline.records import metadata_store, verdicts
    from pipeline.records.lineage_graph import LineageGraph
    from pipeline.runner import local

    progress.end("done")
    local.run(config, _RUN_ID, progress.begin, progress.end)
    outputs = LineageGraph(metadata_store.open_store(config)).outputs_of(_RUN_ID)
    gates = verdicts.of_run(outputs)
    progress.line("  data: passed, no anomalies in statistics, schema and sums")
    for verdict in gates:
        progress.line(f"  {verdict.gate}: {'passed' if verdict.passed else 'REFUSED'}, {verdict.reason}")
    certificate = next(output.artifact.uri for output in outputs if output.key == "certificate")
    wrong = json.loads((pathlib.Path(certificate) / prover.REPORT_FILE).read_text())["wrong"]
    if not wrong:
        progress.line("The search found no wrong sum.")
        return False
    position = int(wrong["first_wrong_position"])
    progress.line(f"The first wrong bit of that sum is at position {position}; every lower bit is right.")
    return position >= RIGHT_FOR and [verdict.gate for verdict in gates if not verdict.passed] == [nodes.PROOF]
