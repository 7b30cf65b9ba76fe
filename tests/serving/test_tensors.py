"""serving.tensors against TensorFlow's own reading and writing of TensorProtos."""

import numpy as np
import pytest
import tensorflow as tf

from serving import tensors

pytestmark = pytest.mark.fast


def test_bits_are_written_least_significant_first():
    proto = tensors.bits_tensor([13, 29, 0], 5)
    assert tf.make_ndarray(proto).tolist() == [[1, 0, 1, 1, 0], [1, 0, 1, 1, 1], [0, 0, 0, 0, 0]]
    assert tf.make_ndarray(proto).dtype == np.int64


def test_bits_come_back_as_the_integers_that_they_write():
    numbers = [2**70 - 1, 5, 0]
    assert tensors.integers(tensors.decode(tensors.bits_tensor(numbers, 71))) == numbers


def test_floats_and_strings_are_written_as_tensorflow_reads_them():
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
def test_what_tensorflow_writes_is_read(array, dtype):
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
def test_a_damaged_tensor_is_refused_in_words(change, words):
    proto = _typed(np.array([[0, 1]], np.int64))
    change(proto)
    with pytest.raises(ValueError, match=words):
        tensors.decode(proto)


@pytest.mark.parametrize("value", [2, -1, 255, 2**40])
def test_what_is_no_bit_is_named_with_its_place(value):
    with pytest.raises(ValueError, match=f"element 2 of the bits is {value},"):
        tensors.integers(tensors.Tensor("int64", (2, 2), [0, 1, value, 0]))


@pytest.mark.parametrize(("dtype", "shape"), [("float32", (1, 2)), ("int64", (2,)), ("int64", ())])
def test_bits_of_another_dtype_or_rank_are_refused(dtype, shape):
    with pytest.raises(ValueError, match="int64 of rank 2"):
        tensors.bit_digits(tensors.Tensor(dtype, shape, [0, 1]))


def _typed(array):
    """The tensor with its values in the typed field, as a model server answers."""
    proto = tf.make_tensor_proto(array)
    proto.ClearField("tensor_content")
    field = {"i": proto.int64_val, "f": proto.float_val, "O": proto.string_val}[array.dtype.kind]
    del field[:]
    field.extend(array.ravel().tolist())
    return proto
