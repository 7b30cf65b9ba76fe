"""Weights read out of a SavedModel without TensorFlow, against TensorFlow's own reader; damage is never read as
weights."""

import pathlib
import shutil
import struct

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import trackable_object_graph_pb2

from components.errors import BitsumError
from components.formats import crc32c, table
from components.proof.weights import NAMES
from components.savedmodel import checkpoint
from components.savedmodel.checkpoint import checkpoint_key
from tests.support import certified

pytestmark = pytest.mark.fast

INDEX, DATA = "variables.index", "variables.data-00000-of-00001"


def arrays():
    return certified.arrays(certified.weights())


def save(
    model_dir: pathlib.Path,
    variables: dict,
    objects: list[tuple[str, str, str]] | None = None,
    shape: tuple[int, ...] = (),
) -> pathlib.Path:
    """A checkpoint of `variables`, by TensorFlow; `objects` are the names of children, attributes and keys in its
    object graph, which is a string tensor of this `shape`."""
    graph = trackable_object_graph_pb2.TrackableObjectGraph()
    graph.nodes.add()
    for child, attribute, key in (
        [(name, "VARIABLE_VALUE", checkpoint_key(name)) for name in NAMES] if objects is None else objects
    ):
        graph.nodes[0].children.add(node_id=len(graph.nodes), local_name=child)
        graph.nodes.add().attributes.add(name=attribute, checkpoint_key=key)
    tensors = {checkpoint_key(name): value for name, value in variables.items()}
    tensors["_CHECKPOINTABLE_OBJECT_GRAPH"] = tf.constant(graph.SerializeToString(), shape=shape)
    (model_dir / "variables").mkdir(parents=True)
    prefix = str(model_dir / "variables" / "variables")
    tf.raw_ops.SaveV2(
        prefix=prefix, tensor_names=list(tensors), shape_and_slices=[""] * len(tensors), tensors=list(tensors.values())
    )
    return model_dir


def refused(model_dir: pathlib.Path) -> str:
    with pytest.raises(BitsumError) as refusal:
        checkpoint.read(model_dir)
    text = str(refusal.value)
    assert "\n" not in text and str(model_dir) in text and len(text) < 600
    return text


def test_weights_are_those_that_tensorflow_reads(certified_model):
    read = checkpoint.read(certified_model)
    reader = tf.train.load_checkpoint(str(certified_model / "variables" / "variables"))
    for name in NAMES:
        np.testing.assert_array_equal(
            np.array(getattr(read, name), np.float32), reader.get_tensor(checkpoint_key(name))
        )
    assert read == certified.weights()


def test_every_float_is_read_as_it_is(tmp_path):
    values = [0.0, -0.0, np.inf, -np.inf, np.nan, 2.0**-149, 2.0**-126, -(2.0**127), 1 / 3]
    special = arrays() | {name: np.resize(np.float32(values), value.shape) for name, value in arrays().items()}
    read = checkpoint.read(save(tmp_path, special))
    for name, value in special.items():
        assert np.array(getattr(read, name), np.float32).tobytes() == value.tobytes()
    assert "not a float32 that is zero or from 2**-126" in read.problem()


def test_a_table_of_many_blocks_is_read_whole(tmp_path):
    # A block is closed when it has 256 kB; names that share a beginning are stored without it.
    names = [f"{number * 7919 % 1009:04}/of/{'long/' * 120}{number % 3}" for number in range(1000)]
    values = [np.float32(number) for number in range(len(names))]
    tf.raw_ops.SaveV2(
        prefix=str(tmp_path / "many"), tensor_names=names, shape_and_slices=[""] * len(names), tensors=values
    )
    entries = table.read((tmp_path / "many.index").read_bytes())
    assert [key.decode() for key in entries] == ["", *sorted(names)]
    # Where the value lies tells the entries apart.
    assert len(set(entries.values())) == len(entries)


@pytest.mark.parametrize("name, stride", [(INDEX, 3), (DATA, 29)])
def test_a_changed_byte_never_changes_the_weights(certified_model, tmp_path, name, stride):
    shutil.copytree(certified_model / "variables", tmp_path / "variables")
    path = tmp_path / "variables" / name
    content = path.read_bytes()
    unnoticed = []
    for position in range(0, len(content), stride):
        path.write_bytes(content[:position] + bytes([content[position] ^ 0x10]) + content[position + 1 :])
        try:
            assert checkpoint.read(tmp_path) == certified.weights()
            unnoticed.append(position)
        except BitsumError as error:
            assert "\n" not in str(error)
    assert not unnoticed


