"""The checker: certificate + weights -> proven or refused. This docstring is the theorem and its proof.

THE CELL. H hidden units, symbols x of I bits, hidden state h, all float32:
    z = sigmoid(x W_z + h U_z + b_z)        t  = tanh(x W_h + (r*h) U_h + b_h)        logit = h' W_o + b_o
    r = sigmoid(x W_r + h U_r + b_r)        h' = (1-z)*h + z*t                        bit   = logit > 0

THEOREM. Let `check` accept a certificate for the weights and a transducer. Then every runtime that satisfies A1 - A6,
started at h_0 = 0 and fed any word of symbols of any length, writes at every step the transducer's output bit. The same
holds from the certificate's start state for q and the transducer's state q. (Addition: the word is the pairs of bits,
least significant first, then one (0, 0); the written bits are those of the sum, including its last carry.)

ASSUMPTIONS about the runtime. u = 2^-24. Other modules check or enforce each of them: the exported graph is compared
with the cell, the activations are swept, the server's steps are compared with `image`.
A1  Every operation is an IEEE binary32 operation rounded to nearest (a dot product may be summed in binary64 and
    rounded to binary32 once, at its end); an operand or result below 2^-126 in magnitude may be replaced by zero.
A2  A dot product is the sum of its k terms w_i x_i, each once (k = I + H + 1 in a gate: symbol, state, bias; k = H + 1
    in the logit), in any order, blocking and association, with or without fused multiply-add or added zeros. Not
    covered: Strassen, TF32, bfloat16, XLA's rewriting.
A3  The computed sigmoid and tanh of a finite float32 p, |p| <= 128, differ from the exact values by at most 2^-20 and
    2^-19, and lie in [0, 1] and [-1, 1].
A4  h' is fl(fl(fl(1-z)*h) + fl(z*t)), where one of the products may be fused into the sum; r*h is one product.
A5  Symbols are exactly 0.0 or 1.0; a state passed in is h_0, a start state, or a state that this runtime returned.
A6  The weights are those whose hash the certificate names.
About the machine that checks: B1  floats are IEEE binary64, rounded to nearest (`_check_float_environment` spot-checks
this); B2  `decimal` computes exp to within one unit in the last place, and converts to the nearest float.

PROOF. Lemma 1 (dot products). If |x_i| <= 1, the computed sum differs from s = sum w_i x_i by at most
gamma_k sum |w_i x_i| + k W 2^-124, gamma_k = k u / (1 - k u), W = max(1, max |w_i|); it is finite, as |w_i| <= 2^16 and
k < 2^14. Each term meets at most one rounding of its product and k - 1 of sums: factors (1 + d), |d| <= u, of which k
in a row make at most 1 + gamma_k (Higham, Accuracy and Stability of Numerical Algorithms, 3.1). In binary64 there are k
factors within 2^-53 and one within u, which is less as k >= 2. Adding 0 is exact. Flushing changes each of k operands
x_i, k products and k - 1 sums, once each, by less than 2^-126 (times |w_i| for x_i): in all less than (2k + k W)
2^-126. Later factors make of this at most (1 + gamma_k) (3 k W) 2^-126 < k W 2^-124. No weight is subnormal:
`Weights.problem`.
Lemma 2. |h| <= 1 holds exactly for every computed state. It holds for h_0 and start states (2 below). Let it hold for
h. The computed c = fl(1-z) <= 1 - z + 2^-25, as 1 - z lies in [0, 1]. |c h| <= c and |z t| <= z are rounded
monotonically, and c and z are floats, so the products stay within c and z. Their sum, or the fused sum, is at most
c + z <= 1 + 2^-25 in magnitude, which rounds to 1 at most. Flushing only shrinks. So an image may be clamped to
[-1, 1], and |fl(r*h)| <= 1.
Lemma 3. The computed r*h is within u/2 + 3 * 2^-126 < 2^-22 of the real product of the computed r and h. The computed
h' is within 2^-22 of (1-z) h + z t for the computed z, t, h: fl(1-z), two products and the sum (at most 1 + 2^-25 in
magnitude) err by at most u/2 + u/2 + u/2 + u, and flushing by less than 8 * 2^-126.
Lemma 4. `image` encloses every computed h' and logit, for every computed h in its box. The box's h are real vectors in
[lower, upper]. Each gate's real sum lies in `dot`, the computed one in `_sum` (Lemma 1), which lies within [-128, 128]
or the certificate is refused. sigmoid and tanh increase, and A3 widens them. (1-z) h + z t increases with h and t and
is linear in z for z in [0, 1], so its extremes are at corners. Lemmas 2 and 3 do the rest. All real results are rounded
outward (`interval`).
Theorem. Claim: after each step h lies in a box whose label is (next state, output) of the transducer's step, and the
bit was right. The checker has seen that
1.  from h_0, each symbol's image lies in one box with the right label, and its logits have the right sign, by
    `margin` > 0;
2.  each start state is a float32 point of a box whose label has its state (the initial state's is h_0 itself);
3.  from each box, whatever its label (q, o), each symbol's image lies in one box with the label of a step from q, and
    its logits have that label's sign, by `margin`.
1 or 2 begin the induction, 3 continues it. The computed logit lies in the enclosure (Lemma 4), which excludes 0.   QED
"""

