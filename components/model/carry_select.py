"""Parallel in time: a long word is cut into chunks that run side by side, as in a carry-select adder whose block is the
cell.

The first chunk runs from the given state, every other chunk from every state of the transducer (for addition from
carry 0 and from carry 1), all in one batch. One more step per run, with the symbol that flushes the transducer, shows
which state the chunk leads to, and so which run of the next chunk continues it. These pointers are followed from the
first chunk on, twice as far in each round.

For a proven cell this needs no new assumption. A run from state q starts where the cell itself is after a shortest word
that leads the transducer from h_0 to q, computed here step by step: h_0 for carry 0, the state after (1, 1) for carry
1. So every run is a run over a word from h_0 (that word, the chunk, the flush), and by the theorem of
`components.proof.checker` each of its bits is the transducer's, in any batch. An unproven cell may answer differently.

Shapes: B words of N numbers, eight symbols each (`components.model.packed_bits`), in K chunks of C numbers; Q states, H
units.
"""

import dataclasses

import numpy as np
import tensorflow as tf

from components.model.packed_bits import STEPS
from components.model.time_loop import TimeLoop
from components.task.transducer import Symbol, Transducer

# Parallel runs. More of them would not fit into a processor's cache, and each would take longer.
MAX_RUNS = 2048
# With more words, the batch is large enough without chunks: step by step is faster.
MAX_WORDS = 32


@dataclasses.dataclass(frozen=True)
class CarrySelect:
    """Runs up to `MAX_WORDS` words of more than `above` symbols in chunks of at least `chunk` symbols, rounded up to
    numbers.

    Raises:
        ValueError: the outputs of `task` for its flushing symbol do not tell its states apart.
    """

    task: Transducer
    above: int
    chunk: int

    def __post_init__(self) -> None:
        if len(set(self._flushed())) != len(self.task.states):
            raise ValueError(
                f"{self.task.name}: the outputs for {self.task.flush[0]} do not identify the state: {self._flushed()}"
            )

    def applies_to(self, batch: tf.Tensor, steps: tf.Tensor) -> tf.Tensor:
        """Whether `batch` words of `steps` symbols run in chunks, a bool []."""
        return (steps > self.above) & (batch <= MAX_WORDS)

    def run(self, loop: TimeLoop, words: tf.Tensor, state: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The cell's outputs for words [B, N], N >= 1, from `state` [B, H]: (numbers int32 [B, N], state [B, H])."""
        batch, size = tf.unstack(tf.shape(words))
        chunk = self._chunk(batch, size)
        count = -(-size // chunk)
        filled = tf.reshape(tf.pad(words, [[0, 0], [0, count * chunk - size]]), [batch * count, chunk])
        runs = tf.tile(filled, [len(self.task.states), 1])
        # The padding of the last chunk follows all outputs that are read. The state is taken where the words end.
        end = size - (count - 1) * chunk
        numbers, ends = loop.numbers(runs[:, :end], self._starts(loop, state, count))
        rest, after = loop.numbers(runs[:, end:], ends)
        path = _path(self._next(loop, after, batch * count), batch, count)
        written = tf.reshape(tf.gather(tf.concat([numbers, rest], axis=1), path), [batch, count * chunk])
        return written[:, :size], tf.gather(ends, path[:, -1])

    def _chunk(self, batch: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
        """The numbers in a chunk: the fewest that respect both `chunk` and `MAX_RUNS`."""
        max_chunks = tf.maximum(1, MAX_RUNS // tf.maximum(1, len(self.task.states) * batch))
        return tf.maximum(-(-self.chunk // STEPS), -(-size // max_chunks))

    def _starts(self, loop: TimeLoop, state: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
        """The initial states [Q B K, H]: `state` for first chunks, else the cell's state after a shortest word."""
        paths = shortest_words(self.task)
        starts = []
        for origin in self.task.states:
            h = tf.zeros_like(state[:1])
            for symbol in paths[origin]:
                _, h = loop.single_step(symbol, h)
            starts.append(h)
        others = tf.tile(tf.stack(starts)[:, None], [1, tf.shape(state)[0], count - 1, 1])
        first = tf.tile(state[None, :, None], [len(starts), 1, 1, 1])
        return tf.reshape(tf.concat([first, others], axis=2), [-1, state.shape[1]])

    def _next(self, loop: TimeLoop, after: tf.Tensor, chunks: tf.Tensor) -> tf.Tensor:
        """The run that continues each run, int32 [Q B K], from its final state [Q B K, H]; any after a last chunk."""
        # The output for the flushing symbol, 0 or 1, identifies the state.
        state_of_output = np.argsort(self._flushed()).astype(np.int32)
        flushed, _ = loop.single_step(self.task.flush[0], after)
        next_chunk = tf.tile(tf.range(1, chunks + 1), [len(self.task.states)])
        state = tf.gather(state_of_output, tf.cast(flushed > 0, tf.int32))
        return tf.minimum(next_chunk + chunks * state, tf.shape(after)[0] - 1)

    def _flushed(self) -> list[int]:
        """The transducer's output for its flushing symbol in each state."""
        return [self.task.step(state, self.task.flush[0])[0] for state in self.task.states]


def _path(following: tf.Tensor, batch: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    """The runs of each word from its first chunk on, int32 [B, K]; `following` [Q B K] has the run that continues each
    run."""

    def longer(path: tf.Tensor, ahead: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return tf.concat([path, tf.gather(ahead, path)], axis=1), tf.gather(ahead, ahead)

    path, _ = tf.while_loop(
        lambda path, _: tf.shape(path)[1] < count,
        longer,
        (count * tf.range(batch)[:, None], following),
        shape_invariants=(tf.TensorShape([None, None]), tf.TensorShape([None])),
    )
    return path[:, :count]


def shortest_words(task: Transducer) -> dict[int, tuple[Symbol, ...]]:
    """For each reachable state, a shortest word that leads there from the initial state.

    >>> from components.task.transducer import ADDITION
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
