"""A folder for files on their way to their place, below the artifact that they are for; through tf.io.gfile, so also on
a remote disk.

Not beside their place: what a killed attempt left there would be read as one more file of a split.
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
    """Gives the name of a folder below `uri`, which is gone when the context ends, and so are those that killed
    attempts left.

    `uri` is the artifact of one execution, which nobody else writes to. A folder that cannot be removed stays until the
    next time.
    """
    sweep(uri)
    try:
        yield os.path.join(uri, _MARK + uuid.uuid4().hex)
    finally:
        sweep(uri)


def write(scratch: str, path: str, fill: Callable[[str], Any]) -> Any:
    """Let `fill` write a file in the folder `scratch`, which takes the place of `path`; what `fill` returned. Two may
    do so at once.

    Raises:
        BitsumError: it cannot be written.
    """
    try:
        tf.io.gfile.makedirs(scratch)
        # Two attempts at the same file must not write into one.
        written = os.path.join(scratch, uuid.uuid4().hex)
        result = fill(written)
        tf.io.gfile.makedirs(os.path.dirname(path))
        tf.io.gfile.rename(written, path, overwrite=True)
    except (OSError, tf.errors.OpError) as error:
        raise BitsumError(f"cannot write {path}: {' '.join(str(error).split())}") from error
    return result


def write_text(scratch: str, path: str, text: str) -> None:
    """`write`, of a text. Raises: BitsumError."""

    def fill(written: str) -> None:
        with tf.io.gfile.GFile(written, "w") as file:
            file.write(text)

    write(scratch, path, fill)


def sweep(uri: str) -> None:
    """Remove what was on its way below `uri`; what cannot be removed stays."""
    with contextlib.suppress(OSError, tf.errors.OpError):
        for name in tf.io.gfile.listdir(uri):
            if name.startswith(_MARK):
                tf.io.gfile.rmtree(os.path.join(uri, name.rstrip("/")))
