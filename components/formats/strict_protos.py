"""Parses protocol buffer messages from outside: all of their bytes, or none.

A tag of zero or of the end of a group ends a message. At the outermost level Python's FromString (protobuf 3.20, in
C++) stops there with a warning and silently drops the rest. TensorFlow Serving's C++ refuses such bytes, and
TensorFlow's parser of tf.Examples even reads on after them. Within a message every parser refuses them.
"""

import functools
import pathlib
import warnings
from typing import Any

from google.protobuf.message import DecodeError

from components.errors import BitsumError

_WARNING = "Unexpected end-group tag"
# A tag is a varint of 32 bits; its last three bits are the wire type.
_TAG_BYTES = 5
_END_GROUP = 4


def parse(kind: Any, data: bytes) -> Any:
    """The message of class `kind` in `data`, as from `kind.FromString(data)`.

    Raises:
        DecodeError: `data` is not such a message, or the message ends before `data` does.
    """
    _silence_warning()
    message = kind()
    try:
        read = message.MergeFromString(data)
    except SystemError as error:
        # The C++ implementation raises this if its warning is turned into an error.
        raise DecodeError(f"{kind.__name__}: {_WARNING}") from error
    if read != len(data) or _ends_with_terminator(kind, data):
        raise DecodeError(
            f"{kind.__name__}: the message ends within its {len(data)} bytes, at a tag that ends a message"
        )
    return message


def read(kind: Any, path: pathlib.Path) -> Any:
    """The message of class `kind` in the file `path`.

    Raises:
        BitsumError: the file cannot be read, or is not such a message.
    """
    try:
        return parse(kind, path.read_bytes())
    except OSError as error:
        raise BitsumError(f"cannot read {path}: {error.strerror}") from error
    except DecodeError as error:
        raise BitsumError(f"{path} is not a {kind.__name__}, or is damaged: {error}") from error


def _ends_with_terminator(kind: Any, data: bytes) -> bool:
    """Whether the parsable `data` ends with a tag at the outermost level that ends a message.

    The last bytes are a tag if the bytes before them are a whole message; otherwise they are part of a field.
    """
    for size in range(1, min(len(data), _TAG_BYTES) + 1):
        # All bytes of a varint except the last have the highest bit set.
        if (data[-size] < 0x80) != (size == 1):
            return False
        ends = data[-size] & 7 == _END_GROUP or not any(byte & 0x7F for byte in data[-size:])
        if ends and _is_whole(kind, memoryview(data)[:-size]):
            return True
    return False


def _is_whole(kind: Any, data: memoryview) -> bool:
    try:
        return kind().MergeFromString(data) == len(data)
    except (DecodeError, SystemError):
        return False


@functools.cache
def _silence_warning() -> None:
    """`parse` raises an error instead of the library's warning."""
    warnings.filterwarnings("ignore", _WARNING, RuntimeWarning)
