"""Sends questions through the signatures of a model server and compares every bit of the answers with the task's
table."""

import dataclasses
import functools
import itertools
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, ClassVar

from components import signatures
from components.task.transducer import TASKS, Transducer
from serving import tensors
from serving.client import AdderClient, BadResponse, InvalidRequest, protocol
from serving.client.adder_protocol import AdderProtocol, groups
from serving.client.chunking import CHUNK_BITS, PACKED
from serving.errors import ServingError
from serving.probing.questions import Question
from serving.probing.report import Answer, Report

__all__ = ["GIVE_UP_AFTER", "Answer", "Report", "Round", "TimedClient", "probe", "rounds"]

# The prober gives up after so many failed calls in a row: each may cost a whole deadline.
GIVE_UP_AFTER = 5
_VERBS = [task.verb for task in TASKS.values()]
# Signatures without a state; streamed questions skip them, unless no others are used.
_AT_ONCE = (signatures.SERVING_DEFAULT, *map(signatures.bits, _VERBS))
# Questions that are grouped into calls together.
_WINDOW = 500
# Bytes of an operand in one call of <verb>_packed; enough for a proven model to run its chunks in parallel.
_PIECE = 1024
# Stands for the signature if the metadata are unavailable.
_METADATA = "metadata"


class _PiecewiseProtocol(AdderProtocol):
    """Exchanges that always carry a state from call to call."""

    def outputs_in_pieces(
        self, pairs: Sequence[tuple[int, int]], length: int, piece: int, verb: str
    ) -> protocol.Exchange[list[int]]:
        """As `outputs_packed`, by calls for at most `piece` bytes of each operand."""
        size = length // 8 + 1
        operands = [[number.to_bytes(size, "little") for number in numbers] for numbers in zip(*pairs, strict=True)]
        return (yield from self._restarting(lambda: self._in_pieces(operands, size, piece, verb)))

    def _in_pieces(
        self, operands: Sequence[Sequence[bytes]], size: int, piece: int, verb: str
    ) -> protocol.Exchange[list[int]]:
        model = yield from self.model(verb, fresh=True)
        if model.encoding is not PACKED:
            raise InvalidRequest(f"{self.model_name} at {self.target} has no signature {signatures.packed(verb)}")
        rows = len(operands[0])
        state, written = self.initial_state(model, rows), [b""] * rows
        for start in range(0, size, piece):
            length = min(piece, size - start)
            a, b = ([number[start : start + length] for number in numbers] for numbers in operands)
            outputs, state = self.chunk_result(
                model, (yield self.chunk_call(model, a, b, state, model.version)), rows, length
            )
            written = [before + after for before, after in zip(written, outputs, strict=True)]
        return [int.from_bytes(row, "little") for row in written]


class TimedClient(AdderClient):
    """A client that records each call's latency and version; it does not retry, so that every error is seen."""

    protocol_type = _PiecewiseProtocol
    _protocol: _PiecewiseProtocol

    def __init__(self, target: str, model_name: str = "bitsum", attempts: int = 1, **options: Any):
        super().__init__(target, model_name, attempts=attempts, observe=self._record_call, **options)
        self._seconds: list[float] = []
        self._version: int | None = None

    def take_timings(self) -> tuple[list[float], int | None]:
        """The seconds of each Predict call since the last `take_timings`, and the version that answered last, if any,
        perhaps only with its metadata."""
        timings = self._seconds, self._version
        self._seconds, self._version = [], None
        return timings

    def signatures_for(self, task: Transducer) -> tuple[str, ...]:
        """The signatures of the current version to use for `task`: the required ones, and packed bits if available.

        A version of the first export format has the names of addition and looks like a newer version that adds. That
        does not matter: its answers are compared with the right ones.

        Raises:
            ServingError: see serving.client.
        """
        names = self.metadata().signatures
        has_own = signatures.bits(task.verb) in names or signatures.ADD_BITS not in names
        verb = task.verb if has_own else signatures.ADD
        packed = signatures.packed(verb)
        return (*required(verb), packed) if packed in names else required(verb)

    def outputs_in_pieces(self, pairs: Sequence[tuple[int, int]], length: int, piece: int, verb: str) -> list[int]:
        """The 8 * (length // 8 + 1) outputs for each pair, by `<verb>_packed`, `piece` bytes a call. Raises:
        ServingError."""
        return self._result(self._protocol.outputs_in_pieces(pairs, length, piece, verb))

    def _record_call(self, call: protocol.Call, answer: protocol.Answer) -> None:
        if call.method == "Predict":
            self._seconds.append(answer.seconds)
        if call.method in ("Predict", "GetModelMetadata"):
            self._version = answer.response.model_spec.version.value


def required(verb: str) -> tuple[str, ...]:
    """The signatures that every model with names of `verb` must have."""
    return signatures.SERVING_DEFAULT, signatures.bits(verb), signatures.STEP


@dataclasses.dataclass
class Round(Report):
    """The report on one group of questions through one signature; `seconds` is the duration of the whole round."""

    max_listed: ClassVar[int] = 100

    seconds: float = 0.0


def probe(
    client: TimedClient,
    task: Transducer,
    questions: Iterable[Question],
    wanted: Sequence[str] | None = None,
    expected: int | None = None,
) -> Report:
    """Send each question through each signature in `wanted`; give up after GIVE_UP_AFTER failures in a row.

    Args:
        wanted: None for all signatures of the model, and those of `required` even if the model lacks them.
        expected: the version that must answer; None for any.
    """
    report = Report(task)
    failures = 0
    for round_ in rounds(client, task, questions, wanted, expected):
        report.merge(round_)
        failures = failures + 1 if round_.errors else 0
        if failures == GIVE_UP_AFTER:
            report.gave_up = True
            break
    return report


