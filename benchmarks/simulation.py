"""Simulates many certified models at once in float32: is a bit wrong, or a state outside its certificate's boxes?

Shapes: M models, N words, T steps, L labels, K boxes per label, S symbols, H units.
"""

import itertools
import math
import types
from collections.abc import Iterator, Sequence

import numpy as np
import tensorflow as tf

from benchmarks.float32_steps import inward
from components.model.gru import GRU
from components.proof import certificate as claims
from components.proof.certificate import Certificate
from components.proof.counterexample import long_words, structured_words
from components.proof.weights import NAMES, Weights
from components.task.transducer import ADDITION

# For each accepted model 10^5 bits of random words, from all start states, and of structured ones, from h_0.
RANDOM_WORDS, LONG = 64, 1600
SHORT = 160
CORNERS, FROM_CORNERS = 1024, 12
# Models per call, which bounds the memory.
TOGETHER = 64


def errors(models: Sequence[tuple[Weights, str | dict]], share: float = 1.0) -> list[int]:
    """Wrong bits and states outside the boxes, for each accepted (weights, certificate).

    `share` scales the simulated lengths. 1 for a certificate that cannot be simulated and so cannot fit its weights.
    """
    readings = [_reading(*model) for model in models]
    found = [1] * len(models)
    order = sorted(
        (index for index, reading in enumerate(readings) if reading), key=lambda index: _shape(readings[index])
    )
    for _, same in itertools.groupby(order, key=lambda index: _shape(readings[index])):
        same = list(same)
        for begin in range(0, len(same), TOGETHER):
            some = same[begin : begin + TOGETHER]
            counts = _Batch([models[index][0] for index in some], [readings[index] for index in some]).errors(share)
            for index, count in zip(some, counts.tolist(), strict=True):
                found[index] = count
    return found


def arrays(weights: Weights) -> dict[str, np.ndarray]:
    return {name: np.array(getattr(weights, name), np.float32) for name in NAMES}


def _reading(weights: Weights, certificate: str | dict) -> Certificate | None:
    """The certificate, if it can be simulated: with a box for each label, a start for each state, for cells of these
    units."""
    try:
        reading = claims.parse(certificate)
    except claims.Malformed:
        return None
    labels, starts = {(box.state, box.output) for box in reading.boxes}, sorted(start.state for start in reading.starts)
    fits = labels == set(ADDITION.labels) and starts == sorted(ADDITION.states) and reading.units == weights.units
    return reading if fits and not weights.problem() else None


def _shape(reading: Certificate) -> tuple[int, int]:
    """(units, most boxes with the same label)."""
    return reading.units, max(len(boxes) for boxes in _by_label(reading))


def _by_label(reading: Certificate) -> list[list]:
    return [[box for box in reading.boxes if (box.state, box.output) == label] for label in ADDITION.labels]


