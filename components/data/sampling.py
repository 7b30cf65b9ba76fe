"""Record i of a split, as a pure function of (seed, split, span, i).

Records are independent of one another, yet no pair occurs twice. The seed alone determines the order of the pairs of a
class (the bit length of the longer number). In each short class the first pairs belong to eval and the others to train,
in every span; each length of the long split owns the classes from the previous length up to its own. So splits cannot
overlap. Within its part of a class, a split takes the structured pairs first and then the others through a second
permutation, of (seed, split, span), so a span has no pair twice. Any worker can generate any records, in any order.
"""

import dataclasses
import functools
import hashlib
import itertools
import json
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from components.data.permutation import class_of, class_size, pairs_at, permuted, ranks_of, round_keys, to_words
from components.errors import ConfigError
from components.settings import Data
from components.task import patterns
from components.task.prefix_scan import outputs_of_rows
from components.task.transducer import TASKS, Transducer

SPLITS = ("train", "eval", "long")

# One record in this many has leading zeros.
_PAD_EVERY = 4


class Batch(NamedTuple):
    """Records of one width T, bits least significant first."""

    positions: np.ndarray  # int64 [n]: indices of the records in the split
    a: np.ndarray  # uint8 [n, T]
    b: np.ndarray  # uint8 [n, T]
    total: np.ndarray  # uint8 [n, T + 1]: the outputs of the task, for addition the bits of the sum


@dataclasses.dataclass(frozen=True, eq=False)
class _Group:
    """The records of a split from one range of ranks of a class."""

    bits: int  # class of the pairs that are not structured
    count: int  # records
    first: int  # first rank of the range
    size: int  # pairs in the range
    structured_a: np.ndarray  # uint64 [m, words]
    structured_b: np.ndarray
    skipped: np.ndarray  # uint64, sorted: offsets of the structured pairs in the range
    pair_keys: np.ndarray
    order_keys: np.ndarray
    longest: int  # leading zeros pad up to this width
    is_long: bool


def splits(data: Data) -> tuple[str, ...]:
    """The splits that have records: SPLITS, without the long one if there are no long lengths."""
    return SPLITS if data.long_lengths else SPLITS[:2]


def split_size(data: Data, split: str) -> int:
    """The number of records of `split`.

    Raises:
        ConfigError: more distinct pairs are requested than exist; the text gives the number that exist.
    """
    return sum(group.count for group in _groups(data, split))


def records(data: Data, split: str, start: int, stop: int) -> list[Batch]:
    """Records `start` <= i < `stop` of `split`, grouped by width.

    Raises:
        ConfigError: as `split_size`.
    """
    if start >= stop:
        return []
    groups = _groups(data, split)
    ends = np.cumsum([group.count for group in groups])
    keys = round_keys("order", data.seed, split, data.span)
    slots = permuted(np.arange(start, stop, dtype=np.uint64), int(ends[-1]), keys).astype(np.int64)
    owners = np.searchsorted(ends, slots, side="right")
    by_width: dict[int, list[tuple[np.ndarray, ...]]] = {}
    for index in np.unique(owners):
        group = groups[index]
        chosen = np.flatnonzero(owners == index)
        offsets = slots[chosen] - (ends[index] - group.count)
        a, b = _pairs(group, offsets)
        widths = _widths(group, offsets)
        for width in np.unique(widths):
            rows = widths == width
            by_width.setdefault(int(width), []).append((start + chosen[rows], a[rows], b[rows]))
    task = TASKS[data.task]
    return [
        _batch(task, width, *map(np.concatenate, zip(*parts, strict=True))) for width, parts in sorted(by_width.items())
    ]


