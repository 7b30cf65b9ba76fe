"""TFX's connection to the metadata store, extended: every new execution has its owner from the start.

The outputs of a step are stored together with a record of their files (components.data.output_files).
"""

from collections.abc import Iterable, Sequence
from typing import Any

from ml_metadata.metadata_store import MetadataStore
from ml_metadata.proto import metadata_store_pb2 as mlmd
from tfx.orchestration import metadata
from tfx.orchestration.portable import data_types
from tfx.orchestration.portable.mlmd import event_lib, execution_lib

from components import properties
from components.data import output_files
from components.errors import BitsumError
from components.progress import warn
from pipeline.records import metadata_store, ownership

_ENDED_BADLY = (mlmd.Execution.FAILED, mlmd.Execution.CANCELED)
# TFX's context type for cache keys.
_CACHE_KEY = "execution_cache"


class OwnedMetadata(metadata.Metadata):
    """TFX's connection; its store records owners and output files, and a locked or unreachable database raises a
    BitsumError."""

    def __enter__(self) -> "OwnedMetadata":
        location = self.connection_config
        metadata_store.recover(location)
        try:
            return super().__enter__()
        except Exception as error:
            raise metadata_store.unusable(location, error) from error

    @property
    def store(self) -> MetadataStore:
        """The store, as a `_Stamping`."""
        return _Stamping(super().store)


class _Stamping:
    """A store that adds the owner to RUNNING executions and the file records to COMPLETE ones, and drops the cache key
    of failed ones.

    TFX ties a failed execution to the cache key of its inputs, and the next attempt reuses that execution. If the next
    attempt had other data or knobs, the cache would return its outputs for the inputs of the first.
    """

    def __init__(self, store: MetadataStore):
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
        """As the store's own."""
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
        """As the store's own."""
        _stamp(executions)
        return self._store.put_executions(executions, *args, **options)


def adopt_execution(store: MetadataStore, run_id: str, node_context: str) -> list[mlmd.Execution]:
    """Make this process the owner of the executions that earlier attempts at the node left, since TFX reuses them.

    Args:
        node_context: name of the node's context, `<pipeline>.<node>`.

    Returns:
        The executions as they were before, for `close_others`.

    Raises:
        BitsumError: a living process runs this node of this run.
    """
    adopted = []
    for execution in _attempts(store, run_id, node_context):
        owner = _owner(execution)
        is_running = execution.last_known_state == mlmd.Execution.RUNNING
        if is_running and owner not in ({}, ownership.owner()) and not ownership.why_abandoned(execution):
            host = str(owner.get(ownership.HOST)).partition(" ")[0]
            raise BitsumError(
                f"process {owner.get(ownership.PID)} on {host} already runs {node_context} of run {run_id}: "
                "wait for it, or stop it"
            )
        if is_running or execution.last_known_state in _ENDED_BADLY:
            before = mlmd.Execution()
            before.CopyFrom(execution)
            adopted.append(before)
            execution.last_known_state = mlmd.Execution.RUNNING
            # The earlier attempt's outcome does not apply to this one.
            for name in (ownership.CLOSED, properties.REFUSED_BECAUSE):
                execution.custom_properties.pop(name, None)
            ownership.stamp(execution)
            store.put_executions([execution])
    return adopted


def close_others(store: MetadataStore, run_id: str, node_context: str, before: Sequence[mlmd.Execution]) -> None:
    """After this process's attempt at the node, close as FAILED the executions that it left RUNNING.

    TFX reuses an earlier execution only if the node has an executor; resolvers and importers begin a new one each time.

    Args:
        before: the result of `adopt_execution`; these executions are restored, or closed if they were RUNNING.
    """
    by_id = {execution.id: execution for execution in before}
    restored = []
    for execution in _attempts(store, run_id, node_context):
        if execution.last_known_state == mlmd.Execution.RUNNING and _owner(execution) == ownership.owner():
            earlier = by_id.get(execution.id, execution)
            if earlier.last_known_state == mlmd.Execution.RUNNING:
                reason = ownership.why_abandoned(earlier) or "its attempt ended without a result"
                earlier.last_known_state = mlmd.Execution.FAILED
                earlier.custom_properties[ownership.CLOSED].string_value = reason
            restored.append(earlier)
    if restored:
        store.put_executions(restored)


def update_execution(handle: metadata.Metadata, kind: mlmd.ExecutionType, done: data_types.ExecutionInfo) -> None:
    """Record the inputs and parameters of the last attempt in an adopted execution; TFX keeps those of the first."""
    [execution] = handle.store.get_executions_by_id([done.execution_id])
    last = execution_lib.prepare_execution(handle, kind, execution.last_known_state, done.exec_properties)
    for now, before in ((last.properties, execution.properties), (last.custom_properties, execution.custom_properties)):
        for name in now:
            before[name].CopyFrom(now[name])
    handle.store.put_executions([execution])
    events = handle.store.get_events_by_execution_ids([execution.id])
    read = {event.artifact_id for event in events if event.type == mlmd.Event.INPUT}
    handle.store.put_events(
        [
            event_lib.generate_event(mlmd.Event.INPUT, key, index, artifact.id, execution.id)
            for key, artifacts in done.input_dict.items()
            for index, artifact in enumerate(artifacts)
            if artifact.id not in read
        ]
    )


def record_rejection(store: MetadataStore, run_id: str, node_context: str, reason: str) -> None:
    """Record in the failed execution that its gate refused; TFX records the failure without its cause."""
    attempts = _attempts(store, run_id, node_context)
    refused = [attempt for attempt in attempts if attempt.last_known_state == mlmd.Execution.FAILED]
    for execution in refused:
        execution.custom_properties[properties.REFUSED_BECAUSE].string_value = reason
    if refused:
        store.put_executions(refused)


def _attempts(store: MetadataStore, run_id: str, node_context: str) -> list[mlmd.Execution]:
    """The executions of a node in a run."""
    run = store.get_context_by_type_and_name("pipeline_run", run_id)
    node = store.get_context_by_type_and_name("node", node_context)
    if run is None or node is None:
        return []
    of_node = {execution.id for execution in store.get_executions_by_context(node.id)}
    return [execution for execution in store.get_executions_by_context(run.id) if execution.id in of_node]


def _owner(execution: mlmd.Execution) -> dict[str, str | int]:
    """The owner recorded in `execution`; empty if there is none."""
    values = execution.custom_properties
    return {name: values[name].int_value or values[name].string_value for name in ownership.owner() if name in values}


def _record_files(artifacts: Iterable[mlmd.Artifact]) -> None:
    """Record the output files. An unreadable file is only a warning: the step is done and may have visible effects."""
    for artifact in artifacts:
        try:
            artifact.custom_properties[output_files.PROPERTY].string_value = output_files.record(artifact.uri)
        except OSError as error:
            path = error.filename or artifact.uri
            warn(f"the files of {artifact.uri} are not recorded: cannot read {path}: {error.strerror}")


def _stamp(executions: Sequence[mlmd.Execution]) -> None:
    for execution in executions:
        if execution.last_known_state == mlmd.Execution.RUNNING:
            ownership.stamp(execution)
