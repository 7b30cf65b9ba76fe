"""New, removed, failed and warmed-up versions on a real server under load."""

import re
import shutil
import threading
import time

import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from benchmarks.swaps import Traffic
from serving import tensors
from serving.client import AdderClient
from tests.serving.conftest import put, serving
from tests.support.waiting import wait_for

WARMUP = "assets.extra/tf_serving_warmup_requests"


def states(client):
    return {state.version: state.state for state in client.status()}


def log(signature, **inputs):
    """A warmup record."""
    record = prediction_log_pb2.PredictionLog()
    record.predict_log.request.model_spec.name = "any"
    record.predict_log.request.model_spec.signature_name = signature
    for name, tensor in inputs.items():
        record.predict_log.request.inputs[name].CopyFrom(tensor)
    return record.SerializeToString()


def with_warmup(model, path, records):
    """A copy of `model` at `path` with warmup records."""
    shutil.copytree(model, path)
    (path / WARMUP).parent.mkdir()
    with tf.io.TFRecordWriter(str(path / WARMUP)) as writer:
        for record in records:
            writer.write(record)
    return path


def test_versions_change_under_load_without_a_failed_call(models, base_path):
    with serving(base_path, "--server=embedded") as server, AdderClient(server.target) as client:
        with Traffic(server.target, "bitsum", clients=3, seed=1) as traffic:
            for version in (2, 3, 4):
                put(models / "right", base_path, version)
                expected = {version: "AVAILABLE", **dict.fromkeys(range(1, version), "END")}
                wait_for(lambda expected=expected: states(client) == expected)
        assert traffic.failures == [] and traffic.asked.total() > 10
        assert client.predict("add_bits", {name: tensors.bits_tensor([1], 1) for name in "ab"}).version == 4


def test_half_written_and_bad_versions_are_not_served(models, base_path):
    """Every kind of bad version in turn, each with its error; on one server, because each start takes seconds."""
    with (
        serving(base_path, "--server=embedded", "--max_num_load_retries=0") as server,
        AdderClient(server.target) as client,
    ):
        for name in ("foo", "7.tmp", ".9"):
            shutil.copytree(models / "broken", base_path / name)
        shutil.copytree(models / "right" / "variables", base_path / "2" / "variables")
        expect(client, 2, "should have a file called `saved_model.pb`")
        shutil.copytree(models / "right", base_path / "3.tmp")
        (base_path / "3.tmp" / "saved_model.pb").write_bytes(b"garbage" * 10)
        (base_path / "3.tmp").rename(base_path / "3")
        expect(client, 3, "Can't parse .*saved_model.pb as binary proto")
        shutil.copytree(models / "right", base_path / "4.tmp")
        next((base_path / "4.tmp" / "variables").glob("*.data-*")).write_bytes(b"")
        (base_path / "4.tmp").rename(base_path / "4")
        expect(client, 4, "Read less bytes than requested")
        bad = with_warmup(models / "right", base_path / "5.tmp", [log("nope")])
        bad.rename(base_path / "5")
        expect(client, 5, 'Serving signature key "nope" not found.')
        one = tensors.bits_tensor([1], 1)
        bad = with_warmup(models / "right", base_path / "6.tmp", [log("add_bits", a=one, b=one)])
        (bad / WARMUP).write_bytes((bad / WARMUP).read_bytes()[:-7])
        bad.rename(base_path / "6")
        expect(client, 6, "Please verify your warmup data is in TFRecord format.")
        # Served: a good version above a failed one, and a half-written version once it is completed.
        classify = prediction_log_pb2.PredictionLog(classify_log={}).SerializeToString()
        with_warmup(models / "right", base_path / "7.good", [log("add_bits", a=one, b=one), classify, b""]).rename(
            base_path / "7"
        )
        wait_for(lambda: states(client).get(7) == "AVAILABLE" and states(client)[1] == "END")
        (base_path / "8").mkdir()
        wait_for(lambda: states(client).get(8) == "END")
        shutil.copytree(models / "right", base_path / "8", dirs_exist_ok=True)
        wait_for(lambda: states(client).get(8) == "AVAILABLE" and states(client)[7] == "END")
        assert set(states(client)) == set(range(1, 9))
        assert client.add(13, 29) == 42


def expect(client, version, words):
    """`version` fails with `words`; version 1 still answers."""
    wait_for(lambda: any(state.version == version and state.error for state in client.status()))
    by_version = {state.version: state for state in client.status()}
    assert by_version[version].state == "END" and by_version[1].state == "AVAILABLE"
    assert re.search(words, by_version[version].error), by_version[version].error
    assert client.add(13, 29) == 42


def test_sigterm_drains_calls_and_refuses_new_ones(base_path):
    with serving(base_path, "--server=embedded") as server:
        answers = []

        def long_sum():
            with AdderClient(server.target, deadline=60) as client:
                answers.append(client.outputs_at_once([(2**90_000 - 1, 1)], 90_000))

        caller = threading.Thread(target=long_sum)
        caller.start()
        time.sleep(0.3)
        server.process.terminate()
        out, err = server.process.communicate(timeout=60)
        caller.join()
        assert answers == [[2**90_000]]
        assert (server.process.returncode, err) == (0, "") and "stopping" in out
        assert not server.ready_file.exists()
