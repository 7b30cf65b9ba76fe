"""The entry point that TFX's Trainer calls."""

from typing import Any

from components import export, saved_weights, training
from components.carry_select import CarrySelect
from components.progress import report
from components.settings import Proof, Train
from components.transducer import ADDITION, TASKS
from components.weights import Weights


def run_fn(fn_args: Any) -> None:
    """Trains on the examples of the run and exports the model.

    Args:
        fn_args: tfx.components.FnArgs; `train_files` and `eval_files` (patterns of gzip TFRecords), `serving_model_dir`,
            `model_run_dir` (TensorBoard) and `custom_config` are used: {"train": the fields of settings.Train, "proof": those
            of settings.Proof, "task": the name of a transducer, ...}, the last two with defaults; `base_model`, the folder of a
            SavedModel to begin with, or None.

    Raises:
        BitsumError: see `training.train` and `export.save`.
    """
    config = fn_args.custom_config
    settings, proof, task = Train(**config["train"]), Proof(**config.get("proof", {})), TASKS[config.get("task", ADDITION.name)]
    base = base_weights(fn_args.base_model, settings.units)
    cell, outcome = training.train(settings, fn_args.train_files, fn_args.eval_files, fn_args.model_run_dir, proof, task, base)
    proven = outcome.margin is not None
    export.save(cell, fn_args.serving_model_dir, CarrySelect(task, proof.parallel_above, proof.chunk) if proven else None)


def base_weights(model: str | None, units: int) -> Weights | None:
    """The weights to begin with: those of the SavedModel in `model`; None, a cold start, without one or where the shapes differ.

    Raises:
        BitsumError: the model cannot be read.
    """
    if not model:
        return None
    found = saved_weights.read(model)
    warm = not found.problem() and found.units == units
    report("train", warm=int(warm), base_units=found.units, units=units)
    return found if warm else None
