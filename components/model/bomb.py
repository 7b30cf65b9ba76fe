"""A model with a time bomb: right for so many steps that no test sees it fail. `bitsum demo bomb` shows what stops it.

The bomb is an extra unit c without inputs, read only by the logit. Its W and U are 0, so with z = sigmoid(b_z) it
creeps, h_c' = (1-z) h_c + z tanh(b_h), from 0 up to tanh(b_h), a little each step. Its part w h_c of the logit first
hides in the margin of the other units, then outweighs it: from then on the cell outputs 1 instead of 0.
"""

import numpy as np

from components.proof.weights import NAMES, Weights

# sigmoid(-13) is about 2.3e-6: the unit takes several hundred thousand steps.
UPDATE_BIAS = -13.0
CANDIDATE_BIAS = 3.0


def with_time_bomb(weights: Weights, distance: float, steps: int, update_bias: float = UPDATE_BIAS) -> Weights:
    """The cell with an extra unit: an output whose logit was `distance` below 0 turns from 0 to 1 after `steps` steps.

    With the smallest distance among all zeros that the cell outputs, the cell is right for its first `steps` steps and
    goes wrong soon after.

    Args:
        update_bias: b_z of the unit; the lower, the slower.

    Raises:
        ValueError: `distance` is not positive, or the unit is too slow: no finite weight would do.
    """
    if not distance > 0:
        raise ValueError(f"distance = {distance} must be positive: only a right output can go wrong later")
    crept = state(steps, update_bias)
    bomb = with_creeping_unit(weights, update_bias, distance / crept if crept else np.inf)
    if bomb.problem():
        raise ValueError(f"no bomb of {steps} steps with update_bias = {update_bias}: {bomb.problem()}")
    return bomb


def with_creeping_unit(weights: Weights, update_bias: float, weight: float) -> Weights:
    """The cell with the unit of a bomb, whose state times `weight` is added to the logit."""
    grown = {name: _grown(name, np.array(getattr(weights, name), np.float32)) for name in NAMES}
    grown["b_z"][-1], grown["b_h"][-1], grown["W_o"][-1] = update_bias, CANDIDATE_BIAS, weight
    return Weights.of(grown)


def state(steps: int, update_bias: float = UPDATE_BIAS) -> float:
    """h_c after `steps` steps from 0, in float32 as a runtime computes it: the steps are so small that rounding
    matters."""
    z = np.float32(1 / (1 + np.exp(-update_bias)))
    kept, added = np.float32(1) - z, z * np.tanh(np.float32(CANDIDATE_BIAS))
    h = np.float32(0)
    for _ in range(steps):
        h = kept * h + added
    return float(h)


def _grown(name: str, value: np.ndarray) -> np.ndarray:
    """`value` with zeros for one more unit, on every axis that counts units."""
    fixed = {"W_o": 1, "b_o": 0}.get(name, 0 if name[0] == "W" else None)
    return np.pad(value, [(0, int(axis != fixed)) for axis in range(value.ndim)])
