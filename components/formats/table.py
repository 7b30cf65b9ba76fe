"""Reads the table in which TensorFlow's checkpoints keep their index: LevelDB's format, without compression.

A table is a sequence of blocks, an index block, and a footer of 48 bytes: two block handles (the second is the
index's), padding, and a magic number. A handle is two varints: offset and size. Each block is followed by its type (0:
not compressed) and the masked CRC-32C of block and type. A block holds entries, the offsets of its restart points
(uint32) and their number (uint32). An entry is three varints (bytes shared with the previous key, bytes of its own,
bytes of the value), the key's own bytes and the value. The values of the index block are the handles of the blocks.
https://github.com/google/leveldb/blob/main/doc/table_format.md

Checksums show damage, not forgery. A reader that seeks a key trusts the restart points and the keys of the index; a
reader that goes from front to back ignores both. So a forged table could show them different entries. This reader
accepts only tables that both read alike: every restart point is an entry's, every block begins where the previous one
ends and holds the keys that the index gives, and the table equals, byte for byte, what TensorFlow's writer makes of
these entries.
"""

import itertools
import struct
from collections.abc import Mapping

from components.formats import crc32c

_FOOTER_SIZE = 48
_MAGIC = struct.pack("<Q", 0xDB4775248B80FB57)
_TRAILER = struct.Struct("<BI")
_RESTARTS = struct.Struct("<I")
_NOT_COMPRESSED = 0
# Keys with shared prefixes can expand to many times the size of the table.
_MAX_KEY_BYTES = 2**22

# The constants of TensorFlow's writer: tensorflow/tsl's lib/io/table_options.h and table_builder.cc.
_BLOCK_SIZE = 262_144
_ENTRIES_PER_RESTART = 16

_Handle = tuple[int, int]


def read(table: bytes) -> dict[bytes, bytes]:
    """The entries of a table, in its order.

    Raises:
        ValueError: it is not such a table, it is damaged, or TensorFlow writes these entries differently; the text is
            one line that names the place.
    """
    if len(table) < _FOOTER_SIZE or not table.endswith(_MAGIC):
        raise ValueError("it does not end like a table; is it truncated?")
    handles = table[-_FOOTER_SIZE : -len(_MAGIC)]
    meta, position = _handle(handles, 0)
    index, position = _handle(handles, position)
    if any(handles[position:]):
        raise ValueError("bytes follow the handles in its footer")
    if _entries(_block(table, meta)):
        raise ValueError("its meta index has entries")
    entries: dict[bytes, bytes] = {}
    last, end = None, 0
    for limit, value in _entries(_block(table, index)):
        handle, position = _handle(value, 0)
        if position != len(value):
            raise ValueError("bytes follow the handle of a block in its index")
        if handle[0] != end:
            raise ValueError(f"a block begins at {handle[0]}, not at {end}, where the previous one ends")
        end = sum(handle) + _TRAILER.size
        for key, value in _entries(_block(table, handle)):
            if entries and key <= next(reversed(entries)):
                raise ValueError(f"key {key[:40]!r} is out of order")
            if key > limit or (last is not None and key <= last):
                raise ValueError(f"key {key[:40]!r} lies outside of the keys that the index gives for its block")
            entries[key] = value
        last = limit
    if write(entries) != table:
        raise ValueError("TensorFlow writes these entries differently")
    return entries


def write(entries: Mapping[bytes, bytes]) -> bytes:
    """The table that TensorFlow writes for `entries`, which are in the order of their keys."""
    table, block, index = bytearray(), _Block(_ENTRIES_PER_RESTART), _Block(1)
    # The handle of a finished block goes to the index once the next key is known.
    last = handle = b""
    for key, value in entries.items():
        if len(key) + len(value) >= 2 * _BLOCK_SIZE:
            handle = _flush(table, block) or handle
        if handle:
            index.add(_between(last, key), handle)
            handle = b""
        block.add(key, value)
        last = key
        if block.size >= _BLOCK_SIZE:
            handle = _flush(table, block)
    handle = _flush(table, block) or handle
    handles = _append(table, _Block(1))
    if handle:
        index.add(_after(last), handle)
    handles += _append(table, index)
    return bytes(table) + handles.ljust(_FOOTER_SIZE - len(_MAGIC), b"\0") + _MAGIC


