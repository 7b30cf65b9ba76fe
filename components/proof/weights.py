"""The weights of a cell as plain numbers, as the proof reads them, and the hash by which a certificate names them.

H hidden units, symbols of I bits. z is the update gate, r the reset gate, h the candidate, o the logit:

W_z, W_r, W_h  [I, H]     U_z, U_r, U_h  [H, H]     b_z, b_r, b_h  [H]     W_o  [H, 1]     b_o  [1]
"""

import dataclasses
import hashlib
import math
import struct
from collections.abc import Iterator, Mapping
from typing import Any

Vector = tuple[float, ...]
Matrix = tuple[Vector, ...]

# Trained cells have smaller weights. The limit keeps every sum of the proof far from overflow.
WEIGHT_LIMIT = 2.0**16
SMALLEST_NORMAL = 2.0**-126


@dataclasses.dataclass(frozen=True)
class Weights:
    """The eleven variables, row by row, as Python floats. The constructor checks nothing; `problem` does."""

    W_z: Matrix
    U_z: Matrix
    b_z: Vector
    W_r: Matrix
    U_r: Matrix
    b_r: Vector
    W_h: Matrix
    U_h: Matrix
    b_h: Vector
    W_o: Matrix
    b_o: Vector

    @classmethod
    def of(cls, variables: Mapping[str, Any]) -> "Weights":
        """From {name: array or nested list}; arrays are read by `tolist()`. Raises: KeyError, a name is missing."""
        return cls(**{name: _frozen(variables[name]) for name in NAMES})

    @property
    def units(self) -> int:
        """Hidden units, H."""
        return len(self.b_z)

    @property
    def bits(self) -> int:
        """Bits of a symbol, I."""
        return len(self.W_z)

    def problem(self) -> str | None:
        """Why these are not the weights of a cell: wrong shapes, or values other than zero and normal float32. None if
        they are."""
        if not all(type(getattr(self, name)) is tuple for name in NAMES) or not self.b_z or not self.W_z:
            return "the weights are not nested tuples, or are empty"
        for name, shape in _shapes(self.bits, self.units).items():
            if not _has_shape(getattr(self, name), shape):
                return f"{name} is not an array of floats of shape {list(shape)}"
            for value in _flat(getattr(self, name)):
                if not _is_normal_float32(value):
                    return f"{name} holds {value!r}, not a float32 that is zero or from 2**-126 to 2**16 in magnitude"
        return None

    def sha256(self) -> str:
        """Hash of names, shapes and little-endian float32 bytes, in the order of the fields, of weights without
        `problem`."""
        digest = hashlib.sha256()
        for name, shape in _shapes(self.bits, self.units).items():
            values = list(_flat(getattr(self, name)))
            digest.update(f"{name}{list(shape)}\n".encode())
            digest.update(struct.pack(f"<{len(values)}f", *values))
        return digest.hexdigest()


NAMES = tuple(field.name for field in dataclasses.fields(Weights))


def is_float32(value: float) -> bool:
    """Whether a finite Python float is exactly a float32."""
    try:
        (rounded,) = struct.unpack("<f", struct.pack("<f", value))
    except OverflowError:
        return False
    return bool(rounded == value)


def _is_normal_float32(value: float) -> bool:
    if not math.isfinite(value) or not is_float32(value):
        return False
    return value == 0 or SMALLEST_NORMAL <= abs(value) <= WEIGHT_LIMIT


def _shapes(bits: int, units: int) -> dict[str, tuple[int, ...]]:
    ranks = {"W": (bits, units), "U": (units, units), "b": (units,)}
    return {name: ranks[name[0]] for name in NAMES[:-2]} | {"W_o": (units, 1), "b_o": (1,)}


def _has_shape(value: Any, shape: tuple[int, ...]) -> bool:
    if not shape:
        return type(value) is float
    return type(value) is tuple and len(value) == shape[0] and all(_has_shape(item, shape[1:]) for item in value)


def _flat(value: Any) -> Iterator[float]:
    if type(value) is tuple:
        for item in value:
            yield from _flat(item)
    else:
        yield value


def _frozen(value: Any) -> Any:
    value = value.tolist() if hasattr(value, "tolist") else value
    return tuple(map(_frozen, value)) if isinstance(value, (list, tuple)) else value
