"""Reads TFRecord files, gzip or not, and frames records for writing, without TensorFlow.

A record is its length (uint64), the masked CRC of the length (uint32), the data, and the masked CRC of the data
(uint32), all little-endian; the CRC is CRC-32C.
https://www.tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details
"""

import gzip
import io
import pathlib
import struct
import zlib
from collections.abc import Iterator
from typing import Any

from google.protobuf.message import DecodeError

from components.errors import BitsumError
from components.formats import crc32c, strict_protos

_GZIP_MAGIC = b"\x1f\x8b"
_LENGTH = struct.Struct("<QI")
_CRC = struct.Struct("<I")
# A damaged length whose CRC happens to match must not allocate all of the machine's memory.
_MAX_RECORD_BYTES = 2**31


class Damage(Exception):
    """The content is no TFRecords; the text says why."""


class CorruptRecords(BitsumError):
    """A TFRecord file is damaged; the text names file and record."""


def read(path: str | pathlib.Path) -> Iterator[bytes]:
    """The records of `path`, one after the other.

    Raises:
        CorruptRecords: a checksum does not match, or the file ends within a record.
        BitsumError: the system cannot read the file.
    """
    number = 0
    try:
        with open(path, "rb") as file:
            for record in records(file, is_gzip=str(path).endswith(".gz")):
                yield record
                number += 1
    except Damage as damage:
        raise CorruptRecords(f"{path} is damaged at record {number}: {damage}") from damage
    except OSError as error:
        raise BitsumError(f"cannot read {path}: {error.strerror}") from error


def records(file: io.BufferedReader, is_gzip: bool = False) -> Iterator[bytes]:
    """The records of an open file, one after the other; compressed ones are recognized.

    With `is_gzip` the file must be compressed: one that is cut down to nothing looks like one without records.

    Raises:
        Damage: as CorruptRecords in `read`.
        OSError: the system cannot read the file.
    """
    compressed = file.peek(len(_GZIP_MAGIC)).startswith(_GZIP_MAGIC)
    if is_gzip and not compressed:
        raise Damage("it does not begin as a gzip file")
    source: io.BufferedIOBase = gzip.GzipFile(fileobj=file) if compressed else file
    try:
        while (record := _record(source)) is not None:
            yield record
    # The error depends on where the damage lies: in the compression or in a record.
    except (OSError, EOFError, zlib.error, ValueError) as error:
        # gzip reports damage by an OSError without errno.
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise Damage(str(error)) from error


def messages(kind: Any, path: str | pathlib.Path) -> Iterator[Any]:
    """The records of `path` as messages of class `kind`.

    Raises:
        CorruptRecords: as in `read`, or a record is not such a message.
        BitsumError: as in `read`.
    """
    for number, record in enumerate(read(path)):
        try:
            yield strict_protos.parse(kind, record)
        except DecodeError as error:
            raise CorruptRecords(f"{path}, record {number}, is not a {kind.__name__}: {error}") from error


def framed(data: bytes) -> bytes:
    """`data` as one record of an uncompressed TFRecord file."""
    length = struct.pack("<Q", len(data))
    return length + _CRC.pack(crc32c.masked(length)) + data + _CRC.pack(crc32c.masked(data))


def _record(file: io.BufferedIOBase) -> bytes | None:
    """The next record, None at the end of the file. Raises: ValueError, it is damaged."""
    header = file.read(_LENGTH.size)
    if not header:
        return None
    if len(header) < _LENGTH.size:
        raise ValueError("the file ends within the length of a record")
    length, length_crc = _LENGTH.unpack(header)
    if crc32c.masked(header[:8]) != length_crc:
        raise ValueError("the checksum of the length does not match; is this a TFRecord file?")
    if length > _MAX_RECORD_BYTES:
        raise ValueError(f"a record of {length} bytes, the limit is {_MAX_RECORD_BYTES}")
    data, stored = file.read(length), file.read(_CRC.size)
    if len(data) < length or len(stored) < _CRC.size:
        raise ValueError(f"the file ends within a record of {length} bytes")
    if crc32c.masked(data) != _CRC.unpack(stored)[0]:
        raise ValueError("the checksum of the data does not match")
    return data