def rounds(
    client: TimedClient,
    task: Transducer,
    questions: Iterable[Question],
    wanted: Sequence[str] | None,
    expected: int | None = None,
    at_once: int = _WINDOW,
) -> Iterator[Round]:
    """As `probe`, in rounds of at most `at_once` questions each; endless if `questions` are."""
    questions = iter(questions)
    while window := list(itertools.islice(questions, at_once)):
        metadata = Round(task)
        chosen = _signatures(client, task, metadata) if wanted is None else wanted
        if metadata.errors:
            yield metadata
        for signature in chosen:
            streams = signature not in _AT_ONCE or set(chosen) <= set(_AT_ONCE)
            suited = [question for question in window if streams or not question.streamed]
            for indices in groups([question.length for question in suited]):
                batch = [suited[index] for index in indices]
                yield _ask_round(client, Round(task), signature, batch, expected, optional=wanted is None)


def _signatures(client: TimedClient, task: Transducer, round_: Round) -> Sequence[str]:
    """The signatures to use; `round_` gets an error if the metadata are unavailable."""
    start = time.perf_counter()
    try:
        return client.signatures_for(task)
    except ServingError as error:
        round_.ask(_METADATA, 1)
        round_.fail(error.code or type(error).__name__, str(error), 1)
        round_.seconds = time.perf_counter() - start
        return required(task.verb)


def _ask_round(
    client: TimedClient, round_: Round, signature: str, batch: Sequence[Question], expected: int | None, optional: bool
) -> Round:
    _, known = client.take_timings()
    start = time.perf_counter()
    failure: ServingError | None = None
    answers: Sequence[Answer] = ()
    try:
        answers = _asked(client, round_.task, signature, batch, optional)
    except BadResponse as error:
        answers = [Answer(question.length + 1, -1, str(error)) for question in batch]
    except ServingError as error:
        failure = error
    round_.seconds = time.perf_counter() - start
    calls, answering = client.take_timings()
    round_.version = known if answering is None else answering
    for seconds in calls:
        round_.record_call(signature, seconds)
    if failure:
        round_.ask(signature, len(batch))
        round_.fail(failure.code or type(failure).__name__, str(failure), len(batch))
    elif answers:
        round_.ask(signature, len(batch))
        round_.unexpected_version = len(batch) if expected not in (None, round_.version) else 0
        for question, answer in zip(batch, answers, strict=True):
            round_.compare(signature, question, answer, client.target)
    return round_


def _asked(
    client: TimedClient, task: Transducer, signature: str, batch: Sequence[Question], optional: bool
) -> list[Answer]:
    """The answers; none if the signature is `optional` and the current version lacks it."""
    try:
        return _ASK[signature](client, batch)
    except InvalidRequest:
        # Another version may answer by now, with a state of another size or other signatures.
        if optional and signature not in client.signatures_for(task):
            return []
        if signature in _AT_ONCE:
            raise
    return _ASK[signature](client, batch)


def _ask_serving_default(client: TimedClient, batch: Sequence[Question]) -> list[Answer]:
    inputs = {signatures.EXAMPLES: tensors.string_tensor([question.example() for question in batch])}
    outputs = client.predict(signatures.SERVING_DEFAULT, inputs, [signatures.SUM, signatures.LENGTH]).outputs
    lengths = [question.length for question in batch]
    answered, total = outputs[signatures.LENGTH], outputs[signatures.SUM]
    if answered.dtype != tensors.INT64 or list(answered.values) != lengths:
        raise BadResponse(f"the lengths {list(answered.values[:5])}..., not {lengths[:5]}...")
    if total.shape != (len(batch), max(lengths) + 1):
        raise BadResponse(f"a sum of shape {list(total.shape)}, not {[len(batch), max(lengths) + 1]}")
    try:
        # Zeros must follow a shorter answer, even where zero operands would give other outputs.
        return [Answer(length + 1, row) for length, row in zip(lengths, tensors.integers(total), strict=True)]
    except ValueError as error:
        raise BadResponse(str(error)) from error


def _ask_bits(verb: str, client: TimedClient, batch: Sequence[Question]) -> list[Answer]:
    length = _longest(batch)
    return [Answer(length + 1, row) for row in client.outputs_at_once(_pairs(batch), length, verb)]


def _ask_step(client: TimedClient, batch: Sequence[Question]) -> list[Answer]:
    # At least two chunks, so that a state crosses a border.
    length = _longest(batch)
    rows = client.outputs_streamed(_pairs(batch), length, min(CHUNK_BITS, length // 2 + 1))
    return [Answer(length + 1, row) for row in rows]


def _ask_packed(verb: str, client: TimedClient, batch: Sequence[Question]) -> list[Answer]:
    length = _longest(batch)
    size = length // 8 + 1
    return [
        Answer(8 * size, row)
        for row in client.outputs_in_pieces(_pairs(batch), length, min(_PIECE, -(-size // 2)), verb)
    ]


_ASK = (
    {signatures.SERVING_DEFAULT: _ask_serving_default, signatures.STEP: _ask_step}
    | {signatures.bits(verb): functools.partial(_ask_bits, verb) for verb in _VERBS}
    | {signatures.packed(verb): functools.partial(_ask_packed, verb) for verb in _VERBS}
)


def _pairs(batch: Sequence[Question]) -> list[tuple[int, int]]:
    return [(question.a, question.b) for question in batch]


def _longest(batch: Sequence[Question]) -> int:
    return max(question.length for question in batch)
