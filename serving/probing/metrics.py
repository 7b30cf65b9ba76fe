"""The prober's Prometheus metrics: probe_success and probe_duration_seconds as in blackbox_exporter, and its counts.

probe_success{target}                                    1 if the last round was answered right, else 0
probe_duration_seconds{target}                           duration of the last round
bitsum_probe_questions_total{target,signature}           questions; each counts once for each signature
bitsum_probe_answers_total{target,signature,version,verdict}  answers, with the verdict right or wrong
bitsum_probe_errors_total{target,code}                   unanswered questions, by gRPC code
bitsum_probe_call_seconds{target,signature}              histogram of call durations; calls may carry many questions
bitsum_probe_last_wrong_timestamp_seconds{target}        Unix time of the last wrong answer, 0 if there was none
bitsum_probe_version{target}                             the version that answered last
bitsum_probe_version_changes_total{target}               changes of that version
bitsum_probe_unexpected_version_total{target}            answers by another version than --expect_version
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from serving.exposition import Family, exposition
from serving.probing.monitor import Watch
from serving.probing.prober import Round
from serving.probing.report import Report

PATH = "/metrics"

Samples = Iterable[tuple[dict[str, str], Any]]


def page(watches: Iterable[Watch]) -> bytes:
    """The metrics of all targets in Prometheus' text format."""
    targets = [(watch.target, watch.total(), watch.last()) for watch in watches]
    return exposition(Family(name, kind, tuple(_labelled(targets, samples))) for name, kind, samples in _FAMILIES)


def _labelled(
    targets: list[tuple[str, Report, Round]], samples: Callable[[Report, Round], Samples]
) -> Iterator[tuple[dict[str, str], Any]]:
    for target, total, last in targets:
        for labels, value in samples(total, last):
            yield {"target": target} | labels, value


def _version(total: Report, last: Round) -> Samples:
    return [] if total.version is None else [({}, total.version)]


def _answers(total: Report, last: Round) -> Samples:
    for (signature, version, right), count in sorted(total.answers.items()):
        yield {"signature": signature, "version": version, "verdict": "right" if right else "wrong"}, count


_FAMILIES: tuple[tuple[str, str, Callable[[Report, Round], Samples]], ...] = (
    ("probe_success", "gauge", lambda total, last: [({}, int(last.all_right))]),
    ("probe_duration_seconds", "gauge", lambda total, last: [({}, last.seconds)]),
    (
        "bitsum_probe_questions_total",
        "counter",
        lambda total, last: [({"signature": name}, count) for name, count in sorted(total.by_signature.items())],
    ),
    ("bitsum_probe_answers_total", "counter", _answers),
    (
        "bitsum_probe_errors_total",
        "counter",
        lambda total, last: [({"code": code}, count) for code, count in sorted(total.errors.items())],
    ),
    (
        "bitsum_probe_call_seconds",
        "histogram",
        lambda total, last: [
            ({"signature": name}, latencies.histogram()) for name, latencies in sorted(total.latencies.items())
        ],
    ),
    ("bitsum_probe_last_wrong_timestamp_seconds", "gauge", lambda total, last: [({}, total.last_wrong)]),
    ("bitsum_probe_version", "gauge", _version),
    ("bitsum_probe_version_changes_total", "counter", lambda total, last: [({}, total.version_changes)]),
    ("bitsum_probe_unexpected_version_total", "counter", lambda total, last: [({}, total.unexpected_version)]),
)
