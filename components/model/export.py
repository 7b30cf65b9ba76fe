"""The SavedModel: the cell with the signatures of `components.signatures`, whose graphs refuse invalid requests.

A model server checks only the dtypes of a request, so the graph checks bits, shapes and states. A refused request gets
INVALID_ARGUMENT and a text that names the limit and the offender.
"""

import pathlib
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from components import atomic, signatures
from components.data.dataset import parse
from components.errors import BitsumError
from components.model import input_checks, packed_bits
from components.model.carry_select import CarrySelect
from components.model.gru import GRU
from components.model.input_checks import checked
from components.model.time_loop import TimeLoop
from components.savedmodel import export_format
from components.task.transducer import ADDITION, Transducer


def save(
    cell: GRU,
    directory: str,
    parallel: CarrySelect | None = None,
    task: Transducer = ADDITION,
    form: int = export_format.LATEST,
) -> None:
    """Write the SavedModel of `cell` to `directory`, which appears whole or not at all.

    Args:
        parallel: adds long numbers in parallel chunks; for proven cells only.
        task: the cell's task, after which the signatures are named.
        form: number of the export format; an earlier one is for comparison with a model of that format.

    Raises:
        BitsumError: `directory` is not empty, or cannot be written.
    """
    target = pathlib.Path(directory)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with atomic.folder(target) as partial:
            tf.saved_model.save(
                _root(cell, form), str(partial), signatures=functions(cell, parallel, export_format.verb(task, form))
            )
    except (OSError, tf.errors.OpError) as error:
        reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
        raise BitsumError(f"cannot write the model to {directory}: {reason}") from error


def _root(cell: GRU, form: int) -> tf.Module:
    """The root object of the SavedModel: the cell's variables, and the number of its format if it has one."""
    root = tf.Module()
    for name, value in vars(cell).items():
        if isinstance(value, tf.Variable):
            setattr(root, name, value)
    if form > export_format.FIRST:
        setattr(root, export_format.child(form), tf.Module())
    return root


def functions(cell: GRU, parallel: CarrySelect | None, verb: str) -> dict[str, tf.types.experimental.GenericFunction]:
    """The functions of the exported model by signature name; `components.signatures` has shapes and dtypes."""
    bits = tf.TensorSpec([None, None], tf.int64)
    packed = tf.TensorSpec([None], tf.string)
    states = tf.TensorSpec([None, cell.units], tf.float32)

    @tf.function(input_signature=[packed], autograph=False)
    def serving_default(examples: tf.Tensor) -> dict[str, tf.Tensor]:
        a, b, length = _parsed(examples)
        a, b = checked([a, b], input_checks.binary(a, b))
        total = _sum(cell, a, b, parallel)
        # The bits after a shorter number's final carry come from its padding.
        own = tf.sequence_mask(length + 1, tf.shape(total)[1], dtype=tf.int64)
        return {signatures.SUM: total * own, signatures.LENGTH: length}

    @tf.function(input_signature=[bits, bits], autograph=False)
    def on_bits(a: tf.Tensor, b: tf.Tensor) -> dict[str, tf.Tensor]:
        a, b = checked([a, b], input_checks.same_shape(a, b, "BT"), input_checks.binary(a, b))
        return {signatures.SUM: _sum(cell, a, b, parallel)}

    @tf.function(input_signature=[bits, bits, states], autograph=False)
    def step(a: tf.Tensor, b: tf.Tensor, state: tf.Tensor) -> dict[str, tf.Tensor]:
        right = input_checks.same_shape(a, b, "BT"), input_checks.binary(a, b), *_state_checks(state, a, cell)
        a, b, state = checked([a, b, state], *right)
        logits, state = TimeLoop(cell).logits(packed_bits.words_of_bits(a, b), state, tf.shape(a)[1])
        return {signatures.SUM: tf.cast(logits > 0, tf.int64), signatures.LOGITS: logits, signatures.STATE: state}

    @tf.function(input_signature=[packed, packed, states], autograph=False)
    def on_packed(a: tf.Tensor, b: tf.Tensor, state: tf.Tensor) -> dict[str, tf.Tensor]:
        right = input_checks.same_shape(a, b, "B"), input_checks.same_size(a, b), *_state_checks(state, a, cell)
        a, b, state = checked([a, b, state], *right)
        numbers, state = _numbers(cell, packed_bits.words_of_bytes(a, b), state, parallel)
        return {signatures.SUM: packed_bits.strings_of_numbers(numbers), signatures.STATE: state}

    by_name = {signatures.SERVING_DEFAULT: serving_default, signatures.bits(verb): on_bits, signatures.STEP: step}
    return by_name | {signatures.packed(verb): on_packed}


def _parsed(examples: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Operands int64 [B, T], padded with zeros, and their lengths int64 [B], of serialized Examples."""
    [examples] = checked([examples], input_checks.has_rank(examples, 1, "examples must have shape [B], they have "))
    bits = parse(examples, (signatures.A, signatures.B))
    a, b = bits[signatures.A], bits[signatures.B]
    fit = input_checks.same_lengths(a.row_lengths(), b.row_lengths())
    a, b, length = checked([a.to_tensor(), b.to_tensor(), a.row_lengths()], fit)
    return a, b, length


def _state_checks(state: tf.Tensor, operand: tf.Tensor, cell: GRU) -> tuple[input_checks.Check, ...]:
    return input_checks.state_shape(state, operand, cell.units), input_checks.state_values(state)


def _sum(cell: GRU, a: tf.Tensor, b: tf.Tensor, parallel: CarrySelect | None) -> tf.Tensor:
    """The sum's bits int64 [B, T + 1] of operands [B, T]: one more (0, 0) step brings the final carry out."""
    loop, words = TimeLoop(cell), packed_bits.words_of_bits(a, b)
    batch, steps = tf.unstack(tf.shape(a))
    start = cell.start(batch)

    def step_by_step() -> tf.Tensor:
        logits, state = loop.logits(words, start, steps)
        carry, _ = loop.single_step((0, 0), state)
        return tf.concat([logits, carry[:, None]], axis=1) > 0

    if parallel is None:
        return tf.cast(step_by_step(), tf.int64)

    def in_chunks() -> tf.Tensor:
        numbers, state = parallel.run(loop, words, start)
        carry, _ = loop.single_step((0, 0), state)
        # If zeros pad the last word, the carry is already among the bits.
        return tf.concat([packed_bits.bits_of_numbers(numbers), carry[:, None] > 0], axis=1)[:, : steps + 1]

    return tf.cast(tf.cond(parallel.applies_to(batch, steps), _as_single_op(in_chunks), step_by_step), tf.int64)


def _numbers(
    cell: GRU, words: tf.Tensor, state: tf.Tensor, parallel: CarrySelect | None
) -> tuple[tf.Tensor, tf.Tensor]:
    """The cell's outputs for words [B, N] from `state` [B, H]: (numbers [B, N], the state after them)."""
    loop = TimeLoop(cell)
    if parallel is None:
        return loop.numbers(words, state)
    batch, size = tf.unstack(tf.shape(words))
    in_chunks = _as_single_op(lambda: parallel.run(loop, words, state))
    applies = parallel.applies_to(batch, packed_bits.STEPS * size)
    return tf.cond(applies, in_chunks, lambda: loop.numbers(words, state))


def _as_single_op(branch: Callable[[], Any]) -> Callable[[], Any]:
    """The branch as one operation: TensorFlow visits every operation of a branch that it does not take."""
    return tf.function(branch, autograph=False, experimental_attributes={"_noinline": True})
