"""The search for two numbers that a model gets wrong: structured words, run in float32 in one batch.

Random words hardly ever expose a model that looks right; runs, short periods and carries after long runs do. A hit is
only a candidate until the exported model itself gives the wrong answer. A search without a hit proves nothing.

Shapes: N words, T steps, S symbols, H units.
"""

import itertools
import math
import time
from typing import Any, NamedTuple

import numpy as np

from components.proof.weights import NAMES, Weights
from components.task.addition import from_bits
from components.task.transducer import ADDITION, Transducer

# Steps between two checks of the outputs and the clock.
CHUNK = 64
RANDOM_WORDS = 64

_Array = np.ndarray[Any, Any]


class Counterexample(NamedTuple):
    """Operands, and the position (from 0) of the first wrong output when they are fed and flushed."""

    a: int
    b: int
    position: int


def search(
    weights: Weights,
    task: Transducer = ADDITION,
    *,
    length: int = 4096,
    max_length: int = 2**18,
    seconds: float = math.inf,
    seed: int = 0,
) -> Counterexample | None:
    """Two numbers that the cell gets wrong, or None if the search finds none within `seconds`.

    It tries many words of `length` symbols, then a few of `max_length`, for errors that appear only after many steps.
    For a task that is read at the last step, only the output of a flushing step counts.

    Raises:
        ValueError: the weights have a `problem`, or the task does not read pairs.
    """
    if problem := weights.problem():
        raise ValueError(problem)
    if not weights.bits == len(task.inputs[0]) == 2:
        raise ValueError("weights and task must read pairs of bits")
    deadline = time.monotonic() + seconds
    for words in (structured_words(len(task.inputs), length, seed), long_words(len(task.inputs), max_length)):
        hit = _first_wrong(weights, task, words, deadline)
        if hit:
            return _operands(task, words[hit[0], : hit[1] + 1], hit[1])
    return None


def structured_words(symbols: int, length: int, seed: int = 0) -> _Array:
    """Words as indices of symbols, uint8 [N, length]: short periods, also after one other symbol, changing runs, random
    words."""
    prefixes = [(), *((symbol,) for symbol in range(symbols))]
    short = [period for size in (1, 2, 3) for period in itertools.product(range(symbols), repeat=size)]
    words = [_repeated(prefix, period, length) for prefix in prefixes for period in short]
    words += [_repeated((), period, length) for period in itertools.product(range(symbols), repeat=4)]
    for run, first, second, tail in itertools.product(range(symbols), repeat=4):
        words.append(_repeated((run,) * (length // 2) + (first, second), (tail,), length))
    random = np.random.default_rng(seed).integers(0, symbols, (RANDOM_WORDS, length), np.uint8)
    return np.concatenate([np.unique(np.array(words, np.uint8), axis=0), random])


def long_words(symbols: int, length: int) -> _Array:
    """A few words, uint8 [N, length]: each symbol repeated, also after one other symbol, and the periods of two
    symbols."""
    words = [_repeated((first,), (symbol,), length) for first in range(symbols) for symbol in range(symbols)]
    words += [_repeated((), pair, length) for pair in itertools.combinations(range(symbols), 2)]
    return np.stack(words)


def _repeated(prefix: tuple[int, ...], period: tuple[int, ...], length: int) -> _Array:
    repeats = -(-length // len(period))
    return np.concatenate([np.array(prefix, np.uint8), np.tile(np.array(period, np.uint8), repeats)])[:length]


def _first_wrong(weights: Weights, task: Transducer, words: _Array, deadline: float) -> tuple[int, int] | None:
    """(word, position) of the earliest wrong output, None without one before the deadline."""
    cell = _Cell(weights, task)
    hidden, states = np.zeros((len(words), weights.units), np.float32), np.full(len(words), task.initial)
    for begin in range(0, words.shape[1], CHUNK):
        wrong = []
        for symbols in words[:, begin : begin + CHUNK].T:
            hidden, bits = cell.step(hidden, symbols)
            wrong.append((bits != cell.outputs[states, symbols]) & cell.counts[symbols])
            states = cell.following[states, symbols]
        steps, rows = np.nonzero(wrong)
        if len(steps):
            return int(rows[0]), begin + int(steps[0])
        if time.monotonic() > deadline:
            return None
    return None


class _Cell:
    """The cell in numpy float32, and the table of the transducer."""

    def __init__(self, weights: Weights, task: Transducer):
        arrays = {name: np.array(getattr(weights, name), np.float32) for name in NAMES}
        symbols = np.array(task.inputs, np.float32)
        self.inputs = [symbols @ arrays[f"W_{gate}"] + arrays[f"b_{gate}"] for gate in "zrh"]
        self.update, self.reset, self.candidate = (arrays[f"U_{gate}"] for gate in "zrh")
        self.head, self.bias = arrays["W_o"][:, 0], arrays["b_o"][0]
        shape = max(task.states) + 1, len(task.inputs)
        self.outputs, self.following = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        for state, symbol, output, following in task.table:
            self.outputs[state, task.inputs.index(symbol)] = output
            self.following[state, task.inputs.index(symbol)] = following
        self.counts = np.array([task.reading != "last" or symbol == task.flush[-1] for symbol in task.inputs])

    def step(self, hidden: _Array, symbols: _Array) -> tuple[_Array, _Array]:
        """(states float32 [N, H], bits bool [N]) after `symbols` [N]."""
        x_z, x_r, x_h = (projected[symbols] for projected in self.inputs)
        z, r = _sigmoid(x_z + hidden @ self.update), _sigmoid(x_r + hidden @ self.reset)
        t = np.tanh(x_h + (r * hidden) @ self.candidate)
        following = (1 - z) * hidden + z * t
        return following, following @ self.head + self.bias > 0


def _sigmoid(x: _Array) -> _Array:
    with np.errstate(over="ignore"):
        sigmoid: _Array = 1 / (1 + np.exp(-x))
    return sigmoid


def _operands(task: Transducer, word: _Array, position: int) -> Counterexample:
    pairs = [task.inputs[index] for index in word]
    if task.reading == "last":
        # The flushing step is not part of the numbers.
        pairs.pop()
    elif not any(pairs[-1]):
        # The numbers must be long enough for the wrong bit; later bits do not change earlier outputs.
        pairs.append((1, 0))
    return Counterexample(from_bits(pair[0] for pair in pairs), from_bits(pair[1] for pair in pairs), position)
