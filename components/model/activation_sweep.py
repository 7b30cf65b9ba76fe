"""The sweep model: a second, tiny SavedModel with which any model server measures its own sigmoid and tanh, as the cell
runs them.

The kernels depend on the graph, its rewriting, the processor and the shape, so no activation is called on its own:
floats go through `GRU.advance`, in a loop as in `GRU.run`, from a state of zeros. With h = 0 the pre-activation of
a gate is the projected input alone, and h' = z * t, so that

    x_z = p, x_h = 128  gives  sigmoid(p) * tanh(128)        x_z = 128, x_h = p  gives  sigmoid(128) * tanh(p)

Both are exact if sigmoid(128) and tanh(128) are exactly 1. A client can check this: from h = 1 the step x_z = 128,
x_h = 0 gives 1 - sigmoid(128) if tanh(0) is 0 (`complement`), and the first of the two at p = 128 is then tanh(128).

Signatures, for each requested number of units U. A pattern is the bits of a float32 as an integer from 0 to 2^32 - 1;
0 replaces infinities and NaNs. `rows` is the batch of a step: kernels run on [rows, U]. Vectors of two are for sigmoid
and tanh.

sweep_U    starts: int64 [R]; steps: int64 []; rows: int64 []
           evaluates steps * rows * U consecutive patterns from each of `starts`; 0 follows 2^32 - 1
           -> error: float32 [2], the worst |result - float64's|, infinite if the result is outside [0, 1] or [-1, 1] or
           either is NaN; pattern: int64 [2] and result: float32 [2] with that error; least, greatest: float32 [2], of
           all results; evaluated: int64 [], patterns evaluated, without the replaced ones
results_U  patterns: int64 [N]; rows: int64 []
           -> sigmoid, tanh: float32 [N]; sigmoid_error, tanh_error: float32 [N], as above; complement: float32 [N],
           1 - sigmoid(128) at the position of each pattern

The float64 results are the server's own and prove nothing: the client itself encloses the exact values of a sample.
"""

import pathlib
from collections.abc import Sequence

import tensorflow as tf

from components import atomic
from components.errors import BitsumError
from components.model.gru import GRU
from components.proof.certificate import ACTIVATION_RANGE

VERSION = 1
# The configuration's default, and a width that is not a multiple of any vector register's.
UNITS = (16, 7)
# Maximum number of elements in a step, which bounds the memory of a request.
MAX_ELEMENTS = 2**20

_PATTERNS = 2**32
# The lower bounds of sigmoid and tanh; the upper bound of both is 1.
_LOWEST = (0.0, -1.0)


def write(directory: pathlib.Path, units: Sequence[int] = UNITS, kind: type[GRU] = GRU) -> pathlib.Path:
    """Write the sweep model for cells of `kind` with each of `units` as version `VERSION` in `directory`; returns its
    folder.

    The version appears whole or not at all.

    Raises:
        BitsumError: the version already exists, or cannot be written.
    """
    target = directory / str(VERSION)
    if target.exists():
        raise BitsumError(f"cannot write the sweep model to {target}: it already exists")
    model = tf.Module()
    model.sweeps = [Sweep(size, kind) for size in sorted(set(units))]
    functions = {name: function for sweep in model.sweeps for name, function in sweep.functions().items()}
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with atomic.folder(target) as partial:
            tf.saved_model.save(model, str(partial), signatures=functions)
    except (OSError, tf.errors.OpError) as error:
        reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
        raise BitsumError(f"cannot write the sweep model to {target}: {reason}") from error
    return target


