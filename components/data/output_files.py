"""The files of an artifact as they were when the step that made them was done: recorded then, compared before they are
read again.

The record is a custom property of the artifact, so that the metadata store gets it in one transaction with the artifact
itself. Artifacts from before there were records have none: of those the files have to be there, whatever is in them.
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
# A larger file is known by its size alone: reading it costs more than a cache hit may.
_HASHED_BELOW = 10_000_000
_BLOCK = 1 << 20


def record(uri: str) -> str:
    """Sizes in bytes, and the sha256 of files below 10 MB, as JSON: {"Split-eval/data.gz": [4711, "c0ffee..."]}.

    Hidden files are not counted. Empty for an artifact that is not stored as local files.

    Raises:
        OSError: a file cannot be read.
    """
    return json.dumps(_files(uri), sort_keys=True) if _is_local(uri) else ""


def problem(uri: str, recorded: str) -> str | None:
    """What differs between the files of `uri` and what was recorded of them, in words that name the file; None if nothing
    does."""
    if not _is_local(uri):
        return None
    try:
        found = _files(uri) if recorded else {name: [] for name in _names(uri)}
    except OSError as error:
        return f"{error.filename or uri} cannot be read: {error.strerror}"
    if not recorded:
        return None if found else f"{uri} is missing, or empty"
    expected = _expected(recorded)
    if expected is None:
        return f"what was recorded of {uri} cannot be read"
    if not os.path.exists(uri):
        return f"{uri} is missing"
    for name in sorted({*expected, *found}):
        path = os.path.join(uri, name) if name else uri
        if name not in found:
            return f"{path} is missing"
        if name not in expected:
            return f"{path} was added"
        if found[name] != expected[name]:
            return f"{path} was changed"
    return None


def is_whole(artifact: "types.Artifact") -> bool:
    """Whether the files of an artifact are those that were recorded; if not, whoever watches is told that it is left
    out, and why."""
    found = problem(artifact.uri, artifact.get_string_custom_property(PROPERTY))
    if found:
        warn(f"{artifact.type_name} {artifact.id} counts as not there: {found}")
    return found is None


def _expected(recorded: str) -> dict[str, Any] | None:
    """The content of a record; None where it is damaged."""
    try:
        expected = json.loads(recorded)
    except (ValueError, RecursionError):
        return None
    return expected if isinstance(expected, dict) else None


def _is_local(uri: str) -> bool:
    return "://" not in uri


def _files(uri: str) -> dict[str, list[int | str]]:
    return {name: _fingerprint(os.path.join(uri, name) if name else uri) for name in _names(uri)}


def _names(uri: str) -> list[str]:
    """The files below `uri`, relative to it; [""] where `uri` is a file itself."""
    if os.path.isfile(uri):
        return [""]
    found = []
    for folder, folders, files in os.walk(uri, onerror=_raise):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [os.path.relpath(os.path.join(folder, name), uri) for name in files if not name.startswith(".")]
    return found


def _raise(error: OSError) -> None:
    # A folder that is gone has no files.
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
