"""The verdict of every gate of a run, in words: read from the artifacts that the gates put out."""

import dataclasses
import pathlib

from pipeline.records import evaluation, recorded
from pipeline.records.lineage_graph import Output

REFUSED = "REFUSED"


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What a gate said: whether it let the run pass, and why; `word` is the verdict as it is shown."""

    gate: str
    passed: bool
    word: str
    reason: str


@dataclasses.dataclass(frozen=True)
class Push:
    """What was pushed: version (0 for nothing), its folder, and whether this run made it."""

    version: int
    path: str
    is_new: bool


def of_run(outputs: list[Output]) -> list[Verdict]:
    """The verdicts of the gates that bless, in the order of the graph."""
    verdicts = []
    metrics, blessing = _find(outputs, "evaluation"), _find(outputs, "blessing", "Evaluator")
    if blessing and metrics:
        passed = bool(blessing.integer(recorded.BLESSED))
        verdicts.append(_blessed("evaluation", passed, (_exact_match if passed else _failures)(metrics.artifact.uri)))
    proof = _find(outputs, "blessing", "Prover")
    if proof:
        verdicts.append(_proof(proof))
    infra = _find(outputs, "blessing", "InfraValidator")
    if infra:
        passed = bool(infra.integer(recorded.BLESSED))
        verdicts.append(_blessed("infra validation", passed, infra.text(recorded.REASON) or "every answer right"))
    return verdicts


def push_of_run(outputs: list[Output]) -> Push:
    """What the Pusher of a run did."""
    pushed = _find(outputs, "pushed_model")
    if not pushed or not pushed.integer(recorded.PUSHED):
        return Push(0, "", False)
    return Push(
        int(pushed.text(recorded.VERSION)), pushed.text(recorded.DESTINATION), bool(pushed.integer(recorded.IS_NEW))
    )


def _blessed(gate: str, passed: bool, reason: str) -> Verdict:
    return Verdict(gate, passed, "blessed" if passed else REFUSED, reason)


def _proof(blessing: Output) -> Verdict:
    if blessing.integer(recorded.PROVEN) and blessing.text(recorded.REASON):
        # Proven, and refused all the same: its margin is too far below that of the model before.
        return Verdict("proof", False, REFUSED, blessing.text(recorded.REASON))
    if blessing.integer(recorded.PROVEN):
        before = blessing.text(recorded.BASELINE_MARGIN)
        margin = f"worst margin {blessing.text(recorded.MARGIN)}" + (
            f" (last blessed model {before})" if before else ""
        )
        return Verdict("proof", True, "proven", f"right for numbers of any length, {margin}")
    if not blessing.integer(recorded.REQUIRED):
        reason = f"AND NOT REQUIRED TO BE (proof.required = false): {blessing.text(recorded.REASON)}"
        return Verdict("proof", True, "NOT PROVEN", reason)
    return Verdict("proof", False, REFUSED, blessing.text(recorded.REASON))


def _find(outputs: list[Output], key: str, node: str = "") -> Output | None:
    found = [output for output in outputs if output.key == key and node in output.node]
    return found[-1] if found else None


def _exact_match(uri: str) -> str:
    found = evaluation.exact_match_by_length(uri)
    if not found:
        return "its metrics are no longer there"
    return (
        f"exact match at least {min(found.values()):.6g} at {len(found)} lengths from {min(found)} to {max(found)} bits"
    )


def _failures(uri: str) -> str:
    if not pathlib.Path(uri).is_dir():
        return "its metrics are no longer there"
    found = evaluation.failures(uri)
    return "; ".join(found[:4]) + (f"; and {len(found) - 4} more" if len(found) > 4 else "")
