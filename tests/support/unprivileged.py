"""Permissions that hold for root too: root reads what nobody may read, and the tests often run as root."""

import contextlib
import ctypes
import pathlib
import sys
from collections.abc import Iterator

# linux/capability.h: the version of the structures, and the capabilities that pass over permissions of files.
_VERSION_3 = 0x20080522
_DAC_OVERRIDE, _DAC_READ_SEARCH = 1, 2


class _Header(ctypes.Structure):
    _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]


class _Sets(ctypes.Structure):
    _fields_ = [("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32)]


@contextlib.contextmanager
def closed(path: pathlib.Path, mode: int = 0) -> Iterator[None]:
    """While the context lasts, `path` is as if it belonged to another user, with the permissions `mode` for this one.

    For root too, but only in this thread.
    """
    before = path.stat().st_mode
    path.chmod(mode)
    try:
        with unprivileged():
            yield
    finally:
        path.chmod(before)


@contextlib.contextmanager
def unprivileged() -> Iterator[None]:
    """In this thread, permissions hold for root too while the context lasts."""
    if sys.platform != "linux":
        yield
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header, sets = _Header(_VERSION_3, 0), (_Sets * 2)()

    def call(function: str) -> None:
        if getattr(libc, function)(ctypes.byref(header), sets):
            raise OSError(ctypes.get_errno(), function)

    call("capget")
    before = sets[0].effective
    sets[0].effective = before & ~(1 << _DAC_OVERRIDE | 1 << _DAC_READ_SEARCH)
    call("capset")
    try:
        yield
    finally:
        sets[0].effective = before
        call("capset")
