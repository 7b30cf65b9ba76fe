"""Checkpoints that show TensorFlow other weights than a reader that goes from front to back: made here, and refused by
bitsum's reader."""

import random
import shutil

import pytest
import tensorflow as tf
from tensorflow.core.protobuf import trackable_object_graph_pb2

from benchmarks import checkpoint_fuzz, forged_checkpoints
from benchmarks.forged_checkpoints import Checkpoint
from components.errors import BitsumError
from components.formats import table
from components.savedmodel import checkpoint as saved_weights
from components.savedmodel import loaded_weights
from components.savedmodel.checkpoint import checkpoint_key
from tests.support import certified

pytestmark = pytest.mark.fast


@pytest.fixture
def model(certified_model, tmp_path):
    return shutil.copytree(certified_model, tmp_path / "model")


def forged(model, tamper) -> Checkpoint:
    checkpoint = Checkpoint.read(model)
    tamper(checkpoint, random.Random(1))
    checkpoint.write(model)
    return checkpoint


HIDING = [forged_checkpoints.hide_in_value, forged_checkpoints.hide_behind_handle]


@pytest.mark.parametrize("tamper", HIDING)
def test_a_second_run_of_entries_has_tensorflow_load_other_weights_and_is_refused(model, tamper):
    forged(model, tamper)
    loaded = tf.saved_model.load(str(model))
    weights = certified.arrays(certified.weights())
    assert loaded.U_z.numpy().tobytes() == weights["U_r"].tobytes() != weights["U_z"].tobytes()
    with pytest.raises(BitsumError, match=r"variables.index is damaged: a restart point is not at an entry") as refusal:
        saved_weights.read(model)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("tamper", HIDING)
def test_each_defence_does_without_the_others(model, tamper, monkeypatch):
    checkpoint = forged(model, tamper)
    front_to_back = dict(checkpoint.entries)
    # The table as TensorFlow would write what is read from front to back is another one.
    assert table.write(front_to_back) != checkpoint.table()
    monkeypatch.setattr(table, "read", lambda _: dict(front_to_back))
    if tamper is forged_checkpoints.hide_in_value:
        with pytest.raises(BitsumError, match=r"the entry of 'b_z/.ATTRIBUTES/VARIABLE_VALUE' holds unknown fields"):
            saved_weights.read(model)
        monkeypatch.setattr(saved_weights, "_require_plain", lambda *_: None)
    assert saved_weights.read(model) == certified.weights()
    keys = [checkpoint_key(name) for name in ("U_r", "U_z", "W_h", "W_z", "b_r", "b_z")]
    assert loaded_weights.differences(model) == [
        f"TensorFlow loads a different {key} than the checker reads" for key in keys
    ]


def test_the_weights_of_an_export_are_those_that_tensorflow_loads(certified_model):
    assert loaded_weights.differences(certified_model) == []


def test_a_checkpoint_that_tensorflow_does_not_load_is_no_match(model, monkeypatch):
    weights, graph = saved_weights.read(model), saved_weights.object_graph(model)
    monkeypatch.setattr(saved_weights, "read", lambda _: weights)
    monkeypatch.setattr(saved_weights, "object_graph", lambda _: graph)
    (model / "variables" / "variables.index").write_bytes(b"no table")
    [line] = loaded_weights.differences(model)
    assert line.startswith("TensorFlow cannot load the weights: ") and "\n" not in line


UNKNOWN = forged_checkpoints.field(100, b"hidden")


def append(more):
    return lambda checkpoint, key: checkpoint.set(key, checkpoint.value(key) + more)


def drop_the_shape(checkpoint, key):
    checkpoint.change(key, lambda entry: entry.ClearField("shape"))


def add_a_slice(checkpoint, key):
    checkpoint.change(key, lambda entry: entry.slices.add())


def name_a_dimension(checkpoint, key):
    checkpoint.change(key, lambda entry: setattr(entry.shape.dim[0], "name", "x"))


def nest_an_unknown_field(checkpoint, key):
    checkpoint.change(key, lambda entry: entry.shape.dim[0].MergeFromString(forged_checkpoints.field(100, b"x")))


