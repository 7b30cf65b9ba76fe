"""A SavedModel's graph in canonical form: equal for every process that exports the same cell, and for nothing else.

Only names hold the counters of a process, and the names of functions decide their order in the library. So each name is
replaced by a position: a node's by its place in its graph, an argument's by its number, a function's by the hash of its
own canonical form. Nothing else changes, so equal canonical forms are the same graph. The form keeps operations,
attributes (including the session options of a call), constants, devices, the set of control inputs, the whole library,
signatures, the operations that restore and initialize, and the object graph from which Python loads. It omits only what
`IGNORED` lists.

The values of the variables are in another file. Every version of TensorFlow gives one model the same form; its own
exports differ from another version's, as their operations and session options do.
"""

import copy
import hashlib
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

from google.protobuf.message import DecodeError, Message

from components import regular_files
from components.errors import BitsumError, unreadable
from components.formats import map_order, protos, strict_protos

# Message type -> fields without meaning to a runtime: the release that wrote the model, the source line of a node.
IGNORED = {
    "tensorflow.MetaGraphDef.MetaInfoDef": ("tensorflow_version", "tensorflow_git_version"),
    "tensorflow.NodeDef": ("experimental_debug_info",),
    "tensorflow.GraphDef": ("debug_info",),
}
# The name of an argument in Python, which can hold a counter.
IGNORED_ARGUMENT_ATTRIBUTES = ("_user_specified_name",)

_FILE = "saved_model.pb"
# A cell has half a megabyte.
_MAX_BYTES = 64 * 2**20
_MAX_CALL_DEPTH = 64
# Operations that call the function in their attribute f. Its nodes are inlined under names that begin with the call's.
_CALLS = ("PartitionedCall", "StatefulPartitionedCall")
# Functions that call one another twice each grow exponentially; an export has several hundred nodes.
_MAX_INLINED_NODES = 100_000


