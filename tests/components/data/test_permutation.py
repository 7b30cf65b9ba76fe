"""Keyed permutations, enumerated completely where they are small."""

import itertools
import random

import numpy as np
import pytest

from components.data.permutation import (
    MAX_RANGE,
    class_of,
    class_size,
    from_words,
    pairs_at,
    permuted,
    ranks_of,
    round_keys,
    to_words,
)

pytestmark = pytest.mark.fast


def all_ranks(bits: int) -> np.ndarray:
    return np.arange(class_size(bits), dtype=np.uint64)


def pairs_of_class(bits: int, keys: np.ndarray) -> list[tuple[int, int]]:
    return list(zip(*map(from_words, pairs_at(all_ranks(bits), bits, keys)), strict=True))


def chi_square(counts: list[int]) -> float:
    expected = sum(counts) / len(counts)
    return sum((count - expected) ** 2 / expected for count in counts)


@pytest.mark.parametrize("seed", [1, 2])
def test_the_classes_up_to_n_bits_hold_every_pair_exactly_once(seed):
    seen = []
    for n in range(1, 7):
        pairs = pairs_of_class(n, round_keys("test", seed, n))
        assert all(class_of(*pair) == n for pair in pairs)
        seen += pairs
        assert sorted(seen) == list(itertools.product(range(2**n), repeat=2))


@pytest.mark.parametrize("bits", [1, 2, 3, 8, 31, 32, 33, 34, 63, 64, 65, 66, 130, 4096])
def test_ranks_are_the_inverse_of_pairs(bits):
    keys = round_keys("test", bits)
    top = min(class_size(bits), 2**64)
    ranks = sorted({0, 1, top // 2, top - 1, *(random.Random(bits).randrange(top) for _ in range(20))})
    pairs = list(zip(*map(from_words, pairs_at(np.array(ranks, dtype=np.uint64), bits, keys)), strict=True))
    assert all(class_of(*pair) == bits for pair in pairs if bits > 1)
    assert ranks_of(pairs, bits, keys) == ranks


@pytest.mark.parametrize("size", [*range(1, 40), 99, 100, 101, 1000, 4097])
def test_a_permuted_range_is_the_range(size):
    indices = permuted(np.arange(size, dtype=np.uint64), size, round_keys("test", size))
    assert sorted(indices.tolist()) == list(range(size))


def test_the_largest_range_stays_in_its_bounds():
    top = np.array([0, 1, MAX_RANGE // 2, MAX_RANGE - 1], dtype=np.uint64)
    indices = permuted(top, MAX_RANGE, round_keys("test"))
    assert len(set(indices.tolist())) == 4 and indices.max() < MAX_RANGE


@pytest.mark.parametrize("size", [0, MAX_RANGE + 1])
def test_an_impossible_range_is_refused(size):
    with pytest.raises(ValueError, match=str(size)):
        permuted(np.zeros(1, dtype=np.uint64), size, round_keys("test"))


def test_each_part_of_a_permutation_can_be_made_alone():
    keys = round_keys("test")
    whole = permuted(np.arange(1000, dtype=np.uint64), 1000, keys)
    assert permuted(np.arange(700, 710, dtype=np.uint64), 1000, keys).tolist() == whole[700:710].tolist()


def test_over_the_seeds_every_pair_comes_first_equally_often():
    first = np.zeros(1, dtype=np.uint64)
    found = [tuple(int(half[0, 0]) for half in pairs_at(first, 3, round_keys("test", seed))) for seed in range(2400)]
    counts = [found.count(pair) for pair in itertools.product(range(8), repeat=2) if class_of(*pair) == 3]
    assert len(counts) == 48 and sum(counts) == 2400
    # 47 degrees of freedom: above 82 once in a thousand.
    assert chi_square(counts) < 82


def test_over_the_seeds_every_index_goes_everywhere_equally_often():
    places = [int(permuted(np.array([3], dtype=np.uint64), 10, round_keys("test", seed))[0]) for seed in range(2000)]
    # 9 degrees of freedom: above 28 once in a thousand.
    assert chi_square([places.count(place) for place in range(10)]) < 28


def test_neighbouring_ranks_give_unrelated_pairs():
    a, b = pairs_at(np.arange(500, dtype=np.uint64), 130, round_keys("test"))
    bits = np.unpackbits(np.concatenate([a, b], axis=1).view(np.uint8), axis=1, bitorder="little")
    bits = np.concatenate([bits[:, :129], bits[:, 192:321]], axis=1)
    # Means of 500 bits: standard deviation 0.022; of 129,000: 0.0014.
    assert np.abs(bits.mean(axis=0) - 0.5).max() < 0.1
    assert abs(bits.mean() - 0.5) < 0.006
    assert abs((bits[1:] != bits[:-1]).mean() - 0.5) < 0.006


def test_words_are_least_significant_first():
    words = to_words([1, 2**64, 2**70 + 5], 71)
    assert words.tolist() == [[1, 0], [0, 1], [5, 64]]
    assert from_words(words) == [1, 2**64, 2**70 + 5]
