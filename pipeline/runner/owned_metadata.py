"""TFX's connection to the metadata store, through which every execution that is begun carries its owner from the first
moment on.

What a step puts out goes into the store together with the record of its files (components.data.output_files).
"""

from collections.abc import Iterable, Sequence
from typing import Any

from ml_metadata import metadata_store
from ml_metadata.metadata_store import ListOptions
from ml_metadata.proto import metadata_store_pb2 as mlmd
from tfx.orchestration import metadata
from tfx.orchestration.portable import data_types
from tfx.orchestration.portable.mlmd import event_lib, execution_lib

from components import properties
from components.data import output_files
from components.errors import BitsumError
from components.progress import warn
from pipeline.records import metadata_store as known
from pipeline.records import ownership

_ENDED_BADLY = (mlmd.Execution.FAILED, mlmd.Execution.CANCELED)
# TFX's type of context that stands for a cache key.
_CACHE_KEY = "execution_cache"


class OwnedMetadata(metadata.Metadata):
    """As TFX's own; what is put into the store as RUNNING is stamped, outputs are recorded, and a database that is
    locked or away is told in one line."""

    def __enter__(self) -> "OwnedMetadata":
        where = self.connection_config
        known.recover(where)
        try:
            return super().__enter__()
        except Exception as error:
            raise known.unusable(where, error) from error

    @property
    def store(self) -> "metadata_store.MetadataStore":
        return _Stamping(super().store)


class _Stamping:
    """A store that passes everything on: executions that are RUNNING with their owner, those that failed without a
    cache key, and those that are done with the record of the files that they put out.

    TFX ties one that failed to the key of what it was given, and the next attempt goes on with the same execution: once
    that is done, with mended data or other knobs, the cache would take its outputs for those of the first.
    """

    def __init__(self, store: metadata_store.MetadataStore):
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def put_execution(
        self,
        execution: mlmd.Execution,
        artifact_and_events: Sequence[tuple[mlmd.Artifact, mlmd.Event]] = (),
        *args: Any,
        **options: Any,
    ) -> Any:
        _stamp([execution])
        if execution.last_known_state == mlmd.Execution.COMPLETE:
            _record_files(
                artifact for artifact, event in artifact_and_events if event and event.type == mlmd.Event.OUTPUT
            )
        if execution.last_known_state in _ENDED_BADLY and "contexts" in options:
            keys = {kind.id for kind in self._store.get_context_types() if kind.name == _CACHE_KEY}
            options["contexts"] = [context for context in options["contexts"] if context.type_id not in keys]
        return self._store.put_execution(execution, artifact_and_events, *args, **options)

    def put_executions(self, executions: Sequence[mlmd.Execution], *args: Any, **options: Any) -> Any:
        _stamp(executions)
        return self._store.put_executions(executions, *args, **options)


def adopt_execution(store: metadata_store.MetadataStore, run_id: str, node_context: str) -> list[mlmd.Execution]:
    """Make this process the owner of what earlier attempts at the node left: TFX goes on with such an execution as it
    is.

    Returns:
        What those executions were before; `close_others` wants it once the attempt is over.

    Args:
        node_context: name of the node's context, `<pipeline>.<node>`.

    Raises:
        BitsumError: a living process works on this node of this run.
    """
    taken = []
    for execution in _attempts(store, run_id, node_context):
        owner = _recorded(execution)
        is_running = execution.last_known_state == mlmd.Execution.RUNNING
        if is_running and owner not in ({}, ownership.owner()) and not ownership.why_abandoned(execution):
            where = f"process {owner.get(ownership.PID)} on {str(owner.get(ownership.HOST)).partition(' ')[0]}"
            raise BitsumError(f"{node_context} of run {run_id} is being run by {where}: wait for it, or stop it")
        if is_running or execution.last_known_state in _ENDED_BADLY:
            before = mlmd.Execution()
            before.CopyFrom(execution)
            taken.append(before)
            execution.last_known_state = mlmd.Execution.RUNNING
            # What became of the attempt before says nothing about this one.
            for name in (ownership.CLOSED, properties.REFUSED_BECAUSE):
                execution.custom_properties.pop(name, None)
            ownership.stamp(execution)
            store.put_executions([execution])
    return taken


