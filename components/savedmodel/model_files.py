"""Which files a certified SavedModel may have: an allow-list, since a server may read what a verifier has not heard of.

Servers take graphs and programs from model.tflite, saved_model.pbtxt, saved_model.mlir, aot_packages/ and more with
each release, and a FIFO, a device or a link to outside holds something else each time that it is read. What desktops
leave in every folder that they show (`is_litter`) is read by nobody: it is ignored, here and by the manifest of
`components.savedmodel.version_folder`, and reported.

A folder that Kubernetes mounts is made of links to a folder in it, `..data`: links that stay within the folder are as
good as files.
"""

import errno
import os
import pathlib
import stat
from collections.abc import Iterator
from typing import NamedTuple

from components.errors import BitsumError

# What a server replays while it loads the model: TFRecords of PredictionLog.
WARMUP_REQUESTS = pathlib.PurePosixPath("assets.extra/tf_serving_warmup_requests")
FILES = frozenset(
    {
        "saved_model.pb",
        "fingerprint.pb",
        "variables/variables.index",
        "variables/variables.data-00000-of-00001",
        "assets.extra/certificate.json",
        "assets.extra/manifest.json",
        "assets.extra/model.sig",
        str(WARMUP_REQUESTS),
    }
)
# What a SavedModel has in assets/ is read by its graph, and a cell's reads nothing: that folder is empty.
FOLDERS = frozenset({"variables", "assets", "assets.extra"})

FILE = "a file"
FOLDER = "a folder"
_KINDS = {stat.S_IFREG: FILE, stat.S_IFDIR: FOLDER, stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket"}
_DEVICE = "a device"
_NOWHERE = "a link that leads nowhere"

_LITTER = (".DS_Store", "Thumbs.db")
_LITTER_PREFIX = "._"
_MOUNT = "..data"


class Entry(NamedTuple):
    """What lies below a folder: its name relative to the folder, where it is, `FILE`, `FOLDER` or what else it is, and
    whether that is within the folder, once links are followed."""

    name: str
    path: pathlib.Path
    kind: str
    is_inside: bool

    @property
    def is_litter(self) -> bool:
        """Whether it is a file that a desktop leaves in every folder."""
        return self.kind == FILE and self.is_inside and is_litter(self.path.name)


def is_litter(name: str) -> bool:
    """Whether desktops leave files of that name in every folder that they show."""
    return name in _LITTER or name.startswith(_LITTER_PREFIX)


def entries(folder: str | pathlib.Path) -> Iterator[Entry]:
    """All that lies below `folder`, sorted within each folder; links at its top are followed as long as they stay in
    it. Opens no file.

    What Kubernetes keeps in a mount besides (`..data` and the folder that it leads to) is left out.

    Raises:
        BitsumError: a folder cannot be listed.
    """
    root = pathlib.Path(os.path.realpath(folder))
    yield from _below(root, root, "")


def foreign(model_dir: str | pathlib.Path) -> list[str]:
    """What a certified SavedModel may not have, and the one in `model_dir` has, a line each; empty where all is well.

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
    except OSError as error:
        raise BitsumError(f"cannot list the folder {folder}: {error.strerror}") from error
    kept = _kept_by_kubernetes(folder) if folder == root else ()
    for name in names:
        if name in kept:
            continue
        path = folder / name
        real = pathlib.Path(os.path.realpath(path))
        entry = Entry(prefix + name, path, _kind(path), real.is_relative_to(root))
        yield entry
        # Deeper links could multiply without end.
        if entry.kind == FOLDER and entry.is_inside and (real == path or not prefix):
            yield from _below(root, real, f"{entry.name}/")


def _kind(path: pathlib.Path) -> str:
    try:
        return _KINDS.get(stat.S_IFMT(os.stat(path).st_mode), _DEVICE)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return _NOWHERE
        # A disk that does not tell is no fault of the model.
        raise BitsumError(f"cannot look at {path}: {error.strerror}") from error


def _kept_by_kubernetes(folder: pathlib.Path) -> set[str]:
    """`..data` and the folder beside it that it leads to, which has a name of that kind too."""
    mount = folder / _MOUNT
    target = pathlib.Path(os.path.realpath(mount))
    is_mount = mount.is_symlink() and target.parent == folder and target.name.startswith("..") and target.is_dir()
    return {_MOUNT, target.name} if is_mount else set()
