"""What a killed process leaves in the metadata store: executions that stay RUNNING although nobody works on them.

Every execution that is begun carries its owner: the host, the process and when that process started. An execution whose owner
can be seen to be gone is closed as FAILED; where that cannot be seen, because the owner lives on another host, nothing is done.
"""

import dataclasses
import os
import pathlib
import re
import socket
from collections.abc import Collection

from ml_metadata import metadata_store
from ml_metadata.metadata_store import ListOptions
from ml_metadata.proto import metadata_store_pb2 as mlmd

HOST = "owner_host"
PID = "owner_pid"
STARTED = "owner_started"
CLOSED = "closed_because"

_PROC = pathlib.Path("/proc")
_MACHINE = pathlib.Path("/etc/machine-id")
# After the name of the program, which may hold anything in its parentheses: state, and 19 fields on, the start in ticks since boot.
_STAT = re.compile(r".*\) (?P<state>\S)(?: \S+){18} (?P<ticks>\d+)", re.DOTALL)
_DEAD = "ZXx"


@dataclasses.dataclass(frozen=True)
class Closed:
    """An execution that was closed: its id, its node's type, and why."""

    execution: int
    kind: str
    reason: str


def owner() -> dict[str, str | int]:
    """This process, as it is recorded in the executions that it begins."""
    return {HOST: _host(), PID: os.getpid(), STARTED: _started(os.getpid()) or ""}


def stamp(execution: mlmd.Execution) -> None:
    """Write this process into `execution` as its owner; whoever calls this puts it into the store."""
    for name, value in owner().items():
        setattr(execution.custom_properties[name], "int_value" if isinstance(value, int) else "string_value", value)


def close_abandoned(store: metadata_store.MetadataStore, gone_hosts: Collection[str] = ()) -> list[Closed]:
    """Close as FAILED what RUNNING executions have lost their owner; what has an owner, or none recorded, is left as it is.

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


def why_abandoned(execution: mlmd.Execution, gone_hosts: Collection[str] = ()) -> str:
    """Why nobody works on `execution` any more, in words; empty where somebody does, or where that cannot be seen."""
    recorded = execution.custom_properties
    if any(name not in recorded for name in (HOST, PID, STARTED)):
        return ""
    host, pid, started = recorded[HOST].string_value, recorded[PID].int_value, recorded[STARTED].string_value
    if host in gone_hosts or _name(host) in gone_hosts:
        return f"host {_name(host)} is gone"
    if host != _host() or not started or _started(pid) == started:
        return ""
    return f"process {pid} on {_name(host)} is gone"


def elsewhere(store: metadata_store.MetadataStore) -> dict[str, int]:
    """How many RUNNING executions there are by the name of their host, where that cannot be looked into from here."""
    counts: dict[str, int] = {}
    for execution in store.get_executions(ListOptions(filter_query="last_known_state = RUNNING")):
        if HOST in execution.custom_properties and execution.custom_properties[HOST].string_value != _host():
            name = _name(execution.custom_properties[HOST].string_value)
            counts[name] = counts.get(name, 0) + 1
    return counts


def _host() -> str:
    """The host's name and, since process ids mean something only there, the machine and the namespace that they are in.

    Neither of the others would do: machines made from one image share the name, and the first namespace has one number on all.
    """
    machine = _MACHINE.read_text().strip() if _MACHINE.is_file() else ""
    return f"{socket.gethostname()} {os.readlink(_PROC / 'self/ns/pid')} {machine}".rstrip()


def _name(host: str) -> str:
    return host.partition(" ")[0]


def _started(pid: int) -> str | None:
    """When process `pid` started: the boot and the ticks since then, which no two processes of an id share; None if there is none."""
    try:
        found = _STAT.match((_PROC / str(pid) / "stat").read_text())
        boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None
    # Killed, and not waited for yet: it works on nothing any more.
    return None if not found or found["state"] in _DEAD else f"{boot} {found['ticks']}"
