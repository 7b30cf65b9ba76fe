"""Decodes a TensorProto as TensorFlow does, but faster for simple tensors.

TensorFlow's own parser (tensor.cc, Tensor::FromProto) decodes the rest, except resources and variants, which abort the
process, and tensors that a few bytes expand beyond a limit.
"""

import itertools
import math
import operator

import numpy as np
from tensorflow.core.framework import tensor_pb2
from tensorflow.python.eager import context
from tensorflow.python.framework import dtypes
from tensorflow.python.framework import errors_impl as errors
from tensorflow.python.ops import gen_parsing_ops

from serving.status import Code, StatusError

# A few bytes can request a tensor of any size (one repeated value) or a loop of any length over no elements. The real
# server has no such limit.
TENSOR_BYTES = 16 * 1024 * 1024

# The typed field of each accepted dtype. A complex number is two floats there, a half the bits of an integer.
FIELDS = {
    dtypes.float32: "float_val",
    dtypes.float64: "double_val",
    dtypes.int64: "int64_val",
    dtypes.uint64: "uint64_val",
    dtypes.uint32: "uint32_val",
    dtypes.bool: "bool_val",
    dtypes.string: "string_val",
    dtypes.complex64: "scomplex_val",
    dtypes.complex128: "dcomplex_val",
    **dict.fromkeys((dtypes.float16, dtypes.bfloat16), "half_val"),
    **dict.fromkeys((dtypes.int32, dtypes.int16, dtypes.int8, dtypes.uint16, dtypes.uint8), "int_val"),
}
_DTYPES = {dtype.as_datatype_enum: dtype for dtype in FIELDS}
# The dtypes whose typed field holds the values unchanged.
_PLAIN = {dtypes.float32: np.float32, dtypes.int64: np.int64, dtypes.string: object}
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
        if dtype == dtypes.string and count > len(content):
            raise unparsable
        if dtype not in (dtypes.string, dtypes.bool) and len(content) == count * dtype.size:
            return np.frombuffer(content, dtype.as_numpy_dtype).reshape(shape)
    else:
        _check_size(dtype, shape, len(values) // (2 if dtype.is_complex else 1), alias)
        if dtype in _PLAIN and len(values) == count:
            return np.array(values, _PLAIN[dtype]).reshape(shape)
    try:
        with context.eager_mode():
            parsed = gen_parsing_ops.parse_tensor(proto.SerializeToString(), dtype).numpy()
    except errors.InvalidArgumentError as error:
        raise unparsable from error
    return np.array(parsed, object) if dtype == dtypes.string else parsed


def _is_shape(shape: tuple[int, ...]) -> bool:
    """Whether no dimension is negative and no product of the first ones exceeds 63 bits (TensorShape::IsValid).

    So a 0 makes any dimensions after it valid, but none before it.
    """
    products = itertools.accumulate(shape, operator.mul)
    return len(shape) <= _MAX_RANK and min(shape, default=0) >= 0 and max(products, default=1) < 2**63


def _check_size(dtype: dtypes.DType, shape: tuple[int, ...], carried: int, alias: str) -> None:
    # Even without elements, the graph loops over the other dimensions.
    elements = math.prod(max(size, 1) for size in shape)
    if carried < elements and elements * (_STRING_BYTES if dtype == dtypes.string else dtype.size) > TENSOR_BYTES:
        shown = f"{[*shape[:_SHOWN_DIMENSIONS]]}{' and further dimensions' if len(shape) > _SHOWN_DIMENSIONS else ''}"
        raise StatusError(
            Code.RESOURCE_EXHAUSTED,
            f"tensor {alias} of shape {shown} needs more than {TENSOR_BYTES} bytes, the limit of this server",
        )
