"""Bit patterns of float32 numbers, integers from 0 to 2^32 - 1, and samples of them for a sweep of the activations.

    value(0x3FC00000)     # 1.5
    pattern(-2.0)         # 0xC0000000

Positive floats increase with their patterns; the sign is the highest bit, the exponent the next eight, biased by 127.
"""

import random
import struct

COUNT = 2**32

_SIGN = 2**31
_MANTISSA = 2**23
_INFINITY = 255 * _MANTISSA
# Between 2**-14 and 2**7 the activations bend and their kernels err; these exponents get more starts.
_BENT = range(127 - 14, 127 + 7)
_EXTRA_STARTS = 8

# Finite floats at a boundary: zeros, subnormals, ones, the range of the allowance, the largest.
_LANDMARKS = (0, 1, _MANTISSA - 1, _MANTISSA, 127 * _MANTISSA, 128 * _MANTISSA, 134 * _MANTISSA, _INFINITY - 1)


def value(pattern: int) -> float:
    """The float32 with this bit pattern."""
    return struct.unpack("<f", struct.pack("<I", pattern))[0]


def pattern(number: float) -> int:
    """The bit pattern of the float32 nearest to `number`."""
    return struct.unpack("<I", struct.pack("<f", number))[0]


def is_finite(pattern: int) -> bool:
    """Whether the float is neither infinite nor NaN."""
    return pattern % _SIGN < _INFINITY


def count_finite(start: int, count: int) -> int:
    """The number of finite floats among `count` <= 2^32 patterns from `start` on; 0 follows 2^32 - 1."""
    end = start + count
    return _finite_below(min(end, COUNT)) - _finite_below(start) + _finite_below(max(end - COUNT, 0))


def starts(draw: random.Random) -> list[int]:
    """Random start patterns in every binade of both signs, more of them where the activations bend."""
    exponents = [*range(255), *(exponent for exponent in _BENT for _ in range(_EXTRA_STARTS))]
    return [sign + exponent * _MANTISSA + draw.randrange(_MANTISSA) for sign in (0, _SIGN) for exponent in exponents]


def around(center: int, count: int) -> int:
    """The start of `count` patterns with `center` in their middle."""
    return (center - count // 2) % COUNT


def points(draw: random.Random, count: int) -> list[int]:
    """At least `count` finite patterns: landmarks of both signs with their neighbours, then random ones (`starts`)."""
    ends = {(landmark + offset) % _SIGN for landmark in _LANDMARKS for offset in (-1, 0, 1)}
    chosen = {sign + end for sign in (0, _SIGN) for end in ends if is_finite(end)}
    while len(chosen) < count:
        chosen.update(starts(draw))
    return sorted(chosen)


def _finite_below(end: int) -> int:
    """The number of finite patterns below `end` <= 2^32."""
    return min(end, _INFINITY) + min(max(end - _SIGN, 0), _INFINITY)
