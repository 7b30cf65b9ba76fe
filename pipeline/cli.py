"""The command line: one program, `bitsum`, whose commands import what they need when they run."""

import argparse
import contextlib
import importlib
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import NoReturn

from components import arithmetic_switches
from components.errors import BitsumError, Terminated, reason
from components.printable import printable, say

# What Python says when the system allows no more threads.
_NO_THREAD = "can't start new thread"

# name -> (module with add_arguments and run, help, whether it takes --config and --set).
_COMMANDS = {
    "run": ("pipeline.commands.run", "run the pipeline: generate, validate, train, evaluate, push, serve, ask", True),
    "node": ("pipeline.commands.node", "run one node of the pipeline, for a scheduler; or list nodes and edges", True),
    "status": ("pipeline.commands.status", "show what is pushed, served and blessed", True),
    "lineage": (
        "pipeline.commands.lineage",
        "show where a pushed version comes from: data, knobs, code, training, verdicts",
        True,
    ),
    "history": ("pipeline.commands.history", "show the runs, a line each: what every gate said, and the margin", True),
    "gc": ("pipeline.commands.gc", "show, and with --delete remove, what no model that counts descends from", True),
    "relocate": (
        "pipeline.commands.relocate",
        "show, and with --yes rewrite, what the metadata have of a root that was moved or copied",
        True,
    ),
    "verify": (
        "pipeline.commands.verify",
        "check that a model is proven: its certificate, its weights and its graph",
        True,
    ),
    "demo": (
        "pipeline.commands.demo",
        "show what the proof is for: a model that passes every test and is refused by the proof alone",
        False,
    ),
    "config": ("pipeline.commands.config", "print every knob with its value, unit and reason, as TOML", True),
    "compile": (
        "pipeline.commands.compile",
        "write the pipeline as a file for another scheduler: Kubeflow Pipelines",
        True,
    ),
    "serve": ("serving.commands.serve", "serve a folder of versions over gRPC, as tensorflow_model_server does", False),
    "rollout": (
        "serving.commands.rollout",
        "put a new version in the place of the stable one, if it answers as well",
        False,
    ),
    "rollback": (
        "serving.commands.rollback",
        "make the version stable again that was it before the last rollout",
        False,
    ),
    "add": ("serving.commands.calculate", "add two numbers with the served model", False),
    "subtract": (
        "serving.commands.calculate",
        "subtract the second number from the first, with a model served for that task",
        False,
    ),
    "compare": (
        "serving.commands.calculate",
        "say whether the first number is greater (True or False), with a model served for that task",
        False,
    ),
    "probe": (
        "serving.commands.probe",
        "ask a model server questions whose answers are known, and check every bit",
        False,
    ),
    "qualify": (
        "serving.commands.qualify",
        "measure whether a model server's sigmoid and tanh are within what the proof allows",
        False,
    ),
}
# Those that import TensorFlow, or start what does.
_COMPUTING = {"run", "node", "verify", "demo", "serve", "qualify"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code (components.errors has the table)."""
    try:
        with _terminated():
            return _run(list(sys.argv[1:] if arguments is None else arguments))
    except BitsumError as error:
        say(f"bitsum: {error}", stream=sys.stderr)
        return error.exit_code
    except (UnicodeEncodeError, UnicodeDecodeError) as error:
        # A path or a name with bytes that are no text, on its way into a database, a request or a file.
        say(
            f"bitsum: what is called {error.object!r:.300} is no text ({error.reason}): give it another name",
            stream=sys.stderr,
        )
        return 1
    except BrokenPipeError:
        # Whoever read our output has enough; Python would complain about it once more at exit.
        sys.stdout = None
        return 1
    except (OSError, RuntimeError) as error:
        # What nobody expected: the machine's, not ours. Other RuntimeErrors are defects, which a traceback shows.
        if isinstance(error, RuntimeError) and _NO_THREAD not in str(error):
            raise
        say(f"bitsum: cannot go on: {reason(error) if isinstance(error, OSError) else error}", stream=sys.stderr)
        return 1
    except KeyboardInterrupt as interrupt:
        terminated = isinstance(interrupt, Terminated)
        said = f": {interrupt}" if str(interrupt) else ""
        say(f"bitsum: {'terminated' if terminated else 'interrupted'}{said}", stream=sys.stderr)
        return 128 + (signal.SIGTERM if terminated else signal.SIGINT)


def _run(arguments: list[str]) -> int:
    parser = _parser(arguments)
    args = parser.parse_args(arguments)
    if not args.command:
        parser.print_help()
        return 2
    if args.command in _COMPUTING and (note := arithmetic_switches.clear()):
        say(f"note: {note}", stream=sys.stderr)
    return importlib.import_module(_COMMANDS[args.command][0]).run(args)


@contextlib.contextmanager
def _terminated() -> Iterator[None]:
    """SIGTERM ends a command as an interrupt does; those that serve have handlers of their own."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(*_: object) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, handle) or signal.SIG_DFL
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        super().error(printable(message))


def _parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    """The parser; only the module of the command that is asked for is imported."""
    parser = _Parser(prog="bitsum", description="A GRU that adds numbers of any length: train it, prove it, serve it.")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    asked = next((argument for argument in arguments if not argument.startswith("-")), None)
    for name, (module, text, configurable) in _COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        if configurable:
            command.add_argument("--config", metavar="FILE", help="TOML file with knobs")
            command.add_argument(
                "--set", metavar="SECTION.KNOB=VALUE", action="append", default=[], help="set one knob; may be repeated"
            )
        if name == asked:
            importlib.import_module(module).add_arguments(command)
    return parser
