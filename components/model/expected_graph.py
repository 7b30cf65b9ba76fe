"""Compares the graph of an exported model with fresh exports of the cell in the model's own format."""

import functools

from components.model import export
from components.model.carry_select import CarrySelect
from components.model.gru import GRU
from components.savedmodel import export_format, graph_identity
from components.savedmodel.canonical_graph import Graph
from components.settings import ProofSettings
from components.task.transducer import Transducer


def differences(model: str, units: int, task: Transducer, knobs: ProofSettings) -> list[str]:
    """The differences between the graph of the SavedModel in `model` and the exports of a cell of `units`; empty if it
    is one of them.

    A cell has two exports: one adds long numbers in parallel chunks, as set in `knobs`, the other bit by bit. The
    differences are from the nearer one.

    Raises:
        BitsumError: the SavedModel cannot be read.
    """
    form = export_format.of(Graph(model))
    if not export_format.FIRST <= form <= export_format.LATEST:
        supported = f"{export_format.FIRST} to {export_format.LATEST}"
        return [
            f"its export format is {form}, this version of bitsum compares {supported}: "
            "use the version that exported it"
        ]
    in_chunks = _expected(units, task, CarrySelect(task, knobs.parallel_above, knobs.chunk), form)
    if not graph_identity.differences(model, in_chunks):
        return []
    return graph_identity.differences(model, in_chunks, _expected(units, task, None, form))


# An export takes seconds and depends on nothing else, so a process that compares several models makes it once.
@functools.lru_cache(maxsize=4)
def _expected(units: int, task: Transducer, parallel: CarrySelect | None, form: int) -> Graph:
    return graph_identity.fresh(lambda folder: export.save(GRU(units), folder, parallel, task, form))
