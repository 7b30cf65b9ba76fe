"""Explains where two graphs differ once their hashes have shown that they do; it decides nothing."""

import os
import re
from collections import Counter
from collections.abc import Iterator

from google.protobuf import text_format

from components.savedmodel.canonical_graph import Graph

_SHOWN = 150
_COUNTER = re.compile(r"^__inference_+|_\d+$")
_FUNCTION_SHA256 = re.compile(r"(?<=function )[0-9a-f]{64}")


def explained(graph: Graph, expected: Graph) -> list[str]:
    """The nodes and other parts that only one of the graphs has, one line each; at least one for graphs that differ.

    A part that differs gives a line for each graph; those of functions come last. A long line is shortened
    to its beginning and the text from where it differs from its neighbours.
    """
    model_lines, cell_lines = Counter(_lines(graph)), Counter(_lines(expected))
    differing = [(line, "only in the model") for line in (model_lines - cell_lines).elements()]
    differing += [(line, "only in the cell") for line in (cell_lines - model_lines).elements()]
    differing.sort(key=lambda entry: (entry[0].startswith("function "), entry))
    near = ["", *(line for line, _ in differing), ""]
    shown = [f"{_shortened(line, *near[at : at + 3 : 2])} ({where})" for at, (line, where) in enumerate(differing)]
    return shown or ["the graphs differ in a part that no line shows"]


def _lines(graph: Graph) -> Iterator[str]:
    """The parts of the main graph, the object graph, the functions and the rest, each function under its name."""
    labels = {name: _COUNTER.sub("", name) for name in graph.functions}
    # Equal functions have one hash; the last of their names represents all.
    called = {graph.function_sha256(name): label for name, label in sorted(labels.items(), key=lambda item: item[1])}
    model = graph.canonical(named=True)
    parts = [("main graph", model.graph_def), ("object graph", model.object_graph_def)]
    parts += [(f"function {label}", graph.function(name, named=True)) for name, label in labels.items()]
    texts = [(where, text_format.MessageToString(part)) for where, part in parts]
    model.ClearField("graph_def")
    model.ClearField("object_graph_def")
    for where, text in [*texts, ("model", text_format.MessageToString(model))]:
        named = _FUNCTION_SHA256.sub(lambda match: called.get(match[0], match[0]), text)
        for entry in re.split(r"\n(?=\w)", named.strip()):
            yield f"{where}: " + re.sub(r"\n *", " ", entry)


def _shortened(line: str, *neighbours: str) -> str:
    if len(line) <= 2 * _SHOWN:
        return line
    # This compares characters, not parts of paths.
    differs = max(len(os.path.commonprefix([line, neighbour])) for neighbour in neighbours)  # noqa: RUF071 - of characters, not of paths
    begin = max(_SHOWN, differs - _SHOWN // 2)
    return f"{line[:_SHOWN]} ... {line[begin : begin + _SHOWN]}"
