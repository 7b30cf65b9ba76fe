"""What lies in a model's base path: the folders of its versions, by TensorFlow Serving's rules."""

import contextlib
import os
import pathlib


def on_disk_versions(base_path: pathlib.Path) -> dict[int, pathlib.Path] | None:
    """The versions in `base_path` by number, names that are not decimal digits left out; None where the folder cannot
    be read."""
    try:
        # Sorted, so that of 0010 and 10 the latter counts.
        names = sorted(os.listdir(base_path))
    except (OSError, ValueError):
        # ValueError: there is a zero in the path.
        return None
    numbered = {int(name): base_path / name for name in names if name.isascii() and name.isdecimal()}
    # The protocol has 64 bits for it.
    return {version: path for version, path in numbered.items() if version < 2**63}


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
