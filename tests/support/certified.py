"""A small certified model, 8 units, kept in tests/data, and what can be done to it."""

import dataclasses
import json
import pathlib

import numpy as np

from components.proof.weights import NAMES, Weights

DATA = pathlib.Path(__file__).parent.parent / "data"


def weights(name: str = "addition_8") -> Weights:
    text = json.loads((DATA / f"{name}_weights.json").read_text())

    def floats(value):
        return float.fromhex(value) if isinstance(value, str) else [floats(item) for item in value]

    return Weights.of({name: floats(text[name]) for name in NAMES})


def certificate() -> dict:
    return json.loads((DATA / "addition_8_certificate.json").read_text())


def arrays(cell: Weights) -> dict[str, np.ndarray]:
    return {name: np.array(getattr(cell, name), np.float32) for name in NAMES}


def changed(cell: Weights, **variables) -> Weights:
    return Weights.of(arrays(cell) | {name: np.asarray(value, np.float32) for name, value in variables.items()})


def noisy(cell: Weights, scale: float, seed: int) -> Weights:
    """Every weight times (1 + scale N(0, 1))."""
    random = np.random.default_rng(seed)
    return changed(
        cell, **{name: value * (1 + scale * random.normal(size=value.shape)) for name, value in arrays(cell).items()}
    )


def for_weights(text: dict, cell: Weights) -> dict:
    """The certificate with the hash of other weights: a forgery."""
    return text | {"weights_sha256": cell.sha256()}


def replaced(cell: Weights, **fields) -> Weights:
    return dataclasses.replace(cell, **fields)


def weights_of_zeros(units: int) -> Weights:
    shapes = {"W": (2, units), "U": (units, units), "b": (units,)}
    return Weights.of({name: np.zeros({"W_o": (units, 1), "b_o": (1,)}.get(name, shapes[name[0]])) for name in NAMES})
