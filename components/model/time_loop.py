"""The cell's run over time as it is served, with as few operations per step as possible.

A small operation costs TensorFlow's executor half a microsecond whatever it computes, so only their number matters. An
iteration of the loop takes eight steps: one operation each reads, looks up and distributes all their inputs. The
input's part of a gate is one of four rows, computed once per run from the weights; one product gives the logits of
eight states. Inputs and outputs are packed, eight steps per number, so that a long word takes little more memory than
the states of one iteration.

Measured and rejected: one product for z and r together (its result has to be split: a wide batch takes nearly twice the
time, a narrow one saves a twentieth); sigmoid and tanh fused into the products (a narrow batch takes nearly three times
as long, a wide one the same; and `components.model.activation_sweep` does not measure those kernels). Therefore no bias
is added right after a product, which TensorFlow would fuse.

Shapes: B parallel words of N numbers, eight steps each; H units.
"""

import copy
from collections.abc import Callable

import tensorflow as tf

from components.model import packed_bits
from components.model.gru import GRU
from components.model.packed_bits import STEPS
from components.proof.weights import NAMES
from components.task.transducer import PAIRS, Symbol


class TimeLoop:
    """The run over time of `cell`, in the graph under construction."""

    def __init__(self, cell: GRU):
        self._cell = _read(cell)
        self._table = _table(self._cell)

    def logits(self, words: tf.Tensor, state: tf.Tensor, count: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The logits float32 [B, T] of the first `count` = T steps of `words` int32 [B, N], N = ceil(T / 8), and the
        state after them."""
        batch, numbers = tf.unstack(tf.shape(words))
        logits, states = self._run(words, state, numbers, lambda logits: logits, tf.zeros([STEPS, batch]))
        by_step = tf.reshape(logits, [STEPS * (numbers + 1), batch])
        return tf.transpose(by_step[STEPS : STEPS + count]), tf.gather(states, (count - 1) % STEPS)

    def numbers(self, words: tf.Tensor, state: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The cell's outputs for `words` int32 [B, N] from `state` [B, H]: (numbers int32 [B, N], the state [B, H]
        after them)."""
        batch, count = tf.unstack(tf.shape(words))

        def keep(logits: tf.Tensor) -> tf.Tensor:
            return packed_bits.numbers_of_bits(logits > 0)

        numbers, states = self._run(words, state, count, keep, tf.zeros([batch], tf.int32))
        # Transposed as floats: on some processors oneDNN cannot transpose integers and logs an error.
        return tf.cast(tf.transpose(tf.cast(numbers[1:], tf.float32)), tf.int32), states[-1]

    def single_step(self, pair: Symbol, state: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """One more step, with the same pair of bits for all words: (logits [B], state [B, H])."""
        rows = [[len(PAIRS) * gate + PAIRS.index(pair)] for gate in range(3)]
        # Each word gets its own row of a gate: TensorFlow would fuse a single row with the product, as a bias.
        inputs = tf.gather(self._table, tf.tile(rows, [1, tf.shape(state)[0]]))
        x_z, x_r, x_h = tf.unstack(inputs)
        state = self._cell.advance(x_z, x_r, x_h, state)
        return self._logits(state, [-1]), state

    def _run(
        self,
        words: tf.Tensor,
        state: tf.Tensor,
        count: tf.Tensor,
        keep: Callable[[tf.Tensor], tf.Tensor],
        none: tf.Tensor,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """`keep` of the logits [8, B] of each iteration, after `none`: [N + 1, ...]; and the last iteration's states,
        [8, B, H]."""
        # An extra first element gives the stack a shape even for N = 0.
        kept = tf.TensorArray(none.dtype, count + 1).write(0, none)

        def iteration(index: tf.Tensor, h: tf.Tensor, _: tf.Tensor, kept: tf.TensorArray) -> tuple:
            states = []
            for x_z, x_r, x_h in self._inputs(tf.gather(words, index, axis=1)):
                h = self._cell.advance(x_z, x_r, x_h, h)
                states.append(h)
            states = tf.stack(states)
            index += 1
            return index, h, states, kept.write(index, keep(self._logits(states, [STEPS, -1])))

        begin = 0, state, tf.stack([state] * STEPS), kept
        shape = [None, self._cell.units]
        shapes = tf.TensorShape([]), tf.TensorShape(shape), tf.TensorShape([STEPS, *shape]), None
        _, _, states, kept = tf.while_loop(lambda index, *_: index < count, iteration, begin, shape_invariants=shapes)
        return kept.stack(), states

    def _inputs(self, words: tf.Tensor) -> list[tuple[tf.Tensor, ...]]:
        """The input's parts of z, r and the candidate, three of [B, H] for each of 8 steps, for words int32 [B]."""
        shifts = [[[2 * step]] for step in range(STEPS)]
        symbols = tf.bitwise.bitwise_and(tf.bitwise.right_shift(words, shifts), 3)  # [8, 1, B]
        rows = tf.gather(self._table, symbols + [[len(PAIRS) * gate] for gate in range(3)])
        parts = tf.unstack(tf.reshape(rows, [3 * STEPS, -1, self._cell.units]))
        return [tuple(parts[3 * step : 3 * step + 3]) for step in range(STEPS)]

    def _logits(self, states: tf.Tensor, shape: list[int]) -> tf.Tensor:
        """The logits of states [..., H], in the given shape."""
        # The reshape between product and bias keeps TensorFlow from fusing the two.
        return tf.reshape(tf.reshape(states, [-1, self._cell.units]) @ self._cell.W_o, shape) + self._cell.b_o


def _read(cell: GRU) -> GRU:
    """The cell with the values of its variables, which a loop would otherwise read in each step."""
    read = copy.copy(cell)
    # Not with setattr, which would change the tracking that the copy shares with the cell.
    read.__dict__.update({name: tf.convert_to_tensor(getattr(cell, name)) for name in NAMES})
    return read


def _table(cell: GRU) -> tf.Tensor:
    """The part of each pair of bits, in the order of `PAIRS`, in z, r and the candidate: [12, H]."""
    weights = tf.stack([cell.W_z, cell.W_r, cell.W_h], axis=1)  # [2, 3, H]
    neither = tf.stack([cell.b_z, cell.b_r, cell.b_h])
    of_a, of_b = tf.unstack(weights)
    with_a = neither + of_a
    return tf.reshape(tf.stack([neither, neither + of_b, with_a, with_a + of_b], axis=1), [12, cell.units])