import dataclasses
import math
import sys
from collections.abc import Iterator, Sequence
from math import inf, nextafter
from typing import Any

from components.proof import certificate, interval
from components.proof.certificate import Box, Certificate
from components.proof.interval import Interval
from components.proof.weights import Matrix, Vector, Weights, is_float32
from components.task.transducer import ADDITION, Symbol, Transducer

Column = tuple[float, ...]

# This many take about a minute. Four boxes of 16 units take some 20,000 products, four of 512 units some 16 million.
MAX_PRODUCTS = 2**24


@dataclasses.dataclass(frozen=True)
class Verdict:
    """The checker's decision. Refused means not proven, which is not the same as wrong.

    `margin`: the worst logit's distance from 0 on the right side. `slack`: the tightest containment, the least distance
    of an image's side from its box's, negative if an image sticks out. Both are None if no image was computed. `where`
    names the step of the first failure, "" if proven.
    """

    proven: bool
    reason: str
    where: str = ""
    margin: float | None = None
    slack: float | None = None
    evaluations: int = 0


@dataclasses.dataclass(frozen=True)
class Cell:
    """The weights by columns, in the order of the dot products: symbol, bias, state for a gate; bias, state for the
    logit."""

    update: tuple[Column, ...]
    reset: tuple[Column, ...]
    candidate: tuple[Column, ...]
    logit: Column

    @classmethod
    def of(cls, weights: Weights) -> "Cell":
        """From weights without `problem`."""
        return cls(
            update=_columns(weights.W_z, weights.b_z, weights.U_z),
            reset=_columns(weights.W_r, weights.b_r, weights.U_r),
            candidate=_columns(weights.W_h, weights.b_h, weights.U_h),
            logit=(*weights.b_o, *(row[0] for row in weights.W_o)),
        )


@dataclasses.dataclass(frozen=True)
class Image:
    """Enclosures of everything that a runtime may compute in one step; `reach` is the largest magnitude of a
    pre-activation."""

    hidden: tuple[Interval, ...]
    logit: Interval
    reach: float


class _Refused(Exception):
    """Carries the reason to `check`."""


def check(source: str | dict[str, Any], weights: Weights, task: Transducer = ADDITION) -> Verdict:
    """Whether the certificate proves that a cell with these weights computes `task`. Any `source` gives a verdict."""
    try:
        _check_float_environment()
        claim = certificate.parse(source)
        _check_well_formed(claim, weights, task)
    except (certificate.Malformed, _Refused) as error:
        return Verdict(False, str(error), where="before any step")
    return _judge(claim, Cell.of(weights), task)


