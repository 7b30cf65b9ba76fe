"""Compares the graph of an exported model with fresh exports of the cell in the model's own format."""

import functools

import tensorflow as tf

from components.errors import BitsumError
from components.model import export
from components.model.carry_select import CarrySelect
from components.model.gru import GRU
from components.printable import printable
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
        BitsumError: the SavedModel cannot be read, or another version of TensorFlow exported it and writes the cell
            differently.
    """
    graph = Graph(model)
    form = export_format.of(graph)
    if not export_format.FIRST <= form <= export_format.LATEST:
        supported = f"{export_format.FIRST} to {export_format.LATEST}"
        return [
            f"its export format is {form}, this version of bitsum compares {supported}: "
            "use the version that exported it"
        ]
    in_chunks = _expected(units, task, CarrySelect(task, knobs.parallel_above, knobs.chunk), form)
    if not graph_identity.differences(model, in_chunks):
        return []
    found = graph_identity.differences(model, in_chunks, _expected(units, task, None, form))
    exporter = printable(graph.meta_graph.meta_info_def.tensorflow_version[:40])
    if found and exporter not in ("", tf.__version__):
        raise BitsumError(
            f"cannot compare the graph of {model}, which TensorFlow {exporter} exported, with an export by TensorFlow "
            f"{tf.__version__}: use bitsum with TensorFlow {exporter}, or verify --graph-sha256 with the hash of a "
            "graph that was compared there"
        )
    return found


# An export takes seconds and depends on nothing else, so a process that compares several models makes it once.
@functools.lru_cache(maxsize=4)
def _expected(units: int, task: Transducer, parallel: CarrySelect | None, form: int) -> Graph:
    return graph_identity.fresh(lambda folder: export.save(GRU(units), folder, parallel, task, form))
