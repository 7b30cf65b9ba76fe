"""Checks that the graph is that of the certified cell: a hash of the weights does not cover their wiring.

`differences` compares an exported model with a fresh export of the cell. The canonical forms
(`components.savedmodel.canonical_graph`) must be equal, and each variable must be restored from the tensor of its own
name, so that the graph computes with the weights that the checker reads. `components.savedmodel.model_files` checks
that no other file changes what a server runs.
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
        BitsumError: the SavedModel cannot be read.
    """
    return Graph(model_dir).sha256()


def fresh(save: Callable[[str], None]) -> Graph:
    """The graph of the fresh export of the cell that `save` writes to a given folder."""
    with tempfile.TemporaryDirectory(prefix="bitsum-cell-") as folder:
        model_dir = pathlib.Path(folder) / "model"
        save(str(model_dir))
        return Graph(model_dir)


def differences(model_dir: str | pathlib.Path, *expected: Graph) -> list[str]:
    """The differences between the graph of a SavedModel and the nearest of the expected ones, one line each, at most
    `MAX_DIFFERENCES`; empty if it is one of them.

    The nearest has the fewest differing lines.

    Raises:
        BitsumError: the SavedModel cannot be read.
    """
    graph = Graph(model_dir)
    is_expected = graph.sha256() in {candidate.sha256() for candidate in expected}
    lines = [] if is_expected else min((graph_diff.explained(graph, candidate) for candidate in expected), key=len)
    lines += _wrongly_restored(graph)
    return lines[:MAX_DIFFERENCES]


def restored_keys(graph: Graph) -> dict[str, str]:
    """{shared name of a variable: checkpoint key of the tensor that the restore operation assigns to it}.

    Raises:
        ValueError: the operation restores in an unknown way; the text names it.
    """
    main = {node.name: node for node in graph.meta_graph.graph_def.node}
    restore = _lookup(main, graph.meta_graph.saver_def.restore_op_name)
    function = _lookup(graph.functions, restore.attr["f"].func.name)
    nodes = {node.name: node for node in function.node_def}
    arguments = zip(function.signature.input_arg, restore.input, strict=True)
    handles = {argument.name: tensor for argument, tensor in arguments}
    keys: dict[str, str] = {}
    for assign in (node for node in function.node_def if node.op == "AssignVariableOp"):
        variable = _lookup(main, handles.get(assign.input[0], assign.input[0]))
        name = variable.attr["shared_name"].s.decode()
        if variable.op != "VarHandleOp" or name in keys:
            raise ValueError(f"{assign.name} does not assign to a variable of its own")
        keys[name] = _key(assign.input[1], nodes)
    return keys


def _key(tensor: str, nodes: Mapping[str, Any]) -> str:
    """The checkpoint key from which a tensor of the restore function comes."""
    for _ in nodes:
        name, _, output = tensor.partition(":")
        node = _lookup(nodes, name)
        if node.op == "RestoreV2":
            prefix, names, slices = node.input[:3]
            texts = [
                _lookup(nodes, constant.partition(":")[0]).attr["value"].tensor.string_val
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
        f"restoring the variables: {name} gets {keys.get(name, 'nothing')}, must get {wanted.get(name, 'nothing')}"
        for name in sorted({*keys, *wanted})
        if keys.get(name) != wanted.get(name)
    ]


def _lookup(definitions: Mapping[str, Any], name: str) -> Any:
    if name not in definitions:
        raise ValueError(f"{name!r} is missing")
    return definitions[name]
