"""Deletion of old versions on disk: all but the newest few, never a labelled or loaded one."""

import pathlib
from collections.abc import Collection

from components import atomic
from components.errors import BitsumError
from components.savedmodel import version_folder


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
    """Delete a version. It disappears at once for a server that watches the folder; `atomic.sweep` removes leftovers.

    Raises:
        BitsumError: the version is unchanged.
    """
    try:
        atomic.remove(base_path / str(version))
    except OSError as error:
        raise BitsumError(f"cannot delete version {version} in {base_path}: {error.strerror}") from error
