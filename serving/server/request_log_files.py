"""The files of a request log: written beside their place until they are whole, numbered upwards, several writers to a
folder."""

import contextlib
import fcntl
import os
import pathlib
import tempfile
import time
import urllib.parse
from typing import Any

from components import atomic
from components.errors import BitsumError, reason
from components.formats import tfrecords

PATTERN = "requests-*.tfrecords"
_PARTIAL = ".partial"


class LogFile:
    """A file that is being written, beside its place until it is whole. The lock on it tells that its writer lives."""

    def __init__(self, folder: pathlib.Path):
        folder.mkdir(mode=0o700, exist_ok=True)
        self.folder, self.opened = folder, time.monotonic()
        self.records = self.size = 0
        self._partial, self._stream = _new_partial(folder)

    def add(self, record: bytes) -> None:
        data = tfrecords.framed(record)
        self._stream.write(data)
        self.records += 1
        self.size += len(data)

    def finish(self) -> None:
        """Make it visible. Raises: OSError, it is not, and can only be discarded."""
        self._stream.flush()
        os.fsync(self._stream.fileno())
        try:
            self._partial.rename(self._partial.with_suffix(""))
        except OSError:
            # The answer of a network's file system may be lost.
            if not atomic.is_gone(self._partial):
                raise
        with contextlib.suppress(OSError):
            self._stream.close()

    def discard(self) -> None:
        # Closing writes what is left, where the disk may have no room.
        with contextlib.suppress(OSError):
            self._partial.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self._stream.close()


def folder_name(model: str) -> str:
    """A model may be called anything; a folder may not."""
    quoted = urllib.parse.quote(model, safe=" ")
    return quoted.replace(".", "%2E") if not quoted.strip(".") else quoted


def prepare(folder: pathlib.Path) -> None:
    """Make the folder, and take away what servers left that were killed while they wrote."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        # One without a name: nothing stays of it.
        tempfile.TemporaryFile(dir=folder).close()
        for path in folder.glob(f"*/{PATTERN}{_PARTIAL}"):
            _remove_if_dead(path)
    except OSError as error:
        raise BitsumError(f"cannot keep a request log in {folder}: {reason(error)}") from error


def _remove_if_dead(path: pathlib.Path) -> None:
    with contextlib.suppress(FileNotFoundError, BlockingIOError), open(path, "rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink()


def _new_partial(folder: pathlib.Path) -> tuple[pathlib.Path, Any]:
    """The next number's file, opened and locked. Another server in the same folder may take a number first."""
    taken = [int(digits) for path in folder.glob("requests-*") if (digits := path.name[9:17]).isdecimal()]
    number = max(taken, default=0)
    while True:
        number += 1
        path = folder / f"requests-{number:08}.tfrecords"
        try:
            stream = os.fdopen(os.open(f"{path}{_PARTIAL}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")
        except FileExistsError:
            continue
        partial = path.with_name(path.name + _PARTIAL)
        try:
            fcntl.flock(stream, fcntl.LOCK_EX)
            # Another server may have completed this number meanwhile, or taken the file for a dead one's before it was
            # locked.
            if partial.exists() and not path.exists():
                return partial, stream
            stream.close()
            partial.unlink(missing_ok=True)
        except OSError:
            with contextlib.suppress(OSError):
                partial.unlink()
            raise
