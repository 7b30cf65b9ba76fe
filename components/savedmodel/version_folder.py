"""The folder of served versions: `<base>/<version>/`, each of which appears whole or not at all, with its manifest.

TensorFlow Serving watches such a folder and loads the highest number. A half-written version costs a real server
minutes, so `components.atomic` writes it. The manifest, `assets.extra/manifest.json`, has the sha256 of every other
file and the origin of the version.
"""

import contextlib
import dataclasses
import errno
import fcntl
import hashlib
import json
import os
import pathlib
import shutil
import time
from collections.abc import Collection, Iterator
from typing import Any, TypeGuard

from components import atomic, regular_files
from components.errors import BitsumError, reason, unreadable
from components.savedmodel import model_files

MANIFEST = pathlib.PurePosixPath("assets.extra/manifest.json")
MANIFEST_FORMAT = 1

# What servers can load.
_MOST_VERSION = 2**63 - 1
_LOCK = ".lock"


@dataclasses.dataclass(frozen=True)
class Pushed:
    """The result of a push: the version that holds the model, and whether this push made it."""

    version: int
    path: pathlib.Path
    is_new: bool


def push(
    model: pathlib.Path, base: pathlib.Path, identity: str, origin: dict[str, Any], even_if_same: bool = False
) -> Pushed:
    """Copy the SavedModel in `model` to `base` as a version higher than every previous one.

    Args:
        model: folder of the SavedModel with everything to be served, including warmup requests.
        base: folder of versions; created if it is missing.
        identity: of the model's graph and weights. If the newest version has the same, nothing is pushed.
        origin: of the model, for the manifest (JSON).
        even_if_same: push even then, because other files differ.

    Raises:
        BitsumError: the folder cannot be written, or the disk is full; nothing half-written stays.
        KeyboardInterrupt: if the version has been pushed by then, the text says so.
    """
    done = None
    try:
        base.mkdir(parents=True, exist_ok=True)
        with _locked(base) as lock:
            newest = max(versions(base), default=0)
            if newest and not even_if_same and _holds(base / str(newest), identity):
                return Pushed(newest, base / str(newest), is_new=False)
            # Seconds since 1970, as in TFX's Pusher, unless two pushes fall into one second or the clock went back.
            version = max(int(time.time()), newest + 1, _last_version(lock) + 1)
            # Before the version is visible: nothing may fail after that.
            _reserve(lock, version)
            done = Pushed(version, base / str(version), is_new=True)
            with atomic.folder(done.path) as beside:
                _fill(beside, model, version, identity, origin)
    except OSError as error:
        raise BitsumError(f"cannot push to {base}: {reason(error)}; nothing was pushed") from error
    except KeyboardInterrupt as interrupt:
        if done and not atomic.is_gone(done.path):
            raise type(interrupt)(f"version {done.version} is pushed to {base}") from interrupt
        raise
    return done


def _holds(version: pathlib.Path, identity: str) -> bool:
    return manifest(version).get("identity") == identity and not problems(version)


def versions(base: pathlib.Path) -> list[int]:
    """The version numbers under `base`, lowest first; other names are not versions.

    Raises:
        BitsumError: the folder cannot be read.
    """
    try:
        if not base.is_dir():
            return []
        names = [entry.name for entry in base.iterdir() if entry.name.isascii() and entry.name.isdecimal()]
        return sorted(int(name) for name in names if int(name) <= _MOST_VERSION and (base / name).is_dir())
    except OSError as error:
        raise BitsumError(unreadable(error.filename or base, error)) from error


def manifest(version: pathlib.Path) -> dict[str, Any]:
    """The manifest of the version in that folder; empty if it is missing or damaged.

    Raises:
        BitsumError: the manifest cannot be read, so its content is unknown.
    """
    try:
        content = regular_files.read_json(version / MANIFEST)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return {}
    except OSError as error:
        if error.errno == errno.EINVAL:
            # A FIFO or a folder.
            return {}
        raise BitsumError(unreadable(version / MANIFEST, error)) from error
    return content if _is_manifest(content) else {}


