"""components.formats.strict_protos accepts and refuses the same bytes as C++, by TensorFlow's own parser of
TensorProto."""

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.framework import tensor_pb2

from components.formats import strict_protos

TERMINATORS = [b"\0", b"\x80\0", b"\x0c", b"\x1c", b"\xfc\xff\xff\xff\x0f"]
# An unknown field, a group.
GROUP = b"\xfb\x01\x08\x01\xfc\x01"
TENSORS = [
    tf.make_tensor_proto(np.array([[1, 0], [2**40, 3]])).SerializeToString(),
    tf.make_tensor_proto(["a\0b", "\x0c\x1c", ""]).SerializeToString(),
    tensor_pb2.TensorProto(dtype=9, int64_val=[0, 12, 28], tensor_shape={"dim": [{"size": 3}]}).SerializeToString()
    + GROUP,
]


def is_message(data: bytes) -> bool:
    """Whether TensorFlow can parse it, even if the tensor is invalid."""
    try:
        tf.io.parse_tensor(data, tf.int64)
    except tf.errors.InvalidArgumentError as error:
        return "Could not parse `serialized` as TensorProto" not in error.message
    return True


def is_parsed(data: bytes) -> bool:
    """Whether bitsum can parse it."""
    try:
        strict_protos.parse(tensor_pb2.TensorProto, data)
    except DecodeError:
        return False
    return True


@pytest.mark.parametrize("terminator", TERMINATORS)
@pytest.mark.parametrize("tensor", TENSORS)
def test_a_terminator_anywhere_is_refused_where_tensorflow_refuses_it(tensor, terminator):
    assert is_parsed(tensor) and is_message(tensor)
    for place in range(len(tensor) + 1):
        data = tensor[:place] + terminator + tensor[place:]
        assert is_parsed(data) == is_message(data), (place, data)
        assert is_parsed(tensor[:place]) == is_message(tensor[:place]), place
    assert not is_parsed(terminator + tensor) and not is_parsed(tensor + terminator)
