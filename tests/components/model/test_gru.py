"""The cell against two oracles that share no code with it: Keras's GRU, and numpy in float64."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from components.model.gru import GRU

pytestmark = pytest.mark.fast

# Float32 has 6e-8 of relative precision; a dozen steps of sums over a handful of terms lose little more than a digit.
TOLERANCE = 2e-6
UNITS, BATCH, STEPS = 5, 3, 12
NAMES = ("W_z", "U_z", "b_z", "W_r", "U_r", "b_r", "W_h", "U_h", "b_h", "W_o", "b_o")


@pytest.fixture(scope="module")
def cell():
    """A cell without zero weights, since a zero hides the value that it multiplies."""
    cell = GRU(UNITS, seed=3, update_bias=0.3)
    generator = np.random.default_rng(4)
    for variable in cell.trainable_variables:
        variable.assign_add(generator.uniform(-0.5, 0.5, variable.shape).astype(np.float32))
    return cell


@pytest.fixture(scope="module")
def bits():
    return np.random.default_rng(5).integers(0, 2, (2, BATCH, STEPS))


@pytest.fixture(scope="module")
def start():
    return np.random.default_rng(6).uniform(-1, 1, (BATCH, UNITS)).astype(np.float32)


def numpy_logits(weights, a, b, h):
    """The paper's equations, sum by sum."""

    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    logits = []
    for time in range(a.shape[1]):
        x = np.stack([a[:, time], b[:, time]], axis=1).astype(np.float64)
        z = sigmoid(x @ weights["W_z"] + h @ weights["U_z"] + weights["b_z"])
        r = sigmoid(x @ weights["W_r"] + h @ weights["U_r"] + weights["b_r"])
        candidate = np.tanh(x @ weights["W_h"] + (r * h) @ weights["U_h"] + weights["b_h"])
        h = h + z * (candidate - h)
        logits.append((h @ weights["W_o"] + weights["b_o"])[:, 0])
    return np.stack(logits, axis=1), h


def in_float64(cell):
    return {name: getattr(cell, name).numpy().astype(np.float64) for name in NAMES}


def gradients(cell, a, b, h, target):
    """Of the mean squared logit error: by the tape, through `run`."""
    variables = {name: getattr(cell, name) for name in NAMES}
    with tf.GradientTape() as tape:
        logits, _ = cell.run(a, b, h)
        loss = tf.reduce_mean(tf.square(logits - target))
    return {name: gradient.numpy() for name, gradient in tape.gradient(loss, variables).items()}


def translated_keras_layer(cell):
    """Keras's z is the share of the old state: sigmoid(-x) = 1 - sigmoid(x), so its z has our weights negated."""
    layer = keras.layers.GRU(UNITS, reset_after=False, return_sequences=True)
    layer.build((None, None, 2))
    kernels = (
        np.concatenate([-getattr(cell, f"{k}_z"), getattr(cell, f"{k}_r"), getattr(cell, f"{k}_h")], axis=-1)
        for k in "WUb"
    )
    layer.set_weights(list(kernels))
    return layer


def test_variables_have_their_names_and_shapes(cell):
    shapes = {name: tuple(getattr(cell, name).shape) for name in NAMES}
    assert shapes == {
        "W_z": (2, 5),
        "U_z": (5, 5),
        "b_z": (5,),
        "W_r": (2, 5),
        "U_r": (5, 5),
        "b_r": (5,),
        "W_h": (2, 5),
        "U_h": (5, 5),
        "b_h": (5,),
        "W_o": (5, 1),
        "b_o": (1,),
    }
    assert {variable.name for variable in cell.variables} == {f"{name}:0" for name in NAMES}


