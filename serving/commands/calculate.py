"""`bitsum add`, `bitsum subtract`, `bitsum compare`: compute pairs of numbers of any size with the served model.

    bitsum add 13 29                                   # 42
    bitsum add --file pairs.txt                        # one pair per line; one answer per line, in order
    echo 0xff 0b1 | bitsum add --base 16               # 0x100; the same as: bitsum add -
    bitsum add --packed A.bin B.bin --output SUM.bin   # little-endian bytes, larger than memory

Answers are decimal, whatever the base of the numbers, unless --base is given. A malformed line ends the command with
exit code 2, after the answers before it. A packed sum of files of N_a and N_b bytes has max(N_a, N_b) + 1 bytes, a
packed difference is in two's complement, and `compare` prints its verdict on packed numbers.

A model's signatures are named after its task, so subtracting with a model that adds is an error that names its task.
Versions of the first export format have the signature names of addition whatever they compute: `bitsum subtract
--signature add_bits` relies on you to know their task.
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

from components import outputs, signatures
from components.errors import BitsumError, ConfigError
from components.log_lines import LineHandler
from components.printable import say
from components.progress import Progress, report
from components.task.transducer import TASKS, Transducer
from serving import defaults
from serving.commands import connection_flags

if TYPE_CHECKING:
    from serving.client import AdderClient

COMMANDS = {task.verb: task for task in TASKS.values()}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of all three commands."""
    # argparse reads -5 as a number but -0x5 as an option; here both are numbers, which `run` refuses with a reason.
    parser._negative_number_matcher = re.compile(r"-\.?[0-9]")
    parser.add_argument(
        "numbers",
        nargs="*",
        metavar="A B",
        help="non-negative integers: decimal, 0x... or 0b...; or - for pairs from standard input",
    )
    parser.add_argument("--file", nargs="+", metavar="FILE", help="files with one pair per line; - is standard input")
    parser.add_argument(
        "--packed",
        nargs=2,
        type=pathlib.Path,
        metavar=("A.BIN", "B.BIN"),
        help="two files, each with the little-endian bytes of one number",
    )
    parser.add_argument(
        "--output", metavar="FILE", help="file for the answer to --packed, in little-endian bytes; - is standard output"
    )
    parser.add_argument(
        "--base", type=int, choices=(10, 16, 2), default=10, help="base of the answers (default %(default)s)"
    )
    parser.add_argument(
        "--signature",
        choices=[signatures.bits(verb) for verb in COMMANDS],
        help="signature to call, with its <verb>_packed (default: the command's; add_bits for the first model format)",
    )
    parser.add_argument(
        "--max_batch_size",
        type=int,
        default=defaults.BATCH_SIZE,
        metavar="N",
        help="pairs in one call (default %(default)s); halved if the server accepts fewer",
    )
    connection_flags.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Print the answers; exit code 0, whatever they are.

    Raises:
        BitsumError: an argument or line is not a non-negative integer, a file cannot be read or written, or the server
            did not answer.
    """
    task = COMMANDS[args.command]
    if args.max_batch_size < 1:
        raise ConfigError(f"--max_batch_size {args.max_batch_size}: must be at least 1")
    pairs = _pairs(args, task)
    from serving.client import AdderClient

    options = connection_flags.options(args)
    with (
        _warnings_on_stderr(),
        AdderClient(signature=args.signature, max_batch_size=args.max_batch_size, **options) as client,
        Progress(sys.stderr) as progress,
    ):
        if args.packed:
            _answer_packed(client, task, args.packed, args.output)
        else:
            _print_answers(client, task, pairs, args.base, progress)
    return 0


def _pairs(args: argparse.Namespace, task: Transducer) -> Iterable[list[tuple[int, int]]]:
    """Windows of pairs from the arguments, files or standard input; none for packed numbers."""
    from serving.commands import pair_reader

    if sum(map(bool, (args.numbers, args.file, args.packed))) > 1:
        raise ConfigError("give only one of two numbers, --file and --packed")
    if bool(args.output) != bool(args.packed and task.reading != "last"):
        raise ConfigError(
            "--packed A.bin B.bin needs --output FILE, except for a comparison; nothing else accepts --output"
        )
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
    from components import numerals

    for window in windows:
        answers = client.apply(task, window)
        if answers:
            with progress.hidden():
                say(*(numerals.written(value, base) for value in answers))


def _answer_packed(client: "AdderClient", task: Transducer, operands: list[pathlib.Path], output: str | None) -> None:
    from serving.client import FilePieces

    a, b = map(FilePieces, operands)
    pieces = client.add_stream(a, b, task)
    try:
        bits = 8 * (max(os.stat(operand).st_size for operand in operands) + 1)
    except OSError as error:
        raise BitsumError(f"cannot read {error.filename}: {error.strerror}") from error
    if output is None:
        last = b""
        for last in _with_progress(pieces, bits):  # noqa: B007 - the last piece has the verdict.
            pass
        say(str(task.read(last[-1], 8)))
        return
    with outputs.opened(output) as file:
        for piece in _with_progress(pieces, bits):
            file.write(piece)


def _with_progress(pieces: Iterable[bytes], bits: int) -> Iterator[bytes]:
    done = 0
    for piece in pieces:
        done += 8 * len(piece)
        report("stream", step=done, of=max(done, bits), unit="bits")
        yield piece


@contextlib.contextmanager
def _warnings_on_stderr() -> Iterator[None]:
    """Print the client's warnings to standard error."""
    logger, handler = logging.getLogger("bitsum.client"), LineHandler(sys.stderr, "bitsum: %(message)s")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
