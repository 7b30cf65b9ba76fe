"""The exported model: its signatures, its answers, and the requests that its graph refuses, run as by a model
server."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from components import signatures
from components.errors import BitsumError
from components.model import export
from components.model.gru import GRU
from components.savedmodel import fingerprint, graph_identity
from serving.runtime.loaded_model import LoadedModel
from serving.status import Code, StatusError
from tests.support.examples import example
from tests.support.hand_made import adder


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory):
    directory = tmp_path_factory.mktemp("export") / "model"
    export.save(adder(), str(directory))
    return directory


@pytest.fixture(scope="module")
def run(model_dir):
    """run(signature, inputs) -> outputs, as TensorFlow Serving does it: a session on the loaded graph, only outputs
    fetched, and no shape compared with the placeholders'."""
    model = LoadedModel(model_dir)

    def run(name, **inputs):
        signature = model.signatures[name]
        feeds = {signature.inputs[key].name: np.asarray(value) for key, value in inputs.items()}
        fetched = model.run(feeds, [info.name for info in signature.outputs.values()])
        return dict(zip(signature.outputs, fetched, strict=True))

    yield run
    model.close()


def described(tensors):
    return {
        name: (tf.dtypes.as_dtype(info.dtype).name, [dim.size for dim in info.tensor_shape.dim])
        for name, info in tensors.items()
    }


def test_signatures_have_the_documented_names_dtypes_and_shapes(model_dir):
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        loaded = tf.compat.v1.saved_model.load(session, ["serve"], str(model_dir)).signature_def
    described_signatures = {
        name: (described(signature.inputs), described(signature.outputs))
        for name, signature in loaded.items()
        if name[0] != "_"
    }
    operands = {"a": ("int64", [-1, -1]), "b": ("int64", [-1, -1])}
    total = {"sum": ("int64", [-1, -1])}
    assert described_signatures == {
        "serving_default": ({"examples": ("string", [-1])}, total | {"length": ("int64", [-1])}),
        "add_bits": (operands, total),
        "step": (
            operands | {"state": ("float32", [-1, 3])},
            total | {"logits": ("float32", [-1, -1]), "state": ("float32", [-1, 3])},
        ),
        "add_packed": (
            {"a": ("string", [-1]), "b": ("string", [-1]), "state": ("float32", [-1, 3])},
            {"sum": ("string", [-1]), "state": ("float32", [-1, 3])},
        ),
    }


def test_every_byte_with_every_byte(run):
    numbers = [bytes([number]) for number in range(256)]
    a, b = (np.array(column, object) for column in zip(*itertools.product(numbers, repeat=2), strict=True))
    out = run("add_packed", a=a, b=b, state=np.zeros((2**16, 3), np.float32))["sum"]
    assert [row[0] for row in out] == [(x[0] + y[0]) % 256 for x, y in zip(a, b, strict=True)]


def test_a_shorter_sum_is_padded_with_zeros_even_if_the_model_is_wrong(tmp_path):
    always_one = adder()
    always_one.b_o.assign([9.0])
    export.save(always_one, str(tmp_path / "model"))
    serve = tf.saved_model.load(str(tmp_path / "model")).signatures["serving_default"]
    total = serve(examples=tf.constant([example(a=[0], b=[0]), example(a=[0] * 3, b=[0] * 3)]))["sum"]
    assert total.numpy().tolist() == [[1, 1, 0, 0], [1, 1, 1, 1]]


def test_a_batch_of_no_examples_or_bits_is_answered(run):
    assert run("serving_default", examples=np.array([], object))["sum"].shape == (0, 1)
    for rows, length in ((0, 4), (2, 0)):
        nothing = np.zeros((rows, length), np.int64)
        assert run("add_bits", a=nothing, b=nothing)["sum"].tolist() == [[0] * (length + 1)] * rows
    stepped = run(
        "step", a=np.zeros((0, 4), np.int64), b=np.zeros((0, 4), np.int64), state=np.zeros((0, 3), np.float32)
    )
    assert [stepped[name].shape for name in ("sum", "logits", "state")] == [(0, 4), (0, 4), (0, 3)]
    nothing = run("add_packed", a=np.array([], object), b=np.array([], object), state=np.zeros((0, 3), np.float32))
    assert [nothing[name].shape for name in ("sum", "state")] == [(0,), (0, 3)]


