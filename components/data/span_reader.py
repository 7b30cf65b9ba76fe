"""A span of a user's own: integer pairs in CSV files or tf.Examples in TFRecord files, as records of the splits.

A CSV file has lines `a,b` or `a,b,result`, of whole numbers in decimals (or hexadecimal with 0x), with or without such
a header. A TFRecord file has the records of `components.data.tf_examples`; they are taken as they are, right or wrong, so
that the same checks find the same faults in them. A pair goes into the split that it has in generated data; the
held-out splits have the generated pairs besides, since those are the test that a model has to pass whatever it was
trained on.
"""

import csv
import pathlib
import re
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from components.data import sampling, span_folders
from components.data.tf_examples import CorruptFile, parse, read_records, serialize, serialize_batch
from components.errors import BitsumError
from components.settings import Data
from components.task import record_checks
from components.task.addition import FEATURE_A, FEATURE_B, FEATURE_LENGTH, FEATURE_SUM, abbreviated, from_bits, to_bits
from components.task.transducer import TASKS, Transducer

HEADERS = (["a", "b"], ["a", "b", "sum"], ["a", "b", "result"])

# Python's int() takes more: 1_000, and the digits of other scripts.
_NUMBER = re.compile(r"(?P<sign>[+-]?)(?:0x(?P<hexadecimal>[0-9a-f]+)|(?P<decimal>[0-9]+))", re.IGNORECASE)


class Offender(NamedTuple):
    """A line or file that cannot be taken: its name below the span's folder, its line from 1 (0 for all of it), and
    why."""

    file: str
    line: int
    what: str
    text: str

    def __str__(self) -> str:
        return f"{self.file}{f' line {self.line}' if self.line else ''}: {self.what}"


class Span(NamedTuple):
    """What a folder holds: serialized tf.Examples by split, what cannot be taken, and how many pairs stood there
    before."""

    records: dict[str, list[bytes]]
    offenders: list[Offender]
    repeated: int


class _Row(NamedTuple):
    """A pair, where it stands, in how many bits it is written, and its record, which a pair from a CSV file has not
    yet."""

    place: tuple[str, int]
    pair: tuple[int, int]
    bits: int
    raw: bytes | None


def read(folder: pathlib.Path, data: Data) -> Span:
    """The records of the span in `folder`; a pair that comes again with the right result is taken once.

    Raises:
        BitsumError: there are no files, or one cannot be read.
    """
    task, offenders = TASKS[data.task], []
    records: dict[str, list[bytes]] = {split: [] for split in sampling.splits(data)}
    rows, unplaced = [], []
    for path in span_folders.files_of(folder):
        for found in _rows(path, path.relative_to(folder).as_posix(), task):
            if isinstance(found, Offender):
                offenders.append(found)
            elif isinstance(found, _Row):
                rows.append(found)
            else:
                unplaced.append(found)
    # Records without a pair belong nowhere: the checks find them wherever they are.
    records["train"] += unplaced
    seen = {split: _generated(data, split, records) for split in records if split != "train"} | {"train": set()}
    repeated, longest = 0, (data.max_length, *data.long_lengths)[-1]
    for row, split in zip(rows, sampling.splits_of(data, [row.pair for row in rows])):
        # Zeros before a short number are steps of the training, too.
        if split is None or row.bits > longest:
            offenders.append(
                Offender(*row.place, f"a number of {row.bits} bits: the longest that is evaluated has {longest}", "")
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
    """The rows of a file, offenders, and records in which no pair can be seen."""
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
            bits = _bits(raw)
            yield _Row((name, number), tuple(map(from_bits, bits)), max(map(len, bits)), raw) if bits else raw
    except CorruptFile as error:
        yield Offender(name, 0, f"corrupt file: unreadable after {number} records: {error}", "")
    except (OSError, tf.errors.OpError) as error:
        raise BitsumError(
            f"cannot read {path}: {' '.join(str(error).split())}; was the span changed just now? Run it again"
        ) from error


def _bits(raw: bytes) -> list[list[int]] | None:
    """The bits of both numbers; None where there are none to be seen."""
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
            # Not strict, the reader would make 23 of "2"3.
            for cells in (reader := csv.reader(file, strict=True)):
                cells = [cell.strip() for cell in cells]
                if not any(cells):
                    continue
                is_header, is_first = is_first and [cell.lower() for cell in cells] in HEADERS, False
                if is_header:
                    continue
                place = name, reader.line_num
                if problem := _cells_problem(cells, task):
                    yield Offender(*place, problem, ",".join(cells))
                else:
                    pair = _integer(cells[0]), _integer(cells[1])
                    yield _Row(place, pair, max(number.bit_length() for number in pair), None)
    except (UnicodeDecodeError, csv.Error) as error:
        yield Offender(name, 0, f"no CSV file in UTF-8: {error}", "")
    except OSError as error:
        raise BitsumError(
            f"cannot read {path}: {error.strerror}; was the span changed just now? Run it again"
        ) from error


def _cells_problem(cells: list[str], task: Transducer) -> str | None:
    if len(cells) not in (2, 3):
        return f"{len(cells)} values, not a,b or a,b,result"
    for cell in cells[:2]:
        try:
            if _integer(cell) < 0:
                return f"{_short(cell)} is negative"
        except ValueError as error:
            return str(error)
    right = task.meaning(_integer(cells[0]), _integer(cells[1]))
    if len(cells) == 3 and not _says(cells[2], right):
        return f"wrong sum: {task.statement(*map(_short, cells))}, {abbreviated(right)} is right"
    return None


def _integer(text: str) -> int:
    found = _NUMBER.fullmatch(text)
    if not found:
        raise ValueError(f"{_short(text)!r} is no whole number")
    if found["hexadecimal"]:
        return int(found["sign"] + found["hexadecimal"], 16)
    try:
        return int(found["sign"] + found["decimal"])
    except ValueError as error:
        # Python converts 4300 decimal digits, unless it is told otherwise, and any number of hexadecimal ones.
        raise ValueError(
            f"{_short(text)} has {len(found['decimal'])} decimal digits, too many: write it as 0x..."
        ) from error


def _says(text: str, result: int | bool) -> bool:
    if isinstance(result, bool):
        return text.lower() == str(result).lower()
    try:
        return _integer(text) == result
    except ValueError:
        return False


def _short(text: str) -> str:
    return text if len(text) <= 24 else f"{text[:12]}...{text[-6:]}"


def _width(data: Data, pair: tuple[int, int], split: str) -> int:
    """Bits of the record: those of the longer number, in the long split the next length that is evaluated."""
    bits = max(1, *(number.bit_length() for number in pair))
    return next(length for length in data.long_lengths if length >= bits) if split == "long" else bits


def _record(pair: tuple[int, int], width: int, task: Transducer) -> bytes:
    a, b = (to_bits(number, width) for number in pair)
    result = task.outputs([*zip(a, b), *task.flush])
    return serialize({FEATURE_A: a, FEATURE_B: b, FEATURE_SUM: result, FEATURE_LENGTH: [width]})


def _generated(data: Data, split: str, records: dict[str, list[bytes]]) -> set[tuple[int, int]]:
    """Put the generated records of a held-out split into `records`; their pairs."""
    pairs = set()
    for batch in sampling.records(data, split, 0, sampling.split_size(data, split)):
        records[split] += serialize_batch(batch.a, batch.b, batch.total)
        pairs |= set(zip(*([_value(row) for row in side] for side in (batch.a, batch.b))))
    return pairs


def _value(bits: np.ndarray) -> int:
    return int.from_bytes(np.packbits(bits, bitorder="little").tobytes(), "little")
