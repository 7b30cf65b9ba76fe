"""Says in words where two graphs differ. It explains a difference that their hashes have shown; it decides nothing.

Nodes are matched by name, functions by the nodes that call them, all else field by field.
"""

import copy
import re
from collections.abc import Iterable, Iterator
from typing import Any

from google.protobuf.message import Message

from components.savedmodel.canonical_graph import Graph

_LONGEST_VALUE = 80
_COUNTER = re.compile(r"^__inference_+|_\d+$")


def explained(graph: Graph, expected: Graph) -> list[str]:
    """The differences, one line each, the function and the node named; at least one for graphs that differ."""
    found = list(_Comparison(graph, expected).lines())
    return found or ["the graphs differ in what no line can name"]


class _Comparison:
    def __init__(self, graph: Graph, expected: Graph):
        self.graph, self.expected = graph, expected
        self.seen: set[tuple[str, str]] = set()

    def lines(self) -> Iterator[str]:
        mine, cells = self.graph.canonical(named=True), self.expected.canonical(named=True)
        raw = [graph.meta_graph.graph_def.node for graph in (self.graph, self.expected)]
        yield from self._nodes("main graph", (mine.graph_def.node, cells.graph_def.node), raw)
        for model in (mine, cells):
            del model.graph_def.node[:]
        objects = [copy.deepcopy(model.object_graph_def) for model in (mine, cells)]
        for model in (mine, cells):
            model.ClearField("object_graph_def")
        yield from _fields("model", mine, cells)
        yield from self._unmatched_functions()
        if not self.seen:
            # Functions that differ are named there by their hashes, which would say nothing new.
            yield from _fields("object graph", *objects)

    def _function(self, where: str, name: str, expected_name: str) -> Iterator[str]:
        if (name, expected_name) in self.seen:
            return
        self.seen.add((name, expected_name))
        mine, cells = self.graph.function(name, named=True), self.expected.function(expected_name, named=True)
        raw = [self.graph.functions[name].node_def, self.expected.functions[expected_name].node_def]
        yield from self._nodes(where, (mine.node_def, cells.node_def), raw)
        for function in (mine, cells):
            del function.node_def[:]
        yield from _fields(f"{where}:", mine, cells)

    def _nodes(
        self, where: str, canonical: tuple[Iterable[Message], Iterable[Message]], raw: list[Iterable[Message]]
    ) -> Iterator[str]:
        mine, cells = ({node.name: (node, original) for node, original in zip(*pair)} for pair in zip(canonical, raw))
        for name in (name for name in mine if name not in cells):
            yield f"{where}: node {name} ({mine[name][1].op}) is not in the cell"
        for name in (name for name in cells if name not in mine):
            yield f"{where}: node {name} ({cells[name][1].op}) of the cell is missing"
        for name in (name for name in cells if name in mine):
            yield from self._node(where, mine[name], cells[name])
        if mine.keys() == cells.keys() and list(mine) != list(cells):
            yield f"{where}: the nodes stand in another order"

    def _node(self, where: str, mine: tuple[Message, Message], cells: tuple[Message, Message]) -> Iterator[str]:
        called = list(zip(_calls(mine[0]), _calls(cells[0]), _calls(mine[1]), _calls(cells[1])))
        for call, expected_call, original, expected_original in called:
            both_known = original.name in self.graph.functions and expected_original.name in self.expected.functions
            if both_known and call.name != expected_call.name:
                path = [] if where == "main graph" else [where]
                yield from self._function(
                    " > ".join([*path, _label(original.name)]), original.name, expected_original.name
                )
                call.name = expected_call.name
        yield from _fields(f"{where}: node {mine[0].name}:", mine[0], cells[0])

    def _unmatched_functions(self) -> Iterator[str]:
        compared = [{pair[side] for pair in self.seen} for side in (0, 1)]
        for graph, other, done, words in (
            (self.graph, self.expected, compared[0], "is not in the cell"),
            (self.expected, self.graph, compared[1], "of the cell is missing"),
        ):
            for name in sorted(graph.functions):
                if name not in done and graph.function_sha256(name) not in other.library:
                    yield f"library: function {_label(name)} {words}"
        counts = [len(graph.functions) for graph in (self.graph, self.expected)]
        if counts[0] != counts[1]:
            yield f"library: {counts[0]} functions, the cell has {counts[1]}"


def _calls(node: Message) -> Iterator[Message]:
    for _, value in sorted(node.attr.items()):
        if value.WhichOneof("value") == "func":
            yield value.func
        yield from value.list.func


def _fields(where: str, mine: Message, cells: Message) -> Iterator[str]:
    """Differences of two messages, field by field."""
    if _same(mine, cells):
        return
    for field in mine.DESCRIPTOR.fields:
        values, expected = getattr(mine, field.name), getattr(cells, field.name)
        here = f"{where} {field.name}"
        if field.label != field.LABEL_REPEATED:
            yield from _value(here, values, expected)
        elif field.message_type and field.message_type.GetOptions().map_entry:
            for key in sorted({*values, *expected}):
                yield from _value(
                    f"{here}[{key}]", values[key] if key in values else None, expected[key] if key in expected else None
                )
        elif len(values) != len(expected):
            yield f"{here}: {len(values)} entries {_shown(values)}, the cell has {len(expected)} {_shown(expected)}"
        else:
            for number, pair in enumerate(zip(values, expected)):
                yield from _value(f"{here}[{number}]", *pair)


def _value(where: str, mine: Any, cells: Any) -> Iterator[str]:
    if isinstance(mine, Message) and isinstance(cells, Message):
        yield from _fields(where, mine, cells)
    elif mine is None or cells is None or mine != cells:
        yield f"{where} is {_shown(mine)}, the cell has {_shown(cells)}"


def _same(mine: Message, cells: Message) -> bool:
    return mine.SerializeToString(deterministic=True) == cells.SerializeToString(deterministic=True)


def _shown(value: Any) -> str:
    text = "nothing" if value is None else " ".join(str(value).split())
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}..."


def _label(function: str) -> str:
    return _COUNTER.sub("", function)
