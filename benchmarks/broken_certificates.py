"""Certificates that are broken, kind by kind, for `benchmarks.refusals`; their models are not."""

import copy
import json
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from components.transducer import ADDITION
from components.weights import Weights

BAD_NUMBERS = (
    "NaN", "Infinity", "-Infinity", "1e999", "-1e999", "1e400", '"nan"', '"inf"', '"-inf"', '"0x1.0000000000000p+1024"', "5e-324", "0.5",
    '"0x1.fffffffffffffp+1023"', '"-0x1.fffffffffffffp+1023"', "1" + 400 * "0", '"0x1p0"', '"0.5"', "true", "null", '""',
)  # fmt: skip
DENORMALS = (
    "0x0.0000000000001p-1022", "-0x0.0000000000001p-1022", "0x0.8000000000000p-1022", "0x1.0000000000000p-140", "-0x1.0000000000000p-140",
)  # fmt: skip
BAD_MEMBERS = (
    (("version",), 0), (("version",), 2), (("version",), True), (("version",), "1"), (("version",), None), (("format",), "certificate"),
    (("task",), "subtraction"), (("units",), 15), (("units",), 17), (("units",), 0), (("units",), True), (("weights_sha256",), "0" * 64),
    (("margin",), "0x0.0p+0"), (("margin",), "-0x1.0000000000000p-1"), (("margin",), "0x1.0000000000000p+6"), (("allowances",), {}),
    (("allowances", "sigmoid"), "0x1.0000000000000p-30"), (("allowances", "unit_roundoff"), "0x0.0p+0"), (("boxes",), []),
    (("starts",), []), (("boxes", 0, "state"), 2), (("boxes", 0, "output"), -1), (("boxes", 1, "lower"), []), (("boxes", 2, "upper"), None),
    (("extra",), 1), (("transducer", "initial"), 1), (("transducer", "table", 1, 2), 0),
    (("transducer", "reading"), "signed"), (("starts", 0, "state"), 1),
)  # fmt: skip


class Base(NamedTuple):
    """A certified model; its certificate as JSON has it."""

    weights: Weights
    certificate: dict


class Case(NamedTuple):
    """Weights and a certificate, text or object; None: the finder is asked. `damning`: accepted is wrong, whatever is simulated."""

    weights: Weights
    certificate: str | dict | None
    damning: bool = False


# Case i from bases[0], other models beside it.
Damage = Callable[[Sequence[Base], int, np.random.Generator], Case]


class Kind(NamedTuple):
    """A kind of damage, and of how many cases at full size."""

    count: int
    damage: Damage


def kinds() -> dict[str, Kind]:
    """All damage by name."""
    pulled = {f"side of a box pulled in by {amount:g}": Kind(60, _side_moved(-amount)) for amount in (1e-7, 1e-5, 1e-3, 0.1)}
    return pulled | {
        "side of a box pushed out by 0.1": Kind(24, _side_moved(0.1)),
        "denormal side of a box": Kind(60, _denormal_side),
        "boxes swapped": Kind(24, _boxes_swapped),
        "label of a box changed": Kind(48, _label_changed),
        "box left out": Kind(16, _box_left_out),
        "start state moved": Kind(32, _start_moved),
        "JSON truncated": Kind(100, _truncated),
        "one character of the JSON changed": Kind(100, _character_changed),
        "number NaN, infinite, huge or not in hexadecimal": Kind(4 * len(BAD_NUMBERS), _bad_number),
        "schema: version, member or type": Kind(2 * len(BAD_MEMBERS), _bad_member),
        "member twice": Kind(20, _member_twice),
    }


def forged(base: Base, weights: Weights) -> dict:
    """The certificate of `base`, made out to other weights."""
    return base.certificate | {"weights_sha256": weights.sha256()}


def _side_moved(amount: float) -> Damage:
    def damage(bases: Sequence[Base], i: int, dice: np.random.Generator) -> Case:
        text = copy.deepcopy(bases[0].certificate)
        side, sign = (("lower", -1), ("upper", 1))[dice.integers(2)]
        numbers = text["boxes"][dice.integers(len(text["boxes"]))][side]
        unit = dice.integers(len(numbers))
        moved = float.fromhex(numbers[unit]) + sign * amount
        numbers[unit] = max(-1.0, min(1.0, moved)).hex()
        return Case(bases[0].weights, text)

    return damage


