"""The attempt to prove a model: find boxes for the checker, or else two numbers that the model gets wrong.

A refused model is not proven, which is not the same as wrong. A model is called wrong only if the exported model itself
gives an answer for two numbers that Python's integers contradict.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

from components.proof import certificate, checker, counterexample, finder
from components.proof.weights import Weights
from components.task.addition import abbreviated
from components.task.transducer import Transducer

# Asks the exported model: (a, b, number of bits of each) -> the outputs as bits, one more than that.
Ask = Callable[[int, int, int], list[int]]


@dataclasses.dataclass(frozen=True)
class ProofAttempt:
    """The outcome of the attempt.

    `certificate` is the JSON text that the checker accepted, or None; `margin` and `slack` are the checker's; `reason`
    says in one line why there is no certificate; `wrong` holds the counterexample: a, b, expected and answered.
    """

    certificate: str | None
    reason: str | None
    margin: float | None = None
    slack: float | None = None
    wrong: dict[str, str] = dataclasses.field(default_factory=dict)

    @property
    def proven(self) -> bool:
        """Whether the checker accepted a certificate."""
        return self.certificate is not None

    def summary(self) -> dict[str, Any]:
        """The outcome in JSON's types, without the certificate."""
        return {
            "proven": self.proven,
            "reason": self.reason or "",
            "margin": self.margin,
            "slack": self.slack,
            "wrong": self.wrong,
        }


def prove(weights: Weights, task: Transducer, depths: tuple[int, ...] = finder.DEPTHS) -> ProofAttempt:
    """Try to prove, from the finder's boxes at `depths`, that a cell with `weights` computes `task`."""
    if problem := weights.problem():
        return ProofAttempt(None, f"not proven: {problem}")
    finding = finder.find(weights, task, depths)
    if not finding.certificate:
        return ProofAttempt(None, f"not proven: no boxes were found: {finding.reason}")
    text = certificate.write(finding.certificate)
    verdict = checker.check(text, weights, task)
    if not verdict.proven:
        return ProofAttempt(None, f"not proven: the checker refused the boxes: {verdict.reason} ({verdict.where})")
    return ProofAttempt(text, None, verdict.margin, verdict.slack)


def attempt(weights: Weights, task: Transducer, ask: Ask, search_seconds: float) -> ProofAttempt:
    """As `prove`; without a proof, it searches for a counterexample.

    Args:
        ask: the exported model, for replaying a counterexample.
        search_seconds: limit of the search; 0 for no search.
    """
    proof = prove(weights, task)
    if proof.proven or weights.problem() or not search_seconds:
        return proof
    wrong = _replayed(weights, task, ask, search_seconds)
    if not wrong:
        return proof
    statement = task.statement(wrong["a"], wrong["b"], wrong["answered"])
    return ProofAttempt(None, f"wrong: it answers {statement}, {wrong['expected']} is right", wrong=wrong)


def _replayed(weights: Weights, task: Transducer, ask: Ask, seconds: float) -> dict[str, str]:
    """A counterexample that the exported model confirms: its numbers, abbreviated, and the first wrong position; {}
    without one."""
    candidate = counterexample.search(weights, task, seconds=seconds)
    if not candidate:
        return {}
    a, b, position = candidate
    length = max(a.bit_length(), b.bit_length(), position, 1)
    answered, expected = task.value(ask(a, b, length)), task.meaning(a, b)
    if answered == expected:
        return {}
    values = {"a": a, "b": b, "answered": answered, "expected": expected}
    return {
        **{name: _shown(value) for name, value in values.items()},
        "bits": str(length),
        "first_wrong_position": str(position),
    }


def _shown(value: int) -> str:
    return str(value) if isinstance(value, bool) or value < 0 else abbreviated(value)
