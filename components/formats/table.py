"""Reads the table that TensorFlow's checkpoints keep their index in: LevelDB's format, without compression.

A table is a row of blocks, an index block, and a footer of 48 bytes: two block handles (the index's is the second),
padding, and a magic number. A handle is two varints: offset and size. After each block come its type (0: not
compressed) and the masked CRC-32C of block and type. A block holds entries, the offsets of its restart points (uint32)
and their number (uint32). An entry is three varints (bytes shared with the key before, bytes of its own, bytes of the
value), the key's own bytes and the value. Values of the index block are the handles of the blocks.
https://github.com/google/leveldb/blob/main/doc/table_format.md

Checksums show damage, not forgery, and a reader that seeks a key trusts restart points and keys of the index, where one
that reads from front to back does not look: so a table could show each of them other entries. What is read here is read
by both. Every restart point is that of an entry, every block lies where the one before it ends and holds the keys that
the index says, and the table is the one that TensorFlow's writer makes of these entries, byte for byte.
"""

import os
import struct
from collections.abc import Mapping

from components.formats import crc32c

_FOOTER_SIZE = 48
_MAGIC = struct.pack("<Q", 0xDB4775248B80FB57)
_TRAILER = struct.Struct("<BI")
_RESTARTS = struct.Struct("<I")
_NOT_COMPRESSED = 0
# Keys that share their beginnings can be many times as long as the table.
_MAX_KEY_BYTES = 2**22

# What TensorFlow's writer of checkpoints goes by: tensorflow/tsl's lib/io/table_options.h and table_builder.cc.
_BLOCK_SIZE = 262_144
_ENTRIES_PER_RESTART = 16

_Handle = tuple[int, int]


def read(table: bytes) -> dict[bytes, bytes]:
    """The entries of a table, in its order.

    Raises:
        ValueError: it is no such table, damaged, or written otherwise than TensorFlow writes; the text says where in
        one line.
    """
    if len(table) < _FOOTER_SIZE or not table.endswith(_MAGIC):
        raise ValueError("it does not end as a table does; is it truncated?")
    handles = table[-_FOOTER_SIZE : -len(_MAGIC)]
    meta, position = _handle(handles, 0)
    index, position = _handle(handles, position)
    if any(handles[position:]):
        raise ValueError("bytes follow the handles in its footer")
    if _entries(_block(table, meta)):
        raise ValueError("its meta index has entries")
    found: dict[bytes, bytes] = {}
    last, end = None, 0
    for limit, value in _entries(_block(table, index)):
        handle, position = _handle(value, 0)
        if position != len(value):
            raise ValueError("bytes follow the handle of a block in its index")
        if handle[0] != end:
            raise ValueError(f"a block begins at {handle[0]}, not at {end}, where the one before it ends")
        end = sum(handle) + _TRAILER.size
        for key, value in _entries(_block(table, handle)):
            if found and key <= next(reversed(found)):
                raise ValueError(f"key {key[:40]!r} is out of order")
            if key > limit or (last is not None and key <= last):
                raise ValueError(f"key {key[:40]!r} lies outside of what the index says of its block")
            found[key] = value
        last = limit
    if write(found) != table:
        raise ValueError("it is not written as TensorFlow writes these entries")
    return found


def write(entries: Mapping[bytes, bytes]) -> bytes:
    """The table that TensorFlow writes for `entries`, which are in the order of their keys."""
    table, block, index = bytearray(), _Block(_ENTRIES_PER_RESTART), _Block(1)
    last = waiting = None
    for key, value in entries.items():
        if last is not None and len(key) + len(value) >= 2 * _BLOCK_SIZE:
            waiting = _flushed(table, block) or waiting
        if waiting:
            index.add(_between(last, key), waiting)
            waiting = None
        block.add(key, value)
        last = key
        if block.size >= _BLOCK_SIZE:
            waiting = _flushed(table, block)
    waiting = _flushed(table, block) or waiting
    handles = _appended(table, _Block(1))
    if waiting:
        index.add(_after(last), waiting)
    handles += _appended(table, index)
    return bytes(table) + handles.ljust(_FOOTER_SIZE - len(_MAGIC), b"\0") + _MAGIC


def varint(data: bytes, position: int) -> tuple[int, int]:
    """The number at `position`, seven bits per byte and the least significant first, and the position after it."""
    value = shift = 0
    while shift < 64:
        if position >= len(data):
            raise ValueError("it ends within a number")
        byte, position = data[position], position + 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if shift and not byte:
                raise ValueError("a number takes more bytes than it needs")
            return value, position
        shift += 7
    raise ValueError("a number takes more than 64 bits")


