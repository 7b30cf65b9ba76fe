"""`bitsum probe HOST:PORT...`: ask model servers questions whose answers are known, through every signature, and check
every bit.

    bitsum probe 127.0.0.1:8500                                      # 500 questions made from --seed, as fast as they are answered
    bitsum probe 127.0.0.1:8500 --examples FILES --count 100 --json  # from the data
    bitsum probe A:8500 B:8500 --duration 0 --metrics_port 9100      # until SIGTERM or SIGINT, --rate questions a second to each

Questions come from --examples, or are made from --seed (serving.probing.generated); with both, half of them are. Each is
asked through every signature in turn: serving_default, <verb>_bits and step, which every model has to have, and
<verb>_packed where the model has it; the verb is that of --task, or add where the model has the names of addition
alone, as those of the first export format have. Long ones go in chunks through the two that take a state alone. Short
ones of about one length share a call, never more of them than may be asked in a second.

With --count the server is given up after five failures in a row. With --duration it is asked on whatever happens, after
pauses of at most five seconds while it does not answer. Each call is made once, so that every failure is seen.

Lines come at once for each wrong answer (the first hundred between two summaries), change of version, failure and recovery; every
--report_every seconds a summary of what was found since the last one; and the report at the end. With --json they go to
standard error, and the report is one JSON object (docs/json.md); one pair asked through one signature counts once.

An answer is right if every output is, also where (as in a comparison) only the last one is read. Latency is that of a
call, which carries many pairs; it is at most 5 % below what is told. A model whose signatures the server does not tell
counts as one question that was not answered. Of several targets the report is that on all of them together, and has
those on each. With --certificate it has what `serving.probing.box_prober` found; a server that was given up is not asked. With
-q the report alone is shown.

--metrics_port shows serving.probing.metrics under /metrics, on loopback alone. Which servers are asked is told by the arguments, not
by whoever reads the page: there is no /probe?target=....

Exit code 0 when every answer was right, by the version of --expect_version if that is given; 1 otherwise, also when
errors came in between or nothing was asked; 2 for wrong usage.
"""

import argparse
import contextlib
import dataclasses
import itertools
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from components import progress, results, signatures
from components.errors import BitsumError, ConfigError
from components.task.transducer import ADDITION, TASKS
from serving.commands import connection_flags

if TYPE_CHECKING:
    from serving.probing.prober import TimedClient
    from serving.probing.questions import Question
    from serving.probing.report import BoxReport, Report, Summary

ALL = "all"
_NAMED = [named(task.verb) for task in TASKS.values() for named in (signatures.bits, signatures.packed)]
_SIGNATURES = (signatures.SERVING_DEFAULT, signatures.STEP, *_NAMED)
_COUNT = 500
# Questions per second to each target when there is no end to them.
_RATE = 10.0
_REPORT_EVERY = 60.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `bitsum probe`."""
    parser.add_argument("targets", nargs="+", metavar="HOST:PORT", help="model servers")
    parser.add_argument(
        "--examples", nargs="+", metavar="TFRECORDS", help="ask these: files of tf.Examples, gzip or not"
    )
    parser.add_argument(
        "--seed", type=int, metavar="N", help="ask sums made from this seed (default 0, without --examples)"
    )
    end = parser.add_mutually_exclusive_group()
    end.add_argument("--count", type=int, metavar="N", help=f"questions to ask (default {_COUNT})")
    end.add_argument("--duration", type=float, metavar="SECONDS", help="how long to ask; 0 is until SIGTERM or SIGINT")
    parser.add_argument(
        "--rate",
        type=float,
        metavar="N",
        help=f"questions per second to each target (default {_RATE:g} with --duration, no bound with --count)",
    )
    parser.add_argument(
        "--signature", choices=(ALL, *_SIGNATURES), default=ALL, help="which to ask through (default %(default)s)"
    )
    parser.add_argument(
        "--task", choices=tuple(TASKS), default=ADDITION.name, help="what the model computes (default %(default)s)"
    )
    parser.add_argument("--expect_version", type=int, metavar="N", help="an answer by another version is a finding")
    parser.add_argument(
        "--certificate",
        metavar="MODEL_DIR",
        help="also send states drawn from the boxes of the certificate of this SavedModel; not with --duration",
    )
    parser.add_argument(
        "--model_name", default=connection_flags.MODEL_NAME, help="name of the model (default %(default)s)"
    )
    parser.add_argument(
        "--deadline",
        type=float,
        default=connection_flags.DEADLINE,
        metavar="SECONDS",
        help="time limit of each call (default %(default)s)",
    )
    parser.add_argument(
        "--report_every",
        type=float,
        default=_REPORT_EVERY,
        metavar="SECONDS",
        help="how often to sum up (default %(default)s)",
    )
    parser.add_argument(
        "--metrics_port", type=int, metavar="N", help="loopback port for Prometheus; 0 takes a free one"
    )
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    connection_flags.add_version_arguments(parser)
    connection_flags.add_tls_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Ask, print the report; the exit code.

    Raises:
        BitsumError: the examples or the certificate cannot be read, or the port cannot be had.
    """
    _check(args)
    from serving.probing import metrics, runner
    from serving.probing.monitor import Plan, Watch
    from serving.probing.prober import TimedClient
    from serving.server import metrics as monitoring

    lasting = args.duration is not None
    rate = args.rate or (_RATE if lasting else None)
    plan = Plan(
        TASKS[args.task], None if args.signature == ALL else (args.signature,), rate, lasting, args.expect_version
    )
    asked = _questions(args)
    boxes = _boxes_of(args.certificate, args.task) if args.certificate else None
    tell = runner.teller(sys.stderr if args.json else sys.stdout) if progress.shown() else lambda line: None
    options = {
        "model_name": args.model_name,
        "deadline": args.deadline,
        "version": args.version,
        "label": args.label,
        "credentials": connection_flags.credentials(args),
    }
    with contextlib.ExitStack() as open_ones:
        clients = [open_ones.enter_context(TimedClient(name, **options)) for name in dict.fromkeys(args.targets)]
        watches = [Watch(client, plan, asked(), tell) for client in clients]
        if args.metrics_port is not None:
            page = monitoring.serve_metrics(lambda: metrics.page(watches), port=args.metrics_port, path=metrics.PATH)
            port = open_ones.enter_context(page)
            progress.note(f"bitsum: metrics are at http://127.0.0.1:{port}{metrics.PATH}")
        runner.run(watches, clients, args.duration or None, args.report_every, tell)
        reports = {watch.target: watch.total() for watch in watches}
        found = {client.target: boxes(client) for client in clients if boxes and not reports[client.target].gave_up}
    results.show(_summary(reports, found), lambda _: _lines(reports, found), args.json)
    right = [*(report.all_right for report in reports.values()), *(boxes.all_right for boxes in found.values())]
    return 0 if all(right) else 1


