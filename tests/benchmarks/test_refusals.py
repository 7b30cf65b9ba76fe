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


def tables_of(bases, articles, share):
    table = refusals.run(bases, articles, share)
    assert set(table) == {*broken_certificates.kinds(), *broken_models.kinds(articles)}
    assert all(row.tried >= 1 and row.tried == row.refused + row.right + row.wrong for row in table.values())
    return table


def test_every_kind_is_tried_and_nothing_wrong_is_accepted(bases, articles):
    table = tables_of(bases, articles, 0.03)
    assert not {name: row for name, row in table.items() if row.wrong}
    assert table["weights times 1 + 0.001 N(0, 1), new boxes"].right
    assert table["bomb that never goes off, new boxes"].right
    for name in table:
        assert table[name].refused or any(part in name for part in HARMLESS), name


def test_a_checker_that_accepts_everything_is_found_out(bases, articles, monkeypatch):
    monkeypatch.setattr(checker, "check", lambda *rest: checker.Verdict(True, ""))
    table = tables_of(bases, articles, 0.001)
    assert not any(row.refused for name, row in table.items() if "new boxes" not in name)
    unnoticed = [name for name, row in table.items() if not row.wrong and not any(part in name for part in HARMLESS)]
    assert not unnoticed


def test_a_checker_that_forgets_containment_is_found_out_by_simulation_alone(bases, monkeypatch):
    monkeypatch.setattr(checker, "_room", lambda step, box: 1.0)
    monkeypatch.setattr(broken_models, "kinds", lambda models: {})
    table = refusals.run(bases, [], 0.05)
    # Where a box is no longer its sides in order, it is refused all the same.
    row = table["side of a box pulled in by 0.1"]
    assert row.wrong and row.wrong + row.refused == row.tried


def test_a_checker_that_forgets_the_margin_is_found_out_by_simulation_alone(bases, monkeypatch):
    world = [box | {"lower": [(-1.0).hex()] * 8, "upper": [(1.0).hex()] * 8} for box in bases[0].certificate["boxes"]]
    forged = bases[0].certificate | {"boxes": world}
    assert not checker.check(forged, WEIGHTS).proven
    monkeypatch.setattr(checker, "_problem", lambda step, distance, room, margin, label: "" if room >= 0 else "outside")
    assert checker.check(forged, WEIGHTS).proven
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


def test_at_full_length_simulation_sees_what_takes_long(monkeypatch):
    # The unit leaves 0.1 after some 860 steps, and does not count enough for a wrong bit.
    monkeypatch.setattr(simulation._Batch, "_from_boxes", lambda self: 0)
    bombed = bomb.with_creeping_unit(WEIGHTS, -9.0, 0.01)
    text = broken_models._with_unit(refusals.Base(WEIGHTS, certified.certificate()), bombed, 0.1)
    assert simulation.errors([(bombed, text)], 0.1) == [0]
    assert simulation.errors([(bombed, text)], 1.0)[0] > 86 * 500


@pytest.mark.parametrize("index, z_bias", list(enumerate(broken_models.Z_BIASES)))
def test_the_bombs_do_go_off(bases, index, z_bias):
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
