"""Broken certificates of intact models, by kind of damage, for `benchmarks.refusals`.

Only damage that a simulation has to judge; the tests of components.proof.checker cover texts that are not certificates.
"""

import copy
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from components.proof.weights import Weights
from components.task.transducer import ADDITION

DENORMALS = (
    "0x0.0000000000001p-1022",
    "-0x0.0000000000001p-1022",
    "0x0.8000000000000p-1022",
    "0x1.0000000000000p-140",
    "-0x1.0000000000000p-140",
)


class Base(NamedTuple):
    """A certified model and its certificate, parsed from JSON."""

    weights: Weights
    certificate: dict


class Case(NamedTuple):
    """Weights and a certificate, text or object; None asks the finder. `damning`: acceptance is wrong,
    whatever the simulation finds."""

    weights: Weights
    certificate: str | dict | None
    damning: bool = False


# Case i damages bases[0]; the other bases are for combinations.
Damage = Callable[[Sequence[Base], int, np.random.Generator], Case]


class Kind(NamedTuple):
    """A kind of damage, and its number of cases at full size."""

    count: int
    damage: Damage


def kinds() -> dict[str, Kind]:
    """All damage by name."""
    pulled = {
        f"side of a box pulled in by {amount:g}": Kind(60, _side_moved(-amount)) for amount in (1e-7, 1e-5, 1e-3, 0.1)
    }
    return pulled | {
        "side of a box pushed out by 0.1": Kind(24, _side_moved(0.1)),
        "denormal side of a box": Kind(60, _denormal_side),
        "boxes swapped": Kind(24, _boxes_swapped),
        "label of a box changed": Kind(48, _label_changed),
        "box left out": Kind(16, _box_left_out),
        "start state moved": Kind(32, _start_moved),
    }


def forged(base: Base, weights: Weights) -> dict:
    """The certificate of `base`, reissued for other weights."""
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
    hidden[unit] = float(
        np.float32(float.fromhex(hidden[unit]) + dice.choice([-1, 1]) * 10.0 ** dice.uniform(-6, 0))
    ).hex()
    return Case(bases[0].weights, text)


def _denormal_side(bases: Sequence[Base], i: int, dice: np.random.Generator) -> Case:
    text = copy.deepcopy(bases[0].certificate)
    side = text["boxes"][dice.integers(len(text["boxes"]))][("lower", "upper")[dice.integers(2)]]
    side[dice.integers(len(side))] = DENORMALS[i % len(DENORMALS)]
    return Case(bases[0].weights, text)
