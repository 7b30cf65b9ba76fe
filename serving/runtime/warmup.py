"""Replays a model's warmup requests, so that no client waits for a first run.

As in TensorFlow Serving, a failed record fails the load, and the model name and version in a record are ignored.
Records of Classify, Regress and MultiInference are skipped, because the embedded server does not offer these methods.
https://www.tensorflow.org/tfx/serving/saved_model_warmup
"""

import pathlib
import threading

from google.protobuf.message import DecodeError
from tensorflow.python.framework import errors_impl as errors
from tensorflow.python.lib.io import tf_record
from tensorflow_serving.apis import prediction_log_pb2

from components.formats import strict_protos
from components.savedmodel import model_files
from serving.runtime.model import Model
from serving.runtime.predict import predict
from serving.status import Code, StatusError

_NOT_OFFERED = ("classify_log", "regress_log", "multi_inference_log")


def replay(model: Model, path: pathlib.Path, iterations: int = 1, stop: threading.Event | None = None) -> int:
    """Run the warmup requests of the version in `path` on `model`, each `iterations` times; returns their number.

    Raises:
        StatusError: a record cannot be read or run, there are too many records, or `stop` is set meanwhile.
    """
    file = path / model_files.WARMUP_REQUESTS
    if not file.is_file():
        return 0
    count = 0
    try:
        for record in tf_record.tf_record_iterator(str(file)):
            count += 1
            if count > model_files.MAX_WARMUP_REQUESTS:
                most = f"the maximum ({model_files.MAX_WARMUP_REQUESTS})"
                raise StatusError(Code.INVALID_ARGUMENT, f"Number of warmup records exceeds {most} at {file}")
            log = _parsed(record, file)
            for _ in range(iterations):
                if stop and stop.is_set():
                    raise StatusError(Code.CANCELLED, "the server stops before its warmup requests are done")
                _run(model, log)
    except errors.OpError as error:
        raise StatusError(
            error.error_code, f"{error.message}. Please verify your warmup data is in TFRecord format."
        ) from error
    return count


def _parsed(record: bytes, file: pathlib.Path) -> prediction_log_pb2.PredictionLog:
    try:
        return strict_protos.parse(prediction_log_pb2.PredictionLog, record)
    except DecodeError as error:
        # TensorFlow Serving quotes the bytes unescaped, after which clients cannot parse the status of that version.
        shown = record.decode(errors="backslashreplace")
        raise StatusError(Code.INVALID_ARGUMENT, f"Failed to parse warmup record: {shown} from {file}") from error


def _run(model: Model, log: prediction_log_pb2.PredictionLog) -> None:
    kind = log.WhichOneof("log_type")
    if kind == "predict_log":
        predict(model, log.predict_log.request, None)
    elif kind and kind not in _NOT_OFFERED:
        number = log.DESCRIPTOR.fields_by_name[kind].number
        raise StatusError(Code.UNIMPLEMENTED, f"Unsupported log_type for warmup: {number}")
