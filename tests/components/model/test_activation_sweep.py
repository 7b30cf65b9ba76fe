"""The sweep model against mpmath, in a session as a model server runs it; wrong activations, infinities, and the served
kernels."""

import mpmath
import numpy as np
import pytest
import tensorflow as tf

from components.errors import BitsumError
from components.model import activation_sweep, export
from components.model.carry_select import CarrySelect
from components.model.gru import GRU
from components.proof import certificate
from components.savedmodel import fingerprint
from components.task.transducer import ADDITION
from tests.support.cells import cell_with
from tests.support.examples import example

U = 2.0**-24
WORDS = ("MatMul", "Sigmoid", "Tanh", "BiasAdd", "Logistic")


class Session:
    """A loaded SavedModel: session(signature, inputs) -> outputs."""

    def __init__(self, path):
        self._session = tf.compat.v1.Session(graph=tf.Graph())
        with self._session.graph.as_default():
            self._signatures = tf.compat.v1.saved_model.load(
                self._session, [tf.saved_model.SERVING], str(path)
            ).signature_def

    def __call__(self, name, options=None, metadata=None, **inputs):
        signature = self._signatures[name]
        feeds = {signature.inputs[key].name: np.asarray(value) for key, value in inputs.items()}
        fetches = {key: info.name for key, info in signature.outputs.items()}
        return self._session.run(fetches, feeds, options=options, run_metadata=metadata)

    def kernels(self, name, **inputs):
        """(operation, dtype, what is fused into it) of the products and activations that ran within loops."""
        metadata = tf.compat.v1.RunMetadata()
        self(name, tf.compat.v1.RunOptions(output_partition_graphs=True), metadata, **inputs)
        nodes = [node for graph in metadata.partition_graphs for node in graph.node if "/while/" in node.name]
        return {
            (node.op, tf.as_dtype(node.attr["T"].type).name, tuple(node.attr["fused_ops"].list.s))
            for node in nodes
            if any(word in node.op for word in WORDS)
        }

    def ran(self, name, **inputs):
        """Those of these operations that a run executed, in any function."""
        metadata = tf.compat.v1.RunMetadata()
        self(name, tf.compat.v1.RunOptions(trace_level=tf.compat.v1.RunOptions.FULL_TRACE), metadata, **inputs)
        labels = [node.timeline_label for device in metadata.step_stats.dev_stats for node in device.node_stats]
        operations = {label.partition(" = ")[2].partition("(")[0] for label in labels}
        return {operation for operation in operations if any(word in operation for word in WORDS)}


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    return Session(activation_sweep.write(tmp_path_factory.mktemp("sweep")))


def rewired(sigmoid=tf.sigmoid, tanh=tf.tanh):
    """The functions of the sweep model of 3 units for a cell with other activations."""
    return activation_sweep.Sweep(3, cell_with(sigmoid, tanh)).functions()


def patterns_of(*values):
    return np.array(values, np.float32).view(np.uint32).astype(np.int64)


def values_of(patterns):
    return np.asarray(patterns).astype(np.uint32).view(np.float32)


def exact_errors(patterns, found):
    """|result - exact value| of both activations, with 40 digits."""
    with mpmath.workdps(40):
        points = [mpmath.mpf(float(x)) for x in values_of(patterns)]
        sigmoid = [abs(1 / (1 + mpmath.exp(-x)) - float(y)) for x, y in zip(points, found["sigmoid"], strict=True)]
        tanh = [abs(mpmath.tanh(x) - float(y)) for x, y in zip(points, found["tanh"], strict=True)]
    return np.array(sigmoid, float), np.array(tanh, float)


@pytest.mark.parametrize("rows, units", [(1, 16), (3, 7), (65, 16)])
def test_results_and_errors_agree_with_mpmath(sweep, rows, units):
    spread = np.random.default_rng(rows).uniform(-20, 20, 400)
    patterns = patterns_of(0, 128, -128, 3e38, -3e38, 1e-40, 1e-20, -1e-5, 0.5, *spread)
    found = sweep(f"results_{units}", patterns=patterns, rows=rows)
    for name, errors in zip(("sigmoid", "tanh"), exact_errors(patterns, found), strict=True):
        np.testing.assert_allclose(found[f"{name}_error"], errors, rtol=0, atol=2**-45)
        assert 0.3 * U < errors.max() < 8 * U
    assert not found["complement"].any() and len(found["complement"]) == len(patterns)
    assert found["sigmoid"][1] == found["tanh"][1] == 1.0 and found["tanh"][0] == 0.0


