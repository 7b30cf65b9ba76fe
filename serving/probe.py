"""`bitsum probe HOST:PORT`: ask a model server about pairs from the data through every signature, and check every bit.

The report, as JSON with --json (one pair asked through one signature counts once):

    {"task": "addition", "asked": 1500, "right": 1499, "wrong": [{"a", "b", "got", "expected", "signature", "bits", "place"},
     ... the first 10], "wrong_count": 1, "errors": {"DEADLINE_EXCEEDED": 0, ...}, "first_error": "",
     "latency_ms": {"p50": 2.1, "p99": 7.9}, "version": 3}

With --certificate, "boxes" has what `serving.box_prober` found: {"asked", "right", "wrong": [line, ... the first 5]}.

An answer is right if every output is, also where (as in a comparison) only the last one is read: `got` and `expected` are
what all outputs say, `place` is the first wrong one, from 0. Latency is that of a call, which carries many pairs. Exit code
0 when every answer was right, 1 otherwise, 2 for wrong usage.
"""

import argparse
import json
import pathlib
from typing import TYPE_CHECKING, Any

from components import signatures
from components.errors import BitsumError, ConfigError
from components.transducer import ADDITION, TASKS

if TYPE_CHECKING:
    from serving.prober import TimedClient

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
    parser.add_argument("--task", choices=tuple(TASKS), default=ADDITION.name, help="what the model computes (default %(default)s)")
    parser.add_argument(
        "--certificate", metavar="MODEL_DIR", help="also send states drawn from the boxes of the certificate of this SavedModel"
    )
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
        report = probe(client, TASKS[args.task], asked, wanted)
        boxes = _boxes(client, args.certificate, args.task) if args.certificate else None
    if args.json:
        print(json.dumps(report.as_dict() | ({"boxes": boxes} if boxes else {})))
    else:
        print(report.line(args.target) + (f"; {boxes['right']} of {boxes['asked']} steps from the boxes as certified" if boxes else ""))
    return 0 if report.all_right and (not boxes or boxes["right"] == boxes["asked"]) else 1


def _boxes(client: "TimedClient", model_dir: str, task: str) -> dict[str, Any]:
    """What the server makes of states of the boxes that the certificate in the SavedModel has.

    Raises:
        BitsumError: there is no certificate, or it does not prove these weights.
    """
    from components import certificate, checker, saved_weights
    from serving.box_prober import probe_boxes

    file = pathlib.Path(model_dir) / certificate.FILE
    try:
        text = file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise BitsumError(f"cannot read the certificate {file}: {getattr(error, 'strerror', None) or error}") from error
    weights = saved_weights.read(model_dir)
    verdict = checker.check(text, weights, TASKS[task])
    if not verdict.proven:
        raise BitsumError(f"the certificate {file} is refused: {verdict.reason}")
    return probe_boxes(client, weights, certificate.parse(text), TASKS[task])
