"""The version folders in a model's base path, by TensorFlow Serving's rules."""

import contextlib
import os
import pathlib
import re

# strings::safe_strto64 of TensorFlow: blanks around it, a minus sign and leading zeros are allowed, a plus sign is not.
_NUMBER = re.compile(r"[ \t\n\v\f\r]*(-?[0-9]+)[ \t\n\v\f\r]*")
# The protocol has a signed 64-bit field for the version.
_LEAST, _GREATEST = -(2**63), 2**63 - 1


def on_disk_versions(base_path: pathlib.Path) -> dict[int, pathlib.Path] | None:
    """The entries of `base_path` whose names are numbers of 64 bits, by number; None if `base_path` is unreadable."""
    try:
        # Sorted, so that 10 overrides 0010.
        names = sorted(os.listdir(base_path))
    except (OSError, ValueError):
        # ValueError: a zero byte in the path.
        return None
    numbered = {name: _NUMBER.fullmatch(name) for name in names}
    versions = {int(match[1]): base_path / name for name, match in numbered.items() if match}
    return {version: path for version, path in versions.items() if _LEAST <= version <= _GREATEST}


def files(path: pathlib.Path) -> tuple:
    """Names, sizes and modification times of the files at or below `path`, to compare before and after."""
    paths = [os.path.join(folder, name) for folder, _, names in os.walk(path) for name in names]
    return tuple(_stamp(file) for file in sorted(paths) or [str(path)])


def _stamp(file: str) -> tuple:
    with contextlib.suppress(OSError):
        status = os.stat(file)
        return file, status.st_size, status.st_mtime_ns
    return (file,)
