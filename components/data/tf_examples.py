"""Pairs and their sums as tf.Examples: serialize and parse them, write and read TFRecord files.

A record holds int64 lists `a` (T bits), `b` (T), `sum` (T + 1) and `length` (1 value, T); components.task.addition
names them and says what `sum` holds for tasks other than addition.
"""

import functools
import hashlib
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import tensorflow as tf

from components.errors import BitsumError
from components.formats import strict_protos
from components.task import record_checks
from components.task.addition import FEATURE_A, FEATURE_B, FEATURE_LENGTH, FEATURE_SUM
from components.task.record_checks import Problem
from components.task.transducer import Transducer

_GZIP_MAGIC = b"\x1f\x8b"
_GZIP_STREAM = 31  # zlib's number for a gzip header with the largest window
_FRAME = 16  # bytes of a TFRecord besides its data: length 8, two checksums of 4
_CHUNK = 1 << 20  # bytes read at a time
_READ_AHEAD = 256  # records read at a time


class CorruptFile(Exception):
    """A TFRecord file is damaged; `str(error)` describes the damage."""


def serialize(features: Mapping[str, Sequence[int]]) -> bytes:
    """The serialized tf.Example of int64 features; equal features give equal bytes."""
    example = tf.train.Example()
    for name, values in features.items():
        example.features.feature[name].int64_list.value.extend(values)
    return example.SerializeToString(deterministic=True)


def serialize_batch(a: np.ndarray, b: np.ndarray, total: np.ndarray) -> list[bytes]:
    """The serialized tf.Examples of n sums of one width, uint8 [n, T], [n, T] and [n, T + 1].

    Each bit is one byte at a fixed offset of the message, so the bits are written into copies of a template: about 40
    times faster than one message at a time.
    """
    template, places = _template(a.shape[1])
    rows = np.tile(template, (len(a), 1))
    rows[:, places] = np.concatenate([a, b, total], axis=1)
    return [row.tobytes() for row in rows]


def parse(record: bytes) -> dict[str, list]:
    """The features of a serialized tf.Example, each as a list of ints, floats or bytes; empty if its kind is not set.

    Raises:
        ValueError: `record` is not a tf.Example.
    """
    try:
        example = strict_protos.parse(tf.train.Example, record)
    except Exception as error:  # The pure Python implementation raises more than DecodeError.
        raise ValueError(f"not a tf.Example ({len(record)} bytes)") from error
    features = {}
    for name, feature in example.features.feature.items():
        kind = feature.WhichOneof("kind")
        features[name] = list(getattr(feature, kind).value) if kind else []
    return features


def problem_of_record(record: bytes, task: Transducer) -> tuple[Problem | None, dict[str, list]]:
    """The problem of a serialized tf.Example, None if it is right, and its features."""
    try:
        features = parse(record)
    except ValueError as error:
        return Problem(record_checks.NOT_PARSABLE, str(error)), {}
    return record_checks.problem_of(features, task), features


def write_records(path: str, records: Iterable[bytes]) -> int:
    """Write a gzip TFRecord file (time stamp 0, so equal records give equal files); returns the number of records."""
    count = 0
    with tf.io.TFRecordWriter(path, options="GZIP") as writer:
        for record in records:
            writer.write(record)
            count += 1
    return count


def read_records(path: str) -> Iterator[bytes]:
    """The records of a TFRecord file in order; gzip if its name ends with .gz or it has gzip's magic number.

    Raises:
        CorruptFile: after the last readable record, if the file is damaged or truncated.
        BitsumError: it cannot be read now, which says nothing about its content.
    """
    try:
        yield from _whole_records(path)
    except tf.errors.OpError as error:
        raise BitsumError(f"cannot read {path}: {_cause(error)}") from error


def _whole_records(path: str) -> Iterator[bytes]:
    compression = _compression(path)
    records = tf.data.TFRecordDataset(path, compression_type=compression)
    count = size = 0
    try:
        for batch in records.batch(_READ_AHEAD).as_numpy_iterator():
            yield from batch
            count += len(batch)
            size += sum(map(len, batch))
    except tf.errors.DataLossError:
        # The failed batch may begin with good records: read them one by one.
        try:
            yield from records.skip(count).as_numpy_iterator()
        except tf.errors.DataLossError as error:
            raise CorruptFile(_cause(error)) from error
    # To the reader, a file truncated between two records or within a header ends normally.
    surplus = _uncompressed_size(path, compression) - size - count * _FRAME
    if surplus:
        raise CorruptFile(f"{surplus} bytes after the last whole record")


def _compression(path: str) -> str:
    with tf.io.gfile.GFile(path, "rb") as file:
        return "GZIP" if path.endswith(".gz") or file.read(2) == _GZIP_MAGIC else ""


def _cause(error: tf.errors.OpError) -> str:
    """The fault itself, without the operation that raised it."""
    return error.message.split(" [Op:")[0].split("}} ")[-1].split("' failed")[0]


def _uncompressed_size(path: str, compression: str) -> int:
    if not compression:
        return tf.io.gfile.stat(path).length
    size = 0
    inflater = zlib.decompressobj(wbits=_GZIP_STREAM)
    with tf.io.gfile.GFile(path, "rb") as file:
        try:
            while data := file.read(_CHUNK):
                while data:
                    if inflater.eof:
                        inflater = zlib.decompressobj(wbits=_GZIP_STREAM)
                    size += len(inflater.decompress(data))
                    data = inflater.unused_data
        except zlib.error as error:
            raise CorruptFile(f"gzip: {error}") from error
    if not inflater.eof:
        raise CorruptFile("the gzip stream ends too early")
    return size


def pair_key(a: Sequence[int], b: Sequence[int]) -> bytes:
    """A digest of a pair of bitstrings; leading zeros do not change it."""
    return hashlib.sha256(bytes(a).rstrip(b"\0") + b"+" + bytes(b).rstrip(b"\0")).digest()


@functools.lru_cache(maxsize=64)
def _template(width: int) -> tuple[np.ndarray, np.ndarray]:
    """A message of `width` bits, and the offsets of the bits of a, b and the sum, found where zeros and ones differ."""
    zeros, ones = (
        np.frombuffer(
            serialize(
                {
                    FEATURE_A: [bit] * width,
                    FEATURE_B: [bit] * width,
                    FEATURE_SUM: [bit] * (width + 1),
                    FEATURE_LENGTH: [width],
                }
            ),
            dtype=np.uint8,
        )
        for bit in (0, 1)
    )
    return zeros, np.flatnonzero(zeros != ones)
