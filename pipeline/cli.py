"""The command line: one program, `bitsum`, whose commands import what they need when they run."""

import argparse
import contextlib
import importlib
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

from components import arithmetic_switches, progress
from components.errors import BitsumError, ConfigError, Terminated, reason
from components.printable import say
from components.suggestions import did_you_mean

# Python's message when the system allows no more threads.
_NO_THREAD = "can't start new thread"

# name -> (module with add_arguments and run, help, whether it takes --config and --set).
COMMANDS = {
    "run": (
        "pipeline.commands.run",
        "run the pipeline: generate, validate, train, evaluate, prove, push, serve, query",
        True,
    ),
    "node": ("pipeline.commands.node", "run one node of the pipeline for a scheduler, or list nodes and edges", True),
    "status": ("pipeline.commands.status", "show what is pushed, served and blessed", True),
    "lineage": (
        "pipeline.commands.lineage",
        "show the origin of a pushed version: data, knobs, code, training, verdicts",
        True,
    ),
    "history": ("pipeline.commands.history", "show one line per run: verdicts of the gates, and margin", True),
    "gc": (
        "pipeline.commands.gc",
        "list, and with --delete remove, artifacts that are not ancestors of any kept model",
        True,
    ),
    "relocate": (
        "pipeline.commands.relocate",
        "list, and with --yes rewrite, the metadata of a root that was moved or copied",
        True,
    ),
    "verify": ("pipeline.commands.verify", "check that a model is proven: its certificate, weights and graph", True),
    "demo": (
        "pipeline.commands.demo",
        "show why the proof is needed: only the proof refuses a wrong model that passes every test",
        False,
    ),
    "config": ("pipeline.commands.config", "print every knob with its value, unit and purpose, as TOML", True),
    "compile": ("pipeline.commands.compile", "compile the pipeline for another scheduler: Kubeflow Pipelines", True),
    "serve": ("serving.commands.serve", "serve a folder of versions over gRPC, as tensorflow_model_server does", False),
    "rollout": ("serving.commands.rollout", "promote the newest version if it passes the canary checks", False),
    "warmup": (
        "serving.commands.warmup",
        "push a version again with logged requests, which servers replay while they load it",
        False,
    ),
    "rollback": ("serving.commands.rollback", "restore the previously stable version", False),
    "add": ("serving.commands.calculate", "add two numbers with the served model", False),
    "subtract": (
        "serving.commands.calculate",
        "subtract the second number from the first, with a model for that task",
        False,
    ),
    "compare": (
        "serving.commands.calculate",
        "print whether the first number is greater (True or False), with a model for that task",
        False,
    ),
    "probe": ("serving.commands.probe", "send a model server questions with known answers, and check every bit", False),
    "qualify": (
        "serving.commands.qualify",
        "check that a model server's sigmoid and tanh are as accurate as the proof assumes",
        False,
    ),
}
# Commands that import TensorFlow, or start a program that does.
_COMPUTING = {"run", "node", "verify", "demo", "serve", "warmup", "qualify"}
# Commands without progress; serve has a log file.
_WITHOUT_PROGRESS = {"config", "compile", "serve"}
# Commands that call a model server and start none.
_CALLING = {"status", "rollout", "rollback", "add", "subtract", "compare", "probe", "qualify"}
_JSON = "--json"
_LOG_FORMAT = "%(levelname)s %(name)s: %(message)s"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code (components.errors has the table)."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if sys.stderr is None:
        sys.stderr = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    if sys.stdout is None:
        # The next opened file would get descriptor 1, and with it the output for the user.
        say("bitsum: standard output is closed: redirect it to a file or /dev/null", stream=sys.stderr)
        return 1
    try:
        with _terminated():
            code = _run(arguments)
    except SystemExit as end:
        code = int(end.code or 0)
    except KeyboardInterrupt as interrupt:
        terminated = isinstance(interrupt, Terminated)
        text = ("terminated" if terminated else "interrupted") + (f": {interrupt}" if str(interrupt) else "")
        code = _fail(text, 128 + (signal.SIGTERM if terminated else signal.SIGINT), arguments)
    except BitsumError as error:
        code = _fail(str(error), error.exit_code, arguments)
    except (UnicodeEncodeError, UnicodeDecodeError) as error:
        # A path or name that is not valid text was about to be written to a database, a request or a file.
        text = f"{error.object!r:.300} is not valid text ({error.reason}): use another name"
        code = _fail(text, 1, arguments)
    except (OSError, RuntimeError) as error:
        # An unexpected fault of the machine. Any other RuntimeError is a defect, which a traceback shows.
        if isinstance(error, RuntimeError) and _NO_THREAD not in str(error):
            raise
        advice = "; run this as a user who may use it" if isinstance(error, PermissionError) else ""
        code = _fail(f"cannot continue: {reason(error) if isinstance(error, OSError) else error}{advice}", 1, arguments)
    try:
        sys.stdout.flush()
    except OSError:
        # The error is already reported. At exit Python would try to write the rest, and report it again.
        with open(os.devnull, "w") as nothing:
            os.dup2(nothing.fileno(), sys.stdout.fileno())
    return code


