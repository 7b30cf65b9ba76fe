"""Interval arithmetic on floats, rounded outward: the returned interval always contains the real result.

An interval is a pair (lower, upper) of finite floats, lower <= upper. Sums, differences, products and quotients of IEEE
doubles are rounded to the nearest double, so the real result lies between the neighbours of the rounded one. After each
operation each end moves to its outer neighbour (`math.nextafter`). NaN gives meaningless results; the certificate's
reader and `Weights.problem` refuse it.

sigmoid and tanh do not trust the platform's libm. They take the exponential from `decimal`, which documents it as
correctly rounded, half-even in every context.
"""

import decimal
from collections.abc import Iterable, Sequence
from math import inf, nextafter

Interval = tuple[float, float]

# Twenty digits: the relative error, one unit in the last place or 1e-19, is far below half an ulp (>= 5e-17). The step
# to the neighbouring double covers that and the half ulp of the conversion.
_DIGITS = decimal.Context(
    prec=20, rounding=decimal.ROUND_HALF_EVEN, Emin=-999999, Emax=999999, traps=[decimal.InvalidOperation]
)
# exp(-700) = 2 ** -1009.9.
_FAR = 700.0
_TINY = 2.0**-1000


def add(x: Interval, y: Interval) -> Interval:
    """x + y."""
    return nextafter(x[0] + y[0], -inf), nextafter(x[1] + y[1], inf)


def mul(x: Interval, y: Interval) -> Interval:
    """x * y: the extreme products of the ends."""
    products = (x[0] * y[0], x[0] * y[1], x[1] * y[0], x[1] * y[1])
    return nextafter(min(products), -inf), nextafter(max(products), inf)


def dot(weights: Sequence[float], terms: Iterable[Interval]) -> tuple[float, float, float]:
    """(lower, upper, size) of sum w_i x_i over all x_i in terms_i; `size` bounds sum |w_i x_i| from above.

    `weights` and `terms` have the same length.
    """
    lower = upper = size = 0.0
    for weight, (low, high) in zip(weights, terms, strict=True):
        if weight < 0:
            low, high = high, low
        low = nextafter(weight * low, -inf)
        high = nextafter(weight * high, inf)
        lower = nextafter(lower + low, -inf)
        upper = nextafter(upper + high, inf)
        size = nextafter(size + max(-low, high), inf)
    return lower, upper, size


def inflate(x: Interval, allowance: float) -> Interval:
    """x, wider by `allowance` >= 0 on both sides."""
    return nextafter(x[0] - allowance, -inf), nextafter(x[1] + allowance, inf)


def clamp(x: Interval, lower: float, upper: float) -> Interval:
    """The part of x that lies in [lower, upper]; an end of [lower, upper] where x lies outside."""
    return min(max(x[0], lower), upper), max(min(x[1], upper), lower)


def sigmoid(x: Interval) -> Interval:
    """1 / (1 + exp(-x)), which increases with x."""
    return _sigmoid(x[0])[0], _sigmoid(x[1])[1]


def tanh(x: Interval) -> Interval:
    """The hyperbolic tangent, which increases with x."""
    return _tanh(x[0])[0], _tanh(x[1])[1]


def lerp(z: Interval, h: Interval, t: Interval) -> Interval:
    """(1 - z) h + z t for 0 <= z <= 1: increases with h and t, and is linear in z, so that corners hold the
    extremes."""
    low = min(_lerp_below(z[0], h[0], t[0]), _lerp_below(z[1], h[0], t[0]))
    high = max(-_lerp_below(z[0], -h[1], -t[1]), -_lerp_below(z[1], -h[1], -t[1]))
    return low, high


def _lerp_below(z: float, h: float, t: float) -> float:
    return nextafter(h + nextafter(z * nextafter(t - h, -inf), -inf), -inf)


def _decay(x: float) -> Interval:
    """exp(-x) for x >= 0."""
    if x > _FAR:
        return 0.0, _TINY
    value = float(_DIGITS.exp(decimal.Decimal(-x)))
    return nextafter(value, 0.0), nextafter(value, inf)


def _sigmoid(x: float) -> Interval:
    low, high = _decay(abs(x))
    if x >= 0:
        return _quotient(1.0, nextafter(1.0 + high, inf))[0], min(_quotient(1.0, nextafter(1.0 + low, -inf))[1], 1.0)
    return max(_quotient(low, nextafter(1.0 + low, inf))[0], 0.0), _quotient(high, nextafter(1.0 + high, -inf))[1]


def _tanh(x: float) -> Interval:
    if x < 0:
        low, high = _tanh(-x)
        return -high, -low
    low, high = _decay(2.0 * x)
    lower = _quotient(nextafter(1.0 - high, -inf), nextafter(1.0 + high, inf))[0]
    upper = _quotient(nextafter(1.0 - low, inf), nextafter(1.0 + low, -inf))[1]
    return max(lower, 0.0), min(upper, 1.0)


def _quotient(numerator: float, denominator: float) -> Interval:
    value = numerator / denominator
    return nextafter(value, -inf), nextafter(value, inf)
