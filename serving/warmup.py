"""Replays the warmup requests that lie with a model, so that no user waits for a first run.

As in TensorFlow Serving a record that fails makes the load fail; the model's name and version in a record do not matter, and
records of other kinds than Predict are passed over.
https://www.tensorflow.org/tfx/serving/saved_model_warmup
"""

import pathlib

import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow_serving.apis import prediction_log_pb2

from serving.loaded_model import LoadedModel
from serving.predict import predict
from serving.status import Code, StatusError

FILE = pathlib.PurePosixPath("assets.extra/tf_serving_warmup_requests")
MAX_RECORDS = 1000


def replay(model: LoadedModel, path: pathlib.Path) -> int:
    """Run the warmup requests of the version in `path` on `model`; returns how many there were.

    Raises:
        StatusError: a record that cannot be read or run, or too many of them.
    """
    file = path / FILE
    if not file.is_file():
        return 0
    count = 0
    try:
        for record in tf.compat.v1.io.tf_record_iterator(str(file)):
            count += 1
            if count > MAX_RECORDS:
                raise StatusError(
                    Code.INVALID_ARGUMENT, f"Number of warmup records exceeds the maximum ({MAX_RECORDS}) at {file}"
                )
            log = prediction_log_pb2.PredictionLog.FromString(record)
            if log.HasField("predict_log"):
                predict(model, log.predict_log.request, None)
    except tf.errors.OpError as error:
        raise StatusError(error.error_code, f"{error.message}. Please verify your warmup data is in TFRecord format.") from error
    except DecodeError as error:
        raise StatusError(Code.INVALID_ARGUMENT, f"Failed to parse warmup record {count} of {file}: {error}") from error
    return count
