"""components.formats.tfrecords against files that TensorFlow wrote."""

import errno
import gzip
import io
import struct

import pytest
import tensorflow as tf

from components.errors import BitsumError
from components.formats import crc32c, tfrecords

pytestmark = pytest.mark.fast

_RECORDS = [b"", b"sum", bytes(range(256)) * 300]


@pytest.fixture(params=["", "GZIP"])
def file(request, tmp_path):
    path = tmp_path / "data"
    with tf.io.TFRecordWriter(str(path), request.param) as writer:
        for record in _RECORDS:
            writer.write(record)
    return path


def test_records_are_read_whether_compressed_or_not(file):
    assert list(tfrecords.read(file)) == _RECORDS


def test_an_empty_file_has_no_records(tmp_path):
    (tmp_path / "none").touch()
    assert list(tfrecords.read(tmp_path / "none")) == []


@pytest.mark.parametrize(
    ("position", "words"),
    [
        (0, "record 0: the checksum of the length"),
        (9, "record 0: the checksum of the length"),
        (30, "record 1: the checksum of the data"),
    ],
)
def test_a_flipped_bit_is_found_and_its_record_named(file, position, words):
    plain = bytearray(_plain(file))
    plain[position] ^= 4
    file.write_bytes(plain)
    with pytest.raises(tfrecords.CorruptRecords, match=words) as failure:
        list(tfrecords.read(file))
    assert str(file) in str(failure.value)


@pytest.mark.parametrize(("kept", "record"), [(5, 0), (16 + 5, 1), (16 + 12 + 2, 1), (-1, 2)])
def test_a_file_that_was_cut_is_found(file, kept, record):
    file.write_bytes(_plain(file)[:kept])
    with pytest.raises(tfrecords.CorruptRecords, match=f"record {record}: the file ends within"):
        list(tfrecords.read(file))


def test_a_length_beyond_the_limit_is_not_allocated(tmp_path):
    length = struct.pack("<Q", 2**31 + 1)
    (tmp_path / "data").write_bytes(length + struct.pack("<I", crc32c.masked(length)))
    with pytest.raises(tfrecords.CorruptRecords, match="a record of 2147483649 bytes, the limit is 2147483648"):
        list(tfrecords.read(tmp_path / "data"))


def test_a_damaged_compression_is_found(file):
    file.write_bytes(gzip.compress(_plain(file))[:-20])
    with pytest.raises(tfrecords.CorruptRecords, match="damaged at record"):
        list(tfrecords.read(file))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(BitsumError, match=r"^cannot read .*absent: No such file or directory$"):
        list(tfrecords.read(tmp_path / "absent"))


def _plain(path):
    content = path.read_bytes()
    return gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content


def test_a_fault_of_the_system_is_no_damage():
    class Failing(io.RawIOBase):
        def readable(self) -> bool:
            return True

        def readinto(self, buffer) -> int:
            raise OSError(errno.EIO, "Input/output error")

    class Late(Failing):
        begun = False

        def readinto(self, buffer) -> int:
            if self.begun:
                return super().readinto(buffer)
            self.begun, buffer[:4] = True, b"abcd"
            return 4

    for file in (Failing(), Late()):
        with pytest.raises(OSError, match="Input/output error"):
            list(tfrecords.records(io.BufferedReader(file)))
