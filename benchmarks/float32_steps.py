"""Hostile float32 steps of certified models in TensorFlow: does a state leave its box, or is a bit wrong?

python -m benchmarks.float32_steps [--share 1.0] [--models 3] [--seed 1]

From every state reached, all symbols are tried and each step is checked. Rows differ in the symbol that they continue
with: random, from structured words, or greedily the one that leads nearest to a side of a box. They start from h_0 or
from a corner of a box; some steps start from every corner of every box.

Shapes: R rows, S symbols, H units; a model has one box per label here.
"""

import argparse
import functools
import math
import sys
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from components.data.dataset import Batch
from components.model.gru import GRU
from components.proof import certificate as claims
from components.proof import checker, finder
from components.proof.certificate import Box, Certificate
from components.proof.counterexample import structured_words
from components.proof.weights import NAMES, Weights
from components.settings import ProofSettings, Train
from components.task.transducer import ADDITION
from components.training.loop import make_update

STEPS = 10**8
ROWS = 4096
ROUND = 512
# All corners of a box of 16 units; with more units, this many are drawn.
MAX_CORNERS = 2**16
SMALLEST_NORMAL = np.float32(2.0**-126)


class Recipe(NamedTuple):
    """The training of a model on sums of numbers of `bits` bits."""

    bits: int
    train: Train
    proof: ProofSettings


PROVABLE = Recipe(8, Train(), ProofSettings())
# The article trains on the squared error of numbers of 5 bits.
ARTICLE = Recipe(5, Train(loss="quadratic", learning_rate=1e-3, steps=2500), ProofSettings(train=False))


class Tally(NamedTuple):
    """The number of checked steps, wrong bits and states outside their boxes; the smallest distance to a side."""

    steps: int = 0
    wrong: int = 0
    outside: int = 0
    closest: float = np.inf

    def plus(self, other: "Tally") -> "Tally":
        return Tally(*map(sum, zip(self[:3], other[:3], strict=True)), min(self.closest, other.closest))


class Model(NamedTuple):
    """A cell with its weights, its certificate and the checker's slack."""

    cell: GRU
    certificate: Certificate
    slack: float


def training(recipe: Recipe, seed: int, every: int = 25) -> Iterator[Weights]:
    """The weights after each `every` steps."""
    cell, dice = GRU(recipe.train.units, seed, recipe.train.update_bias), np.random.default_rng(seed)
    update, carried = make_update(cell, recipe.train, recipe.proof)
    for step in range(1, recipe.train.steps + 1):
        _, carried = update(_batch(recipe, dice), tf.constant(step), carried)
        if step % every == 0:
            yield Weights.of({name: getattr(cell, name).numpy() for name in NAMES})


def certified(seed: int) -> tuple[Weights, Certificate]:
    """A model trained until the checker accepts a certificate of four boxes. Raises: RuntimeError."""
    for weights in training(PROVABLE, seed):
        found = finder.find(weights, depths=(0,)).certificate
        if found and checker.check(claims.write(found), weights).proven:
            return weights, found
    raise RuntimeError(f"seed {seed}: no certificate within {PROVABLE.train.steps} steps")


def inward(boxes: Sequence[Box]) -> tuple[np.ndarray, np.ndarray]:
    """(lower, upper) [N, H]: the least and the largest float32 that lie in the boxes, normal or zero.

    A comparison with them in float32 is the comparison with the box's doubles, also where subnormals count as zero.
    """
    return _inward(np.array([box.lower for box in boxes])), -_inward(-np.array([box.upper for box in boxes]))


def corners(lower: np.ndarray, upper: np.ndarray, count: int, dice: np.random.Generator) -> np.ndarray:
    """Corners [C, H] of one box: all of them, or `count` if there are more."""
    units = len(lower)
    if 2**units <= count:
        high = np.arange(2**units)[:, None] >> np.arange(units) & 1
    else:
        high = dice.integers(0, 2, (count, units))
    return np.where(high == 1, upper, lower)


