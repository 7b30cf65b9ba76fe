"""Broken models, and models that do not belong to their certificate, by kind, for `benchmarks.refusals`."""

import copy
import dataclasses
import functools
import math
import struct
from collections.abc import Callable, Sequence

import numpy as np

from benchmarks.broken_certificates import Base, Case, Damage, Kind, forged
from benchmarks.simulation import arrays
from components.model import bomb
from components.proof.weights import NAMES, Weights

BOMB_STEPS = 300_000
Z_BIASES = (-9.0, -11.0, -13.0, -16.0)

_OUT_OF_RANGE = (math.nan, math.inf, -math.inf, 1e300, 2.0**17, -(2.0**100), 2.0**-127, -(2.0**-149), 5e-324)
BAD_WEIGHTS = (*_OUT_OF_RANGE, 0.1, True, 1, None, "1")

# (weights, number of the case, randomness) -> weights
Change = Callable[[Weights, int, np.random.Generator], Weights]


def kinds(recipes: Sequence[Weights]) -> dict[str, Kind]:
    """All damage by name; `recipes` are models trained on the article's data."""
    found = {}
    for scale in (1e-7, 1e-5, 1e-4, 1e-3, 1e-2, 0.03, 0.1, 0.3):
        found |= _both(f"weights times 1 + {scale:g} N(0, 1)", 24, _noise(scale))
    found |= _both("one weight's sign flipped", 60, _sign_flipped)
    found |= _both("gates swapped", 12, _gates_swapped)
    found |= _both("z reversed: z h + (1 - z) t", 4, _z_reversed)
    found |= _both("matrix transposed or negated", 28, _matrix_changed)
    found |= {
        "one weight moved by one float32, old hash": Kind(40, _one_float_further),
        "weight NaN, infinite, subnormal, huge or not a float32": Kind(56, _bad_weight),
        "weights of another model": Kind(
            12, lambda bases, i, dice: Case(bases[1].weights, bases[0].certificate, damning=True)
        ),
        "weights of another model, hash forged": Kind(12, _other_model),
        "time bomb, boxes of the harmless model": Kind(16, _bomb(1.1, 1e-3)),
        "time bomb, boxes of maximal width": Kind(16, _bomb(1.1, 1.0)),
        "time bomb, new boxes": Kind(16, _bomb(1.1)),
        "bomb that never goes off, new boxes": Kind(16, _bomb(0.002)),
    }
    article = Kind(len(recipes), lambda bases, i, dice: Case(recipes[i], forged(bases[0], recipes[i])))
    new = Kind(len(recipes), lambda bases, i, dice: Case(recipes[i], None))
    return found | {"article's recipe, boxes of another model": article, "article's recipe, new boxes": new}