class Graph:
    """The graph of the SavedModel in `model_dir`, raw (`meta_graph`, `functions` by name) and canonical.

    With `named`, canonical forms keep the names of nodes for messages about them; these names depend on the process.

    Raises:
        BitsumError: `model_dir` has no readable SavedModel of one MetaGraph, or its parts do not fit together.
    """

    def __init__(self, model_dir: str | pathlib.Path):
        self._path = pathlib.Path(model_dir) / _FILE
        self.meta_graph = _meta_graph(self._path)
        library = self.meta_graph.graph_def.library.function
        self.functions = {function.signature.name: function for function in library}
        self._hashes: dict[str, str] = {}
        self._open: set[str] = set()
        self._require(len(self.functions) == len(library), "two functions have the same name")
        self.library = sorted(self.function_sha256(name) for name in self.functions)
        nodes = self.meta_graph.graph_def.node
        self._require(len({node.name for node in nodes}) == len(nodes), "two nodes have the same name")
        self._check_inlined()

    def sha256(self) -> str:
        """Hexadecimal SHA-256 of the canonical form."""
        return sha256_of_parts(map_order.serialized(self.canonical()), "\n".join(self.library).encode())

    def canonical(self, named: bool = False) -> Any:
        """The MetaGraphDef in canonical form, without its library."""
        model = copy.deepcopy(self.meta_graph)
        graph = model.graph_def
        index = _indexed(graph.node, named)
        _replace(graph.node, [self._node(node, index) for node in graph.node])
        del graph.library.function[:]
        _forget(model.meta_info_def)
        _forget(graph)
        self._canonical_ends(model, index)
        self._canonical_objects(model.object_graph_def)
        # Gradients and aliases keep their function names; an export has none of them.
        return model

    def function(self, name: str, named: bool = False) -> Any:
        """The function's FunctionDef in canonical form."""
        function = copy.deepcopy(self.functions[name])
        signature = function.signature
        index = _numbered("argument", (argument.name for argument in signature.input_arg)) | _indexed(
            function.node_def, named
        )
        self._require(
            len(index) == len(signature.input_arg) + len(function.node_def), f"function {name} uses a name twice"
        )
        signature.name = ""
        results = _numbered("result", (result.name for result in signature.output_arg))
        # Any other key could equal a name that a result is given below, and replace that result.
        returns_all = len(results) == len(signature.output_arg) and set(function.ret) == set(results)
        self._require(returns_all, f"function {name} does not return exactly its results")
        for argument in signature.input_arg:
            argument.name = index[argument.name]
        for result in signature.output_arg:
            result.name = results[result.name]
        returned = {results[key]: self._reference(value, index) for key, value in function.ret.items()}
        kept = {self._reference(function.control_ret[key], index) for key in function.control_ret}
        self._require(
            set(signature.control_output) == set(function.control_ret),
            f"function {name} keeps operations that it lacks",
        )
        _replace(signature.control_output, sorted(kept))
        _replace_map(function.control_ret, {reference: reference for reference in kept})
        _replace_map(function.ret, returned)
        _replace(function.node_def, [self._node(node, index) for node in function.node_def])
        for attributes in function.arg_attr.values():
            for ignored in IGNORED_ARGUMENT_ATTRIBUTES:
                attributes.attr.pop(ignored, None)
        return function

    def _node(self, node: Any, index: Mapping[str, str]) -> Any:
        """The NodeDef in canonical form. `index` has the canonical names of its graph's nodes and arguments."""
        node = copy.deepcopy(node)
        _forget(node)
        node.name = index[node.name]
        control = {self._reference(name, index) for name in node.input if name.startswith("^")}
        _replace(
            node.input,
            [self._reference(name, index) for name in node.input if not name.startswith("^")] + sorted(control),
        )
        node.op = self._called(node.op)
        self._canonical_calls(node.attr)
        return node

    def _reference(self, tensor: str, index: Mapping[str, str]) -> str:
        """The reference to a tensor or, with "^", to an operation, by its canonical name."""
        name, colon, output = tensor.removeprefix("^").partition(":")
        self._require(name in index, f"something reads {tensor!r}, which does not exist")
        return "^"[: tensor.startswith("^")] + index[name] + colon + output

    def _called(self, name: str) -> str:
        """The hash of the function called `name`, or `name` itself."""
        return f"function {self.function_sha256(name)}" if name in self.functions else name

    def function_sha256(self, name: str) -> str:
        """Hexadecimal SHA-256 of the function's canonical form."""
        if name not in self._hashes:
            self._require(
                name not in self._open and len(self._open) < _MAX_CALL_DEPTH,
                f"function {name} is recursive, or nested too deeply",
            )
            self._open.add(name)
            self._hashes[name] = sha256_of_parts(map_order.serialized(self.function(name)))
            self._open.remove(name)
        return self._hashes[name]

    def _check_inlined(self) -> None:
        """Refuse a graph in which two nodes would have one name once calls are inlined: TensorFlow's optimizer aborts.

        Raises:
            BitsumError: there are such nodes, or too many nodes.
        """
        inside: dict[str, set[str]] = {}

        def inlined(nodes: Iterable[Any]) -> set[str]:
            seen: set[str] = set()
            for node in nodes:
                called = node.attr["f"].func.name if node.op in _CALLS else node.op
                below = {f"{node.name}/{name}" for name in names(called)} if called in self.functions else set()
                self._require(
                    not seen & {node.name, *below}, f"{node.name!r} would occur twice once its calls are inlined"
                )
                seen |= {node.name, *below}
                self._require(len(seen) <= _MAX_INLINED_NODES, f"its calls inlined exceed {_MAX_INLINED_NODES} nodes")
            return seen

        def names(function: str) -> set[str]:
            if function not in inside:
                inside[function] = inlined(self.functions[function].node_def)
            return inside[function]

        for function in self.functions:
            names(function)
        inlined(self.meta_graph.graph_def.node)

    def _canonical_calls(self, attributes: Mapping[str, Any]) -> None:
        for value in attributes.values():
            for call in (value.func, *value.list.func) if value.WhichOneof("value") in ("func", "list") else ():
                # Writing to the `func` of a list value would turn the value into a func.
                if call.name:
                    call.name = self._called(call.name)
                    self._canonical_calls(call.attr)

    def _canonical_ends(self, model: Any, index: Mapping[str, str]) -> None:
        """Rename the references to tensors from outside of the graph: signatures, saver, collections."""
        for signature in model.signature_def.values():
            for tensor in (*signature.inputs.values(), *signature.outputs.values()):
                if tensor.WhichOneof("encoding") == "name":
                    tensor.name = self._reference(tensor.name, index)
        saver = model.saver_def
        for field in ("filename_tensor_name", "save_tensor_name", "restore_op_name"):
            if getattr(saver, field):
                setattr(saver, field, self._reference(getattr(saver, field), index))
        for collection in model.collection_def.values():
            if collection.WhichOneof("kind") == "node_list":
                _replace(
                    collection.node_list.value, [self._reference(name, index) for name in collection.node_list.value]
                )

    def _canonical_objects(self, objects: Any) -> None:
        concrete = {name: self._called(name) for name in objects.concrete_functions}
        self._require(len(set(concrete.values())) == len(concrete), "two functions of its object graph are the same")
        _replace_map(
            objects.concrete_functions,
            {concrete[name]: copy.deepcopy(value) for name, value in objects.concrete_functions.items()},
        )
        for node in objects.nodes:
            if node.WhichOneof("kind") == "function":
                _replace(
                    node.function.concrete_functions, [self._called(name) for name in node.function.concrete_functions]
                )
            if node.WhichOneof("kind") == "bare_concrete_function":
                node.bare_concrete_function.concrete_function_name = self._called(
                    node.bare_concrete_function.concrete_function_name
                )

    def _require(self, holds: bool, problem: str) -> None:
        if not holds:
            raise BitsumError(f"{self._path} is damaged: {problem}")


