"""BitstringExampleGen: real Beam, real files, read back with TensorFlow's own reader."""

import os

import pytest
import tensorflow as tf
from tfx.types import standard_artifacts

from components.data import sampling
from components.errors import ConfigError
from components.settings import Data
from components.steps import example_gen
from components.steps.example_gen import BitstringExampleGen
from components.task.addition import from_bits, to_bits

DATA = Data(train_examples=300, eval_examples=100, long_lengths=(16, 100), long_examples=40, shards=3, span=7)


def generate(uri: str, data: Data, *beam_args: str) -> standard_artifacts.Examples:
    """The output of the component's executor for `data`, run as by TFX."""
    artifact = standard_artifacts.Examples()
    artifact.uri = uri
    executor = BitstringExampleGen.EXECUTOR_SPEC.executor_class
    context = executor.Context(beam_pipeline_args=["--runner=FnApiRunner", "--sdk_container_image=unused", *beam_args])
    executor(context).Do({}, {"examples": [artifact]}, {"data": data.to_json(), "code": "hash"})
    return artifact


def files(uri: str) -> dict[str, bytes]:
    found = {}
    for folder, _, names in os.walk(uri):
        for name in names:
            with open(os.path.join(folder, name), "rb") as file:
                found[os.path.relpath(os.path.join(folder, name), uri)] = file.read()
    return found


@pytest.fixture(scope="module")
def generated(tmp_path_factory) -> standard_artifacts.Examples:
    return generate(str(tmp_path_factory.mktemp("one") / "examples"), DATA, "--direct_running_mode=in_memory")


def test_there_is_one_file_per_shard_and_nothing_else(generated):
    expected = {
        f"Split-{split}/data_tfrecord-0000{shard}-of-00003.gz"
        for split in ("train", "eval", "long")
        for shard in range(3)
    }
    assert set(files(generated.uri)) == expected
    assert sorted(os.listdir(generated.uri)) == ["Split-eval", "Split-long", "Split-train"]


def test_the_artifact_records_its_splits_and_span(generated):
    assert generated.split_names == '["train", "eval", "long"]'
    assert generated.span == generated.get_int_custom_property("span") == 7
    assert generated.get_string_custom_property("payload_format") == "FORMAT_TF_EXAMPLE"
    assert generated.get_string_custom_property("file_format") == "tfrecords_gzip"


def test_files_are_the_same_whatever_the_number_of_workers(generated, tmp_path):
    again = generate(
        str(tmp_path / "examples"), DATA, "--direct_running_mode=multi_threading", "--direct_num_workers=2"
    )
    assert files(again.uri) == files(generated.uri)


def test_the_records_are_those_of_the_sampler_in_its_order(generated):
    for split, size in (("train", 300), ("eval", 100), ("long", 80)):
        paths = sorted(tf.io.gfile.glob(f"{generated.uri}/Split-{split}/*"))
        found = [
            tf.train.Example.FromString(raw.numpy()) for raw in tf.data.TFRecordDataset(paths, compression_type="GZIP")
        ]
        expected = [None] * size
        for batch in sampling.records(DATA, split, 0, size):
            for position, a, b in zip(batch.positions, batch.a.tolist(), batch.b.tolist(), strict=True):
                total = to_bits(from_bits(a) + from_bits(b), len(a) + 1)
                expected[position] = {"a": a, "b": b, "sum": total, "length": [len(a)]}
        assert [
            {name: list(f.int64_list.value) for name, f in example.features.feature.items()} for example in found
        ] == expected


def test_records_do_not_depend_on_the_chunks(monkeypatch):
    whole = list(example_gen.shard_records(DATA, "long", 0))
    monkeypatch.setattr(example_gen, "_CHUNK_BITS", 500)
    assert list(example_gen.shard_records(DATA, "long", 0)) == whole


def test_more_shards_than_records_leave_empty_files():
    data = Data(train_examples=2, eval_examples=1, long_lengths=(16,), long_examples=1, shards=4)
    assert [len(list(example_gen.shard_records(data, "train", shard))) for shard in range(4)] == [0, 1, 0, 1]
    [record] = example_gen.shard_records(data, "long", 3)
    features = tf.train.Example.FromString(record).features.feature
    assert from_bits(features["sum"].int64_list.value) == 2**16


def test_more_pairs_than_exist_are_refused_before_anything_is_written(tmp_path):
    uri = str(tmp_path / "examples")
    with pytest.raises(ConfigError, match=r"data.train_examples = 65536: only 49152 distinct pairs of at most 8 bits"):
        generate(uri, Data(train_examples=65536), "--direct_running_mode=in_memory")
    assert not os.path.exists(uri)


def test_a_folder_that_cannot_be_written_is_named_and_left_as_it_was(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(Exception, match=r"cannot write .*file/examples/Split-.*gz"):
        generate(str(tmp_path / "file" / "examples"), DATA, "--direct_running_mode=in_memory")
    assert files(str(tmp_path)) == {"file": b"in the way"}
