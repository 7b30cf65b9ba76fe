"""The picture of a proof: the boxes of hidden states, projected onto two hidden units.

The projection of a box onto two units is exactly a rectangle, so the picture shows no approximation. It uses the two
units that separate boxes of different labels best. Coordinates: u, v are values of the two units, x, y pixels.
"""

import itertools
import math
from typing import Any, NamedTuple
from xml.sax.saxutils import escape

import numpy as np

from components.proof.certificate import Box, Certificate
from components.proof.weights import NAMES, Weights
from components.task.transducer import ADDITION, TASKS, Label, Transducer

RUN_STEPS = 600

_WIDTH, _HEIGHT = 760, 540
# One colour per label, in the order of the transducer's labels, safe for the colour-blind (Okabe & Ito 2008).
_COLOURS = ("#0072b2", "#009e73", "#d55e00", "#b8609a")
_STYLE = """
 text { font-family: system-ui, "Segoe UI", Helvetica, Arial, sans-serif; font-size: 14px }
 .title { font-size: 19px; font-weight: 600 } .strong { font-weight: 600 } .small { font-size: 12.5px }
 .ground { fill: #ffffff } .ink { fill: #1f2328 } .faint { fill: #59636e } .axis { stroke: #e3e7ec }
 @media (prefers-color-scheme: dark) {
  .ground { fill: #14181d } .ink { fill: #e6edf3 } .faint { fill: #9aa4af } .axis { stroke: #2b323a }
 }
"""