ZEROS = np.zeros((2, 3), np.int64)
STATE = np.zeros((2, 3), np.float32)
BITS_OR_STATE_REFUSED = [
    ("add_bits", {"a": ZEROS + 2, "b": ZEROS}, "every bit of a and b must be 0 or 1, these go from 0 to 2"),
    ("add_bits", {"a": ZEROS, "b": ZEROS - 1}, "every bit of a and b must be 0 or 1, these go from -1 to 0"),
    ("add_bits", {"a": ZEROS, "b": ZEROS[:, :2]}, "a and b must have the same shape [B, T], they have [2 3] and [2 2]"),
    ("add_bits", {"a": ZEROS, "b": ZEROS[:1]}, "a and b must have the same shape [B, T], they have [2 3] and [1 3]"),
    ("add_bits", {"a": ZEROS[0], "b": ZEROS[0]}, "a and b must have the same shape [B, T], they have [3] and [3]"),
    ("add_bits", {"a": ZEROS, "b": ZEROS[0]}, "a and b must have the same shape [B, T], they have [2 3] and [3]"),
    ("add_bits", {"a": np.int64(1), "b": np.int64(1)}, "a and b must have the same shape [B, T], they have [] and []"),
    ("step", {"a": ZEROS, "b": ZEROS + 7, "state": STATE}, "every bit of a and b must be 0 or 1, these go from 0 to 7"),
    (
        "step",
        {"a": ZEROS, "b": ZEROS[:1], "state": STATE},
        "a and b must have the same shape [B, T], they have [2 3] and [1 3]",
    ),
    ("step", {"a": ZEROS, "b": ZEROS, "state": STATE[:1]}, "state must have shape [2 3], it has [1 3]"),
    ("step", {"a": ZEROS, "b": ZEROS, "state": STATE[:, :2]}, "state must have shape [2 3], it has [2 2]"),
    ("step", {"a": ZEROS, "b": ZEROS, "state": STATE[0]}, "state must have shape [2 3], it has [3]"),
    ("step", {"a": ZEROS, "b": ZEROS, "state": STATE + 1.5}, "every value of state must be from -1 to 1, found 1.5"),
    ("step", {"a": ZEROS, "b": ZEROS, "state": STATE * np.nan}, "every value of state must be from -1 to 1, found nan"),
    (
        "step",
        {"a": ZEROS[:, :0], "b": ZEROS[:, :0], "state": STATE - 2},
        "every value of state must be from -1 to 1, found 2",
    ),
]

BYTES = np.array([b"ab", b"cd"], object)
BYTES_REFUSED = [
    ({"b": BYTES[:1]}, "a and b must have the same shape [B], they have [2] and [1]"),
    ({"b": BYTES[:, None]}, "a and b must have the same shape [B], they have [2] and [2 1]"),
    ({"a": BYTES[:, None], "b": BYTES[:, None]}, "a and b must have the same shape [B], they have [2 1] and [2 1]"),
    (
        {"a": np.array(b"a", object), "b": np.array(b"a", object)},
        "a and b must have the same shape [B], they have [] and []",
    ),
    (
        {"b": np.array([b"ab", b"c"], object)},
        "a and b must hold the same number of bytes, at least 1; these go from 1 to 2",
    ),
    (
        {"b": np.array([b"abc", b"cde"], object)},
        "a and b must hold the same number of bytes, at least 1; these go from 2 to 3",
    ),
    ({"a": BYTES[:0], "b": BYTES[:0]}, "state must have shape [0 3], it has [2 3]"),
    ({"a": np.array([b"", b""], object), "b": np.array([b"", b""], object)}, "at least 1; these go from 0 to 0"),
    ({"state": STATE[:1]}, "state must have shape [2 3], it has [1 3]"),
    ({"state": STATE[0]}, "state must have shape [2 3], it has [3]"),
    ({"state": STATE + 1.5}, "every value of state must be from -1 to 1, found 1.5"),
    ({"state": STATE * np.nan}, "every value of state must be from -1 to 1, found nan"),
]
BITS_OR_STATE_REFUSED += [
    ("add_packed", {"a": BYTES, "b": BYTES, "state": STATE} | inputs, text) for inputs, text in BYTES_REFUSED
]


