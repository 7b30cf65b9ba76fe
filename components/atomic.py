"""Creates, replaces and removes local files and folders that others may read: they see each whole or not at all.

The writer creates it beside its place, syncs it to disk, and renames it. Meanwhile the writer holds a lock on it, which
the kernel releases when the process ends, however it ends. So the next writer in that folder can tell a leftover from
work in progress, and removes it. The rename makes the change visible. Nothing that follows it counts as a failure; the
text of an interrupt says that the change was made.

Exceptions: Airflow's files (`airflow/` imports no module of bitsum), and `components.data.scratch`, which renames by
tf.io.gfile because Beam may write to a remote disk.
"""

import contextlib
import errno
import fcntl
import logging
import os
import pathlib
import shutil
import stat
import uuid
from collections.abc import Callable, Iterator

LOGGER = logging.getLogger(__name__)

# Folders of a file system at the top of its mount, which often nobody may read.
OF_THE_FILE_SYSTEM = frozenset({"lost+found", ".snapshot"})

_MARK = ".bitsum-writing-"
_FOLDER_MODE = 0o755
_FILE_MODE = 0o644


def write(path: str | os.PathLike, content: str | bytes, mode: int = _FILE_MODE) -> None:
    """Replace the file `path` by one with `content` (text as UTF-8). Links are followed; the folder must exist.

    Raises:
        OSError: the file cannot be written; `path` is unchanged, and nothing stays beside it.
        KeyboardInterrupt: if `path` has been replaced by then, the text says so.
    """
    with file(path, mode) as partial:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)


@contextlib.contextmanager
def file(path: str | os.PathLike, mode: int = _FILE_MODE) -> Iterator[pathlib.Path]:
    """Yields an empty file beside `path` to write to, which replaces `path` when the context ends without an error.

    Raises:
        OSError: as in `write`, or `path` exists and is not a regular file.
    """
    target = pathlib.Path(os.path.realpath(path))
    require_file(target)
    with _beside(target, is_folder=False) as (partial, made):
        yield partial
        os.chmod(partial, mode)
        sync(partial)
        _rename(partial, target, made)


def require_file(path: str | os.PathLike) -> None:
    """Raise OSError if `path` exists and is not a regular file once links are followed."""
    _require(pathlib.Path(os.path.realpath(path)), stat.S_ISREG, "regular file")


@contextlib.contextmanager
def folder(path: str | os.PathLike, mode: int = _FOLDER_MODE) -> Iterator[pathlib.Path]:
    """Yields an empty folder beside `path` to fill, which becomes `path` when the context ends without an error.

    `path` must be missing, or an empty folder.

    Raises:
        OSError: the folder cannot be written, or `path` is something else; nothing stays beside it.
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


def remove(path: str | os.PathLike) -> None:
    """Remove a file or folder: at once for readers of its parent, then from the disk, as far as that is possible now.

    `sweep` removes the rest.

    Raises:
        OSError: `path` is unchanged.
    """
    path = pathlib.Path(path)
    partial = _beside_name(path)
    try:
        os.rename(path, partial)
    except OSError:
        # A network file system may have renamed it and lost the reply.
        if not is_gone(path):
            raise
    discard(partial)


def sweep(parent: str | os.PathLike) -> list[str]:
    """Remove the leftovers of killed writers from the folder `parent`, and return their names. Work in progress stays.

    A leftover that cannot be removed stays until the next call.
    """
    removed = []
    with contextlib.suppress(OSError):
        for name in sorted(os.listdir(parent)):
            if _MARK in name and _remove_leftover(pathlib.Path(parent, name)):
                removed.append(name)
    return removed


def sync(path: str | os.PathLike) -> None:
    """Flush the file or folder to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def tree(folder: str | os.PathLike) -> list[pathlib.Path]:
    """Every file, folder and link below `folder`, sorted, without the file system's own folders (OF_THE_FILE_SYSTEM).

    Raises:
        OSError: a folder cannot be read. pathlib's rglob silently skips such a folder.
    """

    def fail(error: OSError) -> None:
        raise error

    found = []
    for place, folders, files in os.walk(os.fspath(folder), onerror=fail):
        folders[:] = [name for name in folders if name not in OF_THE_FILE_SYSTEM]
        found += [pathlib.Path(place, name) for name in (*folders, *files)]
    return sorted(found)


