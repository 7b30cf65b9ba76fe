"""DataGate: blesses data without anomalies, refuses other data in one line that names the offenders."""

import json
import os
import pathlib

import pytest
import tensorflow_data_validation as tfdv
from tensorflow_metadata.proto.v0 import anomalies_pb2, statistics_pb2
from tfx.types import standard_artifacts
from tfx.utils import writer_utils

import components
from components.errors import Refusal
from components.steps.artifacts import ArithmeticAnomalies, DataBlessing
from components.steps.data_gate import DataGate

RECORDS = {"train": 10, "eval": 5}
FILE = "Split-train/data_tfrecord-00000-of-00001.gz"


def gate(
    folder, schema: dict[str, anomalies_pb2.Anomalies] | None, counts: dict[str, int], offenders: list, **others
) -> DataBlessing:
    """Run the component's executor as TFX runs it, on artifacts below `folder`; `others` are artifacts or
    parameters."""
    inputs = {"arithmetic_anomalies": [ArithmeticAnomalies()]}
    inputs["arithmetic_anomalies"][0].uri = str(folder)
    inputs["arithmetic_anomalies"][0].span = 3
    (folder / "anomalies.json").write_text(
        json.dumps({"records": RECORDS, "anomalies": counts, "offenders": offenders})
    )
    if schema is not None:
        artifact = standard_artifacts.ExampleAnomalies()
        artifact.uri, artifact.split_names = str(folder / "schema"), json.dumps(list(RECORDS))
        for split in RECORDS:
            os.makedirs(folder / "schema" / f"Split-{split}")
            path = str(folder / "schema" / f"Split-{split}" / "SchemaDiff.pb")
            writer_utils.write_anomalies(path, schema.get(split, anomalies_pb2.Anomalies()))
        inputs["example_anomalies"] = [artifact]
    blessing = DataBlessing()
    blessing.uri = str(folder / "blessing")
    inputs |= {name: [artifact] for name, artifact in others.items() if name != "quarantine_folder"}
    properties = {"code": "hash", "quarantine_folder": others.get("quarantine_folder", "")}
    DataGate.EXECUTOR_SPEC.executor_class().Do(inputs, {"blessing": [blessing]}, properties)
    return blessing


def refusal(*arguments, **others) -> str:
    with pytest.raises(Refusal) as caught:
        gate(*arguments, **others)
    assert caught.value.gate == "data gate" and caught.value.exit_code == 3
    assert "\n" not in str(caught.value)
    assert not os.path.exists(arguments[0] / "blessing")
    return str(caught.value)


def unknown_column() -> anomalies_pb2.Anomalies:
    anomalies = anomalies_pb2.Anomalies()
    anomalies.anomaly_info["weight"].description = "New column\n(column in data but not in schema)"
    return anomalies


def test_data_without_anomalies_is_blessed(tmp_path):
    blessing = gate(tmp_path, {}, {}, [])
    assert os.listdir(blessing.uri) == ["BLESSED"] and blessing.span == 3


def test_a_schema_anomaly_is_refused_by_its_feature(tmp_path):
    text = refusal(tmp_path, {"eval": unknown_column()}, {}, [])
    assert text == (
        "data gate refused: the schema is violated: split 'eval', weight: New "
        "column (column in data but not in schema) "
        f"(all in {tmp_path}/schema)"
    )


def test_a_split_without_examples_is_refused(tmp_path):
    # Real TFDV on the statistics of no example at all.
    statistics = statistics_pb2.DatasetFeatureStatisticsList()
    statistics.datasets.add(num_examples=0)
    schema = tfdv.load_schema_text(str(pathlib.Path(components.__file__).parent / "data" / "schema.pbtxt"))
    anomalies = {"train": tfdv.validate_statistics(statistics, schema)}
    assert "split 'train', the whole split: no examples" in refusal(tmp_path, anomalies, {}, [])


def test_wrong_arithmetic_is_refused_by_file_record_and_problem(tmp_path):
    offenders = [[FILE, record, f"wrong sum: sum[0] is {record}"] for record in range(5)]
    text = refusal(tmp_path, {}, {"wrong sum": 29, "leaked pair": 1}, offenders)
    assert text == (
        "data gate refused: arithmetic is violated (29 x wrong sum, 1 x leaked pair): "
        f"{FILE} record 0: wrong sum: sum[0] is 0 | {FILE} record 1: wrong sum: sum[0] is 1 | "
        f"{FILE} record 2: wrong sum: sum[0] is 2 "
        f"and 27 more; the records are set aside in {tmp_path}/quarantine.tfrecord.gz"
    )


def test_both_checks_are_named_together(tmp_path):
    text = refusal(tmp_path, {"train": unknown_column()}, {"wrong sum": 1}, [[FILE, 0, "wrong sum: text"]])
    assert "schema is violated" in text and "arithmetic is violated" in text


def test_without_statistics_only_unreadable_data_is_refused(tmp_path):
    gate(tmp_path, None, {"wrong sum": 1}, [[FILE, 0, "wrong sum: text"]])
    (tmp_path / "two").mkdir()
    assert "1 x corrupt file" in refusal(tmp_path / "two", None, {"corrupt file": 1}, [[FILE, 7, "corrupt file: text"]])


def drift(folder, text: str) -> standard_artifacts.ExampleAnomalies:
    anomalies = anomalies_pb2.Anomalies()
    if text:
        anomalies.anomaly_info["length"].description = text
    artifact = standard_artifacts.ExampleAnomalies()
    artifact.uri, artifact.split_names = str(folder / "drift"), json.dumps(["train"])
    os.makedirs(folder / "drift" / "Split-train")
    writer_utils.write_anomalies(str(folder / "drift" / "Split-train" / "SchemaDiff.pb"), anomalies)
    return artifact


def test_a_blessing_in_a_series_records_the_blessed_artifacts(tmp_path):
    examples, statistics = standard_artifacts.Examples(), standard_artifacts.ExampleStatistics()
    examples.id, statistics.id = 7, 8
    blessing = gate(tmp_path, {}, {}, [], examples=examples, statistics=statistics, drift_anomalies=drift(tmp_path, ""))
    assert [blessing.get_int_custom_property(name) for name in ("span", "examples_id", "statistics_id")] == [3, 7, 8]


def test_drift_is_refused_and_its_report_stays(tmp_path):
    (tmp_path / "quarantine.tfrecord.gz").write_bytes(b"set aside")
    others = {
        "drift_anomalies": drift(tmp_path, "the distance is 0.4"),
        "quarantine_folder": str(tmp_path / "kept" / "span-3"),
    }
    text = refusal(tmp_path, {}, {"wrong sum": 1}, [[FILE, 0, "wrong sum: text"]], **others)
    assert "the data drifted, or differ from the requests served: split 'train', length: the distance is 0.4" in text
    assert text.endswith(f"; the report is in {tmp_path}/kept/span-3")
    report = json.loads((tmp_path / "kept" / "span-3" / "report.json").read_text())
    assert (report["span"], report["gate"], len(report["reasons"])) == (3, "data gate", 2)
    assert (tmp_path / "kept" / "span-3" / "quarantine.tfrecord.gz").read_bytes() == b"set aside"
    assert sorted(os.listdir(tmp_path / "kept" / "span-3")) == ["quarantine.tfrecord.gz", "report.json"]