class _Batch:
    """Models of equal shape, side by side."""

    def __init__(self, weights: Sequence[Weights], readings: Sequence[Certificate]):
        stacked = [arrays(one) for one in weights]
        self.values = {name: np.stack([one[name] for one in stacked]) for name in NAMES}
        most = _shape(readings[0])[1]
        # A label with fewer boxes than K repeats them.
        sides = [
            [inward([*itertools.islice(itertools.cycle(boxes), most)]) for boxes in _by_label(one)] for one in readings
        ]
        self.lower, self.upper = (
            np.array([[label[end] for label in one] for one in sides]) for end in (0, 1)
        )  # [M, L, K, H]
        ordered = [sorted(one.starts, key=lambda start: start.state) for one in readings]
        self.starts = np.array([[start.hidden for start in one] for one in ordered])  # [M, states, H]

    def errors(self, share: float) -> np.ndarray:
        """Wrong bits plus states outside every box of their label, [M]."""
        long, short = (max(8, math.ceil(length * share)) for length in (LONG, SHORT))
        random = np.random.default_rng(0).integers(0, len(ADDITION.inputs), (RANDOM_WORDS, long))
        structured = [long_words(len(ADDITION.inputs), long), structured_words(len(ADDITION.inputs), short)]
        total = self._from_boxes() + self._starts_outside()
        runs = [(random, np.arange(RANDOM_WORDS) % len(ADDITION.states))]
        runs += [(words, np.full(len(words), ADDITION.initial)) for words in structured]
        for words, states in runs:
            total = total + self._run(self.starts[:, states].astype(np.float32), states, words)
        return total

    def _from_boxes(self) -> np.ndarray:
        """From corners of the boxes and points in them."""
        dice = np.random.default_rng(1)
        rows = np.arange(CORNERS)
        label, box = rows % len(ADDITION.labels), rows // len(ADDITION.labels) % self.lower.shape[2]
        lower, upper = self.lower[:, label, box], self.upper[:, label, box]
        shares = np.where(
            rows[:, None] % 3, dice.integers(0, 2, (CORNERS, lower.shape[2])), dice.random((CORNERS, lower.shape[2]))
        )
        hidden = np.clip(lower + shares * (upper - lower), lower, upper).astype(np.float32)
        states = np.array([ADDITION.labels[one][0] for one in label])
        # A box without a float32 inside proves nothing.
        filled = (lower <= upper).all(axis=2)
        return self._run(hidden, states, dice.integers(0, 4, (CORNERS, FROM_CORNERS)), filled)

    def _starts_outside(self) -> np.ndarray:
        outside = np.any(self.starts[:, ADDITION.initial] != 0, axis=1).astype(int)
        for state in set(ADDITION.states) - {ADDITION.initial}:
            labels = [number for number, label in enumerate(ADDITION.labels) if label[0] == state]
            point = self.starts[:, state, None, None]
            inside = (self.lower[:, labels] <= point) & (point <= self.upper[:, labels])
            outside += ~inside.all(axis=3).any(axis=(1, 2))
        return outside

    def _run(
        self, hidden: np.ndarray, states: np.ndarray, words: np.ndarray, filled: np.ndarray | None = None
    ) -> np.ndarray:
        labels = np.array(list(_labels(states, words)), np.int32)
        filled = np.ones(hidden.shape[:2], bool) if filled is None else filled
        return _errors(self.values, self.lower, self.upper, hidden, words.T.astype(np.int32), labels, filled).numpy()


def _labels(states: np.ndarray, words: np.ndarray) -> Iterator[list[int]]:
    """The index of the right label of each word, step by step."""
    for symbols in words.T:
        now = [ADDITION.label(state, ADDITION.inputs[symbol]) for state, symbol in zip(states, symbols, strict=True)]
        states = [label[0] for label in now]
        yield [ADDITION.labels.index(label) for label in now]


@tf.function(reduce_retracing=True)
def _errors(
    values: dict,
    lower: tf.Tensor,
    upper: tf.Tensor,
    hidden: tf.Tensor,
    words: tf.Tensor,
    labels: tf.Tensor,
    filled: tf.Tensor,
) -> tf.Tensor:
    """[M]: wrong bits and states outside, where `filled` [M, N]; hidden [M, N, H], words and labels [T, N]."""
    symbols = tf.constant(ADDITION.inputs, tf.float32)
    tables = [tf.einsum("si,mih->msh", symbols, values[f"W_{gate}"]) + values[f"b_{gate}"][:, None] for gate in "zrh"]
    cell = types.SimpleNamespace(**{f"U_{gate}": values[f"U_{gate}"] for gate in "zrh"})
    outputs = tf.constant([output == 1 for _, output in ADDITION.labels])
    errors = tf.zeros(tf.shape(hidden)[0], tf.int32)
    for time_step in tf.range(tf.shape(words)[0]):
        word, label = words[time_step], labels[time_step]
        # The cell's own lines, for a stack of cells.
        hidden = GRU.advance(cell, *(tf.gather(table, word, axis=1) for table in tables), hidden)
        logit = tf.einsum("mnh,mh->mn", hidden, values["W_o"][:, :, 0]) + values["b_o"]
        box = tf.gather(lower, label, axis=1), tf.gather(upper, label, axis=1)
        state = hidden[:, :, None]
        inside = tf.reduce_any(tf.reduce_all((state >= box[0]) & (state <= box[1]), axis=3), axis=2)
        bad = ((logit > 0) != tf.gather(outputs, label)) | ~inside
        errors += tf.reduce_sum(tf.cast(bad & filled, tf.int32), axis=1)
    return errors
