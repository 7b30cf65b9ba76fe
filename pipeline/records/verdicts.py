"""The verdict of each gate of a run, read from the artifacts that the gate wrote."""

import dataclasses
import pathlib
from collections.abc import Callable

from components import properties
from components.errors import BitsumError, Refusal
from pipeline import nodes
from pipeline.config import Config
from pipeline.records import evaluation, metadata_store
from pipeline.records.lineage_graph import LineageGraph, Output

REFUSED = "REFUSED"


@dataclasses.dataclass(frozen=True)
class Verdict:
    """A gate's verdict: whether the run passed, the verdict as a word for users, and the reason."""

    gate: str
    passed: bool
    word: str
    reason: str


@dataclasses.dataclass(frozen=True)
class Push:
    """A pushed version (0 for none), its folder, and whether this run created it."""

    version: int
    path: str
    is_new: bool


def of_run(outputs: list[Output]) -> list[Verdict]:
    """The verdicts of the gates that bless, in the order of the graph."""
    verdicts = []
    metrics, blessing = _find(outputs, "evaluation"), _find(outputs, "blessing", nodes.EVALUATOR)
    if blessing and metrics:
        passed = bool(blessing.integer(properties.BLESSED))
        summary = (_exact_match if passed else _failures)(metrics.artifact.uri)
        verdicts.append(_blessed(nodes.EVALUATION, passed, summary))
    proof = _find(outputs, "blessing", nodes.PROVER)
    if proof:
        verdicts.append(_proof(proof))
    infra = _find(outputs, "blessing", nodes.INFRA_VALIDATOR)
    if infra:
        passed = bool(infra.integer(properties.BLESSED))
        reason = infra.text(properties.REASON) or "every answer right"
        verdicts.append(_blessed(nodes.INFRA_VALIDATION, passed, reason))
    return verdicts


def margin_of_run(outputs: list[Output]) -> float | None:
    """The certified worst margin of a run's model; None without a proof."""
    return next((float(margin) for output in outputs if (margin := output.text(properties.MARGIN))), None)


def push_of_run(outputs: list[Output]) -> Push:
    """The version that a run's Pusher pushed."""
    pushed = _find(outputs, "pushed_model")
    if not pushed or not pushed.integer(properties.PUSHED):
        return Push(0, "", False)
    version, path = int(pushed.text(properties.VERSION)), pushed.text(properties.DESTINATION)
    return Push(version, path, bool(pushed.integer(properties.IS_NEW)))


def conclude(config: Config, run_id: str, line: Callable[[str], None]) -> Push:
    """Report the verdicts of a run, one line each, and its pushed version.

    Raises:
        Refusal: a gate refused the model; the text is the first refusal's.
        BitsumError: the run has not reached the last gate.
    """
    with metadata_store.opened(config) as store:
        outputs = LineageGraph(store).outputs_of(run_id)
    results = of_run(outputs)
    for verdict in results:
        line(f"  {verdict.gate}: {verdict.word}, {verdict.reason}")
    for verdict in results:
        if not verdict.passed:
            raise Refusal(verdict.gate, f"{verdict.reason}; nothing was pushed")
    push = push_of_run(outputs)
    if not push.version:
        raise BitsumError(f"run {run_id} has pushed nothing, and no gate refused: not all of its nodes are done")
    result = "pushed" if push.is_new else "already holds this model; nothing pushed"
    line(f"  version {push.version} {result}: {push.path}")
    return push


def _blessed(gate: str, passed: bool, reason: str) -> Verdict:
    return Verdict(gate, passed, "blessed" if passed else REFUSED, reason)


def _proof(blessing: Output) -> Verdict:
    proven, reason = blessing.integer(properties.PROVEN), blessing.text(properties.REASON)
    if proven and not reason:
        baseline = blessing.text(properties.BASELINE_MARGIN)
        margin = blessing.text(properties.MARGIN) + (f" (last blessed model {baseline})" if baseline else "")
        return Verdict(nodes.PROOF, True, "proven", f"right for numbers of any length, worst margin {margin}")
    if not proven and not blessing.integer(properties.REQUIRED):
        reason = f"AND NOT REQUIRED TO BE (proof.required = false): {reason}"
        return Verdict(nodes.PROOF, True, "NOT PROVEN", reason)
    # A proven model is refused if its margin is too far below the baseline's.
    return Verdict(nodes.PROOF, False, REFUSED, reason)


def _find(outputs: list[Output], key: str, node: str = "") -> Output | None:
    matching = [output for output in outputs if output.key == key and node in output.node]
    return matching[-1] if matching else None


def _exact_match(uri: str) -> str:
    rates = evaluation.exact_match_by_length(uri)
    if not rates:
        return "its metrics no longer exist"
    return (
        f"exact match at least {min(rates.values()):.6g} at {len(rates)} lengths from {min(rates)} to {max(rates)} bits"
    )


def _failures(uri: str) -> str:
    if not pathlib.Path(uri).is_dir():
        return "its metrics no longer exist"
    failures = evaluation.failures(uri)
    return "; ".join(failures[:4]) + (f"; and {len(failures) - 4} more" if len(failures) > 4 else "")
