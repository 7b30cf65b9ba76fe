"""The checker accepts the finder's certificates; without a proof the finder gives the reason."""

import numpy as np
import pytest

from components.model import bomb
from components.proof import certificate, checker, finder
from components.proof.counterexample import search
from components.proof.weights import Weights
from components.task.transducer import ADDITION, COMPARISON, SUBTRACTION
from tests.support import certified

pytestmark = pytest.mark.fast

WEIGHTS = certified.weights()


def test_found_certificates_are_accepted():
    finding = finder.find(WEIGHTS)
    verdict = checker.check(certificate.write(finding.certificate), WEIGHTS)
    assert verdict.proven and finding.reason == "found"
    assert 0 < finding.margin <= verdict.margin


@pytest.mark.parametrize("depth, count", [(0, 4), (1, 8), (2, 28)])
def test_boxes_can_be_kept_apart_by_the_last_symbols(depth, count):
    finding = finder.find(WEIGHTS, depths=(depth,))
    assert len(finding.certificate.boxes) == count
    assert checker.check(certificate.write(finding.certificate), WEIGHTS).proven


def test_graph_of_addition_by_hand():
    graph = finder.graph(ADDITION, 0)
    assert graph.labels == ((0, 0), (0, 1), (1, 0), (1, 1))
    assert graph.first.tolist() == [0, 1, 1, 2]
    assert graph.following.tolist() == [[0, 1, 1, 2], [0, 1, 1, 2], [1, 2, 2, 3], [1, 2, 2, 3]]


def test_other_tasks_are_not_proven_of_an_adder():
    for task in (SUBTRACTION, COMPARISON):
        finding = finder.find(WEIGHTS, task)
        assert finding.certificate is None and "margin" in finding.reason


@pytest.mark.parametrize("z_bias", [-6.0, -11.0, -16.0])
def test_time_bombs_are_not_proven(z_bias):
    finding = finder.find(bomb.with_creeping_unit(WEIGHTS, z_bias, 40.0))
    assert finding.certificate is None and finding.margin < 0
    # The same unit without a weight in the logit is harmless.
    harmless = bomb.with_creeping_unit(WEIGHTS, z_bias, 0.0)
    assert checker.check(certificate.write(finder.find(harmless).certificate), harmless).proven


def test_slow_growth_is_followed_to_its_limit():
    """Some units of this model keep all but 1e-4 of their state in each step. Their limits are near; boxes that are
    much wider drag the others along until nothing is left to prove."""
    creeping = certified.weights("addition_16_creeping")
    finding = finder.find(creeping, depths=(0,))
    assert checker.check(certificate.write(finding.certificate), creeping).proven and finding.margin > 2.9


def test_untrained_cells_are_not_proven():
    random = np.random.default_rng(3)
    cell = certified.changed(
        WEIGHTS, **{name: random.normal(size=value.shape) for name, value in certified.arrays(WEIGHTS).items()}
    )
    assert finder.find(cell).certificate is None


def test_certificates_for_perturbed_weights_are_never_wrong():
    accepted = refused = 0
    for scale in (1e-3, 1e-2, 1e-1):
        for seed in range(3):
            cell = certified.noisy(WEIGHTS, scale, seed)
            finding = finder.find(cell, depths=(0,))
            if finding.certificate is None:
                refused += 1
                continue
            accepted += checker.check(certificate.write(finding.certificate), cell).proven
            assert search(cell, length=256, max_length=512) is None
            # The boxes are those of the cell for which they were found.
            assert not checker.check(certificate.write(finding.certificate), WEIGHTS).proven
    assert accepted and accepted + refused == 9


def test_weights_with_a_problem_are_refused():
    with pytest.raises(ValueError, match="b_o"):
        finder.find(certified.replaced(WEIGHTS, b_o=(float("nan"),)))
    three = certified.changed(WEIGHTS, **{name: np.ones((3, 8)) for name in ("W_z", "W_r", "W_h")})
    with pytest.raises(ValueError, match="symbols of 3 bits"):
        finder.find(three)
    assert isinstance(three, Weights)
