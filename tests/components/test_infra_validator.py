"""Infra validation with the embedded server for real: a good model, one that answers wrongly, one that does not load."""

import dataclasses
import errno
import json
import pathlib

import pytest
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2
from tfx.types import standard_artifacts

from components import addition, infra_validator, settings, tf_examples, warmup
from components.artifacts import Certificate
from tests.serving import adder_model

PAIRS = [(13, 29), (0, 0), (2**40 - 1, 1), (2**99, 2**99 + 5), (7, 7), (2**64 - 1, 2**64 - 1)]


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    folder = tmp_path_factory.mktemp("examples")
    for split, pairs in {"eval": PAIRS[:3], "long": PAIRS[3:]}.items():
        (folder / f"Split-{split}").mkdir()
        tf_examples.write_records(str(folder / f"Split-{split}" / "data_tfrecord-00000-of-00001.gz"), map(_record, pairs))
    artifact = standard_artifacts.Examples()
    artifact.uri, artifact.split_names = str(folder), json.dumps(["eval", "long"])
    return artifact


def _record(pair: tuple[int, int]) -> bytes:
    length = max(1, *(value.bit_length() for value in pair))
    a, b = (addition.to_bits(value, length) for value in pair)
    return tf_examples.serialize({"a": a, "b": b, "sum": addition.to_bits(sum(pair), length + 1), "length": [length]})


def _validate(
    tmp_path, examples, broken=False, spoil=lambda folder: None, task="addition", **knobs
) -> tuple[standard_artifacts.InfraBlessing, str]:
    """Run the component's executor on an adder, as TFX runs it: the blessing and the reason in it."""
    model, blessing = standard_artifacts.Model(), standard_artifacts.InfraBlessing()
    model.uri, blessing.uri = str(tmp_path / "model"), str(tmp_path / "blessing")
    served = tmp_path / "model" / "Format-Serving"
    adder_model.save(served, broken=broken)
    spoil(served)
    infra = json.dumps(dataclasses.asdict(settings.Infra(**{"examples": 20, "warmup_examples": 4, **knobs})))
    (tmp_path / "blessing").mkdir()
    executor = infra_validator.InfraValidator.EXECUTOR_SPEC.executor_class()
    properties = {"infra": infra, "model_name": "adder", "task": task, "code": "hash"}
    certificate = Certificate()
    certificate.proven = 0
    executor.Do({"model": [model], "examples": [examples], "certificate": [certificate]}, {"blessing": [blessing]}, properties)
    return blessing, blessing.get_string_custom_property("reason")


def test_a_model_that_answers_right_is_blessed_with_the_warmup_requests_it_was_served_with(tmp_path, examples):
    blessing, reason = _validate(tmp_path, examples)
    assert (blessing.get_int_custom_property("blessed"), reason) == (1, "")
    assert (tmp_path / "blessing" / "INFRA_BLESSED").exists()
    report = json.loads((tmp_path / "blessing" / "report.json").read_text())
    assert {split: found["right"] == found["asked"] > 0 for split, found in report["splits"].items()} == {"eval": True, "long": True}
    [stamped] = (tmp_path / "blessing").rglob(str(warmup.WARMUP_FILE))
    logs = [prediction_log_pb2.PredictionLog.FromString(raw.numpy()) for raw in tf.data.TFRecordDataset(str(stamped))]
    signatures = [log.predict_log.request.model_spec.signature_name for log in logs]
    assert sorted(signatures) == ["add_bits"] * 4 + ["serving_default"] + ["step"] * 4


def test_a_model_that_answers_wrongly_is_refused_with_the_numbers(tmp_path, examples):
    blessing, reason = _validate(tmp_path, examples, broken=True)
    assert blessing.get_int_custom_property("blessed") == 0
    assert (tmp_path / "blessing" / "INFRA_NOT_BLESSED").exists()
    assert "embedded" in reason and "questions of split eval wrongly" in reason and "13" in reason and "29" in reason


def test_a_model_for_another_task_is_refused(tmp_path, examples):
    blessing, reason = _validate(tmp_path, examples, task="subtraction")
    assert blessing.get_int_custom_property("blessed") == 0
    assert "questions of split eval wrongly" in reason and "'expected': '-16'" in reason


def test_a_model_that_does_not_load_is_refused_with_the_servers_words(tmp_path, examples):
    def spoil(folder: pathlib.Path) -> None:
        for file in (folder / "variables").iterdir():
            file.write_bytes(file.read_bytes()[:10])

    blessing, reason = _validate(tmp_path, examples, spoil=spoil, start_timeout=60.0)
    assert blessing.get_int_custom_property("blessed") == 0
    assert "the model server" in reason and "\n" not in reason


def test_a_model_without_a_graph_is_refused(tmp_path, examples):
    blessing, reason = _validate(tmp_path, examples, spoil=lambda folder: (folder / "saved_model.pb").unlink())
    assert blessing.get_int_custom_property("blessed") == 0
    assert "saved_model.pb" in reason or "SavedModel" in reason


def test_a_full_disk_is_no_fault_of_the_model(tmp_path, examples, monkeypatch):
    def full(*unused):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(warmup, "write", full)
    with pytest.raises(OSError, match="No space left on device"):
        _validate(tmp_path, examples)
    assert not (tmp_path / "blessing" / "INFRA_NOT_BLESSED").exists()
