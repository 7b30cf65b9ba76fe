"""The training input: tf.data pipelines over the TFRecord files of a split.

Record format: `components.task.addition`. Batches hold numbers of mixed lengths; shorter numbers are padded with zeros
and masked.
"""

import contextlib
import gzip
import zlib
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import tensorflow as tf

from components.errors import BitsumError
from components.task.addition import FEATURE_A, FEATURE_B, FEATURE_SUM

# Size of the shuffled blocks; a split up to this size is shuffled as a whole.
SHUFFLE_RECORDS = 100_000


class Batch(NamedTuple):
    """B examples, T bits in the longest; one more step, with (0, 0), outputs the final carry.

    a, b, sum: int64 [B, T + 1]; mask: float32 [B, T + 1], 1 for the steps of an example and 0 for its padding.
    """

    a: tf.Tensor
    b: tf.Tensor
    sum: tf.Tensor
    mask: tf.Tensor


def batches(patterns: Iterable[str], batch_size: int, seed: int) -> tf.data.Dataset:
    """An endless dataset of shuffled `Batch`es of `batch_size` examples, the same for the same files and seed.

    Raises:
        BitsumError: no file matches `patterns`, or a file is damaged.
    """

    def shuffled(index: tf.Tensor, block: tf.Tensor) -> tf.Tensor:
        return tf.random.experimental.stateless_shuffle(block, [seed, index], alg="philox")

    # Dataset.shuffle would mix TensorFlow's global seed into ours.
    blocks = _records(patterns).batch(SHUFFLE_RECORDS).repeat().enumerate()
    return blocks.map(shuffled).unbatch().batch(batch_size).map(to_batch).prefetch(2)


def first_batch(patterns: Iterable[str], examples: int) -> Batch:
    """The first `examples` examples, or all if there are fewer, in the order of the files.

    Raises:
        BitsumError: no file matches `patterns`, a file is damaged, or the files hold no example.
    """
    patterns = list(patterns)
    with one_line_errors(patterns):
        return next(iter(_records(patterns).batch(examples).take(1).map(to_batch)))


def to_batch(serialized: tf.Tensor) -> Batch:
    """The `Batch` of serialized tf.Examples, string [B].

    Raises:
        tf.errors.InvalidArgumentError: an Example is damaged, or its bitstrings have the wrong lengths.
    """
    bits = parse(serialized, (FEATURE_A, FEATURE_B, FEATURE_SUM))
    a, b, total = (bits[name] for name in (FEATURE_A, FEATURE_B, FEATURE_SUM))
    lengths = total.row_lengths()
    fits = tf.reduce_all((a.row_lengths() + 1 == lengths) & (b.row_lengths() + 1 == lengths))
    check = tf.debugging.Assert(fits, ["an example's sum is not one bit longer than both of its operands"])
    with tf.control_dependencies([check]):
        a, b = (tf.pad(operand.to_tensor(), [[0, 0], [0, 1]]) for operand in (a, b))
    return Batch(a, b, total.to_tensor(), tf.sequence_mask(lengths, dtype=tf.float32))


def parse(serialized: tf.Tensor, names: Iterable[str]) -> dict[str, tf.RaggedTensor]:
    """The bitstrings `names` of serialized tf.Examples, string [B]: int64 ragged [B, T of the example]."""
    return tf.io.parse_example(
        serialized, {name: tf.io.RaggedFeature(tf.int64, row_splits_dtype=tf.int64) for name in names}
    )


@contextlib.contextmanager
def one_line_errors(patterns: Iterable[str]) -> Iterator[None]:
    """Turn errors from reading a dataset of `patterns` into a BitsumError of one line."""
    place = ", ".join(patterns)
    try:
        yield
    except (StopIteration, tf.errors.OutOfRangeError) as error:
        raise BitsumError(f"no examples in {place}: generate the data again") from error
    except tf.errors.OpError as error:
        # The braces enclose names of TensorFlow's nodes, which tell a user nothing.
        reason = error.message.partition("\n")[0].rpartition("}} ")[2].partition(" [Op:")[0]
        raise BitsumError(f"cannot read the examples in {place}: {reason}; generate the data again") from error


def _records(patterns: Iterable[str]) -> tf.data.Dataset:
    patterns = list(patterns)
    # Beam may leave empty folders beside the files of a split.
    files = sorted(path for path in tf.io.gfile.glob(patterns) if not tf.io.gfile.isdir(path))
    if not files:
        raise BitsumError(f"no files match {', '.join(patterns)}: generate the data again")
    for path in files:
        _check_whole(path)
    return tf.data.TFRecordDataset(files, compression_type="GZIP")


def _check_whole(path: str) -> None:
    """Read a gzip file up to its checksum: TensorFlow accepts a file that was cut between two records."""
    try:
        with tf.io.gfile.GFile(path, "rb") as raw, gzip.GzipFile(fileobj=raw) as file:
            while file.read(1 << 20):
                pass
    except (OSError, EOFError, zlib.error) as error:
        raise BitsumError(f"cannot read the examples in {path}: {error}; generate the data again") from error
