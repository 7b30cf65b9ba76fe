"""The finder searches for boxes that the checker will accept. It is not part of the trusted base.

It iterates the abstract step (intervals in float64, every allowance `FACTOR` times the checker's, so that the checker
has slack) from the images of h_0, and stops when no image leaves its box. To finish slow growth, each side now and then
jumps to the limit that its last two moves predict, as in Aitken's delta-squared process. If that leads to no proof,
growing sides are moved a little further out each round. Finally the boxes are narrowed for a few rounds to the hulls of
their images. If one box per label does not suffice, the last `depth` symbols read distinguish further boxes.

Shapes: N boxes, S symbols, H units; an empty box has lower = inf, upper = -inf.
"""

import dataclasses
from typing import Any

import numpy as np

from components.proof import certificate
from components.proof.certificate import Box, Certificate, Start
from components.proof.weights import NAMES, Weights
from components.task.transducer import ADDITION, Label, Symbol, Transducer

FACTOR = 3.0
ROUNDS = 160
NARROWING = 8
# Rounds from one jump to the next, in which the moves settle into a geometric series. A jump overshoots a little, since
# a side that stops short of its limit never stays in its box.
JUMP_EVERY = 12
OVERSHOOT = 1.2
# A move that is hardly smaller than the previous one has no usable limit.
MAX_RATIO = 0.9999
# In round n a side that grew by d moves out by d * growth**n, so that slow growth ends within ROUNDS. The slower
# growths overshoot less; they are tried if the faster ones lead to boxes whose margins are not positive.
GROWTHS = (1.1, 1.05, 1.03)
# Numbers of last symbols that distinguish boxes, from few boxes to many.
DEPTHS = (0, 1, 2)

_Array = np.ndarray[Any, Any]
Bounds = tuple[_Array, _Array]


@dataclasses.dataclass(frozen=True)
class Finding:
    """An unverified certificate, or None and the reason; `margin` is the finder's own worst margin, None without stable
    boxes."""

    certificate: Certificate | None
    reason: str
    margin: float | None = None


@dataclasses.dataclass(frozen=True)
class Graph:
    """The steps between boxes: `labels` of the N boxes; indices of the next box, `following` [N, S] and `first` [S]
    (from h_0)."""

    labels: tuple[Label, ...]
    following: _Array
    first: _Array


def find(weights: Weights, task: Transducer = ADDITION, depths: tuple[int, ...] = DEPTHS) -> Finding:
    """A certificate from the first of `depths` that yields one; a few milliseconds per depth for 16 units.

    Raises:
        ValueError: the weights have a `problem`, or their symbols have another width than the task's.
    """
    if problem := weights.problem():
        raise ValueError(problem)
    if weights.bits != len(task.inputs[0]):
        raise ValueError(f"the weights take symbols of {weights.bits} bits, {task.name} has {len(task.inputs[0])}")
    finding = Finding(None, "no depth was given")
    for depth in depths:
        finding = _attempt(weights, task, graph(task, depth))
        if finding.certificate:
            break
    return finding


def graph(task: Transducer, depth: int) -> Graph:
    """The boxes that h_0 leads to, distinguished by label and the last `depth` symbols."""
    nodes: list[tuple[Label, tuple[Symbol, ...]]] = []

    def index(state: int, history: tuple[Symbol, ...], symbol: Symbol) -> int:
        history = (*history, symbol)[-depth:] if depth else ()
        node = (task.label(state, symbol), history)
        if node not in nodes:
            nodes.append(node)
        return nodes.index(node)

    first = [index(task.initial, (), symbol) for symbol in task.inputs]
    following = [[index(label[0], history, symbol) for symbol in task.inputs] for label, history in nodes]
    return Graph(tuple(label for label, _ in nodes), np.array(following), np.array(first))


def _attempt(weights: Weights, task: Transducer, nodes: Graph) -> Finding:
    cell = _Cell(weights, task)
    finding = Finding(None, f"{len(nodes.labels)} boxes did not settle within {ROUNDS} rounds")
    for growth in (None, *GROWTHS):
        boxes = _jumping(cell, nodes) if growth is None else _widening(cell, nodes, growth)
        if boxes is None:
            continue
        for _ in range(NARROWING):
            boxes = cell.hulls(nodes, boxes)
        margin, reach = cell.worst(nodes, boxes)
        if not reach <= certificate.ACTIVATION_RANGE:
            limit = f"the activations are known up to {certificate.ACTIVATION_RANGE:g}"
            finding = Finding(None, f"a pre-activation reaches {reach:.4g}, {limit}", margin)
        elif not margin > 0:
            finding = Finding(None, f"{len(nodes.labels)} boxes settle, but their worst margin is {margin:.4g}", margin)
        else:
            return Finding(_certificate(weights, task, nodes, boxes, margin), "found", margin)
    return finding


