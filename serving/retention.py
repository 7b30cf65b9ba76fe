"""Which versions on disk may go: all but the last few, and never one that carries a label or is loaded."""

import pathlib
import shutil
from collections.abc import Collection

from components import version_folder
from components.errors import BitsumError

_BESIDE = ".deleting-"


def superfluous(base_path: pathlib.Path, keep: int, in_use: Collection[int]) -> list[int]:
    """The versions under `base_path` that are neither among the `keep` highest nor in `in_use`, lowest first; none for keep = 0."""
    if keep == 0:
        return []
    return [version for version in version_folder.versions(base_path)[:-keep] if version not in in_use]


def delete(base_path: pathlib.Path, versions: Collection[int]) -> None:
    """Delete versions; each goes at once for whoever watches the folder. Raises: BitsumError."""
    for version in versions:
        beside = base_path / f"{_BESIDE}{version}"
        try:
            (base_path / str(version)).rename(beside)
            shutil.rmtree(beside)
        except OSError as error:
            raise BitsumError(f"cannot delete version {version} in {base_path}: {error.strerror or error}") from error
