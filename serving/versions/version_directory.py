"""The version folders in a model's base path, by TensorFlow Serving's rules."""

import contextlib
import os
import pathlib


def on_disk_versions(base_path: pathlib.Path) -> dict[int, pathlib.Path] | None:
    """The folders in `base_path` whose names are decimal numbers, by number; None if `base_path` is unreadable."""
    try:
        # Sorted, so that 10 overrides 0010.
        names = sorted(os.listdir(base_path))
    except (OSError, ValueError):
        # ValueError: a zero byte in the path.
        return None
    numbered = {int(name): base_path / name for name in names if name.isascii() and name.isdecimal()}
    # The protocol has a signed 64-bit field for the version.
    return {version: path for version, path in numbered.items() if version < 2**63}


def files(path: pathlib.Path) -> tuple:
    """Names, sizes and modification times of the files at or below `path`, to compare before and after."""
    paths = [os.path.join(folder, name) for folder, _, names in os.walk(path) for name in names]
    return tuple(_stamp(file) for file in sorted(paths) or [str(path)])


def _stamp(file: str) -> tuple:
    with contextlib.suppress(OSError):
        status = os.stat(file)
        return file, status.st_size, status.st_mtime_ns
    return (file,)