def _handle(data: bytes, position: int) -> tuple[_Handle, int]:
    offset, position = varint(data, position)
    size, position = varint(data, position)
    return (offset, size), position


def _block(table: bytes, handle: _Handle) -> bytes:
    offset, size = handle
    end = offset + size
    if end + _TRAILER.size > len(table):
        raise ValueError(f"a block of {size} bytes at {offset} lies outside of it")
    kind, crc = _TRAILER.unpack_from(table, end)
    if crc32c.masked(table[offset : end + 1]) != crc:
        raise ValueError(f"the checksum of the block at {offset} does not match")
    if kind != _NOT_COMPRESSED:
        raise ValueError(f"the block at {offset} is compressed, which TensorFlow's checkpoints are not")
    return table[offset:end]


def _entries(block: bytes) -> list[tuple[bytes, bytes]]:
    restarts = _restarts(block)
    end = len(block) - _RESTARTS.size * (1 + len(restarts))
    found, places = [], {0}
    key, position, total = b"", 0, 0
    while position < end:
        start = position
        shared, position = varint(block, position)
        own, position = varint(block, position)
        size, position = varint(block, position)
        if shared > len(key) or position + own + size > end:
            raise ValueError("an entry lies outside of its block")
        if not shared:
            places.add(start)
        key = key[:shared] + block[position : position + own]
        total += len(key)
        if total > _MAX_KEY_BYTES:
            raise ValueError(f"its keys have more than {_MAX_KEY_BYTES} bytes")
        position += own + size
        found.append((key, block[position - size : position]))
    if not places.issuperset(restarts):
        raise ValueError("a restart point is not where an entry with a whole key begins")
    return found


def _restarts(block: bytes) -> list[int]:
    """The offsets of a block's restart points, from each of which a reader may begin."""
    if len(block) < _RESTARTS.size:
        raise ValueError("a block is too short")
    size = _RESTARTS.size * _RESTARTS.unpack(block[-_RESTARTS.size :])[0]
    if size > len(block) - _RESTARTS.size:
        raise ValueError("a block is shorter than its restart points")
    found = [offset for (offset,) in _RESTARTS.iter_unpack(block[len(block) - _RESTARTS.size - size : -_RESTARTS.size])]
    if found[:1] != [0] or any(after <= before for before, after in zip(found, found[1:])):
        raise ValueError("the restart points of a block do not ascend from 0")
    return found


class _Block:
    """A block under way, which has a restart point at every `interval`-th entry."""

    def __init__(self, interval: int):
        self._interval = interval
        self._reset()

    @property
    def size(self) -> int:
        """Bytes of the block if it ended here, its trailer left out."""
        return len(self._data) + _RESTARTS.size * (len(self._restarts) + 1)

    def add(self, key: bytes, value: bytes) -> None:
        shared = len(os.path.commonprefix([self._key, key])) if self._since < self._interval else 0
        if self._since == self._interval:
            self._restarts.append(len(self._data))
            self._since = 0
        self._data += b"".join(map(_varint, (shared, len(key) - shared, len(value)))) + key[shared:] + value
        self._key = key
        self._since += 1

    def finish(self) -> bytes:
        """The block, which is empty again."""
        done = bytes(self._data) + b"".join(map(_RESTARTS.pack, [*self._restarts, len(self._restarts)]))
        self._reset()
        return done

    def __bool__(self) -> bool:
        return bool(self._data)

    def _reset(self) -> None:
        self._data, self._restarts, self._key, self._since = bytearray(), [0], b"", 0


def _flushed(table: bytearray, block: _Block) -> bytes:
    """The handle of the block, which is at the end of the table now; nothing where it has no entries."""
    return _appended(table, block) if block else b""


def _appended(table: bytearray, block: _Block) -> bytes:
    data = block.finish()
    handle = _varint(len(table)) + _varint(len(data))
    table += data + _TRAILER.pack(_NOT_COMPRESSED, crc32c.masked(data + bytes([_NOT_COMPRESSED])))
    return handle


def _between(low: bytes, high: bytes) -> bytes:
    """The index's key of a block that ends with `low` where the next one begins with `high`."""
    same = len(os.path.commonprefix([low, high]))
    if same < min(len(low), len(high)) and low[same] + 1 < high[same]:
        return low[:same] + bytes([low[same] + 1])
    return low


def _after(key: bytes) -> bytes:
    """The index's key of the last block, which ends with `key`."""
    for position, byte in enumerate(key):
        if byte < 0xFF:
            return key[:position] + bytes([byte + 1])
    return key


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number >= 0x80:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*encoded, number])
