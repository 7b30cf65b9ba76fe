"""The benchmark of refusals at a small share, and that it notices a checker that lets something through."""

import math

import numpy as np
import pytest

from benchmarks import broken_certificates, broken_models, refusals, simulation
from benchmarks.float32_steps import ARTICLE
from components.model import bomb
from components.model.gru import GRU
from components.proof import checker, finder
from components.proof.counterexample import structured_words
from components.proof.weights import NAMES
from components.settings import Train
from tests.support import certified

WEIGHTS = certified.weights()
# Rows of the table whose damage may be too little to matter, or none at all to a cell that gets new boxes.
HARMLESS = (
    "pulled in by 1e-07",
    "pulled in by 1e-05",
    "pushed out",
    "denormal",
    "start state moved",
    "new boxes",
    "1e-07 N",
    "1e-05 N",
    "0.0001 N",
    "0.001 N",
    "sign flipped",
    "never goes off",
)


@pytest.fixture(scope="module")
def bases():
    other = certified.noisy(WEIGHTS, 0.01, 1)
    return [refusals.Base(WEIGHTS, certified.certificate()), refusals.base(other, finder.find(other).certificate)]


@pytest.fixture(scope="module")
def articles():
    short = ARTICLE._replace(train=Train(units=8, loss="quadratic", learning_rate=1e-3, steps=60))
    return refusals.article_models(1, recipe=short)


def test_every_kind_is_tried_and_nothing_wrong_is_accepted(bases, articles):
    table = refusals.run(bases, articles, 0.03)
    assert set(table) == {*broken_certificates.kinds(), *broken_models.kinds(articles)}
    assert all(row.tried >= 1 and row.tried == row.refused + row.right + row.wrong for row in table.values())
    assert not {name: row for name, row in table.items() if row.wrong}
    assert table["weights times 1 + 0.001 N(0, 1), new boxes"].right
    assert table["bomb that never goes off, new boxes"].right
    for name in table:
        assert table[name].refused or any(part in name for part in HARMLESS), name


def test_a_checker_that_accepts_everything_is_caught(bases, articles):
    table = refusals.run(bases, articles, 0.001, check=lambda text, weights: checker.Verdict(True, ""))
    assert not any(row.refused for name, row in table.items() if "new boxes" not in name)
    unnoticed = [name for name, row in table.items() if not row.wrong and not any(part in name for part in HARMLESS)]
    assert not unnoticed


def test_simulation_alone_catches_a_checker_without_containment(bases):
    kind = broken_certificates.kinds()["side of a box pulled in by 0.1"]
    cases = [kind.damage(bases, index, np.random.default_rng(index)) for index in range(4)]
    assert all(errors > 0 for errors in simulation.errors([case[:2] for case in cases], 0.05))


def test_simulation_alone_catches_a_checker_without_the_margin(bases):
    world = [box | {"lower": [(-1.0).hex()] * 8, "upper": [(1.0).hex()] * 8} for box in bases[0].certificate["boxes"]]
    forged = bases[0].certificate | {"boxes": world}
    assert "margin" in checker.check(forged, WEIGHTS).reason
    assert simulation.errors([(WEIGHTS, forged)], 0.01)[0] > 0


def test_simulation_counts_wrong_bits_and_states_outside():
    flipped = certified.changed(WEIGHTS, W_o=-np.array(WEIGHTS.W_o), b_o=-np.array(WEIGHTS.b_o))
    narrow = certified.certificate()
    narrow["boxes"][1]["lower"][0] = narrow["boxes"][1]["upper"][0]
    start = certified.certificate()
    start["starts"][1]["hidden"] = start["starts"][0]["hidden"]
    right, bits, states, begin, *none = simulation.errors(
        [
            (WEIGHTS, certified.certificate()),
            (flipped, certified.certificate()),
            (WEIGHTS, narrow),
            (WEIGHTS, start),
            (WEIGHTS, "{}"),
            (bomb.with_creeping_unit(WEIGHTS, -9.0, 1.0), certified.certificate()),
        ],
        0.01,
    )
    assert right == 0 and states > 0 and begin > 0 and none == [1, 1]
    # Every bit: 64 random and 22 long words of 16 steps, the structured ones of 8, and 12 steps from each of 1024
    # states.
    assert bits == 86 * 16 + len(structured_words(4, 8)) * 8 + 1024 * 12


@pytest.mark.parametrize("index, z_bias", list(enumerate(broken_models.Z_BIASES)))
def test_the_bombs_go_off(bases, index, z_bias):
    # The bomb's unit reads nothing and nothing reads it: after enough (0, 0) steps the state is that of the sound cell
    # beside it.
    weights = (
        broken_models.kinds([])["time bomb, new boxes"]
        .damage(bases, index * len(bases), np.random.default_rng(0))
        .weights
    )
    assert weights.units == 9 and weights.b_z[-1] == z_bias
    assert not any(row[-1] for gate in "zrh" for row in getattr(weights, f"U_{gate}")) and not any(weights.U_h[-1])
    cell = GRU(9)
    for name in NAMES:
        getattr(cell, name).assign(getattr(weights, name))
    nothing = np.zeros((1, 2), np.float32)
    hidden = cell.step(nothing, cell.start(1))
    assert cell.logit(hidden) < 0
    level = bomb.state(broken_models.BOMB_STEPS, z_bias)
    assert 0 < hidden[0, -1] < level <= math.tanh(3)
    assert cell.logit(np.append(hidden[:, :-1], [[level]], axis=1).astype(np.float32)) > 0
