"""What makes two exported models the same: their weights and their graph, whatever process wrote them and when.

The files of two exports of one model differ: names of traced functions carry a counter of the process. TensorFlow's own
fingerprint has the opposite flaw: its graph_def_program_hash leaves the bodies of functions out, where all of the cell is.
"""

import hashlib
import pathlib

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.framework import function_pb2, graph_pb2, node_def_pb2
from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2

from components.errors import BitsumError

_VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"


def fingerprint(model_dir: str) -> str:
    """The identity of the SavedModel in `model_dir`: hexadecimal SHA-256 of its graph's and its weights' hashes.

    Raises:
        BitsumError: there is no readable SavedModel.
    """
    return _sha256(graph_sha256(model_dir).encode(), weights_sha256(model_dir).encode())


def weights(model_dir: str) -> dict[str, np.ndarray]:
    """The variables of the SavedModel in `model_dir` by name, as its checkpoint holds them.

    Raises:
        BitsumError: there is no readable checkpoint.
    """
    try:
        reader = tf.train.load_checkpoint(str(pathlib.Path(model_dir) / "variables" / "variables"))
        names = sorted(name for name in reader.get_variable_to_shape_map() if name.endswith(_VALUE))
        return {name.removesuffix(_VALUE): reader.get_tensor(name) for name in names}
    except (tf.errors.OpError, ValueError, RuntimeError) as error:
        raise BitsumError(f"cannot read the weights of the model in {model_dir}: {str(error).partition(chr(10))[0]}") from error


def weights_sha256(model_dir: str) -> str:
    """Hexadecimal SHA-256 over name, dtype, shape and little-endian bytes of every variable, in the order of the names."""
    parts = []
    for name, value in weights(model_dir).items():
        little_endian = value.astype(value.dtype.newbyteorder("<"))
        parts += [f"{name} {value.dtype.name} {value.shape}".encode(), little_endian.tobytes()]
    return _sha256(*parts)


def graph_sha256(model_dir: str) -> str:
    """Hexadecimal SHA-256 of the graph with its signatures; the weights are no part of it."""
    model = _meta_graph(model_dir)
    functions = {function.signature.name: function for function in model.graph_def.library.function}
    hashes: dict[str, str] = {}
    graph = graph_pb2.GraphDef()
    graph.node.extend(_with_hashed_calls(node, functions, hashes) for node in model.graph_def.node)
    signatures = [
        name.encode() + signature.SerializeToString(deterministic=True) for name, signature in sorted(model.signature_def.items())
    ]
    return _sha256(graph.SerializeToString(deterministic=True), *signatures)


def _meta_graph(model_dir: str) -> meta_graph_pb2.MetaGraphDef:
    path = pathlib.Path(model_dir) / "saved_model.pb"
    try:
        return saved_model_pb2.SavedModel.FromString(path.read_bytes()).meta_graphs[0]
    except OSError as error:
        raise BitsumError(f"cannot read the model {path}: {error.strerror}") from error
    except (DecodeError, IndexError) as error:
        raise BitsumError(f"{path} is no SavedModel") from error


def _function_hash(name: str, functions: dict[str, function_pb2.FunctionDef], hashes: dict[str, str]) -> str:
    """The hash of a function's body: arguments stand by their position, functions that it calls by their hashes."""
    if name not in hashes:
        function = function_pb2.FunctionDef()
        function.CopyFrom(functions[name])
        function.signature.name = ""
        # Names of arguments, given or inferred, can hold counters of the process.
        function.arg_attr.clear()
        positions = {}
        for position, argument in enumerate(function.signature.input_arg):
            positions[argument.name] = argument.name = f"argument {position}"
        for key, value in function.ret.items():
            function.ret[key] = positions.get(value, value)
        nodes = [_with_hashed_calls(node, functions, hashes) for node in function.node_def]
        for node in nodes:
            node.input[:] = [positions.get(name, name) for name in node.input]
        del function.node_def[:]
        function.node_def.extend(nodes)
        hashes[name] = _sha256(function.SerializeToString(deterministic=True))
    return hashes[name]


def _with_hashed_calls(
    node: node_def_pb2.NodeDef, functions: dict[str, function_pb2.FunctionDef], hashes: dict[str, str]
) -> node_def_pb2.NodeDef:
    node = node_def_pb2.NodeDef.FromString(node.SerializeToString())
    if node.op in functions:
        node.op = _function_hash(node.op, functions, hashes)
    for value in node.attr.values():
        for called in [value.func, *value.list.func] if value.WhichOneof("value") in ("func", "list") else []:
            if called.name in functions:
                called.name = _function_hash(called.name, functions, hashes)
    return node


def _sha256(*parts: bytes) -> str:
    """SHA-256 of the parts, each with its length before it so that no two lists of parts run together."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()