def splits_of(data: Data, pairs: Sequence[tuple[int, int]]) -> list[str | None]:
    """The split that each pair belongs to, or None; depends on the pair, the seed and the lengths, never on the
    span."""
    by_pair: list[str | None] = [None] * len(pairs)
    by_class: dict[int, list[int]] = {}
    for index, pair in enumerate(pairs):
        by_class.setdefault(class_of(*pair), []).append(index)
    for bits, indices in by_class.items():
        for index, split in zip(
            indices, _splits_of_class(data, [pairs[index] for index in indices], bits), strict=True
        ):
            by_pair[index] = split
    return by_pair


def _splits_of_class(data: Data, pairs: Sequence[tuple[int, int]], bits: int) -> list[str | None]:
    if bits > data.max_length:
        return ["long" if data.long_lengths and bits <= data.long_lengths[-1] else None] * len(pairs)
    border = _eval_size(data, bits)
    return [
        "eval" if rank < border else "train" for rank in ranks_of(pairs, bits, round_keys("class", data.seed, bits))
    ]


def splits_key(data: Data) -> str:
    """A hash of all knobs that determine a pair's split: spans with equal keys can be read together without a leak."""
    deciding = [data.task, data.seed, data.max_length, data.eval_fraction, *data.long_lengths]
    return hashlib.sha256(json.dumps(deciding).encode()).hexdigest()


def quotas(capacities: Sequence[int], count: int) -> list[int]:
    """`count` spread over classes as evenly as their capacities allow.

    >>> quotas([4, 12, 48], 30)
    [4, 12, 14]
    """
    shares = [0] * len(capacities)
    ascending = sorted(range(len(capacities)), key=lambda index: (capacities[index], index))
    for done, index in enumerate(ascending):
        shares[index] = min(capacities[index], count // (len(capacities) - done))
        count -= shares[index]
    return shares


def _eval_size(data: Data, bits: int) -> int:
    """The number of eval's pairs in a class: its fraction, but at least one pair for each of the two splits."""
    size = class_size(bits)
    return min(size - 1, max(1, round(Fraction(data.eval_fraction) * size)))


@functools.lru_cache(maxsize=16)
def _groups(data: Data, split: str) -> tuple[_Group, ...]:
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}: the splits are {', '.join(SPLITS)}")
    return _long_groups(data) if split == "long" else _short_groups(data, split)


def _short_groups(data: Data, split: str) -> tuple[_Group, ...]:
    asked = data.eval_examples if split == "eval" else data.train_examples
    classes = range(1, data.max_length + 1)
    evals = [_eval_size(data, bits) for bits in classes]
    sizes = evals if split == "eval" else [class_size(bits) - size for bits, size in zip(classes, evals, strict=True)]
    if asked > sum(sizes):
        raise ConfigError(
            f"data.{split}_examples = {asked}: only {sum(sizes)} distinct pairs of at most {data.max_length} bits "
            f"belong to {split} (data.eval_fraction = {data.eval_fraction}); lower it, or raise data.max_length"
        )
    groups = []
    for bits, size, count in zip(classes, sizes, quotas(sizes, asked), strict=True):
        keys = round_keys("class", data.seed, bits)
        first = _eval_size(data, bits) if split == "train" else 0
        pairs = _structured(bits, bits - 1)
        ranks = [rank - first for rank in ranks_of(pairs, bits, keys)]
        mine = [(pair, rank) for pair, rank in zip(pairs, ranks, strict=True) if 0 <= rank < size]
        group = _Group(
            bits=bits,
            count=count,
            first=first,
            size=size,
            longest=data.max_length,
            is_long=False,
            pair_keys=keys,
            structured_a=to_words([pair[0] for pair, _ in mine], bits),
            structured_b=to_words([pair[1] for pair, _ in mine], bits),
            skipped=np.array(sorted(rank for _, rank in mine), dtype=np.uint64),
            order_keys=round_keys("group", data.seed, split, data.span, bits),
        )
        groups.append(group)
    return tuple(groups)


def _long_groups(data: Data) -> tuple[_Group, ...]:
    return tuple(
        _long_group(data, bits, above) for above, bits in itertools.pairwise((data.max_length, *data.long_lengths))
    )


