"""The provability loss: how far the cell's boxes of hidden states are from a proof, as something that can be trained
down.

The boxes of `components.proof.finder` are propagated through the cell by interval arithmetic, differentiably, as in interval
bound propagation (Gowal et al. 2018, "On the Effectiveness of Interval Bound Propagation for Training Verifiably Robust
Models", arXiv:1810.12715): some abstract steps, each from slightly widened boxes, and softplus(target - m) for every
worst-case margin m of an output bit. This loss holds the transducer itself: which box must lead into which, with which
output. A model trained with it has been told how states follow each other, and not by examples alone.

The boxes are kept from one training step to the next, without gradient through them, and start again from the images of
h_0 = 0 whenever some margin is not positive. Always starting again, or never, certifies far fewer models.

Shapes: N boxes (one per label of the transducer), S symbols, H units; everything is float32.
"""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from components.model.gru import GRU
from components.task.transducer import ADDITION, Transducer


class Boxes(NamedTuple):
    """Intervals of hidden states, [N, H] each, in the order of the transducer's labels."""

    lower: tf.Tensor
    upper: tf.Tensor


class Bound(NamedTuple):
    """`loss`: scalar, mean softplus(target - margin); `margin`: scalar, the worst; `boxes`: those to hand to the next
    call."""

    loss: tf.Tensor
    margin: tf.Tensor
    boxes: Boxes


class BoxLoss:
    """The loss of `cell` for `task`. Calls build graph, so that they can stand in a `tf.function`.

    Args:
        cell: its variables are read at every call; gradients flow into all of them.
        task: what the cell is to compute.
        steps: abstract steps from the kept boxes (T). 5 for 16 units, 10 for 8.
        widening: added on both sides of the boxes before each abstract step.
        target: margins beyond this weigh little. 0 for 16 units, 2 for 8.
    """

    def __init__(
        self, cell: GRU, task: Transducer = ADDITION, steps: int = 5, widening: float = 1e-3, target: float = 0.0
    ):
        self.cell = cell
        self.steps = steps
        self.widening = widening
        self.target = target
        self.count = len(task.labels)
        # The last of the N + 1 origins is h_0.
        origins = [*(state for state, _ in task.labels), task.initial]
        leads = [[task.label(state, symbol) for symbol in task.inputs] for state in origins]
        self.into = np.array([[task.labels.index(label) for label in row] for row in leads], np.int32)
        self.signs = np.array([[2.0 * output - 1.0 for _, output in row] for row in leads], np.float32)
        # A function of its own is traced once, not once for each abstract step: tracing takes longer than all of the
        # training.
        self._advance = tf.function(self._advanced)
        self.symbols = np.array(task.inputs, np.float32)

    def __call__(self, boxes: Boxes) -> Bound:
        """The bound from kept `boxes`; pure but for reading the cell's variables."""
        kernels = self._kernels()
        margins = []
        for _ in range(self.steps):
            boxes, margin = self._advance(kernels, boxes)
            margins.append(margin)
        margins = tf.stack(margins)
        worst = tf.reduce_min(margins)
        fresh = self._restarted(kernels)
        lower = tf.stop_gradient(tf.where(worst > 0, boxes.lower, fresh.lower))
        upper = tf.stop_gradient(tf.where(worst > 0, boxes.upper, fresh.upper))
        return Bound(tf.reduce_mean(tf.nn.softplus(self.target - margins)), worst, Boxes(lower, upper))

    def _advanced(self, kernels: list, boxes: Boxes) -> tuple[Boxes, tf.Tensor]:
        """The boxes of the images of widened boxes, and the margins of their outputs [N + 1, S]."""
        wide = Boxes(tf.maximum(boxes.lower - self.widening, -1.0), tf.minimum(boxes.upper + self.widening, 1.0))
        images, margins = self._step(kernels, wide)
        return self._hulls(images, self.into), margins

    def start(self) -> Boxes:
        """The boxes of the images of h_0, and, for labels that take more than one step, of the images of those."""
        return self._restarted(self._kernels())

    def _restarted(self, kernels: list) -> Boxes:
        zeros = tf.zeros([self.count, self.cell.units])
        boxes, known = Boxes(zeros, zeros), np.zeros(self.count, bool)
        while not known.all():
            # The last origin, h_0, is always known.
            sources = np.append(known, True)
            # Segment -1 is left out: what an unknown box would lead to.
            images, _ = self._step(kernels, boxes)
            fresh = self._hulls(images, np.where(sources[:, None], self.into, -1))
            reached = np.isin(np.arange(self.count), self.into[sources])
            is_new = (reached & ~known)[:, None]
            boxes = Boxes(tf.where(is_new, fresh.lower, boxes.lower), tf.where(is_new, fresh.upper, boxes.upper))
            known |= reached
        return boxes

    def _kernels(self) -> list:
        """(U, |U|, what the symbols add [S, H or 2H]) of both gates together and of the candidate."""
        cell = self.cell
        update, reset, candidate = cell.project(self.symbols)
        gates = tf.concat([cell.U_z, cell.U_r], axis=1)
        return [(gates, tf.abs(gates), tf.concat([update, reset], axis=1)), (cell.U_h, tf.abs(cell.U_h), candidate)]

    def _step(self, kernels: list, boxes: Boxes) -> tuple[Boxes, tf.Tensor]:
        """Images [N + 1, S, H] of the boxes and of h_0 under each symbol, and the margins of their outputs [N + 1,
        S]."""
        lower, upper = (tf.pad(side, [[0, 1], [0, 0]])[:, None, :] for side in boxes)
        low, high = (tf.sigmoid(side) for side in _affine(lower, upper, *kernels[0]))
        (least, reset_low), (most, reset_high) = tf.split(low, 2, axis=-1), tf.split(high, 2, axis=-1)
        kept = tf.minimum(reset_low * lower, reset_high * lower), tf.maximum(reset_low * upper, reset_high * upper)
        target_low, target_high = (tf.tanh(side) for side in _affine(*kept, *kernels[1]))
        low_move, high_move = target_low - lower, target_high - upper
        images = Boxes(
            lower + tf.minimum(least * low_move, most * low_move),
            upper + tf.maximum(least * high_move, most * high_move),
        )
        centre = self.cell.logit((images.lower + images.upper) / 2)
        radius = tf.tensordot((images.upper - images.lower) / 2, tf.abs(self.cell.W_o[:, 0]), 1)
        return images, self.signs * centre - radius

    def _hulls(self, images: Boxes, into: np.ndarray) -> Boxes:
        """The hull [N, H] of the images that lead into each box."""
        flat = [tf.reshape(side, [-1, self.cell.units]) for side in images]
        lower = tf.math.unsorted_segment_min(flat[0], into.ravel(), self.count)
        return Boxes(lower, tf.math.unsorted_segment_max(flat[1], into.ravel(), self.count))


def next_share(
    share: tf.Tensor, data_loss: tf.Tensor, grow: float, shrink: float, most: float, ready: float
) -> tf.Tensor:
    """The share k of the box loss in (1 - k) data + k box, after a step with `data_loss`: it grows while that is below
    `ready`."""
    return tf.where(data_loss < ready, tf.minimum(share + grow, most), tf.maximum(share - shrink, 0.0))


def _affine(
    lower: tf.Tensor, upper: tf.Tensor, kernel: tf.Tensor, magnitude: tf.Tensor, offset: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    centre = tf.tensordot((lower + upper) / 2, kernel, 1) + offset
    radius = tf.tensordot((upper - lower) / 2, magnitude, 1)
    return centre - radius, centre + radius