def _fail(text: str, code: int, arguments: Sequence[str]) -> int:
    """Print why the command ends, also as JSON with --json; the exit code."""
    say(f"bitsum: {text}", stream=sys.stderr)
    if _JSON in arguments:
        with contextlib.suppress(OSError):
            say(json.dumps({"error": text, "exit_code": code}))
    return code


def _run(arguments: list[str]) -> int:
    parser = parser_for(arguments)
    args = parser.parse_args(arguments)
    if args.show_version:
        say(_version())
        return 0
    if not args.command:
        parser.print_help()
        return 2
    with _verbosity(args):
        if args.command in _COMPUTING and (note := arithmetic_switches.clear()):
            progress.note(f"note: {note}")
        return importlib.import_module(COMMANDS[args.command][0]).run(args)


def _version() -> str:
    """The installed versions of bitsum, TFX and TensorFlow."""
    import importlib.metadata

    versions = {"bitsum": "", "tfx": "TFX", "tensorflow-cpu": "TensorFlow", "tensorflow": "TensorFlow"}
    installed = {}
    for package, name in versions.items():
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            installed[name or package] = importlib.metadata.version(package)
    return ", ".join(" ".join(item) for item in installed.items())


@contextlib.contextmanager
def _verbosity(args: argparse.Namespace) -> Iterator[None]:
    """-q hides progress; -v shows the log lines of libraries on the current standard error."""
    if args.command in _CALLING and not args.verbose:
        # Before the first import of gRPC, whose lines repeat the errors that the command reports.
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    if getattr(args, "quiet", False):
        with progress.hidden():
            yield
    elif getattr(args, "verbose", False):
        from components.log_lines import LineHandler

        # A descriptor of its own, since a command may redirect its standard error to a log file.
        with open(os.dup(2), "w", encoding="utf-8", errors="replace") as stream:
            root, handler = logging.getLogger(), LineHandler(stream, _LOG_FORMAT)
            level = root.level
            root.addHandler(handler)
            root.setLevel(logging.INFO)
            try:
                yield
            finally:
                root.removeHandler(handler)
                root.setLevel(level)
    else:
        yield


@contextlib.contextmanager
def _terminated() -> Iterator[None]:
    """SIGTERM ends a command like an interrupt; serving commands have their own handlers."""
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
    """Accepts no abbreviations, suggests options, and raises ConfigError for a mistake."""

    def __init__(self, **options: Any):
        super().__init__(**options, allow_abbrev=False)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse, but refuses unknown options before it looks for a missing argument."""
        words = list(args)
        if self._subparsers is not None:
            # The rest belongs to the command.
            words = words[: next((place for place, word in enumerate(words) if not word.startswith("-")), None)]
        for word in words[: words.index("--") if "--" in words else None]:
            name = word.partition("=")[0]
            # As in argparse, a word with a space is a value.
            if name.startswith("--") and " " not in word and name not in self._option_string_actions:
                self.error(f"unrecognized arguments: {word}{did_you_mean(name, self._option_string_actions)}")
        namespace, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return namespace, unknown

    def print_help(self, file: Any = None) -> None:
        """Write the help like all other output."""
        say(*self.format_help().splitlines(), stream=file)

    def error(self, message: str) -> NoReturn:
        """Raises: ConfigError: always."""
        raise ConfigError(f"{self.prog.removeprefix('bitsum').strip() or 'command line'}: {message}")


def parser_for(arguments: Sequence[str]) -> argparse.ArgumentParser:
    """The parser of the command line `arguments`; imports only the module of its command.

    Raises:
        ConfigError: an unknown command.
    """
    parser = _Parser(prog="bitsum", description="A GRU that adds numbers of any length: train it, prove it, serve it.")
    parser.add_argument("--version", action="store_true", dest="show_version", help="print the versions and exit")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    chosen = next((argument for argument in arguments if not argument.startswith("-")), None)
    if chosen is not None and chosen not in COMMANDS:
        raise ConfigError(f"unknown command {chosen}{did_you_mean(chosen, COMMANDS) or '; bitsum --help lists them'}")
    for name, (module, text, configurable) in COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        if configurable:
            command.add_argument("--config", metavar="FILE", help="TOML file with knobs")
            command.add_argument(
                "--set", metavar="SECTION.KNOB=VALUE", action="append", default=[], help="set one knob; may be repeated"
            )
        if name not in _WITHOUT_PROGRESS:
            verbosity = command.add_mutually_exclusive_group()
            verbosity.add_argument("-q", "--quiet", action="store_true", help="show only errors and the result")
            verbosity.add_argument(
                "-v", "--verbose", action="store_true", help="show the libraries' log lines on standard error"
            )
        if name == chosen:
            importlib.import_module(module).add_arguments(command)
    return parser
