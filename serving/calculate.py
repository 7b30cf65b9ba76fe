"""`bitsum add A B`, `subtract A B`, `compare A B`: what the served model makes of two numbers.

The model does not say which task it computes. Its outputs are read as those of the command's task, so a model that adds,
asked to subtract, gives a wrong answer and no error.
"""

import argparse
import re

from components.errors import ConfigError
from components.transducer import ADDITION, COMPARISON, SUBTRACTION

COMMANDS = {"add": ADDITION, "subtract": SUBTRACTION, "compare": COMPARISON}

# As settings.Serve; not imported, since these commands have to start fast.
_SERVER = "127.0.0.1:8500"
_MODEL_NAME = "bitsum"
_DEADLINE = 10.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of each of the commands."""
    # argparse takes -5 for a number and -0x5 for an option; all of them are numbers here, which `run` refuses in words.
    parser._negative_number_matcher = re.compile(r"-\.?[0-9]")
    parser.add_argument("a", metavar="A", help="an integer from 0 up: decimal, 0x... or 0b...")
    parser.add_argument("b", metavar="B", help="another one")
    parser.add_argument("--server", default=_SERVER, metavar="HOST:PORT", help="model server (default %(default)s)")
    parser.add_argument("--model_name", default=_MODEL_NAME, help="name of the model (default %(default)s)")
    parser.add_argument("--deadline", type=float, default=_DEADLINE, metavar="SECONDS", help="for each call (default %(default)s)")


def run(args: argparse.Namespace) -> int:
    """Print the answer; the exit code, 0 for each answer.

    Raises:
        BitsumError: the arguments are no numbers from 0 up, or the server did not answer.
    """
    from serving import numerals

    try:
        a, b = numerals.parse(args.a), numerals.parse(args.b)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    from serving.client import AdderClient

    with AdderClient(args.server, args.model_name, deadline=args.deadline) as client:
        [value] = client.apply(COMMANDS[args.command], [(a, b)])
    print(numerals.written(value))
    return 0
