"""A scratch folder below an artifact, for files that are renamed to their final paths; on tf.io.gfile, so it works on
remote storage.

The files are not written next to their final paths, where the remains of a killed attempt would be read as part of a
split.
"""

import contextlib
import os
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf

from components.errors import BitsumError

_MARK = ".writing-"


@contextlib.contextmanager
def folder(uri: str) -> Iterator[str]:
    """Yields a scratch folder below `uri`, and removes it at the end, along with those of killed attempts.

    Only one execution writes to `uri`. A folder that cannot be removed stays until the next attempt.
    """
    sweep(uri)
    try:
        yield os.path.join(uri, _MARK + uuid.uuid4().hex)
    finally:
        sweep(uri)


def write(scratch: str, path: str, fill: Callable[[str], Any]) -> Any:
    """Let `fill` write a file in the folder `scratch`, rename it to `path`, and return the result of `fill`.

    Concurrent calls are safe.

    Raises:
        BitsumError: it cannot be written.
    """
    try:
        tf.io.gfile.makedirs(scratch)
        # Concurrent attempts at `path` must not write to the same file.
        written = os.path.join(scratch, uuid.uuid4().hex)
        result = fill(written)
        tf.io.gfile.makedirs(os.path.dirname(path))
        tf.io.gfile.rename(written, path, overwrite=True)
    except (OSError, tf.errors.OpError) as error:
        raise BitsumError(f"cannot write {path}: {' '.join(str(error).split())}") from error
    return result


def write_text(scratch: str, path: str, text: str) -> None:
    """As `write`, for a text. Raises: BitsumError."""

    def fill(written: str) -> None:
        with tf.io.gfile.GFile(written, "w") as file:
            file.write(text)

    write(scratch, path, fill)


def sweep(uri: str) -> None:
    """Remove the scratch folders below `uri`; those that cannot be removed stay."""
    with contextlib.suppress(OSError, tf.errors.OpError):
        for name in tf.io.gfile.listdir(uri):
            if name.startswith(_MARK):
                tf.io.gfile.rmtree(os.path.join(uri, name.rstrip("/")))
