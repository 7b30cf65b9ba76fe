"""The allow-list of files in a certified SavedModel: a server may read files that a verifier does not know.

Servers take graphs and programs from model.tflite, saved_model.pbtxt, saved_model.mlir, aot_packages/ and more with
each release. A FIFO, a device or a link to outside can have different content at each read. No server reads the files
that desktops leave in every folder that they show (`is_litter`): these are reported and otherwise ignored, here and by
the manifest of `components.savedmodel.version_folder`.

A folder that Kubernetes mounts consists of links to a folder in it, `..data`. Links that stay within the folder count
as files.
"""

import errno
import os
import pathlib
import stat
from collections.abc import Iterator
from typing import NamedTuple

from components.errors import BitsumError, unreadable

# Requests that a server replays while it loads the model: TFRecords of PredictionLog.
WARMUP_REQUESTS = pathlib.PurePosixPath("assets.extra/tf_serving_warmup_requests")
# TensorFlow Serving refuses a version with more.
MAX_WARMUP_REQUESTS = 1000
# Of the other files, by OpenSSF model-signing.
SIGNATURE = pathlib.PurePosixPath("assets.extra/model.sig")
FILES = frozenset(
    {
        "saved_model.pb",
        "fingerprint.pb",
        "variables/variables.index",
        "variables/variables.data-00000-of-00001",
        "assets.extra/certificate.json",
        "assets.extra/manifest.json",
        str(SIGNATURE),
        str(WARMUP_REQUESTS),
    }
)
# A graph reads the files in assets/, and a cell's graph reads none: that folder is empty.
FOLDERS = frozenset({"variables", "assets", "assets.extra"})

FILE = "a file"
FOLDER = "a folder"
_KINDS = {stat.S_IFREG: FILE, stat.S_IFDIR: FOLDER, stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket"}
_DEVICE = "a device"
_NOWHERE = "a broken link"

_LITTER = (".DS_Store", "Thumbs.db")
_LITTER_PREFIX = "._"
_MOUNT = "..data"


class Entry(NamedTuple):
    """An entry below a folder: its name relative to the folder, its path, its kind (`FILE`, `FOLDER` or another), and
    whether it is within the folder once links are followed."""

    name: str
    path: pathlib.Path
    kind: str
    is_inside: bool

    @property
    def is_litter(self) -> bool:
        """Whether it is a file that desktops leave in every folder."""
        return self.kind == FILE and self.is_inside and is_litter(self.path.name)


def is_litter(name: str) -> bool:
    """Whether desktops leave files with that name in every folder that they show."""
    return name in _LITTER or name.startswith(_LITTER_PREFIX)


def entries(folder: str | pathlib.Path) -> Iterator[Entry]:
    """All entries below `folder`, sorted within each folder, without opening a file.

    Links at the top of `folder` are followed as long as they stay in it. The folders that Kubernetes adds to a mount
    (`..data` and its target) are omitted.

    Raises:
        BitsumError: a folder cannot be listed.
    """
    root = pathlib.Path(os.path.realpath(folder))
    yield from _below(root, root, "")


def foreign(model_dir: str | pathlib.Path) -> list[str]:
    """The entries of the SavedModel in `model_dir` that a certified model may not have, a line each.

    Raises:
        BitsumError: the folder cannot be listed.
    """
    return [problem for entry in entries(model_dir) if (problem := _problem(entry))]


def litter(folder: str | pathlib.Path) -> list[str]:
    """Names of the files below `folder` that are ignored. Raises: BitsumError, the folder cannot be listed."""
    return [entry.name for entry in entries(folder) if entry.is_litter]


def _problem(entry: Entry) -> str | None:
    if entry.is_litter:
        return None
    if not entry.is_inside:
        return f"{entry.name} is a link to {os.path.realpath(entry.path)}, outside of the model"
    if entry.name not in (FOLDERS if entry.kind == FOLDER else FILES):
        return f"{entry.name} is {entry.kind} that no certified model has"
    return None if entry.kind in (FILE, FOLDER) else f"{entry.name} is {entry.kind}, not a file"


def _below(root: pathlib.Path, folder: pathlib.Path, prefix: str) -> Iterator[Entry]:
    try:
        names = sorted(os.listdir(folder))
        kept = _kept_by_kubernetes(folder) if folder == root else ()
    except OSError as error:
        raise BitsumError(unreadable(folder, error)) from error
    for name in names:
        if name in kept:
            continue
        path = folder / name
        real = pathlib.Path(os.path.realpath(path))
        entry = Entry(prefix + name, path, _kind(path), real.is_relative_to(root))
        yield entry
        # Following deeper links could multiply entries without end.
        if entry.kind == FOLDER and entry.is_inside and (real == path or not prefix):
            yield from _below(root, real, f"{entry.name}/")


def _kind(path: pathlib.Path) -> str:
    try:
        return _KINDS.get(stat.S_IFMT(os.stat(path).st_mode), _DEVICE)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return _NOWHERE
        # A disk error is not a fault of the model.
        raise BitsumError(unreadable(path, error)) from error


def _kept_by_kubernetes(folder: pathlib.Path) -> set[str]:
    """`..data` and its target, a folder beside it whose name also begins with two dots."""
    mount = folder / _MOUNT
    target = pathlib.Path(os.path.realpath(mount))
    is_mount = mount.is_symlink() and target.parent == folder and target.name.startswith("..") and target.is_dir()
    return {_MOUNT, target.name} if is_mount else set()
