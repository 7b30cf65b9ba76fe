"""serving.tensors: compared with TensorFlow's own conversion of TensorProtos."""

import numpy as np
import pytest
import tensorflow as tf

from serving import tensors

pytestmark = pytest.mark.fast


def test_bits_are_written_least_significant_first():
    proto = tensors.bits_tensor([13, 29, 0], 5)
    assert tf.make_ndarray(proto).tolist() == [[1, 0, 1, 1, 0], [1, 0, 1, 1, 1], [0, 0, 0, 0, 0]]
    assert tf.make_ndarray(proto).dtype == np.int64


def test_bits_decode_to_the_encoded_integers():
    numbers = [2**70 - 1, 5, 0]
    assert tensors.integers(tensors.decode(tensors.bits_tensor(numbers, 71))) == numbers


def test_tensorflow_reads_the_encoded_floats_and_strings():
    assert tf.make_ndarray(tensors.float_tensor([0.5, -1.0], (1, 2))).tolist() == [[0.5, -1.0]]
    assert tf.make_ndarray(tensors.string_tensor([b"\xff\x00", b""])).tolist() == [b"\xff\x00", b""]


@pytest.mark.parametrize(
    ("array", "dtype"),
    [
        (np.array([[1, -2], [3, 4]], np.int64), "int64"),
        (np.array([0.25], np.float32), "float32"),
        (np.array([b"a", b"\xff"], object), "string"),
        (np.zeros((2, 0), np.int64), "int64"),
        (np.array(7, np.int64), "int64"),
    ],
)
def test_tensors_of_tensorflow_are_decoded(array, dtype):
    for proto in (tf.make_tensor_proto(array), _typed(array)):
        tensor = tensors.decode(proto)
        assert (tensor.dtype, tensor.shape, list(tensor.values)) == (dtype, array.shape, array.ravel().tolist())


def test_the_last_value_fills_the_rest_as_in_tensorflow():
    proto = tf.make_tensor_proto(np.zeros((2, 2), np.int64))
    proto.ClearField("tensor_content")
    proto.int64_val[:] = [9, 8]
    assert list(tensors.decode(proto).values) == tf.make_ndarray(proto).ravel().tolist() == [9, 8, 8, 8]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda proto: proto.int64_val.append(1), "shape \\[1, 2\\] with 3 values"),
        (lambda proto: proto.ClearField("int64_val"), "with 0 values"),
        (lambda proto: setattr(proto, "dtype", 3), "dtype DT_INT32"),
        (lambda proto: setattr(proto, "dtype", 77), "dtype 77"),
        (lambda proto: setattr(proto.tensor_shape, "unknown_rank", True), "unknown shape"),
        (lambda proto: setattr(proto.tensor_shape.dim[0], "size", -1), "unknown shape"),
        (lambda proto: setattr(proto, "tensor_content", b"\x00" * 15), "15 bytes"),
        (lambda proto: setattr(proto, "tensor_content", b"\x00" * 8), "with 1 values"),
    ],
)
def test_a_damaged_tensor_is_refused_with_the_reason(change, words):
    proto = _typed(np.array([[0, 1]], np.int64))
    change(proto)
    with pytest.raises(ValueError, match=words):
        tensors.decode(proto)


@pytest.mark.parametrize("value", [2, -1, 255, 2**40])
def test_an_element_that_is_not_a_bit_is_reported_with_its_position(value):
    with pytest.raises(ValueError, match=f"element 2 of the bits is {value},"):
        tensors.integers(tensors.Tensor("int64", (2, 2), [0, 1, value, 0]))


@pytest.mark.parametrize(("dtype", "shape"), [("float32", (1, 2)), ("int64", (2,)), ("int64", ())])
def test_bits_of_another_dtype_or_rank_are_refused(dtype, shape):
    with pytest.raises(ValueError, match="int64 of rank 2"):
        tensors.bit_digits(tensors.Tensor(dtype, shape, [0, 1]))


def _typed(array):
    """The tensor with its values in the typed field, as in responses of a model server."""
    proto = tf.make_tensor_proto(array)
    proto.ClearField("tensor_content")
    field = {"i": proto.int64_val, "f": proto.float_val, "O": proto.string_val}[array.dtype.kind]
    del field[:]
    field.extend(array.ravel().tolist())
    return proto
