"""Packed bits in the graph: int64 tensors or strings of bytes outside, eight steps per number inside.

`words` are the cell's inputs: int32 [B, N], eight pairs of bits each, pair i in bits 2i (of b) and 2i + 1 (of a): the
index of the pair in `components.task.transducer.PAIRS`. `numbers` are its outputs: int32 [B, N], 0 to 255, bit i for
step i. All are least significant first.
"""

import tensorflow as tf

# Steps of a word or number.
STEPS = 8


def words_of_bits(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    """Words [B, N] of bits int64 [B, T], N = ceil(T / 8); zeros pad the last word."""
    pairs = tf.cast(2 * a + b, tf.int32)
    batch, steps = tf.unstack(tf.shape(pairs))
    count = (steps + STEPS - 1) // STEPS
    filled = tf.reshape(tf.pad(pairs, [[0, 0], [0, count * STEPS - steps]]), [batch, count, STEPS])
    return tf.reduce_sum(filled * [1 << 2 * step for step in range(STEPS)], axis=2)


def words_of_bytes(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    """Words [B, N] of strings [B] of N bytes each."""
    spread = tf.constant([sum((byte >> bit & 1) << 2 * bit for bit in range(STEPS)) for byte in range(256)])
    spread_a, spread_b = (
        tf.gather(spread, tf.cast(tf.io.decode_raw(operand, tf.uint8), tf.int32)) for operand in (a, b)
    )
    return 2 * spread_a + spread_b


def numbers_of_bits(is_one: tf.Tensor) -> tf.Tensor:
    """Numbers [B] of bool [8, B]."""
    return tf.reduce_sum(tf.cast(is_one, tf.int32) * [[1 << step] for step in range(STEPS)], axis=0)


def bits_of_numbers(numbers: tf.Tensor) -> tf.Tensor:
    """Which bits are 1, bool [B, 8 N], of numbers [B, N]."""
    batch, count = tf.unstack(tf.shape(numbers))
    bits = tf.bitwise.bitwise_and(numbers[:, :, None], [1 << step for step in range(STEPS)]) > 0
    return tf.reshape(bits, [batch, STEPS * count])


def strings_of_numbers(numbers: tf.Tensor) -> tf.Tensor:
    """Strings [B] of N bytes each of numbers [B, N]."""
    return tf.strings.reduce_join(tf.gather([bytes([number]) for number in range(256)], numbers), axis=1)
