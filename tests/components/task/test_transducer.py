"""The transducers against Python's integers, and the boxes that follow from them."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.task.addition import to_bits
from components.task.transducer import ADDITION, COMPARISON, SUBTRACTION, TASKS

pytestmark = pytest.mark.fast

numbers = st.integers(0, 2**70 - 1)


def value(task, a, b, length=70):
    word = [*zip(to_bits(a, length), to_bits(b, length), strict=True), *task.flush]
    return task.value(task.outputs(word))


@given(numbers, numbers)
def test_tasks_compute_what_python_computes(a, b):
    assert value(ADDITION, a, b) == a + b
    assert value(SUBTRACTION, a, b) == a - b
    assert value(COMPARISON, a, b) == (a > b)


def test_every_pair_of_short_numbers():
    for a in range(8):
        for b in range(8):
            assert [value(task, a, b, length=3) for task in (ADDITION, SUBTRACTION, COMPARISON)] == [
                a + b,
                a - b,
                a > b,
            ]


def test_labels_of_addition_are_the_counts_of_ones():
    assert ADDITION.labels == ((0, 0), (0, 1), (1, 0), (1, 1))
    for carry in (0, 1):
        for a, b in ADDITION.inputs:
            n = a + b + carry
            assert ADDITION.labels.index(ADDITION.label(carry, (a, b))) == n


def test_labels_of_the_other_tasks():
    assert SUBTRACTION.labels == ((0, 0), (0, 1), (1, 0), (1, 1))
    assert COMPARISON.labels == ((0, 0), (1, 1))


def test_unreachable_labels_are_left_out():
    rows = tuple(
        (state, symbol, 0, 0) if state == 0 else (state, symbol, 1, 1) for state, symbol, _, _ in ADDITION.table
    )
    assert dataclasses.replace(ADDITION, name="constant", table=rows).labels == ((0, 0),)


def test_runs_may_start_anywhere():
    assert ADDITION.outputs([(0, 0), (0, 0)], state=1) == [1, 0]


@pytest.mark.parametrize(
    "change",
    [
        {"table": ADDITION.table[1:]},
        {"table": (*ADDITION.table, ADDITION.table[0])},
        {"table": ((0, (0, 0), 2, 0), *ADDITION.table[1:])},
        {"table": ((0, (0, 0), 0, 7), *ADDITION.table[1:])},
        {"initial": 2},
        {"flush": ((0, 2),)},
        {"reading": "backwards"},
    ],
)
def test_impossible_transducers_are_refused(change):
    with pytest.raises(ValueError, match="addition"):
        dataclasses.replace(ADDITION, **change)


def test_the_meaning_is_that_of_the_table():
    for task in TASKS.values():
        for a in range(8):
            for b in range(8):
                assert value(task, a, b, length=3) == task.meaning(a, b)


def test_outputs_are_read_as_python_values():
    # 1, 1, 0: 3 unsigned, 3 in two's complement of three bits; 0, 1, 1: 6 and -2.
    assert [task.read(3, 3) for task in (ADDITION, SUBTRACTION, COMPARISON)] == [3, 3, False]
    assert [task.value([0, 1, 1]) for task in (ADDITION, SUBTRACTION, COMPARISON)] == [6, -2, True]
    assert type(COMPARISON.read(1, 1)) is bool


def test_statements_are_readable():
    assert [task.statement(13, 29, task.meaning(13, 29)) for task in TASKS.values()] == [
        "13 + 29 = 42",
        "13 - 29 = -16",
        "13 > 29: False",
    ]


def test_tasks_are_values():
    assert TASKS["addition"] == dataclasses.replace(ADDITION) and len({*TASKS.values(), ADDITION}) == 3