def _boxes_swapped(bases: Sequence[Base], i: int, dice: np.random.Generator) -> Case:
    text = copy.deepcopy(bases[0].certificate)
    one, other = (text["boxes"][place] for place in dice.choice(len(text["boxes"]), 2, replace=False))
    for side in ("lower", "upper"):
        one[side], other[side] = other[side], one[side]
    return Case(bases[0].weights, text)


def _label_changed(bases: Sequence[Base], i: int, dice: np.random.Generator) -> Case:
    text = copy.deepcopy(bases[0].certificate)
    box = text["boxes"][dice.integers(len(text["boxes"]))]
    others = [label for label in ADDITION.labels if label != (box["state"], box["output"])]
    box["state"], box["output"] = others[dice.integers(len(others))]
    return Case(bases[0].weights, text)


def _box_left_out(bases: Sequence[Base], i: int, dice: np.random.Generator) -> Case:
    boxes = list(bases[0].certificate["boxes"])
    del boxes[i // len(bases) % len(boxes)]
    return Case(bases[0].weights, bases[0].certificate | {"boxes": boxes})


def _start_moved(bases: Sequence[Base], i: int, dice: np.random.Generator) -> Case:
    text = copy.deepcopy(bases[0].certificate)
    hidden = text["starts"][dice.integers(2)]["hidden"]
    unit = dice.integers(len(hidden))
    hidden[unit] = float(np.float32(float.fromhex(hidden[unit]) + dice.choice([-1, 1]) * 10.0 ** dice.uniform(-6, 0))).hex()
    return Case(bases[0].weights, text)


def _truncated(bases: Sequence[Base], i: int, dice: np.random.Generator) -> Case:
    text = json.dumps(bases[0].certificate)
    return Case(bases[0].weights, text[: dice.integers(len(text))], damning=True)


def _bad_number(bases: Sequence[Base], i: int, dice: np.random.Generator) -> Case:
    text, number = copy.deepcopy(bases[0].certificate), BAD_NUMBERS[i // len(bases) % len(BAD_NUMBERS)]
    places = [text["boxes"][dice.integers(4)]["lower"], text["boxes"][dice.integers(4)]["upper"], text["starts"][1]["hidden"]]
    place = places[dice.integers(3)]
    place[dice.integers(len(place))] = "here"
    return Case(bases[0].weights, json.dumps(text).replace('"here"', number), damning=True)


def _denormal_side(bases: Sequence[Base], i: int, dice: np.random.Generator) -> Case:
    text = copy.deepcopy(bases[0].certificate)
    side = text["boxes"][dice.integers(len(text["boxes"]))][("lower", "upper")[dice.integers(2)]]
    side[dice.integers(len(side))] = DENORMALS[i % len(DENORMALS)]
    return Case(bases[0].weights, text)


def _bad_member(bases: Sequence[Base], i: int, dice: np.random.Generator) -> Case:
    text = copy.deepcopy(bases[0].certificate)
    (*path, name), value = BAD_MEMBERS[i % len(BAD_MEMBERS)]
    place = text
    for step in path:
        place = place[step]
    place[name] = value
    return Case(bases[0].weights, text, damning=True)


def _member_twice(bases: Sequence[Base], i: int, dice: np.random.Generator) -> Case:
    text = json.dumps(bases[0].certificate)
    name = ("state", "output", "lower", *bases[0].certificate)[dice.integers(3 + len(bases[0].certificate))]
    return Case(bases[0].weights, text.replace(f'"{name}": ', f'"{name}": 0, "{name}": ', 1), damning=True)


def _character_changed(bases: Sequence[Base], i: int, dice: np.random.Generator) -> Case:
    text = json.dumps(bases[0].certificate)
    place = dice.integers(len(text))
    letters = '0123456789abcdef-+.px"{}[],: \n\x00e'
    return Case(bases[0].weights, text[:place] + letters[dice.integers(len(letters))] + text[place + 1 :])
