"""Sums as tf.Examples, and the TFRecord files that hold them, whole and damaged."""

import gzip

import numpy as np
import pytest
import tensorflow as tf

from components.data.tf_examples import (
    CorruptFile,
    pair_key,
    parse,
    read_records,
    serialize,
    serialize_batch,
    write_records,
)
from components.errors import BitsumError

pytestmark = pytest.mark.fast

RECORDS = [serialize({"a": [1, 0], "b": [1, index % 2], "sum": [0, 1, 0], "length": [2]}) for index in range(600)]


@pytest.fixture
def file(tmp_path) -> str:
    path = str(tmp_path / "records.gz")
    assert write_records(path, RECORDS) == 600
    return path


def content(path: str) -> bytes:
    with open(path, "rb") as stream:
        return stream.read()


def damaged(path: str, data: bytes) -> tuple[int, str]:
    """The number of readable records in `data`, and the error about the rest."""
    with open(path, "wb") as stream:
        stream.write(data)
    count = 0
    with pytest.raises(CorruptFile) as caught:
        for record in read_records(path):
            assert record == RECORDS[count]
            count += 1
    assert "\n" not in str(caught.value)
    return count, str(caught.value)


@pytest.mark.parametrize("width", [1, 2, 42, 43, 127, 128, 4096])
def test_a_batch_is_serialized_as_the_library_does_it(width):
    generator = np.random.default_rng(width)
    a, b, total = (generator.integers(0, 2, (5, bits), dtype=np.uint8) for bits in (width, width, width + 1))
    expected = [serialize({"a": x, "b": y, "sum": z, "length": [width]}) for x, y, z in zip(a, b, total, strict=True)]
    assert serialize_batch(a, b, total) == expected


def test_features_survive_serialization():
    features = {"a": [1, 0], "b": [1, 1], "sum": [0, 0, 1], "length": [2]}
    assert parse(serialize(features)) == features
    assert parse(serialize({"a": []})) == {"a": []}


def test_a_full_disk_is_an_error():
    with pytest.raises(tf.errors.OpError):
        write_records("/dev/full", RECORDS)


# A tag that ends a message: TensorFlow's own parser reads on after the zero and would train on what follows.
ENDED = [RECORDS[0] + end + RECORDS[1] for end in (b"\0", b"\0\0", b"\x0c")]


@pytest.mark.parametrize("record", [b"no example", b"\xff" * 20, serialize({"a": [1] * 50})[:-3], *ENDED])
def test_bytes_that_are_not_an_example_are_refused(record):
    with pytest.raises(ValueError, match=f"not a tf.Example \\({len(record)} bytes\\)"):
        parse(record)


def test_records_are_read_back_and_equal_records_give_equal_files(file, tmp_path):
    assert list(read_records(file)) == RECORDS
    again = str(tmp_path / "again.gz")
    write_records(again, iter(RECORDS))
    assert content(again) == content(file)
    # The time stamp of a gzip file.
    assert content(file)[4:8] == b"\0\0\0\0"


def test_a_file_may_be_plain_or_hold_nothing(file, tmp_path):
    plain = str(tmp_path / "plain")
    with open(plain, "wb") as stream:
        stream.write(gzip.decompress(content(file)))
    assert list(read_records(plain)) == RECORDS
    empty = str(tmp_path / "empty.gz")
    assert write_records(empty, []) == 0
    assert list(read_records(empty)) == []


@pytest.mark.parametrize("length", [0, 1, 2, 9, 10, 20, -9, -8, -4, -1])
def test_a_file_that_is_cut_short_anywhere_is_corrupt(file, length):
    damaged(file, content(file)[:length])


def test_a_cut_in_the_middle_leaves_the_records_before_it(file):
    plain = gzip.decompress(content(file))
    frame = len(plain) // 600
    for cut, count, words in (
        (300 * frame + 40, 300, "truncated"),
        (300 * frame + 5, 300, "5 bytes after the last whole record"),
    ):
        assert damaged(file, gzip.compress(plain[:cut]))[0] == count
        assert words in damaged(file, gzip.compress(plain[:cut]))[1]


@pytest.mark.slow
def test_every_flipped_bit_of_the_compressed_records_is_noticed(file):
    data = content(file)
    for position in [*range(10, 40), *range(40, len(data), 97), *range(len(data) - 8, len(data))]:
        flipped = bytearray(data)
        flipped[position] ^= 0x10
        damaged(file, bytes(flipped))


def test_a_flipped_bit_of_a_record_is_named_by_its_place(file):
    plain = bytearray(gzip.decompress(content(file)))
    frame = len(plain) // 600
    plain[400 * frame + 20] ^= 1
    count, what = damaged(file, gzip.compress(bytes(plain)))
    assert count == 400
    assert what == f"corrupted record at {400 * frame + 12}"


@pytest.mark.parametrize("garbage", [b"\x1f\x8b\xff", b"hello, world"])
def test_garbage_is_a_corrupt_file(file, garbage):
    assert damaged(file, garbage)[0] == 0


def test_garbage_after_the_records_is_noticed(file):
    damaged(file, content(file) + b"hello")


@pytest.mark.parametrize(
    "failure",
    [
        tf.errors.ResourceExhaustedError,
        tf.errors.UnknownError,
        tf.errors.PermissionDeniedError,
        tf.errors.NotFoundError,
        tf.errors.UnavailableError,
        tf.errors.FailedPreconditionError,
    ],
)
def test_a_file_that_cannot_be_read_now_is_not_called_damaged(tmp_path, monkeypatch, failure):
    path = tmp_path / "a.tfrecord.gz"
    write_records(str(path), [b"one", b"two"])

    def fails(self):
        raise failure(None, None, "the disk is away")

    monkeypatch.setattr(tf.data.Dataset, "as_numpy_iterator", fails)
    with pytest.raises(BitsumError, match=r"cannot read .*a.tfrecord.gz: the disk is away"):
        list(read_records(str(path)))


def test_real_failures_of_the_machine_are_not_called_damage(tmp_path):
    with pytest.raises(BitsumError, match="No such file"):
        list(read_records(str(tmp_path / "gone.tfrecord.gz")))
    (tmp_path / "folder.gz").mkdir()
    with pytest.raises(BitsumError, match="directory"):
        list(read_records(str(tmp_path / "folder.gz")))


def test_the_same_values_have_the_same_key_and_no_others():
    keys = {(a, b): pair_key([a & 1, a >> 1], [b & 1, b >> 1]) for a in range(4) for b in range(4)}
    assert len(set(keys.values())) == 16
    assert pair_key([1, 0, 0, 0], [0, 1, 0]) == keys[1, 2]
