"""Keyed permutations: of a range of indices, and of all pairs of numbers with a given bit length.

A balanced Feistel network (Luby & Rackoff 1988) permutes pairs of equally long bitstrings for any round function, and
runs backwards as easily as forwards. Cycle walking (Black & Rogaway 2002) restricts it to a subset: outputs outside
are fed back in until one lies inside. The mixing function is splitmix64's (Steele, Lea & Flood 2014). None of this
is secure against an adversary: it serves to draw without repetition, any part at any time.

Numbers of l bits are rows of [n, words] uint64 arrays, least significant word first, words = ceil(l / 64).
A pair's class is the bit length of the longer of its two numbers, at least 1.
"""

import hashlib
import math
from collections.abc import Callable, Sequence

import numpy as np

# The smallest halves have a single bit, for which few rounds would reach few of the permutations.
ROUNDS = 10

# A permutation of a range works on indices in one machine word, with room for the cycle walk.
MAX_RANGE = 2**62

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def round_keys(*parts: object) -> np.ndarray:
    """The keys of a network, uint64 [ROUNDS]: a hash of `parts`, which name the seed and the purpose."""
    text = "\0".join(map(str, parts)).encode()
    return np.frombuffer(hashlib.shake_256(text).digest(8 * ROUNDS), dtype="<u8").astype(np.uint64)


def permuted(indices: np.ndarray, size: int, keys: np.ndarray) -> np.ndarray:
    """The images of `indices` under a keyed permutation of range(size): uint64 [n] -> uint64 [n].

    Raises:
        ValueError: `size` is not from 1 to MAX_RANGE.
    """
    if not 1 <= size <= MAX_RANGE:
        raise ValueError(f"a range of {size} indices cannot be permuted: must have 1 to {MAX_RANGE}")
    rows = np.uint64(math.isqrt(size - 1) + 1)
    columns = np.uint64(-(-size // int(rows)))

    # A Feistel network over a grid instead of bitstrings: fewer than `rows` cells lie outside the range.
    def step(row: np.ndarray, column: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        for key_row, key_column in keys.reshape(-1, 2):
            row = (row + _mix(_mix(column ^ key_row) + key_row) % rows) % rows
            column = (column + _mix(_mix(row ^ key_column) + key_column) % columns) % columns
        return row, column

    row, column = _walk(
        indices % rows, indices // rows, step, lambda row, column: column * rows + row < np.uint64(size)
    )
    return column * rows + row


def class_of(a: int, b: int) -> int:
    """The class of a pair; the written widths of the numbers do not matter."""
    return max(a.bit_length(), b.bit_length(), 1)


def class_size(bits: int) -> int:
    """The number of pairs of class `bits`: 4 for 1 bit (zero included), otherwise 3 * 4**(bits - 1)."""
    return 4 if bits == 1 else 3 * 4 ** (bits - 1)


def pairs_at(ranks: np.ndarray, bits: int, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The pairs of class `bits` at `ranks` of the keyed permutation of the class: uint64 [n] -> two uint64 [n,
    words]."""
    return _walk(*_start(ranks, bits), lambda a, b: _feistel(a, b, bits, keys), lambda a, b: _in_class(a, b, bits))


def ranks_of(pairs: Sequence[tuple[int, int]], bits: int, keys: np.ndarray) -> list[int]:
    """The inverse of `pairs_at`: the ranks (integers of any size) of pairs of class `bits`."""
    halves = to_words([a for a, _ in pairs], bits), to_words([b for _, b in pairs], bits)
    left, right = _walk(*halves, lambda a, b: _inverse_feistel(a, b, bits, keys), lambda a, b: _in_class(a, b, bits))
    return [_start_rank(a, b, bits) for a, b in zip(from_words(left), from_words(right), strict=True)]


def to_words(values: Sequence[int], bits: int) -> np.ndarray:
    """Integers of at most `bits` bits as rows of words, uint64 [n, ceil(bits / 64)]."""
    count = -(-bits // 64)
    data = b"".join(value.to_bytes(8 * count, "little") for value in values)
    return np.frombuffer(data, dtype="<u8").astype(np.uint64).reshape(len(values), count)


def from_words(words: np.ndarray) -> list[int]:
    """The inverse of `to_words`."""
    return [int.from_bytes(row.tobytes(), "little") for row in words.astype("<u8", copy=False)]


def _start(ranks: np.ndarray, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """Rank -> pair before mixing. A rank encodes which top bits are set, then the lower bits of a, then those of b."""
    low = bits - 1
    left, right = np.zeros((2, len(ranks), -(-bits // 64)), dtype=np.uint64)
    left[:, 0] = _shifted(ranks, low) & _mask(low)
    right[:, 0] = ranks & _mask(low)
    # Only class 1 has pairs without a top bit.
    tops = _shifted(ranks, 2 * low) + np.uint64(bits > 1)
    left[:, low // 64] |= (tops >> np.uint64(1)) << np.uint64(low % 64)
    right[:, low // 64] |= (tops & np.uint64(1)) << np.uint64(low % 64)
    return left, right


def _start_rank(a: int, b: int, bits: int) -> int:
    low = bits - 1
    tops = ((a >> low) << 1 | b >> low) - (bits > 1)
    mask = (1 << low) - 1
    return (tops << 2 * low) | (a & mask) << low | b & mask


def _in_class(a: np.ndarray, b: np.ndarray, bits: int) -> np.ndarray:
    if bits == 1:
        return np.ones(len(a), dtype=bool)
    return ((a[:, -1] | b[:, -1]) >> np.uint64((bits - 1) % 64)).astype(bool)


def _walk(left: np.ndarray, right: np.ndarray, step: Callable, inside: Callable) -> tuple[np.ndarray, np.ndarray]:
    """Apply the permutation `step` to each row until `inside` holds for it."""
    left, right = step(left, right)
    outside = np.flatnonzero(~inside(left, right))
    while outside.size:
        left[outside], right[outside] = step(left[outside], right[outside])
        outside = outside[~inside(left[outside], right[outside])]
    return left, right


def _feistel(left: np.ndarray, right: np.ndarray, bits: int, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    for key in keys:
        left, right = right, left ^ _round(right, bits, key)
    return left, right


def _inverse_feistel(left: np.ndarray, right: np.ndarray, bits: int, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    for key in keys[::-1]:
        left, right = right ^ _round(left, bits, key), left
    return left, right


def _round(half: np.ndarray, bits: int, key: np.uint64) -> np.ndarray:
    """A keyed hash of each row, expanded to `bits` bits: uint64 [n, words] -> uint64 [n, words]."""
    counters = np.arange(1, half.shape[1] + 1, dtype=np.uint64) * _GOLDEN
    absorbed = _mix(half ^ (counters + key)).sum(axis=1, keepdims=True, dtype=np.uint64)
    expanded = _mix(_mix(absorbed + key) + counters)
    expanded[:, -1] &= _mask((bits - 1) % 64 + 1)
    return expanded


def _mix(words: np.ndarray) -> np.ndarray:
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


def _mask(bits: int) -> np.uint64:
    return np.uint64(2 ** min(bits, 64) - 1)


def _shifted(words: np.ndarray, bits: int) -> np.ndarray:
    return words >> np.uint64(bits) if bits < 64 else np.zeros_like(words)
