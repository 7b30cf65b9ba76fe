"""The one way in which a local file or folder appears where others may read it: whole or not at all.

It is written beside its place, synced to disk, and renamed. The writer holds a lock on what it writes, which the kernel
lets go of when the process is gone, however it went: so the next writer in that folder can tell a leftover from work
under way, and removes it. After the rename the change is visible, and nothing that follows it is reported as a failure:
an interrupt says so.
"""

import contextlib
import fcntl
import itertools
import logging
import os
import pathlib
import shutil
import stat
import uuid
from collections.abc import Callable, Iterator

LOGGER = logging.getLogger(__name__)

_MARK = ".bitsum-writing-"
_FOLDER_MODE = 0o755
_FILE_MODE = 0o644


def write(path: str | os.PathLike, content: str | bytes, mode: int = _FILE_MODE) -> None:
    """Put a file with `content` (text as UTF-8) in the place of `path`, through a link to where that leads; its folder
    must exist.

    Raises:
        OSError: it cannot be written; what was there before is unchanged, and nothing stays beside it.
        KeyboardInterrupt: its text says that `path` is written, where it is.
    """
    with file(path, mode) as partial:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)


@contextlib.contextmanager
def file(path: str | os.PathLike, mode: int = _FILE_MODE) -> Iterator[pathlib.Path]:
    """Gives an empty file beside `path` to write to, which takes the place of `path` when the context ends without an
    error.

    Raises:
        OSError: it cannot be written, or `path` is neither missing nor a regular file; the rest is as in `write`.
    """
    target = pathlib.Path(os.path.realpath(path))
    _require(target, stat.S_ISREG, "regular file")
    with _beside(target, is_folder=False) as (partial, made):
        yield partial
        os.chmod(partial, mode)
        sync(partial)
        _rename(partial, target, made)


@contextlib.contextmanager
def folder(path: str | os.PathLike, mode: int = _FOLDER_MODE) -> Iterator[pathlib.Path]:
    """Gives an empty folder beside `path` to fill, which becomes `path` when the context ends without an error.

    `path` must be missing, or an empty folder.

    Raises:
        OSError: it cannot be written, or something else is there; nothing stays beside it.
    """
    target = pathlib.Path(path)
    _require(target, stat.S_ISDIR, "folder")
    with _beside(target, is_folder=True) as (partial, made):
        yield partial
        os.chmod(partial, mode)
        for below in [*tree(partial), partial]:
            if not below.is_symlink():
                sync(below)
        _rename(partial, target, made)


def sweep(parent: str | os.PathLike) -> list[str]:
    """Remove what killed writers left in the folder `parent`; the names of what is gone. Work under way is left alone.

    A leftover that cannot be removed stays for the next time.
    """
    gone = []
    with contextlib.suppress(OSError):
        for name in sorted(os.listdir(parent)):
            if _MARK in name and _remove_leftover(pathlib.Path(parent, name)):
                gone.append(name)
    return gone


def sync(path: str | os.PathLike) -> None:
    """Have the file or folder on the disk before this returns."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def tree(folder: str | os.PathLike) -> list[pathlib.Path]:
    """Every file, folder and link below `folder`, sorted.

    Raises:
        OSError: a folder cannot be read. pathlib's rglob leaves out what it may not read, and says nothing.
    """

    def fail(error: OSError) -> None:
        raise error

    return sorted(
        pathlib.Path(place, name) for place, *names in os.walk(folder, onerror=fail) for name in itertools.chain(*names)
    )


@contextlib.contextmanager
def lock(path: str | os.PathLike) -> Iterator[None]:
    """Hold the lock file `path`, which is there no longer than the context. One that a killed process left is taken
    over.

    Raises:
        BlockingIOError: another process holds it.
        OSError: it cannot be made.
    """
    path = pathlib.Path(path)
    descriptor = None
    try:
        while descriptor is None:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _FILE_MODE)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not _is_at(descriptor, path):
                # Its holder has just removed it.
                os.close(descriptor)
                descriptor = None
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                path.unlink()
    finally:
        if descriptor is not None:
            with contextlib.suppress(OSError):
                os.close(descriptor)


@contextlib.contextmanager
def _beside(target: pathlib.Path, is_folder: bool) -> Iterator[tuple[pathlib.Path, os.stat_result]]:
    """A new, empty, locked file or folder beside `target`, and what tells it from others; gone from there when the
    context ends."""
    sweep(target.parent)
    made = None
    try:
        partial, descriptor = _made(target, is_folder)
        try:
            made = os.fstat(descriptor)
            yield partial, made
        finally:
            try:
                discard(partial)
            finally:
                # A descriptor is gone even if its close reports an error, and there is nothing to write back.
                with contextlib.suppress(OSError):
                    os.close(descriptor)
    except KeyboardInterrupt as interrupt:
        if made and _stands_at(made, target):
            raise type(interrupt)(f"{target} is written") from interrupt
        raise


def _rename(partial: pathlib.Path, target: pathlib.Path, made: os.stat_result) -> None:
    """Make it visible. It has happened then: that it might not outlast a loss of power is no failure of the
    caller's."""
    try:
        os.replace(partial, target)
    except OSError:
        # The answer of a network's file system may be lost.
        if not _stands_at(made, target):
            raise
    try:
        sync(target.parent)
    except OSError as error:
        LOGGER.warning("%s is written, but its folder could not be synced to disk: %s", target, error.strerror or error)


def _stands_at(made: os.stat_result, path: pathlib.Path) -> bool:
    try:
        return os.path.samestat(made, os.lstat(path))
    except OSError:
        return False


def _made(target: pathlib.Path, is_folder: bool) -> tuple[pathlib.Path, int]:
    while True:
        partial = target.with_name(f".{target.name[:100]}{_MARK}{uuid.uuid4().hex}")
        try:
            if is_folder:
                partial.mkdir(mode=0o700)
                descriptor = os.open(partial, os.O_RDONLY)
            else:
                descriptor = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
            if _lock(descriptor, partial):
                return partial, descriptor
            os.close(descriptor)
        except BaseException:
            discard(partial)
            raise


def _lock(descriptor: int, path: pathlib.Path) -> bool:
    """Whether what is open as `descriptor` is locked by this call and still stands at `path`."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return _is_at(descriptor, path)


def _is_at(descriptor: int, path: pathlib.Path) -> bool:
    """Whether what is open still stands at `path`. Raises: OSError, that cannot be told."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(path))
    except FileNotFoundError:
        return False


def _remove_leftover(path: pathlib.Path) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        return _lock(descriptor, path) and discard(path)
    finally:
        with contextlib.suppress(OSError):
            os.close(descriptor)


def discard(path: pathlib.Path) -> bool:
    """Remove the file or folder, or what of it can be removed; whether it is gone."""
    # rmtree does not ignore every error that it is told to ignore.
    with contextlib.suppress(OSError):
        shutil.rmtree(path, ignore_errors=True)
    with contextlib.suppress(OSError):
        path.unlink()
    return is_gone(path)


def is_gone(path: str | os.PathLike) -> bool:
    """Whether nothing is at `path`, for certain: os.path.exists also says so of what cannot be looked at."""
    try:
        os.lstat(path)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return False


def _require(target: pathlib.Path, is_kind: Callable[[int], bool], kind: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        if not is_kind(os.lstat(target).st_mode):
            raise FileExistsError(17, f"is not a {kind}, so it is not replaced", str(target))
