"""A user's own span: integer pairs in CSV files or tf.Examples in TFRecord files, as records of the splits.

A CSV file has lines `a,b` or `a,b,result` of whole numbers (components.numerals), with or without a header. A
TFRecord file has the records of `components.data.tf_examples`, which are kept unchanged. Every line and record is
checked here, where its file and its number are known. A pair goes into the split that it has in generated data. The
held-out splits also hold the generated pairs: every model has to pass that test, whatever its training data.
"""

import collections
import csv
import dataclasses
import hashlib
import io
import pathlib
import re
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from components import numerals, regular_files
from components.data import sampling, span_folders, span_sums
from components.data.hashed_file import HashedFile
from components.data.tf_examples import problem_of_record, serialize, serialize_batch
from components.formats import tfrecords
from components.settings import Data
from components.task.addition import FEATURE_A, FEATURE_B, FEATURE_LENGTH, FEATURE_SUM, abbreviated, from_bits, to_bits
from components.task.transducer import TASKS, Transducer

HEADERS = (["a", "b"], ["a", "b", "sum"], ["a", "b", "result"])
# Any more offenders are only counted.
MAX_OFFENDERS = 1000
# A SHA256SUMS with a line for each of a million files.
_MAX_SUMS_BYTES = 128 * 2**20

_BOM = "\ufeff"
# Python's stand-ins for bytes that are not UTF-8.
_UNDECODABLE = re.compile("[\udc80-\udcff]")


class Offender(NamedTuple):
    """A refused line, record or file.

    `file` is relative to the span's folder. `place` is "line" with its number from 1, "record" with its number from 0,
    or empty for the whole file. `text` is the line, `record` the record.
    """

    file: str
    place: str
    what: str
    text: str = ""
    record: bytes | None = None

    def __str__(self) -> str:
        return f"{' '.join(filter(None, (self.file, self.place)))}: {self.what}"


@dataclasses.dataclass
class Span:
    """The content of a folder.

    `records` are serialized tf.Examples by split, `pairs` the numbers of the span's own pairs among them, and
    `repeated` the number of pairs that were left out. `refused` counts the offenders; `offenders` has the first
    MAX_OFFENDERS. `unterminated` are the last lines without a newline. `empty` are the names of files
    of data without a pair, and `ignored` files and folders that are no data.
    `fingerprint` is that of `span_folders`, of the content that was read.
    """

    records: dict[str, list[bytes]]
    ignored: list[pathlib.Path]
    pairs: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    repeated: int = 0
    offenders: list[Offender] = dataclasses.field(default_factory=list)
    refused: int = 0
    unterminated: list[Offender] = dataclasses.field(default_factory=list)
    empty: list[str] = dataclasses.field(default_factory=list)
    fingerprint: str = ""

    def refuse(self, offender: Offender) -> None:
        """Add an offender."""
        self.refused += 1
        if len(self.offenders) < MAX_OFFENDERS:
            self.offenders.append(offender)


class _Row(NamedTuple):
    """A pair: its place, its width in bits, and its record (None if it comes from a CSV file)."""

    place: tuple[str, str]
    pair: tuple[int, int]
    bits: int
    raw: bytes | None


def read(folder: pathlib.Path, data: Data) -> Span:
    """The content of the span in `folder`; a repeated pair is read once.

    Raises:
        BitsumError: the folder has no data, or a file cannot be read.
    """
    task, found = TASKS[data.task], span_folders.listing(folder)
    span = Span({split: [] for split in sampling.splits(data)}, found.ignored)
    rows: list[_Row] = []
    digests = {}
    for path in found.files:
        try:
            with HashedFile(path) as raw:
                file: io.BufferedReader = io.BufferedReader(raw)
                name, count, refused = path.relative_to(folder).as_posix(), len(rows), span.refused
                rows += _rows(file, name, task, span)
                if (len(rows), span.refused) == (count, refused):
                    span.empty.append(name)
                digests[path] = raw.sha256()
        except OSError as error:
            raise span_folders.unreadable(path, error) from error
    _check_sums(folder, found.sums, digests, span)
    _place(rows, data, task, span)
    # A file that was added, removed or renamed meanwhile changes the fingerprint as well.
    after = span_folders.listing(folder)
    span.fingerprint = span_folders.fingerprint_of(
        folder, {path: digests.get(path, "") for path in (*after.files, *after.sums)}
    )
    return span


def _check_sums(folder: pathlib.Path, sums: list[pathlib.Path], digests: dict[pathlib.Path, str], span: Span) -> None:
    """Compare the files that were read with every SHA256SUMS, and add the hashes of those to `digests`."""
    problems = []
    files = dict(digests)
    for path in sums:
        try:
            content = regular_files.read(path, _MAX_SUMS_BYTES)
        except OSError as error:
            raise span_folders.unreadable(path, error) from error
        digests[path] = hashlib.sha256(content).hexdigest()
        problems += [Offender(*problem) for problem in span_sums.problems(folder, path, content, files)]
    span.refused += len(problems)
    # They come first because they may explain the others.
    span.offenders = [*problems, *span.offenders][:MAX_OFFENDERS]


def _place(rows: list[_Row], data: Data, task: Transducer, span: Span) -> None:
    """Add the records of the rows to their splits, after the generated ones."""
    seen = {split: _generated(data, split, span.records) for split in span.records if split != "train"}
    seen["train"] = set()
    longest, knob = (
        (data.long_lengths[-1], "data.long_lengths") if data.long_lengths else (data.max_length, "data.max_length")
    )
    for row, split in zip(rows, sampling.splits_of(data, [row.pair for row in rows]), strict=True):
        # The training also steps through the leading zeros of a short number.
        if split is None or row.bits > longest:
            limit = f"the longest evaluated length is {longest} ({knob})"
            span.refuse(Offender(*row.place, f"a number of {row.bits} bits: {limit}", record=row.raw))
            continue
        span.pairs[split] += 1
        if row.pair in seen[split]:
            span.repeated += 1
            continue
        seen[split].add(row.pair)
        span.records[split].append(row.raw or _record(row.pair, _width(data, row.pair, split), task))


