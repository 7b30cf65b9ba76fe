"""Serializes protocol buffer messages to the same bytes under every version of protobuf.

`deterministic=True` promises that only within one version: protobuf 3 writes the entries of a map in the order of their
keys, protobuf 6 in another order. Here they are always in the order of their keys.
https://protobuf.dev/programming-guides/serialization-not-canonical/
"""

import functools
from typing import Any

from google.protobuf.message import Message

# Wire types: https://protobuf.dev/programming-guides/encoding/#structure
_VARINT, _FIXED64, _LENGTH, _START_GROUP, _END_GROUP, _FIXED32 = range(6)
_FIXED_BYTES = {_FIXED64: 8, _FIXED32: 4}


def serialized(message: Message) -> bytes:
    """The bytes of `message`; map entries are in the order of their keys, as unsigned numbers or as
    bytes, at every depth. The content of an Any stays as it is."""
    return _sorted(message.DESCRIPTOR, message.SerializeToString(deterministic=True))


def _sorted(kind: Any, data: bytes) -> bytes:
    """The serialized message of the type `kind` with its maps in order."""
    fields: list[tuple[int, Any, bytes]] = []
    first: dict[int, int] = {}
    position = 0
    while position < len(data):
        tag, begin = _varint(data, position)
        end = _end(data, begin, tag & 7)
        part, place, key = data[position:end], len(fields), None
        nested, is_map = _nested(kind).get(tag >> 3, (None, False))
        if nested is not None and tag & 7 == _LENGTH:
            _, content = _varint(data, begin)
            # Another order of the entries leaves the sizes as they are.
            part = data[position:content] + _sorted(nested, data[content:end])
            if is_map:
                place, key = first.setdefault(tag >> 3, place), _key(data, content)
        fields.append((place, key, part))
        position = end
    return b"".join(part for _, _, part in sorted(fields, key=lambda field: field[:2]))


def _key(data: bytes, entry: int) -> int | bytes:
    """The key of the map entry at `entry`; its writer puts the key first."""
    tag, begin = _varint(data, entry)
    if tag & 7 == _VARINT:
        return _varint(data, begin)[0]
    if size := _FIXED_BYTES.get(tag & 7):
        return int.from_bytes(data[begin : begin + size], "little")
    size, text = _varint(data, begin)
    return data[text : text + size]


def _end(data: bytes, position: int, wire_type: int) -> int:
    """Where the field ends whose value begins at `position`."""
    if wire_type == _VARINT:
        return _varint(data, position)[1]
    if wire_type == _LENGTH:
        size, position = _varint(data, position)
        return position + size
    if wire_type == _START_GROUP:
        # Only unknown fields are groups.
        while True:
            tag, position = _varint(data, position)
            if tag & 7 == _END_GROUP:
                return position
            position = _end(data, position, tag & 7)
    return position + _FIXED_BYTES[wire_type]


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """The number at `position`, which may take more bytes than it needs, and the position after it."""
    value = shift = 0
    while data[position] >= 0x80:
        value |= (data[position] & 0x7F) << shift
        shift, position = shift + 7, position + 1
    return value | data[position] << shift, position + 1


@functools.cache
def _nested(kind: Any) -> dict[int, tuple[Any, bool]]:
    """{field number: (type of the message in it, whether it is a map)} of the message type `kind`."""
    return {
        field.number: (field.message_type, field.message_type.GetOptions().map_entry)
        for field in kind.fields
        if field.message_type is not None
    }
