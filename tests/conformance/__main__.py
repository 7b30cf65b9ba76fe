"""`python -m tests.conformance`: a table that compares model servers with the recorded TensorFlow Serving 2.16.1.

Without arguments, it runs the embedded server and, if installed (on the PATH, or BITSUM_MODEL_SERVER=/path), the real
one. The exit code is 1 for a difference that is not a listed deviation.
"""

import argparse
import pathlib
import sys
import tempfile

from tests.conformance import models, outcomes, servers, suite


def main() -> int:
    """Run the selected parts, print the table and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.conformance", description=__doc__)
    server = parser.add_mutually_exclusive_group()
    server.add_argument(
        "--server", metavar="NAME", help="run only this server: embedded, or the path of a tensorflow_model_server"
    )
    server.add_argument("--target", metavar="HOST:PORT", help="compare a running server, which must read --models_dir")
    parser.add_argument(
        "--models_dir", type=pathlib.Path, help="folder for the model `add`, for --target (default: a temporary one)"
    )
    parser.add_argument(
        "--only", metavar="PART", action="append", choices=tuple(suite.PARTS), help="a part of the suite, repeatable"
    )
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="conformance-") as temporary:
        folder = pathlib.Path(temporary)
        columns: dict[str, list[outcomes.Outcome]] = {server: [] for server in outcomes.SERVERS}
        if args.target:
            made = models.make((args.models_dir or folder).absolute())
            columns = {args.target: suite.over_the_wire(args.target, made.parent, poll=1)}
        for program in [] if args.target else _programs(args.server):
            columns[program.name] = suite.run(program, folder, args.only or tuple(suite.PARTS))
    print(outcomes.table(columns, suite.order()))
    return int(any(outcome.verdict == outcomes.DIFFERENT for column in columns.values() for outcome in column))


def _programs(wanted: str | None) -> list[servers.Program]:
    if wanted == outcomes.EMBEDDED:
        return [servers.embedded()]
    if wanted:
        return [servers.Program(outcomes.REAL, (wanted,), 1)]
    return [program for program in (servers.embedded(), servers.real()) if program]


if __name__ == "__main__":
    sys.exit(main())
