"""TFX's connection to the metadata store, through which every execution that is begun carries its owner from the first moment on."""

from collections.abc import Sequence
from typing import Any

from ml_metadata import metadata_store
from ml_metadata.metadata_store import ListOptions
from ml_metadata.proto import metadata_store_pb2 as mlmd
from tfx.orchestration import metadata

from components.errors import BitsumError
from pipeline import housekeeping
from pipeline import metadata_store as known

_ENDED_BADLY = (mlmd.Execution.FAILED, mlmd.Execution.CANCELED)


class OwnedMetadata(metadata.Metadata):
    """As TFX's own; what is put into the store as RUNNING is stamped, and a database that is locked or away is told in one line."""

    def __enter__(self) -> "OwnedMetadata":
        where = self.connection_config
        known.check_unlocked(where)
        try:
            return super().__enter__()
        except Exception as error:
            raise known.unusable(where, error) from error

    @property
    def store(self) -> "metadata_store.MetadataStore":
        return _Stamping(super().store)


class _Stamping:
    """A store that passes everything on, executions that are RUNNING with their owner."""

    def __init__(self, store: metadata_store.MetadataStore):
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def put_execution(self, execution: mlmd.Execution, *args: Any, **options: Any) -> Any:
        _stamp([execution])
        return self._store.put_execution(execution, *args, **options)

    def put_executions(self, executions: Sequence[mlmd.Execution], *args: Any, **options: Any) -> Any:
        _stamp(executions)
        return self._store.put_executions(executions, *args, **options)


def take_over(store: metadata_store.MetadataStore, run_id: str, node_context: str) -> None:
    """Make this process the owner of what an earlier attempt at the node left: TFX goes on with that execution as it is.

    Args:
        node_context: name of the node's context, `<pipeline>.<node>`.

    Raises:
        BitsumError: a living process works on this node of this run.
    """
    contexts = f"contexts_a.type = 'pipeline_run' AND contexts_a.name = '{run_id}'"
    contexts += f" AND contexts_b.type = 'node' AND contexts_b.name = '{node_context}'"
    for execution in store.get_executions(ListOptions(filter_query=contexts)):
        owner = _recorded(execution)
        is_running = execution.last_known_state == mlmd.Execution.RUNNING
        if is_running and owner not in ({}, housekeeping.owner()) and not housekeeping.why_abandoned(execution):
            where = f"process {owner.get(housekeeping.PID)} on {str(owner.get(housekeeping.HOST)).partition(' ')[0]}"
            raise BitsumError(f"{node_context} of run {run_id} is being run by {where}: wait for it, or stop it")
        if is_running or execution.last_known_state in _ENDED_BADLY:
            execution.last_known_state = mlmd.Execution.RUNNING
            housekeeping.stamp(execution)
            store.put_executions([execution])


def _recorded(execution: mlmd.Execution) -> dict[str, str | int]:
    """The owner that stands in `execution`; empty where there is none."""
    known = execution.custom_properties
    return {name: known[name].int_value or known[name].string_value for name in housekeeping.owner() if name in known}


def _stamp(executions: Sequence[mlmd.Execution]) -> None:
    for execution in executions:
        if execution.last_known_state == mlmd.Execution.RUNNING:
            housekeeping.stamp(execution)
