"""The files of an artifact: recorded when its step completes, compared before they are read again.

The record is a custom property of the artifact, so the metadata store commits both in one transaction. For an artifact
without a record, written by an early version, the check is only that it has files.
"""

import hashlib
import json
import os
from typing import TYPE_CHECKING, Any

from components import regular_files
from components.progress import warn

if TYPE_CHECKING:
    from tfx import types

PROPERTY = "output_files"
# Of larger files only the size is compared: hashing them would make cache hits slow.
_HASHED_BELOW = 10_000_000
_BLOCK = 1 << 20


def record(uri: str) -> str:
    """Sizes in bytes, and the sha256 of files below 10 MB, as JSON: {"Split-eval/data.gz": [4711, "c0ffee..."]}.

    Hidden files are left out. Empty for an artifact that is not stored as local files.

    Raises:
        OSError: a file cannot be read.
    """
    return json.dumps(_files(uri), sort_keys=True) if _is_local(uri) else ""


def problem(uri: str, recorded: str) -> str | None:
    """The first difference between the files of `uri` and their record, naming the file; None if they match."""
    if not _is_local(uri):
        return None
    try:
        present = _files(uri) if recorded else {name: [] for name in _names(uri)}
    except OSError as error:
        return f"{error.filename or uri} cannot be read: {error.strerror}"
    if not recorded:
        return None if present else f"{uri} is missing, or empty"
    expected = _expected(recorded)
    if expected is None:
        return f"the record of the files of {uri} is damaged"
    if not os.path.exists(uri):
        return f"{uri} is missing"
    for name in sorted({*expected, *present}):
        path = os.path.join(uri, name) if name else uri
        if name not in present:
            return f"{path} is missing"
        if name not in expected:
            return f"{path} was added"
        if present[name] != expected[name]:
            return f"{path} was changed"
    return None


def is_whole(artifact: "types.Artifact") -> bool:
    """Whether the files of an artifact match their record; if not, a warning says why the artifact is ignored."""
    damage = problem(artifact.uri, artifact.get_string_custom_property(PROPERTY))
    if damage:
        warn(f"{artifact.type_name} {artifact.id} is ignored: {damage}")
    return damage is None


def _expected(recorded: str) -> dict[str, Any] | None:
    """The content of a record; None if it is damaged."""
    try:
        expected = regular_files.parse_json(recorded)
    except ValueError:
        return None
    return expected if isinstance(expected, dict) else None


def _is_local(uri: str) -> bool:
    return "://" not in uri


def _files(uri: str) -> dict[str, list[int | str]]:
    return {name: _fingerprint(os.path.join(uri, name) if name else uri) for name in _names(uri)}


def _names(uri: str) -> list[str]:
    """The files below `uri`, relative to it; [""] if `uri` itself is a file."""
    if os.path.isfile(uri):
        return [""]
    names = []
    for folder, folders, files in os.walk(uri, onerror=_raise):
        folders[:] = [name for name in folders if not name.startswith(".")]
        names += [os.path.relpath(os.path.join(folder, name), uri) for name in files if not name.startswith(".")]
    return names


def _raise(error: OSError) -> None:
    # A missing folder has no files.
    if not isinstance(error, FileNotFoundError):
        raise error


def _fingerprint(path: str) -> list[int | str]:
    with regular_files.opened(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size >= _HASHED_BELOW:
            return [size, ""]
        digest = hashlib.sha256()
        while block := file.read(_BLOCK):
            digest.update(block)
    return [size, digest.hexdigest()]
