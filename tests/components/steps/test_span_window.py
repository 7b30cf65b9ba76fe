"""SpanWindow on real Beam: each pair once, the latest span's, and no pair that is held out in one span is trained on
from another."""

import gzip
import pathlib

import apache_beam as beam
import pytest
import tensorflow as tf
from apache_beam.options.pipeline_options import PipelineOptions
from tfx.dsl.components.base import base_beam_executor
from tfx.types import standard_artifacts

from components.data import sampling, scratch
from components.data.shards import shard_path
from components.data.tf_examples import parse, read_records, serialize, write_records
from components.settings import Data
from components.steps import example_gen, span_window
from components.task.addition import FEATURE_A, FEATURE_B, FEATURE_LENGTH, FEATURE_SUM, from_bits, to_bits

BEAM = ["--runner=FnApiRunner", "--direct_running_mode=in_memory"]


def record(a, b, length):
    bits = to_bits(a, length), to_bits(b, length)
    return serialize(
        {FEATURE_A: bits[0], FEATURE_B: bits[1], FEATURE_SUM: to_bits(a + b, length + 1), FEATURE_LENGTH: [length]}
    )


def put(folder, split, records):
    (folder / f"Split-{split}").mkdir(parents=True, exist_ok=True)
    write_records(shard_path(str(folder), split, 0, 1), records)
    return folder


def joined(folders, output, split="train", shards=2):
    with scratch.folder(str(output)) as beside, beam.Pipeline(options=PipelineOptions(BEAM)) as pipeline:
        _ = pipeline | span_window.WriteWindow([str(folder) for folder in folders], split, str(output), shards, beside)
    return [raw for path in sorted((output / f"Split-{split}").iterdir()) for raw in read_records(str(path))]


def pair(raw):
    features = parse(raw)
    return from_bits(features[FEATURE_A]), from_bits(features[FEATURE_B])


def test_a_pair_in_two_spans_is_taken_from_the_latest(tmp_path):
    new = put(tmp_path / "new", "train", [record(1, 2, 4), record(3, 3, 2)])
    old = put(tmp_path / "old", "train", [record(1, 2, 2), record(2, 1, 2)])
    found = joined([new, old], tmp_path / "window")
    assert sorted(found) == sorted([record(1, 2, 4), record(3, 3, 2), record(2, 1, 2)])
    assert not list((tmp_path / "window").glob(".writing-*"))


def test_the_latest_span_wins_in_whatever_order_the_artifacts_come(tmp_path, monkeypatch):
    artifacts = []
    for span, width in ((3, 2), (5, 4), (4, 3)):
        artifacts.append(standard_artifacts.Examples())
        folder = put(tmp_path / str(span), "train", [record(1, 2, width)])
        artifacts[-1].uri = str(put(folder, "eval", [record(3, 3, width)]))
        artifacts[-1].set_int_custom_property("span", span)
    artifacts[0].set_string_custom_property("span_date", "1970-01-04")
    reports = []
    monkeypatch.setattr(span_window, "report", lambda stage, **numbers: reports.append(numbers))
    made = standard_artifacts.Examples()
    made.uri = str(tmp_path / "window")
    context = base_beam_executor.BaseBeamExecutor.Context(beam_pipeline_args=BEAM, tmp_dir=str(tmp_path), unique_id="1")
    executor = span_window.SpanWindow.EXECUTOR_SPEC.executor_class(context)
    executor.Do({"examples": artifacts}, {"window": [made]}, {"shards": 1, "code": "hash"})
    assert (made.get_string_custom_property("spans"), made.span, made.split_names) == ("5,4,3", 5, '["train", "eval"]')
    assert reports == [{"spans": 3, "first": "1970-01-04", "last": "5"}]
    assert list(read_records(shard_path(made.uri, "train", 0, 1))) == [record(1, 2, 4)]
    assert list(read_records(shard_path(made.uri, "eval", 0, 1))) == [record(3, 3, 4)]


def test_files_depend_on_the_records_alone(tmp_path):
    records = [record(a, b, 3) for a in range(8) for b in range(8)]
    there = put(tmp_path / "1", "train", records), put(tmp_path / "2", "train", records[::-1])
    made = [joined([folder], tmp_path / f"window-{folder.name}") for folder in there]
    assert made[0] == made[1] and sorted(made[0]) == sorted(records)
    shards = [list(read_records(str(path))) for path in sorted((tmp_path / "window-1" / "Split-train").iterdir())]
    assert len(shards) == 2 and all(shards)


def test_no_window_of_generated_spans_leaks(tmp_path):
    spans = []
    for span in (1, 2, 3):
        data = Data(span=span, max_length=5, long_lengths=(8,), train_examples=200, eval_examples=100)
        folder = tmp_path / str(span)
        for split in ("train", "eval"):
            put(
                folder,
                split,
                list(example_gen.shard_records(data, split, 0)) + list(example_gen.shard_records(data, split, 1)),
            )
        spans.append(folder)
    train, held_out = ({pair(raw) for raw in joined(spans, tmp_path / "window", split)} for split in ("train", "eval"))
    # Structured pairs are in every span.
    assert 200 < len(train) < 600 and 100 < len(held_out) < 300
    assert train.isdisjoint(held_out)
    assert set(sampling.splits_of(Data(max_length=5, long_lengths=(8,)), list(train))) == {"train"}


def test_a_blessed_span_that_was_damaged_since_is_named(tmp_path):
    folder = put(tmp_path / "old", "train", [record(1, 2, 2)])
    path = pathlib.Path(shard_path(str(folder), "train", 0, 1))
    path.write_bytes(gzip.compress(b"nothing"))
    text = "cannot read .*old/Split-train/data_tfrecord-00000-of-00001.gz, which was blessed: .*run that span again"
    with pytest.raises(Exception, match=text):
        joined([folder], tmp_path / "window")


def test_a_window_is_read_by_tensorflow_s_own_reader(tmp_path):
    joined([put(tmp_path / "new", "train", [record(1, 2, 4)])], tmp_path / "window", shards=1)
    [raw] = tf.data.TFRecordDataset(
        str(tmp_path / "window" / "Split-train" / "data_tfrecord-00000-of-00001.gz"), "GZIP"
    )
    assert raw.numpy() == record(1, 2, 4)
