"""ArithmeticValidator on real Beam: one planted defect of each kind, each found at its place and set aside."""

import dataclasses
import gzip
import json
import os
import pathlib

import pytest
from tfx.types import standard_artifacts

from components.data.shards import shard_path
from components.data.tf_examples import parse, read_records, serialize, write_records
from components.settings import Data
from components.steps.arithmetic_validator import Anomaly, ArithmeticValidator, Place, write_anomalies
from components.steps.artifacts import ArithmeticAnomalies
from components.steps.example_gen import shard_records
from components.task.record_checks import Problem

DATA = Data(train_examples=200, eval_examples=60, long_lengths=(16,), long_examples=10, shards=2)
SPLITS = ("train", "eval", "long")


def splits(data: Data = DATA) -> dict[str, list[list[bytes]]]:
    """Split -> shard -> records, all good."""
    return {split: [list(shard_records(data, split, shard)) for shard in range(2)] for split in SPLITS}


def write(uri: str, content: dict[str, list[list[bytes]]]) -> None:
    for split, shards in content.items():
        for shard, records in enumerate(shards):
            path = shard_path(uri, split, shard, 2)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            write_records(path, records)


def validate(uri: str, output: str, task: str = "addition") -> tuple[dict, list[bytes], ArithmeticAnomalies]:
    """The outputs of the component's executor, run as by TFX: the anomalies file, the quarantine, the artifact."""
    examples, anomalies = standard_artifacts.Examples(), ArithmeticAnomalies()
    examples.uri, examples.split_names, examples.span = uri, json.dumps(SPLITS), 4
    anomalies.uri = output
    executor = ArithmeticValidator.EXECUTOR_SPEC.executor_class
    beam_args = ["--runner=FnApiRunner", "--direct_running_mode=in_memory", "--sdk_container_image=unused"]
    properties = {"task": task, "code": "hash"}
    executor(executor.Context(beam_pipeline_args=beam_args)).Do(
        {"examples": [examples]}, {"anomalies": [anomalies]}, properties
    )
    assert sorted(os.listdir(output)) == ["anomalies.json", "quarantine.tfrecord.gz"]
    content = json.loads(pathlib.Path(output, "anomalies.json").read_text())
    return content, list(read_records(os.path.join(output, "quarantine.tfrecord.gz"))), anomalies


def changed(record: bytes, **features) -> bytes:
    return serialize({**parse(record), **features})


def padded(record: bytes) -> bytes:
    """The same two values, one bit wider."""
    a, b, total, length = (parse(record)[name] for name in ("a", "b", "sum", "length"))
    return serialize({"a": [*a, 0], "b": [*b, 0], "sum": [*total, 0], "length": [length[0] + 1]})


def test_good_data_has_no_anomaly(tmp_path):
    write(str(tmp_path / "examples"), splits())
    content, quarantine, artifact = validate(str(tmp_path / "examples"), str(tmp_path / "out"))
    assert content == {"records": {"train": 200, "eval": 60, "long": 10}, "anomalies": {}, "offenders": []}
    assert quarantine == []
    assert artifact.span == 4


@pytest.mark.parametrize("task", ["subtraction", "comparison"])
def test_records_are_checked_for_their_own_task(tmp_path, task):
    write(str(tmp_path / "examples"), splits(dataclasses.replace(DATA, task=task)))
    content, quarantine, _ = validate(str(tmp_path / "examples"), str(tmp_path / "out"), task)
    assert (content["anomalies"], quarantine) == ({}, [])
    content, _, _ = validate(str(tmp_path / "examples"), str(tmp_path / "other"))
    # Where b is 0, a - b has the bits of a + b; nearly everywhere else they differ.
    assert content["anomalies"].keys() == {"wrong sum"} and content["anomalies"]["wrong sum"] > 200


