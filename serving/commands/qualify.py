"""`bitsum qualify HOST:PORT`: check that a server's sigmoid and tanh are as accurate as the proof assumes.

The server must serve the sweep model, which `bitsum qualify --export FOLDER` writes:

    bitsum qualify --export FOLDER
    bitsum serve --model_name=bitsum-activations --model_base_path=FOLDER
    bitsum qualify HOST:PORT

A sample takes seconds and covers every served shape; --all-floats takes minutes and also covers every finite float32.
Progress goes to standard error: one line that is redrawn on a terminal, elsewhere a line every ten seconds.
docs/json.md describes the report of --json.

Exit code 0 qualified, 3 refused, 1 if the server does not answer, 2 for wrong usage.
"""

import argparse
import os
import pathlib
import sys

from components import compat, outputs, results
from components.errors import ConfigError, Refusal
from components.printable import say
from components.progress import Progress
from serving.commands import connection_flags
from serving.probing.qualification import MODEL_NAME

_DEADLINE = 60.0
# Between two lines of progress without a terminal.
_PROGRESS_SECONDS = 10.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `bitsum qualify`."""
    parser.add_argument("target", nargs="?", metavar="HOST:PORT", help="model server that serves the sweep model")
    parser.add_argument(
        "--export", type=outputs.path, metavar="FOLDER", help="write the sweep model to FOLDER/1; query no server"
    )
    parser.add_argument(
        "--units", type=int, nargs="+", metavar="N", help="hidden units of the exported shapes (default 16 and 7)"
    )
    parser.add_argument("--all-floats", action="store_true", help="check every finite float32")
    connection_flags.add_call_arguments(parser, MODEL_NAME, _DEADLINE)
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="seed of the sample (default %(default)s)")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    connection_flags.add_tls_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Qualify a server, or write the sweep model; return the exit code.

    Raises:
        BitsumError: the server does not answer, or the model cannot be written.
    """
    if (args.export is None) == (args.target is None):
        raise ConfigError("give either HOST:PORT or --export FOLDER")
    if args.export and args.json:
        raise ConfigError("--json prints the report on HOST:PORT: omit it with --export")
    if not args.deadline > 0 or not all(1 <= units <= 4096 for units in args.units or ()):
        raise ConfigError("--deadline must be more than 0, and --units from 1 to 4096")
    return _export(args.export, args.units) if args.export else _qualify(args)


def _export(folder: pathlib.Path, units: list[int] | None) -> int:
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"--export {folder} is not a folder: name a new one")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    compat.import_tensorflow()
    from components.model import activation_sweep

    version = activation_sweep.write(folder, units or activation_sweep.UNITS)
    say(f"wrote {version}; serve it with: bitsum serve --model_name={MODEL_NAME} --model_base_path={folder}")
    return 0


def _qualify(args: argparse.Namespace) -> int:
    from serving.probing import qualifier

    with Progress(sys.stderr, _PROGRESS_SECONDS):
        qualification = qualifier.qualify(
            args.target,
            all_floats=args.all_floats,
            model_name=args.model_name,
            deadline=args.deadline,
            seed=args.seed,
            credentials=connection_flags.credentials(args),
        )
    results.show(qualification.report(), lambda _: [qualification.line()], args.json)
    return 0 if qualification.qualified else Refusal.exit_code