def _long_group(data: Data, bits: int, above: int) -> _Group:
    keys = round_keys("long", data.seed, data.span, bits)
    pairs = _structured(bits, above)
    exact = [pair for pair in pairs if class_of(*pair) == bits]
    capacity = class_size(bits) + len(pairs) - len(exact)
    if data.long_examples > capacity:
        raise ConfigError(
            f"data.long_examples = {data.long_examples}: only {capacity} distinct pairs exist for {bits} bits "
            "(data.long_lengths); lower it, or replace that length by a longer one"
        )
    # Ranks beyond the largest ever used need no skipping, and may not fit into a word.
    reach = data.long_examples + len(pairs)
    return _Group(
        bits=bits,
        count=data.long_examples,
        first=0,
        size=class_size(bits),
        longest=bits,
        is_long=True,
        pair_keys=keys,
        structured_a=to_words([a for a, _ in pairs], bits),
        structured_b=to_words([b for _, b in pairs], bits),
        skipped=np.array(sorted(rank for rank in ranks_of(exact, bits, keys) if rank < reach), dtype=np.uint64),
        order_keys=keys,
    )


def _structured(bits: int, above: int) -> list[tuple[int, int]]:
    """The structured pairs at width `bits` whose class is more than `above`."""
    return [(case.a, case.b) for case in patterns.structured_cases(bits) if class_of(case.a, case.b) > above]


def _pairs(group: _Group, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The pairs at `offsets` of the group, as words: two uint64 [n, words]."""
    count = len(group.structured_a)
    a, b = np.empty((2, len(offsets), group.structured_a.shape[1]), dtype=np.uint64)
    structured = offsets < count
    a[structured], b[structured] = group.structured_a[offsets[structured]], group.structured_b[offsets[structured]]
    others = (offsets[~structured] - count).astype(np.uint64)
    # A long class already has its own permutation in every span.
    if not group.is_long:
        others = permuted(others, max(1, group.size - count), group.order_keys)
    # `others` count the ranks that are not skipped: gaps[i] of them come before skipped[i], so each index moves up by
    # the number of gaps at or below it.
    gaps: np.ndarray = group.skipped - np.arange(len(group.skipped), dtype=np.uint64)
    others += np.searchsorted(gaps, others, side="right").astype(np.uint64)
    a[~structured], b[~structured] = pairs_at(others + np.uint64(group.first), group.bits, group.pair_keys)
    return a, b


def _widths(group: _Group, offsets: np.ndarray) -> np.ndarray:
    """The widths in bits of the records at `offsets`. The first record of a class has no leading zeros, so each width
    occurs."""
    room = 0 if group.is_long else group.longest - group.bits
    if not room:
        return np.full(len(offsets), group.longest)
    padded = offsets % _PAD_EVERY == _PAD_EVERY - 1
    zeros = 1 + offsets // _PAD_EVERY % room  # 1 to room, in turn
    return group.bits + np.where(padded, zeros, 0)


def _batch(task: Transducer, width: int, positions: np.ndarray, a: np.ndarray, b: np.ndarray) -> Batch:
    size = width // 8 + 1
    a_bytes, b_bytes = _bytes(a, size), _bytes(b, size)
    written = outputs_of_rows(task, a_bytes.tobytes(), b_bytes.tobytes(), size)
    total = np.frombuffer(written, dtype=np.uint8).reshape(len(a), size)
    return Batch(positions, _bits(a_bytes, width), _bits(b_bytes, width), _bits(total, width + 1))


def _bytes(words: np.ndarray, size: int) -> np.ndarray:
    """Words uint64 [n, words] as rows of `size` bytes, lowest first; only zeros are cut off or added."""
    data = words.astype("<u8").view(np.uint8)
    return np.pad(data, ((0, 0), (0, max(0, size - data.shape[1]))))[:, :size]


def _bits(data: np.ndarray, width: int) -> np.ndarray:
    return np.unpackbits(data, axis=1, count=width, bitorder="little")
