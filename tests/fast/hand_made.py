"""A cell whose weights are chosen by hand: it adds numbers of every length, without any training.

With the gates wide open (z = r = 1) the state is tanh of an affine map, steep enough to be a step function: +1 or -1.
Unit k of 1, 2, 3 says whether n = a + b + carry is at least k. Unit 2 is the carry. Unit k is on if a + b + u / 2 exceeds
k - 3/4, where u is the last state of unit 2: +1 after a carry, -1 after none, 0 at the start; it is always at least 1/4 away
from the limit. n is odd where unit 1 minus unit 2 plus unit 3 is +1 instead of -1.
"""

import numpy as np

from components.gru import GRU

OPEN = 100.0  # sigmoid of it is 1 in float32
STEEP = 100.0  # tanh of a quarter of it is 1 in float32


def adder() -> GRU:
    """The cell, of 3 units; its logits are +1 and -1."""
    cell = GRU(units=3)
    for variable in cell.variables:
        variable.assign(np.zeros(variable.shape, np.float32))
    cell.b_z.assign([OPEN] * 3)
    cell.b_r.assign([OPEN] * 3)
    cell.W_h.assign(STEEP * np.ones((2, 3), np.float32))
    cell.U_h.assign(STEEP * np.array([[0, 0, 0], [0.5, 0.5, 0.5], [0, 0, 0]], np.float32))
    cell.b_h.assign(STEEP * -np.array([0.25, 1.25, 2.25], np.float32))
    cell.W_o.assign([[1.0], [-1.0], [1.0]])
    return cell
