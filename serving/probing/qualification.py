"""The qualification of a model server's activations: findings, the verdict, and a report of both.

serving.probing.qualifier creates it. Errors are in units of u = 2^-24, the unit roundoff of float32.
"""

import dataclasses
import math

from components import signatures
from components.proof import certificate

MODEL_NAME = signatures.SWEEP_MODEL_NAME
ACTIVATIONS = ("sigmoid", "tanh")
# The smallest value of each; the largest of both is 1.
LOWEST = {"sigmoid": 0.0, "tanh": -1.0}
# An allowance must be this many times the worst error seen: a sample may miss the worst error, and another processor
# may have a larger one.
HEADROOM = 4.0

_ALLOWANCES = {"sigmoid": certificate.SIGMOID, "tanh": certificate.TANH}


@dataclasses.dataclass(frozen=True)
class ActivationReport:
    """A finding as `bitsum qualify --json` prints it (docs/json.md)."""

    worst_u: float | None
    allowance_u: float
    headroom: float | None
    at: str
    result: str
    shape: tuple[int, int]
    least: str
    greatest: str


@dataclasses.dataclass(frozen=True)
class QualificationReport:
    """A qualification as `bitsum qualify --json` prints it (docs/json.md)."""

    qualified: bool
    reason: str
    target: str
    version: int
    all_floats: bool
    evaluated: int
    enclosed: int
    shapes: list[tuple[int, int]]
    activations: dict[str, ActivationReport]


@dataclasses.dataclass
class Finding:
    """The worst error of one activation, with its number and shape [rows, units], and the range of the results."""

    name: str
    error: float = -1.0
    at: float = 0.0
    result: float = 0.0
    shape: tuple[int, int] = (0, 0)
    least: float = math.inf
    greatest: float = -math.inf

    @property
    def allowance(self) -> float:
        """The largest error that the theorem allows."""
        return _ALLOWANCES[self.name]

    @property
    def complaint(self) -> str | None:
        """Why the activation is refused, in one line; None if it is accepted."""
        value = f"{self.name}({self.at.hex()}) is {self.result.hex()} in the shape {list(self.shape)}"
        lowest = int(LOWEST[self.name])
        if not lowest <= self.result <= 1.0:
            return f"{value}, outside of [{lowest}, 1]"
        if not self.error * HEADROOM <= self.allowance:
            return (
                f"{value}, off by {in_u(self.error):.4g} u; the allowance of {in_u(self.allowance):g} u "
                f"must be {HEADROOM:g} times the worst error"
            )
        if not lowest <= self.least <= self.greatest <= 1.0:
            return f"{self.name} leaves [{lowest}, 1]: {self.least} to {self.greatest}"
        return None

    def note(self, error: float, at: float, result: float, shape: tuple[int, int]) -> None:
        """Record a result and its error, which may be infinite."""
        if error > self.error:
            self.error, self.at, self.result, self.shape = error, at, result, shape

    def spread(self, least: float, greatest: float) -> None:
        """Record a range of results; NaN counts as infinite."""
        self.least = min(self.least, -math.inf if math.isnan(least) else least)
        self.greatest = max(self.greatest, math.inf if math.isnan(greatest) else greatest)

    def report(self) -> ActivationReport:
        """The finding in numbers: errors in u, floats as hexadecimal text."""
        finite = math.isfinite(self.error)
        return ActivationReport(
            worst_u=in_u(self.error) if finite else None,
            allowance_u=in_u(self.allowance),
            headroom=self.allowance / self.error if finite and self.error else None,
            at=self.at.hex(),
            result=self.result.hex(),
            shape=self.shape,
            least=self.least.hex(),
            greatest=self.greatest.hex(),
        )


@dataclasses.dataclass
class Qualification:
    """The findings on a server's activations.

    The server measured `evaluated` results itself, and `enclosed` more were checked here; `distrust` says why its own
    measurements do not count.
    """

    target: str
    version: int
    all_floats: bool
    shapes: list[tuple[int, int]]
    findings: dict[str, Finding] = dataclasses.field(
        default_factory=lambda: {name: Finding(name) for name in ACTIVATIONS}
    )
    evaluated: int = 0
    enclosed: int = 0
    distrust: str | None = None

    @property
    def complaint(self) -> str | None:
        """Why the server is refused, in one line; None if it is qualified."""
        return next(filter(None, (self.findings[name].complaint for name in ACTIVATIONS)), self.distrust)

    @property
    def qualified(self) -> bool:
        """Whether the errors stay within the allowances, with the headroom."""
        return not self.complaint

    def report(self) -> QualificationReport:
        """The qualification in numbers."""
        return QualificationReport(
            qualified=self.qualified,
            reason=self.complaint or "",
            target=self.target,
            version=self.version,
            all_floats=self.all_floats,
            evaluated=self.evaluated,
            enclosed=self.enclosed,
            shapes=self.shapes,
            activations={name: finding.report() for name, finding in self.findings.items()},
        )

    def line(self) -> str:
        """The qualification in one line of text."""
        worst = ", ".join(
            f"{name} errs by at most {in_u(finding.error):.2f} u, at {finding.at:.9g} "
            f"(allowed: {in_u(finding.allowance):g} u)"
            for name, finding in self.findings.items()
        )
        scope = "every finite float32" if self.all_floats else "a sample"
        verdict = "qualified" if self.qualified else f"refused: {self.complaint}"
        counts = f"{self.evaluated} results and {self.enclosed} with enclosed exact values"
        return f"{self.target}: {worst}; {scope}, {counts}; {verdict}"


def in_u(error: float) -> float:
    """`error` in units of u."""
    return error / certificate.UNIT_ROUNDOFF
