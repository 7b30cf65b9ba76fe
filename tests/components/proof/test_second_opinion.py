"""A second opinion on the certificate: the containment check once more, by mpmath's interval arithmetic, from the JSON
alone.

Nothing of the project computes here: mpmath's `iv` at 80 bits, the allowances from their definition, the full adder
from integers. It accepts the same certificates as the checker.
"""

import copy
import json
import pathlib

import pytest
from mpmath import iv, mpf

from components.proof import checker
from components.proof.weights import NAMES, Weights

DATA = pathlib.Path(__file__).parents[2] / "data"
CERTIFICATE = json.loads((DATA / "addition_8_certificate.json").read_text())
MODEL = json.loads((DATA / "addition_8_weights.json").read_text())


@pytest.fixture(autouse=True)
def eighty_bits():
    before, iv.prec = iv.prec, 80
    yield
    iv.prec = before


def numbers(value):
    return float.fromhex(value) if isinstance(value, str) else [numbers(item) for item in value]


def summed(terms):
    """Sum of (weight, interval), with gamma_k of the magnitudes and the flushing of k terms."""
    k, u = len(terms), mpf(2) ** -24
    total = sum((iv.mpf(weight) * x for weight, x in terms), iv.mpf(0))
    size = sum((abs(iv.mpf(weight)) * abs(x).b for weight, x in terms), iv.mpf(0)).b
    allowed = (
        iv.mpf(k) * u / (1 - iv.mpf(k) * u) * size + k * max(1, *(abs(weight) for weight, _ in terms)) * mpf(2) ** -124
    )
    return total + iv.mpf([-1, 1]) * allowed.b


def within(x, lower, upper):
    return iv.mpf([max(x.a, lower), min(x.b, upper)])


def widened(x, exponent):
    return x + iv.mpf([-1, 1]) * mpf(2) ** exponent


def sigmoid(x):
    low, high = (1 / (1 + iv.exp(-iv.mpf(end))) for end in (x.a, x.b))
    return within(widened(iv.mpf([low.a, high.b]), -20), 0, 1)


def tanh(x):
    low, high = (1 - 2 / (iv.exp(2 * iv.mpf(end)) + 1) for end in (x.a, x.b))
    return within(widened(iv.mpf([low.a, high.b]), -19), -1, 1)


def mixed(z, h, t):
    corners = [
        [(1 - iv.mpf(z_end)) * h_end + iv.mpf(z_end) * t_end for z_end in (z.a, z.b)]
        for h_end, t_end in ((h.a, t.a), (h.b, t.b))
    ]
    return within(widened(iv.mpf([min(x.a for x in corners[0]), max(x.b for x in corners[1])]), -22), -1, 1)


def image(v, hidden, symbol):
    def gate(name, state):
        inputs = [(row, iv.mpf(bit)) for row, bit in enumerate(symbol)]
        return [
            summed(
                [(v[f"W_{name}"][row][j], x) for row, x in inputs]
                + [(v[f"b_{name}"][j], iv.mpf(1))]
                + [(v[f"U_{name}"][i][j], x) for i, x in enumerate(state)]
            )
            for j in range(len(hidden))
        ]

    z, r = map(sigmoid, gate("z", hidden)), map(sigmoid, gate("r", hidden))
    t = map(tanh, gate("h", [within(widened(x * y, -22), -1, 1) for x, y in zip(r, hidden, strict=True)]))
    following = [mixed(*zht) for zht in zip(z, hidden, t, strict=True)]
    return following, summed(
        [(v["b_o"][0], iv.mpf(1))] + [(row[0], x) for row, x in zip(v["W_o"], following, strict=True)]
    )


def accepts(certificate, model):
    """(accepted, worst margin)."""
    v = {name: numbers(model[name]) for name in NAMES}
    boxes = {
        box["output"] + 2 * box["state"]: (numbers(box["lower"]), numbers(box["upper"])) for box in certificate["boxes"]
    }
    origins = [(0, [iv.mpf(0)] * certificate["units"])]
    origins += [(n // 2, [iv.mpf(side) for side in zip(*boxes[n], strict=True)]) for n in boxes]
    margins, contained = [], []
    for carry, hidden in origins:
        for symbol in ((0, 0), (0, 1), (1, 0), (1, 1)):
            n = sum(symbol) + carry
            following, logit = image(v, hidden, symbol)
            margins.append(logit.a if n % 2 else -logit.b)
            contained += [low <= x.a and x.b <= high for x, low, high in zip(following, *boxes[n], strict=True)]
    return all(contained) and min(margins) > 0, float(min(margins))


def weights(model):
    return Weights.of({name: numbers(model[name]) for name in NAMES})


def test_both_accept_with_the_same_margin():
    accepted, margin = accepts(CERTIFICATE, MODEL)
    verdict = checker.check(CERTIFICATE, weights(MODEL))
    assert accepted and verdict.proven
    assert margin == pytest.approx(verdict.margin, abs=1e-9)


@pytest.mark.parametrize("box", range(4))
@pytest.mark.parametrize("side, inward", [("lower", 1), ("upper", -1)])
def test_both_judge_alike_where_a_side_is_moved_by_little(box, side, inward):
    verdicts = set()
    for unit, amount in zip((box, 7 - box, (box + 4) % 8), (1e-7, 3e-6, 3e-5), strict=True):
        moved = copy.deepcopy(CERTIFICATE)
        place = moved["boxes"][box][side]
        place[unit] = (float.fromhex(place[unit]) + inward * amount).hex()
        proven = checker.check(moved, weights(MODEL)).proven
        assert accepts(moved, MODEL)[0] == proven
        verdicts.add(proven)
    assert False in verdicts


def test_both_refuse_other_weights():
    other = MODEL | {"W_o": [[(-float.fromhex(value)).hex() for value in row] for row in MODEL["W_o"]]}
    assert not accepts(CERTIFICATE, other)[0]
    assert not checker.check(CERTIFICATE | {"weights_sha256": weights(other).sha256()}, weights(other)).proven
