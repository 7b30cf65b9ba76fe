"""The folder of served versions: `<base>/<version>/`, each of which appears whole or not at all, with its manifest.

TensorFlow Serving watches such a folder and loads the highest number. A version that is seen half-written costs a real
server minutes, so it is written beside, synced to disk, and renamed. The manifest, `assets.extra/manifest.json`, names
the sha256 of every other file and where the version came from.
"""

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import os
import pathlib
import shutil
import tempfile
import time
from collections.abc import Iterator
from typing import Any

from components import model_files
from components.errors import BitsumError

MANIFEST = pathlib.PurePosixPath("assets.extra/manifest.json")
MANIFEST_FORMAT = 1

_LOCK = ".lock"
_BESIDE = ".pushing-"


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
    """
    try:
        base.mkdir(parents=True, exist_ok=True)
        with _locked(base) as last_version:
            newest = max(versions(base), default=0)
            if newest and manifest(base / str(newest)).get("identity") == identity and not problems(base / str(newest)):
                return Pushed(newest, base / str(newest), is_new=False)
            # Seconds since 1970, as TFX's Pusher has it, unless two pushes fall into one second or the clock went back.
            version = max(int(time.time()), newest + 1, last_version + 1)
            _write(model, base, version, identity, origin)
            (base / _LOCK).write_text(f"{version}\n")
    except OSError as error:
        raise BitsumError(f"cannot push to {base}: {error.strerror or error}; nothing was pushed") from error
    return Pushed(version, base / str(version), is_new=True)


def versions(base: pathlib.Path) -> list[int]:
    """The version numbers under `base`, lowest first; other names are not versions."""
    if not base.is_dir():
        return []
    return sorted(int(entry.name) for entry in base.iterdir() if entry.name.isdecimal() and entry.is_dir())


def manifest(version: pathlib.Path) -> dict[str, Any]:
    """The manifest of the version in that folder; empty where there is none that can be read."""
    if not (version / MANIFEST).is_file():
        return {}
    try:
        content = json.loads((version / MANIFEST).read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def problems(version: pathlib.Path) -> list[str]:
    """What the files of the version in that folder have against its manifest, a line each; empty if they match.

    Files that desktops leave behind (`components.model_files`) do not count.
    """
    expected = manifest(version).get("files")
    if not isinstance(expected, dict):
        return [f"{version / MANIFEST} is missing or damaged"]
    expected = {name: sha256 for name, sha256 in expected.items() if not model_files.is_litter(pathlib.PurePosixPath(name).name)}
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
    """The sha256 of every file below `folder` but the manifest, by its name relative to `folder`; what is no file is named instead."""
    found = [entry for entry in model_files.entries(folder) if entry.kind != model_files.FOLDER and not entry.is_litter]
    return {entry.name: _content(entry) for entry in found if entry.name != str(MANIFEST)}


def _content(entry: model_files.Entry) -> str:
    return hashlib.sha256(entry.path.read_bytes()).hexdigest() if entry.kind == model_files.FILE else entry.kind


@contextlib.contextmanager
def _locked(base: pathlib.Path) -> Iterator[int]:
    """Hold the folder for this push; gives the highest version ever pushed, also when it was deleted since."""
    with open(base / _LOCK, "a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        for leftover in base.glob(_BESIDE + "*"):
            shutil.rmtree(leftover)
        file.seek(0)
        last = file.read().strip()
        yield int(last) if last.isdecimal() else 0


def _write(model: pathlib.Path, base: pathlib.Path, version: int, identity: str, origin: dict[str, Any]) -> None:
    beside = pathlib.Path(tempfile.mkdtemp(prefix=_BESIDE, dir=base))
    try:
        shutil.copytree(model, beside, dirs_exist_ok=True)
        beside.chmod(0o755)
        (beside / MANIFEST).parent.mkdir(exist_ok=True)
        content = {"format": MANIFEST_FORMAT, "version": version, "identity": identity, "origin": origin, "files": _hashes(beside)}
        (beside / MANIFEST).write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")
        for path in [*beside.rglob("*"), beside]:
            _sync(path)
        beside.rename(base / str(version))
        _sync(base)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise


def _sync(path: pathlib.Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
