"""The prober's report, in bounded memory: counts, latencies, the first wrong answers."""

import dataclasses
import datetime
import time
from collections import Counter
from typing import ClassVar, NamedTuple, TypedDict

from components.task.transducer import ADDITION, Transducer
from serving.probing.latencies import Latencies
from serving.probing.questions import Question

MAX_PLACES = 10
# Versions counted one by one: a server that answers with a new version each time must not fill the memory.
MAX_VERSIONS = 100
OTHER_VERSIONS = "(other)"
_QUANTILES = {"p50": 0.50, "p90": 0.90, "p99": 0.99}


class Answer(NamedTuple):
    """A server's answer to a question."""

    asked_for: int  # number of outputs
    outputs: int  # as the bits of an integer; -1 without outputs
    problem: str = ""  # why there are none


class WrongAnswer(TypedDict):
    """A wrong answer; docs/json.md describes each key."""

    a: str
    b: str
    got: str
    expected: str
    signature: str
    bits: int
    outputs: int
    place: int | None
    places: list[int]
    wrong_bits: int
    version: int | None
    target: str


@dataclasses.dataclass(frozen=True)
class BoxReport:
    """The report on states from the boxes of a certificate; `wrong` lists the first steps that are not as certified."""

    asked: int
    right: int
    wrong: list[str]
    errors: dict[str, int]

    @property
    def all_right(self) -> bool:
        """Whether there were steps, and every one was as certified."""
        return 0 < self.asked == self.right


