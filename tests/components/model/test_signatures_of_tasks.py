"""Exports for every task: the names and results of their signatures, and their warmup requests."""

import random

import pytest
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from components import signatures
from components.model import export
from components.savedmodel import export_format, model_files, warmup
from components.settings import ProofSettings
from components.steps import prover
from components.task.addition import to_bits
from components.task.transducer import ADDITION, COMPARISON, SUBTRACTION
from tests.support import hand_made
from tests.support.cells import cell_of
from tests.support.examples import example

CELLS = {ADDITION: hand_made.adder, SUBTRACTION: hand_made.subtractor, COMPARISON: hand_made.comparer}
NUMBERS = (export_format.FIRST, export_format.LATEST)
BITS = 24

EXPORTS = {f"{task.name} in format {number}": (task, number) for task in CELLS for number in NUMBERS}


@pytest.fixture(scope="module", params=EXPORTS.values(), ids=EXPORTS)
def model(request, tmp_path_factory):
    """(task, verb of its signatures, folder)."""
    task, number = request.param
    folder = tmp_path_factory.mktemp("model") / "model"
    export.save(CELLS[task](), str(folder), task=task, form=number)
    return task, task.verb if number == export_format.LATEST else "add", folder


def test_the_signatures_are_named_after_the_task_and_compute_it(model):
    task, verb, folder = model
    loaded = tf.saved_model.load(str(folder)).signatures
    assert set(loaded) == {"serving_default", f"{verb}_bits", "step", f"{verb}_packed"}
    draw = random.Random(1)
    for a, b in [(13, 29), (29, 13), (5, 5), *((draw.getrandbits(BITS), draw.getrandbits(BITS)) for _ in range(5))]:
        operands = {name: tf.constant([to_bits(value, BITS)], tf.int64) for name, value in (("a", a), ("b", b))}
        assert task.value(loaded[f"{verb}_bits"](**operands)["sum"][0].numpy().tolist()) == task.meaning(a, b)
        packed = {name: tf.constant([value.to_bytes(BITS // 8 + 1, "little")]) for name, value in (("a", a), ("b", b))}
        [written] = loaded[f"{verb}_packed"](**packed, state=tf.zeros([1, 3]))["sum"].numpy()
        assert task.read(int.from_bytes(written, "little"), 8 * len(written)) == task.meaning(a, b)


def test_warmup_requests_are_for_the_signatures_that_the_model_has(model, tmp_path):
    _, verb, folder = model
    count = warmup.write(folder, [example(a=[1, 0, 1], b=[1, 0, 1])], "model")
    logs = [
        prediction_log_pb2.PredictionLog.FromString(raw.numpy())
        for raw in tf.data.TFRecordDataset(str(folder / model_files.WARMUP_REQUESTS))
    ]
    requests = [log.predict_log.request for log in logs]
    assert sorted(request.model_spec.signature_name for request in requests) == sorted(
        ["serving_default", "step", f"{verb}_bits", f"{verb}_packed"]
    )
    loaded = tf.saved_model.load(str(folder)).signatures
    for request in requests:
        loaded[request.model_spec.signature_name](
            **{name: tf.constant(tf.make_ndarray(value)) for name, value in request.inputs.items()}
        )
    assert count == len(requests)


@pytest.mark.parametrize("number", NUMBERS)
def test_the_prover_asks_a_wrong_model_by_the_name_that_it_has(number, tmp_path):
    """A cell that adds, as one for subtraction."""
    export.save(cell_of(), str(tmp_path / "model"), task=SUBTRACTION, form=number)
    found = prover.prove(str(tmp_path / "model"), ProofSettings(search_seconds=10.0), SUBTRACTION.name)
    assert found.reason.startswith("wrong: it answers "), found.reason


def test_called_and_verbs():
    subtractor = ["serving_default", "subtract_bits", "step", "subtract_packed"]
    assert signatures.verbs(subtractor) == ["subtract"]
    for name, expected in [
        ("add_bits", "subtract_bits"),
        ("compare_packed", "subtract_packed"),
        ("subtract_bits", "subtract_bits"),
        ("step", "step"),
        ("", ""),
        ("nope", "nope"),
    ]:
        assert signatures.called(name, subtractor) == expected
    assert signatures.called("add_bits", ["step"]) == "add_bits"