class Sweep(tf.Module):
    """The activations of a cell of `kind` with `units` hidden units that ignores its state: U_z, U_r and U_h are zero.

    The constants are variables: a known zero could be optimized away before it reaches a kernel.
    """

    def __init__(self, units: int, kind: type[GRU] = GRU):
        super().__init__(name=f"sweep_{units}")
        self.cell = kind(units)
        for state_weights in (self.cell.U_z, self.cell.U_r, self.cell.U_h):
            state_weights.assign(tf.zeros_like(state_weights))
        self.zero = tf.Variable(0.0, name="zero")
        self.one = tf.Variable(1.0, name="one")
        self.far = tf.Variable(ACTIVATION_RANGE, name="far")

    def functions(self) -> dict[str, tf.types.experimental.GenericFunction]:
        """The functions of the exported model by signature name; the module docstring has their inputs and outputs."""
        vector, scalar = tf.TensorSpec([None], tf.int64), tf.TensorSpec([], tf.int64)
        return {
            f"sweep_{self.cell.units}": tf.function(self.sweep, input_signature=[vector, scalar, scalar]),
            f"results_{self.cell.units}": tf.function(self.results, input_signature=[vector, scalar]),
        }

    def sweep(self, starts: tf.Tensor, steps: tf.Tensor, rows: tf.Tensor) -> dict[str, tf.Tensor]:
        """The signature sweep_U."""
        with tf.control_dependencies(
            [_require_rows(rows, self.cell.units), _require_patterns(starts), _require_steps(steps)]
        ):
            size = rows * self.cell.units
        offsets = tf.cast(tf.range(size), tf.uint32)
        total = tf.size(starts, tf.int64) * steps

        def body(step: tf.Tensor, *totals: tf.Tensor) -> tuple[tf.Tensor, ...]:
            error, pattern, result, least, greatest, evaluated = totals
            start = (starts[step // steps] + step % steps * size) % _PATTERNS
            patterns = tf.cast(start, tf.uint32) + offsets
            summaries = map(_summary, [patterns] * 2, *self.activations(patterns, rows), _LOWEST)
            errors, where, results, lows, highs = map(tf.stack, zip(*summaries, strict=True))
            worse = errors > error
            return (
                step + 1,
                tf.where(worse, errors, error),
                tf.where(worse, where, pattern),
                tf.where(worse, results, result),
                tf.minimum(least, lows),
                tf.maximum(greatest, highs),
                evaluated + _count(floats(patterns)[1]),
            )

        zero, infinity = tf.zeros([], tf.int64), tf.fill([2], float("inf"))
        begin = zero, tf.fill([2], -1.0), tf.zeros([2], tf.int64), tf.zeros([2]), infinity, -infinity, zero
        _, *ends = tf.while_loop(lambda step, *_: step < total, body, begin)
        return dict(zip(("error", "pattern", "result", "least", "greatest", "evaluated"), ends, strict=True))

    def results(self, patterns: tf.Tensor, rows: tf.Tensor) -> dict[str, tf.Tensor]:
        """The signature results_U."""
        with tf.control_dependencies([_require_rows(rows, self.cell.units), _require_patterns(patterns)]):
            size = rows * self.cell.units
        number = tf.size(patterns, tf.int64)
        steps = tf.reshape(tf.pad(tf.cast(patterns, tf.uint32), [[0, -number % size]]), [-1, size])

        def body(step: tf.Tensor) -> dict[str, tf.Tensor]:
            (sigmoid, tanh), errors = self.activations(step, rows)
            sigmoid_error, tanh_error = map(_marked, (sigmoid, tanh), errors, _LOWEST)
            zero, one, far = (
                tf.fill(tf.stack([rows, self.cell.units]), value) for value in (self.zero, self.one, self.far)
            )
            complement = tf.reshape(self.cell.advance(far, zero, zero, one), [-1])
            return {
                "sigmoid": sigmoid,
                "tanh": tanh,
                "sigmoid_error": sigmoid_error,
                "tanh_error": tanh_error,
                "complement": complement,
            }

        kinds = dict.fromkeys(("sigmoid", "tanh", "sigmoid_error", "tanh_error", "complement"), tf.float32)
        return {
            name: tf.reshape(values, [-1])[:number]
            for name, values in tf.map_fn(body, steps, fn_output_signature=kinds).items()
        }

    def activations(self, patterns: tf.Tensor, rows: tf.Tensor) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
        """(results, errors) of sigmoid and tanh, each float32 [rows * U], for patterns uint32 [rows * U]."""
        shape = tf.stack([rows, self.cell.units])
        p = tf.reshape(floats(patterns)[0], shape)
        zero, far = (tf.fill(shape, value) for value in (self.zero, self.far))
        results = self.cell.advance(p, zero, far, zero), self.cell.advance(far, zero, p, zero)
        wide = tf.cast(p, tf.float64)
        # TensorFlow has no vectorized float64 kernel for tanh; the absolute error of this form is as small.
        exact = tf.sigmoid(wide), 2 * tf.sigmoid(2 * wide) - 1
        errors = (
            tf.cast(tf.abs(tf.cast(result, tf.float64) - value), tf.float32)
            for result, value in zip(results, exact, strict=True)
        )
        return [tf.reshape(result, [-1]) for result in results], [tf.reshape(error, [-1]) for error in errors]


def floats(patterns: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """(float32 values of patterns uint32 [...], which of them are finite).

    0 replaces infinities and NaNs: a single one would poison its row of a product.
    """
    values = tf.bitcast(patterns, tf.float32)
    finite = tf.math.is_finite(values)
    return tf.where(finite, values, 0.0), finite


def _marked(results: tf.Tensor, errors: tf.Tensor, lowest: float) -> tf.Tensor:
    """The errors, infinite if the result is outside [lowest, 1] or either is NaN."""
    # Comparisons with NaN are false.
    right = (results >= lowest) & (results <= 1.0) & (errors < float("inf"))
    return tf.where(right, errors, float("inf"))


def _summary(patterns: tf.Tensor, results: tf.Tensor, errors: tf.Tensor, lowest: float) -> tuple[tf.Tensor, ...]:
    """The worst error, its pattern and result, the least and the greatest result."""
    least, greatest = tf.reduce_min(results), tf.reduce_max(results)
    # A finite sum has no NaN among its terms. Marking each error would take a quarter of the time.
    right = (least >= lowest) & (greatest <= 1.0) & tf.math.is_finite(tf.reduce_sum(errors))
    errors = tf.cond(right, lambda: errors, lambda: _marked(results, errors, lowest))
    worst = tf.argmax(errors)
    return errors[worst], tf.cast(patterns[worst], tf.int64), results[worst], least, greatest


def _count(mask: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.reduce_sum(tf.cast(mask, tf.int32)), tf.int64)


def _require_rows(rows: tf.Tensor, units: int) -> tf.Operation:
    most = MAX_ELEMENTS // units
    return tf.debugging.Assert(
        (rows >= 1) & (rows <= most), [tf.strings.format(f"rows must be from 1 to {most}, not {{}}", rows)]
    )


def _require_steps(steps: tf.Tensor) -> tf.Operation:
    return tf.debugging.Assert(
        (steps >= 1) & (steps <= _PATTERNS), [tf.strings.format("steps must be from 1 to 2^32, not {}", steps)]
    )


def _require_patterns(patterns: tf.Tensor) -> tf.Operation:
    inside = tf.reduce_all((patterns >= 0) & (patterns < _PATTERNS))
    return tf.debugging.Assert(inside, [tf.strings.format("patterns must lie in 0 to 2^32 - 1, not {}", patterns)])
