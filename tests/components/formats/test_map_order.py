"""A message has the same bytes under every version of protobuf."""

import pytest
from google.protobuf import struct_pb2
from tensorflow.core.framework import function_pb2, graph_debug_info_pb2

from components.formats import map_order

pytestmark = pytest.mark.fast

# Struct: map<string, Value> fields = 1; Value: bool bool_value = 4, Struct struct_value = 5.
_TRUE = b"\x12\x02\x20\x01"


def test_entries_are_in_the_order_of_their_keys_at_every_depth():
    names = ["b", "", "ab", "a"]
    message = struct_pb2.Struct()
    message["z"] = dict.fromkeys(names, True)
    message["y"] = True
    entries = [(name, b"\x0a" + bytes([len(name)]) + name.encode() + _TRUE) for name in sorted(names)]
    inner = b"".join(b"\x0a" + bytes([len(entry)]) + entry for _, entry in entries)
    value = b"\x2a" + bytes([len(inner)]) + inner
    outer = b"\x0a\x01z\x12" + bytes([len(value)]) + value
    assert map_order.serialized(message) == b"\x0a\x07\x0a\x01y" + _TRUE + b"\x0a" + bytes([len(outer)]) + outer
    assert struct_pb2.Struct.FromString(map_order.serialized(message)) == message


def test_numbers_are_in_their_order():
    message = function_pb2.FunctionDef()
    numbers = [300, 2, 10, 0]
    for number in numbers:
        message.resource_arg_unique_id[number] = 7
    read = map_order.serialized(message)
    entries = [read[at + 2 : at + 2 + read[at + 1]] for at in range(len(read)) if read[at] == 0x42]
    assert entries == [b"\x08\x00\x10\x07", b"\x08\x02\x10\x07", b"\x08\x0a\x10\x07", b"\x08\xac\x02\x10\x07"]


def test_numbers_of_a_fixed_width_are_in_their_order():
    message = graph_debug_info_pb2.GraphDebugInfo()
    for number in (512, 1, 1 << 63, 256):
        message.frames_by_id[number].line = 3
    read = map_order.serialized(message)
    keys = [int.from_bytes(read[at + 3 : at + 11], "little") for at in range(0, len(read), 15)]
    assert keys == [1, 256, 512, 1 << 63]
    assert graph_debug_info_pb2.GraphDebugInfo.FromString(read) == message


def test_unknown_fields_stay_as_they_are():
    unknown = (
        b"\x78\x81\x01" + b"\x79" + bytes(8) + b"\x7d" + bytes(4) + b"\x7b\x08\x01\x0a\x02xy\x7c" + b"\x7a\x03\x0a\x09z"
    )
    message = struct_pb2.Struct.FromString(b"\x0a\x07\x0a\x01y" + _TRUE + unknown)
    assert map_order.serialized(message) == b"\x0a\x07\x0a\x01y" + _TRUE + unknown
