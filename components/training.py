"""The training loop: the GRU on batches of short sums, until the steps of `settings.Train` are done."""

from collections.abc import Callable, Sequence

import keras
import tensorflow as tf

from components.dataset import Batch, batches, first_batch, one_line_errors
from components.errors import BitsumError
from components.gru import GRU
from components.progress import report
from components.settings import Train

# So many examples of the eval split are looked at in each report; the Evaluator looks at all of them.
REPORT_EXAMPLES = 2000


def train(settings: Train, train_files: Sequence[str], eval_files: Sequence[str], log_directory: str) -> GRU:
    """A GRU trained on the records of `train_files` (patterns), the same for the same settings and records.

    Loss, bit accuracy and exact match on `eval_files` go to `components.progress` and, for TensorBoard, `log_directory`.

    Raises:
        BitsumError: no, damaged or no examples in the files, or the loss is no longer finite.
    """
    cell = GRU(settings.units, settings.seed, settings.update_bias)
    update = make_update(cell, settings)
    held_out = first_batch(eval_files, REPORT_EXAMPLES)
    measure = tf.function(lambda: measures(cell, held_out, settings.loss))
    writer = tf.summary.create_file_writer(log_directory)
    with one_line_errors(train_files), writer.as_default():
        records = iter(batches(train_files, settings.batch_size, settings.seed))
        for step in range(1, settings.steps + 1):
            loss = update(next(records), tf.constant(step))
            if step % settings.report_every == 0 or step == settings.steps:
                _report(settings, step, float(loss), {name: float(value) for name, value in measure().items()})
    writer.close()
    return cell


def make_update(cell: GRU, settings: Train) -> Callable[[Batch, tf.Tensor], tf.Tensor]:
    """The function that takes a batch and the step number (int32), changes the weights of `cell` and returns the loss."""
    optimizer = _optimizer(settings)
    weights = cell.trainable_variables
    optimizer.build(weights)
    bits = tf.TensorSpec([None, None], tf.int64)
    signature = [Batch(bits, bits, bits, tf.TensorSpec([None, None], tf.float32)), tf.TensorSpec([], tf.int32)]

    @tf.function(input_signature=signature)
    def update(batch: Batch, step: tf.Tensor) -> tf.Tensor:
        noise = state_noise(batch, cell.units, settings, step)
        with tf.GradientTape() as tape:
            logits, _ = cell.run(batch.a, batch.b, cell.start(tf.shape(batch.a)[0]), noise)
            loss = data_loss(logits, batch, settings.loss)
        gradients = tape.gradient(loss, weights)
        optimizer.apply(gradients, weights)
        return loss

    return update


def data_loss(logits: tf.Tensor, batch: Batch, loss: str) -> tf.Tensor:
    """The mean over all bits of the batch, padding left out, of what `settings.Train.loss` names; logits [B, T]."""
    bits = tf.cast(batch.sum, tf.float32)
    if loss == "quadratic":
        losses = tf.square(tf.sigmoid(logits) - bits)
    else:
        losses = tf.nn.sigmoid_cross_entropy_with_logits(labels=bits, logits=logits)
    return tf.reduce_sum(losses * batch.mask) / tf.reduce_sum(batch.mask)


def measures(cell: GRU, batch: Batch, loss: str) -> dict[str, tf.Tensor]:
    """Loss, share of right bits and share of sums with every bit right, of the cell without noise."""
    logits, _ = cell.run(batch.a, batch.b, cell.start(tf.shape(batch.a)[0]))
    wrong = tf.cast((logits > 0) != (batch.sum > 0), tf.float32) * batch.mask
    return {
        "loss": data_loss(logits, batch, loss),
        "accuracy": 1 - tf.reduce_sum(wrong) / tf.reduce_sum(batch.mask),
        "exact": tf.reduce_mean(tf.cast(tf.reduce_sum(wrong, axis=1) == 0, tf.float32)),
    }


def state_noise(batch: Batch, units: int, settings: Train, step: tf.Tensor) -> tf.Tensor | None:
    """What is added to the state at each time step of training step `step`: float32 [T, B, H], or None without noise."""
    if not settings.state_noise:
        return None
    rows, columns = tf.unstack(tf.shape(batch.a))
    width = settings.state_noise
    return tf.random.stateless_uniform([columns, rows, units], [settings.seed, step], -width, width, alg="philox")


# Not `tf.keras`: that is Keras 2 wherever TensorFlow Transform was imported before, in this process or the one that started it.
def _optimizer(settings: Train) -> keras.optimizers.Optimizer:
    clip = settings.clip_norm or None
    if settings.optimizer == "sgd":
        return keras.optimizers.SGD(settings.learning_rate, global_clipnorm=clip)
    return keras.optimizers.Adam(settings.learning_rate, global_clipnorm=clip)


def _report(settings: Train, step: int, loss: float, held_out: dict[str, float]) -> None:
    if not loss < float("inf"):
        raise BitsumError(
            f"the training loss is {loss} after step {step}: lower train.learning_rate ({settings.learning_rate}) "
            f"or set train.clip_norm ({settings.clip_norm})"
        )
    report("train", step=step, of=settings.steps, loss=loss, accuracy=held_out["accuracy"], exact=held_out["exact"])
    tf.summary.scalar("train/loss", loss, step)
    for name, value in held_out.items():
        tf.summary.scalar(f"eval/{name}", value, step)
