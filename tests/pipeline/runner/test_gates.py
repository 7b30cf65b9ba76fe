"""One planted defect per gate, in the whole pipeline: which gate stops it, the message, and that nothing is pushed."""

import json
import pathlib
import sys

import pytest
import tensorflow as tf

from components.errors import Refusal
from components.task import addition
from pipeline import config as configuration
from pipeline import workspace
from pipeline.runner import local
from tests.pipeline.conftest import SMALL


def _run_with_defect(tmp_path, damage) -> tuple[list[str], Refusal]:
    """Run node after node; `damage` gets the folder of the generated examples. The nodes that ran and the refusal."""
    config = configuration.load(None, [f"pipeline.root={tmp_path / 'var'}", *SMALL])
    workspace.prepare(config.root)
    ran = []

    def end(note: str) -> None:
        if len(ran) == 1:
            damage(next((config.root / "artifacts" / "BitstringExampleGen" / "examples").iterdir()))

    with pytest.raises(Refusal) as refusal:
        local.run(config, "run", ran.append, end)
    assert not config.push_to.exists()
    return ran, refusal.value


def _first_file(examples: pathlib.Path, split: str) -> pathlib.Path:
    return sorted((examples / f"Split-{split}").glob("data_tfrecord-*"))[0]


def _records(file: pathlib.Path) -> list[bytes]:
    return [record.numpy() for record in tf.data.TFRecordDataset(str(file), "GZIP")]


def _rewrite(file: pathlib.Path, records: list[bytes]) -> None:
    with tf.io.TFRecordWriter(str(file), "GZIP") as writer:
        for record in records:
            writer.write(record)


def _edit_first(file: pathlib.Path, edit) -> None:
    records = _records(file)
    example = tf.train.Example.FromString(records[0])
    edit(example.features.feature)
    _rewrite(file, [example.SerializeToString(deterministic=True), *records[1:]])


def test_a_wrong_sum_is_stopped_by_the_data_gate(tmp_path):
    def damage(examples):
        def flip(features):
            bits = features[addition.FEATURE_SUM].int64_list.value
            bits[0] = 1 - bits[0]

        _edit_first(_first_file(examples, "train"), flip)

    ran, refusal = _run_with_defect(tmp_path, damage)
    assert ran[-1] == "data gate"
    assert "data_tfrecord-00000-of-00002.gz" in str(refusal) and "record 0" in str(refusal) and "sum" in str(refusal)


def test_a_leaked_pair_is_stopped_by_the_data_gate(tmp_path):
    def damage(examples):
        [leaked, *_] = _records(_first_file(examples, "train"))
        target = _first_file(examples, "eval")
        _rewrite(target, [*_records(target), leaked])

    ran, refusal = _run_with_defect(tmp_path, damage)
    assert ran[-1] == "data gate"
    assert "train" in str(refusal) and "eval" in str(refusal)


def test_an_unknown_feature_is_stopped_by_the_data_gate(tmp_path):
    def damage(examples):
        _edit_first(_first_file(examples, "train"), lambda features: features["carry"].int64_list.value.append(1))

    ran, refusal = _run_with_defect(tmp_path, damage)
    assert ran[-1] == "data gate"
    assert "carry" in str(refusal)


def test_the_articles_recipe_is_stopped_by_the_evaluation_at_100_bits(bitsum_run, tmp_path):
    code, terminal, errors = bitsum_run(
        "data.max_length=5",
        "data.train_examples=100",
        "data.eval_examples=100",
        "data.long_lengths=[100]",
        "train.units=16",
        "train.steps=2500",
        "train.learning_rate=0.001",
        "train.loss=quadratic",
        "train.state_noise=0",
        "train.clip_norm=0",
        "train.report_every=2500",
        "proof.train=false",
        "proof.search_seconds=5",
    )
    assert code == 3
    assert "evaluation refused" in errors and "length 100: exact_match" in errors
    assert "evaluation: REFUSED" in terminal and "proof: REFUSED, wrong: it answers" in terminal
    assert not (tmp_path / "var" / "serving").exists()


def test_a_model_that_passes_every_test_is_stopped_by_the_proof_unless_that_is_not_required(bitsum_run, tmp_path):
    # Noise on the state teaches a model to add right wherever it is tested, and hardly ever to be proven.
    noise = ("proof.train=false", "proof.search_seconds=0", "train.state_noise=0.5", "train.steps=1000")
    code, terminal, errors = bitsum_run(*noise)
    assert code == 3
    assert "evaluation: blessed" in terminal and "infra validation: blessed" in terminal
    assert "proof refused: not proven" in errors
    assert not (tmp_path / "var" / "serving").exists()

    code, terminal, errors = bitsum_run(*noise, "proof.required=false")
    assert (code, errors) == (0, "")
    assert "proof: NOT PROVEN, AND NOT REQUIRED TO BE" in terminal
    assert "13 + 29 = 42" in terminal


_LYING_PROBE = """
import json, sys
print(json.dumps({"asked": 5, "right": 4, "wrong": [{"a": "1", "b": "1", "got": "3"}], "errors": {}}))
sys.exit(1)
"""


def test_a_server_that_answers_wrongly_is_stopped_by_infra_validation(bitsum_run, tmp_path):
    prober = json.dumps([sys.executable, "-c", _LYING_PROBE])
    code, terminal, errors = bitsum_run(f"infra.probe_command={prober}")
    assert code == 3
    assert "evaluation: blessed" in terminal
    assert "infra validation refused: " in errors and "1 of 5 questions" in errors
    assert not (tmp_path / "var" / "serving").exists()
