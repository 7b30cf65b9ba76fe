"""Parallel in time: a long word is cut into chunks that run side by side, as in a carry-select adder whose block is the cell.

Each chunk runs from every state of the transducer (for addition from carry 0 and from carry 1), all in one batch. One more
step per run, with the symbol that flushes the transducer, says which state the chunk leads to; then, chunk by chunk, the run
is taken whose first state is the one that the chunk before led to.

For a cell that is proven this needs no new assumption. A run from state q starts where the cell itself is after a shortest
word that leads the transducer from h_0 to q, computed here step by step: h_0 for carry 0, the state after (1, 1) for carry 1.
So every run is a run over a word from h_0 (that word, the chunk, the flush), and by the theorem of `components.checker` each
of its bits is the transducer's, whatever the batch that it runs in. For a cell that is not proven it is a gamble.

Shapes: B words of T symbols in K chunks of C, Q states, H units.
"""

import dataclasses

import numpy as np
import tensorflow as tf

from components.gru import GRU
from components.transducer import Symbol, Transducer


@dataclasses.dataclass(frozen=True)
class CarrySelect:
    """Words of more than `above` symbols run in chunks of `chunk` symbols.

    Raises:
        ValueError: what `task` writes for its flushing symbol does not tell its states apart.
    """

    task: Transducer
    above: int
    chunk: int

    def __post_init__(self):
        if len(set(self._flushed())) != len(self.task.states):
            raise ValueError(f"{self.task.name}: the outputs for {self.task.flush[0]} do not tell its states apart: {self._flushed()}")

    def decide(self, cell: GRU, a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
        """Whether `cell` writes a 1, from h_0, for each pair of a, b: int64 [B, T], T >= 1 -> bool [B, T]."""
        batch, steps = tf.unstack(tf.shape(a))
        count = -(-steps // self.chunk)
        symbols = (self._runs(operand, batch * count, position) for position, operand in enumerate((a, b)))
        logits, _ = cell.run(*symbols, tf.repeat(self._starts(cell), batch * count, axis=0))
        logits = tf.transpose(tf.reshape(logits, [-1, batch, count, self.chunk + 1]), [2, 1, 0, 3])  # [K, B, Q, C + 1]
        chosen = tf.gather(logits[..., :-1], self._entered(logits[..., -1] > 0), batch_dims=2)
        return tf.reshape(tf.transpose(chosen, [1, 0, 2]), [batch, count * self.chunk])[:, :steps] > 0

    def _runs(self, operand: tf.Tensor, chunks: tf.Tensor, position: int) -> tf.Tensor:
        """[B, T] -> [Q B K, C + 1]: all chunks, with the flushing symbol after each, once for each state."""
        # What fills up the last chunk comes after all that is read.
        filled = tf.pad(operand, [[0, 0], [0, -tf.shape(operand)[1] % self.chunk]])
        flushed = tf.pad(tf.reshape(filled, [chunks, self.chunk]), [[0, 0], [0, 1]], constant_values=self.task.flush[0][position])
        return tf.tile(flushed, [len(self.task.states), 1])

    def _starts(self, cell: GRU) -> tf.Tensor:
        """Where the cell is after a shortest word to each state of the transducer: [Q, H]."""
        words = shortest_words(self.task)
        starts = []
        for state in self.task.states:
            h = cell.start(1)
            for symbol in words[state]:
                h = cell.step(tf.constant([symbol], tf.float32), h)
            starts.append(h)
        return tf.concat(starts, axis=0)

    def _entered(self, flushed: tf.Tensor) -> tf.Tensor:
        """The index of the state in which each chunk is entered, int32 [K, B], of the bits [K, B, Q] that the runs' flushes wrote."""
        told = np.argsort(self._flushed()).astype(np.int32)
        following = tf.gather(told, tf.cast(flushed, tf.int32))
        first = tf.fill(tf.shape(flushed)[1:2], self.task.states.index(self.task.initial))
        left = tf.scan(lambda state, runs: tf.gather(runs, state, batch_dims=1), following, initializer=first)
        return tf.concat([first[None], left[:-1]], axis=0)

    def _flushed(self) -> list[int]:
        """What the transducer writes for its flushing symbol in each state."""
        return [self.task.step(state, self.task.flush[0])[0] for state in self.task.states]


def shortest_words(task: Transducer) -> dict[int, tuple[Symbol, ...]]:
    """For each state that can be reached, a shortest word that leads there from the initial state.

    >>> from components.transducer import ADDITION
    >>> shortest_words(ADDITION)
    {0: (), 1: ((1, 1),)}
    """
    words: dict[int, tuple[Symbol, ...]] = {task.initial: ()}
    waiting = [task.initial]
    for state in waiting:
        for symbol in task.inputs:
            _, following = task.step(state, symbol)
            if following not in words:
                words[following] = (*words[state], symbol)
                waiting.append(following)
    return words
