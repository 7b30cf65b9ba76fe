"""`bitsum add`, `bitsum subtract`, `bitsum compare`: what the served model makes of pairs of numbers of any size.

    bitsum add 13 29                                   # 42
    bitsum add --file pairs.txt                        # a pair a line; so many lines come out, in order
    echo 0xff 0b1 | bitsum add --base 16               # 0x100; the same as: bitsum add -
    bitsum add --packed A.bin B.bin --output SUM.bin   # little-endian bytes, larger than memory

Answers are decimal whatever the numbers were written in, unless --base says otherwise. A line that is no pair ends the
work with exit code 2, after the answers before it. A packed sum of files of N_a and N_b bytes has max(N_a, N_b) + 1
bytes, a packed difference is in two's complement, and of packed numbers `compare` prints the verdict.

A model's signatures are named after its task, so a model that adds, asked to subtract, is an error that says so.
Versions of the first export format have the names of addition whatever they compute: `bitsum subtract --signature
add_bits` takes your word for it.
"""

import argparse
import contextlib
import logging
import os
import pathlib
import re
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from components import atomic, signatures
from components.errors import BitsumError, ConfigError
from components.log_lines import LineHandler
from components.printable import say
from components.progress import Progress, report
from components.task.transducer import TASKS, Transducer
from serving.commands import connection_flags

if TYPE_CHECKING:
    from serving.client import AdderClient

COMMANDS = {task.verb: task for task in TASKS.values()}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of each of the commands."""
    # argparse takes -5 for a number and -0x5 for an option; all of them are numbers here, which `run` refuses in words.
    parser._negative_number_matcher = re.compile(r"-\.?[0-9]")
    parser.add_argument(
        "numbers",
        nargs="*",
        metavar="A B",
        help="integers from 0 up: decimal, 0x... or 0b...; or - for pairs from standard input",
    )
    parser.add_argument("--file", nargs="+", metavar="FILE", help="files with a pair a line; - is standard input")
    parser.add_argument(
        "--packed",
        nargs=2,
        type=pathlib.Path,
        metavar=("A.BIN", "B.BIN"),
        help="files with the little-endian bytes of a number each",
    )
    parser.add_argument(
        "--output", type=pathlib.Path, metavar="FILE", help="where the answer to --packed goes, as little-endian bytes"
    )
    parser.add_argument(
        "--base", type=int, choices=(10, 16, 2), default=10, help="base of the answers (default %(default)s)"
    )
    parser.add_argument(
        "--signature",
        choices=[signatures.bits(verb) for verb in COMMANDS],
        help="signature to ask, with its twin for packed bits (default: the command's; add_bits of models of the first format)",
    )
    connection_flags.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Print the answers; the exit code, 0 for each answer.

    Raises:
        BitsumError: the arguments or lines are no numbers from 0 up, a file cannot be read or written, or the server
        did not answer.
    """
    task = COMMANDS[args.command]
    pairs = _pairs(args, task)
    from serving.client import AdderClient

    options = connection_flags.options(args)
    with _notes(), AdderClient(signature=args.signature, **options) as client, Progress(sys.stderr) as progress:
        if args.packed:
            _packed(client, task, args.packed, args.output)
        else:
            _print_answers(client, task, pairs, args.base, progress)
    return 0


def _pairs(args: argparse.Namespace, task: Transducer) -> Iterable[list[tuple[int, int]]]:
    """Windows of pairs from wherever they come, none for packed numbers."""
    from serving.commands import pair_reader

    if sum(map(bool, (args.numbers, args.file, args.packed))) > 1:
        raise ConfigError("give two numbers, --file or --packed, one of them")
    if bool(args.output) != bool(args.packed and task.reading != "last"):
        raise ConfigError("--packed A.bin B.bin needs --output FILE, but for a comparison, and nothing else takes it")
    if args.packed:
        return ()
    if args.file or args.numbers == [pair_reader.STDIN] or not (args.numbers or sys.stdin.isatty()):
        return pair_reader.windows(args.file or [pair_reader.STDIN])
    try:
        return [[pair_reader.pair(args.numbers)]]
    except ValueError as error:
        raise ConfigError(str(error)) from error


def _print_answers(
    client: "AdderClient", task: Transducer, windows: Iterable[list[tuple[int, int]]], base: int, progress: Progress
) -> None:
    from serving.commands import numerals

    for window in windows:
        answers = client.apply(task, window)
        if answers:
            with progress.hidden():
                say(*(numerals.written(value, base) for value in answers))


def _packed(client: "AdderClient", task: Transducer, operands: list[pathlib.Path], output: pathlib.Path | None) -> None:
    from serving.client import FilePieces

    pieces = client.add_stream(*map(FilePieces, operands), task)
    try:
        bits = 8 * (max(os.stat(operand).st_size for operand in operands) + 1)
    except OSError as error:
        raise BitsumError(f"cannot read {error.filename}: {error.strerror}") from error
    if output is None:
        last = b""
        for last in _told(pieces, bits):
            pass
        say(str(task.read(last[-1], 8)))
        return
    with _whole(output) as file:
        for piece in _told(pieces, bits):
            file.write(piece)


def _told(pieces: Iterable[bytes], bits: int) -> Iterator[bytes]:
    done = 0
    for piece in pieces:
        done += 8 * len(piece)
        report("stream", step=done, of=max(done, bits), unit="bits")
        yield piece


@contextlib.contextmanager
def _whole(path: pathlib.Path) -> Iterator:
    """A file that appears under `path` once it is whole. Raises: BitsumError."""
    try:
        with atomic.file(path) as beside, open(beside, "wb") as file:
            yield file
    except OSError as error:
        raise BitsumError(f"cannot write {path}: {error.strerror}") from error


@contextlib.contextmanager
def _notes() -> Iterator[None]:
    """What the client has to say goes to standard error."""
    logger, handler = logging.getLogger("bitsum.client"), LineHandler(sys.stderr, "bitsum: %(message)s")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
