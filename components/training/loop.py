"""The training loop: trains the GRU on batches of short numbers until it is proven for any length, for at most
`settings.Train.steps`.

The loss is (1 - k) data loss + k provability loss (`components.training.box_loss`). k starts at 0 and grows while the
data loss is low. Every `settings.ProofSettings.attempt_every` steps, once the bound of the provability loss is
positive, the finder looks for a certificate and the checker checks it. With the plain loss k stays 0, and the only
attempt is at the end.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import keras
import tensorflow as tf

from components.data.dataset import Batch, batches, first_batch, one_line_errors
from components.errors import BitsumError
from components.model.gru import GRU
from components.progress import report, tell
from components.proof.weights import NAMES, Weights
from components.settings import ProofSettings, Train
from components.task.transducer import ADDITION, Transducer
from components.training.box_loss import Bound, Boxes, BoxLoss, next_share
from components.training.certification import Attempts

# Each report evaluates this many examples of the eval split; the Evaluator evaluates all of them.
REPORT_EXAMPLES = 2000


class Outcome(NamedTuple):
    """The outcome of a training.

    `steps`: step of the returned weights; `first`: step of the first accepted certificate; `margin`: the checker's
    worst margin for the returned weights. The last two are None without an accepted certificate.
    """

    steps: int
    first: int | None
    margin: float | None


class Carried(NamedTuple):
    """The state between steps, float32: the share k of the provability loss, and its boxes [N, H]."""

    share: tf.Tensor
    boxes: Boxes


class Losses(NamedTuple):
    """The float32 scalars of one step: the data loss, the provability loss, and the worst margin of its bound."""

    data: tf.Tensor
    box: tf.Tensor
    margin: tf.Tensor


Update = Callable[[Batch, tf.Tensor, Carried], tuple[Losses, Carried]]


def train(
    settings: Train,
    train_files: Sequence[str],
    eval_files: Sequence[str],
    log_directory: str,
    proof: ProofSettings,
    task: Transducer = ADDITION,
    base: Weights | None = None,
) -> tuple[GRU, Outcome]:
    """A GRU trained on the records of `train_files` (patterns); equal settings, records and `base` give equal weights.

    Training starts from the weights `base`, if given (a warm start). No certificate counts before `settings.min_steps`.

    Training stops at the first certificate accepted `proof.extra_steps` or more after the first one, at the latest
    after `settings.steps`; the weights of the last accepted certificate are returned. Losses, bit accuracy and exact
    match on `eval_files`, and margins go to `components.progress` and, for TensorBoard, to `log_directory`.

    Raises:
        BitsumError: files are missing, damaged or without examples, or the loss is no longer finite.
    """
    cell = GRU(settings.units, settings.seed, settings.update_bias)
    if base:
        assign(cell, base)
    update, carried = make_update(cell, settings, proof, task)
    attempts = Attempts(cell, task)
    held_out = first_batch(eval_files, REPORT_EXAMPLES)
    measure = tf.function(lambda: measures(cell, held_out, settings.loss), autograph=False)
    writer = tf.summary.create_file_writer(log_directory)
    step, done = 0, False
    with one_line_errors(train_files), writer.as_default():
        records = iter(batches(train_files, settings.batch_size, settings.seed))
        while not done:
            step += 1
            losses, carried = update(next(records), tf.constant(step), carried)
            done = _attempt(attempts, settings, proof, step, float(losses.margin))
            if step % settings.report_every == 0 or done:
                _report(
                    settings, step, losses, carried, attempts, {name: float(value) for name, value in measure().items()}
                )
    writer.close()
    attempts.restore()
    if step < settings.steps:
        tell(
            f"stopped early, after step {step:,} of {settings.steps:,}: proven at step {attempts.first:,}, and again "
            f"at least proof.extra_steps = {proof.extra_steps:,} later"
        )
    elif attempts.last not in (None, step):
        tell(f"the weights of step {attempts.last:,} are kept, the last with an accepted certificate")
    return cell, Outcome(attempts.last or step, attempts.first, attempts.margin)


def assign(cell: GRU, weights: Weights) -> None:
    """Give the cell these weights, which must have its shapes."""
    for name in NAMES:
        getattr(cell, name).assign(getattr(weights, name))


def make_update(
    cell: GRU, settings: Train, proof: ProofSettings, task: Transducer = ADDITION
) -> tuple[Update, Carried]:
    """A function of a batch, the step number (int32) and the previous step's `Carried`, which updates the weights of
    `cell`; and the first step's `Carried`.
    """
    box_loss = BoxLoss(cell, task, proof)
    optimizer = _optimizer(settings)
    weights = cell.trainable_variables
    optimizer.build(weights)
    carried = Carried(tf.zeros([]), box_loss.start())
    bits = tf.TensorSpec([None, None], tf.int64)
    batches = Batch(bits, bits, bits, tf.TensorSpec([None, None], tf.float32))
    signature = [batches, tf.TensorSpec([], tf.int32), tf.nest.map_structure(tf.TensorSpec.from_tensor, carried)]

    @tf.function(input_signature=signature, autograph=False)
    def update(batch: Batch, step: tf.Tensor, carried: Carried) -> tuple[Losses, Carried]:
        noise = state_noise(batch, cell.units, settings, step)
        no_bound = Bound(tf.zeros([]), tf.constant(-float("inf")), carried.boxes)
        with tf.GradientTape() as tape:
            logits, _ = cell.run(batch.a, batch.b, cell.start(tf.shape(batch.a)[0]), noise)
            data = data_loss(logits, batch, settings.loss)
            bound = box_loss(carried.boxes) if proof.train else no_bound
            loss = (1 - carried.share) * data + carried.share * bound.loss
        optimizer.apply(tape.gradient(loss, weights), weights)
        share = next_share(carried.share, data, proof) if proof.train else carried.share
        return Losses(data, bound.loss, bound.margin), Carried(share, bound.boxes)

    return update, carried


def data_loss(logits: tf.Tensor, batch: Batch, loss: str) -> tf.Tensor:
    """The mean of the loss `settings.Train.loss` over the bits of the batch without padding; logits [B, T]."""
    bits = tf.cast(batch.sum, tf.float32)
    if loss == "quadratic":
        losses = tf.square(tf.sigmoid(logits) - bits)
    else:
        losses = tf.nn.sigmoid_cross_entropy_with_logits(labels=bits, logits=logits)
    return tf.reduce_sum(losses * batch.mask) / tf.reduce_sum(batch.mask)


def measures(cell: GRU, batch: Batch, loss: str) -> dict[str, tf.Tensor]:
    """The cell's loss, fraction of right bits and fraction of sums with every bit right, without noise."""
    logits, _ = cell.run(batch.a, batch.b, cell.start(tf.shape(batch.a)[0]))
    wrong = tf.cast((logits > 0) != (batch.sum > 0), tf.float32) * batch.mask
    return {
        "loss": data_loss(logits, batch, loss),
        "accuracy": 1 - tf.reduce_sum(wrong) / tf.reduce_sum(batch.mask),
        "exact": tf.reduce_mean(tf.cast(tf.reduce_sum(wrong, axis=1) == 0, tf.float32)),
    }