class Rectangle(NamedTuple):
    """In pixels, y downwards."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def centre(self) -> tuple[float, float]:
        """(x, y) of the centre."""
        return (self.left + self.right) / 2, (self.top + self.bottom) / 2


_PLOT = Rectangle(78, 84, 560, 430)


def svg(weights: Weights, certificate: Certificate) -> str:
    """The picture as the text of an SVG, determined by the weights and a certificate that the checker has accepted."""
    task = TASKS[certificate.task]
    units = best_units(certificate.boxes)
    title = f"Proof: the states of every run for {task.name} stay in these boxes"
    caption = [
        f"The {len(certificate.boxes)} boxes, projected onto the two of {certificate.units} hidden units that separate "
        f"them best, where each is exactly a rectangle; {RUN_STEPS} states of a run.",
        "From every state in a box each pair of bits leads to a box with the label of the transducer's step, and",
        f"outputs the right bit, its logit at least {certificate.margin:.3g} from 0. The checker decides this, not the "
        "picture.",
    ]
    return _document(title, caption, [*_boxes(weights, certificate, task, units), *_legend(task)])


def best_units(boxes: tuple[Box, ...]) -> tuple[int, int]:
    """The two units along which the least gap between boxes of different labels is widest, relative to all boxes."""
    lower, upper = np.array([box.lower for box in boxes]), np.array([box.upper for box in boxes])
    extent = np.maximum(upper.max(axis=0) - lower.min(axis=0), 1e-6)
    pairs = [(i, j) for i, j in itertools.combinations(range(len(boxes)), 2) if _label(boxes[i]) != _label(boxes[j])]
    gaps = np.array([np.maximum(lower[i] - upper[j], lower[j] - upper[i]) / extent for i, j in pairs]).reshape(
        -1, len(extent)
    )

    def score(units: tuple[int, int]) -> tuple[float, float]:
        both = gaps[:, units].max(axis=1)
        return both.min(initial=1.0), gaps[:, units].sum()

    return max(itertools.permutations(range(len(extent)), 2), key=score, default=(0, 0))


def run(weights: Weights, task: Transducer, steps: int) -> tuple[np.ndarray[Any, Any], list[Label]]:
    """States [steps, H] of a run over random symbols from h_0, in float64, and the label of each step."""
    arrays = {name: np.array(getattr(weights, name)) for name in NAMES}
    h, state, states, labels = np.zeros(weights.units), task.initial, [], []
    for index in np.random.default_rng(0).integers(0, len(task.inputs), steps):
        symbol = task.inputs[index]
        x_z, x_r, x_h = (np.array(symbol) @ arrays[f"W_{gate}"] + arrays[f"b_{gate}"] for gate in "zrh")
        z, r = (0.5 + 0.5 * np.tanh(0.5 * (x + h @ arrays[f"U_{gate}"])) for x, gate in ((x_z, "z"), (x_r, "r")))
        h = (1 - z) * h + z * np.tanh(x_h + (r * h) @ arrays["U_h"])
        labels.append(task.label(state, symbol))
        state = labels[-1][0]
        states.append(h)
    return np.array(states), labels


class _Axis:
    """Maps the values of a unit in the boxes to pixels between `first` and `last`."""

    def __init__(self, unit: int, boxes: tuple[Box, ...], first: float, last: float):
        self.unit = unit
        low, high = min(box.lower[unit] for box in boxes), max(box.upper[unit] for box in boxes)
        padding = 0.1 * (high - low) or 1.0
        self.low, self.high, self.first, self.last = low - padding, high + padding, first, last

    def pixel(self, value: float) -> float:
        """The pixel of a value."""
        return self.first + (value - self.low) / (self.high - self.low) * (self.last - self.first)

    def ticks(self) -> list[float]:
        """About four round values."""
        power = 10.0 ** math.floor(math.log10((self.high - self.low) / 4))
        step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= (self.high - self.low) / 6)
        return [step * count for count in range(math.ceil(self.low / step), math.floor(self.high / step) + 1)]


def _boxes(weights: Weights, certificate: Certificate, task: Transducer, units: tuple[int, int]) -> list[str]:
    across = _Axis(units[0], certificate.boxes, _PLOT.left, _PLOT.right)
    up = _Axis(units[1], certificate.boxes, _PLOT.bottom, _PLOT.top)
    shadows = [_shadow(_projection(box, across, up), _colour(_label(box), task)) for box in certificate.boxes]
    return [*_grid(across, up), *shadows, *_dots(weights, task, across, up)]


def _projection(box: Box, across: _Axis, up: _Axis) -> Rectangle:
    left, right = (across.pixel(side[across.unit]) for side in (box.lower, box.upper))
    bottom, top = (up.pixel(side[up.unit]) for side in (box.lower, box.upper))
    return Rectangle(left, top, right, bottom)


def _grid(across: _Axis, up: _Axis) -> list[str]:
    parts = []
    for tick in across.ticks():
        x = across.pixel(tick)
        line = f'<path class="axis" d="M{x:.1f} {_PLOT.top}V{_PLOT.bottom}"/>'
        parts += [line, _text(x, _PLOT.bottom + 18, f"{tick:.3g}", "faint small")]
    for tick in up.ticks():
        y = up.pixel(tick)
        line = f'<path class="axis" d="M{_PLOT.left} {y:.1f}H{_PLOT.right}"/>'
        parts += [line, _text(_PLOT.left - 8, y + 4, f"{tick:.3g}", "faint small", "end")]
    x, y = _PLOT.centre
    turned = f'<g transform="translate(24 {y:.1f}) rotate(-90)">{_text(0, 0, f"hidden unit {up.unit}", "faint")}</g>'
    return [*parts, _text(x, _PLOT.bottom + 38, f"hidden unit {across.unit}", "faint"), turned]


def _shadow(at: Rectangle, colour: str) -> str:
    size = f'width="{at.right - at.left:.2f}" height="{at.bottom - at.top:.2f}"'
    look = f'fill="{colour}" fill-opacity="0.18" stroke="{colour}" stroke-width="1.6" stroke-linejoin="round"'
    return f'<rect class="box" x="{at.left:.2f}" y="{at.top:.2f}" {size} {look}/>'


def _dots(weights: Weights, task: Transducer, across: _Axis, up: _Axis) -> list[str]:
    states, labels = run(weights, task, RUN_STEPS)
    places = {
        f'cx="{across.pixel(state[across.unit]):.1f}" cy="{up.pixel(state[up.unit]):.1f}"': _colour(label, task)
        for state, label in zip(states.tolist(), labels, strict=True)
    }
    return [f'<circle class="state" {place} r="2" fill="{colour}"/>' for place, colour in places.items()]


def _legend(task: Transducer) -> list[str]:
    """The labels by colour; for addition n is the sum of two bits and the carry."""
    parts = []
    for index, label in enumerate(task.labels):
        y = _PLOT.top + 12 + 26 * index
        name = f"n = {index}: " if task is ADDITION else ""
        parts.append(
            f'<rect x="{_PLOT.right + 22}" y="{y - 11}" width="13" height="13" fill="{_colour(label, task)}"/>'
        )
        parts.append(_text(_PLOT.right + 44, y, f"{name}state {label[0]}, output {label[1]}", "ink small", "start"))
    return parts


def _document(title: str, caption: list[str], parts: list[str]) -> str:
    lines = [_text(24, 502 + 20 * index, line, "faint small", "start") for index, line in enumerate(caption)]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">',
            f"<title>{escape(title)}</title><desc>{escape(' '.join(caption))}</desc><style>{_STYLE}</style>",
            f'<rect class="ground" width="{_WIDTH}" height="{_HEIGHT}"/>{_text(24, 38, title, "ink title", "start")}',
            *parts,
            *lines,
            "</svg>\n",
        ]
    )


def _text(x: float, y: float, text: str, kind: str, anchor: str = "middle") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _label(box: Box) -> Label:
    return box.state, box.output


def _colour(label: Label, task: Transducer) -> str:
    return _COLOURS[task.labels.index(label) % len(_COLOURS)]
