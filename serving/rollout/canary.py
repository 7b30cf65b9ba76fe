"""Compares the stable and the canary version on generated questions with known answers and on recorded requests.

Both versions get every question and take turns at going first, so that a busy machine slows down both.
"""

import dataclasses
import itertools
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import grpc

from components import signatures
from components.errors import MODEL_CODES, MODEL_ERRORS, BitsumError
from components.task.transducer import Transducer
from serving import protos, tensors
from serving.client.connection import new_channel
from serving.errors import ServingError
from serving.labels import CANARY, STABLE
from serving.probing.generated import fresh
from serving.probing.prober import Report, TimedClient, probe
from serving.probing.questions import Question
from serving.server import request_log

_AT_ONCE = 32
_RECORDED = 500
_CALL_SECONDS = 30.0
# A smaller difference in latency is due to the machine, not the version.
_MIN_DIFFERENCE_MS = 5.0
_QUANTILES = (0.5, 0.9)
# Two right models agree on these outputs; logits and states differ.
_COMPARED = (signatures.SUM, signatures.LENGTH)


@dataclasses.dataclass
class Recorded:
    """The result of recorded requests: `different` of `asked` answers differ, `skipped` could not be compared.

    `refused` counts the requests that both versions refuse in the same words. `renamed` counts those sent to the canary
    through another signature name than recorded.
    """

    asked: int = 0
    different: int = 0
    skipped: int = 0
    refused: int = 0
    renamed: int = 0
    first: str = ""


@dataclasses.dataclass
class Comparison:
    """The reports on both versions, and on the recorded requests if any were given."""

    stable: Report
    canary: Report
    recorded: Recorded | None

    def lines(self) -> list[str]:
        """The comparison, as lines of text."""
        lines = [f"{label}: {report.line(label)}" for label, report in ((STABLE, self.stable), (CANARY, self.canary))]
        if self.recorded:
            lines.append(
                f"recorded requests: {self.recorded.asked} sent to both, {self.recorded.different} answered "
                f"differently, {self.recorded.skipped} skipped because they carry the state of another version"
            )
            if self.recorded.renamed:
                renamed = f"{self.recorded.renamed} of them use a signature that the canary has under another name"
                lines.append(f"{renamed}: clients that use it must change")
        return lines

    def check_answered(self) -> None:
        """Raise BitsumError if time, memory or a connection alone left questions unanswered by the canary, or if it is
        right but neither version answers a recorded request."""
        canary = self.canary
        if canary.errors and not canary.wrong and not canary.errors.keys() & MODEL_ERRORS:
            raise BitsumError(f"the canary {self._failures()}: this says nothing about the version, try again")
        if canary.all_right and self.recorded and self.recorded.asked == self.recorded.refused:
            raise BitsumError(
                f"both versions refuse all {self.recorded.asked} recorded requests, so nothing was compared: is this "
                "the log of another model?"
            )

    def complaint(self, max_latency_ratio: float) -> str | None:
        """Why the canary must not become stable, in one line; None if it may."""
        canary = self.canary
        if canary.wrong:
            return f"it answered {canary.wrong_count} of {canary.asked} questions wrongly; the first: {canary.wrong[0]}"
        if not canary.all_right:
            return f"it {self._failures()}"
        if self.recorded and self.recorded.different:
            count = f"{self.recorded.different} of {self.recorded.asked}"
            return f"it answered {count} recorded requests differently: {self.recorded.first}"
        for share in _QUANTILES:
            before, now = self.stable.latency_quantile(share), canary.latency_quantile(share)
            if (
                before is not None
                and now is not None
                and now > max(max_latency_ratio * before, before + _MIN_DIFFERENCE_MS)
            ):
                return (
                    f"it is too slow: {share:.0%} of its calls took up to {now:.1f} ms, of the stable version's "
                    f"{before:.1f} ms (--max_latency_ratio {max_latency_ratio:g})"
                )
        return None

    def _failures(self) -> str:
        canary = self.canary
        answered = f"answered {canary.right} of {canary.asked} questions"
        return f"{answered}; errors: {dict(canary.errors)}; the first: {canary.first_error}"


