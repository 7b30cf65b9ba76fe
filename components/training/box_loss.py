"""The provability loss: a differentiable measure of how far the cell's boxes of hidden states are from a proof.

The boxes of `components.proof.finder` are propagated through the cell by differentiable interval arithmetic, as in
interval bound propagation (Gowal et al. 2018, "On the Effectiveness of Interval Bound Propagation for Training
Verifiably Robust Models", arXiv:1810.12715): several abstract steps, each from slightly widened boxes, with a loss of
softplus(target - m) for every worst-case margin m of an output bit. The loss encodes the transducer: which box must
lead into which, with which output. So the model learns the transitions directly, not only from examples.

The boxes are kept from one training step to the next, without gradients through them. They restart from the images of
h_0 = 0 whenever a margin is not positive. Always or never restarting certifies far fewer models.

Shapes: N boxes (one per label of the transducer), S symbols, H units; everything is float32.
"""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from components.model.gru import GRU
from components.settings import ProofSettings
from components.task.transducer import Transducer


class Boxes(NamedTuple):
    """Intervals of hidden states, [N, H] each, in the order of the transducer's labels."""

    lower: tf.Tensor
    upper: tf.Tensor


class Bound(NamedTuple):
    """`loss`: scalar, mean softplus(target - margin); `margin`: scalar, the worst; `boxes`: the input of the next
    call."""

    loss: tf.Tensor
    margin: tf.Tensor
    boxes: Boxes


class BoxLoss:
    """The loss of `cell` for `task`, for use in a `tf.function`; `box_steps`, `widening` and `target` of `proof` apply.

    Every call reads the cell's variables; gradients flow into all of them.
    """

    def __init__(self, cell: GRU, task: Transducer, proof: ProofSettings):
        self.cell = cell
        self.proof = proof
        self.count = len(task.labels)
        # The last of the N + 1 origins is h_0.
        origins = [*(state for state, _ in task.labels), task.initial]
        following = [[task.label(state, symbol) for symbol in task.inputs] for state in origins]
        self.into = np.array([[task.labels.index(label) for label in row] for row in following], np.int32)
        self.signs = np.array([[2.0 * output - 1.0 for _, output in row] for row in following], np.float32)
        # A tf.function is traced once, not once per abstract step: tracing takes longer than the whole training.
        self._traced_step = tf.function(self._abstract_step, autograph=False)
        self.symbols = np.array(task.inputs, np.float32)

    def __call__(self, boxes: Boxes) -> Bound:
        """The bound from kept `boxes`; its only side effect is to read the cell's variables."""
        kernels = self._kernels()
        margins = []
        for _ in range(self.proof.box_steps):
            boxes, margin = self._traced_step(kernels, boxes)
            margins.append(margin)
        margins = tf.stack(margins)
        worst = tf.reduce_min(margins)
        fresh = self._restart(kernels)
        lower = tf.stop_gradient(tf.where(worst > 0, boxes.lower, fresh.lower))
        upper = tf.stop_gradient(tf.where(worst > 0, boxes.upper, fresh.upper))
        return Bound(tf.reduce_mean(tf.nn.softplus(self.proof.target - margins)), worst, Boxes(lower, upper))

    def _abstract_step(self, kernels: list, boxes: Boxes) -> tuple[Boxes, tf.Tensor]:
        """The boxes around the images of the widened boxes, and the margins of their outputs [N + 1, S]."""
        widening = self.proof.widening
        wide = Boxes(tf.maximum(boxes.lower - widening, -1.0), tf.minimum(boxes.upper + widening, 1.0))
        images, margins = self._step(kernels, wide)
        return self._hulls(images, self.into), margins

    def start(self) -> Boxes:
        """The boxes around the images of h_0; for labels that take more steps, around the images of those boxes."""
        return self._restart(self._kernels())

    def _restart(self, kernels: list) -> Boxes:
        zeros = tf.zeros([self.count, self.cell.units])
        boxes, has_box = Boxes(zeros, zeros), np.zeros(self.count, bool)
        while not has_box.all():
            # The last origin, h_0, needs no box.
            sources = np.append(has_box, True)
            # Images of missing boxes go to segment -1, which TensorFlow drops.
            images, _ = self._step(kernels, boxes)
            fresh = self._hulls(images, np.where(sources[:, None], self.into, -1))
            reached = np.isin(np.arange(self.count), self.into[sources])
            is_new = (reached & ~has_box)[:, None]
            boxes = Boxes(tf.where(is_new, fresh.lower, boxes.lower), tf.where(is_new, fresh.upper, boxes.upper))
            has_box |= reached
        return boxes

    def _kernels(self) -> list:
        """(U, |U|, the symbols' parts [S, H or 2H]) of both gates together and of the candidate."""
        cell = self.cell
        update, reset, candidate = cell.project(self.symbols)
        gates = tf.concat([cell.U_z, cell.U_r], axis=1)
        return [(gates, tf.abs(gates), tf.concat([update, reset], axis=1)), (cell.U_h, tf.abs(cell.U_h), candidate)]

    def _step(self, kernels: list, boxes: Boxes) -> tuple[Boxes, tf.Tensor]:
        """Images [N + 1, S, H] of the boxes and of h_0 under each symbol, and the margins of their outputs [N + 1,
        S]."""
        lower, upper = (tf.pad(side, [[0, 1], [0, 0]])[:, None, :] for side in boxes)
        low, high = (tf.sigmoid(side) for side in _affine(lower, upper, *kernels[0]))
        update_low, reset_low = tf.split(low, 2, axis=-1)
        update_high, reset_high = tf.split(high, 2, axis=-1)
        kept = tf.minimum(reset_low * lower, reset_high * lower), tf.maximum(reset_low * upper, reset_high * upper)
        target_low, target_high = (tf.tanh(side) for side in _affine(*kept, *kernels[1]))
        low_move, high_move = target_low - lower, target_high - upper
        images = Boxes(
            lower + tf.minimum(update_low * low_move, update_high * low_move),
            upper + tf.maximum(update_low * high_move, update_high * high_move),
        )
        centre = self.cell.logit((images.lower + images.upper) / 2)
        radius = tf.tensordot((images.upper - images.lower) / 2, tf.abs(self.cell.W_o[:, 0]), 1)
        return images, self.signs * centre - radius

    def _hulls(self, images: Boxes, into: np.ndarray) -> Boxes:
        """The hull [N, H] of the images that must lie in each box."""
        flat = [tf.reshape(side, [-1, self.cell.units]) for side in images]
        lower = tf.math.unsorted_segment_min(flat[0], into.ravel(), self.count)
        return Boxes(lower, tf.math.unsorted_segment_max(flat[1], into.ravel(), self.count))


def next_share(share: tf.Tensor, data_loss: tf.Tensor, proof: ProofSettings) -> tf.Tensor:
    """The share k of the box loss in (1 - k) data + k box after a step with `data_loss`."""
    grown, shrunk = tf.minimum(share + proof.share_grow, proof.max_share), tf.maximum(share - proof.share_shrink, 0.0)
    return tf.where(data_loss < proof.ready_loss, grown, shrunk)


def _affine(
    lower: tf.Tensor, upper: tf.Tensor, kernel: tf.Tensor, magnitude: tf.Tensor, offset: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    centre = tf.tensordot((lower + upper) / 2, kernel, 1) + offset
    radius = tf.tensordot((upper - lower) / 2, magnitude, 1)
    return centre - radius, centre + radius
