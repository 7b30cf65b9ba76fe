"""A message from outside is parsed to its last byte or refused, wherever bitsum parses one."""

import warnings

import pytest
from google.protobuf import descriptor_pb2, wrappers_pb2
from google.protobuf.message import DecodeError

from components.errors import BitsumError
from components.formats import strict_protos, tfrecords

pytestmark = pytest.mark.fast

KIND = descriptor_pb2.FileDescriptorProto
FIRST, LAST = KIND(name="first").SerializeToString(), KIND(package="last").SerializeToString()
TERMINATORS = [b"\0", b"\x80\0", b"\x0c", b"\xfc\xff\xff\xff\x0f"]


@pytest.mark.parametrize("terminator", TERMINATORS)
@pytest.mark.parametrize("after", [b"", b"\0", LAST])
@pytest.mark.parametrize("before", [b"", FIRST])
@pytest.mark.parametrize("loudness", ["error", "ignore"])
def test_a_message_that_ends_before_its_bytes_is_refused(before, terminator, after, loudness):
    with warnings.catch_warnings(), pytest.raises(DecodeError):
        warnings.simplefilter(loudness)
        strict_protos.parse(KIND, before + terminator + after)


@pytest.mark.parametrize("terminator", TERMINATORS)
def test_the_same_bytes_within_a_value_are_a_value(terminator):
    for data in (wrappers_pb2.BytesValue(value=terminator), wrappers_pb2.BytesValue(value=b"\0" * 9 + terminator)):
        assert strict_protos.parse(type(data), data.SerializeToString()) == data


def test_unknown_fields_and_whole_groups_stay():
    group = b"\x7b\x08\x01\x7c"
    for unknown in (group, b"\x78\x00", b"\x7a\x02\x0c\x00", b"\xf8\x01\x00"):
        assert strict_protos.parse(KIND, FIRST + unknown).SerializeToString() == FIRST + unknown
        with pytest.raises(DecodeError):
            strict_protos.parse(KIND, FIRST + unknown + b"\x7c")


@pytest.mark.parametrize("inner", [b"\0", b"\x0c"])
def test_a_message_within_a_message_is_refused_too(inner):
    dependency = b"\x22" + bytes([len(inner)]) + inner
    with pytest.raises(DecodeError):
        strict_protos.parse(KIND, dependency + FIRST)


def test_a_file_with_another_content_is_named(tmp_path):
    file, records = tmp_path / "message.pb", tmp_path / "records"
    file.write_bytes(FIRST + b"\0" + LAST)
    records.write_bytes(tfrecords.framed(FIRST) + tfrecords.framed(FIRST + b"\x0c"))
    with pytest.raises(BitsumError, match=f"{file} is not a FileDescriptorProto, or is damaged"):
        strict_protos.read(KIND, file)
    with pytest.raises(BitsumError, match=f"cannot read {tmp_path}: Is a directory"):
        strict_protos.read(KIND, tmp_path)
    messages = tfrecords.messages(KIND, records)
    assert next(messages).name == "first"
    with pytest.raises(tfrecords.CorruptRecords, match=f"{records}, record 1, is not a FileDescriptorProto"):
        next(messages)
    records.write_bytes(tfrecords.framed(FIRST))
    assert [message.name for message in tfrecords.messages(KIND, records)] == ["first"]
