"""The checker accepts what is proven and refuses everything else; the enclosures hold for float32 as numpy computes
it."""

import copy
import hashlib
import json
import math
import random

import numpy as np
import pytest

from components.model import bomb
from components.proof import certificate, checker
from components.proof.weights import Weights
from components.task.transducer import COMPARISON, SUBTRACTION
from tests.support import certified

pytestmark = pytest.mark.fast

WEIGHTS = certified.weights()
CERTIFICATE = certified.certificate()


def refusal(source, weights=WEIGHTS, *rest):
    verdict = checker.check(source, weights, *rest)
    assert not verdict.proven
    assert verdict.reason and "\n" not in verdict.reason and verdict.where
    return verdict.reason


def edited(*path, to):
    """The certificate with the member at `path` set, or changed by a function."""
    text = copy.deepcopy(CERTIFICATE)
    place = text
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = to(place[path[-1]]) if callable(to) else to
    return text


def test_the_certified_model_is_proven():
    verdict = checker.check(CERTIFICATE, WEIGHTS)
    assert verdict.proven and verdict.reason == "proven: addition of any length" and verdict.where == ""
    assert verdict.evaluations == 20 and verdict.slack > 0
    assert verdict.margin >= float.fromhex(CERTIFICATE["margin"]) > 1
    assert checker.check(json.dumps(CERTIFICATE), WEIGHTS) == verdict


def test_gamma_of_a_sum_by_hand():
    # 1 + 1 of two terms: exact sum 2, gamma_2 = 2u / (1 - 2u), twice 2^-124 for flushing.
    low, high = checker._sum((1.0, 1.0), [(1.0, 1.0), (1.0, 1.0)])
    u = 2.0**-24
    assert high - 2 == pytest.approx(2 * 2 * u / (1 - 2 * u), rel=1e-6) and 2 - low == pytest.approx(high - 2, rel=1e-6)
    # Terms that cancel are allowed the rounding of their magnitudes.
    low, high = checker._sum((1.0, -1.0), [(1.0, 1.0), (1.0, 1.0)])
    assert high == pytest.approx(4 * u, rel=1e-6, abs=0) and low == pytest.approx(-high, rel=1e-6, abs=0)
    low, high = checker._sum((0.0, 0.0), [(1.0, 1.0), (1.0, 1.0)])
    assert high >= 2 * 2.0**-124


@pytest.mark.parametrize("box", range(4))
@pytest.mark.parametrize("side", ["lower", "upper"])
def test_each_side_pulled_in_is_refused(box, side):
    for unit in range(8):
        pulled = edited(
            "boxes", box, side, unit, to=lambda text: (float.fromhex(text) + (3e-5 if side == "lower" else -3e-5)).hex()
        )
        assert "sticks out" in refusal(pulled)


def test_sides_that_do_not_form_an_interval_are_refused():
    for index in range(4):
        box = CERTIFICATE["boxes"][index]
        assert "lower <= upper" in refusal(
            edited("boxes", index, to=box | {"lower": box["upper"], "upper": box["lower"]})
        )
    assert "lower <= upper" in refusal(edited("boxes", 0, "upper", 3, to="0x1.0000000000001p+0"))
    assert "lower <= upper" in refusal(edited("boxes", 0, "lower", 3, to="-0x1.0000000000001p+0"))


def test_boxes_of_the_whole_range_are_refused():
    world = {"lower": [(-1.0).hex()] * 8, "upper": [(1.0).hex()] * 8}
    everything = CERTIFICATE | {"boxes": [box | world for box in CERTIFICATE["boxes"]]}
    assert "margin" in refusal(everything)


def test_missing_and_swapped_boxes_are_refused():
    for index in range(4):
        left = [box for other, box in enumerate(CERTIFICATE["boxes"]) if other != index]
        refusal(CERTIFICATE | {"boxes": left})
    for first in range(4):
        for second in range(first):
            boxes = copy.deepcopy(CERTIFICATE["boxes"])
            for side in ("lower", "upper"):
                boxes[first][side], boxes[second][side] = boxes[second][side], boxes[first][side]
            refusal(CERTIFICATE | {"boxes": boxes})


