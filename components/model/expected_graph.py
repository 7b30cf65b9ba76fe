"""Is the graph of an exported model the cell's? Compared with fresh exports of it, made here, in the model's own
format."""

import functools

from components.model import export
from components.model.carry_select import CarrySelect
from components.model.gru import GRU
from components.savedmodel import export_format, graph_identity
from components.savedmodel.canonical_graph import Graph
from components.settings import ProofSettings
from components.task.transducer import Transducer


def differences(model: str, units: int, task: Transducer, knobs: ProofSettings) -> list[str]:
    """How the graph of the SavedModel in `model` differs from the exports of a cell of `units`; empty where it is one
    of them.

    There are two: one adds long numbers in chunks side by side, as `knobs` has it, the other bit by bit. The
    differences are those from the nearer one.

    Raises:
        BitsumError: there is no readable SavedModel.
    """
    form = export_format.of(Graph(model))
    if not export_format.FIRST <= form <= export_format.LATEST:
        known = f"{export_format.FIRST} to {export_format.LATEST}"
        return [f"it has the export format {form}, and {known} are compared here: use the bitsum that exported it"]
    in_chunks = _expected(units, task, CarrySelect(task, knobs.parallel_above, knobs.chunk), form)
    if not graph_identity.differences(model, in_chunks):
        return []
    return graph_identity.differences(model, in_chunks, _expected(units, task, None, form))


# A process that looks at several models makes each export once: it takes seconds, and depends on nothing else.
@functools.lru_cache(maxsize=4)
def _expected(units: int, task: Transducer, parallel: CarrySelect | None, form: int) -> Graph:
    return graph_identity.fresh(lambda folder: export.save(GRU(units), folder, parallel, task, form))
