"""The pairs of numbers in a request log: TFRecords of PredictionLog.

The embedded server writes such files with --request_log_dir, into one folder per model.
"""

import contextlib
import pathlib
from collections.abc import Iterator

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError

from components import signatures
from components.data.tf_examples import parse
from components.formats import request_logs, tfrecords
from components.progress import warn
from components.task.addition import FEATURE_A, FEATURE_B

Bits = tuple[list[int], list[int]]


def pairs(folder: pathlib.Path, max_pairs: int, max_bits: int) -> Iterator[Bits]:
    """The bits of the logged pairs, newest file first: at most `max_pairs` pairs and the first `max_bits` bits of each.

    Requests that do not fit the model are skipped. So is what follows the damage in a damaged file, with a warning.

    Raises:
        BitsumError: the system cannot read a folder or file.
    """
    count = 0
    for path in reversed(request_logs.files(folder)):
        for a, b in _pairs_of_file(path):
            if count >= max_pairs:
                return
            count += 1
            yield a[:max_bits], b[:max_bits]


def _pairs_of_file(path: pathlib.Path) -> Iterator[Bits]:
    try:
        for request in request_logs.requests(path):
            with contextlib.suppress(DecodeError, ValueError, TypeError):
                yield from pairs_of_request({name: tf.make_ndarray(value) for name, value in request.inputs.items()})
    except tfrecords.CorruptRecords as damage:
        warn(f"{damage}; the requests from there on are left out")


def pairs_of_request(inputs: dict[str, np.ndarray]) -> list[Bits]:
    """The pairs in a request's inputs, for any signature of the model; none for inputs of another kind."""
    if signatures.EXAMPLES in inputs:
        features = [parse(example) for example in inputs[signatures.EXAMPLES].ravel()]
        return [(feature.get(FEATURE_A, []), feature.get(FEATURE_B, [])) for feature in features]
    if signatures.A not in inputs or signatures.B not in inputs:
        return []
    # A request that the model refused may have operands of different sizes.
    return list(zip(_rows(inputs[signatures.A]), _rows(inputs[signatures.B]), strict=False))


def _rows(values: np.ndarray) -> list[list[int]]:
    if values.dtype.kind in "OS":
        return [
            np.unpackbits(np.frombuffer(text, np.uint8), bitorder="little").tolist() for text in values.ravel().tolist()
        ]
    return values.astype(np.int64).tolist() if values.ndim == 2 else []
