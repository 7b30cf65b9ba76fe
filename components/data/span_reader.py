"""A user's own span: integer pairs in CSV files or tf.Examples in TFRecord files, as records of the splits.

A CSV file has lines `a,b` or `a,b,result` of whole numbers (components.numerals), with or without a header. A
TFRecord file has the records of `components.data.tf_examples`; they are kept unchanged, right or wrong, so that the
usual checks find their faults. A pair goes into the split that it has in generated data. The held-out splits also
hold the generated pairs: every model has to pass that test, whatever its training data.
"""

import csv
import pathlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from components import numerals
from components.data import sampling, span_folders
from components.data.tf_examples import CorruptFile, parse, read_records, serialize, serialize_batch
from components.errors import BitsumError
from components.settings import Data
from components.task import record_checks
from components.task.addition import FEATURE_A, FEATURE_B, FEATURE_LENGTH, FEATURE_SUM, abbreviated, from_bits, to_bits
from components.task.transducer import TASKS, Transducer

HEADERS = (["a", "b"], ["a", "b", "sum"], ["a", "b", "result"])


class Offender(NamedTuple):
    """A refused line or file: the file relative to the span's folder, the line from 1 (0 for the whole file), the
    reason."""

    file: str
    line: int
    what: str
    text: str

    def __str__(self) -> str:
        return f"{self.file}{f' line {self.line}' if self.line else ''}: {self.what}"


class Span(NamedTuple):
    """The content of a folder: serialized tf.Examples by split, refused lines and files, and the number of repeated
    pairs."""

    records: dict[str, list[bytes]]
    offenders: list[Offender]
    repeated: int


class _Row(NamedTuple):
    """A pair: its place, its width in bits, and its record (None if it comes from a CSV file)."""

    place: tuple[str, int]
    pair: tuple[int, int]
    bits: int
    raw: bytes | None


def read(folder: pathlib.Path, data: Data) -> Span:
    """The records of the span in `folder`; a repeated pair with the right result is read once.

    Raises:
        BitsumError: the folder has no files, or one cannot be read.
    """
    task, offenders = TASKS[data.task], []
    records: dict[str, list[bytes]] = {split: [] for split in sampling.splits(data)}
    rows, unplaced = [], []
    for path in span_folders.files_of(folder):
        for row in _rows(path, path.relative_to(folder).as_posix(), task):
            if isinstance(row, Offender):
                offenders.append(row)
            elif isinstance(row, _Row):
                rows.append(row)
            else:
                unplaced.append(row)
    # A record without a pair belongs to no split; the checks find it in any.
    records["train"] += unplaced
    seen = {split: _generated(data, split, records) for split in records if split != "train"} | {"train": set()}
    repeated, longest = 0, (data.max_length, *data.long_lengths)[-1]
    for row, split in zip(rows, sampling.splits_of(data, [row.pair for row in rows]), strict=True):
        # The training also steps through the leading zeros of a short number.
        if split is None or row.bits > longest:
            offenders.append(
                Offender(*row.place, f"a number of {row.bits} bits: the longest evaluated length is {longest}", "")
            )
            continue
        raw = row.raw or _record(row.pair, _width(data, row.pair, split), task)
        if row.pair in seen[split] and (row.raw is None or not record_checks.problem_of(parse(raw), task)):
            repeated += 1
            continue
        seen[split].add(row.pair)
        records[split].append(raw)
    return Span(records, offenders, repeated)


def _rows(path: pathlib.Path, name: str, task: Transducer) -> Iterator[_Row | Offender | bytes]:
    """The rows of a file, offenders, and records without a readable pair."""
    if path.suffix == ".csv":
        yield from _csv_rows(path, name, task)
    elif "tfrecord" in path.name:
        yield from _tfrecord_rows(path, name)
    else:
        yield Offender(name, 0, "neither CSV (*.csv) nor TFRecords (*tfrecord*)", "")


def _tfrecord_rows(path: pathlib.Path, name: str) -> Iterator[_Row | Offender | bytes]:
    number = 0
    try:
        for number, raw in enumerate(read_records(str(path)), start=1):
            if bits := _bits(raw):
                a, b = bits
                yield _Row((name, number), (from_bits(a), from_bits(b)), max(len(a), len(b)), raw)
            else:
                yield raw
    except CorruptFile as error:
        yield Offender(name, 0, f"corrupt file: unreadable after {number} records: {error}", "")
    except (OSError, tf.errors.OpError) as error:
        raise BitsumError(
            f"cannot read {path}: {' '.join(str(error).split())}; was the span changed just now? Run it again"
        ) from error


def _bits(raw: bytes) -> list[list[int]] | None:
    """The bits of both numbers; None if the record has none."""
    try:
        features = parse(raw)
    except ValueError:
        return None
    bits = [features.get(name, []) for name in (FEATURE_A, FEATURE_B)]
    return bits if all(side and set(side) <= {0, 1} for side in bits) else None


def _csv_rows(path: pathlib.Path, name: str, task: Transducer) -> Iterator[_Row | Offender]:
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            is_first = True
            # Without strict the reader turns "2"3 into 23.
            for cells in (reader := csv.reader(file, strict=True)):
                cells = [cell.strip() for cell in cells]
                if not any(cells):
                    continue
                is_header, is_first = is_first and [cell.lower() for cell in cells] in HEADERS, False
                if is_header:
                    continue
                place = name, reader.line_num
                try:
                    pair = _pair(cells, task)
                except ValueError as error:
                    yield Offender(*place, str(error), ",".join(cells))
                else:
                    yield _Row(place, pair, max(number.bit_length() for number in pair), None)
    except (UnicodeDecodeError, csv.Error) as error:
        yield Offender(name, 0, f"not a CSV file in UTF-8: {error}", "")
    except OSError as error:
        raise BitsumError(
            f"cannot read {path}: {error.strerror}; was the span changed just now? Run it again"
        ) from error


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
