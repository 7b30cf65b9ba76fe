"""The benchmark of float32 steps at a small share, and that it notices boxes that are too small and weights that are
wrong."""

import dataclasses

import numpy as np
import pytest

from benchmarks import float32_steps
from benchmarks.float32_steps import inward, watch
from components.proof import certificate as claims
from components.proof import checker
from components.proof.certificate import Box
from tests.support import certified

WEIGHTS = certified.weights()
CERTIFICATE = claims.parse(certified.certificate())
STEPS = 40_000


def dice():
    return np.random.default_rng(1)


def pulled_in(certificate, amount):
    """Every side that is not at -1 or 1."""

    def box(old):
        lower = tuple(side + amount if side > -1 else side for side in old.lower)
        return dataclasses.replace(
            old, lower=lower, upper=tuple(side - amount if side < 1 else side for side in old.upper)
        )

    return dataclasses.replace(certificate, boxes=tuple(map(box, certificate.boxes)))


@pytest.fixture(scope="module")
def model():
    return float32_steps.prepared(WEIGHTS, CERTIFICATE)


@pytest.fixture(scope="module")
def tallies(model):
    return watch(model, STEPS, dice())


def test_no_state_leaves_its_box_and_none_comes_nearer_than_the_checker_says(model, tallies):
    assert model.slack == checker.check(certified.certificate(), WEIGHTS).slack
    assert set(tallies) == {"from corners", "random", "structured", "greedy from h_0", "greedy from a corner"}
    assert tallies["from corners"].steps == 4 * 4 * 2**8  # each symbol from each corner of each box
    assert sum(tally.steps for tally in tallies.values()) >= STEPS
    for tally in tallies.values():
        assert tally.wrong == tally.outside == 0 and 0.99 * model.slack < tally.closest < 1
    # Corners are where it is tight.
    assert tallies["from corners"].closest < 20 * model.slack


def test_sides_pulled_in_a_little_are_noticed(model, tallies):
    closest = tallies["from corners"].closest
    narrow = watch(model._replace(certificate=pulled_in(CERTIFICATE, 2 * closest)), STEPS, dice())
    assert narrow["from corners"].outside and not any(tally.wrong for tally in narrow.values())
    assert narrow["from corners"].closest < 0


def test_wrong_bits_are_noticed():
    model = float32_steps.prepared(WEIGHTS, CERTIFICATE)
    model.cell.W_o.assign(-model.cell.W_o)
    tallies = watch(model, STEPS, dice())
    assert all(tally.wrong and not tally.outside for tally in tallies.values())


def test_refused_certificates_are_not_watched():
    with pytest.raises(ValueError, match="not proven"):
        float32_steps.prepared(certified.noisy(WEIGHTS, 0.1, 1), CERTIFICATE)


def test_sides_in_float32_by_hand():
    # 0.1 lies between the float32 numbers 13421772 / 2^27 and 13421773 / 2^27; 0.25 is one.
    low, high = 13421772 / 2**27, 13421773 / 2**27
    assert low < 0.1 < high
    lower, upper = inward([Box(0, 0, (0.1, -0.1, 0.25, 1e-42, -1e-42, 5e-324), (0.1, -0.1, 0.25, 1e-42, -1e-42, 0.0))])
    assert lower.dtype == upper.dtype == np.float32
    assert lower[0].tolist() == [high, -low, 0.25, 2.0**-126, 0.0, 2.0**-126]
    assert upper[0].tolist() == [low, -high, 0.25, 0.0, -(2.0**-126), 0.0]
