"""The tensor that TensorFlow makes of a TensorProto, made in Python.

TensorFlow's own parser (tensor.cc, Tensor::FromProto) is not asked: through its Python layer it ends the process for some
resources and variants. Imports TensorFlow.
"""

import math
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2

from serving.status import Code, StatusError

# A few bytes can ask for a tensor of any size (one value repeated), or for a loop of any length over nothing; the real server
# would do it.
TENSOR_BYTES = 16 * 1024 * 1024

# The typed field of each dtype.
FIELDS = {
    tf.float32: "float_val",
    tf.float64: "double_val",
    tf.int64: "int64_val",
    tf.uint64: "uint64_val",
    tf.uint32: "uint32_val",
    tf.bool: "bool_val",
    tf.string: "string_val",
    **dict.fromkeys((tf.int32, tf.int16, tf.int8, tf.uint16, tf.uint8), "int_val"),
}
HALVES = (tf.float16, tf.bfloat16)
COMPLEX = {tf.complex64: "scomplex_val", tf.complex128: "dcomplex_val"}
_KNOWN = {*FIELDS, *HALVES, *COMPLEX}
_FIRST_REFERENCE = 100
_MAX_RANK = 254
_VARINT_SHIFT = 28
_SHOWN_DIMENSIONS = 8
# What TensorFlow and Python hold of a string beside its bytes.
_STRING_BYTES = 32


class Unfit(NamedTuple):
    """A tensor that TensorFlow would make, but that cannot be carried to it from here: resources, variants, quantized numbers."""

    dtype: tf.DType


def decode(proto: tensor_pb2.TensorProto, alias: str) -> np.ndarray | Unfit:
    """The tensor that TensorFlow makes of `proto` (Tensor::FromProto), in Python: its own parser ends the process for some.

    Raises:
        StatusError: it makes none of it, or it would take more than TENSOR_BYTES that the request does not hold.
    """
    try:
        dtype = tf.as_dtype(proto.dtype)
        shape = tuple(dim.size for dim in proto.tensor_shape.dim)
        if proto.dtype >= _FIRST_REFERENCE or not _is_shape(shape):
            raise ValueError("no tensor")
        if dtype not in _KNOWN:
            return Unfit(dtype)
        count = math.prod(shape)
        if proto.tensor_content and count:
            return _of_content(proto.tensor_content, dtype, count).reshape(shape)
        values = _of_fields(proto, dtype)[:count]
        _check_size(dtype, shape, len(values), alias)
        flat = np.empty(count, values.dtype)
        flat[: len(values)] = values
        flat[len(values) :] = values[-1] if len(values) else b"" if dtype == tf.string else 0
        return flat.reshape(shape)
    except (TypeError, ValueError) as error:
        raise StatusError(Code.INVALID_ARGUMENT, f"tensor parsing error: {alias}") from error


def _is_shape(shape: tuple[int, ...]) -> bool:
    """TensorShape::IsValid: at most 254 dimensions, none negative, and the product of those that are not 0 below 2**63."""
    return len(shape) <= _MAX_RANK and min(shape, default=0) >= 0 and math.prod(filter(None, shape)) < 2**63


def _of_content(content: bytes, dtype: tf.DType, count: int) -> np.ndarray:
    if dtype != tf.string:
        values = np.frombuffer(content, dtype.as_numpy_dtype)
        if len(values) != count or (dtype == tf.bool and max(content) > 1):
            raise ValueError(f"{len(values)} values where {count} are declared")
        return values
    strings = np.empty(min(count, len(content)), object)
    sizes, start = _varints(content, count)
    for index, size in enumerate(sizes):
        strings[index] = content[start : start + size]
        start += size
    if start != len(content):
        raise ValueError("the strings are not as long as declared")
    return strings


def _varints(content: bytes, count: int) -> tuple[list[int], int]:
    """The first `count` varints, and where they end. Raises: ValueError, there are not as many."""
    if count > len(content):
        raise ValueError(f"{count} strings in {len(content)} bytes")
    values, at = [], 0
    for _ in range(count):
        value, shift = 0, 0
        while at < len(content) and content[at] & 128 and shift < _VARINT_SHIFT:
            value |= (content[at] & 127) << shift
            at, shift = at + 1, shift + 7
        if at == len(content) or content[at] & 128:
            raise ValueError("a length is cut off")
        values.append(value | content[at] << shift)
        at += 1
    return values, at


def _of_fields(proto: tensor_pb2.TensorProto, dtype: tf.DType) -> np.ndarray:
    """The values in the typed field of `dtype`, as many as there are."""
    if dtype == tf.string:
        strings = np.empty(len(proto.string_val), object)
        strings[:] = proto.string_val
        return strings
    if dtype in HALVES:
        return np.array(proto.half_val, np.int32).astype(np.uint16).view(dtype.as_numpy_dtype)
    if dtype in COMPLEX:
        parts = np.array(getattr(proto, COMPLEX[dtype]), dtype.real_dtype.as_numpy_dtype)
        return parts[: len(parts) // 2 * 2].view(dtype.as_numpy_dtype)
    field = FIELDS[dtype]
    # A value that is too large for its dtype is cut as C does it.
    wide = np.int32 if field == "int_val" else dtype.as_numpy_dtype
    return np.array(getattr(proto, field), wide).astype(dtype.as_numpy_dtype, copy=False)


def _check_size(dtype: tf.DType, shape: tuple[int, ...], carried: int, alias: str) -> None:
    # Over no elements the graph still loops as often as the other dimensions say.
    elements = math.prod(max(size, 1) for size in shape)
    if carried < elements and TENSOR_BYTES < elements * (_STRING_BYTES if dtype == tf.string else dtype.size):
        shown = f"{[*shape[:_SHOWN_DIMENSIONS]]}{' and further dimensions' if len(shape) > _SHOWN_DIMENSIONS else ''}"
        raise StatusError(
            Code.RESOURCE_EXHAUSTED, f"tensor {alias} of shape {shown} takes more than {TENSOR_BYTES} bytes, the limit here"
        )
