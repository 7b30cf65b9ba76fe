"""SHA256SUMS: the hashes of files, one line each, as `sha256sum` of the GNU coreutils writes them.

    <64 hexadecimal digits> <blank, or * for binary mode><name>

A name with a backslash, a newline or a carriage return is escaped, and its line begins with a backslash.
https://www.gnu.org/software/coreutils/manual/html_node/md5sum-invocation.html
"""

import codecs
import os
import re
from typing import NamedTuple

NAME = "SHA256SUMS"

_LINE = re.compile(rb"(\\?)([0-9a-fA-F]{64}) [ *](.+)")
_ESCAPE = re.compile(rb"\\(.?)")
_ESCAPED = {b"\\": b"\\", b"n": b"\n", b"r": b"\r"}


class Entry(NamedTuple):
    """A line: its number from 1, the hash in lower case, and the name as it stands there."""

    line: int
    sha256: str
    name: str


def parse(content: bytes) -> tuple[list[Entry], list[int]]:
    """The entries, and the numbers of the lines that are none. Empty lines and comments (#) are left out."""
    entries, strange = [], []
    for number, line in enumerate(content.removeprefix(codecs.BOM_UTF8).split(b"\n"), start=1):
        line = line.removesuffix(b"\r")
        if not line or line.startswith(b"#"):
            continue
        try:
            entries.append(Entry(number, *_entry(line)))
        except ValueError:
            strange.append(number)
    return entries, strange


def _entry(line: bytes) -> tuple[str, str]:
    match = _LINE.fullmatch(line)
    if not match:
        raise ValueError
    escaped, sha256, name = match.groups()
    if escaped:
        name = _ESCAPE.sub(_unescaped, name)
    return sha256.decode().lower(), os.fsdecode(name)


def _unescaped(match: re.Match[bytes]) -> bytes:
    if match[1] not in _ESCAPED:
        raise ValueError
    return _ESCAPED[match[1]]
