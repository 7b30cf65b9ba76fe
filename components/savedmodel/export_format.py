"""The format of an export: a number that determines how its signatures are named.

1  `add_bits` and `add_packed` for every task; the SavedModel has no number
2  `<verb>_bits` and `<verb>_packed`, as in `components.signatures`

The number is in the name of an empty child of the model's root object, `format_2`. So loaders ignore it and the hash of
the graph covers it. A model with a wrong number is compared with the wrong export, and refused.
"""

import re
from typing import TYPE_CHECKING

from components import signatures
from components.task.transducer import Transducer

if TYPE_CHECKING:
    from components.savedmodel.canonical_graph import Graph

FIRST = 1
LATEST = 2

_CHILD = re.compile(r"format_([0-9]{1,9})")


def child(number: int) -> str:
    """The name of the root's child for a format from 2 on."""
    return f"format_{number}"


def of(graph: "Graph") -> int:
    """The format of an exported model; FIRST without a number."""
    root = graph.meta_graph.object_graph_def.nodes[:1]
    matches = [_CHILD.fullmatch(child.local_name) for node in root for child in node.children]
    return max((int(match[1]) for match in matches if match), default=FIRST)


def verb(task: Transducer, number: int) -> str:
    """The verb in the names of the signatures of a model for `task` in format `number`."""
    return signatures.ADD if number == FIRST else task.verb