@pytest.mark.parametrize("rows, steps", [(1, 40), (64, 1), (65, 3)])
def test_a_sweep_finds_the_worst_and_the_range_of_all_its_results(sweep, rows, steps):
    starts = [int(patterns_of(x)[0]) for x in (-7.0, 0.25, 5.82)]
    swept = sweep("sweep_16", starts=starts, steps=steps, rows=rows)
    patterns = np.concatenate([np.arange(steps * rows * 16) + start for start in starts])
    found = sweep("results_16", patterns=patterns, rows=rows)
    assert swept["evaluated"] == len(patterns)
    for index, name in enumerate(("sigmoid", "tanh")):
        worst = np.argmax(found[f"{name}_error"])
        assert swept["error"][index] == found[f"{name}_error"][worst] > 0
        assert (swept["pattern"][index], swept["result"][index]) == (patterns[worst], found[name][worst])
        assert (swept["least"][index], swept["greatest"][index]) == (found[name].min(), found[name].max())


def test_the_worst_error_of_tensorflow_is_below_a_quarter_of_the_allowance(sweep):
    notorious = [0x40DDC75D - 500, 0x40BA7DF6 - 500]
    sigmoid, tanh = sweep("sweep_16", starts=notorious, steps=1, rows=64)["error"]
    assert 0.5 * U < sigmoid < certificate.SIGMOID / 4 and 0.5 * U < tanh < certificate.TANH / 4


@pytest.mark.parametrize(
    "start, finite",
    [
        (0x7F7FFFF0, 16),
        (0xFF800000 - 7, 7),
        (0x7FFFFFFE, 46),
        (2**32 - 20, 28),
        (0x7F800000, 0),
        (0, 48),
        (0x7FC00000, 0),
    ],
)
def test_infinities_and_nans_are_left_out_and_0_follows_the_last_pattern(sweep, start, finite):
    swept = sweep("sweep_16", starts=[start], steps=1, rows=3)
    assert swept["evaluated"] == finite and np.isfinite(swept["error"]).all()
    assert (
        0.0 <= swept["least"][0] <= swept["greatest"][0] <= 1.0
        and -1.0 <= swept["least"][1] <= swept["greatest"][1] <= 1.0
    )


def test_the_result_of_a_pattern_that_is_left_out_is_that_of_0(sweep):
    patterns = patterns_of(np.inf, -np.inf, np.nan, 1.0)
    found = sweep("results_16", patterns=patterns, rows=1)
    assert found["sigmoid"][:3].tolist() == [0.5] * 3 and found["tanh"][:3].tolist() == [0.0] * 3
    assert found["sigmoid"][3] == pytest.approx(0.7310586, abs=1e-7) and found["tanh"][3] == pytest.approx(
        0.7615942, abs=1e-6
    )


def pade(x):
    """tanh to about 1e-4, exact at the ends."""
    near = x * (27 + x * x) / (27 + 9 * x * x)
    return tf.where(tf.abs(x) < 3, near, tf.sign(x))


def with_hole(x):
    return tf.where(x == 1.5, float("nan"), tf.tanh(x))


def overshooting(x):
    return tf.where(x == 1.5, 1 + 2**-23, tf.where(x == 0, 0.0, tf.tanh(x)))


def coarse(x):
    """sigmoid of an argument with 16 bits."""
    return tf.sigmoid(tf.bitcast(tf.bitwise.bitwise_and(tf.bitcast(x, tf.int32), -256), tf.float32))


@pytest.mark.parametrize(
    "wrong, index, least_error, pattern",
    [
        ({"tanh": pade}, 1, 1e-3, None),
        ({"sigmoid": coarse}, 0, 2**-20, None),
        ({"tanh": with_hole}, 1, np.inf, 0x3FC00000),
        ({"tanh": overshooting}, 1, np.inf, 0x3FC00000),
    ],
)
def test_a_wrong_activation_is_located(wrong, index, least_error, pattern):
    swept = rewired(**wrong)["sweep_3"]([0x3F000000, 0x3FC00000 - 1000, 0x40000000], 1, 1000)
    assert swept["error"][index] >= least_error and swept["error"][1 - index] < 8 * U
    assert pattern is None or swept["pattern"][index] == pattern
    if wrong.get("tanh") is overshooting:
        assert swept["greatest"][1] == swept["result"][1] == np.float32(1 + 2**-23)


