"""Deletion of old versions on disk: all but the newest few, never a labelled or loaded one."""

import contextlib
import pathlib
from collections.abc import Collection

from components import atomic
from components.errors import BitsumError
from components.savedmodel import version_folder

_BESIDE = ".deleting-"


def expired(base_path: pathlib.Path, keep: int, in_use: Collection[int]) -> list[int]:
    """The versions under `base_path` beyond the `keep` highest and not `in_use`, lowest first; none for keep = 0.

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
    """Delete a version, atomically for a server that polls the folder; `sweep` removes any remains.

    Raises:
        BitsumError: the version is still there.
    """
    beside = base_path / f"{_BESIDE}{version}"
    try:
        (base_path / str(version)).rename(beside)
    except OSError as error:
        # A network file system may lose its answer to a successful rename.
        if not atomic.is_gone(base_path / str(version)):
            raise BitsumError(f"cannot delete version {version} in {base_path}: {error.strerror}") from error
    atomic.discard(beside)


def sweep(base_path: pathlib.Path) -> None:
    """Remove the remains of interrupted deletions; on failure they stay for the next sweep."""
    with contextlib.suppress(OSError):
        for beside in base_path.glob(f"{_BESIDE}*"):
            atomic.discard(beside)
