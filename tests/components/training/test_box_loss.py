"""The differentiable bound against the checker's enclosures and finite steps of the optimizer."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from components.model.gru import GRU
from components.proof import checker, finder
from components.settings import ProofSettings
from components.task.transducer import ADDITION, COMPARISON, TASKS
from components.training.box_loss import Boxes, BoxLoss, next_share
from tests.support import certified
from tests.support.cells import cell_of

pytestmark = pytest.mark.fast

PROOF = ProofSettings()
WEIGHTS = certified.weights()


def test_one_step_is_the_checkers_image_without_allowances():
    bound = BoxLoss(cell_of(), ADDITION, ProofSettings(box_steps=1, widening=0.0))
    certificate = finder.find(WEIGHTS).certificate
    boxes = Boxes(
        *(tf.constant([getattr(box, side) for box in certificate.boxes], tf.float32) for side in ("lower", "upper"))
    )
    images, margins = bound._step(bound._kernels(), boxes)
    cell = checker.Cell.of(WEIGHTS)
    for index, box in enumerate(certificate.boxes):
        for column, symbol in enumerate(ADDITION.inputs):
            image = checker.image(cell, tuple(zip(box.lower, box.upper, strict=True)), symbol)
            np.testing.assert_allclose(images.lower[index, column], [low for low, _ in image.hidden], atol=1e-3)
            np.testing.assert_allclose(images.upper[index, column], [high for _, high in image.hidden], atol=1e-3)
            output = ADDITION.label(box.state, symbol)[1]
            wanted = image.logit[0] if output else -image.logit[1]
            assert float(margins[index, column]) == pytest.approx(wanted, abs=1e-2)


def test_boxes_start_at_the_images_of_zero():
    cell = cell_of()
    boxes = BoxLoss(cell, ADDITION, PROOF).start()
    after = cell.step(tf.constant(ADDITION.inputs, tf.float32), tf.zeros([4, 8])).numpy()
    np.testing.assert_allclose(boxes.lower[:3], [after[0], np.minimum(after[1], after[2]), after[3]], atol=1e-6)
    np.testing.assert_allclose(boxes.upper[:3], [after[0], np.maximum(after[1], after[2]), after[3]], atol=1e-6)
    twice = cell.step(tf.constant([(1, 1)], tf.float32), after[3:]).numpy()
    np.testing.assert_allclose(boxes.lower[3], twice[0], atol=1e-6)


def test_margin_of_a_certified_cell_is_positive_and_its_boxes_are_kept():
    bound = BoxLoss(cell_of(), ADDITION, PROOF)
    step = tf.function(lambda lower, upper: bound(Boxes(lower, upper)))
    boxes = bound.start()
    for _ in range(5):
        result = step(*boxes)
        boxes = result.boxes
    assert result.margin > 1 and result.loss < 0.1
    assert np.all(boxes.upper >= boxes.lower) and np.any(boxes.upper > bound.start().upper)


def test_boxes_start_again_where_a_margin_is_not_positive():
    bound = BoxLoss(GRU(8, seed=1), ADDITION, PROOF)
    result = bound(bound.start())
    assert result.margin < 0
    np.testing.assert_allclose(result.boxes.lower, bound.start().lower, atol=1e-6)


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_the_loss_can_be_trained_down(task):
    cell = GRU(8, seed=2)
    bound = BoxLoss(cell, task, ProofSettings(box_steps=2))
    boxes, losses = bound.start(), []
    optimizer = keras.optimizers.Adam(0.01)
    for _ in range(4):
        with tf.GradientTape() as tape:
            result = bound(boxes)
        gradients = tape.gradient(result.loss, cell.trainable_variables)
        assert all(gradient is not None and np.all(np.isfinite(gradient)) for gradient in gradients)
        optimizer.apply(gradients, cell.trainable_variables)
        boxes = result.boxes
        losses.append(float(result.loss))
    assert losses[-1] < losses[0]


def test_a_task_with_two_labels_has_two_boxes():
    assert BoxLoss(GRU(4), COMPARISON, PROOF).start().lower.shape == (2, 4)


def test_share_grows_while_the_data_loss_is_low():
    def share(before: float, loss: float) -> float:
        proof = ProofSettings(share_grow=0.005, share_shrink=0.0025, max_share=0.5, ready_loss=0.3)
        return float(next_share(tf.constant(before), tf.constant(loss), proof))

    assert [share(0.1, 0.2), share(0.105, 0.4)] == pytest.approx([0.105, 0.1025])
    assert (share(0.499, 0.2), share(0.001, 0.4)) == (0.5, 0)
