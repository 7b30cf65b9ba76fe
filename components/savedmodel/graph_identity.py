"""The graph that is served is the cell that was certified: hashing weights says nothing about wiring.

`differences` compares an exported model with a fresh export of the cell: the canonical forms
(`components.savedmodel.canonical_graph`) must be equal, and each variable must be restored from the tensor of its own name, so
that the weights that the checker reads are those that the graph computes with. That no other file changes what a server
runs is for `components.savedmodel.model_files`.
"""

import pathlib
import tempfile
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from components.proof.weights import NAMES
from components.savedmodel import graph_diff
from components.savedmodel.canonical_graph import Graph
from components.savedmodel.checkpoint import checkpoint_key

MAX_DIFFERENCES = 20


def graph_sha256(model_dir: str | pathlib.Path) -> str:
    """Hexadecimal SHA-256 of the graph with its signatures, the same for every export of the same cell by one
    TensorFlow.

    Raises:
        BitsumError: there is no readable SavedModel.
    """
    return Graph(model_dir).sha256()


def fresh(save: Callable[[str], None]) -> Graph:
    """The graph of what `save` writes to the folder that it is given, a fresh export of the cell."""
    with tempfile.TemporaryDirectory(prefix="bitsum-cell-") as folder:
        model_dir = pathlib.Path(folder) / "model"
        save(str(model_dir))
        return Graph(model_dir)


def differences(model_dir: str | pathlib.Path, *expected: Graph) -> list[str]:
    """What distinguishes the graph of a SavedModel from the nearest of the expected ones, one line each, at most
    `MAX_DIFFERENCES`.

    Empty where it is one of them. The nearest is the one that the fewest lines tell it from.

    Raises:
        BitsumError: there is no readable SavedModel.
    """
    graph = Graph(model_dir)
    is_expected = graph.sha256() in {one.sha256() for one in expected}
    found = [] if is_expected else min((graph_diff.explained(graph, one) for one in expected), key=len)
    found += _wrongly_restored(graph)
    return found[:MAX_DIFFERENCES]


def restored_keys(graph: Graph) -> dict[str, str]:
    """{shared name of a variable: key of the tensor of the checkpoint that the restore operation assigns to it}.

    Raises:
        ValueError: the operation restores in a way that this does not follow; the text says what.
    """
    main = {node.name: node for node in graph.meta_graph.graph_def.node}
    restore = _known(main, graph.meta_graph.saver_def.restore_op_name)
    function = _known(graph.functions, restore.attr["f"].func.name)
    nodes = {node.name: node for node in function.node_def}
    handles = {argument.name: tensor for argument, tensor in zip(function.signature.input_arg, restore.input)}
    keys: dict[str, str] = {}
    for assign in (node for node in function.node_def if node.op == "AssignVariableOp"):
        variable = _known(main, handles.get(assign.input[0], assign.input[0]))
        name = variable.attr["shared_name"].s.decode()
        if variable.op != "VarHandleOp" or name in keys:
            raise ValueError(f"{assign.name} does not assign to a variable of its own")
        keys[name] = _key(assign.input[1], nodes)
    return keys


def _key(tensor: str, nodes: Mapping[str, Any]) -> str:
    """The key of the checkpoint that a tensor of the restore function comes from."""
    for _ in nodes:
        name, _, output = tensor.partition(":")
        node = _known(nodes, name)
        if node.op == "RestoreV2":
            prefix, names, slices = node.input[:3]
            texts = [
                _known(nodes, constant.partition(":")[0]).attr["value"].tensor.string_val
                for constant in (names, slices)
            ]
            if set(texts[1]) != {b""} or prefix != "file_prefix":
                raise ValueError(f"{name} restores slices, or from another file")
            return texts[0][int(output.removeprefix("tensors:"))].decode()
        if node.op != "Identity":
            raise ValueError(f"{name} ({node.op}) changes what is restored")
        tensor = node.input[0]
    raise ValueError(f"{tensor} leads nowhere")


def _wrongly_restored(graph: Graph) -> Iterable[str]:
    try:
        keys = restored_keys(graph)
    except (ValueError, IndexError) as error:
        return [f"restoring the variables: {error}"]
    wanted = {name: checkpoint_key(name) for name in NAMES}
    return [
        f"restoring the variables: {name} gets {keys.get(name, 'nothing')}, it should get {wanted.get(name, 'nothing')}"
        for name in sorted({*keys, *wanted})
        if keys.get(name) != wanted.get(name)
    ]


def _known(things: Mapping[str, Any], name: str) -> Any:
    if name not in things:
        raise ValueError(f"there is no {name!r}")
    return things[name]
