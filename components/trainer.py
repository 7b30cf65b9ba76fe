"""The entry point that TFX's Trainer calls."""

from typing import Any

from components import export, training
from components.settings import Train


def run_fn(fn_args: Any) -> None:
    """Trains on the examples of the run and exports the model.

    Args:
        fn_args: tfx.components.FnArgs; `train_files` and `eval_files` (patterns of gzip TFRecords), `serving_model_dir`,
            `model_run_dir` (TensorBoard) and `custom_config` {"train": the fields of settings.Train, ...} are used.

    Raises:
        BitsumError: see `training.train` and `export.save`.
    """
    settings = Train(**fn_args.custom_config["train"])
    cell = training.train(settings, fn_args.train_files, fn_args.eval_files, fn_args.model_run_dir)
    export.save(cell, fn_args.serving_model_dir)
