"""Decodes a TensorProto as TensorFlow does, but faster for simple tensors.

TensorFlow's own parser (tensor.cc, Tensor::FromProto) decodes the rest, except resources and variants, which abort the
process, and tensors that a few bytes expand beyond a limit. Imports TensorFlow.
"""

import itertools
import math
import operator

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2

from serving.status import Code, StatusError

# A few bytes can request a tensor of any size (one repeated value) or a loop of any length over no elements. The real
# server has no such limit.
TENSOR_BYTES = 16 * 1024 * 1024

# The typed field of each accepted dtype. A complex number is two floats there, a half the bits of an integer.
FIELDS = {
    tf.float32: "float_val",
    tf.float64: "double_val",
    tf.int64: "int64_val",
    tf.uint64: "uint64_val",
    tf.uint32: "uint32_val",
    tf.bool: "bool_val",
    tf.string: "string_val",
    tf.complex64: "scomplex_val",
    tf.complex128: "dcomplex_val",
    **dict.fromkeys((tf.float16, tf.bfloat16), "half_val"),
    **dict.fromkeys((tf.int32, tf.int16, tf.int8, tf.uint16, tf.uint8), "int_val"),
}
_DTYPES = {dtype.as_datatype_enum: dtype for dtype in FIELDS}
# The dtypes whose typed field holds the values unchanged.
_PLAIN = {tf.float32: np.float32, tf.int64: np.int64, tf.string: object}
# The limit of numpy; TensorFlow's is 254.
_MAX_RANK = 32
_SHOWN_DIMENSIONS = 8
# The memory of a string in TensorFlow and Python, besides its bytes.
_STRING_BYTES = 32


def decode(proto: tensor_pb2.TensorProto, alias: str) -> np.ndarray:
    """The tensor that TensorFlow decodes from `proto`; strings as an array of objects.

    Raises:
        StatusError: TensorFlow cannot parse it, its dtype is not in FIELDS, or it expands to more than TENSOR_BYTES.
    """
    unparsable = StatusError(Code.INVALID_ARGUMENT, f"tensor parsing error: {alias}")
    dtype = _DTYPES.get(proto.dtype)
    shape = tuple(dim.size for dim in proto.tensor_shape.dim)
    if dtype is None or not _is_shape(shape):
        raise unparsable
    count, content, values = math.prod(shape), proto.tensor_content, getattr(proto, FIELDS[dtype])
    if content and count:
        # A string takes at least one byte, and TensorFlow allocates all strings before it parses them.
        if dtype == tf.string and count > len(content):
            raise unparsable
        if dtype not in (tf.string, tf.bool) and len(content) == count * dtype.size:
            return np.frombuffer(content, dtype.as_numpy_dtype).reshape(shape)
    else:
        _check_size(dtype, shape, len(values) // (2 if dtype.is_complex else 1), alias)
        if dtype in _PLAIN and len(values) == count:
            return np.array(values, _PLAIN[dtype]).reshape(shape)
    try:
        parsed = tf.io.parse_tensor(proto.SerializeToString(), dtype).numpy()
    except tf.errors.InvalidArgumentError as error:
        raise unparsable from error
    return np.array(parsed, object) if dtype == tf.string else parsed


def _is_shape(shape: tuple[int, ...]) -> bool:
    """Whether no dimension is negative and no product of the first ones exceeds 63 bits (TensorShape::IsValid).

    So a 0 makes any dimensions after it valid, but none before it.
    """
    products = itertools.accumulate(shape, operator.mul)
    return len(shape) <= _MAX_RANK and min(shape, default=0) >= 0 and max(products, default=1) < 2**63


def _check_size(dtype: tf.DType, shape: tuple[int, ...], carried: int, alias: str) -> None:
    # Even without elements, the graph loops over the other dimensions.
    elements = math.prod(max(size, 1) for size in shape)
    if carried < elements and elements * (_STRING_BYTES if dtype == tf.string else dtype.size) > TENSOR_BYTES:
        shown = f"{[*shape[:_SHOWN_DIMENSIONS]]}{' and further dimensions' if len(shape) > _SHOWN_DIMENSIONS else ''}"
        raise StatusError(
            Code.RESOURCE_EXHAUSTED,
            f"tensor {alias} of shape {shown} needs more than {TENSOR_BYTES} bytes, the limit of this server",
        )
