"""Where the spans of a user's own data are: folders span-<number> or span-<date>, as in TFX's `span-{SPAN}/...`.

    span-7, span-007           span 7
    span-2026-11-22            span 20779, the days since 1970-01-01, which is also TFX's number for a date

What is below such a folder is the span's, files whose names begin with a dot or an underscore excepted.
"""

import datetime
import hashlib
import pathlib
import re

from components import atomic
from components.errors import BitsumError
from components.settings import EPOCH

_FOLDER = re.compile(r"span-(?:(?P<number>[0-9]+)|(?P<date>[0-9]{4}-[0-9]{2}-[0-9]{2}))")
# So many of the spans that there are are named when one is not.
_NAMED = 5


def span_of(name: str) -> int | None:
    """The number of the span whose folder is called `name`; None where that is no such folder's name."""
    found = _FOLDER.fullmatch(name)
    if not found:
        return None
    if found["number"]:
        return int(found["number"])
    try:
        return (datetime.date.fromisoformat(found["date"]) - EPOCH).days
    except ValueError:
        return None


def folder_of(source: str, span: int) -> pathlib.Path:
    """The folder of a span below `source`.

    Raises:
        BitsumError: there is none, or there are two.
    """
    top = pathlib.Path(source).expanduser().resolve()
    if not top.is_dir():
        raise BitsumError(f"spans.source = {source!r} is no folder: make it, with a folder span-{span} in it")
    try:
        folders = {
            entry: span_of(entry.name)
            for entry in sorted(top.iterdir())
            if entry.is_dir() and span_of(entry.name) is not None
        }
    except OSError as error:
        raise BitsumError(f"cannot read spans.source = {source!r}: {error.strerror}") from error
    found = [folder for folder, number in folders.items() if number == span]
    if len(found) > 1:
        raise BitsumError(f"{found[0].name} and {found[1].name} in {top} are both span {span}: remove one of them")
    if not found:
        there = sorted(set(folders.values()))
        listed = ", ".join(map(str, there[-_NAMED:])) or "none"
        raise BitsumError(
            f"span {span} does not exist: {top} has no folder span-{span} (the last spans there: {listed})"
        )
    return found[0]


def files_of(folder: pathlib.Path) -> list[pathlib.Path]:
    """The files of a span, sorted.

    Raises:
        BitsumError: there are none, something is a link that leads to no file, or a folder cannot be read.
    """
    try:
        entries = [path for path in atomic.tree(folder) if not _is_hidden(path.relative_to(folder))]
    except OSError as error:
        raise BitsumError(f"cannot read {error.filename or folder}: {error.strerror}; run the span again") from error
    for path in entries:
        # It would be passed over in silence, and with it what somebody meant to be read.
        if path.is_symlink() and not path.is_file():
            raise BitsumError(f"{path} is a link to a folder or to nothing: put the files themselves there")
    files = [path for path in entries if path.is_file()]
    if not files:
        raise BitsumError(
            f"the span is empty: {folder} has no file, or only such that begin with a dot or an underscore"
        )
    return files


def fingerprint(folder: pathlib.Path) -> str:
    """One SHA-256, hexadecimal, over names and contents of the span's files.

    Raises:
        BitsumError: there are no files, or one cannot be read.
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