def _check(args: argparse.Namespace) -> None:
    if (args.count is not None and args.count < 1) or not args.deadline > 0:
        raise ConfigError("--count must be at least 1 and --deadline more than 0")
    if args.duration is not None and not args.duration >= 0:
        raise ConfigError(f"--duration {args.duration:g}: must be 0, for no end, or more")
    if (args.rate is not None and not args.rate > 0) or not args.report_every > 0:
        raise ConfigError("--rate and --report_every must be more than 0")
    if args.certificate and args.duration is not None:
        raise ConfigError("--certificate asks a bounded number of questions: leave --duration away")
    if args.metrics_port is not None and not 0 <= args.metrics_port <= 65535:
        raise ConfigError(f"--metrics_port = {args.metrics_port}: must be between 0 and 65535")


def _questions(args: argparse.Namespace) -> Callable[[], Iterator["Question"]]:
    """What each target is asked, without end for --duration.

    Raises:
        BitsumError: the examples cannot be read.
    """
    from serving.probing import generated, questions

    task, seed = TASKS[args.task], args.seed or 0
    count = None if args.duration is not None else args.count or _COUNT
    if not args.examples:
        return lambda: generated.fresh(task, seed, count)
    both = args.seed is not None
    examples = questions.spread(args.examples, -(-(count or _COUNT) // (1 + both)))
    if not examples:
        raise BitsumError(f"there are no examples in {', '.join(args.examples)}")
    if count is None:
        made = generated.fresh
        return lambda: _alternating(itertools.cycle(examples), made(task, seed)) if both else itertools.cycle(examples)
    rest = count - len(examples) if both else 0
    return lambda: itertools.chain(examples, generated.fresh(task, seed, rest))


def _alternating(first: Iterator["Question"], second: Iterator["Question"]) -> Iterator["Question"]:
    return itertools.chain.from_iterable(zip(first, second))


def _boxes_of(model_dir: str, task: str) -> Callable[["TimedClient"], "BoxReport"]:
    """A function: client -> what the server makes of states of the boxes that the certificate in the SavedModel has.

    Raises:
        BitsumError: there is no certificate, or it does not prove these weights.
    """
    from components.proof import certificate
    from components.savedmodel import certified
    from serving.probing.box_prober import probe_boxes

    found = certified.check(model_dir, TASKS[task])
    if not found.verdict.proven:
        raise BitsumError(f"{model_dir} is refused, it is not proven: {found.verdict.reason}")
    return lambda client: probe_boxes(client, found.weights, certificate.parse(found.certificate), TASKS[task])


def _summary(reports: dict[str, "Report"], boxes: dict[str, "BoxReport"]) -> "Summary":
    """The report on the only target, or on all of them together."""
    from serving.probing.report import Report

    targets = {name: report.summary(boxes.get(name)) for name, report in reports.items()}
    if len(targets) == 1:
        return next(iter(targets.values()))
    together = Report(next(iter(reports.values())).task)
    for report in reports.values():
        together.merge(report)
    # One target after the other: that they serve different versions is no change.
    together.version_changes = sum(report.version_changes for report in reports.values())
    return dataclasses.replace(together.summary(), targets=targets)


def _lines(reports: dict[str, "Report"], boxes: dict[str, "BoxReport"]) -> list[str]:
    lines = []
    for name, report in reports.items():
        found = boxes.get(name)
        asked = f"; {found.right} of {found.asked} steps from the boxes as certified" if found else ""
        lines.append(report.line(name) + asked)
    return lines