def test_more_boxes_with_a_label_are_allowed_and_all_are_checked():
    boxes = CERTIFICATE["boxes"]
    verdict = checker.check(CERTIFICATE | {"boxes": [*boxes, boxes[1]]}, WEIGHTS)
    assert verdict.proven and verdict.evaluations == 24
    wrong = boxes[1] | {"lower": boxes[2]["lower"], "upper": boxes[2]["upper"]}
    refusal(CERTIFICATE | {"boxes": [*boxes, wrong]})


_NAMED = ("nan", "inf", "-inf", "NaN", "Infinity", float("nan"), float("inf"))
_OTHERWISE_WRITTEN = ("0x1.0p+0", "1.0", "", "0x1.8p-1 ", "0X1.8P-1", "\u0660x1.0000000000000p+0")
_TOO_LARGE_OR_FINE = ("0x1p+2000", "0x1.0000000000000p+1024", "0x1.00000000000001p-1", "0x1.0000000000000p-99999")
_NO_TEXTS = (1, 0, 0.5, True, None, [], {}, 1e400, -1e308, 5e-324, 10**400)


@pytest.mark.parametrize("number", [*_NAMED, *_OTHERWISE_WRITTEN, *_TOO_LARGE_OR_FINE, *_NO_TEXTS])
def test_numbers_other_than_finite_hexadecimal_floats_are_refused(number):
    for path in (("boxes", 2, "lower", 5), ("starts", 1, "hidden", 0), ("margin",), ("allowances", "sigmoid")):
        assert refusal(edited(*path, to=number))


def test_denormal_and_huge_sides_are_refused():
    box = CERTIFICATE["boxes"][0]
    for unit in range(8):
        # The side that lies farther from zero moves to it, which takes away the box.
        side = "upper" if float.fromhex(box["upper"][unit]) > -float.fromhex(box["lower"][unit]) else "lower"
        for number in ("0x0.0000000000001p-1022", "-0x0.0000000000001p-1022"):
            refusal(edited("boxes", 0, side, unit, to=number))
        for side in ("lower", "upper"):
            for number in ("0x1.fffffffffffffp+1023", "-0x1.fffffffffffffp+1023"):
                assert "lower <= upper" in refusal(edited("boxes", 0, side, unit, to=number))


@pytest.mark.parametrize(
    "text",
    ["", "null", "[]", "1", "nan", '"certificate"', "{", "{}", "[" * 100_000, '{"a":' * 100_000, "\x00", "\ud800"],
)
def test_texts_other_than_certificates_are_refused(text):
    refusal(text)


def test_objects_other_than_json_are_refused():
    for thing in (None, 1, b"{}", [], CERTIFICATE | {"boxes": {1, 2}}, CERTIFICATE | {"task": object()}):
        refusal(thing)
    deep = []
    for _ in range(900):
        deep = [deep]
    for path in (("transducer",), ("margin",), ("boxes", 0, "lower", 3)):
        refusal(edited(*path, to=deep))
    loop = dict(CERTIFICATE)
    loop["boxes"] = loop
    refusal(loop)


def test_every_truncation_is_refused():
    text = json.dumps(CERTIFICATE)
    for end in range(0, len(text) - 1, 37):
        refusal(text[:end])


def test_random_edits_of_the_text_raise_nothing_and_prove_nothing_new():
    text = json.dumps(CERTIFICATE)
    dice = random.Random(1)
    margin = checker.check(CERTIFICATE, WEIGHTS).margin
    for _ in range(300):
        place = dice.randrange(len(text))
        verdict = checker.check(
            text[:place] + dice.choice('0123456789abcdef-+.px"{}[],: \n\x00e') + text[place + 1 :], WEIGHTS
        )
        # A last digit may change within the slack; the weights' margin does not.
        assert not verdict.proven or verdict.margin == pytest.approx(margin, abs=1e-2)


