"""`bitsum probe HOST:PORT`: ask a model server sums from the data through every signature, and check every bit.

The report, as JSON with --json (one sum asked through one signature counts once):

    {"asked": 1500, "right": 1499, "wrong": [{"a", "b", "got", "expected", "signature"}, ... the first 10], "wrong_count": 1,
     "errors": {"DEADLINE_EXCEEDED": 0, ...}, "first_error": "", "latency_ms": {"p50": 2.1, "p99": 7.9}, "version": 3}

Latency is that of a call, which carries many sums. Exit code 0 when every sum was right, 1 otherwise, 2 for wrong usage.
"""

import argparse
import json

from components import signatures
from components.errors import BitsumError, ConfigError

ALL = "all"
_SIGNATURES = (signatures.SERVING_DEFAULT, signatures.ADD_BITS, signatures.STEP)
_COUNT = 500
_DEADLINE = 10.0
_MODEL_NAME = "bitsum"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `bitsum probe`."""
    parser.add_argument("target", metavar="HOST:PORT", help="model server")
    parser.add_argument("--examples", nargs="+", required=True, metavar="TFRECORDS", help="files of tf.Examples, gzip or not")
    parser.add_argument(
        "--count", type=int, default=_COUNT, metavar="N", help="examples to ask, spread over the files (default %(default)s)"
    )
    parser.add_argument("--signature", choices=(ALL, *_SIGNATURES), default=ALL, help="which to ask through (default %(default)s)")
    parser.add_argument("--model_name", default=_MODEL_NAME, help="name of the model (default %(default)s)")
    parser.add_argument("--deadline", type=float, default=_DEADLINE, metavar="SECONDS", help="for each call (default %(default)s)")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")


def run(args: argparse.Namespace) -> int:
    """Ask, print the report; the exit code.

    Raises:
        BitsumError: the examples cannot be read.
    """
    if args.count < 1 or not args.deadline > 0:
        raise ConfigError("--count must be at least 1 and --deadline more than 0")
    from serving import questions
    from serving.prober import TimedClient, probe

    asked = questions.spread(args.examples, args.count)
    if not asked:
        raise BitsumError(f"there are no examples in {', '.join(args.examples)}")
    wanted = _SIGNATURES if args.signature == ALL else (args.signature,)
    with TimedClient(args.target, args.model_name, deadline=args.deadline) as client:
        report = probe(client, asked, wanted)
    print(json.dumps(report.as_dict()) if args.json else report.line(args.target))
    return 0 if report.all_right else 1