def _jumping(cell: "_Cell", nodes: Graph) -> Bounds | None:
    """Boxes that contain their images and those of h_0, or None after ROUNDS rounds; every JUMP_EVERY rounds the sides
    jump."""
    # -lower and upper, so that both only grow; those of an empty box are -inf.
    sides = np.full((2, len(nodes.labels), cell.units), -np.inf)
    before = np.zeros_like(sides)
    for count in range(1, ROUNDS + 1):
        low, high = cell.hulls(nodes, (-sides[0], sides[1]))
        images = np.stack([-low, high])
        if np.all(images <= sides):
            return -sides[0], sides[1]
        move = np.subtract(images, sides, out=np.zeros_like(sides), where=np.isfinite(sides)).clip(min=0.0)
        sides = np.maximum(sides, images)
        if count % JUMP_EVERY == 0:
            ratio = np.divide(move, before, out=np.zeros_like(move), where=before > 0).clip(max=MAX_RATIO)
            # d + d r + d r^2 + ... = d / (1 - r), of which the side has made the first step.
            sides = np.minimum(sides + move * (OVERSHOOT / (1 - ratio) - 1), 1.0)
        before = move
    return None


def _widening(cell: "_Cell", nodes: Graph, growth: float) -> Bounds | None:
    """As `_jumping`, but growing sides move out by a factor of `growth` more each round."""
    shape = len(nodes.labels), cell.units
    lower, upper = np.full(shape, np.inf), np.full(shape, -np.inf)
    for count in range(ROUNDS):
        low, high = cell.hulls(nodes, (lower, upper))
        if np.all(low >= lower) and np.all(high <= upper):
            return lower, upper
        lower, upper = -_grown(-lower, -low, growth**count), _grown(upper, high, growth**count)
    return None


def _grown(upper: _Array, image: _Array, factor: float) -> _Array:
    """The upper sides, moved out by `factor` >= 1 times the way to the image's; an empty box takes the image's."""
    way = np.subtract(image, upper, out=np.zeros_like(upper), where=np.isfinite(upper)).clip(min=0.0)
    return np.minimum(np.maximum(np.maximum(upper, image), upper + factor * way), 1.0)


class _Cell:
    """The abstract step of a cell in float64: gates z, r, h, each W [2, H], U [H, H], b [H]; the head W_o [H], b_o."""

    def __init__(self, weights: Weights, task: Transducer):
        arrays = {name: np.array(getattr(weights, name), np.float64) for name in NAMES}
        self.units = weights.units
        self.task = task
        self.symbols = np.array(task.inputs, np.float64)
        self.gates = {gate: (arrays[f"W_{gate}"], arrays[f"U_{gate}"], arrays[f"b_{gate}"]) for gate in "zrh"}
        self.head = arrays["W_o"][:, 0], arrays["b_o"][0]

    def step(self, boxes: Bounds) -> tuple[Bounds, Bounds, float]:
        """Images [N, S, H] of boxes [N, H] under every symbol, their logits [N, S], and the largest pre-activation."""
        boxes = boxes[0][:, None, :], boxes[1][:, None, :]
        update, reset = self._gate("z", boxes), self._gate("r", boxes)
        kept = _clamp(_inflate(_product(_sigmoid(reset), boxes), certificate.PRODUCT))
        candidate = self._gate("h", kept)
        target = _clamp(_inflate((np.tanh(candidate[0]), np.tanh(candidate[1])), certificate.TANH))
        images = _clamp(_inflate(_lerp(_sigmoid(update), boxes, target), certificate.PRODUCT))
        reach = max(np.abs(side).max() for sums in (update, reset, candidate) for side in sums)
        return images, _affine(images, self.head[0][:, None], self.head[1]), reach

    def hulls(self, nodes: Graph, boxes: Bounds) -> Bounds:
        """For each box the hull of all images that belong to it, [N, H]."""
        empty = boxes[0] > boxes[1]
        (low, high), _, _ = self.step((np.where(empty, 0.0, boxes[0]), np.where(empty, 0.0, boxes[1])))
        low, high = np.where(empty[:, None, :], np.inf, low), np.where(empty[:, None, :], -np.inf, high)
        (first_low, first_high), _, _ = self.step(self._origin())
        lower, upper = np.full(boxes[0].shape, np.inf), np.full(boxes[0].shape, -np.inf)
        for index in range(len(nodes.labels)):
            into, start = nodes.following == index, nodes.first == index
            lower[index] = np.concatenate([low[into], first_low[0, start]]).min(axis=0)
            upper[index] = np.concatenate([high[into], first_high[0, start]]).max(axis=0)
        return lower, upper

    def worst(self, nodes: Graph, boxes: Bounds) -> tuple[float, float]:
        """The worst margin and the largest pre-activation over all steps from h_0 and from the boxes."""
        margins, reaches = [], []
        for origin, states in ((self._origin(), [self.task.initial]), (boxes, [state for state, _ in nodes.labels])):
            _, (low, high), reach = self.step(origin)
            bits = np.array([[self.task.step(state, symbol)[0] for symbol in self.task.inputs] for state in states])
            margins.append(np.where(bits == 1, low[..., 0], -high[..., 0]).min())
            reaches.append(reach)
        return float(min(margins)), float(max(reaches))

    def _origin(self) -> Bounds:
        return np.zeros((1, self.units)), np.zeros((1, self.units))

    def _gate(self, gate: str, hidden: Bounds) -> Bounds:
        kernel, recurrent, bias = self.gates[gate]
        size = self.symbols @ np.abs(kernel) + np.abs(bias)
        return _affine(hidden, recurrent, self.symbols @ kernel + bias, size, kernel.shape[0])


