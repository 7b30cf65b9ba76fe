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

# Beside the SavedModel: which pairs it may have been trained on, as `sampling.splits_key`.
SPLITS_FILE = "splits_key"


def run_fn(fn_args: Any) -> None:
    """Trains on the examples of the run and exports the model.

    Args:
        fn_args: tfx.components.FnArgs; `train_files` and `eval_files` (patterns of gzip TFRecords),
        `serving_model_dir`,
            `model_run_dir` (TensorBoard) and `custom_config` are used: {"train": the fields of settings.Train, "proof":
            those of settings.ProofSettings, "task": the name of a transducer, "splits": the sampling.splits_key of the data,
            ...}, the last three with defaults; `base_model`, the folder of a SavedModel to begin with, or None.

    Raises:
        BitsumError: see `training.train` and `export.save`.
    """
    config = fn_args.custom_config
    settings, proof, task = (
        Train(**config["train"]),
        ProofSettings(**config.get("proof", {})),
        TASKS[config.get("task", ADDITION.name)],
    )
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
    """The weights of the SavedModel in `model` and those that it was trained on from, as `push_order.ancestors`."""
    return [fingerprint.weights_sha256(model), *push_order.ancestors(model)]


def base_weights(model: str | None, units: int, splits: str) -> Weights | None:
    """The weights to begin with: those of the SavedModel in `model`; None, a cold start, without one or where the
    shapes differ.

    Nor is begun with a model that other rules than `splits` kept from what is held out here: it may have been trained
    on that.

    Raises:
        BitsumError: the model cannot be read.
    """
    if not model:
        return None
    found = checkpoint.read(model)
    trained_by = pathlib.Path(model).parent / SPLITS_FILE
    is_kept_apart = trained_by.exists() and trained_by.read_text() == splits
    warm = not found.problem() and found.units == units and is_kept_apart
    report("train", warm=int(warm), base_units=found.units, units=units)
    return found if warm else None
