"""Keeps library output off the terminal: redirects everything that this process writes to a log file."""

import contextlib
import logging
import os
import pathlib
import sys
import tempfile
import warnings
from collections.abc import Iterator
from typing import TextIO

from components.log_lines import LineHandler

LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


@contextlib.contextmanager
def redirect_output(log: pathlib.Path) -> Iterator[TextIO]:
    """Redirect file descriptors 1 and 2, the root logger and warnings to `log`; yields a stream to the terminal.

    The descriptors themselves are redirected, since the C++ code of TensorFlow and gRPC does not use sys.stderr.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [os.dup(1), os.dup(2)]
    with open(log, "a", buffering=1) as file, open(os.dup(1), "w", encoding="utf-8", errors="replace") as terminal:
        # Libraries log messages of several lines; their indented lines do not look like separate records.
        handler = LineHandler(file, LOG_FORMAT, newline="\n    ")
        root = logging.getLogger()
        level = root.level
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        root.addHandler(handler)
        root.setLevel(logging.INFO)
        try:
            with warnings.catch_warnings():
                logging.captureWarnings(True)
                yield terminal
        finally:
            logging.captureWarnings(False)
            root.removeHandler(handler)
            root.setLevel(level)
            sys.stdout.flush()
            sys.stderr.flush()
            for descriptor, target in zip(kept, (1, 2), strict=True):
                os.dup2(descriptor, target)
                os.close(descriptor)


@contextlib.contextmanager
def discard_output() -> Iterator[None]:
    """Discard the output of a short operation whose errors are exceptions."""
    with tempfile.TemporaryDirectory(prefix="bitsum-log-") as folder, redirect_output(pathlib.Path(folder) / "log"):
        yield


def silence_database_drivers() -> None:
    """Keep ML Metadata's database drivers from logging connections and errors; errors are raised as well.

    Call it before ml_metadata is imported.
    """
    os.environ.setdefault("GLOG_minloglevel", "3")
