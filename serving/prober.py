"""Asks questions through the signatures of a model server and compares every bit of every answer with arithmetic."""

import dataclasses
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from components import signatures
from serving import tensors
from serving.client import CHUNK_BITS, AdderClient, BadResponse, groups
from serving.connection import Prediction
from serving.errors import ServingError
from serving.questions import Question

_LISTED = 10
# A server that fails this many calls in a row is not asked any more: each may have cost a whole deadline.
_GIVE_UP_AFTER = 5


@dataclasses.dataclass
class Report:
    """What was asked and what came of it."""

    asked: int = 0
    right: int = 0
    wrong: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    wrong_count: int = 0
    errors: Counter = dataclasses.field(default_factory=Counter)
    first_error: str = ""
    gave_up: bool = False
    latencies_ms: list[float] = dataclasses.field(default_factory=list)
    version: int | None = None

    @property
    def all_right(self) -> bool:
        """Every sum asked for was right, and all were asked for."""
        return 0 < self.asked == self.right and not self.gave_up

    def as_dict(self) -> dict[str, Any]:
        """The report as serving.probe documents it."""
        return {
            "asked": self.asked,
            "right": self.right,
            "wrong": self.wrong,
            "wrong_count": self.wrong_count,
            "errors": dict(self.errors),
            "first_error": self.first_error,
            "gave_up": self.gave_up,
            "latency_ms": {"p50": _quantile(self.latencies_ms, 0.50), "p99": _quantile(self.latencies_ms, 0.99)},
            "version": self.version,
        }

    def line(self, target: str) -> str:
        """The report for people."""
        failed = ", ".join(f"{count} {code}" for code, count in self.errors.items()) or "no errors"
        p50, p99 = _quantile(self.latencies_ms, 0.50), _quantile(self.latencies_ms, 0.99)
        text = f"{target} version {self.version}: {self.right} of {self.asked} sums right, {self.wrong_count} wrong, {failed}"
        text += f"; a call took {p50} ms (p50), {p99} ms (p99)" if self.latencies_ms else ""
        if self.wrong:
            first = self.wrong[0]
            text += f"; first wrong: {first['a']} + {first['b']} = {first['got']} by {first['signature']}, not {first['expected']}"
        if self.first_error:
            text += f"; first error: {self.first_error}"
        return text


class TimedClient(AdderClient):
    """A client that notes in `report` how long each call took and which version answered."""

    report: Report

    def predict(self, *arguments: Any, **options: Any) -> Prediction:
        """As Connection.predict."""
        start = time.perf_counter()
        answer = super().predict(*arguments, **options)
        self.report.latencies_ms.append(1000 * (time.perf_counter() - start))
        self.report.version = answer.version
        return answer


def probe(client: TimedClient, questions: Sequence[Question], wanted: Sequence[str]) -> Report:
    """Ask each question through each signature in `wanted`; gives up when the server fails again and again."""
    report = client.report = Report()
    failures = 0
    for signature in wanted:
        for indices in groups([question.length for question in questions]):
            batch = [questions[index] for index in indices]
            report.asked += len(batch)
            try:
                _compare(report, signature, batch, _ASK[signature](client, batch))
            except BadResponse as error:
                _compare(report, signature, batch, [str(error)] * len(batch))
            except ServingError as error:
                failures += 1
                report.errors[error.code or type(error).__name__] += len(batch)
                report.first_error = report.first_error or str(error)
                if failures == _GIVE_UP_AFTER:
                    report.gave_up = True
                    return report
            else:
                failures = 0
    return report


def _compare(report: Report, signature: str, batch: Sequence[Question], answers: Sequence[int | str]) -> None:
    """Count the answers: sums, or texts that say why there is none."""
    for question, answer in zip(batch, answers):
        if answer == question.total:
            report.right += 1
            continue
        report.wrong_count += 1
        if len(report.wrong) < _LISTED:
            got = answer if isinstance(answer, str) else _numeral(answer)
            report.wrong.append(
                {
                    "a": _numeral(question.a),
                    "b": _numeral(question.b),
                    "got": got,
                    "expected": _numeral(question.total),
                    "signature": signature,
                    "bits": question.length,
                }
            )


def _ask_serving_default(client: TimedClient, batch: Sequence[Question]) -> list[int]:
    inputs = {signatures.EXAMPLES: tensors.string_tensor([question.serialized for question in batch])}
    outputs = client.predict(signatures.SERVING_DEFAULT, inputs, [signatures.SUM, signatures.LENGTH]).outputs
    lengths = [question.length for question in batch]
    answered, total = outputs[signatures.LENGTH], outputs[signatures.SUM]
    if answered.dtype != tensors.INT64 or list(answered.values) != lengths:
        raise BadResponse(f"the lengths {list(answered.values[:5])}... where {lengths[:5]}... were asked")
    if total.shape != (len(batch), max(lengths) + 1):
        raise BadResponse(f"a sum of shape {list(total.shape)}, not {[len(batch), max(lengths) + 1]}")
    try:
        return tensors.integers(total)
    except ValueError as error:
        raise BadResponse(str(error)) from error


def _ask_add_bits(client: TimedClient, batch: Sequence[Question]) -> list[int]:
    return client.add_at_once(_pairs(batch), _longest(batch))


def _ask_step(client: TimedClient, batch: Sequence[Question]) -> list[int]:
    # At least two chunks, so that a state is carried over a border.
    length = _longest(batch)
    return client.add_streamed(_pairs(batch), length, min(CHUNK_BITS, length // 2 + 1))


_ASK = {signatures.SERVING_DEFAULT: _ask_serving_default, signatures.ADD_BITS: _ask_add_bits, signatures.STEP: _ask_step}


def _pairs(batch: Sequence[Question]) -> list[tuple[int, int]]:
    return [(question.a, question.b) for question in batch]


def _longest(batch: Sequence[Question]) -> int:
    return max(question.length for question in batch)


def _numeral(value: int) -> str:
    """`value` whole, so that it can be asked again: decimal where that is readable, else hexadecimal."""
    return str(value) if value.bit_length() <= 64 else hex(value)


def _quantile(values: Sequence[float], share: float) -> float | None:
    if not values:
        return None
    ordered = sorted(values)
    return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 3)
