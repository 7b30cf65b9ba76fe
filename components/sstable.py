"""Reads the table that TensorFlow's checkpoints keep their index in: LevelDB's format, without compression.

A table is a row of blocks, an index block, and a footer of 48 bytes: two block handles (the index's is the second), padding,
and a magic number. A handle is two varints: offset and size. After each block come its type (0: not compressed) and the masked
CRC-32C of block and type. A block holds entries, the offsets of its restart points (uint32) and their number (uint32). An
entry is three varints (bytes shared with the key before, bytes of its own, bytes of the value), the key's own bytes and the
value. Values of the index block are the handles of the blocks. https://github.com/google/leveldb/blob/main/doc/table_format.md
"""

import struct
from collections.abc import Iterator

import google_crc32c

_FOOTER_SIZE = 48
_MAGIC = struct.pack("<Q", 0xDB4775248B80FB57)
_TRAILER = struct.Struct("<BI")
_RESTARTS = struct.Struct("<I")
_NOT_COMPRESSED = 0


def read(table: bytes) -> dict[bytes, bytes]:
    """The entries of a table, in its order.

    Raises:
        ValueError: it is no such table, or damaged; the text says where in one line.
    """
    if len(table) < _FOOTER_SIZE or not table.endswith(_MAGIC):
        raise ValueError("it does not end as a table does; is it truncated?")
    footer = table[-_FOOTER_SIZE:]
    _, position = _handle(footer, 0)
    index, _ = _handle(footer, position)
    found: dict[bytes, bytes] = {}
    for _, handle in _entries(_block(table, index)):
        for key, value in _entries(_block(table, _handle(handle, 0)[0])):
            if found and key <= next(reversed(found)):
                raise ValueError(f"key {key[:40]!r} is out of order")
            found[key] = value
    return found


def varint(data: bytes, position: int) -> tuple[int, int]:
    """The number at `position`, seven bits per byte and the least significant first, and the position after it."""
    value = shift = 0
    while shift < 64:
        if position >= len(data):
            raise ValueError("it ends within a number")
        byte, position = data[position], position + 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
    raise ValueError("a number takes more than 64 bits")


def masked_crc(data: bytes) -> int:
    """CRC-32C, rotated and shifted so that CRCs of CRCs do no harm."""
    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _handle(data: bytes, position: int) -> tuple[tuple[int, int], int]:
    offset, position = varint(data, position)
    size, position = varint(data, position)
    return (offset, size), position


def _block(table: bytes, handle: tuple[int, int]) -> bytes:
    offset, size = handle
    end = offset + size
    if end + _TRAILER.size > len(table):
        raise ValueError(f"a block of {size} bytes at {offset} lies outside of it")
    kind, crc = _TRAILER.unpack_from(table, end)
    if masked_crc(table[offset : end + 1]) != crc:
        raise ValueError(f"the checksum of the block at {offset} does not match")
    if kind != _NOT_COMPRESSED:
        raise ValueError(f"the block at {offset} is compressed, which TensorFlow's checkpoints are not")
    return table[offset:end]


def _entries(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    if len(block) < _RESTARTS.size:
        raise ValueError("a block is too short")
    end = len(block) - _RESTARTS.size * (1 + _RESTARTS.unpack(block[-_RESTARTS.size :])[0])
    if end < 0:
        raise ValueError("a block is shorter than its restart points")
    key, position = b"", 0
    while position < end:
        shared, position = varint(block, position)
        own, position = varint(block, position)
        size, position = varint(block, position)
        if shared > len(key) or position + own + size > end:
            raise ValueError("an entry lies outside of its block")
        key = key[:shared] + block[position : position + own]
        yield key, block[position + own : position + own + size]
        position += own + size
