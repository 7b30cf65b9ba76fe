"""What a killed process leaves in the metadata store: executions that stay RUNNING although nobody works on them.

Every execution that is begun carries its owner: the host, the process and when that process started. An execution whose
owner can be seen to be gone is closed as FAILED; where that cannot be seen, because the owner lives on another host,
nothing is done.
"""

import dataclasses
from collections.abc import Collection

from ml_metadata import metadata_store
from ml_metadata.metadata_store import ListOptions
from ml_metadata.proto import metadata_store_pb2 as mlmd

from components import processes

HOST = "owner_host"
PID = "owner_pid"
STARTED = "owner_started"
CLOSED = "closed_because"


@dataclasses.dataclass(frozen=True)
class Closed:
    """An execution that was closed: its id, its node's type, and why."""

    execution: int
    kind: str
    reason: str


def owner() -> dict[str, str | int]:
    """This process, as it is recorded in the executions that it begins."""
    this = processes.this()
    return {HOST: this.host, PID: this.pid, STARTED: this.started}


def stamp(execution: mlmd.Execution) -> None:
    """Write this process into `execution` as its owner; whoever calls this puts it into the store."""
    for name, value in owner().items():
        setattr(execution.custom_properties[name], "int_value" if isinstance(value, int) else "string_value", value)


def close_abandoned(store: metadata_store.MetadataStore, gone_hosts: Collection[str] = ()) -> list[Closed]:
    """Close as FAILED what RUNNING executions have lost their owner; what has an owner, or none recorded, is left as it
    is.

    Args:
        gone_hosts: hosts that are known to be no more, so that nothing on them can be looked at.
    """
    kinds = {kind.id: kind.name.rpartition(".")[2] for kind in store.get_execution_types()}
    closed = []
    for execution in store.get_executions(ListOptions(filter_query="last_known_state = RUNNING")):
        reason = why_abandoned(execution, gone_hosts)
        if reason:
            execution.last_known_state = mlmd.Execution.FAILED
            execution.custom_properties[CLOSED].string_value = reason
            closed.append((execution, Closed(execution.id, kinds[execution.type_id], reason)))
    if closed:
        store.put_executions([execution for execution, _ in closed])
    return [told for _, told in closed]


def why_abandoned(execution: mlmd.Execution, gone_hosts: Collection[str] = ()) -> str | None:
    """Why nobody works on `execution` any more, in words; None where somebody does, or where that cannot be seen."""
    recorded = execution.custom_properties
    if any(name not in recorded for name in (HOST, PID, STARTED)):
        return None
    worker = processes.Process(recorded[HOST].string_value, recorded[PID].int_value, recorded[STARTED].string_value)
    if worker.host in gone_hosts or worker.host_name in gone_hosts:
        return f"host {worker.host_name} is gone"
    return f"{worker} is gone" if worker.is_gone() else None


def elsewhere(store: metadata_store.MetadataStore) -> dict[str, int]:
    """How many RUNNING executions there are by the name of their host, where that cannot be looked into from here."""
    counts: dict[str, int] = {}
    for execution in store.get_executions(ListOptions(filter_query="last_known_state = RUNNING")):
        if HOST in execution.custom_properties and execution.custom_properties[HOST].string_value != processes.host():
            name = execution.custom_properties[HOST].string_value.partition(" ")[0]
            counts[name] = counts.get(name, 0) + 1
    return counts
