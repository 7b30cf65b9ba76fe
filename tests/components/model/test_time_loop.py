"""The loop that is served against the cell step by step; bits in words and numbers against Python's integers."""

import numpy as np
import pytest
import tensorflow as tf

from components.model import packed_bits
from components.model.time_loop import TimeLoop
from tests.support.cells import cell_of

pytestmark = pytest.mark.fast

# The products of a batch are summed in another order than those of a single row.
TOLERANCE = 2e-6


@pytest.fixture(scope="module")
def cell():
    return cell_of()


def operands(batch, steps):
    return np.random.default_rng(steps).integers(0, 2, (2, batch, steps))


@pytest.fixture(scope="module")
def traced(cell):
    """The loop and the cell step by step, each traced once: a trace takes far longer than a run."""
    words, bits = tf.TensorSpec([None, None], tf.int32), tf.TensorSpec([None, None], tf.int64)
    start, steps = tf.TensorSpec([None, cell.units], tf.float32), tf.TensorSpec([], tf.int32)
    loop = tf.function(
        lambda words, h, steps: TimeLoop(cell).logits(words, h, steps), input_signature=[words, start, steps]
    )
    numbers = tf.function(lambda words, h: TimeLoop(cell).numbers(words, h), input_signature=[words, start])
    return loop, numbers, tf.function(lambda a, b, h: cell.run(a, b, h), input_signature=[bits, bits, start])


@pytest.mark.parametrize("steps", [0, 1, 7, 8, 9, 15, 16, 17, 40])
@pytest.mark.parametrize("batch", [0, 1, 5])
def test_logits_and_state_are_those_of_the_cell_step_by_step(cell, traced, batch, steps):
    loop, _, step_by_step = traced
    a, b = operands(batch, steps)
    start = np.random.default_rng(batch).uniform(-1, 1, (batch, cell.units)).astype(np.float32)
    logits, state = loop(
        packed_bits.words_of_bits(tf.constant(a), tf.constant(b)), tf.constant(start), tf.constant(steps)
    )
    expected_logits, expected = step_by_step(tf.constant(a), tf.constant(b), tf.constant(start))
    assert logits.shape == (batch, steps) and state.shape == (batch, cell.units)
    np.testing.assert_allclose(state, expected, rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(logits, expected_logits, rtol=0, atol=20 * TOLERANCE)


@pytest.mark.parametrize("pair", [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_one_pair_is_one_step(cell, pair):
    start = np.random.default_rng(1).uniform(-1, 1, (3, cell.units)).astype(np.float32)
    logits, state = TimeLoop(cell).single_step(pair, tf.constant(start))
    expected = cell.step(tf.constant([pair] * 3, tf.float32), start)
    np.testing.assert_allclose(state, expected, rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(logits, cell.logit(expected), rtol=0, atol=20 * TOLERANCE)


@pytest.mark.parametrize("size", [0, 1, 2, 9])
def test_numbers_are_the_signs_of_the_logits(cell, traced, size):
    loop, numbers_of, _ = traced
    a, b = operands(4, 8 * size)
    words, start = packed_bits.words_of_bits(a, b), tf.zeros([4, cell.units])
    numbers, state = numbers_of(words, start)
    logits, expected = loop(words, start, tf.constant(8 * size))
    assert numbers.shape == (4, size)
    np.testing.assert_array_equal(state, expected)
    np.testing.assert_array_equal(packed_bits.bits_of_numbers(numbers), logits > 0)


def test_the_order_of_pairs_in_a_word():
    # Pair i is (a, b) = (1, 1), (1, 0), (0, 1), (0, 0): 3 + 2 * 4 + 1 * 16 + 0.
    word = 3 + 2 * 4 + 1 * 16
    bits = packed_bits.words_of_bits(tf.constant([[1, 1, 0, 0]], tf.int64), tf.constant([[1, 0, 1, 0]], tf.int64))
    assert bits.numpy().tolist() == packed_bits.words_of_bytes([b"\x03"], [b"\x05"]).numpy().tolist() == [[word]]


@pytest.mark.parametrize("size", [1, 2, 31])
def test_bytes_are_the_bits_of_the_integer(size):
    dice = np.random.default_rng(size)
    a, b = ([dice.bytes(size) for _ in range(3)] for _ in "ab")
    as_bits = [
        [[int.from_bytes(row, "little") >> place & 1 for place in range(8 * size)] for row in rows] for rows in (a, b)
    ]
    words = packed_bits.words_of_bytes(a, b)
    np.testing.assert_array_equal(words, packed_bits.words_of_bits(*(tf.constant(rows, tf.int64) for rows in as_bits)))
    numbers = tf.constant([list(row) for row in a])
    assert packed_bits.strings_of_numbers(numbers).numpy().tolist() == a
    assert packed_bits.bits_of_numbers(numbers).numpy().astype(int).tolist() == as_bits[0]
    by_place = tf.constant(as_bits[0])[:, :8]
    assert packed_bits.numbers_of_bits(tf.transpose(by_place) > 0).numpy().tolist() == [row[0] for row in a]
