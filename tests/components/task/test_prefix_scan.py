"""Whole words at once, against the table step by step and against Python's integers."""

import dataclasses
import doctest
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.task import prefix_scan, transducer
from components.task.prefix_scan import outputs, outputs_of_rows
from components.task.transducer import ADDITION, PAIRS, TASKS

pytestmark = pytest.mark.fast

numbers = st.integers(0, 2**300 - 1)

# A word mod 3, as the number of ones in b's places minus that of a's: three states, and symbols that permute them all.
ROTATION = dataclasses.replace(
    ADDITION,
    name="rotation",
    states=(0, 1, 2),
    initial=1,
    table=tuple(
        (state, pair, (state + pair[0]) % 2, (state + pair[1] - pair[0]) % 3) for state in (0, 1, 2) for pair in PAIRS
    ),
)


def stepwise(task, a, b, count):
    written = task.outputs([(a >> place & 1, b >> place & 1) for place in range(count)])
    return sum(bit << place for place, bit in enumerate(written))


def test_examples_in_the_documentation():
    assert doctest.testmod(transducer).failed == doctest.testmod(prefix_scan).failed == 0


@given(numbers, numbers, st.integers(1, 310))
def test_addition_and_subtraction_are_those_of_python(a, b, count):
    assert outputs(TASKS["addition"], a, b, count) == (a + b) % 2**count
    assert outputs(TASKS["subtraction"], a, b, count) == (a - b) % 2**count


@given(numbers, numbers)
def test_a_comparison_is_right_at_every_position(a, b):
    found = outputs(TASKS["comparison"], a, b, 301)
    assert [found >> place & 1 for place in range(301)] == [
        a % 2 ** (place + 1) > b % 2 ** (place + 1) for place in range(301)
    ]


@pytest.mark.parametrize("task", [*TASKS.values(), ROTATION], ids=lambda task: task.name)
def test_every_table_is_followed(task):
    draw = random.Random(1)
    for count in [*range(1, 40), 63, 64, 65, 255, 256, 257, 1000]:
        a, b = draw.getrandbits(count), draw.getrandbits(count)
        assert outputs(task, a, b, count) == stepwise(task, a, b, count)


@pytest.mark.parametrize("task", [*TASKS.values(), ROTATION], ids=lambda task: task.name)
@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_words_side_by_side_do_not_touch(task, size):
    draw = random.Random(size)
    # Rows full to the last bit: a carry, borrow or verdict at their end must not get into the next.
    rows = [(draw.getrandbits(8 * size) | 1 << 8 * size - 1, draw.getrandbits(8 * size)) for _ in range(20)]
    a, b = (b"".join(number.to_bytes(size, "little") for number in side) for side in zip(*rows, strict=True))
    found = outputs_of_rows(task, a, b, size)
    assert [int.from_bytes(found[row * size : (row + 1) * size], "little") for row in range(20)] == [
        stepwise(task, *pair, 8 * size) for pair in rows
    ]


def test_no_rows_have_no_outputs():
    assert outputs_of_rows(ADDITION, b"", b"", 4) == b""
