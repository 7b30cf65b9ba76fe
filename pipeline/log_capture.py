"""Keep the libraries' noise off the terminal: everything that this process writes goes into a log file for a while."""

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
    """Send file descriptors 1 and 2, the root logger and warnings to `log`; gives a stream to the terminal of before.

    The descriptors themselves are redirected, since TensorFlow's and gRPC's C++ code knows nothing of sys.stderr.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [os.dup(1), os.dup(2)]
    with open(log, "a", buffering=1) as file, open(os.dup(1), "w", encoding="utf-8", errors="replace") as terminal:
        # Libraries log whole messages in many lines; indented, none of them looks like a record of its own.
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
            for descriptor, target in zip(kept, (1, 2)):
                os.dup2(descriptor, target)
                os.close(descriptor)


@contextlib.contextmanager
def discard_output() -> Iterator[None]:
    """Drop the noise, for what is over at once and says in its exception what went wrong."""
    with tempfile.TemporaryDirectory(prefix="bitsum-log-") as folder, redirect_output(pathlib.Path(folder) / "log"):
        yield


def database() -> None:
    """Keep ML Metadata's database drivers from writing every connection to stderr; before ml_metadata is imported.

    What goes wrong is raised as well.
    """
    os.environ.setdefault("GLOG_minloglevel", "3")
