"""Compares the files of a span with the SHA256SUMS in its folder: one covers all data in its own folder and below."""

import os
import pathlib
from collections.abc import Iterator, Mapping

from components.data import span_folders
from components.formats import sha256sums


def problems(
    folder: pathlib.Path, sums: pathlib.Path, content: bytes, digests: Mapping[pathlib.Path, str]
) -> Iterator[tuple[str, str, str]]:
    """The differences between a SHA256SUMS and the files of the span in `folder`: file, place in it, and what differs.

    Lines for files that are no data, such as README or SHA256SUMS itself, do not count, unless the name ends as that of
    data does: who hashes `_part.csv` takes it for data.

    Args:
        sums: the SHA256SUMS file, and `content`, its bytes.
        digests: SHA-256 of each data file of the span, hexadecimal.
    """
    name = sums.relative_to(folder).as_posix()
    entries, strange = sha256sums.parse(content)
    for number in strange:
        yield name, f"line {number}", "not a hash and a name as sha256sum writes them"
    covered = {path for path in digests if sums.parent in path.parents}
    for entry in entries:
        path = pathlib.Path(os.path.normpath(sums.parent / entry.name))
        if path in covered:
            if digests[path] != entry.sha256:
                yield _name(folder, path), "", f"its content differs from its SHA-256 in {name}, line {entry.line}"
        elif not span_folders.is_no_data(sums.parent, path):
            yield entry.name, "", f"listed in {name}, line {entry.line}, but absent"
        elif span_folders.has_name_of_data(path):
            yield entry.name, "", f"listed in {name}, line {entry.line}, but ignored because of its name: rename it"
    listed = {pathlib.Path(os.path.normpath(sums.parent / entry.name)) for entry in entries}
    for path in sorted(covered - listed):
        yield _name(folder, path), "", f"not listed in {name}"


def _name(folder: pathlib.Path, path: pathlib.Path) -> str:
    return path.relative_to(folder).as_posix()
