"""Asks questions through the signatures of a model server and compares every bit of every answer with its task's table."""

import dataclasses
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from components import signatures
from components.transducer import ADDITION, Transducer
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

    task: Transducer = ADDITION
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
        """Every answer asked for was right, and all were asked for."""
        return 0 < self.asked == self.right and not self.gave_up

    def as_dict(self) -> dict[str, Any]:
        """The report as serving.probe documents it."""
        return {
            "task": self.task.name,
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
        text = f"{target} version {self.version}: {self.right} of {self.asked} answers right, {self.wrong_count} wrong, {failed}"
        text += f"; a call took {p50} ms (p50), {p99} ms (p99)" if self.latencies_ms else ""
        if self.wrong:
            first = self.wrong[0]
            said = self.task.statement(first["a"], first["b"], first["got"])
            text += f"; first wrong: {said} by {first['signature']}, not {first['expected']}"
            text += "" if first["place"] is None else f", output {first['place']} being wrong"
        if self.first_error:
            text += f"; first error: {self.first_error}"
        return text


class Answer(NamedTuple):
    """What a server made of a question."""

    count: int  # outputs that were asked for
    outputs: int  # they are its bits; -1 where there are none
    problem: str = ""  # why there are none


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


def probe(client: TimedClient, task: Transducer, questions: Sequence[Question], wanted: Sequence[str]) -> Report:
    """Ask each question through each signature in `wanted`; gives up when the server fails again and again."""
    report = client.report = Report(task)
    failures = 0
    for signature in wanted:
        for indices in groups([question.length for question in questions]):
            batch = [questions[index] for index in indices]
            report.asked += len(batch)
            try:
                _compare(report, signature, batch, _ASK[signature](client, batch))
            except BadResponse as error:
                _compare(report, signature, batch, [Answer(question.length + 1, -1, str(error)) for question in batch])
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


def _compare(report: Report, signature: str, batch: Sequence[Question], answers: Sequence[Answer]) -> None:
    """Count the answers."""
    for question, answer in zip(batch, answers):
        expected = question.outputs(report.task, answer.count)
        if answer.outputs == expected:
            report.right += 1
            continue
        report.wrong_count += 1
        if len(report.wrong) < _LISTED:
            report.wrong.append({
                "a": _numeral(question.a),
                "b": _numeral(question.b),
                "got": answer.problem or _numeral(report.task.read(answer.outputs, answer.count)),
                "expected": _numeral(report.task.read(expected, answer.count)),
                "signature": signature,
                "bits": question.length,
                "place": None if answer.problem else _lowest_bit(answer.outputs ^ expected),
            })  # fmt: skip


def _ask_serving_default(client: TimedClient, batch: Sequence[Question]) -> list[Answer]:
    inputs = {signatures.EXAMPLES: tensors.string_tensor([question.serialized for question in batch])}
    outputs = client.predict(signatures.SERVING_DEFAULT, inputs, [signatures.SUM, signatures.LENGTH]).outputs
    lengths = [question.length for question in batch]
    answered, total = outputs[signatures.LENGTH], outputs[signatures.SUM]
    if answered.dtype != tensors.INT64 or list(answered.values) != lengths:
        raise BadResponse(f"the lengths {list(answered.values[:5])}... where {lengths[:5]}... were asked")
    if total.shape != (len(batch), max(lengths) + 1):
        raise BadResponse(f"a sum of shape {list(total.shape)}, not {[len(batch), max(lengths) + 1]}")
    try:
        # Behind a shorter answer have to be zeros, whatever outputs more zeros of the operands would give.
        return [Answer(length + 1, row) for length, row in zip(lengths, tensors.integers(total))]
    except ValueError as error:
        raise BadResponse(str(error)) from error


def _ask_add_bits(client: TimedClient, batch: Sequence[Question]) -> list[Answer]:
    length = _longest(batch)
    return [Answer(length + 1, row) for row in client.outputs_at_once(_pairs(batch), length)]


def _ask_step(client: TimedClient, batch: Sequence[Question]) -> list[Answer]:
    # At least two chunks, so that a state is carried over a border.
    length = _longest(batch)
    rows = client.outputs_streamed(_pairs(batch), length, min(CHUNK_BITS, length // 2 + 1))
    return [Answer(length + 1, row) for row in rows]


_ASK = {signatures.SERVING_DEFAULT: _ask_serving_default, signatures.ADD_BITS: _ask_add_bits, signatures.STEP: _ask_step}


def _pairs(batch: Sequence[Question]) -> list[tuple[int, int]]:
    return [(question.a, question.b) for question in batch]


def _longest(batch: Sequence[Question]) -> int:
    return max(question.length for question in batch)


def _lowest_bit(value: int) -> int:
    """The place of the lowest bit that is 1."""
    return (value & -value).bit_length() - 1


def _numeral(value: int) -> str:
    """`value` whole, so that it can be asked again: decimal where that is readable, else hexadecimal; or True or False."""
    return str(value) if value.bit_length() <= 64 else hex(value)


def _quantile(values: Sequence[float], share: float) -> float | None:
    if not values:
        return None
    ordered = sorted(values)
    return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 3)