@pytest.mark.parametrize("name, stride", [(INDEX, 5), (DATA, 41)])
def test_truncated_files_are_refused(certified_model, tmp_path, name, stride):
    shutil.copytree(certified_model / "variables", tmp_path / "variables")
    path = tmp_path / "variables" / name
    content = path.read_bytes()
    for length in [*range(0, len(content), stride), len(content) - 1]:
        path.write_bytes(content[:length])
        assert "truncated" in refused(tmp_path)
    path.write_bytes(content + b"\0")
    refused(tmp_path)
    path.unlink()
    assert "No such file" in refused(tmp_path)


def test_a_compressed_block_is_refused(certified_model, tmp_path):
    shutil.copytree(certified_model / "variables", tmp_path / "variables")
    path = tmp_path / "variables" / INDEX
    content = bytearray(path.read_bytes())
    # The first block ends where the checksum of all before it stands.
    end = next(
        p
        for p in range(len(content))
        if content[p + 1 : p + 5] == struct.pack("<I", crc32c.masked(bytes(content[: p + 1])))
    )
    content[end] = 1
    content[end + 1 : end + 5] = struct.pack("<I", crc32c.masked(bytes(content[: end + 1])))
    path.write_bytes(content)
    assert "the block at 0 is compressed" in refused(tmp_path)


def test_a_changed_checksum_of_the_object_graph_is_refused(certified_model, tmp_path):
    shutil.copytree(certified_model / "variables", tmp_path / "variables")
    content = bytearray((tmp_path / "variables" / DATA).read_bytes())
    # The object graph names the attribute; a changed letter leaves the length as it is.
    content[content.index(b"VARIABLE_VALUE")] ^= 0x20
    (tmp_path / "variables" / DATA).write_bytes(content)
    assert "the checksum of _CHECKPOINTABLE_OBJECT_GRAPH does not match" in refused(tmp_path)


def values_of(names):
    return [(name, "VARIABLE_VALUE", checkpoint_key(name)) for name in names]


SWAPPED = [(name, "VARIABLE_VALUE", checkpoint_key({"U_z": "U_r", "U_r": "U_z"}.get(name, name))) for name in NAMES]


@pytest.mark.parametrize(
    "change, objects, words",
    [
        ({"U_z": np.zeros((8, 8))}, None, "U_z/.ATTRIBUTES/VARIABLE_VALUE is not a tensor of type DT_FLOAT"),
        ({"b_z": np.float32(1)}, None, "b_z/.ATTRIBUTES/VARIABLE_VALUE has 4 bytes and shape []"),
        ({"b_z": np.zeros(0, np.float32)}, None, "b_z/.ATTRIBUTES/VARIABLE_VALUE has 0 bytes and shape [0]"),
        ({"extra": np.float32(1)}, None, "b_o, extra/.ATTRIBUTES/VARIABLE_VALUE"),
        ({"extra": np.float32(1)}, values_of([*NAMES, "extra"]), "b_o, extra"),
        ({}, values_of(NAMES[:-1]), "W_o, b_o/.ATTRIBUTES/VARIABLE_VALUE"),
        ({}, SWAPPED, "has 'U_r/.ATTRIBUTES/VARIABLE_VALUE' as VARIABLE_VALUE of 'U_z'"),
        ({}, [("W_z", "OTHER", checkpoint_key("W_z"))], "as OTHER of 'W_z'"),
        ({}, [], "found U_h/.ATTRIBUTES/VARIABLE_VALUE"),
    ],
)
def test_checkpoints_other_than_a_cells_are_refused(tmp_path, change, objects, words):
    assert words in refused(save(tmp_path, arrays() | change, objects))


def test_an_object_graph_in_a_vector_is_refused(tmp_path):
    assert "_CHECKPOINTABLE_OBJECT_GRAPH is not one string" in refused(save(tmp_path, arrays(), shape=(1,)))


def test_missing_variables_are_named(tmp_path):
    present = {name: value for name, value in arrays().items() if name != "U_h"}
    assert "U_h/.ATTRIBUTES/VARIABLE_VALUE is missing" in refused(save(tmp_path, present))


def test_other_folders_are_refused_in_one_line(tmp_path):
    assert "is this the folder of a SavedModel?" in refused(tmp_path)
    (tmp_path / "variables").mkdir()
    (tmp_path / "variables" / INDEX).write_bytes(bytes(2**20 + 1))
    assert "it has 1048577 bytes or more, the limit is 1048576" in refused(tmp_path)
