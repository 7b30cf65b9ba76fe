"""What the served model was asked: the pairs of numbers in a log of requests, TFRecords of PredictionLog.

The embedded server writes such files with --request_log_dir, into a folder for each model.
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
from components.task.addition import FEATURE_A, FEATURE_B

Bits = tuple[list[int], list[int]]


def pairs(folder: pathlib.Path, most: int, longest: int) -> Iterator[Bits]:
    """The bits of the pairs asked, newest file first, `most` pairs at most, of each the first `longest` bits.

    Requests that are none of the model's, and what a damaged file holds after the damage, are passed over.
    """
    count = 0
    for path in sorted(folder.rglob(request_logs.PATTERN), reverse=True):
        for a, b in _pairs_of_file(path):
            if count >= most:
                return
            count += 1
            yield a[:longest], b[:longest]


def _pairs_of_file(path: pathlib.Path) -> Iterator[Bits]:
    with contextlib.suppress(tfrecords.CorruptRecords):
        for request in request_logs.requests(path):
            with contextlib.suppress(DecodeError, ValueError, TypeError):
                yield from pairs_of_request({name: tf.make_ndarray(value) for name, value in request.inputs.items()})


def pairs_of_request(inputs: dict[str, np.ndarray]) -> list[Bits]:
    """The pairs of a request's inputs, whatever its signature; none where they are of another kind."""
    if signatures.EXAMPLES in inputs:
        features = [parse(example) for example in inputs[signatures.EXAMPLES].ravel()]
        return [(found.get(FEATURE_A, []), found.get(FEATURE_B, [])) for found in features]
    if signatures.A not in inputs or signatures.B not in inputs:
        return []
    sides = [_rows(inputs[name]) for name in (signatures.A, signatures.B)]
    return list(zip(*sides))


def _rows(values: np.ndarray) -> list[list[int]]:
    if values.dtype.kind in "OS":
        return [
            np.unpackbits(np.frombuffer(text, np.uint8), bitorder="little").tolist() for text in values.ravel().tolist()
        ]
    return values.astype(np.int64).tolist() if values.ndim == 2 else []
