"""Cells with given weights."""

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from components.model.gru import GRU
from components.proof.weights import Weights
from tests.support import certified


def cell_of(weights: Weights | None = None, kind: type[GRU] = GRU, **changes: np.ndarray) -> GRU:
    """A cell with `weights`, the certified ones unless others are given, and `changes` in place of some variables."""
    arrays = certified.arrays(weights or certified.weights()) | changes
    cell = kind(arrays["b_z"].size)
    for name, value in arrays.items():
        getattr(cell, name).assign(value)
    return cell


def cell_with(sigmoid: Callable = tf.sigmoid, tanh: Callable = tf.tanh) -> type[GRU]:
    """A kind of cell with other activations."""

    class Other(GRU):
        def advance(self, x_z, x_r, x_h, h):
            z, r = sigmoid(x_z + h @ self.U_z), sigmoid(x_r + h @ self.U_r)
            return (1 - z) * h + z * tanh(x_h + (r * h) @ self.U_h)

    return Other