@pytest.mark.parametrize(
    "change, key, words",
    [
        (append(UNKNOWN), b"", "the header holds unknown fields, or TensorFlow writes it differently"),
        (append(b"\x08\x01"), b"", "the header holds unknown fields"),
        (append(b"\x1a\x02\x10\x01"), b"", "the header holds unknown fields"),
        (append(UNKNOWN), b"U_h/.ATTRIBUTES/VARIABLE_VALUE", "the entry of 'U_h/.ATTR.* holds unknown fields"),
        (
            append(b"\x08\x01"),
            b"b_o/.ATTRIBUTES/VARIABLE_VALUE",
            "the entry of 'b_o/.* holds unknown fields, or TensorFlow writes",
        ),
        # The end of a group: some versions of protobuf skip it, others refuse it.
        (append(b"\x0c"), b"b_o/.ATTRIBUTES/VARIABLE_VALUE", "'b_o/.* holds unknown fields|cannot read the weights"),
        (append(b"\0\0"), b"b_o/.ATTRIBUTES/VARIABLE_VALUE", "cannot read the weights"),
        (drop_the_shape, b"b_o/.ATTRIBUTES/VARIABLE_VALUE", "the entry of 'b_o/.* TensorFlow writes it differently"),
        (name_a_dimension, b"b_o/.ATTRIBUTES/VARIABLE_VALUE", "the entry of 'b_o/.* TensorFlow writes it differently"),
        (nest_an_unknown_field, b"b_o/.ATTRIBUTES/VARIABLE_VALUE", "the entry of 'b_o/.* holds unknown fields"),
        (add_a_slice, b"b_o/.ATTRIBUTES/VARIABLE_VALUE", "the entry of 'b_o/.* has slices"),
    ],
)
def test_messages_that_tensorflow_does_not_write_are_refused(model, change, key, words, recwarn):
    checkpoint = Checkpoint.read(model)
    change(checkpoint, key)
    checkpoint.write(model)
    with pytest.raises(BitsumError, match=words) as refusal:
        saved_weights.read(model)
    assert "\n" not in str(refusal.value) and not recwarn.list


@pytest.mark.parametrize(
    "more", [forged_checkpoints.field(100, b"hidden weights"), b"\x0c", b"\x0a\x05\xaa\x06\x02hi", b"\x0a\x81\x00"]
)
def test_an_object_graph_hides_nothing(model, more):
    checkpoint = Checkpoint.read(model)
    forged_checkpoints.set_text(checkpoint, saved_weights.object_graph(model) + more)
    checkpoint.write(model)
    with pytest.raises(BitsumError, match=r"object graph holds unknown fields|cannot read the weights"):
        saved_weights.read(model)


def test_an_object_graph_that_restores_differently_is_refused(model):
    """By a saver of its own TensorFlow's Python loader leaves variables without values; of two children of a name it
    takes one."""
    for change, words in (
        (lambda graph: graph.nodes[1].registered_saver.SetInParent(), "restores values differently"),
        (lambda graph: graph.nodes[0].slot_variables.add(slot_name="m"), "restores values differently"),
        (
            lambda graph: graph.nodes[0].children.add(node_id=1, local_name=graph.nodes[0].children[1].local_name),
            "the same name",
        ),
        (lambda graph: graph.Clear(), "its object graph is empty"),
    ):
        checkpoint = Checkpoint.read(model)
        before = saved_weights.object_graph(model)
        graph = trackable_object_graph_pb2.TrackableObjectGraph.FromString(before)
        change(graph)
        forged_checkpoints.set_text(checkpoint, graph.SerializeToString(deterministic=True))
        checkpoint.write(model)
        with pytest.raises(BitsumError, match=words):
            saved_weights.read(model)
        forged_checkpoints.set_text(checkpoint, before)
        checkpoint.write(model)
        saved_weights.read(model)


def test_random_checkpoints_are_read_as_tensorflow_reads_them_or_refused(certified_model, tmp_path):
    """A sample of `python -m benchmarks.checkpoint_fuzz`."""
    outcome = checkpoint_fuzz.run(certified_model, tmp_path, range(150), seed=1)
    assert outcome.violations == []
    assert outcome.total("equal") >= 5 and outcome.total("refused") >= 100
    # Most of what is refused would load.
    assert outcome.total("forged") >= 30
    assert len(outcome.counts) == len(forged_checkpoints.TAMPERINGS) + 1
