"""Asks the stable and the canary version the same: fresh questions whose answers are known, and requests that were
recorded.

Both versions get every question, in turn first and second, so that a machine that is busy for a moment is slow for
both.
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
# Below this a difference of latency is the machine's, not the version's.
_MIN_DIFFERENCE_MS = 5.0
_QUANTILES = (0.5, 0.9)
# What two right models answer alike; logits and states are each model's own.
_COMPARED = (signatures.SUM, signatures.LENGTH)


@dataclasses.dataclass
class Recorded:
    """What became of recorded requests: `different` of `asked` answers differ, `skipped` could not be compared.

    `renamed` is how many of them went to the canary by another signature than recorded, as it names its signatures
    otherwise.
    """

    asked: int = 0
    different: int = 0
    skipped: int = 0
    renamed: int = 0
    first: str = ""


@dataclasses.dataclass
class Comparison:
    """The reports on both versions, and on the recorded requests where there were to be some."""

    stable: Report
    canary: Report
    recorded: Recorded | None

    def lines(self) -> list[str]:
        """What was found, for people."""
        lines = [f"{label}: {report.line(label)}" for label, report in ((STABLE, self.stable), (CANARY, self.canary))]
        if self.recorded:
            lines.append(
                f"recorded requests: {self.recorded.asked} asked of both, {self.recorded.different} answered differently, "
                f"{self.recorded.skipped} that only the version they were made for can answer"
            )
            if self.recorded.renamed:
                renamed = f"{self.recorded.renamed} of them ask by a signature that the canary has under another name"
                lines.append(f"{renamed}: clients that use it must change")
        return lines

    def check_answered(self) -> None:
        """Raise BitsumError if the canary left questions without an answer, for want of time, memory or a connection
        alone."""
        canary = self.canary
        if canary.errors and not canary.wrong and not canary.errors.keys() & MODEL_ERRORS:
            told = f"the canary answered {canary.right} of {canary.asked} questions; errors: {dict(canary.errors)}"
            raise BitsumError(f"{told}; the first: {canary.first_error}: this says nothing of the version, try again")

    def complaint(self, max_latency_ratio: float) -> str | None:
        """Why the canary must not become stable, in one line; None where it may."""
        canary = self.canary
        if canary.wrong:
            return f"it answered {canary.wrong_count} of {canary.asked} questions wrongly, the first being {canary.wrong[0]}"
        if not canary.all_right:
            return f"it answered {canary.right} of {canary.asked} questions; errors: {dict(canary.errors)}; the first: {canary.first_error}"
        if self.recorded and self.recorded.different:
            return f"it answered {self.recorded.different} of {self.recorded.asked} recorded requests differently: {self.recorded.first}"
        for share in _QUANTILES:
            before, now = self.stable.latency_quantile(share), canary.latency_quantile(share)
            if (
                before is not None
                and now is not None
                and now > max(max_latency_ratio * before, before + _MIN_DIFFERENCE_MS)
            ):
                return (
                    f"it is too slow: {share:.0%} of its calls took up to {now:.1f} ms, of the stable version's {before:.1f} ms "
                    f"(--max_latency_ratio {max_latency_ratio:g})"
                )
        return None


def compare(
    options: dict[str, Any], task: Transducer, count: int, seed: int, requests: pathlib.Path | None
) -> Comparison:
    """Ask both versions `count` fresh questions and the recorded requests in the folder `requests`.

    Args:
        options: of a client, but for the label.

    Raises:
        BitsumError: the recorded requests cannot be read, or one is not answered for want of time, memory or a
        connection.
    """
    with TimedClient(**options, label=STABLE) as stable, TimedClient(**options, label=CANARY) as canary:
        clients = {STABLE: stable, CANARY: canary}
        # The first calls open connections and fill caches; their latencies say nothing.
        for client in clients.values():
            probe(client, task, next(_slices(fresh(task, seed, 1))), None)
        reports = {label: Report(task) for label in clients}
        for turn, questions in enumerate(_slices(fresh(task, seed, count))):
            for label in (STABLE, CANARY) if turn % 2 else (CANARY, STABLE):
                reports[label].merge(probe(clients[label], task, questions, None))
            if reports[CANARY].gave_up:
                break
        recorded = _recorded(options, clients, requests) if requests else None
    return Comparison(reports[STABLE], reports[CANARY], recorded)


def _slices(questions: Iterator[Question]) -> Iterator[Sequence[Question]]:
    while piece := list(itertools.islice(questions, _AT_ONCE)):
        yield piece


def _recorded(options: dict[str, Any], clients: Mapping[str, TimedClient], folder: pathlib.Path) -> Recorded:
    found = Recorded()
    known = {label: list(client.metadata().signatures) for label, client in clients.items()}
    unbounded = [("grpc.max_receive_message_length", -1)]
    with new_channel(options["target"], options["credentials"], unbounded) as channel:
        ask = protos.load().prediction_service.PredictionServiceStub(channel).Predict
        for request in itertools.islice(request_log.read(folder), _RECORDED):
            if _has_state(request):
                found.skipped += 1
                continue
            request.model_spec.name = options["model_name"]
            answers, signature = {}, request.model_spec.signature_name
            for label in (STABLE, CANARY):
                request.model_spec.version_label = label
                request.model_spec.signature_name = signatures.called(signature, known[label])
                answers[label] = _answer(ask, request)
            found.asked += 1
            found.renamed += request.model_spec.signature_name != signature
            if answers[STABLE] != answers[CANARY]:
                found.different += 1
                found.first = found.first or _difference(request, answers)
    return found


def _has_state(request: Any) -> bool:
    """Whether the request goes on from a state that another version's cell was in."""
    if signatures.STATE not in request.inputs:
        return False
    try:
        return any(tensors.decode(request.inputs[signatures.STATE]).values)
    except ValueError:
        return True


def _answer(ask: Any, request: Any) -> dict[str, Any] | str:
    """The outputs that can be compared, or the status by which the server finds fault with the request or the model."""
    try:
        response = ask(request, timeout=_CALL_SECONDS)
    except grpc.RpcError as error:
        if error.code().name not in MODEL_CODES:
            raise ServingError(
                f"a recorded request is not answered: {error.details()} [{error.code().name}]", error.code().name
            ) from error
        return f"{error.code().name}: {(error.details() or '').partition(chr(10))[0]}"
    return {
        name: response.outputs[name].SerializeToString(deterministic=True)
        for name in _COMPARED
        if name in response.outputs
    }


def _difference(request: Any, answers: dict[str, Any]) -> str:
    said = [
        f"{label} says {answer}" if isinstance(answer, str) else f"{label} answers" for label, answer in answers.items()
    ]
    signature = request.model_spec.signature_name or signatures.SERVING_DEFAULT
    return f"signature {signature}, {request.ByteSize()} bytes: {', '.join(said)}"
