"""What lies in a model's base path: the folders of its versions, by TensorFlow Serving's rules."""

import contextlib
import errno
import os
import pathlib
import re

from serving.status import Code, StatusError

# What absl::SimpleAtoi takes for a number.
_NUMBER = re.compile(r"[ \t\n\v\f\r]*[+-]?[0-9]+[ \t\n\v\f\r]*")
_CODES = {errno.ENOTDIR: Code.FAILED_PRECONDITION, errno.EACCES: Code.PERMISSION_DENIED, errno.ENOENT: Code.NOT_FOUND}


def on_disk_versions(base_path: pathlib.Path) -> dict[int, pathlib.Path] | None:
    """The versions in `base_path` by number, names that are no integers left out; None where the folder cannot be
    read."""
    try:
        # Sorted, so that of 0010 and 10 the latter counts.
        names = sorted(os.listdir(base_path))
    except (OSError, ValueError):
        # ValueError: there is a zero in the path.
        return None
    numbered = {int(name): base_path / name for name in names if _NUMBER.fullmatch(name)}
    return {version: path for version, path in numbered.items() if -(2**63) <= version < 2**63}


def check_folder(path: pathlib.Path, name: str, version: int) -> None:
    """What TensorFlow Serving finds out while it estimates the memory that `version` of model `name` will take.

    Raises:
        StatusError: `path` is no folder that can be listed.
    """
    try:
        os.listdir(path)
    except OSError as error:
        raise StatusError(
            _CODES.get(error.errno, Code.UNKNOWN),
            f"Error while attempting to reserve resources to load servable {{name: {name} version: {version}}}: {path}; {error.strerror}",
        ) from error


def files(path: pathlib.Path) -> tuple:
    """Names, sizes and times of the files at or below `path`: differs when something was written there."""
    found = []
    for folder, _, names in os.walk(path):
        found.extend(os.path.join(folder, name) for name in names)
    return tuple(_stamp(file) for file in sorted(found) or [str(path)])


def _stamp(file: str) -> tuple:
    with contextlib.suppress(OSError):
        status = os.stat(file)
        return file, status.st_size, status.st_mtime_ns
    return (file,)