def _rows(file: io.BufferedReader, name: str, task: Transducer, span: Span) -> Iterator[_Row]:
    """The rows of a file; its offenders are added to `span`."""
    if name.endswith(".csv"):
        yield from _csv_rows(file, name, task, span)
    elif "tfrecord" in pathlib.PurePosixPath(name).name:
        yield from _tfrecord_rows(file, name, task, span)
    else:
        span.refuse(Offender(name, "", "neither CSV (*.csv) nor TFRecords (*tfrecord*)"))


def _tfrecord_rows(file: io.BufferedReader, name: str, task: Transducer, span: Span) -> Iterator[_Row]:
    number = 0
    try:
        for raw in tfrecords.records(file, is_gzip=name.endswith(".gz")):
            place = name, f"record {number}"
            number += 1
            problem, features = problem_of_record(raw, task)
            if problem:
                span.refuse(Offender(*place, f"{problem.kind}: {problem.what}", record=raw))
            else:
                a, b = features[FEATURE_A], features[FEATURE_B]
                yield _Row(place, (from_bits(a), from_bits(b)), len(a), raw)
    except tfrecords.Damage as damage:
        what = f"the file is damaged there: {damage}; the records from there on are unknown"
        span.refuse(Offender(name, f"record {number}", what))


def _csv_rows(file: io.BufferedReader, name: str, task: Transducer, span: Span) -> Iterator[_Row]:
    text = io.TextIOWrapper(file, encoding="utf-8", errors="surrogateescape", newline="")
    offset, is_first, line, place = 0, True, "\n", (name, "")
    for number, line in enumerate(text, start=1):
        place = name, f"line {number}"
        try:
            cells = _cells(line, offset)
            is_header, is_first = is_first and [cell.lower() for cell in cells] in HEADERS, is_first and not any(cells)
            if any(cells) and not is_header:
                pair = _pair(cells, task)
                yield _Row(place, pair, max(operand.bit_length() for operand in pair), None)
        except ValueError as error:
            is_first = False
            span.refuse(Offender(*place, str(error), line.strip()))
        offset += len(_encoded(line))
    if not line.endswith(("\n", "\r")):
        what = "the last line has no newline, so the file may have been cut inside a number"
        span.unterminated.append(Offender(*place, what, line))
    # Otherwise the wrapper closes the file.
    text.detach()


def _cells(line: str, offset: int) -> list[str]:
    """The values of a line that begins at byte `offset`. Raises: ValueError, with the problem of the line as text."""
    if found := _UNDECODABLE.search(line):
        at = offset + len(_encoded(line[: found.start()]))
        raise ValueError(f"not UTF-8: byte 0x{_encoded(found[0]).hex()} at offset {at} of the file")
    line = line.removeprefix(_BOM) if offset == 0 else line
    try:
        # Without strict the reader turns "2"3 into 23. It limits the size of a value.
        cells = next(csv.reader([line], strict=True), []) if '"' in line else line.split(",")
    except csv.Error as error:
        raise ValueError(f"not a line of CSV: {error}") from error
    return [cell.strip() for cell in cells]


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _pair(cells: list[str], task: Transducer) -> tuple[int, int]:
    """The numbers of a line. Raises: ValueError, with the problem of the line as text."""
    if len(cells) not in (2, 3):
        raise ValueError(f"{len(cells)} values, not a,b or a,b,result")
    a, b = map(numerals.operand, cells[:2])
    right = task.meaning(a, b)
    if len(cells) == 3 and not _states(cells[2], right):
        raise ValueError(
            f"wrong sum: {task.statement(*map(numerals.abbreviated, cells))}, {abbreviated(right)} is right"
        )
    return a, b


def _states(text: str, result: int | bool) -> bool:
    """Whether a cell states the result. A verdict may be 1 or 0 as well."""
    if isinstance(result, bool) and text.lower() in ("true", "false"):
        return text.lower() == str(result).lower()
    try:
        return numerals.parse(text) == result
    except ValueError:
        return False


def _width(data: Data, pair: tuple[int, int], split: str) -> int:
    """The width of the record: that of the longer number, or, in the long split, the next evaluated length."""
    bits = max(1, *(number.bit_length() for number in pair))
    return next(length for length in data.long_lengths if length >= bits) if split == "long" else bits


def _record(pair: tuple[int, int], width: int, task: Transducer) -> bytes:
    a, b = (to_bits(number, width) for number in pair)
    result = task.outputs([*zip(a, b, strict=True), *task.flush])
    return serialize({FEATURE_A: a, FEATURE_B: b, FEATURE_SUM: result, FEATURE_LENGTH: [width]})


def _generated(data: Data, split: str, records: dict[str, list[bytes]]) -> set[tuple[int, int]]:
    """Add the generated records of a held-out split to `records`; returns their pairs."""
    pairs = set()
    for batch in sampling.records(data, split, 0, sampling.split_size(data, split)):
        records[split] += serialize_batch(batch.a, batch.b, batch.total)
        pairs |= {(_value(a), _value(b)) for a, b in zip(batch.a, batch.b, strict=True)}
    return pairs


def _value(bits: np.ndarray) -> int:
    return int.from_bytes(np.packbits(bits, bitorder="little").tobytes(), "little")