def varint(data: bytes, position: int) -> tuple[int, int]:
    """The number at `position`, seven bits per byte, least significant first, and the position after it.

    Raises:
        ValueError: the number is cut short, longer than necessary, or larger than 64 bits.
    """
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
        raise ValueError(f"the block at {offset} is compressed, unlike those of TensorFlow's checkpoints")
    return table[offset:end]


def _entries(block: bytes) -> list[tuple[bytes, bytes]]:
    restarts = _restarts(block)
    end = len(block) - _RESTARTS.size * (1 + len(restarts))
    entries, whole = [], {0}
    key, position, total = b"", 0, 0
    while position < end:
        start = position
        shared, position = varint(block, position)
        own, position = varint(block, position)
        size, position = varint(block, position)
        if shared > len(key) or position + own + size > end:
            raise ValueError("an entry lies outside of its block")
        if not shared:
            whole.add(start)
        key = key[:shared] + block[position : position + own]
        total += len(key)
        if total > _MAX_KEY_BYTES:
            raise ValueError(f"its keys have more than {_MAX_KEY_BYTES} bytes")
        position += own + size
        entries.append((key, block[position - size : position]))
    if not whole.issuperset(restarts):
        raise ValueError("a restart point is not at an entry with a whole key")
    return entries


def _restarts(block: bytes) -> list[int]:
    """The offsets of a block's restart points, at which a reader may begin."""
    if len(block) < _RESTARTS.size:
        raise ValueError("a block is too short")
    size = _RESTARTS.size * _RESTARTS.unpack(block[-_RESTARTS.size :])[0]
    if size > len(block) - _RESTARTS.size:
        raise ValueError("a block is shorter than its restart points")
    data = block[len(block) - _RESTARTS.size - size : -_RESTARTS.size]
    restarts = [offset for (offset,) in _RESTARTS.iter_unpack(data)]
    if restarts[:1] != [0] or any(after <= before for before, after in itertools.pairwise(restarts)):
        raise ValueError("the restart points of a block do not ascend from 0")
    return restarts


class _Block:
    """A block under construction, with a restart point at every `interval`-th entry."""

    _data: bytearray
    _restarts: list[int]
    _key: bytes
    _since: int

    def __init__(self, interval: int):
        self._interval = interval
        self._reset()

    @property
    def size(self) -> int:
        """Bytes of the block if it ended here, without its trailer."""
        return len(self._data) + _RESTARTS.size * (len(self._restarts) + 1)

    def add(self, key: bytes, value: bytes) -> None:
        """Append an entry."""
        shared = _common(self._key, key) if self._since < self._interval else 0
        if self._since == self._interval:
            self._restarts.append(len(self._data))
            self._since = 0
        self._data += b"".join(map(_varint, (shared, len(key) - shared, len(value)))) + key[shared:] + value
        self._key = key
        self._since += 1

    def finish(self) -> bytes:
        """The finished block. This object is empty afterwards."""
        block = bytes(self._data) + b"".join(map(_RESTARTS.pack, [*self._restarts, len(self._restarts)]))
        self._reset()
        return block

    def __bool__(self) -> bool:
        return bool(self._data)

    def _reset(self) -> None:
        self._data, self._restarts, self._key, self._since = bytearray(), [0], b"", 0


def _flush(table: bytearray, block: _Block) -> bytes:
    """Append the block to the table if it has entries. Returns its handle or b""."""
    return _append(table, block) if block else b""


def _append(table: bytearray, block: _Block) -> bytes:
    data = block.finish()
    handle = _varint(len(table)) + _varint(len(data))
    table += data + _TRAILER.pack(_NOT_COMPRESSED, crc32c.masked(data + bytes([_NOT_COMPRESSED])))
    return handle


def _between(low: bytes, high: bytes) -> bytes:
    """The index key of a block whose last key is `low`, if the next block's first key is `high`."""
    same = _common(low, high)
    if same < min(len(low), len(high)) and low[same] + 1 < high[same]:
        return low[:same] + bytes([low[same] + 1])
    return low


def _after(key: bytes) -> bytes:
    """The index key of the last block, whose last key is `key`."""
    for position, byte in enumerate(key):
        if byte < 0xFF:
            return key[:position] + bytes([byte + 1])
    return key


def _common(first: bytes, second: bytes) -> int:
    """The length of the common prefix."""
    size = min(len(first), len(second))
    return next((position for position in range(size) if first[position] != second[position]), size)


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number >= 0x80:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*encoded, number])
