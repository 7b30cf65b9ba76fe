"""The input checks in the graph of the exported model, each with a text that names the limit and the offender.

A check is a condition and the parts of its text, in which tensors stand for their values. No input makes the evaluation
of a condition fail, so a signature evaluates all of its conditions at once; texts are built only for a refusal. The run
then ends with INVALID_ARGUMENT and the text of the first check that does not hold.
"""

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf


class Check(NamedTuple):
    """A bool [], and a function that builds the text; it is called only if all earlier checks hold."""

    holds: tf.Tensor
    text: Callable[[], tuple[str | tf.Tensor, ...]]


def checked(tensors: list[tf.Tensor], *checks: Check) -> list[tf.Tensor]:
    """The same tensors, once all checks hold."""
    holds = checks[0].holds
    for check in checks[1:]:
        holds &= check.holds

    def refuse() -> tf.Tensor:
        refused: list[tf.Operation] = []
        for check in checks:
            with tf.control_dependencies(refused):
                parts = [
                    part if isinstance(part, str) or part.dtype == tf.string else _text(part) for part in check.text()
                ]
                refused = [tf.debugging.Assert(check.holds, [tf.strings.join(parts)])]
        with tf.control_dependencies(refused):
            return tf.identity(holds)

    with tf.control_dependencies([tf.cond(holds, lambda: holds, refuse)]):
        return [tf.identity(tensor) for tensor in tensors]


def same_shape(a: tf.Tensor, b: tf.Tensor, letters: str) -> Check:
    """a and b have the same shape, of as many dimensions as there are letters."""
    shapes = _text(tf.shape(a)), _text(tf.shape(b))
    expected = f"[{', '.join(letters)}]"
    holds = has_rank(a, len(letters)).holds & (shapes[0] == shapes[1])
    return Check(
        holds, lambda: (f"a and b must have the same shape {expected}, they have ", shapes[0], " and ", shapes[1])
    )


def has_rank(tensor: tf.Tensor, rank: int, text: str = "") -> Check:
    """The tensor has `rank` dimensions.

    Shapes are compared as texts, e.g. "[2 3]", because TensorFlow's optimizer takes the rank from the declared shape,
    which a request need not have, and because comparing two vectors of different sizes would itself fail or broadcast.
    """
    shape = _text(tf.shape(tensor))
    return Check(tf.strings.regex_full_match(shape, r"\[" + " ".join([r"\d+"] * rank) + r"\]"), lambda: (text, shape))


def binary(a: tf.Tensor, b: tf.Tensor) -> Check:
    """All of a and b, int64 of any shapes, are bits."""

    def text() -> tuple[str | tf.Tensor, ...]:
        both = tf.stack([a, b])
        return "every bit of a and b must be 0 or 1, these go from ", tf.reduce_min(both), " to ", tf.reduce_max(both)

    # As unsigned integers, negative numbers are large.
    largest = [tf.reduce_max(tf.reshape(tf.bitcast(operand, tf.uint64), [-1])) for operand in (a, b)]
    return Check((largest[0] <= 1) & (largest[1] <= 1), text)


def same_size(a: tf.Tensor, b: tf.Tensor) -> Check:
    """All strings of a and b, of any shapes, have the same number of bytes, at least 1."""
    sizes = tf.concat([tf.reshape(tf.strings.length(operand), [-1]) for operand in (a, b)], axis=0)
    # Without strings, the minimum is the largest integer and the maximum the smallest.
    smallest, largest = tf.reduce_min(sizes), tf.reduce_max(sizes)
    text = "a and b must hold the same number of bytes, at least 1; these go from ", smallest, " to ", largest
    return Check((smallest >= largest) & (smallest >= 1), lambda: text)


def same_lengths(length: tf.Tensor, other: tf.Tensor) -> Check:
    """The two features of every example have the same number of bits, int64 [B] each, at least 1."""
    bad = (length != other) | (length == 0)

    def text() -> tuple[str | tf.Tensor, ...]:
        lengths = tf.boolean_mask(length, bad), " and ", tf.boolean_mask(other, bad)
        place = tf.squeeze(tf.where(bad), axis=1)
        return (
            "every example needs features a and b of the same number of bits, at least 1; those at ",
            place,
            " have ",
            *lengths,
            " bits",
        )

    return Check(~tf.reduce_any(bad), text)


def state_shape(state: tf.Tensor, operand: tf.Tensor, units: int) -> Check:
    """The state is [B, H], with B the first dimension of the operand."""
    shape = _text(tf.shape(state))
    needed = tf.strings.regex_replace(_text(tf.shape(operand)), r"\[(\d+).*", rf"[\1 {units}]")
    return Check(shape == needed, lambda: ("state must have shape ", needed, ", it has ", shape))


def state_values(state: tf.Tensor) -> Check:
    """All values are from -1 to 1."""
    size = tf.abs(state)
    # The cell's states stay in [-1, 1], rounding included. Comparisons with NaN are false, so NaN is refused too.
    inside = tf.reduce_all(tf.reshape(size <= 1, [-1]))
    return Check(inside, lambda: ("every value of state must be from -1 to 1, found ", tf.reduce_max(size)))


def _text(value: tf.Tensor) -> tf.Tensor:
    return tf.strings.format("{}", value)
