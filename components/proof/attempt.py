"""The attempt at a proof for a model: find boxes, have the checker look at them, or look for two numbers that come out
wrong.

A refused model is not proven, which is not the same as wrong: it is called wrong only where the exported model itself,
asked for the two numbers, gives an answer that Python's integers contradict.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

from components.proof import certificate, checker, counterexample, finder
from components.proof.weights import Weights
from components.task.addition import abbreviated
from components.task.transducer import Transducer

# Asks the exported model: (a, b, how many bits of each) -> the outputs as bits, one more than were asked.
Ask = Callable[[int, int, int], list[int]]


@dataclasses.dataclass(frozen=True)
class ProofAttempt:
    """What came of the attempt.

    `certificate` is the JSON text that the checker accepted, None without one; `margin` and `slack` are the checker's;
    `reason` says in one line why there is none, or what was found wrong; `wrong` holds the counterexample: a, b,
    expected and answered.
    """

    certificate: str | None
    reason: str | None
    margin: float | None = None
    slack: float | None = None
    wrong: dict[str, str] = dataclasses.field(default_factory=dict)

    @property
    def proven(self) -> bool:
        return self.certificate is not None

    def summary(self) -> dict[str, Any]:
        """The outcome as JSON has it, without the certificate."""
        return {
            "proven": self.proven,
            "reason": self.reason or "",
            "margin": self.margin,
            "slack": self.slack,
            "wrong": self.wrong,
        }


def prove(weights: Weights, task: Transducer, depths: tuple[int, ...] = finder.DEPTHS) -> ProofAttempt:
    """A proof that a cell with `weights` computes `task`, from the finder's boxes at `depths`, or the reason why there is
    none."""
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
    """As `prove`; without a proof a counterexample is looked for.

    Args:
        ask: the exported model, for replaying a counterexample.
        search_seconds: bound of the search for one; 0 for none.
    """
    found = prove(weights, task)
    if found.proven or weights.problem() or not search_seconds:
        return found
    wrong = _replayed(weights, task, ask, search_seconds)
    if not wrong:
        return found
    said = task.statement(wrong["a"], wrong["b"], wrong["answered"])
    return ProofAttempt(None, f"wrong: it answers {said}, {wrong['expected']} is right", wrong=wrong)


def _replayed(weights: Weights, task: Transducer, ask: Ask, seconds: float) -> dict[str, str]:
    """A counterexample that the exported model confirms: its numbers, abbreviated, and where they go wrong; {} without
    one."""
    found = counterexample.search(weights, task, seconds=seconds)
    if not found:
        return {}
    length = max(found.a.bit_length(), found.b.bit_length(), found.position, 1)
    answered, expected = task.value(ask(found.a, found.b, length)), task.meaning(found.a, found.b)
    if answered == expected:
        return {}
    values = {"a": found.a, "b": found.b, "answered": answered, "expected": expected}
    return {
        **{name: _shown(value) for name, value in values.items()},
        "bits": str(length),
        "first_wrong_position": str(found.position),
    }


def _shown(value: int) -> str:
    return str(value) if isinstance(value, bool) or value < 0 else abbreviated(value)
