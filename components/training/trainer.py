"""The entry point that TFX's Trainer calls."""

import pathlib
from typing import Any

from components.model import export
from components.model.carry_select import CarrySelect
from components.progress import report
from components.proof.weights import Weights
from components.savedmodel import checkpoint, fingerprint, push_order
from components.settings import ProofSettings, Train
from components.task.transducer import ADDITION, TASKS
from components.training import loop

# A file next to the SavedModel with the `sampling.splits_key` of its training data.
SPLITS_FILE = "splits_key"


def run_fn(fn_args: Any) -> None:
    """Train on the examples of the run and export the model.

    Args:
        fn_args: tfx.components.FnArgs, of which these are used: `train_files` and `eval_files` (patterns of gzip
            TFRecords), `serving_model_dir`, `model_run_dir` (TensorBoard), `base_model` (the folder of a SavedModel to
            start from, or None) and `custom_config`: {"train": the knobs of settings.Train, "proof": those of
            settings.ProofSettings, "task": the name of a transducer, "splits": the sampling.splits_key of the data},
            the last three with defaults.

    Raises:
        BitsumError: see `loop.train` and `export.save`.
    """
    config = fn_args.custom_config
    settings, proof = Train.of(config["train"]), ProofSettings.of(config.get("proof", {}))
    task = TASKS[config.get("task", ADDITION.name)]
    splits = config.get("splits", "")
    base = base_weights(fn_args.base_model, settings.units, splits)
    cell, outcome = loop.train(
        settings, fn_args.train_files, fn_args.eval_files, fn_args.model_run_dir, proof, task, base
    )
    proven = outcome.margin is not None
    parallel = CarrySelect(task, proof.parallel_above, proof.chunk) if proven else None
    export.save(cell, fn_args.serving_model_dir, parallel, task)
    (pathlib.Path(fn_args.serving_model_dir).parent / SPLITS_FILE).write_text(splits)
    push_order.write_ancestors(fn_args.serving_model_dir, _lineage(fn_args.base_model) if base else [])


def _lineage(model: str) -> list[str]:
    """The weights' hash of the SavedModel in `model` and those of its ancestors, as in `push_order.ancestors`."""
    return [fingerprint.weights_sha256(model), *push_order.ancestors(model)]


def base_weights(model: str | None, units: int, splits: str) -> Weights | None:
    """The weights of the SavedModel in `model` for a warm start; None for a cold start.

    The start is cold without a model, if the shapes differ, and if the model's `splits` differ: its training data may
    include pairs that are held out here.

    Raises:
        BitsumError: the model cannot be read.
    """
    if not model:
        return None
    weights = checkpoint.read(model)
    splits_file = pathlib.Path(model).parent / SPLITS_FILE
    same_splits = splits_file.exists() and splits_file.read_text() == splits
    warm = not weights.problem() and weights.units == units and same_splits
    report("train", warm=int(warm), base_units=weights.units, units=units)
    return weights if warm else None