def image(cell: Cell, hidden: Sequence[Interval], symbol: Symbol) -> Image:
    """Enclosure of one step from all `hidden` states, H intervals within [-1, 1]."""
    bits = [(float(bit), float(bit)) for bit in symbol] + [(1.0, 1.0)]
    update = [_sum(column, [*bits, *hidden]) for column in cell.update]
    reset = [_sum(column, [*bits, *hidden]) for column in cell.reset]
    kept = [_within_one(interval.mul(_gate(r), h), certificate.PRODUCT) for r, h in zip(reset, hidden, strict=True)]
    candidate = [_sum(column, [*bits, *kept]) for column in cell.candidate]
    following = tuple(
        _within_one(interval.lerp(_gate(z), h, _within_one(interval.tanh(t), certificate.TANH)), certificate.PRODUCT)
        for z, h, t in zip(update, hidden, candidate, strict=True)
    )
    reach = max(max(-low, high) for low, high in (*update, *reset, *candidate))
    return Image(following, _sum(cell.logit, [(1.0, 1.0), *following]), reach)


def _judge(claim: Certificate, cell: Cell, task: Transducer) -> Verdict:
    failure = reason = ""
    margin = slack = inf
    evaluations = 0
    for where, hidden, state in _origins(claim, task):
        for symbol in task.inputs:
            step = image(cell, hidden, symbol)
            following, output = task.label(state, symbol)
            distance = step.logit[0] if output else -step.logit[1]
            clearance = max(
                (_clearance(step, box) for box in claim.boxes if (box.state, box.output) == (following, output)),
                default=-inf,
            )
            problem = _problem(step, distance, clearance, claim.margin, (following, output))
            if problem and not failure:
                failure, reason = f"step from {where} with input {symbol}", problem
            margin, slack, evaluations = min(margin, distance), min(slack, clearance), evaluations + 1
    return Verdict(not failure, reason or f"proven: {task.name} of any length", failure, margin, slack, evaluations)


def _origins(claim: Certificate, task: Transducer) -> Iterator[tuple[str, tuple[Interval, ...], int]]:
    """(name, hidden states, state of the transducer) of everything from which a step must be checked."""
    yield "h_0", ((0.0, 0.0),) * claim.units, task.initial
    for index, box in enumerate(claim.boxes):
        yield (
            f"box {index} (state {box.state}, output {box.output})",
            tuple(zip(box.lower, box.upper, strict=True)),
            box.state,
        )


def _problem(step: Image, distance: float, clearance: float, margin: float, label: tuple[int, int]) -> str | None:
    # Negated comparisons, so that NaN refuses.
    limit = certificate.ACTIVATION_RANGE
    if not step.reach <= limit:
        return f"a pre-activation reaches {step.reach:.6g}, the activations are known up to {limit:g}"
    if not distance >= margin:
        return f"the logit's margin is {distance:.6g}, below the certificate's {margin:.6g}"
    if clearance == -inf:
        return f"no box has (state, output) {label}"
    if not clearance >= 0.0:
        return f"the image sticks out of every box of (state, output) {label}, by {-clearance:.6g}"
    return None


def _clearance(step: Image, box: Box) -> float:
    """The least distance of the image's sides from the box's, with its exact sign. Sides at -1 and 1 do not count
    (Lemma 2)."""
    sides = zip(step.hidden, box.lower, box.upper, strict=True)
    return min(
        min(low - lower if lower > -1.0 else inf, upper - high if upper < 1.0 else inf)
        for (low, high), lower, upper in sides
    )


def _sum(column: Column, terms: Sequence[Interval]) -> Interval:
    """Enclosure of everything that a runtime may compute for the dot product (Lemma 1)."""
    low, high, size = interval.dot(column, terms)
    k = len(column)
    rounding = nextafter(k * certificate.UNIT_ROUNDOFF / (1 - k * certificate.UNIT_ROUNDOFF), inf)
    flushing = k * max(1.0, *map(abs, column)) * certificate.UNDERFLOW
    return interval.inflate((low, high), nextafter(nextafter(rounding * size, inf) + flushing, inf))


