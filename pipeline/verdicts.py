"""The verdict of every gate of a run, in words: read from the artifacts that the gates put out."""

import dataclasses

import tensorflow_model_analysis as tfma

from components import evaluator, infra_validator, prover, pusher
from pipeline.metadata_store import Output

_BLESSED = "blessed"
_REFUSED = "REFUSED"


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
    evaluation, blessing = _find(outputs, "evaluation"), _find(outputs, "blessing", "Evaluator")
    if blessing and evaluation:
        passed = bool(blessing.integer(_BLESSED))
        verdicts.append(_blessed("evaluation", passed, (_exact_match if passed else _failures)(evaluation.artifact.uri)))
    proof = _find(outputs, "blessing", "Prover")
    if proof:
        verdicts.append(_proof(proof))
    infra = _find(outputs, "blessing", "InfraValidator")
    if infra:
        passed = bool(infra.integer(infra_validator.BLESSED))
        verdicts.append(_blessed("infra validation", passed, infra.text(infra_validator.REASON) or "every answer right"))
    return verdicts


def push_of_run(outputs: list[Output]) -> Push:
    """What the Pusher of a run did."""
    pushed = _find(outputs, "pushed_model")
    if not pushed or not pushed.integer(pusher.PUSHED):
        return Push(0, "", False)
    return Push(int(pushed.text(pusher.VERSION)), pushed.text(pusher.DESTINATION), bool(pushed.integer(pusher.IS_NEW)))


def _blessed(gate: str, passed: bool, reason: str) -> Verdict:
    return Verdict(gate, passed, "blessed" if passed else _REFUSED, reason)


def _proof(blessing: Output) -> Verdict:
    if blessing.integer(prover.PROVEN):
        before = blessing.text(prover.BASELINE_MARGIN)
        margin = f"worst margin {blessing.text(prover.MARGIN)}" + (f" (last blessed model {before})" if before else "")
        return Verdict("proof", True, "proven", f"right for numbers of any length, {margin}")
    if not blessing.integer(prover.REQUIRED):
        reason = f"AND NOT REQUIRED TO BE (proof.required = false): {blessing.text(prover.REASON)}"
        return Verdict("proof", True, "NOT PROVEN", reason)
    return Verdict("proof", False, _REFUSED, blessing.text(prover.REASON))


def _find(outputs: list[Output], key: str, node: str = "") -> Output | None:
    found = [output for output in outputs if output.key == key and node in output.node]
    return found[-1] if found else None


def _exact_match(uri: str) -> str:
    found = evaluator.exact_match_by_length(uri)
    return f"exact match at least {min(found.values()):.6g} at {len(found)} lengths from {min(found)} to {max(found)} bits"


def _failures(uri: str) -> str:
    result = tfma.load_validation_result(uri)
    failures = [
        f"{_slice(per_slice.slice_key)}: {failure.metric_key.name} is {failure.metric_value.double_value.value:.4g}"
        for per_slice in result.metric_validations_per_slice
        for failure in per_slice.failures
    ]
    missing = [f"{_spec(spec)}: no examples" for spec in result.missing_slices]
    found = [*failures, *missing]
    return "; ".join(found[:4]) + (f"; and {len(found) - 4} more" if len(found) > 4 else "")


def _slice(key) -> str:
    return ", ".join(f"{one.column} {one.int64_value}" for one in key.single_slice_keys) or "all lengths"


def _spec(spec: tfma.SlicingSpec) -> str:
    return ", ".join(f"{name} {value}" for name, value in spec.feature_values.items()) or "all lengths"
