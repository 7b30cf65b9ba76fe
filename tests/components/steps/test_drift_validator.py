"""Drift and skew: honest spans pass, a span unlike the previous one or unlike the requests does not."""

import errno
import os
import pathlib

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
import tensorflow_data_validation as tfdv
from tensorflow_data_validation.statistics import stats_impl
from tensorflow_metadata.proto.v0 import anomalies_pb2
from tensorflow_serving.apis import prediction_log_pb2
from tfx.types import standard_artifacts

from components.data import logged_requests, sampling
from components.data.tf_examples import serialize
from components.errors import BitsumError
from components.formats import request_logs
from components.settings import Data, Spans
from components.steps import drift_validator, request_statistics
from components.steps.data_gate import DRIFTED, tfdv_reasons
from components.steps.drift_validator import DriftValidator, compare
from components.task.addition import to_bits
from serving.server.request_log import RequestLog

LIMITS = Spans()


def statistics(pairs):
    """Of pairs [(a, b, length)], as TFX's StatisticsGen has them: with features that are not compared."""
    columns = {
        "a": [to_bits(a, length) for a, _, length in pairs],
        "b": [to_bits(b, length) for _, b, length in pairs],
        "length": [[length] for _, _, length in pairs],
        "sum": [[0, 1] for _ in pairs],
    }
    batch = pa.RecordBatch.from_arrays(
        [pa.array(column, pa.list_(pa.int64())) for column in columns.values()], list(columns)
    )
    return stats_impl.generate_statistics_in_memory(batch, tfdv.StatsOptions())


def generated(span):
    data = Data(span=span, train_examples=3000)
    bits = [
        (a, b)
        for batch in sampling.records(data, "train", 0, 3000)
        for a, b in zip(batch.a.tolist(), batch.b.tolist(), strict=True)
    ]
    return [(int("".join(map(str, a[::-1])), 2), int("".join(map(str, b[::-1])), 2), len(a)) for a, b in bits]


def anomalies(now, before=None, asked=None):
    return set(compare(now, before, asked, LIMITS.max_drift, LIMITS.max_skew).anomaly_info)


def asked_of(pairs):
    return request_statistics.of_pairs([(to_bits(a, length), to_bits(b, length)) for a, b, length in pairs])


@pytest.fixture(scope="module")
def one():
    return statistics(generated(1))


def test_honest_spans_do_not_drift(one):
    assert anomalies(one) == set()
    assert anomalies(statistics(generated(2)), one) == set()


@pytest.mark.parametrize(("count", "top"), [(30, 2**8), (100, 2**8), (3000, 2**8), (300, 2**31)])
def test_an_honest_span_of_another_size_does_not_drift(count, top):
    """Each span has another shortest number, so the histograms do not begin at the same length."""
    generator = np.random.default_rng(1)

    def span(size):
        pairs = generator.integers(0, top, (size, 2)).tolist()
        return statistics([(a, b, max(1, a.bit_length(), b.bit_length())) for a, b in pairs])

    before = span(3000)
    assert [anomalies(span(count), before) for _ in range(5)] == [set()] * 5


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        ([(a, b, 2) for a, b, length in generated(2) if length == 2] * 20, {"length"}),
        ([(0, b, length) for _, b, length in generated(2)], {"a"}),
        ([(a, 2**length - 1, length) for a, _, length in generated(2)], {"b"}),
    ],
)
def test_a_span_unlike_the_one_before_drifts_by_the_feature_that_changed(one, pairs, expected):
    assert anomalies(statistics(pairs), one) == expected


def test_skew_is_of_the_bits_and_not_of_the_lengths(one):
    generator = np.random.default_rng(1)
    long = [
        (int.from_bytes(generator.bytes(100), "little"), int.from_bytes(generator.bytes(100), "little"), 800)
        for _ in range(200)
    ]
    assert anomalies(one, asked=asked_of(long)) == set()
    assert anomalies(one, asked=asked_of([(0, b, length) for _, b, length in long])) == {"a"}


