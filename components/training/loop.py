"""The training loop: the GRU on batches of short numbers, until it is proven for any length or `settings.Train.steps`
are done.

The loss is (1 - k) data loss + k provability loss (`components.training.box_loss`). k is 0 at first, and grows while the data
loss is low. Every `settings.ProofSettings.attempt_every` steps, once the bound of the provability loss says that there may be
one, a certificate is looked for and checked. With the plain loss k stays 0, and there is one attempt, at the end.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import keras
import tensorflow as tf

from components.data.dataset import Batch, batches, first_batch, one_line_errors
from components.errors import BitsumError
from components.model.gru import GRU
from components.progress import report
from components.proof.weights import NAMES, Weights
from components.settings import ProofSettings, Train
from components.task.transducer import ADDITION, Transducer
from components.training.box_loss import Bound, Boxes, BoxLoss, next_share
from components.training.certification import Attempts

# So many examples of the eval split are looked at in each report; the Evaluator looks at all of them.
REPORT_EXAMPLES = 2000


class Outcome(NamedTuple):
    """What became of a training.

    `steps`: of the weights that are returned; `first`: of the first accepted certificate; `margin`: the checker's worst
    margin for the weights that are returned. The last two are None where no certificate was accepted.
    """

    steps: int
    first: int | None
    margin: float | None


class Carried(NamedTuple):
    """What one step hands to the next, float32: the share k of the provability loss, and its boxes [N, H]."""

    share: tf.Tensor
    boxes: Boxes


class Losses(NamedTuple):
    """Of one step, float32 scalars: the data loss, the provability loss, and the worst margin of its bound."""

    data: tf.Tensor
    box: tf.Tensor
    margin: tf.Tensor


Update = Callable[[Batch, tf.Tensor, Carried], tuple[Losses, Carried]]


def train(
    settings: Train,
    train_files: Sequence[str],
    eval_files: Sequence[str],
    log_directory: str,
    proof: ProofSettings = ProofSettings(),
    task: Transducer = ADDITION,
    base: Weights | None = None,
) -> tuple[GRU, Outcome]:
    """A GRU trained on the records of `train_files` (patterns), the same for the same settings, records and `base`.

    It begins with the weights `base` (a warm start) if they are given. No certificate counts before
    `settings.min_steps`.

    It stops `proof.extra_steps` after the first accepted certificate, but never without one at the end: where the last
    attempt fails it goes on, and the weights of the last accepted certificate are returned. Losses, bit accuracy and
    exact match on `eval_files`, and margins go to `components.progress` and, for TensorBoard, `log_directory`.

    Raises:
        BitsumError: no, damaged or no examples in the files, or the loss is no longer finite.
    """
    cell = GRU(settings.units, settings.seed, settings.update_bias)
    if base:
        assign(cell, base)
    update, carried = make_update(cell, settings, proof, task)
    attempts = Attempts(cell, task)
    held_out = first_batch(eval_files, REPORT_EXAMPLES)
    measure = tf.function(lambda: measures(cell, held_out, settings.loss))
    writer = tf.summary.create_file_writer(log_directory)
    step, done = 0, False
    with one_line_errors(train_files), writer.as_default():
        records = iter(batches(train_files, settings.batch_size, settings.seed))
        while not done:
            step += 1
            losses, carried = update(next(records), tf.constant(step), carried)
            done = _attempted(attempts, settings, proof, step, float(losses.margin))
            if step % settings.report_every == 0 or done:
                _report(
                    settings, step, losses, carried, attempts, {name: float(value) for name, value in measure().items()}
                )
    writer.close()
    attempts.restore()
    return cell, Outcome(attempts.last or step, attempts.first, attempts.margin)


def assign(cell: GRU, weights: Weights) -> None:
    """Give the cell these weights, which must be of its shapes."""
    for name in NAMES:
        getattr(cell, name).assign(getattr(weights, name))


def make_update(
    cell: GRU, settings: Train, proof: ProofSettings, task: Transducer = ADDITION
) -> tuple[Update, Carried]:
    """The function that takes a batch, the step number (int32) and what the step before carried, and changes the
    weights of `cell`.

    Returns:
        (the function, what the first step is to be given).
    """
    bound = BoxLoss(cell, task, proof.box_steps, proof.widening, proof.target)
    optimizer = _optimizer(settings)
    weights = cell.trainable_variables
    optimizer.build(weights)
    carried = Carried(tf.zeros([]), bound.start())
    bits = tf.TensorSpec([None, None], tf.int64)
    batches = Batch(bits, bits, bits, tf.TensorSpec([None, None], tf.float32))
    signature = [batches, tf.TensorSpec([], tf.int32), tf.nest.map_structure(tf.TensorSpec.from_tensor, carried)]

    @tf.function(input_signature=signature)
    def update(batch: Batch, step: tf.Tensor, carried: Carried) -> tuple[Losses, Carried]:
        noise = state_noise(batch, cell.units, settings, step)
        with tf.GradientTape() as tape:
            logits, _ = cell.run(batch.a, batch.b, cell.start(tf.shape(batch.a)[0]), noise)
            data = data_loss(logits, batch, settings.loss)
            found = (
                bound(carried.boxes) if proof.train else Bound(tf.zeros([]), tf.constant(-float("inf")), carried.boxes)
            )
            loss = (1 - carried.share) * data + carried.share * found.loss
        optimizer.apply(tape.gradient(loss, weights), weights)
        most = proof.max_share if proof.train else 0.0
        share = next_share(carried.share, data, proof.share_grow, proof.share_shrink, most, proof.ready_loss)
        return Losses(data, found.loss, found.margin), Carried(share, found.boxes)

    return update, carried


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
    """What is added to the state at each time step of training step `step`: float32 [T, B, H], or None without
    noise."""
    if not settings.state_noise:
        return None
    rows, columns = tf.unstack(tf.shape(batch.a))
    width = settings.state_noise
    return tf.random.stateless_uniform([columns, rows, units], [settings.seed, step], -width, width, alg="philox")


# Not `tf.keras`: that is Keras 2 wherever TensorFlow Transform was imported before, in this process or the one that
# started it.
def _optimizer(settings: Train) -> keras.optimizers.Optimizer:
    clip = settings.clip_norm or None
    if settings.optimizer == "sgd":
        return keras.optimizers.SGD(settings.learning_rate, global_clipnorm=clip)
    return keras.optimizers.Adam(settings.learning_rate, global_clipnorm=clip)


def _attempted(attempts: Attempts, settings: Train, proof: ProofSettings, step: int, bound: float) -> bool:
    """Attempts a certificate where it is time; whether the training is done."""
    last = step >= settings.steps
    if last and not attempts.first:
        # Nothing comes after this: boxes that are kept apart by the last symbols, too, are worth their time.
        return attempts.attempt(step, depths=(0, 1, 2)) or last
    if not last and (step < settings.min_steps or step % proof.attempt_every or not bound > 0):
        return False
    return (attempts.attempt(step) and step >= attempts.first + proof.extra_steps) or last


def _report(
    settings: Train, step: int, losses: Losses, carried: Carried, attempts: Attempts, held_out: dict[str, float]
) -> None:
    loss = float(losses.data)
    if not loss < float("inf"):
        raise BitsumError(
            f"the training loss is {loss} after step {step}: lower train.learning_rate ({settings.learning_rate}) "
            f"or set train.clip_norm ({settings.clip_norm})"
        )
    trained = {"loss": loss}
    if carried.share > 0:
        trained |= {"box_loss": float(losses.box), "share": float(carried.share), "bound": float(losses.margin)}
    if attempts.margin is not None:
        trained["margin"] = attempts.margin
    report("train", step=step, of=settings.steps, accuracy=held_out["accuracy"], exact=held_out["exact"], **trained)
    for name, value in trained.items():
        tf.summary.scalar(f"train/{name}", value, step)
    for name, value in held_out.items():
        tf.summary.scalar(f"eval/{name}", value, step)
