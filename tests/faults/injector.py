"""Lets the n-th operation on files, or any other that is handed in, go wrong: an error, a signal, or kill -9.

Operations are the calls of `os`, `io.open`, `fcntl.flock`, and the reads, writes and closes of file objects, whoever
makes them: pathlib has names of its own for them in Python 3.10. fsync is counted and not done, since no test takes the
power away.
"""

import builtins
import contextlib
import dataclasses
import errno
import fcntl
import functools
import io
import os
import pathlib
import signal
from collections.abc import Callable, Iterator
from typing import Any

from components.errors import Terminated

ERRORS = ("EIO", "ENOSPC", "EACCES", "EMFILE", "EINTR")
SIGNALS = ("SIGINT", "SIGTERM")
KILL = "SIGKILL"
# Operations that are not on files.
OTHERS = ("call", "store")

_ON_FILES = ("open", "close", "read", "write", "pread", "pwrite", "fsync", "fstat", "sendfile", "ftruncate")
_ON_FOLDERS = ("rename", "replace", "mkdir", "unlink", "remove", "rmdir", "listdir", "scandir")
_ON_NAMES = ("stat", "lstat", "chmod", "readlink", "utime", "access")
_CALLS = (*_ON_FILES, *_ON_FOLDERS, *_ON_NAMES)


def _terminated(*_: Any) -> None:
    raise Terminated


_HANDLERS = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: _terminated}
_PATHLIB = getattr(pathlib, "_NormalAccessor", None)


@dataclasses.dataclass(frozen=True)
class Fault:
    """The fault at operation `number`, counted from 1.

    late: the operation is done first, and its success is lost. lasting: every later operation fails, too.
    """

    number: int
    kind: str
    late: bool = False
    lasting: bool = False

    def __str__(self) -> str:
        return f"{self.kind} at {self.number}{' late' * self.late}{' and after' * self.lasting}"


def faults(number: int, kinds: tuple[str, ...] = ERRORS) -> Iterator[Fault]:
    """Every fault of operation `number`; `kinds` are the errors that it may end with."""
    for kind in (*kinds, *SIGNALS):
        yield Fault(number, kind)
        # A call that was interrupted has done nothing.
        if kind != "EINTR":
            yield Fault(number, kind, late=True)
    yield Fault(number, kinds[0], lasting=True)
    yield Fault(number, KILL)


class Injector:
    """Counts operations, and lets one go wrong. `active` is the context in which it does; `names` are those that were
    met."""

    def __init__(self, fault: Fault | None = None):
        self.fault = fault
        self.names: list[str] = []

    def operation(self, name: str, call: Callable[[], Any], error: Callable[[str], BaseException]) -> Any:
        """Make `call`, or let it go wrong; `error` makes the exception for the kind of the fault."""
        self.names.append(name)
        fault, number = self.fault, len(self.names)
        if fault is None or number < fault.number:
            return call()
        # A disk that fails, or a network, goes on failing; the other one does not.
        if number > fault.number and not (
            fault.lasting and (name in OTHERS) == (self.names[fault.number - 1] in OTHERS)
        ):
            return call()
        if fault.kind == KILL:
            os.kill(os.getpid(), signal.SIGKILL)
        result = call() if fault.late else None
        if fault.kind in SIGNALS:
            os.kill(os.getpid(), getattr(signal, fault.kind))
            return result if fault.late else call()
        raise error(fault.kind)

    @contextlib.contextmanager
    def active(self) -> Iterator["Injector"]:
        """The operations that are made in this context count."""
        places = [(os, name) for name in _CALLS] + [(fcntl, "flock")]
        if _PATHLIB:
            places += [(_PATHLIB, name) for name in _CALLS if hasattr(_PATHLIB, name)]
        before = [(place, name, place.__dict__[name]) for place, name in [*places, (builtins, "open"), (io, "open")]]
        if _PATHLIB:
            before.append((_PATHLIB, "open", _PATHLIB.__dict__["open"]))
        handlers = {number: signal.signal(number, handler) for number, handler in _HANDLERS.items()}
        try:
            for place, name, call in before:
                if call is io.open or (place is _PATHLIB and name == "open"):
                    continue
                wrapped = functools.wraps(call)(functools.partial(self._call, name, call))
                setattr(place, name, staticmethod(wrapped) if place is _PATHLIB else wrapped)
            opened = functools.partial(_open, self)
            builtins.open = io.open = opened
            if _PATHLIB:
                _PATHLIB.open = staticmethod(opened)
            yield self
        finally:
            for place, name, call in before:
                setattr(place, name, call)
            for number, handler in handlers.items():
                signal.signal(number, handler)

    def _call(self, name: str, call: Callable, *args: Any, **named: Any) -> Any:
        def error(kind: str) -> OSError:
            number = getattr(errno, kind)
            # As the system has it: what is done with a descriptor names no file.
            return OSError(
                number,
                os.strerror(number),
                *[os.fspath(arg) for arg in args[:1] if isinstance(arg, (str, os.PathLike))],
            )

        def made() -> Any:
            return None if name == "fsync" else call(*args, **named)

        # A descriptor is gone, whatever its close says.
        if name == "close" and self.fault and self.fault.kind in ERRORS and len(self.names) + 1 >= self.fault.number:
            made()
            return self.operation(name, lambda: None, error)
        return self.operation(name, made, error)


def _plain_error(kind: str) -> OSError:
    number = getattr(errno, kind)
    return OSError(number, os.strerror(number))


class _File(io.FileIO):
    """A file whose reads, writes and close are operations."""

    injector: Injector

    def _one(self, name: str, call: Callable[[], Any]) -> Any:
        return self.injector.operation(name, call, _plain_error)

    def write(self, data):
        return self._one("write", lambda: super(_File, self).write(data))

    def readinto(self, buffer):
        return self._one("read", lambda: super(_File, self).readinto(buffer))

    def readall(self):
        return self._one("read", lambda: super(_File, self).readall())

    def close(self):
        if self.closed:
            return
        try:
            self._one("close", lambda: None)
        finally:
            super().close()


def _open(
    injector: Injector,
    file,
    mode="r",
    buffering=-1,
    encoding=None,
    errors=None,
    newline=None,
    closefd=True,
    opener=None,
):
    """io.open, of a _File."""
    raw_mode = mode.replace("b", "").replace("t", "")
    make = opener or (lambda path, flags: os.open(path, flags, 0o666))
    raw = _File(file, raw_mode, closefd=closefd) if isinstance(file, int) else _File(file, raw_mode, opener=make)
    raw.injector = injector
    if buffering == 0:
        return raw
    kind = io.BufferedRandom if "+" in mode else io.BufferedReader if "r" in mode else io.BufferedWriter
    buffered = kind(raw)
    return (
        buffered
        if "b" in mode
        else io.TextIOWrapper(buffered, encoding, errors, newline, line_buffering=buffering == 1)
    )
