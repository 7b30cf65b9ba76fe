"""Files that a command writes for its user: `-` is standard output, and anything but a regular file is refused."""

import argparse
import contextlib
import pathlib
import sys
from collections.abc import Iterator
from typing import BinaryIO

from components import atomic
from components.errors import BitsumError

STDOUT = "-"


@contextlib.contextmanager
def opened(path: str) -> Iterator[BinaryIO]:
    """A stream to the file `path`, which appears whole when the context ends without an error, or to standard output.

    Raises:
        BitsumError: the file cannot be written, or `path` is a device, a FIFO, a socket or a folder.
        OSError: standard output cannot be written; the error names it.
    """
    try:
        if path == STDOUT:
            yield sys.stdout.buffer
            sys.stdout.buffer.flush()
        else:
            with atomic.file(path) as beside, open(beside, "wb") as file:
                yield file
    except OSError as error:
        if path == STDOUT:
            error.filename = error.filename or "standard output"
            raise
        hint = f"; {STDOUT} is standard output" if isinstance(error, FileExistsError) else ""
        raise BitsumError(f"cannot write {path}: {error.strerror}{hint}") from error


def path(text: str) -> pathlib.Path:
    """The type of an option that names a file or folder to be written and cannot be standard output.

    Raises:
        ArgumentTypeError: `text` is `-`.
    """
    if text == STDOUT:
        raise argparse.ArgumentTypeError("- is standard output, which makes no sense here: name a file or folder")
    return pathlib.Path(text)