def test_members_missing_unknown_or_twice_are_refused():
    for name in CERTIFICATE:
        assert refusal({key: value for key, value in CERTIFICATE.items() if key != name})
    assert "unknown members: 'extra'" in refusal(CERTIFICATE | {"extra": 1})
    for name in ("state", "output", "lower", "upper"):
        assert f"lacks {name}" in refusal(
            edited("boxes", 1, to={k: v for k, v in CERTIFICATE["boxes"][1].items() if k != name})
        )
    twice = json.dumps(CERTIFICATE)[:-1] + ', "margin": "0x1.0000000000000p+0"}'
    assert "repeated" in refusal(twice)


@pytest.mark.parametrize(
    "path, value",
    [
        (("version",), 2),
        (("version",), True),
        (("version",), "1"),
        (("format",), "certificate"),
        (("task",), "subtraction"),
        (("units",), 7),
        (("units",), 9),
        (("units",), True),
        (("units",), "8"),
        (("units",), 0),
        (("units",), -8),
        (("boxes", 2, "state"), True),
        (("boxes", 1, "output"), True),
        (("starts", 1, "state"), True),
        (("boxes", 0, "state"), 2),
        (("boxes", 0, "output"), -1),
        (("boxes", 0, "output"), "0"),
        (("boxes", 0, "lower"), []),
        (("boxes", 0, "lower"), "0x0.0p+0"),
        (("boxes", 0, "upper"), None),
        (("boxes",), []),
        (("boxes",), {}),
        (("boxes", 0, "lower"), lambda side: side[:-1]),
        (("boxes", 0, "upper"), lambda side: [*side, side[0]]),
        (("transducer", "initial"), 1),
        (("transducer", "initial"), False),
        (("transducer", "table", 1, 2), 0),
        (("transducer", "table", 7, 2), True),
        (("transducer", "flush"), []),
        (("transducer", "reading"), "signed"),
        (("weights_sha256",), "0" * 64),
        (("weights_sha256",), ""),
        (("weights_sha256",), None),
        (("margin",), "0x0.0p+0"),
        (("margin",), "-0x1.0000000000000p-1"),
        (("margin",), "0x1.0000000000000p+3"),
        (("allowances", "sigmoid"), "0x1.0000000000000p-30"),
        (("allowances", "unit_roundoff"), "0x0.0p+0"),
        (("allowances",), {}),
        (("starts",), []),
        (("starts",), lambda starts: starts[:1]),
        (("starts",), lambda starts: [*starts, starts[1]]),
        (("starts", 0, "state"), 1),
        (("starts", 0, "hidden", 0), "0x1.0000000000000p-100"),
        (("starts", 1, "hidden"), ["0x0.0p+0"] * 8),
        (("starts", 1, "hidden", 2), lambda text: math.nextafter(float.fromhex(text), 2).hex()),
    ],
)
def test_a_changed_member_is_refused(path, value):
    refusal(edited(*path, to=value))


def test_the_start_of_another_box_is_refused():
    centre = [
        np.float32((float.fromhex(low) + float.fromhex(high)) / 2)
        for low, high in zip(CERTIFICATE["boxes"][0]["lower"], CERTIFICATE["boxes"][0]["upper"], strict=True)
    ]
    assert "start for state 1" in refusal(edited("starts", 1, "hidden", to=[float(value).hex() for value in centre]))


def test_a_proof_of_one_task_does_not_prove_another():
    for task in (SUBTRACTION, COMPARISON):
        assert "not for" in refusal(CERTIFICATE, WEIGHTS, task)
        claim = CERTIFICATE | {"task": task.name, "transducer": task.description()}
        refusal(claim, WEIGHTS, task)


