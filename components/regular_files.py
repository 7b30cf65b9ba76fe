"""Reads files that somebody else may have put there: what is not a regular file is refused, and never waited for."""

import errno
import json
import os
import stat
from typing import BinaryIO


def opened(path: str | os.PathLike) -> BinaryIO:
    """The file, for reading. A FIFO has no end, and some devices have none either.

    Raises:
        OSError: it cannot be opened, or is not a regular file.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "is not a regular file", os.fspath(path))
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read(path: str | os.PathLike) -> bytes:
    """All of it. Raises: OSError, as `opened`."""
    with opened(path) as file:
        return file.read()


def read_json(path: str | os.PathLike) -> object:
    """What the JSON text in the file says.

    Raises:
        OSError: as `opened`.
        ValueError: it is not JSON, or nested deeper than Python reads.
    """
    try:
        return json.loads(read(path))
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