def test_the_component_writes_what_the_gate_reads(tmp_path, one):
    artifacts = {}
    pairs = {"previous": one, "requests": asked_of([(0, 0, 8)] * 200), "statistics": statistics(generated(2))}
    for name, found in pairs.items():
        artifacts[name] = standard_artifacts.ExampleStatistics()
        artifacts[name].uri = str(tmp_path / name)
        drift_validator.write_statistics(found, artifacts[name].uri, "train")
    reasons = {}
    for least in (100, 201):
        output = standard_artifacts.ExampleAnomalies()
        output.uri = str(tmp_path / f"anomalies-{least}")
        properties = {
            "max_drift": LIMITS.max_drift,
            "max_skew": LIMITS.max_skew,
            "least_requests": least,
            "code": "hash",
        }
        inputs = {name: [artifact] for name, artifact in artifacts.items()}
        DriftValidator.EXECUTOR_SPEC.executor_class().Do(inputs, {"anomalies": [output]}, properties)
        assert output.split_names == '["train"]'
        reasons[least] = tfdv_reasons(DRIFTED, output)
    assert reasons[201] == []
    [reason] = reasons[100]
    assert reason.startswith(f"{DRIFTED}: split 'train', a: ") and "Jensen-Shannon" in reason
    anomalies_pb2.Anomalies.FromString((tmp_path / "anomalies-100" / "Split-train" / "SchemaDiff.pb").read_bytes())


def request(signature, **inputs):
    log = prediction_log_pb2.PredictionLog()
    made = log.predict_log.request
    made.model_spec.name, made.model_spec.signature_name = "bitsum", signature
    for name, value in inputs.items():
        made.inputs[name].CopyFrom(tf.make_tensor_proto(value))
    return made.SerializeToString()


def test_the_embedded_server_s_log_is_read_whatever_the_signature(tmp_path):
    log = RequestLog(tmp_path / "log", rate=1.0)
    example = serialize({"a": [1, 0], "b": [0, 1]})
    log.offer(request("serving_default", examples=[example]), b"")
    log.offer(request("add_bits", a=np.array([[1, 1], [0, 1]]), b=np.array([[0, 0], [1, 1]])), b"")
    log.offer(request("add_packed", a=[b"\x03"], b=[b"\x80"], state=np.zeros([1, 4], np.float32)), b"")
    log.offer(request("other", x=[1.0]), b"")
    log.close()
    found = list(logged_requests.pairs(tmp_path / "log" / "bitsum", 100, 1024))
    assert found == [
        ([1, 0], [0, 1]),
        ([1, 1], [0, 0]),
        ([0, 1], [1, 1]),
        ([1, 1, 0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 0, 1]),
    ]
    assert list(logged_requests.pairs(tmp_path / "log", 2, 1)) == [([1], [0]), ([1], [0])]


def test_a_damaged_log_is_read_up_to_the_damage_which_is_named_and_no_log_says_nothing(tmp_path, caplog):
    log = RequestLog(tmp_path / "log", rate=1.0)
    for _ in range(3):
        log.offer(request("add_bits", a=np.array([[1]]), b=np.array([[0]])), b"")
    log.close()
    [path] = (tmp_path / "log").rglob(request_logs.PATTERN)
    path.write_bytes(path.read_bytes()[:-3])
    assert len(list(logged_requests.pairs(tmp_path / "log", 100, 10))) == 2
    [warning] = caplog.messages
    assert warning.startswith(f"{path} is damaged at record 2: the file ends within a record")
    assert warning.endswith("; the requests from there on are left out")
    assert list(logged_requests.pairs(pathlib.Path(tmp_path / "missing"), 100, 10)) == []


def test_a_folder_of_the_log_that_cannot_be_read_is_no_empty_one(tmp_path, monkeypatch):
    (tmp_path / "log" / "bitsum").mkdir(parents=True)
    real = os.scandir

    def scandir(path):
        if str(path).endswith("bitsum"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(BitsumError, match=r"cannot read the request log .*/log/bitsum: Permission denied"):
        list(logged_requests.pairs(tmp_path / "log", 100, 10))
    assert request_statistics.of_pairs([]).datasets[0].num_examples == 0
