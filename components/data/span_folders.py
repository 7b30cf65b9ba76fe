"""The folders of a user's own data: span-<number> or span-<date>, as in TFX's `span-{SPAN}/...`.

    span-7, span-007           span 7
    span-2026-11-22            span 20779, the days since 1970-01-01, which is also TFX's number for a date

All files below such a folder belong to the span, except what desktops, copying programs and people leave beside data:
names that begin with a dot or an underscore, *.tmp, Thumbs.db, desktop.ini and README files. SHA256SUMS holds hashes of
the data.
"""

import datetime
import hashlib
import os
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from components import errors
from components.data.hashed_file import HashedFile
from components.errors import BitsumError
from components.formats import sha256sums
from components.settings import EPOCH

_FOLDER = re.compile(r"span-(?:(?P<number>[0-9]+)|(?P<date>[0-9]{4}-[0-9]{2}-[0-9]{2}))")
_IGNORED = re.compile(r"[._].*|.*\.tmp|thumbs\.db|desktop\.ini|readme(\.md|\.txt)?", re.IGNORECASE | re.DOTALL)
# Messages name this many existing spans, or ignored files.
_NAMED = 5


class Listing(NamedTuple):
    """What a span's folder holds, each sorted: its data, its SHA256SUMS, and the files and folders that are ignored."""

    files: list[pathlib.Path]
    sums: list[pathlib.Path]
    ignored: list[pathlib.Path]


def span_of(name: str) -> int | None:
    """The number of the span with folder `name`; None if `name` does not name a span folder."""
    match = _FOLDER.fullmatch(name)
    if not match:
        return None
    if match["number"]:
        return int(match["number"])
    try:
        return (datetime.date.fromisoformat(match["date"]) - EPOCH).days
    except ValueError:
        return None


def folder_of(source: str, span: int, name: str) -> pathlib.Path:
    """The folder of a span below `source`; `name` is the number or the date that the user gave for it.

    Raises:
        BitsumError: the span has no folder, or two.
    """
    top = pathlib.Path(source).expanduser().resolve()
    try:
        if not top.is_dir():
            raise BitsumError(f"spans.source = {source!r} is not a folder: create it, with a folder span-{name} in it")
        folders = {
            entry: number
            for entry in sorted(top.iterdir())
            if entry.is_dir() and (number := span_of(entry.name)) is not None
        }
    except OSError as error:
        raise BitsumError(f"cannot read spans.source = {source!r}: {error.strerror}") from error
    matching = [folder for folder, number in folders.items() if number == span]
    if len(matching) > 1:
        raise BitsumError(
            f"{matching[0].name} and {matching[1].name} in {top} are both span {name}: remove one of them"
        )
    if not matching:
        last = sorted(folders, key=folders.__getitem__)[-_NAMED:]
        listed = ", ".join(folder.name.removeprefix("span-") for folder in last) or "none"
        raise BitsumError(f"span {name} does not exist: {top} has no folder span-{name} (its last spans: {listed})")
    return matching[0]


def listing(folder: pathlib.Path) -> Listing:
    """The content of a span's folder.

    Raises:
        BitsumError: the span has no data, an entry is neither a file nor a folder, or one cannot be read.
    """
    found = Listing([], [], [])
    try:
        for place, folders, names in os.walk(folder, onerror=_fail):
            paths = [pathlib.Path(place, name) for name in (*folders, *names)]
            found.ignored.extend(path for path in paths if _IGNORED.fullmatch(path.name))
            folders[:] = [name for name in folders if not _IGNORED.fullmatch(name)]
            for path in paths:
                if _IGNORED.fullmatch(path.name) or (path.is_dir() and not path.is_symlink()):
                    continue
                if not path.is_file():
                    # Skipping it would silently skip data.
                    kind = "a link that does not lead to a file" if path.is_symlink() else "not a regular file"
                    raise BitsumError(f"{path} is {kind}: put the files themselves there")
                (found.sums if path.name == sha256sums.NAME else found.files).append(path)
    except OSError as error:
        raise unreadable(error.filename or folder, error) from error
    if not found.files:
        ignored = f" (ignored: {named(folder, found.ignored)})" if found.ignored else ""
        raise BitsumError(f"the span is empty: {folder} has no files with data{ignored}")
    return Listing(*map(sorted, found))


def named(folder: pathlib.Path, paths: Sequence[pathlib.Path]) -> str:
    """The paths relative to `folder`, for a message: the first few, and how many more there are."""
    listed = ", ".join(path.relative_to(folder).as_posix() for path in paths[:_NAMED])
    return listed + (f" and {len(paths) - _NAMED} more" if len(paths) > _NAMED else "")


def fingerprint(folder: pathlib.Path) -> str:
    """One SHA-256, hexadecimal, over names and contents of the span's data and its SHA256SUMS.

    Raises:
        BitsumError: the span has no data, or a file cannot be read.
    """
    found, digests = listing(folder), {}
    for path in (*found.files, *found.sums):
        try:
            with HashedFile(path) as file:
                digests[path] = file.sha256()
        except OSError as error:
            raise unreadable(path, error) from error
    return fingerprint_of(folder, digests)


def fingerprint_of(folder: pathlib.Path, digests: Mapping[pathlib.Path, str]) -> str:
    """The fingerprint of a span whose data and SHA256SUMS have these SHA-256s, hexadecimal."""
    digest = hashlib.sha256()
    for path, sha256 in sorted(digests.items()):
        digest.update(os.fsencode(f"{path.relative_to(folder).as_posix()}\n{sha256}\n"))
    return digest.hexdigest()


def unreadable(path: str | pathlib.Path, error: OSError) -> BitsumError:
    """The error for a file or folder of a span that the system cannot read."""
    if isinstance(error, FileNotFoundError):
        return BitsumError(f"{path} vanished while the span was read: run the span again once it is complete")
    return BitsumError(f"{errors.unreadable(path, error)}; run the span again once it can be read")


def is_no_data(folder: pathlib.Path, path: pathlib.Path) -> bool:
    """Whether a file below `folder` of that path would be no data, but ignored or a SHA256SUMS."""
    parts = path.relative_to(folder).parts if folder in path.parents else ()
    return any(_IGNORED.fullmatch(part) or part == sha256sums.NAME for part in parts)


def has_name_of_data(path: pathlib.Path) -> bool:
    """Whether a file of this name is CSV or TFRecords by its end. Not so the `._` files of macOS beside other files."""
    return not path.name.startswith("._") and (path.name.endswith(".csv") or "tfrecord" in path.name)


def _fail(error: OSError) -> None:
    raise error
