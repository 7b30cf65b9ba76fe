"""Interval operations against exact rationals, and the activations against mpmath at 60 digits."""

import decimal
import math
from fractions import Fraction

import mpmath
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.proof import interval

pytestmark = pytest.mark.fast

# Within these no product underflows or overflows, as in the proof.
floats = st.floats(-1e6, 1e6, allow_subnormal=False).map(lambda x: x if abs(x) > 1e-60 else 0.0)
shares = st.floats(0.0, 1.0, allow_subnormal=False)
everywhere = st.floats(allow_nan=False, allow_infinity=False)


@st.composite
def intervals(draw, values=floats):
    low, high = sorted((draw(values), draw(values)))
    return low, high


@st.composite
def points(draw, values=floats):
    """(interval, a float inside)."""
    low, inside, high = sorted((draw(values), draw(values), draw(values)))
    return (low, high), inside


def encloses(x, exact):
    return Fraction(x[0]) <= exact <= Fraction(x[1])


@given(points(), points())
def test_add_and_mul_enclose_the_exact_result(x, y):
    assert encloses(interval.add(x[0], y[0]), Fraction(x[1]) + Fraction(y[1]))
    assert encloses(interval.mul(x[0], y[0]), Fraction(x[1]) * Fraction(y[1]))


@given(floats, floats)
def test_add_and_mul_of_points_are_tight(x, y):
    low, high = interval.add((x, x), (y, y))
    assert high - low <= 4 * math.ulp(x + y)
    low, high = interval.mul((x, x), (y, y))
    assert high - low <= 4 * math.ulp(x * y)


@given(st.lists(st.tuples(floats, points()), max_size=20))
def test_dot_encloses_the_exact_sum_and_its_size(terms):
    weights = [weight for weight, _ in terms]
    low, high, size = interval.dot(weights, [x for _, (x, _) in terms])
    products = [Fraction(weight) * Fraction(inside) for weight, (_, inside) in terms]
    assert encloses((low, high), sum(products))
    assert sum(map(abs, products)) <= Fraction(size)


def test_dot_by_hand():
    low, high, size = interval.dot([2.0, -1.0], [(1.0, 3.0), (-1.0, 4.0)])
    assert (low, high, size) == pytest.approx((-2.0, 7.0, 10.0), abs=1e-14)


def test_dot_rounds_every_sum_outward():
    # Each 0.75 * 2**-52 added to 1 is rounded up by a quarter of an ulp: twenty of them lie beyond what the products
    # leave.
    values = [1.0, *[0.75 * 2.0**-52] * 20]
    for sign in (1, -1):
        low, high, size = interval.dot([float(sign)] * 21, [(value, value) for value in values])
        exact = sum(map(Fraction, values))
        assert encloses((low, high), sign * exact) and exact <= Fraction(size)


def test_dot_needs_a_term_for_each_weight():
    with pytest.raises(ValueError):
        interval.dot([1.0, 2.0], [(0.0, 0.0)])


@given(points(), floats.map(abs))
def test_inflate_encloses(x, allowance):
    for sign in (-1, 1):
        assert encloses(interval.inflate(x[0], allowance), Fraction(x[1]) + sign * Fraction(allowance))


@given(points(), intervals())
def test_clamp_keeps_what_lies_within(x, limits):
    low, high = interval.clamp(x[0], *limits)
    assert limits[0] <= low <= high <= limits[1]
    if limits[0] <= x[1] <= limits[1]:
        assert low <= x[1] <= high


@given(points(shares), points(), points())
def test_lerp_encloses_the_exact_result(z, h, t):
    exact = (1 - Fraction(z[1])) * Fraction(h[1]) + Fraction(z[1]) * Fraction(t[1])
    assert encloses(interval.lerp(z[0], h[0], t[0]), exact)


def test_lerp_is_tight_at_corners():
    low, high = interval.lerp((0.25, 0.75), (-1.0, 1.0), (0.5, 0.5))
    assert (low, high) == pytest.approx((-0.625, 0.875), abs=1e-14)


@pytest.mark.parametrize(
    "enclosure, exact, most",
    [(interval.sigmoid, lambda x: 1 / (1 + mpmath.exp(-x)), 1e-15), (interval.tanh, mpmath.tanh, 1e-15)],
)
def test_activations_enclose_the_exact_value(enclosure, exact, most):
    @given(st.one_of(everywhere, st.floats(-40, 40), st.floats(-1e-3, 1e-3)))
    def holds(x):
        low, high = enclosure((x, x))
        with mpmath.workdps(60):
            # Beyond 10**4 the exact value is nearer to the limit than mpmath's 60 digits, and cut on the right side.
            value = exact(mpmath.mpf(max(min(x, 1e4), -1e4)))
            assert mpmath.mpf(low) <= value <= mpmath.mpf(high)
        assert high - low <= most

    holds()


@given(intervals(everywhere))
def test_activations_keep_their_ranges_and_order(x):
    low, high = interval.sigmoid(x)
    assert 0.0 <= low <= high <= 1.0
    low, high = interval.tanh(x)
    assert -1.0 <= low <= high <= 1.0


def test_activations_do_not_depend_on_the_thread_context():
    wanted = interval.sigmoid((-3.7, 2.9)), interval.tanh((-3.7, 2.9))
    with decimal.localcontext() as context:
        context.prec, context.rounding, context.Emax = 3, decimal.ROUND_UP, 10
        assert (interval.sigmoid((-3.7, 2.9)), interval.tanh((-3.7, 2.9))) == wanted


def test_an_enclosure_without_outward_rounding_would_be_caught():
    # 0.1 + 0.2 is rounded up: the nearest double is not a lower bound of the exact sum.
    exact = Fraction(0.1) + Fraction(0.2)
    assert Fraction(0.1 + 0.2) > exact and encloses(interval.add((0.1, 0.1), (0.2, 0.2)), exact)