def wrong_weights():
    nested = WEIGHTS.U_z
    yield certified.replaced(WEIGHTS, b_o=(math.nan,))
    yield certified.replaced(WEIGHTS, b_o=(math.inf,))
    yield certified.replaced(WEIGHTS, b_o=(2.0**17,))
    yield certified.replaced(WEIGHTS, b_o=(1e300,))
    yield certified.replaced(WEIGHTS, b_o=(2.0**-127,))
    yield certified.replaced(WEIGHTS, b_o=(0.1,))
    yield certified.replaced(WEIGHTS, b_o=(True,))
    yield certified.replaced(WEIGHTS, b_o=(1,))
    yield certified.replaced(WEIGHTS, b_o=(1.0, 1.0))
    yield certified.replaced(WEIGHTS, b_o=[1.0])
    yield certified.replaced(WEIGHTS, b_z=())
    yield certified.replaced(WEIGHTS, U_z=nested[:-1])
    yield certified.replaced(WEIGHTS, U_z=(*nested[:-1], nested[-1][:-1]))
    yield certified.replaced(WEIGHTS, U_z=None)
    yield None


@pytest.mark.parametrize("weights", list(wrong_weights()))
def test_values_other_than_weights_are_refused(weights):
    # For what they are, not by their hash: it is that of the float32 next to them.
    assert "other weights" not in refusal(CERTIFICATE, weights)


def test_other_weights_are_refused_by_their_hash():
    for name, value in certified.arrays(WEIGHTS).items():
        flat = value.copy().ravel()
        flat[-1] = np.nextafter(flat[-1], np.float32(9))
        other = certified.changed(WEIGHTS, **{name: flat.reshape(value.shape)})
        assert "other weights" in refusal(CERTIFICATE, other)


def damaged():
    """Weights that no longer add, each with the certificate made out to them."""
    arrays = certified.arrays(WEIGHTS)
    yield {f"{kind}_{gate}": arrays[f"{kind}_{other}"] for kind in "WUb" for gate, other in (("z", "r"), ("r", "z"))}
    yield {f"{kind}_{gate}": arrays[f"{kind}_{other}"] for kind in "WUb" for gate, other in (("z", "h"), ("h", "z"))}
    yield {f"{kind}_{gate}": arrays[f"{kind}_{other}"] for kind in "WUb" for gate, other in (("r", "h"), ("h", "r"))}
    yield {f"{kind}_z": -arrays[f"{kind}_z"] for kind in "WUb"}  # z where 1 - z belongs
    yield {"W_o": -arrays["W_o"]}
    yield {"W_o": -arrays["W_o"], "b_o": -arrays["b_o"]}
    for name in ("W_h", "U_h", "b_h", "W_z", "U_r"):
        yield {name: -arrays[name]}
    for name in ("U_z", "U_r", "U_h"):
        yield {name: arrays[name].T}
    for name, value in arrays.items():
        flipped = value.copy().ravel()
        flipped[np.argmax(np.abs(flipped))] *= -1
        yield {name: flipped.reshape(value.shape)}


@pytest.mark.parametrize("change", list(damaged()))
def test_damaged_weights_are_refused(change):
    other = certified.changed(WEIGHTS, **change)
    refusal(certified.for_weights(CERTIFICATE, other), other)


@pytest.mark.parametrize("z_bias", [-11.0, -13.0, -16.0])
def test_time_bombs_are_refused(z_bias):
    bombed = bomb.with_creeping_unit(WEIGHTS, z_bias, 40.0)
    boxes = [
        {**box, "lower": [*box["lower"], (-1e-3).hex()], "upper": [*box["upper"], (1e-3).hex()]}
        for box in CERTIFICATE["boxes"]
    ]
    starts = [start | {"hidden": [*start["hidden"], (0.0).hex()]} for start in CERTIFICATE["starts"]]
    forged = certified.for_weights(CERTIFICATE | {"boxes": boxes, "starts": starts, "units": 9}, bombed)
    assert "sticks out" in refusal(forged, bombed)
    for box in forged["boxes"]:
        box["lower"][-1], box["upper"][-1] = (-1.0).hex(), (1.0).hex()
    assert "margin" in refusal(forged, bombed)