def _meta_graph(path: pathlib.Path) -> Any:
    modules = protos.load(saved_model="tensorflow.core.protobuf.saved_model_pb2")
    try:
        model = strict_protos.parse(modules.saved_model.SavedModel, regular_files.read(path, _MAX_BYTES))
    except OSError as error:
        raise BitsumError(unreadable(f"the model {path}", error)) from error
    except DecodeError as error:
        raise BitsumError(f"{path} is not a SavedModel, or is damaged") from error
    if len(model.meta_graphs) != 1 or model.saved_model_schema_version != 1:
        content = f"{len(model.meta_graphs)} graphs in schema {model.saved_model_schema_version}"
        raise BitsumError(f"{path} holds {content}, must hold one in schema 1")
    outer = type(model)()
    outer.CopyFrom(model)
    del outer.meta_graphs[:]
    if outer.ByteSize() != type(model)(saved_model_schema_version=1).ByteSize():
        raise BitsumError(f"{path} holds unknown fields besides its graph")
    return model.meta_graphs[0]


def _indexed(nodes: Iterable[Any], named: bool) -> dict[str, str]:
    names = [node.name for node in nodes]
    return {name: name for name in names} if named else _numbered("node", names)


def _numbered(kind: str, names: Iterable[str]) -> dict[str, str]:
    return {name: f"{kind} {number}" for number, name in enumerate(names)}


def _forget(message: Message) -> None:
    # Some versions of TensorFlow lack some fields.
    for field in {*message.DESCRIPTOR.fields_by_name}.intersection(IGNORED.get(message.DESCRIPTOR.full_name, ())):
        message.ClearField(field)


def _replace(field: Any, values: Iterable[Any]) -> None:
    del field[:]
    field.extend(values)


def _replace_map(field: Any, values: Mapping[str, Any]) -> None:
    field.clear()
    for key, value in values.items():
        if isinstance(value, Message):
            field[key].CopyFrom(value)
        else:
            field[key] = value


def sha256_of_parts(*parts: bytes) -> str:
    """Hexadecimal SHA-256 of the parts, each preceded by its length, so that different lists of parts differ."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()
