"""The facts of addition, against Python's integers and against literals that can be checked by hand."""

import doctest

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.task import addition

pytestmark = pytest.mark.fast

NATURALS = st.integers(min_value=0, max_value=2**200)


def test_docstrings_are_true():
    assert doctest.testmod(addition).failed == 0


def test_thirteen_and_twentynine():
    a, b = addition.to_bits(13, 5), addition.to_bits(29, 5)
    assert (a, b) == ([1, 0, 1, 1, 0], [1, 0, 1, 1, 1])
    assert addition.from_bits([0, 1, 0, 1, 0, 1]) == 42


def test_the_full_adder_is_the_sum_of_three_bits():
    assert len(addition.FULL_ADDER) == 8
    for (a, b, carry), (bit, carry_out) in addition.FULL_ADDER.items():
        assert a + b + carry == bit + 2 * carry_out


@given(NATURALS, st.integers(0, 10))
def test_bits_are_those_of_shifts_and_masks(value, spare):
    width = value.bit_length() + spare
    assert addition.to_bits(value, width) == [(value >> position) & 1 for position in range(width)]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: addition.to_bits(-1, 4), "-1 is negative"),
        (lambda: addition.to_bits(16, 4), "16 needs 5 bits, 4 are given"),
        (lambda: addition.from_bits([0, 2]), "bit 1 is 2"),
    ],
)
def test_values_other_than_bitstrings_are_refused_by_name(call, words):
    with pytest.raises(ValueError) as refusal:
        call()
    assert words in str(refusal.value)


def test_long_numbers_are_abbreviated_and_short_ones_are_not():
    assert addition.abbreviated(2**64) == "18446744073709551616"
    assert addition.abbreviated(2**4000) == "0x100000000000000000...0000000000 (4001 bits)"
