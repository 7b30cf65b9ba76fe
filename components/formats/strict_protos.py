"""Parse protocol buffer messages from outside: all of their bytes, or not at all.

A tag of zero or of the end of a group ends a message. At the outermost level Python's FromString (protobuf 3.20, in
C++) stops there with a warning and drops what follows, as if it had never been sent. TensorFlow Serving's C++ refuses
such bytes, and TensorFlow's parser of tf.Examples even reads on after them. Within a message every parser refuses them.
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
    """The message of class `kind` that `data` is, as `kind.FromString(data)` where all of `data` is read.

    Raises:
        DecodeError: `data` is no such message, or the message ends before `data` does.
    """
    _be_silent()
    message = kind()
    try:
        read = message.MergeFromString(data)
    except SystemError as error:
        # How the C++ implementation puts it where its warning is made an error.
        raise DecodeError(f"{kind.__name__}: {_WARNING}") from error
    if read != len(data) or _ends_with_terminator(kind, data):
        raise DecodeError(
            f"{kind.__name__}: the message ends within its {len(data)} bytes, at a tag that ends a message"
        )
    return message


def read(kind: Any, path: pathlib.Path) -> Any:
    """The message of class `kind` that the file `path` holds. Raises: BitsumError, it cannot be read or is no such
    message."""
    try:
        return parse(kind, path.read_bytes())
    except OSError as error:
        raise BitsumError(f"cannot read {path}: {error.strerror}") from error
    except DecodeError as error:
        raise BitsumError(f"{path} is no {kind.__name__}, or damaged: {error}") from error


def _ends_with_terminator(kind: Any, data: bytes) -> bool:
    """Whether the last bytes of `data`, which parses, are a tag at the outermost level that ends a message.

    They are a tag where what is before them is a whole message, and part of a field where it is not.
    """
    for size in range(1, min(len(data), _TAG_BYTES) + 1):
        # Every byte of a varint but its last has the highest bit set.
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
def _be_silent() -> None:
    """What the library warns of is raised here."""
    warnings.filterwarnings("ignore", _WARNING, RuntimeWarning)