def _affine(x: Bounds, matrix: _Array, offset: _Array, size: _Array | None = None, more: int = 0) -> Bounds:
    """x @ matrix + offset by centre and radius, plus FACTOR gamma_k of the sum of the terms' magnitudes (`size`: the
    offset's)."""
    terms = matrix.shape[0] + 1 + more
    centre, radius = (x[0] + x[1]) / 2 @ matrix + offset, (x[1] - x[0]) / 2 @ np.abs(matrix)
    total = np.maximum(-x[0], x[1]) @ np.abs(matrix) + (np.abs(offset) if size is None else size)
    reach = radius + FACTOR * terms * certificate.UNIT_ROUNDOFF * total
    return centre - reach, centre + reach


def _sigmoid(x: Bounds) -> Bounds:
    low, high = (0.5 + 0.5 * np.tanh(0.5 * side) for side in x)
    return np.maximum(low - FACTOR * certificate.SIGMOID, 0.0), np.minimum(high + FACTOR * certificate.SIGMOID, 1.0)


def _product(x: Bounds, y: Bounds) -> Bounds:
    """x * y for x >= 0."""
    return np.minimum(x[0] * y[0], x[1] * y[0]), np.maximum(x[0] * y[1], x[1] * y[1])


def _lerp(z: Bounds, h: Bounds, t: Bounds) -> Bounds:
    low = np.minimum((1 - z[0]) * h[0] + z[0] * t[0], (1 - z[1]) * h[0] + z[1] * t[0])
    high = np.maximum((1 - z[0]) * h[1] + z[0] * t[1], (1 - z[1]) * h[1] + z[1] * t[1])
    return low, high


def _inflate(x: Bounds, allowance: float) -> Bounds:
    return x[0] - FACTOR * allowance, x[1] + FACTOR * allowance


def _clamp(x: Bounds) -> Bounds:
    return np.clip(x[0], -1.0, 1.0), np.clip(x[1], -1.0, 1.0)


def _certificate(weights: Weights, task: Transducer, nodes: Graph, boxes: Bounds, margin: float) -> Certificate:
    sides = zip(nodes.labels, boxes[0].tolist(), boxes[1].tolist(), strict=True)
    found = sorted(
        (Box(*label, tuple(lower), tuple(upper)) for label, lower, upper in sides),
        key=lambda box: (box.state, box.output),
    )
    starts = tuple(Start(state, _start(found, state, task, weights.units)) for state in task.states)
    return certificate.claim(task, weights.sha256(), tuple(found), starts, margin)


def _start(boxes: list[Box], state: int, task: Transducer, units: int) -> tuple[float, ...]:
    """h_0 for the initial state; the centre of the state's first box, in float32, for another."""
    if state == task.initial:
        return (0.0,) * units
    box = next(box for box in boxes if box.state == state)
    return tuple(np.mean([box.lower, box.upper], axis=0).astype(np.float32).tolist())
