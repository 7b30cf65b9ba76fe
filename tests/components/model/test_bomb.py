"""The time bomb: right for as long as any test lasts, wrong where promised, and never proven."""

import numpy as np
import pytest

from components.model import bomb
from components.proof import certificate, checker, counterexample, finder
from components.task.addition import from_bits, to_bits
from components.task.transducer import ADDITION
from tests.support import certified

WEIGHTS = certified.weights()
# The certificate's bound on every logit.
DISTANCE = checker.check(certified.certificate(), WEIGHTS).margin


def first_wrong(weights, words: np.ndarray) -> list[int]:
    """For each word, uint8 [N, T] of symbols, the position of its first wrong bit, T if all are right."""
    count, length = words.shape
    cell = certified.arrays(weights)
    symbols = np.array(ADDITION.inputs, np.float32)
    gates = np.hstack([cell["U_z"], cell["U_r"]])
    add_gates = symbols @ np.hstack([cell["W_z"], cell["W_r"]]) + np.hstack([cell["b_z"], cell["b_r"]])
    add_candidate = symbols @ cell["W_h"] + cell["b_h"]
    hidden, logits = np.zeros((count, weights.units), np.float32), np.empty((length, count), np.float32)
    one = np.float32(1)
    for position, symbol in enumerate(words.T):
        z, r = np.hsplit(one / (one + np.exp(-(add_gates[symbol] + hidden @ gates))), 2)
        hidden = (one - z) * hidden + z * np.tanh(add_candidate[symbol] + (r * hidden) @ cell["U_h"])
        logits[position] = hidden @ cell["W_o"][:, 0]
    found = []
    for word, answer in zip(words, (logits.T + cell["b_o"] > 0), strict=True):
        a, b = (from_bits(np.array(ADDITION.inputs)[word, operand].tolist()) for operand in (0, 1))
        wrong = np.nonzero(answer != np.array(to_bits(a + b, length + 1)[:length]))[0]
        found.append(int(wrong[0]) if len(wrong) else length)
    return found


def test_a_bomb_of_143000_steps_is_right_for_so_long_and_wrong_soon_after():
    length = 164_000
    # 1 + 11...1, and random words.
    words = np.concatenate(
        [counterexample.long_words(4, length)[13:14], np.random.default_rng(1).integers(0, 4, (4, length), np.uint8)]
    )
    found = first_wrong(bomb.with_time_bomb(WEIGHTS, DISTANCE, 143_000), words)
    assert min(found) >= 143_000 and max(found) < length


@pytest.mark.parametrize("steps, update_bias", [(200, -8.0), (3000, -10.0), (8000, -11.0)])
def test_the_unit_is_where_the_closed_form_has_it(steps, update_bias):
    z = 1 / (1 + np.exp(-update_bias))
    assert bomb.state(steps, update_bias) == pytest.approx(np.tanh(3.0) * (1 - (1 - z) ** steps), rel=0.02)
    cell = counterexample._Cell(bomb.with_time_bomb(WEIGHTS, DISTANCE, steps, update_bias), ADDITION)
    hidden = np.zeros((1, 9), np.float32)
    for _ in range(steps):
        hidden, _ = cell.step(hidden, np.array([2]))
    assert hidden[0, -1] == pytest.approx(bomb.state(steps, update_bias), rel=1e-5)


def test_a_short_bomb_goes_off_between_its_steps_and_the_longest_distance():
    words = counterexample.structured_words(4, 1500)
    bombed = bomb.with_time_bomb(WEIGHTS, DISTANCE, 500, -8.0)
    found = first_wrong(bombed, words)
    assert min(found) >= 500 and min(found) < 600
    assert first_wrong(WEIGHTS, words[::40]) == [1500] * len(words[::40])


def test_nothing_else_of_the_cell_is_changed():
    bombed = bomb.with_time_bomb(WEIGHTS, DISTANCE, 1000)
    arrays, before = certified.arrays(bombed), certified.arrays(WEIGHTS)
    assert bombed.units == WEIGHTS.units + 1 and not bombed.problem()
    for name, value in before.items():
        kept = arrays[name][tuple(slice(size) for size in value.shape)]
        assert np.array_equal(kept, value)
        rest = np.delete(arrays[name].ravel(), np.isin(arrays[name].ravel(), value.ravel()))
        assert np.count_nonzero(rest) == (name in ("b_z", "b_h", "W_o"))


def test_the_proof_refuses_it():
    bombed = bomb.with_time_bomb(WEIGHTS, DISTANCE, 143_000)
    assert finder.find(WEIGHTS).certificate
    finding = finder.find(bombed)
    assert finding.certificate is None and "worst margin is -" in finding.reason


def test_the_checker_refuses_even_the_best_boxes():
    bombed = bomb.with_time_bomb(WEIGHTS, DISTANCE, 143_000)
    text, zero = certified.certificate(), (0.0).hex()
    everywhere = [
        box | {"lower": [*box["lower"], (-1.0).hex()], "upper": [*box["upper"], (1.0).hex()]} for box in text["boxes"]
    ]
    starts = [start | {"hidden": [*start["hidden"], zero]} for start in text["starts"]]
    forged = certified.for_weights(text | {"boxes": everywhere, "starts": starts, "units": 9}, bombed)
    certificate.parse(forged)
    verdict = checker.check(forged, bombed)
    assert not verdict.proven and "margin" in verdict.reason and verdict.margin < 0


@pytest.mark.parametrize(
    "distance, steps, words", [(0.0, 10, "must be positive"), (-1.0, 10, "must be positive"), (1.0, 0, "W_o")]
)
def test_no_bomb_without_something_to_outweigh(distance, steps, words):
    with pytest.raises(ValueError, match=words):
        bomb.with_time_bomb(WEIGHTS, distance, steps)