def test_each_defect_is_found_at_its_place_and_set_aside(tmp_path):
    content = splits()
    train, evaluation, long = content["train"], content["eval"], content["long"]
    wrong = list(parse(train[0][5])["sum"])
    wrong[0] ^= 1
    train[0][5] = changed(train[0][5], sum=wrong)
    train[0][9] = b"no example"
    train[1][0] = changed(train[1][0], a=[2, *parse(train[1][0])["a"][1:]])
    train[1][1] = changed(train[1][1], weight=[1])
    # The pair of another record, in the same split and in another one, also when it is written with more bits.
    evaluation[1][3] = evaluation[0][2]
    long[0][1] = padded(evaluation[0][4])
    evaluation[1][7] = changed(evaluation[1][7], length=[99])
    eval_0 = "Split-eval/data_tfrecord-00000-of-00002.gz"
    expected = [
        (
            "Split-eval/data_tfrecord-00001-of-00002.gz",
            3,
            "duplicate pair: the pair ",
            f" is in the same split: {eval_0} record 2",
        ),
        ("Split-eval/data_tfrecord-00001-of-00002.gz", 7, "wrong length: a has ", ""),
        (
            "Split-long/data_tfrecord-00000-of-00002.gz",
            1,
            "leaked pair: the pair ",
            f" is in split 'eval' too: {eval_0} record 4",
        ),
        ("Split-train/data_tfrecord-00000-of-00002.gz", 5, "wrong sum: sum[0] is ", ""),
        ("Split-train/data_tfrecord-00000-of-00002.gz", 9, "not parsable: not a tf.Example (10 bytes)", ""),
        ("Split-train/data_tfrecord-00001-of-00002.gz", 0, "not a bit: a[0] is 2", ""),
        ("Split-train/data_tfrecord-00001-of-00002.gz", 1, "unknown feature: feature 'weight'", ""),
    ]
    write(str(tmp_path / "examples"), content)
    found, quarantine, _ = validate(str(tmp_path / "examples"), str(tmp_path / "out"))
    assert [offender[:2] for offender in found["offenders"]] == [[file, record] for file, record, *_ in expected]
    for (_, _, what), (_, _, start, end) in zip(found["offenders"], expected, strict=True):
        assert what.startswith(start) and what.endswith(end) and "\n" not in what
    assert found["anomalies"] == {
        kind: 1
        for kind in (
            "duplicate pair",
            "leaked pair",
            "not a bit",
            "not parsable",
            "unknown feature",
            "wrong length",
            "wrong sum",
        )
    }
    assert found["records"] == {"train": 200, "eval": 60, "long": 10}
    assert quarantine == [
        evaluation[1][3],
        evaluation[1][7],
        long[0][1],
        train[0][5],
        train[0][9],
        train[1][0],
        train[1][1],
    ]
    again = validate(str(tmp_path / "examples"), str(tmp_path / "again"))
    assert again[:2] == (found, quarantine)


def test_damaged_files_are_named_and_the_others_are_still_checked(tmp_path):
    content = splits()
    content["train"][1][0] = changed(content["train"][1][0], length=[99])
    content["eval"] = [[], []]
    uri = str(tmp_path / "examples")
    write(uri, content)
    cut, flipped, regular = (
        shard_path(uri, split, shard, 2) for split, shard in (("train", 0), ("long", 0), ("long", 1))
    )
    with open(cut, "r+b") as file:
        file.truncate(os.path.getsize(cut) - 4)
    with open(regular, "rb") as file:
        plain = bytearray(gzip.decompress(file.read()))
    plain[len(plain) // 5 * 3 + 30] ^= 1
    with open(regular, "wb") as file:
        file.write(gzip.compress(bytes(plain)))
    with open(flipped, "r+b") as file:
        file.seek(60)
        byte = file.read(1)[0]
        file.seek(60)
        file.write(bytes([byte ^ 4]))
    found, quarantine, _ = validate(uri, str(tmp_path / "out"))
    assert found["anomalies"] == {"corrupt file": 3, "empty split": 1, "wrong length": 1}
    assert found["records"]["train"] == 200 and found["records"]["eval"] == 0
    offenders = {file: [record, what] for file, record, what in found["offenders"]}
    assert offenders["Split-eval"] == [0, "empty split: split 'eval' has no readable record"]
    assert offenders["Split-train/data_tfrecord-00000-of-00002.gz"] == [
        100,
        "corrupt file: unreadable after 100 records: the gzip stream ends too early",
    ]
    assert offenders["Split-long/data_tfrecord-00001-of-00002.gz"][0] == 3
    assert "corrupted record at" in offenders["Split-long/data_tfrecord-00001-of-00002.gz"][1]
    assert "corrupt file: unreadable after " in offenders["Split-long/data_tfrecord-00000-of-00002.gz"][1]
    assert quarantine == [content["train"][1][0]]


def test_the_first_offenders_are_named_and_all_are_counted(tmp_path):
    anomalies = [Anomaly(Place("file", record), Problem("wrong sum", "text"), b"%d" % record) for record in range(30)]
    write_anomalies(str(tmp_path), ["train"], {"train": 99}, anomalies[::-1])
    content = json.loads((tmp_path / "anomalies.json").read_text())
    assert content["anomalies"] == {"wrong sum": 30}
    assert content["offenders"] == [["file", record, "wrong sum: text"] for record in range(20)]
    assert list(read_records(str(tmp_path / "quarantine.tfrecord.gz"))) == [b"%d" % record for record in range(30)]
