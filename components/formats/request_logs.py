"""The files of a request log: FOLDER/MODEL/requests-TIME-PROCESS.tfrecords, TFRecords of PredictionLog.

TIME is in nanoseconds, so names sort by age, and several servers can write into one folder.
"""

import functools
import pathlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from components import atomic
from components.errors import BitsumError
from components.formats import protos, tfrecords

if TYPE_CHECKING:
    from tensorflow_serving.apis.predict_pb2 import PredictRequest

PATTERN = "requests-*.tfrecords"


def files(folder: pathlib.Path) -> list[pathlib.Path]:
    """The files of the log in `folder`, or of one of its models, by path; none if there is no such folder.

    Raises:
        BitsumError: a folder cannot be read.
    """
    try:
        return [path for path in atomic.tree(folder) if path.match(PATTERN)] if folder.exists() else []
    except OSError as error:
        raise BitsumError(f"cannot read the request log {error.filename or folder}: {error.strerror}") from error


@functools.cache
def prediction_log() -> Any:
    """The message class PredictionLog."""
    return protos.load(log="tensorflow_serving.apis.prediction_log_pb2").log.PredictionLog


def requests(path: pathlib.Path) -> "Iterator[PredictRequest]":
    """The Predict requests in the file `path`, oldest first.

    Raises:
        CorruptRecords: the file is damaged; the requests before the damage have been yielded.
        BitsumError: the system cannot read the file.
    """
    for log in tfrecords.messages(prediction_log(), path):
        if log.HasField("predict_log"):
            yield log.predict_log.request
