"""Files of serving.server.request_log: readable with TensorFlow's own reader, and valid as warmup files."""

import random
import shutil
import threading

import pytest
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

from components import signatures
from serving.runtime import warmup
from serving.runtime.loaded_model import LoadedModel
from serving.runtime.predict import predict
from serving.server import grpc_server
from serving.server.request_log import Limits, RequestLog
from serving.status import Code, StatusError

# Four more than a warmup file may have.
_COUNT = 1004


def _request(numbers: random.Random) -> predict_pb2.PredictRequest:
    request = predict_pb2.PredictRequest()
    # A replay uses another model name and version.
    request.model_spec.name = "logged"
    request.model_spec.version_label = "stable"
    request.model_spec.signature_name = signatures.ADD_BITS
    for name in (signatures.A, signatures.B):
        request.inputs[name].CopyFrom(tf.make_tensor_proto([[numbers.randrange(2) for _ in range(8)]], tf.int64))
    return request


@pytest.fixture(scope="module")
def served(models, tmp_path_factory):
    """(model, requests, responses, the two files of their log)."""
    model = LoadedModel(models / "right")
    numbers = random.Random(5)
    requests = [_request(numbers) for _ in range(_COUNT)]
    responses = [predict(model, request, None) for request in requests]
    folder = tmp_path_factory.mktemp("log")
    log = RequestLog(folder, 1.0, limits=Limits(waiting_records=_COUNT))
    for request, response in zip(requests, responses, strict=True):
        log.offer(request.SerializeToString(), response.SerializeToString())
    log.close()
    yield model, requests, responses, sorted((folder / "logged").iterdir())
    model.close()


def test_tensorflow_reads_every_record_back(served):
    _, requests, responses, files = served
    records = tf.data.TFRecordDataset([str(file) for file in files]).as_numpy_iterator()
    logs = [prediction_log_pb2.PredictionLog.FromString(record).predict_log for record in records]
    assert [log.request for log in logs] == requests
    assert [log.response for log in logs] == responses


def test_each_file_is_a_valid_warmup_file(served, models, tmp_path):
    model, _, _, files = served
    replayed = []
    for number, file in enumerate(files, start=1):
        version = tmp_path / str(number)
        shutil.copytree(models / "right", version)
        (version / "assets.extra").mkdir()
        shutil.copy(file, version / "assets.extra" / "tf_serving_warmup_requests")
        replayed.append(warmup.replay(model, version))
    assert replayed == [1000, 4]


def test_two_files_together_exceed_the_limit_of_a_warmup_file(served, tmp_path):
    model, _, _, files = served
    (tmp_path / "assets.extra").mkdir()
    together = b"".join(file.read_bytes() for file in files)
    (tmp_path / "assets.extra" / "tf_serving_warmup_requests").write_bytes(together)
    with pytest.raises(StatusError, match=r"Number of warmup records exceeds the maximum \(1000\)"):
        warmup.replay(model, tmp_path)


def test_a_server_that_stops_does_not_run_the_rest_of_the_warmup_requests(served, models, tmp_path, monkeypatch):
    _, _, _, files = served
    version = tmp_path / "1"
    shutil.copytree(models / "right", version)
    (version / "assets.extra").mkdir()
    shutil.copy(files[0], version / "assets.extra" / "tf_serving_warmup_requests")
    stop, runs, run = threading.Event(), [], warmup._run

    def run_and_stop(*arguments):
        run(*arguments)
        runs.append(arguments)
        if len(runs) == 3:
            stop.set()

    monkeypatch.setattr(warmup, "_run", run_and_stop)
    with pytest.raises(StatusError, match="the server stops") as refusal:
        grpc_server.load(version, stop=stop)
    assert refusal.value.code == Code.CANCELLED
    assert len(runs) == 3
