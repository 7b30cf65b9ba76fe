"""Explains where two graphs differ once their hashes have shown that they do; it decides nothing."""

import copy
import os
import re
from collections import Counter
from collections.abc import Iterator

from google.protobuf import text_format
from google.protobuf.message import Message

from components.savedmodel.canonical_graph import Graph

# The name of a part and its bytes.
Key = tuple[str, bytes]

_SHOWN = 150
_COUNTER = re.compile(r"^__inference_+|_\d+$")
_FUNCTION_SHA256 = re.compile(r"(?<=function )[0-9a-f]{64}")


def explained(graph: Graph, expected: Graph) -> list[str]:
    """The nodes and other parts that only one of the graphs has, one line each; at least one for graphs that differ.

    A part that differs gives a line for each graph; those of functions come last. A long line is shortened
    to its beginning and the text from where it differs from its neighbours.
    """
    parts, cell_parts = _parts(graph), _parts(expected)
    common = Counter(key for key, _ in parts) & Counter(key for key, _ in cell_parts)
    model_lines, cell_lines = Counter(_lines(graph, parts, common)), Counter(_lines(expected, cell_parts, common))
    differing = [(line, "only in the model") for line in (model_lines - cell_lines).elements()]
    differing += [(line, "only in the cell") for line in (cell_lines - model_lines).elements()]
    differing.sort(key=lambda entry: (entry[0].startswith("function "), entry))
    near = ["", *(line for line, _ in differing), ""]
    shown = [f"{_shortened(line, *near[at : at + 3 : 2])} ({where})" for at, (line, where) in enumerate(differing)]
    return shown or ["the graphs differ in a part that no line shows"]


def _parts(graph: Graph) -> list[tuple[Key, Message]]:
    """The main graph, the object graph, the functions and the rest, each with its name and its bytes."""
    model = graph.canonical(named=True)
    parts = [("main graph", model.graph_def), ("object graph", model.object_graph_def)]
    parts += [(f"function {_label(name)}", graph.function(name, named=True)) for name in graph.functions]
    rest = copy.deepcopy(model)
    rest.ClearField("graph_def")
    rest.ClearField("object_graph_def")
    return [((where, part.SerializeToString(deterministic=True)), part) for where, part in [*parts, ("model", rest)]]


def _lines(graph: Graph, parts: list[tuple[Key, Message]], common: Counter[Key]) -> Iterator[str]:
    """The lines of the parts beyond those that the graphs have in common; only these, because text takes long."""
    # Equal functions have one hash; the last of their names represents all.
    called = {graph.function_sha256(name): _label(name) for name in sorted(graph.functions, key=_label)}
    left = common.copy()
    for key, part in parts:
        left[key] -= 1
        if left[key] >= 0:
            continue
        named = _FUNCTION_SHA256.sub(lambda match: called.get(match[0], match[0]), text_format.MessageToString(part))
        for entry in re.split(r"\n(?=\w)", named.strip()):
            yield f"{key[0]}: " + re.sub(r"\n *", " ", entry)


def _label(name: str) -> str:
    return _COUNTER.sub("", name)


def _shortened(line: str, *neighbours: str) -> str:
    if len(line) <= 2 * _SHOWN:
        return line
    # This compares characters, not parts of paths.
    differs = max(len(os.path.commonprefix([line, neighbour])) for neighbour in neighbours)  # noqa: RUF071
    begin = max(_SHOWN, differs - _SHOWN // 2)
    return f"{line[:_SHOWN]} ... {line[begin : begin + _SHOWN]}"