def _both(name: str, count: int, change: Change) -> dict[str, Kind]:
    """The changed weights with the old boxes, reissued for them, and with the finder's boxes."""

    def old(bases: Sequence[Base], i: int, dice: np.random.Generator) -> Case:
        weights = change(bases[0].weights, i // len(bases), dice)
        return Case(weights, forged(bases[0], weights))

    def new(bases: Sequence[Base], i: int, dice: np.random.Generator) -> Case:
        return Case(change(bases[0].weights, i // len(bases), dice), None)

    return {f"{name}, old boxes": Kind(count, old), f"{name}, new boxes": Kind(count, new)}


def _changed(weights: Weights, **variables: np.ndarray) -> Weights:
    return Weights.of(arrays(weights) | {name: np.asarray(value, np.float32) for name, value in variables.items()})


def _noise(scale: float) -> Change:
    return lambda weights, i, dice: _changed(
        weights,
        **{name: value * (1 + scale * dice.normal(size=value.shape)) for name, value in arrays(weights).items()},
    )


def _at(weights: Weights, dice: np.random.Generator, change: Callable[[np.float32], np.float32]) -> Weights:
    """One weight changed, with equal chances for each variable."""
    name = NAMES[dice.integers(len(NAMES))]
    value = arrays(weights)[name]
    place = tuple(dice.integers(size) for size in value.shape)
    value[place] = change(value[place])
    return _changed(weights, **{name: value})


def _sign_flipped(weights: Weights, i: int, dice: np.random.Generator) -> Weights:
    return _at(weights, dice, lambda value: -value)


def _gates_swapped(weights: Weights, i: int, dice: np.random.Generator) -> Weights:
    values, (one, other) = arrays(weights), ("zr", "zh", "rh")[i % 3]
    return _changed(
        weights, **{f"{kind}_{to}": values[f"{kind}_{of}"] for kind in "WUb" for to, of in ((one, other), (other, one))}
    )


def _z_reversed(weights: Weights, i: int, dice: np.random.Generator) -> Weights:
    """sigmoid(-x) = 1 - sigmoid(x): the cell computes the same as one with z and 1 - z exchanged."""
    return _changed(weights, **{name: -value for name, value in arrays(weights).items() if name.endswith("_z")})


def _matrix_changed(weights: Weights, i: int, dice: np.random.Generator) -> Weights:
    name = ("U_z", "U_r", "U_h", "W_h", "U_h", "b_h", "W_o")[i % 7]
    value = arrays(weights)[name]
    return _changed(weights, **{name: value.T if i % 7 < 3 else -value})


def _other_model(bases: Sequence[Base], i: int, dice: np.random.Generator) -> Case:
    return Case(bases[1].weights, forged(bases[0], bases[1].weights))


def _one_float_further(bases: Sequence[Base], i: int, dice: np.random.Generator) -> Case:
    moved = _at(
        bases[0].weights, dice, lambda value: np.nextafter(value, np.float32(9)) if value else np.float32(2.0**-126)
    )
    return Case(moved, bases[0].certificate, damning=True)


def _bad_weight(bases: Sequence[Base], i: int, dice: np.random.Generator) -> Case:
    vector = ("b_z", "b_r", "b_h", "b_o")[dice.integers(4)]
    values = list(getattr(bases[0].weights, vector))
    values[dice.integers(len(values))] = BAD_WEIGHTS[i % len(BAD_WEIGHTS)]
    weights = dataclasses.replace(bases[0].weights, **{vector: tuple(values)})
    try:
        return Case(weights, forged(bases[0], weights), damning=True)
    except (OverflowError, struct.error):  # weights without a hash keep the old one
        return Case(weights, bases[0].certificate, damning=True)


def _bomb(strength: float, reach: float | None = None) -> Damage:
    """The unit of `components.model.bomb`, which creeps from 0 towards tanh(3).

    `strength` is the unit's part of the logit, divided by the largest logit of the other units: after BOMB_STEPS if it
    is above 1, so that every 0 becomes a 1; otherwise at most. `reach` is the distance of the sides of its box from 0.
    """

    def damage(bases: Sequence[Base], i: int, dice: np.random.Generator) -> Case:
        sound, z_bias = bases[0].weights, Z_BIASES[i // len(bases) % len(Z_BIASES)]
        largest = np.abs(sound.W_o).sum() + abs(sound.b_o[0])
        level = _level(z_bias) if strength > 1 else 1.0
        weights = bomb.with_creeping_unit(sound, z_bias, strength * largest / level)
        text = _with_unit(bases[0], weights, reach) if reach else None
        return Case(weights, text, damning=strength > 1)

    return damage


@functools.cache
def _level(z_bias: float) -> float:
    """The state of a bomb's unit after BOMB_STEPS."""
    return bomb.state(BOMB_STEPS, z_bias)


def _with_unit(base: Base, weights: Weights, reach: float) -> dict:
    text = copy.deepcopy(forged(base, weights)) | {"units": weights.units}
    for box in text["boxes"]:
        box["lower"].append((-reach).hex())
        box["upper"].append(reach.hex())
    for start in text["starts"]:
        start["hidden"].append((0.0).hex())
    return text
