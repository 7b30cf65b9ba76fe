"""Chunks side by side against the cell step by step and Python's integers; and that nothing else runs in chunks."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from components.model import bomb, carry_select, export, packed_bits
from components.model.carry_select import CarrySelect, shortest_words
from components.model.time_loop import TimeLoop
from components.task.addition import from_bits
from components.task.transducer import ADDITION, COMPARISON, SUBTRACTION, TASKS
from tests.support import certified
from tests.support.cells import cell_of

CHUNK, ABOVE = 8, 20


def exported(directory, cell, parallel):
    export.save(cell, str(directory), parallel)
    model = tf.saved_model.load(str(directory))
    # A signature lives as long as the model that it is of.
    return lambda name, **inputs: model.signatures[name](**inputs)


@pytest.fixture(scope="module")
def in_chunks(tmp_path_factory):
    parallel = CarrySelect(ADDITION, ABOVE, CHUNK)
    return exported(tmp_path_factory.mktemp("chunks") / "model", cell_of(), parallel)


def operands(length):
    """Random bits, a carry out of the first bit through all others, and one that ends in the middle: int64 [3, T]
    twice."""
    a, b = np.random.default_rng(length).integers(0, 2, (2, 3, length))
    b[1:] = 1 - a[1:]
    a[1:, 0] = b[1:, 0] = 1
    a[2, length // 2] = b[2, length // 2] = 0
    return a, b


def test_only_numbers_above_the_length_run_in_chunks(tmp_path):
    """A unit that creeps towards a threshold makes the cell wrong after about 16 steps; runs over chunks of 8 are
    shorter."""
    bombed = cell_of(bomb.with_creeping_unit(certified.weights(), -4.2, 40.0))
    run = exported(tmp_path / "model", bombed, CarrySelect(ADDITION, ABOVE, CHUNK))
    for length, right in ((ABOVE, False), (ABOVE + 1, True), (200, True)):
        zeros = tf.zeros([1, length], tf.int64)
        assert (not np.any(run("add_bits", a=zeros, b=zeros)["sum"])) == right


def test_bits_are_refused_before_any_chunk_runs(in_chunks):
    bits = np.zeros((1, 50), np.int64)
    with pytest.raises(tf.errors.InvalidArgumentError, match="must be 0 or 1"):
        in_chunks("add_bits", a=tf.constant(bits + 2), b=tf.constant(bits))


class Table:
    """A loop whose cell is the transducer itself: its state is the last (next state, output), and its logit says the
    output."""

    def __init__(self, task):
        self.task = task

    def single_step(self, pair, state):
        labels = [self.task.label(int(row[0]), pair) for row in state.numpy()]
        logits = [2.0 * output - 1 for _, output in labels]
        return tf.constant(logits), tf.constant(labels, tf.float32)

    def numbers(self, words, state):
        labels, written = [(int(row[0]), int(row[1])) for row in state.numpy()], []
        for word in words.numpy().T:
            numbers = [0] * len(labels)
            for place in range(8):
                labels = [
                    self.task.label(label[0], pair) for label, pair in zip(labels, pairs_of(word, place), strict=True)
                ]
                numbers = [number + (output << place) for number, (_, output) in zip(numbers, labels, strict=True)]
            written.append(numbers)
        return tf.constant(np.reshape(written, [-1, len(labels)]).T, tf.int32), tf.constant(
            np.reshape(labels, [-1, 2]), tf.float32
        )


def pairs_of(words, place):
    return [(int(word) >> 2 * place + 1 & 1, int(word) >> 2 * place & 1) for word in words]


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
@pytest.mark.parametrize("size", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("first", [0, 1])
def test_every_task_can_run_in_chunks_from_every_state(task, size, first):
    a, b = np.random.default_rng(size).integers(0, 2, (2, 8, 8 * size))
    # Long runs of equal bits hand a borrow, or a verdict, through several chunks.
    a[4:, 1:] = b[4:, 1:]
    words = packed_bits.words_of_bits(tf.constant(a), tf.constant(b))
    for chunk in (8, 16):
        state = tf.constant([[first, 0.0]] * 8)
        numbers, state = CarrySelect(task, 0, chunk).run(Table(task), words, state)
        bits = packed_bits.bits_of_numbers(numbers).numpy().astype(int).tolist()
        assert bits == [task.outputs(zip(*row, strict=True), first) for row in zip(a, b, strict=True)]
        following = [task.step(label[0], (0, 0)) for label in state.numpy().astype(int)]
        assert following == [
            task.step(after(task, zip(*row, strict=True), first), (0, 0)) for row in zip(a, b, strict=True)
        ]


def after(task, symbols, state):
    for symbol in symbols:
        _, state = task.step(state, symbol)
    return state


@pytest.mark.parametrize("copies", [1, 50, 300, 400])
def test_sums_do_not_depend_on_the_number_of_runs(copies):
    """Two for each row, of at most carry_select.MAX_RUNS: the chunks grow with the batch."""
    a, b = (np.tile(bits, (copies, 1)) for bits in operands(8 * 13))
    words = packed_bits.words_of_bits(tf.constant(a), tf.constant(b))
    numbers, _ = CarrySelect(ADDITION, 0, 8).run(TimeLoop(cell_of()), words, tf.zeros([3 * copies, 8]))
    totals = [int.from_bytes(bytes(row), "little") for row in numbers.numpy().astype(np.uint8)]
    assert totals == [(from_bits(x) + from_bits(y)) % 2 ** (8 * 13) for x, y in zip(a, b, strict=True)]


def test_many_words_go_step_by_step():
    parallel = CarrySelect(ADDITION, ABOVE, CHUNK)
    shapes = [(1, ABOVE), (1, ABOVE + 1), (carry_select.MAX_WORDS, 1000), (carry_select.MAX_WORDS + 1, 1000)]
    assert [bool(parallel.applies_to(*map(tf.constant, shape))) for shape in shapes] == [False, True, True, False]


def test_shortest_words_lead_to_their_states():
    assert {task.name: shortest_words(task) for task in (ADDITION, SUBTRACTION, COMPARISON)} == {
        "addition": {0: (), 1: ((1, 1),)},
        "subtraction": {0: (), 1: ((0, 1),)},
        "comparison": {0: (), 1: ((1, 0),)},
    }


def test_a_task_with_states_that_the_flush_does_not_identify_is_refused():
    rows = tuple((state, symbol, 0, 1 - state) for state in (0, 1) for symbol in ADDITION.inputs)
    with pytest.raises(ValueError, match=r"mute: the outputs for .* do not identify the state"):
        CarrySelect(dataclasses.replace(ADDITION, name="mute", table=rows), 1, 1)
