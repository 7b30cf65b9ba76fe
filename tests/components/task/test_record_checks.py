"""The check of one example against addition."""

import pytest

from components.task import record_checks
from components.task.addition import to_bits
from components.task.record_checks import described, problem_of
from components.task.transducer import ADDITION, COMPARISON, SUBTRACTION

pytestmark = pytest.mark.fast

# 13 + 29 = 42
GOOD = {"a": [1, 0, 1, 1, 0], "b": [1, 0, 1, 1, 1], "sum": [0, 1, 0, 1, 0, 1], "length": [5]}


def test_right_sums_have_no_problem():
    assert problem_of(GOOD, ADDITION) is None
    for a in range(8):
        for b in range(8):
            assert (
                problem_of({"a": to_bits(a, 3), "b": to_bits(b, 3), "sum": to_bits(a + b, 4), "length": [3]}, ADDITION)
                is None
            )


@pytest.mark.parametrize(
    "change, kind, words",
    [
        ({"sum": [0, 1, 0, 1, 0, 0]}, record_checks.WRONG_SUM, "sum[5] is 0, must be 1 (13 + 29 = 42)"),
        (
            {"sum": [1, 1, 0, 0, 0, 1]},
            record_checks.WRONG_SUM,
            "sum[0] is 1, must be 0 (13 + 29 = 42), and 1 other bits are wrong",
        ),
        ({"sum": [0, 1, 0, 1, 0]}, record_checks.WRONG_LENGTH, "sum has 5 bits, must have 6 with length = 5"),
        ({"a": [1, 0, 1, 1]}, record_checks.WRONG_LENGTH, "a has 4 bits, must have 5"),
        ({"b": []}, record_checks.WRONG_LENGTH, "b has 0 bits, must have 5"),
        ({"length": [4]}, record_checks.WRONG_LENGTH, "a has 5 bits, must have 4"),
        ({"length": [0]}, record_checks.WRONG_LENGTH, "length is 0"),
        ({"length": [5, 5]}, record_checks.WRONG_LENGTH, "length has 2 values"),
        ({"length": []}, record_checks.WRONG_LENGTH, "length has 0 values"),
        ({"a": [1, 0, 2, 1, 0]}, record_checks.NOT_A_BIT, "a[2] is 2"),
        ({"b": [1, 0, 1, 1, -1]}, record_checks.NOT_A_BIT, "b[4] is -1"),
        ({"sum": [0, 1, 0, 1, 0, 3]}, record_checks.NOT_A_BIT, "sum[5] is 3"),
        ({"a": [1.0, 0.0, 1.0, 1.0, 0.0]}, record_checks.WRONG_TYPE, "a[0] is a float"),
        ({"b": [b"10111"]}, record_checks.WRONG_TYPE, "b[0] is a bytes"),
        ({"weight": [1]}, record_checks.UNKNOWN_FEATURE, "'weight'"),
        ({"sum": None}, record_checks.MISSING_FEATURE, "'sum'"),
    ],
)
def test_each_problem_is_named(change, kind, words):
    features = {name: value for name, value in {**GOOD, **change}.items() if value is not None}
    problem = problem_of(features, ADDITION)
    assert problem.kind == kind
    assert words in problem.what
    assert "\n" not in problem.what


# In 4 bits and their 5th, the sign: 5 - 6 = -1 is 11111. Up to each place, 5 > 6 is 1 > 0, 1 > 2, 5 > 6, 5 > 6 and so 5
# > 6.
@pytest.mark.parametrize(
    ("task", "right", "statement"),
    [(SUBTRACTION, [1, 1, 1, 1, 1], "5 - 6 = -1"), (COMPARISON, [1, 0, 0, 0, 0], "5 > 6: False")],
)
def test_other_tasks_have_other_outputs(task, right, statement):
    features = {"a": [1, 0, 1, 0], "b": [0, 1, 1, 0], "length": [4]}
    assert problem_of({**features, "sum": right}, task) is None
    assert problem_of({**features, "sum": right}, ADDITION).kind == record_checks.WRONG_SUM
    for position in range(5):
        wrong = [bit ^ (place == position) for place, bit in enumerate(right)]
        what = problem_of({**features, "sum": wrong}, task).what
        assert what == f"sum[{position}] is {wrong[position]}, must be {right[position]} ({statement})"


def test_every_single_wrong_bit_is_found():
    for position in range(6):
        total = list(GOOD["sum"])
        total[position] ^= 1
        problem = problem_of({**GOOD, "sum": total}, ADDITION)
        assert problem.what.startswith(f"sum[{position}] is {total[position]}, must be {1 - total[position]} ")


def test_a_wrong_sum_of_long_numbers_is_still_one_short_line():
    ones, one = [1] * 4096, [1] + [0] * 4095
    wrong = [0] * 4097
    problem = problem_of({"a": ones, "b": one, "sum": wrong, "length": [4096]}, ADDITION)
    assert problem.what.startswith("sum[4096] is 0, must be 1 (0xffff")
    assert len(problem.what) < 200


def test_a_pair_is_described_in_decimal():
    assert described([1, 0, 1, 1], [1]) == "13 and 1"