def compare(
    options: dict[str, Any], task: Transducer, count: int, seed: int, requests: pathlib.Path | None
) -> Comparison:
    """Send both versions `count` generated questions and the recorded requests in the folder `requests`.

    Args:
        options: keyword arguments of a client, without the label.

    Raises:
        BitsumError: the recorded requests cannot be read, or one stays unanswered for lack of time, memory or a
            connection.
    """
    with TimedClient(**options, label=STABLE) as stable, TimedClient(**options, label=CANARY) as canary:
        clients = {STABLE: stable, CANARY: canary}
        # The first calls open connections and fill caches; their latencies do not count.
        for client in clients.values():
            probe(client, task, next(_slices(fresh(task, seed, 1))), None)
        reports = {label: Report(task) for label in clients}
        for index, questions in enumerate(_slices(fresh(task, seed, count))):
            for label in (STABLE, CANARY) if index % 2 else (CANARY, STABLE):
                reports[label].merge(probe(clients[label], task, questions, None))
            if reports[CANARY].gave_up:
                break
        recorded = _recorded(options, clients, requests) if requests else None
    return Comparison(reports[STABLE], reports[CANARY], recorded)


def check_requests(folder: pathlib.Path) -> None:
    """Raise BitsumError unless `folder` holds a recorded request that `compare` can send to both versions."""
    skipped = 0
    for request in _replayed(folder):
        if not _has_state(request):
            return
        skipped += 1
    found = f"its first {skipped} requests all carry the state of another version" if skipped else "it holds none"
    raise BitsumError(f"--requests {folder}: no request to replay, {found}; give another folder, or omit --requests")


def _replayed(folder: pathlib.Path) -> Iterator[Any]:
    return itertools.islice(request_log.read(folder), _RECORDED)


def _slices(questions: Iterator[Question]) -> Iterator[Sequence[Question]]:
    while piece := list(itertools.islice(questions, _AT_ONCE)):
        yield piece


def _recorded(options: dict[str, Any], clients: Mapping[str, TimedClient], folder: pathlib.Path) -> Recorded:
    recorded = Recorded()
    names = {label: list(client.metadata().signatures) for label, client in clients.items()}
    unbounded = [("grpc.max_receive_message_length", -1)]
    with new_channel(options["target"], options["credentials"], unbounded) as channel:
        predict = protos.load().prediction_service.PredictionServiceStub(channel).Predict
        for request in _replayed(folder):
            if _has_state(request):
                recorded.skipped += 1
                continue
            request.model_spec.name = options["model_name"]
            answers, signature = {}, request.model_spec.signature_name
            for label in (STABLE, CANARY):
                request.model_spec.version_label = label
                request.model_spec.signature_name = signatures.called(signature, names[label])
                answers[label] = answer(predict, request)
            recorded.asked += 1
            recorded.renamed += request.model_spec.signature_name != signature
            recorded.refused += answers[STABLE] == answers[CANARY] and isinstance(answers[STABLE], str)
            if answers[STABLE] != answers[CANARY]:
                recorded.different += 1
                recorded.first = recorded.first or _difference(request, answers)
    return recorded


def _has_state(request: Any) -> bool:
    """Whether the request continues from the state of another version's cell."""
    if signatures.STATE not in request.inputs:
        return False
    try:
        return any(tensors.decode(request.inputs[signatures.STATE]).values)
    except ValueError:
        return True


def answer(predict: Any, request: Any) -> dict[str, Any] | str:
    """The comparable outputs, or the status of a failure caused by the request or the model."""
    try:
        response = predict(request, timeout=_CALL_SECONDS)
    except grpc.RpcError as error:
        if error.code().name not in MODEL_CODES:
            raise ServingError(
                f"a recorded request was not answered: {error.details()} [{error.code().name}]", error.code().name
            ) from error
        return f"{error.code().name}: {(error.details() or '').partition(chr(10))[0]}"
    return {
        name: response.outputs[name].SerializeToString(deterministic=True)
        for name in _COMPARED
        if name in response.outputs
    }


def _difference(request: Any, answers: dict[str, Any]) -> str:
    summaries = [
        f"{label} returns {answer}" if isinstance(answer, str) else f"{label} answers"
        for label, answer in answers.items()
    ]
    signature = request.model_spec.signature_name or signatures.SERVING_DEFAULT
    return f"signature {signature}, {request.ByteSize()} bytes: {', '.join(summaries)}"
