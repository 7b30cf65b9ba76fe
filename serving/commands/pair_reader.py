"""Pairs of numbers from files and standard input, one per line, in windows of constant size.

A window holds the lines that can be read without waiting: a pipe fed line by line gets each answer at once, and a large
file is processed in large windows.
"""

import codecs
import io
import os
import sys
from collections.abc import Iterable, Iterator

from components import numerals
from components.errors import BitsumError, ConfigError
from components.progress import report

STDIN = "-"
_BLOCK_BYTES = 2**18

Pair = tuple[int, int]


def windows(names: Iterable[str]) -> Iterator[list[Pair]]:
    """The pairs of the files `names` in order; `-` is standard input, empty lines are skipped.

    Raises:
        ConfigError: a line is not a pair; the pairs before it come first.
        BitsumError: a file cannot be read.
    """
    for name in names:
        shown = "standard input" if name == STDIN else name
        with _open(name) as file:
            number = 0
            for lines in _blocks(file, shown):
                window: list[Pair] = []
                for line in lines:
                    number += 1
                    try:
                        window += _pair(line.removeprefix(codecs.BOM_UTF8) if number == 1 else line)
                    except ValueError as error:
                        yield window
                        raise ConfigError(f"{shown}, line {number}: {error}") from error
                yield window


def pair(numbers: list[str]) -> Pair:
    """The numbers of two numerals. Raises: ValueError."""
    if len(numbers) != 2:
        raise ValueError(f"{len(numbers)} numbers instead of a pair: write two numbers with spaces between them")
    return numerals.operand(numbers[0]), numerals.operand(numbers[1])


def _pair(line: bytes) -> list[Pair]:
    words = line.decode("utf-8", "replace").split()
    return [pair(words)] if words else []


def _blocks(file: io.BufferedReader, shown: str) -> Iterator[list[bytes]]:
    """Lists of whole lines."""
    start: list[bytes] = []
    done, size = 0, os.fstat(file.fileno()).st_size
    while block := _read(file, shown):
        done += len(block)
        report("pairs", step=done, unit="bytes", **({"of": size} if size else {}))
        head, newline, rest = block.rpartition(b"\n")
        if newline:
            lines = b"".join([*start, head]).split(b"\n")
            start = [rest]
            yield lines
        else:
            start.append(block)
    if any(start):
        yield [b"".join(start)]


def _read(file: io.BufferedReader, shown: str) -> bytes:
    try:
        return file.read1(_BLOCK_BYTES)
    except OSError as error:
        raise BitsumError(f"cannot read {shown}: {error.strerror}") from error


def _open(name: str) -> io.BufferedReader:
    try:
        return open(sys.stdin.fileno() if name == STDIN else name, "rb", closefd=name != STDIN)
    except OSError as error:
        raise BitsumError(f"cannot read {name}: {error.strerror}") from error
