"""Which versions on disk may go: all but the last few, and never one that carries a label or is loaded."""

import contextlib
import pathlib
from collections.abc import Collection

from components import atomic
from components.errors import BitsumError
from components.savedmodel import version_folder

_BESIDE = ".deleting-"


def expired(base_path: pathlib.Path, keep: int, in_use: Collection[int]) -> list[int]:
    """The versions under `base_path` that are neither among the `keep` highest nor in `in_use`, lowest first; none for
    keep = 0.

    Raises:
        BitsumError: the folder cannot be read.
    """
    if keep == 0:
        return []
    try:
        return [version for version in version_folder.versions(base_path)[:-keep] if version not in in_use]
    except OSError as error:
        raise BitsumError(f"cannot list the versions in {base_path}: {error.strerror}") from error


def delete(base_path: pathlib.Path, version: int) -> None:
    """Delete a version; it goes at once for whoever watches the folder. What cannot be removed then is left to `sweep`.

    Raises:
        BitsumError: it is still there.
    """
    beside = base_path / f"{_BESIDE}{version}"
    try:
        (base_path / str(version)).rename(beside)
    except OSError as error:
        # The answer of a network's file system may be lost.
        if not atomic.is_gone(base_path / str(version)):
            raise BitsumError(f"cannot delete version {version} in {base_path}: {error.strerror}") from error
    atomic.discard(beside)


def sweep(base_path: pathlib.Path) -> None:
    """Remove what a deletion that was interrupted left; what cannot be removed stays for the next time."""
    with contextlib.suppress(OSError):
        for beside in base_path.glob(f"{_BESIDE}*"):
            atomic.discard(beside)
