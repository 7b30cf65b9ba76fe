"""Commands escape the text that they show from the metadata store, a graph or a checkpoint."""

import json
import shutil

import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2, trackable_object_graph_pb2

from components.printable import printable
from pipeline import cli
from tests.support import certified_model
from tests.support.metadata_stores import FAILED, Store

HOSTILE = "x\x1b[2K\nproven: addition of any length\x9b\u202e\u200b\u2028"


@pytest.fixture
def output_of(capfd):
    """A function: arguments -> (exit code, output), checked to be harmless."""

    def run(*arguments):
        capfd.readouterr()
        code = cli.main([str(argument) for argument in arguments])
        text = "".join(capfd.readouterr())
        assert all(char == "\n" or char.isprintable() for char in text), repr(text)
        assert not any(line.startswith("proven") for line in text.split("\n"))
        return code, text

    return run


@pytest.fixture
def model(tmp_path):
    """A folder with a proven SavedModel."""
    [version] = certified_model.push(tmp_path / "served")
    return tmp_path / "served" / str(version)


def test_runs_reasons_and_folders_of_a_store(output_of, tmp_path):
    store = Store(tmp_path / "var")
    store.run(HOSTILE, version=7)
    store.execution("bad", HOSTILE, {}, {"model": {HOSTILE: HOSTILE}}, FAILED, refused_because=HOSTILE)
    for command, *options in (
        ["history"],
        ["lineage"],
        ["lineage", "7", "--json"],
        ["history", "--json"],
        ["gc", "--keep=1"],
    ):
        code, text = output_of(command, *store.settings, *options)
        assert code == 0 and (printable(HOSTILE) in text or json.dumps(HOSTILE)[1:-1] in text or command == "gc")


def test_nodes_of_a_graph(output_of, model):
    saved = saved_model_pb2.SavedModel.FromString((model / "saved_model.pb").read_bytes())
    saved.meta_graphs[0].graph_def.node.add(name=HOSTILE, op=HOSTILE)
    (model / "saved_model.pb").write_bytes(saved.SerializeToString())
    code, text = output_of("verify", "--graph", model)
    # The text format of protocol buffers escapes the name.
    assert code == 3 and r'name: "x\033[2K\nproven' in text


def test_keys_of_a_checkpoint(output_of, model):
    shutil.rmtree(model / "variables")
    tf.raw_ops.SaveV2(
        prefix=f"{model}/variables/variables",
        tensor_names=[HOSTILE, "_CHECKPOINTABLE_OBJECT_GRAPH"],
        shape_and_slices=["", ""],
        tensors=[tf.constant(1.0), tf.constant(object_graph(HOSTILE))],
    )
    code, text = output_of("verify", model)
    assert code in (1, 3) and text


def object_graph(name: str) -> bytes:
    graph = trackable_object_graph_pb2.TrackableObjectGraph()
    graph.nodes.add().children.add(node_id=1, local_name=name)
    graph.nodes.add().attributes.add(name="VARIABLE_VALUE", full_name=name, checkpoint_key=name)
    return graph.SerializeToString()
