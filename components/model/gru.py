"""The gated recurrent unit of Chung et al. 2014 ("Empirical Evaluation of Gated Recurrent Neural Networks on Sequence
Modeling", arXiv:1412.3555, section 3.2), by hand, with one logit as its output.

Dimension letters: B examples, T time steps, H hidden units.
"""

import math

import numpy as np
import tensorflow as tf

from components.task.transducer import PAIRS


class GRU(tf.Module):
    """The cell and its run over time.

    The update gate z is the paper's: the share of the *candidate* in the new state. Keras (and cuDNN) write z for the
    share of the *old* state, so their z is 1 - z here.

    Variables, float32: W_z, W_r, W_h [2, H], U_z, U_r, U_h [H, H], b_z, b_r, b_h [H], W_o [H, 1], b_o [1].
    Weights start Glorot uniform (Glorot & Bengio 2010) from `seed` alone, biases at 0, but b_z at `update_bias`.
    """

    def __init__(self, units: int, seed: int = 0, update_bias: float = 0.0):
        super().__init__(name="gru")
        self.units = units
        generator = np.random.default_rng(seed)

        def weights(rows: int, columns: int, name: str) -> tf.Variable:
            limit = math.sqrt(6 / (rows + columns))
            return tf.Variable(generator.uniform(-limit, limit, (rows, columns)), dtype=tf.float32, name=name)

        def bias(size: int, name: str, value: float = 0.0) -> tf.Variable:
            return tf.Variable(tf.fill([size], value), dtype=tf.float32, name=name)

        self.W_z, self.U_z = weights(2, units, "W_z"), weights(units, units, "U_z")
        self.b_z = bias(units, "b_z", update_bias)
        self.W_r, self.U_r, self.b_r = weights(2, units, "W_r"), weights(units, units, "U_r"), bias(units, "b_r")
        self.W_h, self.U_h, self.b_h = weights(2, units, "W_h"), weights(units, units, "U_h"), bias(units, "b_h")
        self.W_o, self.b_o = weights(units, 1, "W_o"), bias(1, "b_o")

    def project(self, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """The input's parts of z, r and the candidate before their activations: x float32 [..., 2] -> three of
        [..., H]."""
        gates = (self.W_z, self.b_z), (self.W_r, self.b_r), (self.W_h, self.b_h)
        return tuple(tf.tensordot(x, W, 1) + b for W, b in gates)

    def advance(self, x_z: tf.Tensor, x_r: tf.Tensor, x_h: tf.Tensor, h: tf.Tensor) -> tf.Tensor:
        """The state [B, H] after state h [B, H] and a projected input, three of [B, H].

        The last line is kept as it stands: with z from sigmoid and this form of the mix no rounding takes |h| above 1.
        """
        z = tf.sigmoid(x_z + h @ self.U_z)
        r = tf.sigmoid(x_r + h @ self.U_r)
        t = tf.tanh(x_h + (r * h) @ self.U_h)
        return (1 - z) * h + z * t

    def step(self, x: tf.Tensor, h: tf.Tensor) -> tf.Tensor:
        """The state [B, H] after input x = (bit of a, bit of b), float32 [B, 2], in state h [B, H]."""
        return self.advance(*self.project(x), h)

    def logit(self, h: tf.Tensor) -> tf.Tensor:
        """The logit of the output bit in state h: [..., H] -> [...]. The bit is 1 where it is positive."""
        return tf.squeeze(tf.tensordot(h, self.W_o, 1) + self.b_o, axis=-1)

    def start(self, batch: int | tf.Tensor) -> tf.Tensor:
        """The state before the first bit: zeros [B, H]."""
        return tf.zeros([batch, self.units])

    def run(
        self, a: tf.Tensor, b: tf.Tensor, state: tf.Tensor, noise: tf.Tensor | None = None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Feed the bits one pair after the other.

        Args:
            a, b: bits, int64 [B, T], least significant first; T may be 0.
            state: float32 [B, H].
            noise: float32 [T, B, H], added to the state after each step, or None.

        Returns:
            (logits float32 [B, T], state float32 [B, H] after the last step).
        """
        # Transposed as floats: on some processors oneDNN cannot transpose integers and logs an error.
        symbols = tf.cast(tf.transpose(tf.cast(2 * a + b, tf.float32)), tf.int32)  # [T, B]
        steps = tf.shape(symbols)[0]
        # Four rows each; projecting the inputs of every step would take far more memory.
        tables = self.project(tf.constant(PAIRS, tf.float32))
        inputs = [
            tf.TensorArray(column.dtype, steps).unstack(column) for column in (symbols, noise) if column is not None
        ]
        # An extra first element gives the stack a shape even for T = 0.
        states = tf.TensorArray(tf.float32, steps + 1, element_shape=[None, self.units]).write(0, state)

        def body(time: tf.Tensor, h: tf.Tensor, states: tf.TensorArray) -> tuple[tf.Tensor, tf.Tensor, tf.TensorArray]:
            symbol, *disturbance = (column.read(time) for column in inputs)
            x_z, x_r, x_h = (tf.gather(table, symbol) for table in tables)
            h = sum(disturbance, self.advance(x_z, x_r, x_h, h))
            return time + 1, h, states.write(time + 1, h)

        shapes = (tf.TensorShape([]), tf.TensorShape([None, self.units]), None)
        _, state, states = tf.while_loop(
            lambda time, *_: time < steps, body, (0, state, states), shape_invariants=shapes
        )
        return tf.transpose(self.logit(states.stack()[1:])), state
