"""The SavedModel: the cell with the signatures of `components.signatures`, whose graphs refuse what is no sum of numbers.

A model server checks the dtypes of a request and nothing else, so bits, shapes and states are checked in the graph. A
refused request gets INVALID_ARGUMENT and a text that names the limit and the offender.
"""

import pathlib
import shutil
import uuid

import tensorflow as tf

from components import signatures
from components.carry_select import CarrySelect
from components.dataset import parse
from components.errors import BitsumError
from components.gru import GRU


def save(cell: GRU, directory: str, parallel: CarrySelect | None = None) -> None:
    """Writes the SavedModel of `cell` to `directory`, which appears whole or not at all.

    With `parallel`, which only a proven cell may have, long numbers are added chunk beside chunk.

    Raises:
        BitsumError: `directory` is there already and not empty, or cannot be written.
    """
    target = pathlib.Path(directory)
    partial = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        tf.saved_model.save(cell, str(partial), signatures=functions(cell, parallel))
        partial.rename(target)
    except (OSError, tf.errors.OpError) as error:
        reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
        raise BitsumError(f"cannot write the model to {directory}: {reason}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def functions(cell: GRU, parallel: CarrySelect | None = None) -> dict[str, tf.types.experimental.GenericFunction]:
    """The functions of the exported model by signature name; shapes and dtypes stand in `components.signatures`."""
    bits = tf.TensorSpec([None, None], tf.int64)
    states = tf.TensorSpec([None, cell.units], tf.float32)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def serving_default(examples: tf.Tensor) -> dict[str, tf.Tensor]:
        a, b, length = _parsed(examples)
        total = _sum(cell, *_checked_operands(a, b), parallel)
        # What follows a shorter number's final carry is the padding's, not the sum's.
        own = tf.sequence_mask(length + 1, tf.shape(total)[1], dtype=tf.int64)
        return {signatures.SUM: total * own, signatures.LENGTH: length}

    @tf.function(input_signature=[bits, bits])
    def add_bits(a: tf.Tensor, b: tf.Tensor) -> dict[str, tf.Tensor]:
        return {signatures.SUM: _sum(cell, *_checked_operands(a, b), parallel)}

    @tf.function(input_signature=[bits, bits, states])
    def step(a: tf.Tensor, b: tf.Tensor, state: tf.Tensor) -> dict[str, tf.Tensor]:
        a, b = _checked_operands(a, b)
        logits, state = cell.run(a, b, _checked_state(state, tf.shape(a)[0], cell.units))
        return {signatures.SUM: tf.cast(logits > 0, tf.int64), signatures.LOGITS: logits, signatures.STATE: state}

    return {signatures.SERVING_DEFAULT: serving_default, signatures.ADD_BITS: add_bits, signatures.STEP: step}


def _sum(cell: GRU, a: tf.Tensor, b: tf.Tensor, parallel: CarrySelect | None) -> tf.Tensor:
    """The sum's bits [B, T + 1] of operands [B, T]: one more (0, 0) step brings the final carry out."""
    a, b = (tf.pad(operand, [[0, 0], [0, 1]]) for operand in (a, b))

    def step_by_step() -> tf.Tensor:
        logits, _ = cell.run(a, b, cell.start(tf.shape(a)[0]))
        return logits > 0

    if parallel is None:
        return tf.cast(step_by_step(), tf.int64)
    is_long = tf.shape(a)[1] - 1 > parallel.above
    return tf.cast(tf.cond(is_long, lambda: parallel.decide(cell, a, b), step_by_step), tf.int64)


def _parsed(examples: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Operands int64 [B, T], padded with zeros, and their lengths int64 [B], of serialized Examples."""
    shape = _shape_text(examples)
    vector = _require(_has_rank(1, shape), "examples must have shape [B], they have ", shape)
    with tf.control_dependencies([vector]):
        bits = parse(tf.identity(examples), (signatures.A, signatures.B))
    a, b = bits[signatures.A], bits[signatures.B]
    length, other = a.row_lengths(), b.row_lengths()
    bad = (length != other) | (length == 0)
    fit = _require(
        ~tf.reduce_any(bad),
        "every example needs features a and b of the same number of bits, at least 1; those at ",
        tf.squeeze(tf.where(bad), axis=1), " have ", tf.boolean_mask(length, bad), " and ", tf.boolean_mask(other, bad), " bits",
    )  # fmt: skip
    with tf.control_dependencies([fit]):
        return a.to_tensor(), b.to_tensor(), tf.identity(length)


def _checked_operands(a: tf.Tensor, b: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    shape_a, shape_b = _shape_text(a), _shape_text(b)
    same = _require(
        _has_rank(2, shape_a) & (shape_a == shape_b), "a and b must have the same shape [B, T], they have ", shape_a, " and ", shape_b
    )
    with tf.control_dependencies([same]):
        operands = tf.stack([a, b])
        low, high = tf.reduce_min(operands), tf.reduce_max(operands)
    # Without any bit the minimum is the largest integer and the maximum the smallest.
    binary = _require((low >= 0) & (high <= 1), "every bit of a and b must be 0 or 1, these go from ", low, " to ", high)
    with tf.control_dependencies([binary]):
        return tf.identity(a), tf.identity(b)


def _checked_state(state: tf.Tensor, batch: tf.Tensor, units: int) -> tf.Tensor:
    shape, needed = _shape_text(state), _text(tf.stack([batch, units]))
    right_shape = _require(shape == needed, "state must have shape ", needed, ", it has ", shape)
    with tf.control_dependencies([right_shape]):
        size = tf.abs(state)
    # No state of the cell leaves [-1, 1], rounding included; a comparison with NaN is false and refuses it, too.
    inside = _require(tf.reduce_all(size <= 1), "every value of state must be from -1 to 1, found ", tf.reduce_max(size))
    with tf.control_dependencies([inside]):
        return tf.identity(state)


def _require(condition: tf.Tensor, *text: str | tf.Tensor) -> tf.Operation:
    """Fails the run with INVALID_ARGUMENT and `text`, in which tensors stand for their values, unless `condition` holds."""
    return tf.debugging.Assert(condition, [tf.strings.join([_text(part) for part in text])])


def _text(value: str | tf.Tensor) -> str | tf.Tensor:
    return value if isinstance(value, str) or value.dtype == tf.string else tf.strings.format("{}", value)


def _shape_text(tensor: tf.Tensor) -> tf.Tensor:
    """The shape as it is at run time, e.g. "[2 3]".

    Shapes are compared as texts, since TensorFlow's optimizer answers questions for the rank from the declared shape, which
    a request need not have, and since a comparison of two vectors of different sizes would itself fail or broadcast.
    """
    return _text(tf.shape(tensor))


def _has_rank(rank: int, shape_text: tf.Tensor) -> tf.Tensor:
    return tf.strings.regex_full_match(shape_text, r"\[" + " ".join([r"\d+"] * rank) + r"\]")