def test_a_preactivation_out_of_the_known_range_is_refused():
    # The reset gate of a unit that reads nothing: forced open by a bias which the activations are not known for.
    wide = bomb.with_creeping_unit(WEIGHTS, 0.0, 0.0)
    wide = certified.changed(wide, b_r=[*wide.b_r[:-1], 129.0])
    boxes = [
        {**box, "lower": [*box["lower"], (-1.0).hex()], "upper": [*box["upper"], (1.0).hex()]}
        for box in CERTIFICATE["boxes"]
    ]
    starts = [start | {"hidden": [*start["hidden"], (0.0).hex()]} for start in CERTIFICATE["starts"]]
    forged = CERTIFICATE | {"boxes": boxes, "starts": starts, "units": 9}
    assert "pre-activation reaches 129" in refusal(certified.for_weights(forged, wide), wide)
    known = certified.changed(wide, b_r=[*wide.b_r[:-1], 127.0])
    assert checker.check(certified.for_weights(forged, known), known).proven


class Runtime:
    """A runtime of the theorem at its worst: float32 sums in random order and blocking, with or without fused
    multiply-add, subnormals flushed, activations as far off as A3 lets them be, always to the same side.
    """

    def __init__(self, weights, seed):
        self.v = certified.arrays(weights)
        self.dice = np.random.default_rng(seed)
        self.sides = self.dice.choice([-0.99, 0.99], size=(3, weights.units))

    def sum(self, weights, x):
        order = self.dice.permutation(len(weights))
        blocks = []
        for block in np.array_split(order, self.dice.integers(1, 5)):
            total = np.float32(0)
            for i in block:
                if self.dice.random() < 0.5:
                    total = flushed(np.float32(np.float64(total) + np.float64(weights[i]) * np.float64(flushed(x[i]))))
                else:
                    total = flushed(total + flushed(weights[i] * flushed(x[i])))
            blocks.append(total)
        return flushed(np.sum(np.array(blocks, np.float32), dtype=np.float32))

    def gate(self, name, symbol, state):
        x = np.concatenate([np.float32(symbol), state, np.ones(1, np.float32)])
        columns = np.concatenate([self.v[f"W_{name}"], self.v[f"U_{name}"], self.v[f"b_{name}"][None]])
        return np.array([self.sum(column, x) for column in columns.T], np.float64)

    def step(self, symbol, hidden):
        z, r = (
            np.float32(np.clip(1 / (1 + np.exp(-self.gate(name, symbol, hidden))) + side * 2.0**-20, 0, 1))
            for name, side in zip("zr", self.sides[:2], strict=True)
        )
        t = np.float32(np.clip(np.tanh(self.gate("h", symbol, flushed(r * hidden))) + self.sides[2] * 2.0**-19, -1, 1))
        following = flushed(flushed((np.float32(1) - z) * hidden) + flushed(z * t))
        return following, self.sum(np.append(self.v["W_o"][:, 0], self.v["b_o"]), np.append(following, np.float32(1)))


def flushed(x):
    return np.where(np.abs(x) < 2.0**-126, np.float32(0), x).astype(np.float32)[()]


def float32_points(lower, upper, dice):
    """A corner of the box or a point inside, in float32."""
    share = dice.integers(0, 2, len(lower)) if dice.random() < 0.5 else dice.random(len(lower))
    point = np.float32(lower + share * (upper - lower))
    point = np.where(point < lower, np.nextafter(point, np.float32(2)), point)
    return np.where(point > upper, np.nextafter(point, np.float32(-2)), point)


@pytest.mark.parametrize("seed", range(4))
def test_images_enclose_what_the_worst_runtime_computes(seed):
    cell, runtime, dice = checker.Cell.of(WEIGHTS), Runtime(WEIGHTS, seed), np.random.default_rng(seed)
    for box in certificate.parse(CERTIFICATE).boxes:
        for symbol in ((0, 0), (0, 1), (1, 1)):
            hidden = float32_points(np.array(box.lower), np.array(box.upper), dice)
            following, logit = runtime.step(symbol, hidden)
            for sides in (
                tuple((value, value) for value in hidden.tolist()),
                tuple(zip(box.lower, box.upper, strict=True)),
            ):
                image = checker.image(cell, sides, symbol)
                assert all(
                    low <= value <= high for (low, high), value in zip(image.hidden, following.tolist(), strict=True)
                )
                assert image.logit[0] <= logit <= image.logit[1]


