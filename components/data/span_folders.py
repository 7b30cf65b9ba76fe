"""The folders of a user's own data: span-<number> or span-<date>, as in TFX's `span-{SPAN}/...`.

    span-7, span-007           span 7
    span-2026-11-22            span 20779, the days since 1970-01-01, which is also TFX's number for a date

All files below such a folder belong to the span, except those with names that begin with a dot or an underscore.
"""

import datetime
import hashlib
import pathlib
import re

from components import atomic
from components.errors import BitsumError
from components.settings import EPOCH

_FOLDER = re.compile(r"span-(?:(?P<number>[0-9]+)|(?P<date>[0-9]{4}-[0-9]{2}-[0-9]{2}))")
# The error for a missing span names this many of the existing ones.
_NAMED = 5


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


def folder_of(source: str, span: int) -> pathlib.Path:
    """The folder of a span below `source`.

    Raises:
        BitsumError: the span has no folder, or two.
    """
    top = pathlib.Path(source).expanduser().resolve()
    if not top.is_dir():
        raise BitsumError(f"spans.source = {source!r} is not a folder: create it, with a folder span-{span} in it")
    try:
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
            f"{matching[0].name} and {matching[1].name} in {top} are both span {span}: remove one of them"
        )
    if not matching:
        listed = ", ".join(map(str, sorted(set(folders.values()))[-_NAMED:])) or "none"
        raise BitsumError(f"span {span} does not exist: {top} has no folder span-{span} (its last spans: {listed})")
    return matching[0]


def files_of(folder: pathlib.Path) -> list[pathlib.Path]:
    """The files of a span, sorted.

    Raises:
        BitsumError: the span has no files, a link does not lead to a file, or a folder cannot be read.
    """
    try:
        entries = [path for path in atomic.tree(folder) if not _is_hidden(path.relative_to(folder))]
    except OSError as error:
        raise BitsumError(f"cannot read {error.filename or folder}: {error.strerror}; run the span again") from error
    for path in entries:
        # Skipping the link would silently skip data.
        if path.is_symlink() and not path.is_file():
            raise BitsumError(f"{path} is a link that does not lead to a file: put the files themselves there")
    files = [path for path in entries if path.is_file()]
    if not files:
        raise BitsumError(
            f"the span is empty: {folder} has no files, or only files that begin with a dot or an underscore"
        )
    return files


def fingerprint(folder: pathlib.Path) -> str:
    """One SHA-256, hexadecimal, over names and contents of the span's files.

    Raises:
        BitsumError: the span has no files, or one cannot be read.
    """
    digest = hashlib.sha256()
    for path in files_of(folder):
        try:
            content = hashlib.sha256(path.read_bytes())
        except OSError as error:
            raise BitsumError(
                f"cannot read {path}: {error.strerror}; was the span changed just now? Run it again"
            ) from error
        digest.update(f"{path.relative_to(folder).as_posix()}\n{content.hexdigest()}\n".encode())
    return digest.hexdigest()


def _is_hidden(path: pathlib.PurePath) -> bool:
    return any(part.startswith((".", "_")) for part in path.parts)
