"""Reads files from untrusted places: anything but a regular file is refused at once, without waiting for it."""

import errno
import json
import os
import stat
from typing import BinaryIO


def opened(path: str | os.PathLike) -> BinaryIO:
    """The file, opened for reading. A FIFO and some devices never end.

    Raises:
        OSError: the file cannot be opened, or is not a regular file.
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
    """The content of the file. Raises: OSError, as in `opened`."""
    with opened(path) as file:
        return file.read()


def read_json(path: str | os.PathLike) -> object:
    """The value of the JSON text in the file.

    Raises:
        OSError: as in `opened`.
        ValueError: the content is not JSON, or is nested too deeply for Python.
    """
    try:
        return json.loads(read(path))
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
