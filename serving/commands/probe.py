"""`bitsum probe HOST:PORT...`: send questions with known answers through every signature of model servers and check
every bit.

    bitsum probe 127.0.0.1:8500                                      # 500 questions from --seed, at full speed
    bitsum probe 127.0.0.1:8500 --examples FILES --count 100 --json  # from the data
    bitsum probe A:8500 B:8500 --duration 0 --metrics_port 9100      # until SIGTERM or SIGINT, --rate per second each

Questions come from --examples or are generated from --seed (serving.probing.generated); with both, half from each. Each
question goes through every signature: serving_default, <verb>_bits and step, which every model must have, and
<verb>_packed if the model has it. The verb is that of --task, or add for a model of the first export format, which has
only the names of addition. Long questions go in chunks, only through the two signatures with a state. Short questions
of similar length share a call, at most as many as --rate allows per second.

With --count the probe gives up on a server after five failures in a row. With --duration it never gives up, and pauses
for at most five seconds while the server does not answer. Calls are not retried, so that every failure is seen.

Each wrong answer (the first hundred between two summaries), version change, failure and recovery is printed at once, a
summary every --report_every seconds, and the report at the end. With --json these lines go to standard error, and the
report is one JSON object (docs/json.md). One pair through one signature counts once. With -q only the report is shown.

An answer is right if every output is right, even if only the last one is read (comparison). The latency is that of a
call, which carries many pairs; the true value is at most 5 % below the reported one. If the server does not return the
model's signatures, that counts as one unanswered question. With several targets the report covers all of them together
and each of them. With --certificate it includes the result of serving.probing.box_prober, except for a server that
it gave up on.

--metrics_port serves serving.probing.metrics under /metrics, on loopback only. Only the arguments choose the targets:
the page has no /probe?target=....

Exit code 0 if every answer was right, and by the version of --expect_version if given; 1 otherwise, also after errors
or if nothing was asked; 2 for wrong usage.
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
# Questions per second to each target with --duration.
_RATE = 10.0
_REPORT_EVERY = 60.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `bitsum probe`."""
    parser.add_argument("targets", nargs="+", metavar="HOST:PORT", help="model servers")
    parser.add_argument(
        "--examples", nargs="+", metavar="TFRECORDS", help="questions from these files of tf.Examples, gzip or not"
    )
    parser.add_argument(
        "--seed", type=int, metavar="N", help="questions generated from this seed (default 0 without --examples)"
    )
    end = parser.add_mutually_exclusive_group()
    end.add_argument("--count", type=int, metavar="N", help=f"questions to ask (default {_COUNT})")
    end.add_argument("--duration", type=float, metavar="SECONDS", help="time to ask; 0 asks until SIGTERM or SIGINT")
    parser.add_argument(
        "--rate",
        type=float,
        metavar="N",
        help=f"questions per second to each target (default {_RATE:g} with --duration, unlimited with --count)",
    )
    parser.add_argument(
        "--signature", choices=(ALL, *_SIGNATURES), default=ALL, help="signature to call (default %(default)s)"
    )
    parser.add_argument(
        "--task", choices=tuple(TASKS), default=ADDITION.name, help="task of the model (default %(default)s)"
    )
    parser.add_argument("--expect_version", type=int, metavar="N", help="fail unless version N gives every answer")
    parser.add_argument(
        "--certificate",
        metavar="MODEL_DIR",
        help="also send states drawn from the boxes of the certificate of this SavedModel; not with --duration",
    )
    connection_flags.add_call_arguments(parser)
    parser.add_argument(
        "--report_every",
        type=float,
        default=_REPORT_EVERY,
        metavar="SECONDS",
        help="time between two summaries (default %(default)s)",
    )
    parser.add_argument(
        "--metrics_port", type=int, metavar="N", help="loopback port for Prometheus; 0 takes a free one"
    )
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    connection_flags.add_version_arguments(parser)
    connection_flags.add_tls_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Ask, print the report and return the exit code.

    Raises:
        BitsumError: the examples or the certificate cannot be read, or the port is taken.
    """
    _check(args)
    from serving.probing import metrics, runner
    from serving.probing.monitor import Plan, Watch
    from serving.probing.prober import TimedClient
    from serving.server.metrics import serve_metrics

    lasting = args.duration is not None
    rate = args.rate or (_RATE if lasting else None)
    plan = Plan(
        TASKS[args.task], None if args.signature == ALL else (args.signature,), rate, lasting, args.expect_version
    )
    questions = _questions(args)
    probe_boxes = None if args.certificate is None else _box_prober(args.certificate, args.task)
    log = runner.line_printer(sys.stderr if args.json else sys.stdout) if progress.shown() else lambda line: None
    options = {
        "model_name": args.model_name,
        "deadline": args.deadline,
        "version": args.version,
        "label": args.label,
        "credentials": connection_flags.credentials(args),
    }
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(TimedClient(name, **options)) for name in dict.fromkeys(args.targets)]
        watches = [Watch(client, plan, questions(), log) for client in clients]
        if args.metrics_port is not None:
            page = serve_metrics(lambda: metrics.page(watches), port=args.metrics_port, path=metrics.PATH)
            port = stack.enter_context(page)
            progress.note(f"bitsum: metrics are at http://127.0.0.1:{port}{metrics.PATH}")
        runner.run(watches, clients, args.duration or None, args.report_every, log)
        reports = {watch.target: watch.total() for watch in watches}
        box_reports = {
            client.target: probe_boxes(client)
            for client in clients
            if probe_boxes and not reports[client.target].gave_up
        }
    results.show(_summary(reports, box_reports), lambda _: _lines(reports, box_reports), args.json)
    right = [*(report.all_right for report in reports.values()), *(boxes.all_right for boxes in box_reports.values())]
    return 0 if all(right) else 1


def _check(args: argparse.Namespace) -> None:
    if (args.count is not None and args.count < 1) or not args.deadline > 0:
        raise ConfigError("--count must be at least 1 and --deadline more than 0")
    if args.duration is not None and not args.duration >= 0:
        raise ConfigError(f"--duration {args.duration:g}: must be 0 (no limit) or more")
    if (args.rate is not None and not args.rate > 0) or not args.report_every > 0:
        raise ConfigError("--rate and --report_every must be more than 0")
    if args.certificate is not None and args.duration is not None:
        raise ConfigError("--certificate asks a fixed number of questions: omit --duration")
    if args.metrics_port is not None and not 0 <= args.metrics_port <= 65535:
        raise ConfigError(f"--metrics_port = {args.metrics_port}: must be between 0 and 65535")


def _questions(args: argparse.Namespace) -> Callable[[], Iterator["Question"]]:
    """A function that returns the questions for a target, endless for --duration.

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
        raise BitsumError(f"no examples in {', '.join(args.examples)}")
    if count is None and both:
        return lambda: itertools.chain.from_iterable(
            zip(itertools.cycle(examples), generated.fresh(task, seed), strict=True)
        )
    if count is None:
        return lambda: itertools.cycle(examples)
    rest = count - len(examples) if both else 0
    return lambda: itertools.chain(examples, generated.fresh(task, seed, rest))


