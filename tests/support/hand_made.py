"""Cells whose weights are chosen by hand: they compute the tasks for numbers of every length, without any training.

With the gates wide open (z = r = 1) the state is tanh of an affine map, steep enough to be a step function: +1 or -1.
Unit k of 1, 2, 3 says whether n = a + b + carry is at least k. Unit 2 is the carry. Unit k is on if a + b + u / 2
exceeds k - 3/4, where u is the last state of unit 2: +1 after a carry, -1 after none, 0 at the start; it is always at
least 1/4 away from the limit. n is odd where unit 1 minus unit 2 plus unit 3 is +1 instead of -1.

Subtraction is the same of n = (1 - a) + b + borrow, whose bit is 1 where n is even: a - b - borrow = 2 - 1 - n.
Comparison is the same of n = a + (1 - b) + (a > b so far): a > b as far as read where n is at least 2, which unit 2
says.
"""

import numpy as np

from components.model.gru import GRU

OPEN = 100.0  # sigmoid of it is 1 in float32
STEEP = 100.0  # tanh of a quarter of it is 1 in float32


def adder(kind: type[GRU] = GRU) -> GRU:
    """The cell, of 3 units; its logits are +1 and -1."""
    cell = kind(units=3)
    for variable in cell.variables:
        variable.assign(np.zeros(variable.shape, np.float32))
    cell.b_z.assign([OPEN] * 3)
    cell.b_r.assign([OPEN] * 3)
    cell.W_h.assign(STEEP * np.ones((2, 3), np.float32))
    cell.U_h.assign(STEEP * np.array([[0, 0, 0], [0.5, 0.5, 0.5], [0, 0, 0]], np.float32))
    cell.b_h.assign(STEEP * -np.array([0.25, 1.25, 2.25], np.float32))
    cell.W_o.assign([[1.0], [-1.0], [1.0]])
    return cell


def subtractor() -> GRU:
    """The cell, of 3 units; its logits are +1 and -1."""
    cell = adder()
    _complement(cell, 0)
    cell.W_o.assign(-cell.W_o)
    return cell


def comparer() -> GRU:
    """The cell, of 3 units; its logits are +1 and -1."""
    cell = adder()
    _complement(cell, 1)
    cell.W_o.assign([[0.0], [1.0], [0.0]])
    return cell


def _complement(cell: GRU, operand: int) -> None:
    """Have the cell read 1 - bit of one operand."""
    cell.b_h.assign_add(cell.W_h[operand])
    cell.W_h.assign(cell.W_h * np.array([[-1.0], [1.0]] if operand == 0 else [[1.0], [-1.0]], np.float32))
