"""The entry point that TFX's Trainer calls."""

from typing import Any

from components import export, training
from components.carry_select import CarrySelect
from components.settings import Proof, Train
from components.transducer import ADDITION, TASKS


def run_fn(fn_args: Any) -> None:
    """Trains on the examples of the run and exports the model.

    Args:
        fn_args: tfx.components.FnArgs; `train_files` and `eval_files` (patterns of gzip TFRecords), `serving_model_dir`,
            `model_run_dir` (TensorBoard) and `custom_config` are used: {"train": the fields of settings.Train, "proof": those
            of settings.Proof, "task": the name of a transducer, ...}, the last two with defaults.

    Raises:
        BitsumError: see `training.train` and `export.save`.
    """
    config = fn_args.custom_config
    settings, proof, task = Train(**config["train"]), Proof(**config.get("proof", {})), TASKS[config.get("task", ADDITION.name)]
    cell, outcome = training.train(settings, fn_args.train_files, fn_args.eval_files, fn_args.model_run_dir, proof, task)
    proven = outcome.margin is not None
    export.save(cell, fn_args.serving_model_dir, CarrySelect(task, proof.parallel_above, proof.chunk) if proven else None)
