"""The position and the split of each record."""

import collections
import dataclasses
import itertools

import numpy as np
import pytest

from components.data import sampling
from components.data.permutation import class_of
from components.data.sampling import quotas, records, split_size, splits_of
from components.errors import ConfigError
from components.settings import Data
from components.task.addition import from_bits
from components.task.patterns import structured_cases

pytestmark = pytest.mark.fast

SMALL = dict(max_length=3, long_lengths=(6, 70), long_examples=30)


def flat(data: Data, split: str, start: int = 0, stop: int | None = None) -> dict[int, tuple[int, int, int]]:
    """Position -> (width, a, b)."""
    stop = split_size(data, split) if stop is None else stop
    return {
        int(position): (len(a), from_bits(a.tolist()), from_bits(b.tolist()))
        for batch in records(data, split, start, stop)
        for position, a, b in zip(batch.positions, batch.a, batch.b, strict=True)
    }


def pairs(data: Data, split: str) -> list[tuple[int, int]]:
    return [(a, b) for _, a, b in flat(data, split).values()]


def test_exhausted_splits_hold_every_pair_once():
    # Of 4, 12 and 48 pairs eval owns a quarter: 1, 3 and 12.
    data = Data(train_examples=48, eval_examples=16, **SMALL)
    everything = pairs(data, "train") + pairs(data, "eval")
    assert sorted(everything) == list(itertools.product(range(8), repeat=2))


@pytest.mark.parametrize(
    "knobs, message",
    [
        (dict(train_examples=49), r"data.train_examples = 49: only 48 distinct pairs of at most 3 bits"),
        (dict(eval_examples=17), r"data.eval_examples = 17: only 16 distinct pairs"),
        (dict(long_lengths=(4,), long_examples=193), r"data.long_examples = 193: only 192 distinct pairs .* 4 bits"),
    ],
)
def test_more_pairs_than_exist_are_refused_with_the_number_that_exist(knobs, message):
    data = Data(**{**SMALL, "train_examples": 48, "eval_examples": 16, **knobs})
    split = next(iter(knobs)).split("_")[0]
    with pytest.raises(ConfigError, match=message):
        split_size(data, split)
    with pytest.raises(ConfigError, match=message):
        records(data, split, 0, 1)


def test_a_long_length_can_be_exhausted():
    data = Data(max_length=2, train_examples=1, eval_examples=1, long_lengths=(3, 4), long_examples=48)
    every = [pair for pair in itertools.product(range(8), repeat=2) if class_of(*pair) == 3]
    assert sorted(pair for pair in pairs(data, "long") if class_of(*pair) == 3) == every


@pytest.mark.parametrize("share", [0.01, 0.9])
def test_train_and_eval_have_a_part_of_every_class_whatever_the_share(share):
    data = Data(max_length=4, train_examples=4, eval_examples=4, eval_fraction=share)
    for split in ("train", "eval"):
        assert sorted(class_of(*pair) for pair in pairs(data, split)) == [1, 2, 3, 4]


def test_default_pairs_are_distinct_and_in_the_split_that_owns_them():
    data = Data()
    everything = {split: pairs(data, split) for split in sampling.SPLITS}
    assert {split: len(found) for split, found in everything.items()} == {"train": 8000, "eval": 2000, "long": 576}
    together = list(itertools.chain.from_iterable(everything.values()))
    assert len(set(together)) == len(together)
    for split in ("train", "eval", "long"):
        assert set(splits_of(data, everything[split][:300])) == {split}


def test_a_pairs_split_is_the_same_in_every_span_and_spans_differ():
    spans = [Data(span=span) for span in (0, 1)]
    for split in ("train", "eval"):
        first, second = (set(pairs(data, split)) for data in spans)
        assert first != second
        assert len(second) == split_size(spans[1], split)
        assert set(splits_of(spans[0], list(second)[:300])) == {split}
    assert not set(pairs(spans[0], "train")) & set(pairs(spans[1], "eval"))
    assert not set(pairs(spans[1], "train")) & set(pairs(spans[0], "eval"))


def test_splits_of_covers_the_long_classes_only_up_to_their_end():
    assert splits_of(Data(**SMALL), [(8, 0), (2**70 - 1, 5), (2**70, 0)]) == ["long", "long", None]
    assert splits_of(Data(max_length=3, long_lengths=()), [(8, 0)]) == [None]


def test_any_part_is_the_same_part_of_the_whole():
    data = Data()
    for split in sampling.SPLITS:
        whole = flat(data, split)
        assert sorted(whole) == list(range(split_size(data, split)))
        part = flat(data, split, 100, 170)
        assert part == {position: whole[position] for position in range(100, 170)}
    assert records(data, "train", 5, 5) == []


def test_sums_are_those_of_the_full_adder():
    for split, widths in (("train", range(1, 9)), ("long", Data().long_lengths)):
        batches = records(Data(), split, 0, split_size(Data(), split))
        assert [batch.a.shape[1] for batch in batches] == list(widths)
        for batch in batches:
            assert batch.a.dtype == batch.b.dtype == batch.total.dtype == np.uint8
            for a, b, total in zip(batch.a[:10], batch.b[:10], batch.total[:10], strict=True):
                assert len(total) == len(a) + 1 == len(b) + 1
                assert from_bits(total) == from_bits(a) + from_bits(b)