def test_outputs_agree_with_keras(cell, bits, start):
    states = translated_keras_layer(cell)(np.stack(bits, axis=-1).astype(np.float32), initial_state=tf.constant(start))
    logits, state = cell.run(*bits, start)
    np.testing.assert_allclose(state, states[:, -1], rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(logits, (states @ cell.W_o + cell.b_o)[..., 0], rtol=0, atol=TOLERANCE)


def test_gradients_agree_with_keras(cell, bits, start):
    target = bits[0].astype(np.float32)
    layer = translated_keras_layer(cell)
    with tf.GradientTape() as tape:
        states = layer(np.stack(bits, axis=-1).astype(np.float32), initial_state=tf.constant(start))
        loss = tf.reduce_mean(tf.square((states @ cell.W_o + cell.b_o)[..., 0] - target))
    ours = gradients(cell, *bits, start, target)
    for letter, gradient in zip("WUb", tape.gradient(loss, layer.trainable_variables), strict=True):
        update, reset, candidate = np.split(gradient.numpy(), 3, axis=-1)
        for theirs, name in ((-update, f"{letter}_z"), (reset, f"{letter}_r"), (candidate, f"{letter}_h")):
            np.testing.assert_allclose(ours[name], theirs, rtol=0, atol=TOLERANCE, err_msg=name)


def test_outputs_agree_with_numpy_in_float64(cell, bits, start):
    logits, state = cell.run(*bits, start)
    expected_logits, expected_state = numpy_logits(in_float64(cell), *bits, start.astype(np.float64))
    np.testing.assert_allclose(logits, expected_logits, rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(state, expected_state, rtol=0, atol=TOLERANCE)


def test_gradients_agree_with_difference_quotients_in_float64(cell, bits, start):
    target = bits[0].astype(np.float64)
    weights = in_float64(cell)

    def loss(name, shift):
        shifted = {**weights, name: weights[name] + shift}
        return np.mean((numpy_logits(shifted, *bits, start.astype(np.float64))[0] - target) ** 2)

    for name, gradient in gradients(cell, *bits, start, target.astype(np.float32)).items():
        for index in np.ndindex(gradient.shape):
            shift = np.zeros(gradient.shape)
            shift[index] = 1e-5
            quotient = (loss(name, shift) - loss(name, -shift)) / 2e-5
            assert abs(gradient[index] - quotient) < 2 * TOLERANCE, (name, index)


def test_one_step_worked_out_by_hand():
    cell = GRU(units=1)
    for name in NAMES:
        getattr(cell, name).assign(tf.zeros_like(getattr(cell, name)))
    cell.b_z.assign([np.log(3)])  # z = 3/4, the candidate's share
    cell.U_h.assign([[2.0]])
    cell.W_h.assign([[1.0], [0.5]])
    # r = 1/2, t = tanh(1 + 0.5 * (0.5 * 2)) for x = (1, 0) and h = 0.5.
    state = cell.step(tf.constant([[1.0, 0.0]]), tf.constant([[0.5]]))
    np.testing.assert_allclose(state, [[0.25 * 0.5 + 0.75 * np.tanh(1.5)]], rtol=1e-6)


def test_run_is_step_after_step(cell, bits, start):
    state = tf.constant(start)
    expected = []
    for time in range(STEPS):
        state = cell.step(tf.constant(bits[:, :, time].T, tf.float32), state)
        expected.append(cell.logit(state))
    logits, last = cell.run(*bits, start)
    np.testing.assert_allclose(logits, tf.stack(expected, axis=1), rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(last, state, rtol=0, atol=TOLERANCE)


def test_noise_is_added_to_the_state_after_each_step(cell):
    a = b = np.zeros((1, 2), np.int64)
    noise = np.stack([np.full((1, UNITS), 0.25), np.full((1, UNITS), -0.5)]).astype(np.float32)
    first = cell.step(tf.zeros([1, 2]), cell.start(1)) + noise[0]
    second = cell.step(tf.zeros([1, 2]), first) + noise[1]
    logits, state = cell.run(a, b, cell.start(1), noise)
    np.testing.assert_allclose(state, second, rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(logits[0], [cell.logit(first)[0], cell.logit(second)[0]], rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("batch", [0, 2])
def test_no_bits_leave_the_state_alone(cell, batch):
    state = np.full((batch, UNITS), 0.5, np.float32)
    traced = tf.function(
        cell.run, input_signature=[tf.TensorSpec([None, None], tf.int64)] * 2 + [tf.TensorSpec([None, UNITS])]
    )
    for run in (cell.run, traced):
        logits, after = run(tf.zeros([batch, 0], tf.int64), tf.zeros([batch, 0], tf.int64), tf.constant(state))
        assert logits.shape == (batch, 0)
        np.testing.assert_array_equal(after, state)


def test_states_stay_within_one_exactly():
    """Saturated weights drive the state to the border, where a wrong form of the mix would step over it."""
    steep = GRU(8, seed=1)
    for variable in steep.trainable_variables:
        variable.assign(variable * 30)
    states = (
        np.random.default_rng(2)
        .choice([-1.0, 1.0, np.nextafter(np.float32(1), np.float32(0))], (4096, 8))
        .astype(np.float32)
    )
    for x in ([0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]):
        assert np.abs(steep.step(tf.constant([x]), tf.constant(states))).max() <= 1


def test_the_mix_is_rounded_term_by_term():
    """The lemma |h| <= 1 is about this form; h + z * (t - h) gives other last bits, and is not covered."""
    cell = GRU(1000, seed=1)
    generator = np.random.default_rng(3)
    for name in ("U_z", "U_h"):
        getattr(cell, name).assign(tf.zeros([1000, 1000]))
    for name in ("b_z", "b_h"):
        getattr(cell, name).assign(generator.uniform(-3, 3, 1000).astype(np.float32))
    h = generator.uniform(-1, 1, (1, 1000)).astype(np.float32)
    z, t = tf.sigmoid(cell.b_z).numpy(), tf.tanh(cell.b_h).numpy()
    np.testing.assert_array_equal(cell.step(tf.zeros([1, 2]), h), (1 - z) * h + z * t)


def test_weights_come_from_the_seed_alone():
    tf.random.set_seed(1)
    np.random.seed(1)
    first = GRU(4, seed=7)
    tf.random.set_seed(2)
    np.random.seed(2)
    again, other = GRU(4, seed=7), GRU(4, seed=8)
    np.testing.assert_array_equal(first.U_h, again.U_h)
    assert not np.array_equal(first.U_h, other.U_h)
    # Glorot's limit for a 4 x 4 matrix is sqrt(6 / 8); biases start at zero.
    assert 0.5 < np.abs(first.U_h).max() <= np.sqrt(6 / 8)
    assert not np.any(first.b_h)
    np.testing.assert_array_equal(GRU(4, seed=7, update_bias=1.5).b_z, [1.5] * 4)