def matching(folder: str | os.PathLike, pattern: str) -> list[pathlib.Path]:
    """The files and folders below `folder` whose paths end like the glob `pattern`, sorted; none without the folder.

    Raises:
        OSError: a folder cannot be read. pathlib's glob silently skips such a folder.
    """
    return [] if is_gone(folder) else [path for path in tree(folder) if path.match(pattern)]


@contextlib.contextmanager
def lock(path: str | os.PathLike) -> Iterator[None]:
    """Hold the lock file `path`, which exists while the context lasts. A killed process's lock file is taken over.

    Raises:
        BlockingIOError: another process holds the lock.
        OSError: the lock file cannot be created.
    """
    path = pathlib.Path(path)
    descriptor = None
    try:
        while descriptor is None:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _FILE_MODE)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not _is_at(descriptor, path):
                # The previous holder has just removed it.
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
    """A new, empty, locked file or folder beside `target`, and its identity; removed from there when the context
    ends."""
    sweep(target.parent)
    made = None
    try:
        partial, descriptor = _create(target, is_folder)
        try:
            made = os.fstat(descriptor)
            yield partial, made
        finally:
            try:
                discard(partial)
            finally:
                # The descriptor is closed even if close reports an error, and all data has been synced.
                with contextlib.suppress(OSError):
                    os.close(descriptor)
    except KeyboardInterrupt as interrupt:
        if made and _is_same(made, target):
            raise type(interrupt)(f"{target} is written") from interrupt
        raise


def _rename(partial: pathlib.Path, target: pathlib.Path, made: os.stat_result) -> None:
    """Make the change visible. If a power failure could still undo it, that is only a warning: the caller has
    succeeded."""
    try:
        os.replace(partial, target)
    except OSError:
        # A network file system may have renamed it and lost the reply.
        if not _is_same(made, target):
            raise
    try:
        sync(target.parent)
    except OSError as error:
        LOGGER.warning("%s is written, but its folder could not be synced to disk: %s", target, error.strerror or error)


def _is_same(made: os.stat_result, path: pathlib.Path) -> bool:
    try:
        return os.path.samestat(made, os.lstat(path))
    except OSError:
        return False


def _beside_name(target: pathlib.Path) -> pathlib.Path:
    return target.with_name(f".{target.name[:100]}{_MARK}{uuid.uuid4().hex}")


def _create(target: pathlib.Path, is_folder: bool) -> tuple[pathlib.Path, int]:
    while True:
        partial = _beside_name(target)
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
    """Lock the open `descriptor`. Returns whether it is locked and still the one at `path`."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return _is_at(descriptor, path)


def _is_at(descriptor: int, path: pathlib.Path) -> bool:
    """Whether `descriptor` is the file or folder at `path`. Raises: OSError, if that cannot be determined."""
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
    """Remove as much of the file or folder as possible. Returns whether nothing is left."""
    # rmtree raises some errors in spite of ignore_errors.
    with contextlib.suppress(OSError):
        shutil.rmtree(path, ignore_errors=True)
    with contextlib.suppress(OSError):
        path.unlink()
    return is_gone(path)


def is_gone(path: str | os.PathLike) -> bool:
    """Whether `path` certainly does not exist. os.path.exists is also False where access is denied."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False


def _require(target: pathlib.Path, is_kind: Callable[[int], bool], kind: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        if not is_kind(os.lstat(target).st_mode):
            raise FileExistsError(errno.EEXIST, f"is not a {kind}, so it is not replaced", str(target))
