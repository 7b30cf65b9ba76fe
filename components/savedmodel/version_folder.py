"""The folder of served versions: `<base>/<version>/`, each of which appears whole or not at all, with its manifest.

TensorFlow Serving watches such a folder and loads the highest number. A version that is seen half-written costs a real
server minutes, so it is written beside, synced to disk, and renamed. The manifest, `assets.extra/manifest.json`, names
the sha256 of every other file and where the version came from.
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
from collections.abc import Iterator
from typing import Any

from components import atomic, regular_files
from components.errors import BitsumError, reason
from components.savedmodel import model_files

MANIFEST = pathlib.PurePosixPath("assets.extra/manifest.json")
MANIFEST_FORMAT = 1

_LOCK = ".lock"


@dataclasses.dataclass(frozen=True)
class Pushed:
    """What a push did: the version that now holds the model, and whether this push made it."""

    version: int
    path: pathlib.Path
    is_new: bool


def push(model: pathlib.Path, base: pathlib.Path, identity: str, origin: dict[str, Any]) -> Pushed:
    """Put a copy of the SavedModel in `model` under `base` as a version higher than every one before it.

    Args:
        model: folder of the SavedModel, with everything that is to be served (warmup requests included).
        base: folder of versions; made where it is not there.
        identity: what the model computes (its graph and weights). Nothing is pushed where the newest version has it.
        origin: where the model comes from, for the manifest (JSON).

    Raises:
        BitsumError: the folder cannot be written, or the disk is full; nothing half-written stays.
        KeyboardInterrupt: its text says that the version is pushed, where it is.
    """
    done = None
    try:
        base.mkdir(parents=True, exist_ok=True)
        with _locked(base) as lock:
            newest = max(versions(base), default=0)
            if newest and manifest(base / str(newest)).get("identity") == identity and not problems(base / str(newest)):
                return Pushed(newest, base / str(newest), is_new=False)
            # Seconds since 1970, as TFX's Pusher has it, unless two pushes fall into one second or the clock went back.
            version = max(int(time.time()), newest + 1, _last_version(lock) + 1)
            # Before it is visible: afterwards nothing may fail any more.
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


def versions(base: pathlib.Path) -> list[int]:
    """The version numbers under `base`, lowest first; other names are not versions."""
    if not base.is_dir():
        return []
    return sorted(int(entry.name) for entry in base.iterdir() if entry.name.isdecimal() and entry.is_dir())


def manifest(version: pathlib.Path) -> dict[str, Any]:
    """The manifest of the version in that folder; empty where there is none, or a damaged one.

    Raises:
        BitsumError: the disk does not give it: what that is, is unknown.
    """
    try:
        content = regular_files.read_json(version / MANIFEST)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return {}
    except OSError as error:
        if error.errno == errno.EINVAL:
            # A FIFO or a folder.
            return {}
        raise BitsumError(f"cannot read {version / MANIFEST}: {error.strerror}") from error
    return content if _is_manifest(content) else {}


def _is_manifest(content: Any) -> bool:
    """Whether what readers of a manifest rely on has the types that a push writes."""
    if not isinstance(content, dict) or not isinstance(origin := content.get("origin", {}), dict):
        return False
    span, ancestors = origin.get("span", 0), origin.get("ancestors", [])
    texts = [content.get("identity", ""), *(origin.get(name, "") for name in ("task", "run"))]
    return (
        type(span) is int
        and span >= 0
        and isinstance(ancestors, list)
        and all(isinstance(value, str) for value in (*texts, *ancestors))
    )


def problems(version: pathlib.Path) -> list[str]:
    """What the files of the version in that folder have against its manifest, a line each; empty if they match.

    Files that desktops leave behind (`components.savedmodel.model_files`) do not count.
    """
    expected = manifest(version).get("files")
    if not isinstance(expected, dict):
        return [f"{version / MANIFEST} is missing or damaged"]
    expected = {
        name: sha256 for name, sha256 in expected.items() if not model_files.is_litter(pathlib.PurePosixPath(name).name)
    }
    found = _hashes(version)
    return [
        f"{version / name} {'is missing' if name not in found else 'is not in the manifest' if name not in expected else 'was changed'}"
        for name in sorted(expected.keys() | found.keys())
        if expected.get(name) != found.get(name)
    ]


def sha256_of_files(folder: pathlib.Path) -> str:
    """One sha256 over the names and contents of all files below `folder`."""
    return hashlib.sha256(json.dumps(_hashes(folder), sort_keys=True).encode()).hexdigest()


def _hashes(folder: pathlib.Path) -> dict[str, str]:
    """The sha256 of every file below `folder` but the manifest, by its name relative to `folder`; what is no file is
    named instead.

    Raises:
        BitsumError: the disk does not give them.
    """
    found = [entry for entry in model_files.entries(folder) if entry.kind != model_files.FOLDER and not entry.is_litter]
    return {entry.name: _content(entry) for entry in found if entry.name != str(MANIFEST)}


def _content(entry: model_files.Entry) -> str:
    if entry.kind != model_files.FILE:
        return entry.kind
    try:
        return hashlib.sha256(entry.path.read_bytes()).hexdigest()
    except OSError as error:
        raise BitsumError(f"cannot read {entry.path}: {error.strerror}") from error


@contextlib.contextmanager
def _locked(base: pathlib.Path) -> Iterator[int]:
    """Hold the folder for this push; gives the descriptor of the lock file, in which the highest version ever pushed
    stands."""
    descriptor = os.open(base / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        with contextlib.suppress(OSError):
            os.close(descriptor)


def _last_version(lock: int) -> int:
    """The highest version ever pushed, also when it was deleted since."""
    last = os.pread(lock, 32, 0).strip()
    return int(last) if last.isdigit() else 0


def _reserve(lock: int, version: int) -> None:
    """Write down that `version` is taken, onto the disk. It has no fewer digits than the one before, over which it is
    written."""
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
