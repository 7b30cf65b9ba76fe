"""The structured pairs of numbers."""

import pytest

from components.task.addition import to_bits
from components.task.patterns import EVERY_POSITION_UP_TO, from_symbols, positions, structured_cases

pytestmark = pytest.mark.fast


def carries(a: int, b: int, width: int) -> list[int]:
    """The carry into each position, by school addition on Python's integers."""
    return [(a % 2**position + b % 2**position) >> position for position in range(width)]


def symbols(a: int, b: int, width: int) -> str:
    return " ".join(f"{x}{y}" for x, y in zip(to_bits(a, width), to_bits(b, width), strict=True))


def named(width: int) -> dict[str, tuple[int, int]]:
    return {case.name: (case.a, case.b) for case in structured_cases(width)}


@pytest.mark.parametrize("width", [1, 2, 3, 8, 12, 13, 16, 100, 4096])
def test_cases_fit_are_distinct_and_few(width):
    cases = structured_cases(width)
    assert all(0 <= case.a < 2**width and 0 <= case.b < 2**width for case in cases)
    assert len({(case.a, case.b) for case in cases}) == len({case.name for case in cases}) == len(cases)
    assert len(cases) <= 24 + 3 * EVERY_POSITION_UP_TO


def test_wide_pairs_have_no_more_cases_than_the_limit_of_the_narrow_ones():
    assert len(structured_cases(10**5)) == len(structured_cases(16)) == 33


def test_the_chains_carry_through_every_position_in_both_orders():
    for name, pair in (("carry chain, ones first", (255, 1)), ("carry chain, ones second", (1, 255))):
        assert named(8)[name] == pair
        assert carries(*pair, 8) == [0, 1, 1, 1, 1, 1, 1, 1]


def test_extremes():
    pairs = {(case.a, case.b) for case in structured_cases(4)}
    assert {(0, 0), (15, 0), (0, 15), (15, 15), (5, 10), (10, 5), (5, 5), (10, 10), (8, 8), (8, 1), (1, 8)} <= pairs


@pytest.mark.parametrize(
    "pair, expected",
    [
        ((1, 63), "11 01 01 01 01 01"),
        ((63, 1), "11 10 10 10 10 10"),
        ((8, 63), "01 01 01 11 01 01"),
        ((15, 56), "10 10 10 11 01 01"),
        ((8, 56), "00 00 00 11 01 01"),
        ((63, 63), "11 11 11 11 11 11"),
        ((23, 55), "11 11 11 00 11 01"),
        ((42, 21), "01 10 01 10 01 10"),
        ((21, 43), "11 01 10 01 10 01"),
    ],
)
def test_the_nine_words_are_included(pair, expected):
    assert symbols(*pair, 6) == expected
    assert pair in {(case.a, case.b) for case in structured_cases(6)}


@pytest.mark.parametrize("width", [1, 2, 5, EVERY_POSITION_UP_TO])
def test_narrow_pairs_generate_propagate_and_kill_at_every_position(width):
    seen = {(position, kind) for case in structured_cases(width) for position, kind in kinds(case.a, case.b, width)}
    assert seen >= {(position, kind) for position in range(width) for kind in ("generated", "nothing")}
    assert seen >= {(position, kind) for position in range(1, width) for kind in ("propagated", "killed")}


@pytest.mark.parametrize("width", [EVERY_POSITION_UP_TO + 1, 64, 1000])
def test_wide_pairs_do_so_at_the_ends_and_in_the_middle(width):
    assert positions(width) == [0, 1, width // 2, width - 2, width - 1]
    seen = {(position, kind) for case in structured_cases(width) for position, kind in kinds(case.a, case.b, width)}
    assert seen >= {
        (position, kind) for position in positions(width)[1:] for kind in ("generated", "propagated", "killed")
    }


def kinds(a: int, b: int, width: int) -> list[tuple[int, str]]:
    """The effect on the carry at each position."""
    events = []
    for position, (x, y, carry) in enumerate(
        zip(to_bits(a, width), to_bits(b, width), carries(a, b, width), strict=True)
    ):
        kind = {0: "killed" if carry else "nothing", 1: "propagated" if carry else "passed", 2: "generated"}[x + y]
        events.append((position, kind))
    return events


def test_symbols_are_cut_in_the_middle_of_a_block():
    assert from_symbols(("01 10", 3)) == (0b010, 0b101)
    assert from_symbols(("11", 0)) == (0, 0)


def test_a_width_below_one_is_refused():
    with pytest.raises(ValueError, match="width = 0"):
        structured_cases(0)