def test_a_nan_reference_is_the_worst_error(monkeypatch):
    sigmoid = tf.sigmoid

    def holed(x):
        return (
            tf.where(x == 1.5, tf.constant(float("nan"), x.dtype), sigmoid(x)) if x.dtype == tf.float64 else sigmoid(x)
        )

    monkeypatch.setattr(tf, "sigmoid", holed)
    swept = rewired(sigmoid=sigmoid)["sweep_3"]([0x3FC00000 - 1000], 1, 1000)
    assert swept["error"][0] == np.inf and swept["pattern"][0] == 0x3FC00000 and 0.8 < swept["result"][0] < 0.82
    assert swept["error"][1] < 8 * U


def test_gates_that_do_not_saturate_show_in_the_complement():
    found = rewired(sigmoid=lambda x: tf.minimum(tf.sigmoid(x), 1 - 2**-24))["results_3"]([0, 1, 2], 1)
    assert found["complement"].numpy().tolist() == [np.float32(2**-24)] * 3


def test_the_kernels_are_those_of_the_exported_model(sweep, tmp_path):
    export.save(GRU(16), str(tmp_path / "model"))
    bits = np.ones((64, 5), np.int64)
    served = Session(tmp_path / "model").kernels("step", a=bits, b=bits, state=np.zeros((64, 16), np.float32))
    swept = sweep.kernels("sweep_16", starts=[0], steps=2, rows=64)
    assert {kernel for kernel in swept if kernel[1] == "float32"} == served != set()
    assert {kernel[1] for kernel in swept} == {"float32", "float64"}


def test_every_way_of_running_has_the_same_kernels(sweep, tmp_path):
    """Step by step and in chunks, the steps before and after the loop included: no activation is fused into a
    product."""
    export.save(GRU(16), str(tmp_path / "model"), CarrySelect(ADDITION, 20, 8))
    served, swept = Session(tmp_path / "model"), sweep.ran("sweep_16", starts=[0], steps=2, rows=64)
    assert {"Sigmoid", "Tanh"} < swept and not any("Fused" in operation for operation in swept)
    for batch in (1, 3):
        state = np.zeros((batch, 16), np.float32)
        for size in (2, 30):
            bits, packed = np.ones((batch, 8 * size), np.int64), np.array([b"a" * size] * batch, object)
            assert served.ran("add_bits", a=bits, b=bits) == swept
            assert served.ran("step", a=bits, b=bits, state=state) == swept
            assert served.ran("add_packed", a=packed, b=packed, state=state) == swept
            assert served.ran("serving_default", examples=[example(a=bits[0], b=bits[0])] * batch) == swept


@pytest.mark.parametrize(
    "signature, inputs, words",
    [
        ("sweep_16", {"starts": [0], "steps": 1, "rows": 0}, "rows must be from 1 to 65536, not 0"),
        ("sweep_16", {"starts": [0], "steps": 1, "rows": 65537}, "rows must be from 1 to 65536, not 65537"),
        ("sweep_16", {"starts": [0], "steps": 0, "rows": 1}, "steps must be from 1 to"),
        (
            "sweep_16",
            {"starts": [2**32], "steps": 1, "rows": 1},
            "patterns must lie in 0 to 2^32 - 1, not [4294967296]",
        ),
        ("results_7", {"patterns": [-1], "rows": 1}, "patterns must lie in 0 to 2^32 - 1, not [-1]"),
        ("results_7", {"patterns": [1], "rows": -3}, "rows must be from 1 to 149796, not -3"),
    ],
)
def test_the_graph_refuses_invalid_patterns_rows_and_steps(sweep, signature, inputs, words):
    with pytest.raises(tf.errors.InvalidArgumentError) as refusal:
        sweep(signature, **inputs)
    assert words in refusal.value.message


def test_the_model_is_the_same_each_time_and_never_overwritten(tmp_path):
    first, second = (activation_sweep.write(tmp_path / name, [2]) for name in ("first", "second"))
    assert fingerprint.fingerprint(str(first)) == fingerprint.fingerprint(str(second))
    with pytest.raises(BitsumError, match=r"cannot write the sweep model to .*1: it already exists"):
        activation_sweep.write(tmp_path / "first", [3])
    assert [path.name for path in first.parent.iterdir()] == ["1"]
