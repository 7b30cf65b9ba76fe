"""Pairs of numbers from files and standard input, a pair a line, in windows that take constant memory.

A window is what can be read at once without waiting, so that who feeds a pipe line by line gets each answer at once,
and a large file is worked on in large windows.
"""

import contextlib
import io
import os
import sys
from collections.abc import Iterable, Iterator

from components.errors import BitsumError, ConfigError
from components.progress import report
from serving.commands import numerals

STDIN = "-"
_BLOCK_BYTES = 2**18

Pair = tuple[int, int]


def windows(names: Iterable[str]) -> Iterator[list[Pair]]:
    """The pairs of the files `names` in order, `-` being standard input; empty lines are passed over.

    Raises:
        ConfigError: a line is no pair, once the pairs before it were given.
        BitsumError: a file cannot be read.
    """
    for name in names:
        shown = "standard input" if name == STDIN else name
        with _opened(name) as file:
            number = 0
            for lines in _blocks(file, shown):
                window: list[Pair] = []
                for line in lines:
                    number += 1
                    try:
                        window += _pair(line)
                    except ValueError as error:
                        yield window
                        raise ConfigError(f"{shown}, line {number}: {error}") from error
                yield window


def pair(numbers: list[str]) -> Pair:
    """The numbers that two texts write. Raises: ValueError."""
    if len(numbers) != 2:
        raise ValueError(f"{len(numbers)} numbers where a pair is needed: two numbers with spaces between them")
    return numerals.parse(numbers[0]), numerals.parse(numbers[1])


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


@contextlib.contextmanager
def _opened(name: str) -> Iterator[io.BufferedReader]:
    if name == STDIN:
        yield sys.stdin.buffer
        return
    try:
        file = open(name, "rb")
    except OSError as error:
        raise BitsumError(f"cannot read {name}: {error.strerror}") from error
    with file:
        yield file
