"""TensorProto <-> Python for the client, without TensorFlow and numpy.

Tensors of bits are int64 [B, T], least significant first (components.task.addition); 13 and 29 as rows of 5 are

    bits_tensor([13, 29], 5)      # 1 0 1 1 0
                                  # 1 0 1 1 1
Format: tensorflow/core/framework/tensor.proto. Elements are in the field of their dtype or, little-endian, in
`tensor_content`. A typed field may have fewer values than the shape; its last value then fills the rest.
"""

import array
import dataclasses
import math
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from serving import protos

if TYPE_CHECKING:
    from tensorflow.core.framework.tensor_pb2 import TensorProto

INT64 = "int64"
FLOAT = "float32"
STRING = "string"

# dtype -> (field, code of the array module).
_FIELDS = {INT64: ("int64_val", "q"), FLOAT: ("float_val", "f"), STRING: ("string_val", "")}
_BIT_CHARACTERS = bytes.maketrans(b"\x00\x01", b"01")


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A decoded tensor: `values` in row-major order."""

    dtype: str
    shape: tuple[int, ...]
    values: Sequence


def bits_tensor(values: Sequence[int], length: int) -> "TensorProto":
    """int64 [len(values), length]: the bits of integers from 0 up to 2**length - 1, least significant first."""
    # Formats digits first: formatting and replacing run in C, unlike a loop over the bits.
    digits = "".join(f"{value:0{length}b}"[::-1] for value in values).encode()
    return bit_digits_tensor(digits, (len(values), length))


def bit_digits_tensor(digits: bytes, shape: Sequence[int]) -> "TensorProto":
    """int64 tensor of the bits in `digits`, the characters 0 and 1."""
    content = digits.replace(b"0", b"\x00" * 8).replace(b"1", b"\x01" + b"\x00" * 7)
    return _proto(INT64, shape, tensor_content=content)


def float_tensor(values: Sequence[float], shape: Sequence[int]) -> "TensorProto":
    """float32 tensor of `values` in row-major order."""
    return _proto(FLOAT, shape, tensor_content=_little_endian(array.array("f", values)).tobytes())


def filled_tensor(value: float, shape: Sequence[int]) -> "TensorProto":
    """float32 tensor with `value` in every element, in a few bytes."""
    return _proto(FLOAT, shape, float_val=[value])


def string_tensor(values: Sequence[bytes]) -> "TensorProto":
    """string [len(values)]."""
    return _proto(STRING, (len(values),), string_val=values)


def unpacked_tensor(rows: Sequence[bytes]) -> "TensorProto":
    """int64 [len(rows), 8 N]: the bits of rows of N bytes each, bit 0 of byte 0 first."""
    return bits_tensor([int.from_bytes(row, "little") for row in rows], 8 * len(rows[0]))


def decode(proto: "TensorProto") -> Tensor:
    """The tensor in `proto`.

    Raises:
        ValueError: a dtype other than int64, float32 and string, an unknown shape, or a wrong number of values.
    """
    dtype = dtype_name(proto.dtype)
    if dtype not in _FIELDS:
        raise ValueError(f"a tensor of dtype {dtype}")
    shape = tuple(dim.size for dim in proto.tensor_shape.dim)
    if proto.tensor_shape.unknown_rank or any(size < 0 for size in shape):
        raise ValueError("a tensor of unknown shape")
    field, code = _FIELDS[dtype]
    values = _content(proto.tensor_content, code) if proto.tensor_content else getattr(proto, field)
    count = math.prod(shape)
    if 0 < len(values) < count and not proto.tensor_content:
        values = [*values, *[values[-1]] * (count - len(values))]
    if len(values) != count:
        raise ValueError(f"a tensor of shape {list(shape)} with {len(values)} values")
    return Tensor(dtype, shape, values)


def integers(tensor: Tensor) -> list[int]:
    """The integers whose bits are the rows of int64 [B, T].

    Raises:
        ValueError: another dtype or rank, or an element other than 0 and 1.
    """
    length = tensor.shape[-1] if tensor.shape else 0
    digits = bit_digits(tensor)
    return [int(digits[row * length : (row + 1) * length][::-1] or b"0", 2) for row in range(tensor.shape[0])]


def packed_rows(tensor: Tensor, rows: int, size: int) -> list[bytes]:
    """The bits of int64 [rows, 8 size] as rows of `size` bytes; errors as in `integers`, and for another shape."""
    if tensor.shape != (rows, 8 * size):
        raise ValueError(f"a sum of shape {list(tensor.shape)}, not {[rows, 8 * size]}")
    return [number.to_bytes(size, "little") for number in integers(tensor)]


def strings(tensor: Tensor, rows: int, size: int) -> list[bytes]:
    """The elements of string [rows], `size` bytes each. Raises: ValueError, another dtype, shape or size."""
    if tensor.dtype != STRING or tensor.shape != (rows,):
        raise ValueError(f"{tensor.dtype} {list(tensor.shape)} instead of a sum of {rows} strings, string {[rows]}")
    values = list(tensor.values)
    for value in values:
        if len(value) != size:
            raise ValueError(f"a sum of {len(value)} bytes, not of {size}")
    return values


def bit_digits(tensor: Tensor) -> bytes:
    """The elements of int64 [B, T] as the characters 0 and 1, row by row; errors as in `integers`."""
    if tensor.dtype != INT64 or len(tensor.shape) != 2:
        raise ValueError(f"{tensor.dtype} {list(tensor.shape)} instead of bits, int64 of rank 2")
    try:
        # bytes(array) would copy the memory, not the elements.
        digits = bytes([*tensor.values])
    except ValueError:
        digits = b"\xff"
    if digits.translate(None, b"\x00\x01"):
        position, value = next((i, value) for i, value in enumerate(tensor.values) if value not in (0, 1))
        raise ValueError(f"element {position} of the bits is {value}, not 0 or 1")
    return digits.translate(_BIT_CHARACTERS)


def dtype_name(number: int) -> str:
    """The name of a DataType: int64, float32, string, or its name in tensorflow/core/framework/types.proto."""
    types = protos.load().types
    short = {types.DT_INT64: INT64, types.DT_FLOAT: FLOAT, types.DT_STRING: STRING}
    if number in short:
        return short[number]
    return types.DataType.Name(number) if number in types.DataType.values() else str(number)


def _proto(dtype: str, shape: Sequence[int], **values: Any) -> "TensorProto":
    apis = protos.load()
    number = {INT64: apis.types.DT_INT64, FLOAT: apis.types.DT_FLOAT, STRING: apis.types.DT_STRING}[dtype]
    proto = apis.tensor.TensorProto(dtype=number, **values)
    for size in shape:
        proto.tensor_shape.dim.add(size=size)
    return proto


def _content(content: bytes, code: str) -> array.array:
    if not code:
        raise ValueError("a tensor of strings with tensor_content")
    values = array.array(code)
    if len(content) % values.itemsize:
        raise ValueError(f"a tensor with {len(content)} bytes of content, not a multiple of {values.itemsize}")
    values.frombytes(content)
    return _little_endian(values)


def _little_endian(values: array.array) -> array.array:
    if sys.byteorder == "big":
        values.byteswap()
    return values