def state_noise(batch: Batch, units: int, settings: Train, step: tf.Tensor) -> tf.Tensor | None:
    """The noise added to the state at each time step in training step `step`: float32 [T, B, H]; None for no noise."""
    if not settings.state_noise:
        return None
    rows, columns = tf.unstack(tf.shape(batch.a))
    width = settings.state_noise
    return tf.random.stateless_uniform([columns, rows, units], [settings.seed, step], -width, width, alg="philox")


# Not `tf.keras`, which is Keras 2 once this process or its parent has imported TensorFlow Transform.
def _optimizer(settings: Train) -> keras.optimizers.Optimizer:
    clip = settings.clip_norm or None
    if settings.optimizer == "sgd":
        return keras.optimizers.SGD(settings.learning_rate, global_clipnorm=clip)
    return keras.optimizers.Adam(settings.learning_rate, global_clipnorm=clip)


def _attempt(attempts: Attempts, settings: Train, proof: ProofSettings, step: int, bound: float) -> bool:
    """Attempt a certificate if one is due; returns whether the training is done."""
    last = step >= settings.steps
    if last and not attempts.first:
        # The last attempt: also try boxes that are kept apart by the last symbols.
        return attempts.attempt(step, depths=(0, 1, 2)) or last
    if not last and (step < settings.min_steps or step % proof.attempt_every or not bound > 0):
        return False
    accepted = attempts.attempt(step)
    return last or (accepted and attempts.first is not None and step >= attempts.first + proof.extra_steps)


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