@pytest.mark.parametrize("name, inputs, text", BITS_OR_STATE_REFUSED)
def test_the_graph_refuses_invalid_operands(run, name, inputs, text):
    with pytest.raises(StatusError) as refusal:
        run(name, **inputs)
    assert refusal.value.code == Code.INVALID_ARGUMENT and text in str(refusal.value)


EXAMPLES_REFUSED = [
    ([example(a=[1], b=[1]), example(a=[1, 0], b=[1])], "those at [1] have [2] and [1] bits"),
    ([example(a=[1, 0]), example(b=[1, 0]), example(a=[0], b=[0])], "those at [0 1] have [2 0] and [0 2] bits"),
    (
        [example()],
        "every example needs features a and b of the same number of bits, at least "
        "1; those at [0] have [0] and [0] bits",
    ),
    ([example(a=[2], b=[1])], "every bit of a and b must be 0 or 1, these go from 1 to 2"),
    ([b"no example"], "Could not parse example input"),
    (example(a=[1], b=[1]), "examples must have shape [B], they have []"),
]


@pytest.mark.parametrize("examples, text", EXAMPLES_REFUSED, ids=[text for _, text in EXAMPLES_REFUSED])
def test_the_graph_refuses_invalid_examples(run, examples, text):
    with pytest.raises(StatusError) as refusal:
        run("serving_default", examples=np.array(examples, object))
    assert refusal.value.code == Code.INVALID_ARGUMENT and text in str(refusal.value)


def test_names_of_the_signatures_module_are_those_of_the_model(model_dir):
    loaded = tf.saved_model.load(str(model_dir)).signatures
    assert set(loaded) == {signatures.SERVING_DEFAULT, signatures.ADD_BITS, signatures.STEP, signatures.ADD_PACKED}
    assert set(loaded[signatures.STEP].structured_outputs) == {signatures.SUM, signatures.LOGITS, signatures.STATE}


def test_nothing_is_left_beside_the_model_and_an_existing_one_is_not_overwritten(model_dir):
    before = fingerprint.fingerprint(str(model_dir))
    with pytest.raises(BitsumError, match=r"cannot write the model to .*: Directory not empty"):
        export.save(GRU(3, seed=9), str(model_dir))
    assert [path.name for path in model_dir.parent.iterdir()] == ["model"]
    assert fingerprint.fingerprint(str(model_dir)) == before


class Swapped(GRU):
    """The same variables and the same operations, but the gates are swapped."""

    def advance(self, x_z, x_r, x_h, h):
        return super().advance(x_r, x_z, x_h, h)


def test_identity_notices_other_weights_and_another_wiring(model_dir, tmp_path):
    nudged = adder()
    nudged.U_h.assign(np.nextafter(nudged.U_h.numpy(), np.float32(np.inf)))
    export.save(nudged, str(tmp_path / "nudged"))
    export.save(adder(Swapped), str(tmp_path / "rewired"))
    original, nudged, rewired = (str(path) for path in (model_dir, tmp_path / "nudged", tmp_path / "rewired"))
    assert graph_identity.graph_sha256(nudged) == graph_identity.graph_sha256(original)
    assert fingerprint.weights_sha256(nudged) != fingerprint.weights_sha256(original)
    assert graph_identity.graph_sha256(rewired) != graph_identity.graph_sha256(original)
    assert len({fingerprint.fingerprint(path) for path in (original, nudged, rewired)}) == 3


def test_weights_are_read_back_from_the_model(model_dir):
    read = fingerprint.weights(str(model_dir))
    assert sorted(read) == ["U_h", "U_r", "U_z", "W_h", "W_o", "W_r", "W_z", "b_h", "b_o", "b_r", "b_z"]
    np.testing.assert_array_equal(read["U_h"], adder().U_h)


@pytest.mark.parametrize("content", [None, b"", b"\x0a\xff garbage"])
def test_the_identity_of_a_folder_without_a_model_is_an_error_of_one_line(tmp_path, content):
    if content is not None:
        (tmp_path / "saved_model.pb").write_bytes(content)
    with pytest.raises(BitsumError) as refusal:
        fingerprint.fingerprint(str(tmp_path))
    assert "\n" not in str(refusal.value) and str(tmp_path) in str(refusal.value)
