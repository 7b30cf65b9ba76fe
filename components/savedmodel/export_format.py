"""The format of an export: a number that the SavedModel carries from 2 on, which says how its signatures are named.

1  before there was a number: `add_bits` and `add_packed`, whatever the task
2  `<verb>_bits` and `<verb>_packed`, as `components.signatures` has it

The number is the name of an empty child of the model's root object, `format_2`. So loaders pass it over, the hash of
the graph covers it, and a model with a wrong one is compared with the wrong export, and refused.
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
    """The name of the root's child that says so, of a format that has one."""
    return f"format_{number}"


def of(graph: "Graph") -> int:
    """The format of an exported model; FIRST where it carries no number."""
    root = graph.meta_graph.object_graph_def.nodes[:1]
    found = [_CHILD.fullmatch(child.local_name) for node in root for child in node.children]
    return max((int(match[1]) for match in found if match), default=FIRST)


def verb(task: Transducer, number: int) -> str:
    """The verb that the signatures of a model for `task` are named after, in that format."""
    return signatures.ADD if number == FIRST else task.verb