def _gate(x: Interval) -> Interval:
    return interval.clamp(interval.inflate(interval.sigmoid(x), certificate.SIGMOID), 0.0, 1.0)


def _within_one(x: Interval, allowance: float) -> Interval:
    return interval.clamp(interval.inflate(x, allowance), -1.0, 1.0)


def _check_well_formed(claim: Certificate, weights: Weights, task: Transducer) -> None:
    """Refuse what needs no interval arithmetic. Raises: _Refused."""
    problem = weights.problem() if type(weights) is Weights else f"{type(weights).__name__} instead of Weights"
    _require(problem is None, f"{problem}")
    boxes, units = len(claim.boxes), weights.units
    products = (1 + boxes) * len(task.inputs) * (3 * units * (weights.bits + 1 + units) + units + 1)
    _require(
        products <= MAX_PRODUCTS,
        f"checking {boxes} boxes of {units} units takes {products} products of intervals, the limit is {MAX_PRODUCTS}",
    )
    _require(claim.task == task.name, f"the certificate is for {claim.task!r}, not for {task.name!r}")
    _require(
        claim.transducer == certificate.canonical(task.description()), f"its transducer is not that of {task.name}"
    )
    _require(dict(claim.allowances) == certificate.ALLOWANCES, "its allowances are not those of this checker")
    _require(claim.units == weights.units, f"it has {claim.units} units, the weights have {weights.units}")
    _require(
        all(len(symbol) == weights.bits for symbol in task.inputs), f"the weights take symbols of {weights.bits} bits"
    )
    _require(
        claim.weights_sha256 == weights.sha256(), f"it is for other weights, of hash {claim.weights_sha256[:12]!r}"
    )
    _require(claim.margin > 0.0, f"its margin {claim.margin:.6g} is not positive")
    for index, box in enumerate(claim.boxes):
        _require(
            (box.state, box.output) in task.labels, f"box {index}: {task.name} has no label ({box.state}, {box.output})"
        )
        _require(_is_ordered(box), f"box {index}: its sides are not -1 <= lower <= upper <= 1")
    _check_starts(claim, task)


def _check_starts(claim: Certificate, task: Transducer) -> None:
    _require(sorted(start.state for start in claim.starts) == sorted(task.states), "it needs one start for each state")
    for start in claim.starts:
        if start.state == task.initial:
            _require(all(value == 0.0 for value in start.hidden), "the start of the initial state is not h_0 = 0")
        else:
            inside = any(_contains(box, start.hidden) for box in claim.boxes if box.state == start.state)
            _require(inside, f"the start for state {start.state} is not a float32 point of a box of that state")


def _contains(box: Box, point: Sequence[float]) -> bool:
    sides = zip(box.lower, point, box.upper, strict=True)
    return all(is_float32(value) and lower <= value <= upper for lower, value, upper in sides)


def _is_ordered(box: Box) -> bool:
    return all(-1.0 <= lower <= upper <= 1.0 for lower, upper in zip(box.lower, box.upper, strict=True))


def _columns(symbol_rows: Matrix, bias: Vector, state_rows: Matrix) -> tuple[Column, ...]:
    return tuple(zip(*symbol_rows, bias, *state_rows, strict=True))


def _check_float_environment() -> None:
    """Spot-check B1: the parameters of float, and the current rounding mode, which another library may have set."""
    info, half = sys.float_info, sys.float_info.epsilon / 2
    one, tiny = float(len("1")), nextafter(0.0, inf)
    nearest = one + half == one and one - half / 4 == one and -one - half / 4 == -one
    _require(
        (info.radix, info.mant_dig, info.max_exp) == (2, 53, 1024) and nearest,
        "this machine's floats do not round to nearest",
    )
    _require(tiny * one > 0.0 and math.isfinite(info.max), "this machine's floats flush subnormals to zero")


def _require(holds: bool, problem: str) -> None:
    if not holds:
        raise _Refused(problem)