def test_the_worst_runtime_stays_in_the_boxes_and_adds():
    runtime, dice = Runtime(WEIGHTS, 9), random.Random(9)
    boxes = {(box.state, box.output): box for box in certificate.parse(CERTIFICATE).boxes}
    hidden, carry = np.zeros(8, np.float32), 0
    for _ in range(120):
        symbol = dice.choice(((0, 0), (0, 1), (1, 0), (1, 1)))
        n = sum(symbol) + carry
        carry = n // 2
        hidden, logit = runtime.step(symbol, hidden)
        box = boxes[carry, n % 2]
        assert (logit > 0) == n % 2
        assert all(low <= value <= high for low, value, high in zip(box.lower, hidden.tolist(), box.upper, strict=True))


def test_states_never_leave_minus_one_to_one():
    # Lemma 2 where it is tightest, |h| = |t| = 1 of the same sign, for a million z of every magnitude, fused and not.
    dice = np.random.default_rng(1)
    patterns = dice.integers(0, 0x3F800001, 500_000, np.uint32).view(np.float32)
    z = np.concatenate([patterns, dice.random(500_000, np.float32), np.float32([0, 1])])
    rest = np.float32(1) - z
    assert (rest + z).max() <= 1
    assert np.float32(np.float64(rest) + np.float64(z)).max() <= 1
    assert (rest.astype(np.float64) + z).max() > 1  # so that rounding matters


def test_certificates_are_written_as_they_are_read():
    claim = certificate.parse(CERTIFICATE)
    assert certificate.parse(certificate.write(claim)) == claim
    assert json.loads(certificate.write(claim)) == CERTIFICATE


def test_the_hash_is_that_of_names_shapes_and_bytes():
    tiny = Weights.of(
        {
            name: np.full(shape, value, np.float32)
            for value, (name, shape) in enumerate(
                [
                    ("W_z", (2, 1)),
                    ("U_z", (1, 1)),
                    ("b_z", (1,)),
                    ("W_r", (2, 1)),
                    ("U_r", (1, 1)),
                    ("b_r", (1,)),
                    ("W_h", (2, 1)),
                    ("U_h", (1, 1)),
                    ("b_h", (1,)),
                    ("W_o", (1, 1)),
                    ("b_o", (1,)),
                ]
            )
        }
    )
    assert tiny.problem() is None and tiny.units == 1
    text = b"".join(
        f"{name}{list(np.shape(getattr(tiny, name)))}\n".encode() + np.array(getattr(tiny, name), "<f4").tobytes()
        for name in ("W_z", "U_z", "b_z", "W_r", "U_r", "b_r", "W_h", "U_h", "b_h", "W_o", "b_o")
    )
    assert tiny.sha256() == hashlib.sha256(text).hexdigest()


def test_a_check_that_would_take_minutes_is_refused_at_once_with_the_limit():
    boxes = CERTIFICATE["boxes"]
    assert checker.check(CERTIFICATE | {"boxes": boxes * 3}, WEIGHTS).proven
    too_many = (boxes * (certificate.MAX_BOXES // len(boxes) + 1))[: certificate.MAX_BOXES + 1]
    assert (
        refusal(CERTIFICATE | {"boxes": too_many})
        == f"{certificate.MAX_BOXES + 1} boxes, must be 1 to {certificate.MAX_BOXES}"
    )
    wide = certified.weights_of_zeros(150)
    reason = refusal(CERTIFICATE | {"boxes": too_many[:-1]}, wide)
    assert reason == (
        f"checking 512 boxes of 150 units takes 141590052 products of intervals, the limit is {checker.MAX_PRODUCTS}"
    )
