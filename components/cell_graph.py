"""Is the graph of an exported model the cell's? Compared with fresh exports of it, made here."""

import functools

from components import export, graph_identity
from components.canonical_graph import Graph
from components.carry_select import CarrySelect
from components.gru import GRU
from components.settings import Proof
from components.transducer import Transducer


def differences(model: str, units: int, task: Transducer, knobs: Proof) -> list[str]:
    """How the graph of the SavedModel in `model` differs from the exports of a cell of `units`; empty where it is one of them.

    There are two: one adds long numbers in chunks side by side, as `knobs` has it, the other bit by bit.

    Raises:
        BitsumError: there is no readable SavedModel.
    """
    found: list[str] = []
    for parallel in (CarrySelect(task, knobs.parallel_above, knobs.chunk), None):
        found = graph_identity.differences(model, _expected(units, parallel))
        if not found:
            break
    return found


# A process that looks at several models makes each export once: it takes seconds, and depends on nothing else.
@functools.lru_cache(maxsize=4)
def _expected(units: int, parallel: CarrySelect | None) -> Graph:
    return graph_identity.fresh(lambda folder: export.save(GRU(units), folder, parallel))