@dataclasses.dataclass(frozen=True)
class Summary:
    """A report as `bitsum probe --json` prints it (docs/json.md)."""

    task: str
    asked: int
    right: int
    wrong: list[WrongAnswer]
    wrong_count: int
    errors: dict[str, int]
    first_error: str
    gave_up: bool
    latency_ms: dict[str, float | None]
    version: int | None
    versions: dict[str, int]
    version_changes: int
    unexpected_version: int
    boxes: BoxReport | None = None
    targets: dict[str, "Summary"] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class Report:
    """The questions sent to one target and the answers.

    asked          questions, each counted once for each signature; the sum of the next three
    right          answered right, by any version
    wrong_count    answered wrongly; `wrong` has the first `max_listed` of them
    errors         not answered, by gRPC code
    versions       answers by version; OTHER_VERSIONS counts those beyond MAX_VERSIONS
    answers        answers by (signature, version, whether right)
    version        the version that answered last
    """

    max_listed: ClassVar[int] = 10

    task: Transducer = ADDITION
    asked: int = 0
    right: int = 0
    wrong: list[WrongAnswer] = dataclasses.field(default_factory=list)
    wrong_count: int = 0
    errors: Counter[str] = dataclasses.field(default_factory=Counter)
    first_error: str = ""
    gave_up: bool = False
    latencies: dict[str, Latencies] = dataclasses.field(default_factory=dict)
    version: int | None = None
    version_changes: int = 0
    unexpected_version: int = 0
    answers: Counter[tuple[str, str, bool]] = dataclasses.field(default_factory=Counter)
    by_signature: Counter[str] = dataclasses.field(default_factory=Counter)
    last_wrong: float = 0.0

    @property
    def all_right(self) -> bool:
        """Whether all questions were asked and every answer was right and by the expected version."""
        return 0 < self.asked == self.right and not self.gave_up and not self.unexpected_version

    @property
    def named_version(self) -> str:
        """The version that answered last, as text."""
        return "unknown" if self.version is None else str(self.version)

    @property
    def versions(self) -> Counter[str]:
        """The number of answers by each version."""
        counts: Counter[str] = Counter()
        for (_, version, _), count in self.answers.items():
            counts[version] += count
        return counts

    def latency_quantile(self, share: float) -> float | None:
        """Milliseconds within which that share of the calls was answered; None without calls."""
        total = Latencies()
        for latencies in self.latencies.values():
            total.merge(latencies)
        seconds = total.quantile(share)
        return None if seconds is None else round(1000 * seconds, 3)

    def ask(self, signature: str, count: int) -> None:
        """Count `count` questions."""
        self.asked += count
        self.by_signature[signature] += count

    def fail(self, code: str, text: str, count: int) -> None:
        """Count `count` unanswered questions."""
        self.errors[code] += count
        self.first_error = self.first_error or text

    def record_call(self, signature: str, seconds: float) -> None:
        """Count a call through `signature` that took `seconds`."""
        self.latencies.setdefault(signature, Latencies()).add(seconds)

    def compare(self, signature: str, question: Question, answer: Answer, target: str = "") -> None:
        """Count an answer by `self.version`."""
        expected = question.outputs(self.task, answer.asked_for)
        right = answer.outputs == expected
        self._count(signature, self.named_version, right, 1)
        if right:
            self.right += 1
            return
        self.wrong_count += 1
        self.last_wrong = time.time()
        if len(self.wrong) < self.max_listed:
            self.wrong.append(self._entry(signature, question, answer, expected, target))

    def merge(self, other: "Report") -> "Report":
        """Add `other`, a later report, to this one and return this one."""
        self.version_changes += other.version_changes
        if other.version is not None:
            self.version_changes += self.version not in (None, other.version)
            self.version = other.version
        for name in ("asked", "right", "wrong_count", "unexpected_version"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.errors += other.errors
        self.by_signature += other.by_signature
        for (signature, version, right), count in other.answers.items():
            self._count(signature, version, right, count)
        for signature, latencies in other.latencies.items():
            self.latencies.setdefault(signature, Latencies()).merge(latencies)
        self.wrong = [*self.wrong, *other.wrong][: self.max_listed]
        self.last_wrong = max(self.last_wrong, other.last_wrong)
        self.first_error = self.first_error or other.first_error
        self.gave_up = self.gave_up or other.gave_up
        return self

    def summary(self, boxes: BoxReport | None = None) -> Summary:
        """The report in numbers, with that on the boxes."""
        return Summary(
            task=self.task.name,
            asked=self.asked,
            right=self.right,
            wrong=self.wrong,
            wrong_count=self.wrong_count,
            errors=dict(self.errors),
            first_error=self.first_error,
            gave_up=self.gave_up,
            latency_ms={name: self.latency_quantile(share) for name, share in _QUANTILES.items()},
            version=self.version,
            versions=dict(self.versions),
            version_changes=self.version_changes,
            unexpected_version=self.unexpected_version,
            boxes=boxes,
        )

    def line(self, target: str) -> str:
        """The report in one line of text."""
        failed = ", ".join(f"{count} {code}" for code, count in self.errors.items()) or "no errors"
        text = f"{target} version {self.named_version}: {self.right} of {self.asked} answers right, "
        text += f"{self.wrong_count} wrong, {failed}"
        if self.version_changes:
            text += f", {self.version_changes} version changes"
        if self.unexpected_version:
            text += f", {self.unexpected_version} answers by another version than expected"
        if self.latencies:
            text += "; a call took " + ", ".join(
                f"{self.latency_quantile(share)} ms ({name})" for name, share in _QUANTILES.items()
            )
        if self.wrong:
            text += f"; first wrong: {wrong_statement(self.task, self.wrong[0])}"
        if self.first_error:
            text += f"; first error: {self.first_error}"
        return text

    def _count(self, signature: str, version: str, right: bool, count: int) -> None:
        key = signature, version, right
        if key not in self.answers and version not in (versions := self.versions) and len(versions) >= MAX_VERSIONS:
            key = signature, OTHER_VERSIONS, right
        self.answers[key] += count

    def _entry(self, signature: str, question: Question, answer: Answer, expected: int, target: str) -> WrongAnswer:
        count, outputs, problem = answer
        differing = 0 if problem else outputs ^ expected
        places = _places(differing)
        return {
            "a": _numeral(question.a),
            "b": _numeral(question.b),
            "got": problem or _numeral(self.task.read(outputs, count)),
            "expected": _numeral(self.task.read(expected, count)),
            "signature": signature,
            "bits": question.length,
            "outputs": count,
            "place": places[0] if places else None,
            "places": places,
            "wrong_bits": f"{differing:b}".count("1"),
            "version": self.version,
            "target": target,
        }


def wrong_statement(task: Transducer, wrong: WrongAnswer) -> str:
    """A wrong answer, an element of Report.wrong, as text."""
    statement = task.statement(wrong["a"], wrong["b"], wrong["got"])
    outputs = _wrong_outputs(wrong["places"], wrong["wrong_bits"])
    return f"{statement} by {wrong['signature']}, not {wrong['expected']}{outputs}"


def _wrong_outputs(places: list[int], count: int) -> str:
    if not places:
        return ""
    listed = ", ".join(map(str, places)) + (", ..." if count > len(places) else "")
    return f" (output {listed} is wrong)" if count == 1 else f" ({count} outputs are wrong: {listed})"


def stamp() -> str:
    """The current UTC time in ISO 8601, for the beginning of a line."""
    return f"{datetime.datetime.now(datetime.timezone.utc):%Y-%m-%dT%H:%M:%SZ}"


def _places(differing: int) -> list[int]:
    """The places of the lowest 1 bits, at most MAX_PLACES."""
    places: list[int] = []
    while differing and len(places) < MAX_PLACES:
        places.append((differing & -differing).bit_length() - 1)
        differing &= differing - 1
    return places


def _numeral(value: int) -> str:
    """All of `value`, so that it can be asked again: decimal if short, else hexadecimal; or True or False."""
    return str(value) if value.bit_length() <= 64 else hex(value)
