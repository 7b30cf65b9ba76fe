"""Bit patterns of floats against numpy, and the samples of them."""

import random

import numpy as np
import pytest

from serving.probing import float_patterns

pytestmark = pytest.mark.fast


@pytest.mark.parametrize(
    "pattern, value", [(0x3FC00000, 1.5), (0xC0000000, -2.0), (1, 2.0**-149), (0x43000000, 128.0), (0, 0.0)]
)
def test_pattern_and_value(pattern, value):
    assert float_patterns.value(pattern) == value and float_patterns.pattern(value) == pattern


@pytest.mark.parametrize("start", [0, 0x7F7FFFF0, 0x7FFFFFF0, 0xFF7FFFF0, 0xFFFFFFF0, 0x3F800000])
@pytest.mark.parametrize("count", [1, 16, 17, 100])
def test_finite_patterns_are_counted_as_by_numpy(start, count):
    patterns = np.arange(start, start + count, dtype=np.uint64).astype(np.uint32)
    finite = np.isfinite(patterns.view(np.float32))
    assert float_patterns.count_finite(start, count) == finite.sum()
    assert [float_patterns.is_finite(int(pattern)) for pattern in patterns] == finite.tolist()


def test_all_finite_patterns():
    assert float_patterns.count_finite(0, 2**32) == float_patterns.count_finite(123, 2**32) == 2 * 255 * 2**23


def test_starts_lie_in_every_binade_of_both_signs_and_mostly_where_the_activations_bend():
    starts = np.array(float_patterns.starts(random.Random(1)), np.uint32)
    assert set(starts >> 23) == {*range(255), *range(256, 511)}
    values = np.abs(starts.view(np.float32))
    assert ((values > 2**-14) & (values < 2**7)).mean() > 0.4
    assert sorted(float_patterns.starts(random.Random(2))) != sorted(float_patterns.starts(random.Random(1)))


def test_points_are_finite_and_hold_the_ends():
    points = float_patterns.points(random.Random(1), 3000)
    values = np.array(points, np.uint32).view(np.float32)
    assert len(set(points)) == len(points) >= 3000 and np.isfinite(values).all()
    assert {0.0, 1.0, -1.0, 128.0, -128.0, float(np.finfo(np.float32).max), 2.0**-149, -(2.0**-149)} <= {
        *values.tolist()
    }
    assert {0, 2**31, float_patterns.pattern(128.0) - 1, float_patterns.pattern(-128.0) + 1} <= {*points}


@pytest.mark.parametrize("center", [0, 5, 0x3F800000, 2**32 - 1])
def test_around_holds_its_center(center):
    start = float_patterns.around(center, 10)
    assert center in {(start + offset) % 2**32 for offset in range(10)} and 0 <= start < 2**32
