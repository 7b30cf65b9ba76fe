"""The curated schema, by TFDV itself: good data has no anomaly, each planted defect has its own."""

import pathlib

import pytest
import tensorflow as tf
import tensorflow_data_validation as tfdv
from tensorflow_data_validation.statistics import stats_impl
from tfx_bsl.coders.example_coder import ExamplesToRecordBatchDecoder
from tfx_bsl.tfxio import tensor_adapter, tf_example_record

import components
from components.data.tf_examples import serialize
from components.settings import Data
from components.steps.example_gen import shard_records

SCHEMA = pathlib.Path(components.__file__).parent / "data" / "schema.pbtxt"


@pytest.fixture(scope="module")
def schema():
    return tfdv.load_schema_text(str(SCHEMA))


def anomalies(records: list[bytes], schema) -> dict[str, str]:
    batch = ExamplesToRecordBatchDecoder().DecodeBatch(records)
    statistics = stats_impl.generate_statistics_in_memory(batch, tfdv.StatsOptions(schema=schema))
    found = tfdv.validate_statistics(statistics, schema)
    assert not found.HasField("dataset_anomaly_info")
    return {name: info.description for name, info in found.anomaly_info.items()}


def example(**changes) -> bytes:
    features = {"a": [1, 0], "b": [1, 1], "sum": [0, 0, 1], "length": [2], **changes}
    return serialize({name: values for name, values in features.items() if values is not None})


@pytest.mark.parametrize("split", ["train", "eval", "long"])
def test_generated_data_has_no_anomaly(split, schema):
    assert anomalies(list(shard_records(Data(), split, 0)), schema) == {}


@pytest.mark.parametrize(
    "change, feature, words",
    [
        ({"a": [2, 0]}, "a", "large value: 2"),
        ({"b": [-1, 0]}, "b", "small value: -1"),
        ({"sum": [0, 0, 7]}, "sum", "large value: 7"),
        ({"weight": [1]}, "weight", "New column"),
        ({"b": None}, "b", "fewer examples than expected"),
        ({"sum": None}, "sum", "fewer examples than expected"),
        ({"a": []}, "a", "fewer values than expected"),
        ({"sum": [0]}, "sum", "fewer values than expected"),
        ({"length": [0]}, "length", "small value: 0"),
        ({"length": [2, 2]}, "length", "shape"),
    ],
)
def test_a_planted_defect_is_an_anomaly_of_its_feature(change, feature, words, schema):
    found = anomalies([*shard_records(Data(), "eval", 0), example(**change)], schema)
    assert list(found) == [feature]
    assert words in found[feature]


def test_bits_of_another_type_are_an_anomaly(schema):
    floats = tf.train.Example.FromString(example())
    floats.features.feature["a"].float_list.value.extend([1.0, 0.0])
    assert anomalies([floats.SerializeToString()], schema) == {"a": "Expected data of type: INT but got FLOAT"}


def test_the_bits_are_read_as_sparse_tensors_and_the_length_as_a_number(schema):
    tfxio = tf_example_record.TFExampleBeamRecord(physical_format="inmem", schema=schema, raw_record_column_name=None)
    batch = ExamplesToRecordBatchDecoder(schema.SerializeToString()).DecodeBatch(
        [example(), example(a=[1], b=[1], sum=[0, 1], length=[1])]
    )
    tensors = tensor_adapter.TensorAdapter(tfxio.TensorAdapterConfig()).ToBatchTensors(batch)
    assert tensors["a"].values.numpy().tolist() == [1, 0, 1]
    assert tensors["a"].indices.numpy().tolist() == [[0, 0], [0, 1], [1, 0]]
    assert tensors["length"].numpy().tolist() == [[2], [1]]