class Watch:
    """Checked steps of one model."""

    def __init__(self, model: Model):
        self.cell = model.cell
        boxes = {(box.state, box.output): box for box in model.certificate.boxes}
        if len(boxes) != len(model.certificate.boxes):
            raise ValueError("there must be one box per label")
        self.lower, self.upper = inward([boxes[label] for label in ADDITION.labels])
        # States never pass -1 or 1, so a state may lie on such a side.
        self.near_lower = np.where(self.lower <= -1, -np.inf, self.lower).astype(np.float32)
        self.near_upper = np.where(self.upper >= 1, np.inf, self.upper).astype(np.float32)
        labels = [[ADDITION.label(state, symbol) for symbol in ADDITION.inputs] for state in ADDITION.states]
        self.into = np.array([[ADDITION.labels.index(label) for label in row] for row in labels], np.int32)
        self.following = np.array([[label[0] for label in row] for row in labels], np.int32)
        self.output = np.array([[label[1] for label in row] for row in labels], bool)

    @tf.function
    def run(self, hidden: tf.Tensor, states: tf.Tensor, words: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """Steps from `hidden` [R, H], which stand for the transducer's `states` [R]; `words` [T, R]: symbols, -1 where
        greed decides.

        Returns:
            Wrong bits [R], states outside of their boxes [R], the least distance to a side [R].
        """
        rows, symbols = hidden.shape[0], len(ADDITION.inputs)
        x = tf.repeat(tf.constant(ADDITION.inputs, tf.float32), rows, axis=0)  # [S R, 2]
        wrong, outside, closest = (
            tf.zeros(rows, tf.int32),
            tf.zeros(rows, tf.int32),
            tf.fill([rows], np.float32(np.inf)),
        )
        for word in words:
            reached = self.cell.step(x, tf.tile(hidden, [symbols, 1]))  # [S R, H]
            into, output = (
                tf.reshape(tf.transpose(tf.gather(table, states)), [-1]) for table in (self.into, self.output)
            )
            lower, upper, near_lower, near_upper = (
                tf.gather(sides, into) for sides in (self.lower, self.upper, self.near_lower, self.near_upper)
            )
            inside = tf.reduce_all((reached >= lower) & (reached <= upper), axis=1)
            gap = tf.reduce_min(tf.minimum(reached - near_lower, near_upper - reached), axis=1)
            gap = tf.reshape(gap, [symbols, rows])
            wrong += _count((self.cell.logit(reached) > 0) != output, symbols)
            outside += _count(~inside, symbols)
            closest = tf.minimum(closest, tf.reduce_min(gap, axis=0))
            chosen = tf.where(word < 0, tf.argmin(gap, axis=0, output_type=tf.int32), word)
            hidden = tf.gather(reached, chosen * rows + tf.range(rows))
            states = tf.gather_nd(self.following, tf.stack([states, chosen], axis=1))
        return wrong, outside, closest


def watch(model: Model, steps: int, dice: np.random.Generator) -> dict[str, Tally]:
    """At least `steps` steps of the model, by kind of row."""
    eye, units, symbols = Watch(model), model.cell.units, len(ADDITION.inputs)
    tallies = {"from corners": _from_corners(eye, dice, steps)}
    rows = max(4, min(ROWS, math.isqrt(steps // symbols) // 4 * 4))
    length = min(ROUND, -(-steps // (rows * symbols)))
    for _ in range(-(-steps // (rows * length * symbols))):
        words, kinds = _words(length, rows, dice)
        hidden, states = np.zeros((rows, units), np.float32), np.full(rows, ADDITION.initial, np.int32)
        for row in np.nonzero(kinds == "greedy from a corner")[0]:
            box = dice.integers(len(ADDITION.labels))
            hidden[row] = corners(eye.lower[box], eye.upper[box], 1, dice)[0]
            states[row] = ADDITION.labels[box][0]
        wrong, outside, closest = (value.numpy() for value in eye.run(hidden, states, words))
        for kind in dict.fromkeys(kinds):
            of = kinds == kind
            tally = Tally(
                int(of.sum()) * length * symbols, int(wrong[of].sum()), int(outside[of].sum()), float(closest[of].min())
            )
            tallies[kind] = tallies.get(kind, Tally()).plus(tally)
    return tallies


def prepared(weights: Weights, certificate: Certificate) -> Model:
    """Raises ValueError if the checker refuses."""
    verdict = checker.check(claims.write(certificate), weights)
    if not verdict.proven:
        raise ValueError(f"not proven: {verdict.reason}")
    cell = GRU(weights.units)
    for name in NAMES:
        getattr(cell, name).assign(np.array(getattr(weights, name), np.float32))
    return Model(cell, certificate, verdict.slack)


def main(arguments: list[str]) -> int:
    """Print a table, a row per kind of step; 1 if a state left its box or a bit was wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.float32_steps", description="Do float32 states leave certified boxes?"
    )
    parser.add_argument("--share", type=float, default=1.0, help=f"share of {STEPS:,} steps (default 1.0)")
    parser.add_argument("--models", type=int, default=3, help="certified models that share the steps (default 3)")
    parser.add_argument("--seed", type=int, default=1, help="seed of the first model and of the words (default 1)")
    options = parser.parse_args(arguments)
    tallies, slacks, begin = {}, [], time.monotonic()
    for seed in range(options.seed, options.seed + options.models):
        model = prepared(*certified(seed))
        slacks.append(model.slack)
        for kind, tally in watch(
            model, round(options.share * STEPS / options.models), np.random.default_rng(seed)
        ).items():
            tallies[kind] = tallies.get(kind, Tally()).plus(tally)
    tallies["all"] = total = functools.reduce(Tally.plus, tallies.values())
    print("| steps | number | closest to a side | outside | wrong bits |\n|---|---|---|---|---|")
    for kind, tally in tallies.items():
        print(f"| {kind} | {tally.steps:,} | {tally.closest:.2e} | {tally.outside:,} | {tally.wrong:,} |")
    print(
        f"\n{options.models} models, the checker's slack from {min(slacks):.2e}; "
        f"{time.monotonic() - begin:.0f} s with their training"
    )
    return int(bool(total.outside or total.wrong))


def _from_corners(eye: Watch, dice: np.random.Generator, steps: int) -> Tally:
    """One step with each symbol from the corners of each box."""
    tally, count = Tally(), min(MAX_CORNERS, steps // 64)
    for (state, _), lower, upper in zip(ADDITION.labels, eye.lower, eye.upper, strict=True):
        hidden = corners(lower, upper, count, dice)
        wrong, outside, closest = eye.run(
            hidden, np.full(len(hidden), state, np.int32), np.zeros((1, len(hidden)), np.int32)
        )
        steps = len(hidden) * len(ADDITION.inputs)
        tally = tally.plus(
            Tally(steps, int(sum(wrong.numpy())), int(sum(outside.numpy())), float(min(closest.numpy())))
        )
    return tally


def _words(length: int, rows: int, dice: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(symbols [T, R], -1 where greed decides; kinds [R]): a quarter of the rows each."""
    symbols = len(ADDITION.inputs)
    structured = structured_words(symbols, length)
    kinds = np.repeat(["random", "structured", "greedy from h_0", "greedy from a corner"], rows // 4)
    words = dice.integers(0, symbols, (rows, length), np.int32)
    words[kinds == "structured"] = dice.permutation(np.resize(structured, (max(rows, len(structured)), length)))[
        : rows // 4
    ]
    # All rows from h_0 would be equal, so each begins with its own random symbols.
    greedy = np.char.startswith(kinds, "greedy")
    words[greedy] = np.where(
        np.arange(length) < dice.integers(0, 1 + length // 4, (int(greedy.sum()), 1)), words[greedy], -1
    )
    return np.ascontiguousarray(words.T), kinds


def _inward(lower: np.ndarray) -> np.ndarray:
    near = lower.astype(np.float32)
    near = np.where(near < lower, np.nextafter(near, np.float32(2)), near)
    return np.where(np.abs(near) < SMALLEST_NORMAL, np.where(near > 0, SMALLEST_NORMAL, np.float32(0)), near)


def _count(happened: tf.Tensor, symbols: int) -> tf.Tensor:
    return tf.reduce_sum(tf.cast(tf.reshape(happened, [symbols, -1]), tf.int32), axis=0)


def _batch(recipe: Recipe, dice: np.random.Generator) -> Batch:
    """Numbers of `bits` bits, and the extra step that outputs the last carry."""
    size = recipe.train.batch_size
    a, b = dice.integers(0, 2**recipe.bits, (2, size, 1))
    bits = (tf.constant(number >> np.arange(recipe.bits + 1) & 1) for number in (a, b, a + b))
    return Batch(*bits, tf.ones([size, recipe.bits + 1]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
