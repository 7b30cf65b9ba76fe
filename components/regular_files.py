"""Reads small files from untrusted places: a file that is too large, or not a regular file, is refused at once."""

import errno
import hashlib
import json
import os
import stat
from typing import BinaryIO

# Far more than a manifest, a configuration or a certificate needs. A parsed text takes 20 times as much memory.
MAX_BYTES = 4 * 2**20
_CHUNK_BYTES = 2**20


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


def read(path: str | os.PathLike, limit: int = MAX_BYTES) -> bytes:
    """The content of the file, of at most `limit` bytes.

    Raises:
        OSError: as in `opened`, or the file is larger.
    """
    with opened(path) as file:
        return _content(file, path, limit)


def read_argument(path: str | os.PathLike) -> bytes:
    """As `read`, for a file that the user names on the command line: it may also be a pipe, such as /dev/stdin."""
    with open(path, "rb") as file:
        return _content(file, path, MAX_BYTES)


def sha256(path: str | os.PathLike) -> str:
    """Hexadecimal SHA-256 of the file, of any size. Raises: OSError, as in `opened`."""
    digest = hashlib.sha256()
    with opened(path) as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def read_json(path: str | os.PathLike) -> object:
    """The value of the JSON text in the file.

    Raises:
        OSError: as in `read`.
        ValueError: as in `parse_json`.
    """
    return parse_json(read(path))


def parse_json(text: str | bytes) -> object:
    """The value of a JSON text.

    Raises:
        ValueError: the text is not JSON, or is nested too deeply for Python.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _content(file: BinaryIO, path: str | os.PathLike, limit: int) -> bytes:
    size = os.fstat(file.fileno()).st_size
    if size <= limit:
        # It may grow, and a pipe has no size.
        content = file.read(limit + 1)
        if len(content) <= limit:
            return content
        size = len(content)
    raise OSError(errno.EFBIG, f"it has {size} bytes or more, the limit is {limit}", os.fspath(path))
