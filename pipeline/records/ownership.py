"""The owners of executions: a killed process leaves its executions RUNNING in the metadata store.

Every new execution records its owner: host, process, and start time of the process. An execution is closed as FAILED
once its owner is known to be gone. Executions of other hosts, whose processes are not visible here, stay.
"""

import dataclasses
from collections.abc import Collection

from ml_metadata import metadata_store
from ml_metadata.proto import metadata_store_pb2 as mlmd

from components import processes

HOST = "owner_host"
PID = "owner_pid"
STARTED = "owner_started"
CLOSED = "closed_because"


@dataclasses.dataclass(frozen=True)
class Closed:
    """A closed execution: its id, its node's type, and the reason."""

    execution: int
    kind: str
    reason: str


def owner() -> dict[str, str | int]:
    """This process, as recorded in its executions."""
    this = processes.this()
    return {HOST: this.host, PID: this.pid, STARTED: this.started}


def stamp(execution: mlmd.Execution) -> None:
    """Set this process as the owner of `execution`; the caller puts it into the store."""
    for name, value in owner().items():
        setattr(execution.custom_properties[name], "int_value" if isinstance(value, int) else "string_value", value)


def close_abandoned(store: metadata_store.MetadataStore, gone_hosts: Collection[str] = ()) -> list[Closed]:
    """Close as FAILED the RUNNING executions whose recorded owner is gone.

    Args:
        gone_hosts: hosts that no longer exist.
    """
    kinds = {kind.id: kind.name.rpartition(".")[2] for kind in store.get_execution_types()}
    closed = []
    for execution in _running(store):
        reason = why_abandoned(execution, gone_hosts)
        if reason:
            execution.last_known_state = mlmd.Execution.FAILED
            execution.custom_properties[CLOSED].string_value = reason
            closed.append((execution, Closed(execution.id, kinds[execution.type_id], reason)))
    if closed:
        store.put_executions([execution for execution, _ in closed])
    return [record for _, record in closed]


def why_abandoned(execution: mlmd.Execution, gone_hosts: Collection[str] = ()) -> str | None:
    """Why the owner of `execution` is gone; None if it runs, or if that is unknown."""
    owner = execution.custom_properties
    if any(name not in owner for name in (HOST, PID, STARTED)):
        return None
    process = processes.Process(owner[HOST].string_value, owner[PID].int_value, owner[STARTED].string_value)
    if process.host in gone_hosts or process.host_name in gone_hosts:
        return f"host {process.host_name} is gone"
    return f"{process} is gone" if process.is_gone() else None


def elsewhere(store: metadata_store.MetadataStore) -> dict[str, int]:
    """The number of RUNNING executions on other hosts, by host name."""
    counts: dict[str, int] = {}
    for execution in _running(store):
        if HOST in execution.custom_properties and execution.custom_properties[HOST].string_value != processes.host():
            name = execution.custom_properties[HOST].string_value.partition(" ")[0]
            counts[name] = counts.get(name, 0) + 1
    return counts


def _running(store: metadata_store.MetadataStore) -> list[mlmd.Execution]:
    return [each for each in store.get_executions() if each.last_known_state == mlmd.Execution.RUNNING]
