"""The search finds numbers that broken cells get wrong, by an independent run of the cell and by Python."""

import numpy as np
import pytest

from components.model import bomb
from components.proof import counterexample
from components.task.addition import to_bits
from components.task.transducer import COMPARISON, SUBTRACTION
from tests.support import certified

pytestmark = pytest.mark.fast

WEIGHTS = certified.weights()


def bits_of(cell, word):
    """The cell's outputs in float64, one word, written down from the formula."""
    v = {name: value.astype(np.float64) for name, value in certified.arrays(cell).items()}
    h, outputs = np.zeros(cell.units), []
    for x in word:
        z = 1 / (1 + np.exp(-(x @ v["W_z"] + h @ v["U_z"] + v["b_z"])))
        r = 1 / (1 + np.exp(-(x @ v["W_r"] + h @ v["U_r"] + v["b_r"])))
        h = (1 - z) * h + z * np.tanh(x @ v["W_h"] + (r * h) @ v["U_h"] + v["b_h"])
        outputs.append(int(h @ v["W_o"][:, 0] + v["b_o"][0] > 0))
    return outputs


def fed(a, b, length):
    return np.array([*zip(to_bits(a, length), to_bits(b, length), strict=True), (0, 0)], np.float64)


def test_a_certified_model_has_none():
    assert counterexample.search(WEIGHTS, length=300, max_length=1000) is None


@pytest.mark.parametrize("z_bias, weight", [(-6.0, 40.0), (-8.0, -40.0)])
def test_a_bomb_is_found_and_shown_by_two_numbers(z_bias, weight):
    bombed = bomb.with_creeping_unit(WEIGHTS, z_bias, weight)
    a, b, position = counterexample.search(bombed, length=2048)
    length = max(a.bit_length(), b.bit_length())
    outputs = bits_of(bombed, fed(a, b, length))
    total = to_bits(a + b, length + 1)
    assert position <= length and outputs[:position] == total[:position] and outputs[position] != total[position]
    assert position > 20


def test_a_bomb_that_goes_off_late_is_found_in_the_long_words():
    bombed = bomb.with_creeping_unit(WEIGHTS, -9.0, 40.0)
    assert counterexample.search(bombed, length=64, max_length=64) is None
    _, _, position = counterexample.search(bombed, length=64, max_length=4096)
    assert 64 < position < 4096


def test_a_wrong_sign_is_found_at_once():
    negated = certified.changed(WEIGHTS, W_o=-np.array(WEIGHTS.W_o))
    a, b, position = counterexample.search(negated, length=16)
    assert position == 0 and max(a, b) <= 3


def test_an_adder_does_not_subtract_or_compare():
    a, b, position = counterexample.search(WEIGHTS, SUBTRACTION, length=16)
    length = max(a.bit_length(), b.bit_length())
    assert bits_of(WEIGHTS, fed(a, b, length))[position] != ((a - b) >> position) & 1
    a, b, position = counterexample.search(WEIGHTS, COMPARISON, length=16)
    assert bits_of(WEIGHTS, fed(a, b, position))[-1] != (a > b)


def test_the_clock_ends_the_search():
    assert (
        counterexample.search(bomb.with_creeping_unit(WEIGHTS, -9.0, 40.0), length=128, max_length=2**18, seconds=0.0)
        is None
    )


def test_words_have_the_documented_structure():
    words = {tuple(word) for word in counterexample.structured_words(4, 40).tolist()}
    assert (3, *[1] * 39) in words  # a carry, then (0, 1) for ever
    assert (*[0] * 20, 3, 1, *[1] * 18) in words  # a long run of zeros, then a chain
    assert (*[3] * 20, 0, 3, *[1] * 18) in words
    assert (3, *[1, 2] * 19, 1) in words and (0, 1, 2, 3) * 10 in words
    assert all(word.max() == 3 for word in (counterexample.structured_words(4, 40), counterexample.long_words(4, 40)))


def test_weights_with_a_problem_are_refused():
    with pytest.raises(ValueError, match="b_o"):
        counterexample.search(certified.replaced(WEIGHTS, b_o=(float("inf"),)))