def _is_manifest(content: object) -> TypeGuard[dict[str, Any]]:
    """Whether the members that readers of a manifest rely on have the types that a push writes."""
    if not isinstance(content, dict) or not isinstance(origin := content.get("origin", {}), dict):
        return False
    span, ancestors = origin.get("span", 0), origin.get("ancestors", [])
    texts = [content.get("identity", ""), *(origin.get(name, "") for name in ("task", "run", "span_date"))]
    return (
        type(span) is int
        and span >= 0
        and isinstance(ancestors, list)
        and all(isinstance(value, str) for value in (*texts, *ancestors))
    )


def problems(version: pathlib.Path) -> list[str]:
    """The differences between the files of the version in that folder and its manifest, a line each.

    Files that desktops leave behind (`components.savedmodel.model_files`) do not count.
    """
    expected = manifest(version).get("files")
    if not isinstance(expected, dict):
        return [f"{version / MANIFEST} is missing or damaged"]
    expected = {
        name: sha256 for name, sha256 in expected.items() if not model_files.is_litter(pathlib.PurePosixPath(name).name)
    }
    actual = _hashes(version, expected)
    lines = [f"{version / name} is missing" for name in expected.keys() - actual.keys()]
    lines += [f"{version / name} is not in the manifest" for name in actual.keys() - expected.keys()]
    common = expected.keys() & actual.keys()
    return sorted([*lines, *(f"{version / name} was changed" for name in common if expected[name] != actual[name])])


def sha256_of_files(folder: pathlib.Path) -> str:
    """One sha256 over the names and contents of all files below `folder`."""
    return hashlib.sha256(json.dumps(_hashes(folder), sort_keys=True).encode()).hexdigest()


def _hashes(folder: pathlib.Path, names: Collection[str] | None = None) -> dict[str, str]:
    """{name relative to `folder`: sha256} of every file below it but the manifest; of other entries, their kind.

    Args:
        names: the files to hash; the hash of others, which may have any size, is empty. None for all files.

    Raises:
        BitsumError: a file or folder cannot be read.
    """
    return {
        entry.name: _content(entry) if names is None or entry.name in names else ""
        for entry in model_files.entries(folder)
        if entry.kind != model_files.FOLDER and not entry.is_litter and entry.name != str(MANIFEST)
    }


def _content(entry: model_files.Entry) -> str:
    if entry.kind != model_files.FILE:
        return entry.kind
    try:
        return regular_files.sha256(entry.path)
    except OSError as error:
        raise BitsumError(unreadable(entry.path, error)) from error


@contextlib.contextmanager
def _locked(base: pathlib.Path) -> Iterator[int]:
    """Lock the folder for this push; yields the descriptor of the lock file, which holds the highest version ever
    pushed."""
    descriptor = os.open(base / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        with contextlib.suppress(OSError):
            os.close(descriptor)


def _last_version(lock: int) -> int:
    """The highest version ever pushed, even if it has been deleted since."""
    last = os.pread(lock, 32, 0).strip()
    return int(last) if last.isdigit() else 0


def _reserve(lock: int, version: int) -> None:
    """Record on disk that `version` is taken. It overwrites the previous version, which has no more digits."""
    line = b"%d\n" % version
    if os.pwrite(lock, line, 0) != len(line):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    os.fsync(lock)


def _fill(beside: pathlib.Path, model: pathlib.Path, version: int, identity: str, origin: dict[str, Any]) -> None:
    shutil.copytree(model, beside, dirs_exist_ok=True)
    (beside / MANIFEST).parent.mkdir(exist_ok=True)
    content = {
        "format": MANIFEST_FORMAT,
        "version": version,
        "identity": identity,
        "origin": origin,
        "files": _hashes(beside),
    }
    (beside / MANIFEST).write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")
