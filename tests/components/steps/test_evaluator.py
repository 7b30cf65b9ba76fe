"""The evaluation gate, on TFX's own Evaluator: the models that it blesses and, above all, those that it refuses."""

import json
import pathlib

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_model_analysis as tfma
from google.protobuf import json_format
from tfx.components.evaluator.executor import Executor
from tfx.dsl.components.base import base_beam_executor
from tfx.types import standard_artifacts

import components
from components import settings, signatures
from components.data import tf_examples
from components.steps import evaluator, metrics
from components.task import addition
from pipeline.records import evaluation

STRICT = settings.Evaluate()
LENGTHS = {"eval": [1, 2, 3, 8], "long": [100]}


class Adder(tf.Module):
    """Adds right, but forgets the carry at one step."""

    def __init__(self, forgets_at: int):
        super().__init__()
        self.forgets_at = tf.Variable(forgets_at, trainable=False)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def serve(self, examples):
        parsed = tf.io.parse_example(examples, {name: tf.io.RaggedFeature(tf.int64) for name in ("a", "b")})
        a, b = (tf.transpose(tf.pad(parsed[name].to_tensor(), [[0, 0], [0, 1]])) for name in ("a", "b"))
        steps = tf.range(tf.shape(a)[0])

        def step(before, inputs):
            total = inputs[0] + inputs[1] + before[1]
            return total % 2, tf.where(inputs[2] == self.forgets_at, tf.zeros_like(total), total // 2)

        zeros = tf.zeros_like(a[0])
        bits, _ = tf.scan(step, (a, b, steps), (zeros, zeros))
        return {"sum": tf.transpose(bits), "length": parsed["a"].row_lengths()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("evaluator")


@pytest.fixture(scope="module")
def examples(folder):
    generator = np.random.default_rng(1)
    for split, lengths in LENGTHS.items():
        (folder / f"Split-{split}").mkdir()
        records = []
        for length in lengths:
            # All ones plus one: every carry matters.
            drawn = [tuple(int.from_bytes(generator.bytes(13), "big") % 2**length for _ in "ab") for _ in range(5)]
            for a, b in [(2**length - 1, 1), *drawn]:
                bits = addition.to_bits(a, length), addition.to_bits(b, length)
                records.append(
                    tf_examples.serialize(
                        {"a": bits[0], "b": bits[1], "sum": addition.to_bits(a + b, length + 1), "length": [length]}
                    )
                )
        tf_examples.write_records(str(folder / f"Split-{split}" / "data_tfrecord-00000-of-00001.gz"), records)
    artifact = standard_artifacts.Examples()
    artifact.uri, artifact.split_names = str(folder), json.dumps(list(LENGTHS))
    return artifact


def _model(folder: pathlib.Path, forgets_at: int) -> standard_artifacts.Model:
    artifact = standard_artifacts.Model()
    artifact.uri = str(folder / f"forgets_at_{forgets_at}")
    adder = Adder(forgets_at)
    tf.saved_model.save(adder, f"{artifact.uri}/Format-Serving", signatures={"serving_default": adder.serve})
    return artifact


def _evaluate(folder, examples, candidate, baseline, lengths, knobs=STRICT, more_schema="") -> tuple[bool, str]:
    """Run the executor as the pipeline has it configured: (blessed, folder of the evaluation)."""
    schema = standard_artifacts.Schema()
    schema.uri = str(folder / f"schema{len(more_schema)}")
    pathlib.Path(schema.uri).mkdir(exist_ok=True)
    text = (pathlib.Path(components.__file__).parent / "data" / "schema.pbtxt").read_text()
    pathlib.Path(schema.uri, "schema.pbtxt").write_text(text + more_schema)
    outputs = {"evaluation": [standard_artifacts.ModelEvaluation()], "blessing": [standard_artifacts.ModelBlessing()]}
    for name, [artifact] in outputs.items():
        artifact.uri = str(
            folder / f"{name}-{candidate.uri[-3:]}-{baseline is not None}-{len(lengths)}-{len(more_schema)}"
        )
    inputs = {"examples": [examples], "model": [candidate], "schema": [schema]}
    if baseline:
        inputs["baseline_model"] = [baseline]
    config = json_format.MessageToJson(evaluator.eval_config(knobs, lengths), preserving_proto_field_name=True)
    arguments = ["--runner=FnApiRunner", "--direct_running_mode=in_memory"]
    context = base_beam_executor.BaseBeamExecutor.Context(
        beam_pipeline_args=arguments, tmp_dir=str(folder), unique_id="1"
    )
    properties = {
        "eval_config": config,
        "example_splits": json.dumps(list(LENGTHS)),
        "fairness_indicator_thresholds": "null",
    }
    Executor(context).Do(inputs, outputs, properties)
    return bool(outputs["blessing"][0].get_int_custom_property("blessed")), outputs["evaluation"][0].uri


def test_a_model_that_is_right_everywhere_is_blessed(folder, examples):
    blessed, found = _evaluate(folder, examples, _model(folder, -1), None, [1, 2, 3, 8, 100])
    assert blessed
    assert evaluation.exact_match_by_length(found) == {1: 1.0, 2: 1.0, 3: 1.0, 8: 1.0, 100: 1.0}


def test_a_model_that_forgets_the_carry_after_50_bits_is_refused_at_100(folder, examples):
    blessed, found = _evaluate(folder, examples, _model(folder, 50), None, [1, 2, 3, 8, 100])
    assert not blessed
    rates = evaluation.exact_match_by_length(found)
    assert rates[100] < 1.0 and rates[8] == 1.0
    failed = tfma.load_validation_result(found).metric_validations_per_slice
    assert {
        (one.slice_key.single_slice_keys[0].int64_value, failure.metric_key.name)
        for one in failed
        for failure in one.failures
    } == {(100, "exact_match"), (100, "bit_accuracy")}


def test_a_wrong_model_has_the_metrics_that_ragged_bits_give(folder, examples):
    found = [
        tfma.load_eval_result(
            _evaluate(folder, examples, _model(folder, 50), None, [8, 100], more_schema=more)[1]
        ).slicing_metrics
        for more in ("", "represent_variable_length_as_ragged: true\n")
    ]
    assert dict(found[0]) == dict(found[1])
    worst = dict(found[0])[(("length", 100),)][signatures.SUM][""]
    assert 0 < worst["exact_match"]["doubleValue"] < worst["bit_accuracy"]["doubleValue"] < 1


def test_a_length_without_examples_is_a_failure_and_not_a_pass(folder, examples):
    blessed, found = _evaluate(folder, examples, _model(folder, -2), None, [1, 2, 3, 8, 100, 101])
    assert not blessed
    [missing] = tfma.load_validation_result(found).missing_slices
    assert dict(missing.feature_values) == {"length": "101"}


def test_a_model_worse_than_the_last_blessed_one_is_refused_though_it_reaches_every_threshold(folder, examples):
    lenient = settings.Evaluate(exact_match=0.0, bit_accuracy=0.0)
    worse, better = _model(folder, 51), _model(folder, -3)
    assert not _evaluate(folder, examples, worse, better, [8, 100], lenient)[0]
    assert _evaluate(folder, examples, better, worse, [8, 100], lenient)[0]


def test_exact_match_is_compared_with_the_last_blessed_model_at_each_length(folder, examples):
    # 6 of 30 sums: over all examples the candidate is at most a fifth worse.
    lenient = settings.Evaluate(exact_match=0.0, bit_accuracy=0.0, max_regression=0.25)
    worse, better = _model(folder, 53), _model(folder, -4)
    blessed, found = _evaluate(folder, examples, worse, better, [8, 100], lenient)
    assert not blessed
    failed = tfma.load_validation_result(found).metric_validations_per_slice
    assert {one.slice_key.single_slice_keys[0].int64_value for one in failed if one.failures} == {100}


@pytest.mark.parametrize(
    ("prediction", "bits", "sums"),
    [
        ([0, 1, 1], (3, 3), (1, 1)),
        ([0, 1, 1, 1, 0], (3, 3), (1, 1)),
        ([0, 0, 1], (2, 3), (0, 1)),
        ([0, 1], (2, 3), (0, 1)),
        ([], (0, 3), (0, 1)),
        ([0, 1, 7], (2, 3), (0, 1)),
        ([0, 1, np.nan], (2, 3), (0, 1)),
    ],
)
def test_missing_and_invalid_bits_count_as_wrong(prediction, bits, sums):
    label = np.array([0, 1, 1])
    assert metrics.right_bits(label, np.array(prediction)) == bits
    assert metrics.right_sum(label, np.array(prediction)) == sums