def _box_prober(model_dir: str, task: str) -> Callable[["TimedClient"], "BoxReport"]:
    """A function that probes a server with states from the boxes of the certificate in the SavedModel.

    Raises:
        BitsumError: the SavedModel has no certificate that proves its weights.
    """
    from components.proof import certificate
    from components.savedmodel import certified
    from serving.probing.box_prober import probe_boxes

    checked = certified.check(model_dir, TASKS[task])
    if not checked.verdict.proven:
        raise BitsumError(f"{model_dir} is refused because it is not proven: {checked.verdict.reason}")
    return lambda client: probe_boxes(client, checked.weights, certificate.parse(checked.certificate), TASKS[task])


def _summary(reports: dict[str, "Report"], boxes: dict[str, "BoxReport"]) -> "Summary":
    """The report on the only target, or on all targets together."""
    from serving.probing.report import Report

    targets = {name: report.summary(boxes.get(name)) for name, report in reports.items()}
    if len(targets) == 1:
        return next(iter(targets.values()))
    together = Report(next(iter(reports.values())).task)
    for report in reports.values():
        together.merge(report)
    # Different versions on different targets are not version changes.
    together.version_changes = sum(report.version_changes for report in reports.values())
    return dataclasses.replace(together.summary(), targets=targets)


def _lines(reports: dict[str, "Report"], boxes: dict[str, "BoxReport"]) -> list[str]:
    lines = []
    for name, report in reports.items():
        box_report = boxes.get(name)
        steps = f"; {box_report.right} of {box_report.asked} steps from the boxes as certified" if box_report else ""
        lines.append(report.line(name) + steps)
    return lines
