"""A model with the signatures of components.signatures that adds by the full adder's table: exact, and made in a
second.

The reference for whatever serves, and with `broken` one that errs on every carry into a pair of ones. Its state is the
carry, in the first of two units, so that a client which forgets the state is found out.
"""

import pathlib

import tensorflow as tf

from components import signatures

UNITS = 2
NOT_BITS = "the operands must be made of 0 and 1"
_BITS = tf.TensorSpec([None, None], tf.int64)
_STATE = tf.TensorSpec([None, UNITS], tf.float32)


class Adder(tf.Module):
    """The bit of the sum by the number of ones among two bits and the carry; the last entry is wrong in a broken one.

    Before it answers it counts to `delay_steps`.
    """

    def __init__(self, broken: bool, delay_steps: int):
        super().__init__()
        self.delay_steps = delay_steps
        self.bits = tf.Variable([0, 1, 0, 0 if broken else 1], dtype=tf.int64, trainable=False)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def serving_default(self, examples):
        ragged = {name: tf.io.RaggedFeature(tf.int64) for name in (signatures.A, signatures.B)}
        parsed = tf.io.parse_example(examples, ragged)
        a, b = parsed[signatures.A], parsed[signatures.B]
        total, _ = self._run(_padded(a.to_tensor()), _padded(b.to_tensor()), self._start(examples))
        return {signatures.SUM: total, signatures.LENGTH: tf.cast(a.row_lengths(), tf.int64)}

    @tf.function(input_signature=[_BITS, _BITS])
    def add_bits(self, a, b):
        total, _ = self._run(_padded(a), _padded(b), self._start(a))
        return {signatures.SUM: total}

    @tf.function(input_signature=[_BITS, _BITS, _STATE])
    def step(self, a, b, state):
        total, carry = self._run(a, b, tf.cast(state[:, 0], tf.int64))
        last = tf.stack([tf.cast(carry, tf.float32), tf.zeros_like(state[:, 1])], axis=1)
        return {signatures.SUM: total, signatures.LOGITS: tf.cast(2 * total - 1, tf.float32), signatures.STATE: last}

    def _start(self, batch):
        return tf.zeros([tf.shape(batch)[0]], tf.int64)

    def _run(self, a, b, carry):
        """Bits [B, T] and the carry [B] after them."""
        valid = tf.debugging.Assert(tf.reduce_all((tf.stack([a, b]) == 0) | (tf.stack([a, b]) == 1)), [NOT_BITS])
        counted = tf.while_loop(lambda i: i < self.delay_steps, lambda i: i + 1, [tf.constant(0)])
        with tf.control_dependencies([valid, *counted]):
            ones = tf.transpose(a + b)
        length = tf.shape(ones)[0]
        written = tf.TensorArray(tf.int64, size=length, element_shape=[None])

        def one(i, carry, written):
            count = ones[i] + carry
            return i + 1, count // 2, written.write(i, tf.gather(self.bits, count))

        _, carry, written = tf.while_loop(
            lambda i, *_: i < length,
            one,
            (0, carry, written),
            parallel_iterations=1,
            shape_invariants=(tf.TensorShape([]), tf.TensorShape([None]), tf.TensorShape(None)),
        )
        return tf.transpose(tf.reshape(written.stack(), [length, tf.shape(a)[0]])), carry


def _padded(bits):
    return tf.pad(bits, [[0, 0], [0, 1]])


def save(path: pathlib.Path, broken: bool = False, delay_steps: int = 0) -> None:
    """Write the SavedModel to `path`."""
    adder = Adder(broken, delay_steps)
    functions = {
        name: getattr(adder, name) for name in (signatures.SERVING_DEFAULT, signatures.ADD_BITS, signatures.STEP)
    }
    tf.saved_model.save(adder, str(path), signatures=functions)
