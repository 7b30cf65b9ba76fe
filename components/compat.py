"""Where the supported versions of Python and TensorFlow differ. No other module asks for a version."""

import importlib
import os
import sys

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["import_tensorflow", "tomllib"]


def import_tensorflow() -> None:
    """Import TensorFlow without its lines on file descriptor 2.

    TensorFlow 2.21 writes there that oneDNN is on, whatever TF_CPP_MIN_LOG_LEVEL says. TF_ENABLE_ONEDNN_OPTS=0 prevents
    it, but changes the kernels.
    """
    # Without standard error there is nothing to keep clean, and descriptor 2 may be another file.
    if "tensorflow" in sys.modules or sys.stderr is None:
        return
    sys.stderr.flush()
    terminal = os.dup(2)
    try:
        with open(os.devnull, "w") as nothing:
            os.dup2(nothing.fileno(), 2)
        importlib.import_module("tensorflow")
    finally:
        sys.stderr.flush()
        os.dup2(terminal, 2)
        os.close(terminal)