def wanted(task: str, a: int, b: int, length: int) -> list[int]:
    """The target bits by Python's integers alone."""
    if task == "comparison":
        return [int(a % 2**place > b % 2**place) for place in range(1, length + 2)]
    return [(a - b) >> place & 1 for place in range(length + 1)]


@pytest.mark.parametrize("task", ["subtraction", "comparison"])
def test_other_tasks_have_the_same_pairs_and_other_targets(task):
    # Widths around whole bytes and words.
    addition = Data(long_lengths=(15, 16, 63, 64, 65, 300))
    data = dataclasses.replace(addition, task=task)
    for split in sampling.SPLITS:
        assert pairs(data, split) == pairs(addition, split)
        for batch in records(data, split, 0, split_size(data, split)):
            length = batch.a.shape[1]
            assert batch.total.dtype == np.uint8
            for a, b, total in zip(batch.a[:40], batch.b[:40], batch.total[:40], strict=True):
                assert total.tolist() == wanted(task, from_bits(a.tolist()), from_bits(b.tolist()), length)


def test_every_operand_value_and_every_length_occurs():
    found = flat(Data(), "train")
    assert {a for _, a, _ in found.values()} == {b for _, _, b in found.values()} == set(range(256))
    for split in ("train", "eval"):
        assert {width for width, _, _ in flat(Data(), split).values()} == set(range(1, 9))
    assert any(a == b for _, a, b in found.values())


def test_classes_are_as_even_as_they_can_be():
    counts = collections.Counter(class_of(*pair) for pair in pairs(Data(), "train"))
    assert [counts[bits] for bits in range(1, 9)] == [3, 9, 36, 144, 576, 2304, 2464, 2464]


def test_some_records_have_leading_zeros_but_none_of_the_long_ones_is_shorter_than_its_length():
    short = collections.Counter(width > class_of(a, b) for width, a, b in flat(Data(), "train").values())
    # Of the 5,536 pairs of less than 8 bits, one in four.
    assert short[True] == pytest.approx(5536 / 4, abs=10)
    below = {width: above for above, width in itertools.pairwise((8, *Data().long_lengths))}
    for width, a, b in flat(Data(), "long").values():
        assert below[width] < class_of(a, b) <= width


def test_every_structured_pair_is_in_its_split():
    short = set(pairs(Data(), "train") + pairs(Data(), "eval"))
    for width in range(1, 9):
        assert {(case.a, case.b) for case in structured_cases(width)} <= short
    found = set(pairs(Data(), "long"))
    for above, width in itertools.pairwise((8, *Data().long_lengths)):
        expected = {(case.a, case.b) for case in structured_cases(width) if class_of(case.a, case.b) > above}
        assert len(expected) >= 25 and expected <= found


def test_lengths_are_mixed_over_the_split():
    for split in sampling.SPLITS:
        size = split_size(Data(), split)
        halves = [
            np.mean([class_of(a, b) for _, a, b in flat(Data(), split, *bounds).values()])
            for bounds in ((0, size // 2), (size // 2, size))
        ]
        assert halves[0] == pytest.approx(halves[1], rel=0.2)


def test_seeds_and_spans_change_the_records_and_nothing_else_does():
    one = flat(Data(), "train", 0, 50)
    assert one == flat(Data(shards=7, long_examples=3, eval_examples=100), "train", 0, 50)
    assert one != flat(Data(seed=2), "train", 0, 50)
    assert one != flat(Data(span=1), "train", 0, 50)
    assert flat(Data(), "long", 0, 50) != flat(Data(span=1), "long", 0, 50)


def test_the_records_of_a_seed_never_change():
    assert flat(Data(), "train", 0, 4) == {0: (7, 73, 104), 1: (8, 8, 101), 2: (8, 13, 106), 3: (7, 96, 69)}
    long = {position: (width, a % 1000, b % 1000) for position, (width, a, b) in flat(Data(), "long", 0, 3).items()}
    assert long == {0: (4096, 335, 333), 1: (2048, 655, 439), 2: (64, 543, 515)}


def test_random_pairs_are_spread_evenly():
    a = np.array([a for a, b in pairs(Data(train_examples=30000), "train") if class_of(a, b) == 8])
    counts = np.bincount(a // 16, minlength=16)
    # A pair of class 8 has a < 128 with probability 1/3; both halves are flat.
    expected = np.array([1 / 24] * 8 + [2 / 24] * 8) * len(a)
    # 15 degrees of freedom: above 37.7 once in a thousand.
    assert ((counts - expected) ** 2 / expected).sum() < 37.7


def test_quotas_are_shared_by_hand():
    assert quotas([4, 12, 48], 64) == [4, 12, 48]
    assert quotas([4, 12, 48], 30) == [4, 12, 14]
    assert quotas([10, 10, 10], 4) == [1, 1, 2]
    assert quotas([3, 9, 36], 3) == [1, 1, 1]


def test_an_unknown_split_is_refused():
    with pytest.raises(ValueError, match="'test'"):
        split_size(Data(), "test")
