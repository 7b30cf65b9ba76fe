"""The cell's run over time as it is served: as few operations per step as TensorFlow's executor needs for it.

An operation on a few numbers costs the executor half a microsecond, whatever it computes, so what counts is their
number. A turn of the loop takes eight steps, for which one operation each reads, looks up and hands out all inputs; the
input's part of a gate is one of four rows, made once a run from the weights; the logits of eight states are one
product. What comes in and goes out is packed, eight steps a number, so that a long word takes little more room than the
states of a turn.

What was measured and is not here: one product for z and r together (its result has to be split, for which a wide batch
takes nearly twice the time; a narrow one gains a twentieth); sigmoid and tanh fused into the products (a narrow batch
takes nearly thrice the time, a wide one as long as before; and nobody would have measured those kernels:
`components.model.activation_sweep`). So no bias is added right after a product, which TensorFlow would fuse.

Shapes: B words side by side, N numbers a word, of eight steps each; H units.
"""

import copy
from collections.abc import Callable

import tensorflow as tf

from components.model import packed_bits
from components.model.gru import GRU, PAIRS
from components.model.packed_bits import STEPS
from components.proof.weights import NAMES


class TimeLoop:
    """The run over time of `cell`, in the graph that is being made."""

    def __init__(self, cell: GRU):
        self._cell = _read(cell)
        self._table = _table(self._cell)

    def logits(self, words: tf.Tensor, state: tf.Tensor, count: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The logits float32 [B, T] of the first `count` = T steps of `words` int32 [B, N], N = ceil(T / 8), and the
        state after them."""
        batch, turns = tf.unstack(tf.shape(words))
        logits, states = self._run(words, state, turns, lambda logits: logits, tf.zeros([STEPS, batch]))
        by_step = tf.reshape(logits, [STEPS * (turns + 1), batch])
        return tf.transpose(by_step[STEPS : STEPS + count]), tf.gather(states, (count - 1) % STEPS)

    def numbers(self, words: tf.Tensor, state: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """What the cell writes for `words` int32 [B, N] from `state` [B, H]: (numbers int32 [B, N], the state [B, H]
        after them)."""
        batch, turns = tf.unstack(tf.shape(words))

        def keep(logits: tf.Tensor) -> tf.Tensor:
            return packed_bits.numbers_of_bits(logits > 0)

        numbers, states = self._run(words, state, turns, keep, tf.zeros([batch], tf.int32))
        # Transposed as floats, as oneDNN writes an error into the log on processors for which it cannot transpose
        # integers.
        return tf.cast(tf.transpose(tf.cast(numbers[1:], tf.float32)), tf.int32), states[-1]

    def single_step(self, pair: tuple[int, int], state: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """One more pair of bits, the same for all: (logits [B], state [B, H])."""
        rows = [[len(PAIRS) * gate + PAIRS.index(pair)] for gate in range(3)]
        # The row of a gate once for each word: TensorFlow would fuse a single one with the product, as a bias.
        inputs = tf.gather(self._table, tf.tile(rows, [1, tf.shape(state)[0]]))
        state = self._cell.advance(*tf.unstack(inputs), state)
        return self._logits(state, [-1]), state

    def _run(
        self,
        words: tf.Tensor,
        state: tf.Tensor,
        turns: tf.Tensor,
        keep: Callable[[tf.Tensor], tf.Tensor],
        none: tf.Tensor,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """What is kept of the logits [8, B] of each turn, after `none`: [N + 1, ...]; and the states of the last turn,
        [8, B, H]."""
        # An element before all others, so that the stack has a shape even for N = 0.
        kept = tf.TensorArray(none.dtype, turns + 1).write(0, none)

        def turn(index: tf.Tensor, h: tf.Tensor, _: tf.Tensor, kept: tf.TensorArray) -> tuple:
            states = []
            for inputs in self._inputs(tf.gather(words, index, axis=1)):
                h = self._cell.advance(*inputs, h)
                states.append(h)
            states = tf.stack(states)
            index += 1
            return index, h, states, kept.write(index, keep(self._logits(states, [STEPS, -1])))

        begin = 0, state, tf.stack([state] * STEPS), kept
        one = [None, self._cell.units]
        shapes = tf.TensorShape([]), tf.TensorShape(one), tf.TensorShape([STEPS, *one]), None
        _, _, states, kept = tf.while_loop(lambda index, *_: index < turns, turn, begin, shape_invariants=shapes)
        return kept.stack(), states

    def _inputs(self, words: tf.Tensor) -> list[tuple[tf.Tensor, ...]]:
        """What the input adds to z, r and the candidate, three of [B, H] for each of 8 steps, of words int32 [B]."""
        shifts = [[[2 * step]] for step in range(STEPS)]
        symbols = tf.bitwise.bitwise_and(tf.bitwise.right_shift(words, shifts), 3)  # [8, 1, B]
        rows = tf.gather(self._table, symbols + [[len(PAIRS) * gate] for gate in range(3)])
        every = tf.unstack(tf.reshape(rows, [3 * STEPS, -1, self._cell.units]))
        return [tuple(every[3 * step : 3 * step + 3]) for step in range(STEPS)]

    def _logits(self, states: tf.Tensor, shape: list[int]) -> tf.Tensor:
        """Of states [..., H], in the given shape."""
        # The bias is added to another shape than the product's, which keeps TensorFlow from fusing the two.
        return tf.reshape(tf.reshape(states, [-1, self._cell.units]) @ self._cell.W_o, shape) + self._cell.b_o


def _read(cell: GRU) -> GRU:
    """The cell with the values of its variables: a loop would read these in each of its steps."""
    read = copy.copy(cell)
    vars(read).update({name: tf.convert_to_tensor(getattr(cell, name)) for name in NAMES})
    return read


def _table(cell: GRU) -> tf.Tensor:
    """What each pair of bits, in the order of `PAIRS`, adds to z, to r and to the candidate: [12, H]."""
    weights = tf.stack([cell.W_z, cell.W_r, cell.W_h], axis=1)  # [2, 3, H]
    neither = tf.stack([cell.b_z, cell.b_r, cell.b_h])
    of_a, of_b = tf.unstack(weights)
    with_a = neither + of_a
    return tf.reshape(tf.stack([neither, neither + of_b, with_a, with_a + of_b], axis=1), [12, cell.units])