def close_others(
    store: metadata_store.MetadataStore, run_id: str, node_context: str, before: Sequence[mlmd.Execution]
) -> None:
    """Once this process's attempt at the node is over: close as FAILED what it has taken over or begun and left
    RUNNING.

    TFX goes on with an earlier execution only where the node has an executor; resolvers and importers begin another one
    each time.

    Args:
        before: what `adopt_execution` gave; those executions are again what they were, or closed if they were RUNNING.
    """
    known = {execution.id: execution for execution in before}
    left = []
    for execution in _attempts(store, run_id, node_context):
        if execution.last_known_state == mlmd.Execution.RUNNING and _recorded(execution) == ownership.owner():
            earlier = known.get(execution.id, execution)
            if earlier.last_known_state == mlmd.Execution.RUNNING:
                reason = ownership.why_abandoned(earlier) or "its attempt ended without a result"
                earlier.last_known_state = mlmd.Execution.FAILED
                earlier.custom_properties[ownership.CLOSED].string_value = reason
            left.append(earlier)
    if left:
        store.put_executions(left)


def update_execution(handle: metadata.Metadata, kind: mlmd.ExecutionType, done: data_types.ExecutionInfo) -> None:
    """Write into an execution that was taken over what the last attempt at it read and was told: TFX keeps what the
    first one was."""
    [execution] = handle.store.get_executions_by_id([done.execution_id])
    told = execution_lib.prepare_execution(handle, kind, execution.last_known_state, done.exec_properties)
    for now, before in ((told.properties, execution.properties), (told.custom_properties, execution.custom_properties)):
        for name in now:
            before[name].CopyFrom(now[name])
    handle.store.put_executions([execution])
    known_events = handle.store.get_events_by_execution_ids([execution.id])
    read = {event.artifact_id for event in known_events if event.type == mlmd.Event.INPUT}
    handle.store.put_events(
        [
            event_lib.generate_event(mlmd.Event.INPUT, key, index, artifact.id, execution.id)
            for key, artifacts in done.input_dict.items()
            for index, artifact in enumerate(artifacts)
            if artifact.id not in read
        ]
    )


def record_rejection(store: metadata_store.MetadataStore, run_id: str, node_context: str, reason: str) -> None:
    """Write into the failed execution that its gate refused: TFX records the failure and not what it was."""
    refused = [
        found for found in _attempts(store, run_id, node_context) if found.last_known_state == mlmd.Execution.FAILED
    ]
    for execution in refused:
        execution.custom_properties[properties.REFUSED_BECAUSE].string_value = reason
    if refused:
        store.put_executions(refused)


def _attempts(store: metadata_store.MetadataStore, run_id: str, node_context: str) -> list[mlmd.Execution]:
    """What stands in the store of a node in a run."""
    contexts = f"contexts_a.type = 'pipeline_run' AND contexts_a.name = '{run_id}'"
    contexts += f" AND contexts_b.type = 'node' AND contexts_b.name = '{node_context}'"
    return store.get_executions(ListOptions(filter_query=contexts))


def _recorded(execution: mlmd.Execution) -> dict[str, str | int]:
    """The owner that stands in `execution`; empty where there is none."""
    known = execution.custom_properties
    return {name: known[name].int_value or known[name].string_value for name in ownership.owner() if name in known}


def _record_files(artifacts: Iterable[mlmd.Artifact]) -> None:
    """What cannot be read goes without a record: the step is done, and what it did may be visible already."""
    for artifact in artifacts:
        try:
            artifact.custom_properties[output_files.PROPERTY].string_value = output_files.record(artifact.uri)
        except OSError as error:
            warn(
                f"the files of {artifact.uri} are not recorded: {error.filename or artifact.uri} cannot be read: {error.strerror}"
            )


def _stamp(executions: Sequence[mlmd.Execution]) -> None:
    for execution in executions:
        if execution.last_known_state == mlmd.Execution.RUNNING:
            ownership.stamp(execution)
