"""The run lock: one run at a time works in a pipeline's folder, however many the scheduler has started.

Airflow does not apply max_active_runs of a DAG to a backfill, nor depends_on_past to runs without a logical date. The
lock is a file that names the run holding it, from the run's first task to its last, and the process of its scheduler.
When that process is gone, or Airflow is stopped, others may work in the folder; the run acquires the lock again when it
resumes.
"""

import contextlib
import dataclasses
import fcntl
import json
import os
import pathlib
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any


@dataclasses.dataclass(frozen=True)
class Run:
    """A run of a DAG: the name of its Airflow, the DAG, and the run's id there."""

    airflow: str
    dag: str
    run: str


class UnreadableLock(Exception):
    """The file names no holder; the text says what to do."""


class RunLock:
    """The run lock of the pipeline's folder `root`. Any number of processes may try to acquire it at once."""

    def __init__(self, root: str):
        self.file = pathlib.Path(root, "schedule", "run-lock.json")

    def holder(self) -> Run | None:
        """The run that holds the lock; None if it is free.

        Raises:
            UnreadableLock: the file is damaged, as after a loss of power.
        """
        return _run(self._read())

    def acquire(self, run: Run, is_over: Callable[[Run], bool], scheduler: dict[str, Any] | None = None) -> Run | None:
        """Acquire the lock for `run`; None on success, otherwise the run that holds it.

        A held lock is available to its holder, and to others once the holder's run `is_over` or, if it belongs to
        another Airflow, once that scheduler is gone. `scheduler`: the process that runs `run`, as `process` returns it.
        """
        with self._exclusive():
            before = self._read()
            holder = _run(before)
            if holder and holder != run and not (is_over(holder) if holder.airflow == run.airflow else is_gone(before)):
                return holder
            record = {**dataclasses.asdict(run), **(scheduler or {})}
            if {**before, "since": None} != {**record, "since": None}:
                self._write({**record, "since": time.time()})
            return None

    def release(self, run: Run) -> None:
        """Release the lock if `run` holds it."""
        with self._exclusive():
            if self.holder() == run:
                self.file.unlink()

    def release_of(self, airflow: str) -> Run | None:
        """Release the lock if a run of `airflow`, which was stopped, holds it; that run."""
        with self._exclusive():
            holder = self.holder()
            if holder is None or holder.airflow != airflow:
                return None
            self.file.unlink()
            return holder

    def _read(self) -> dict[str, Any]:
        """The content of the file; empty if the lock is free."""
        try:
            record = json.loads(self.file.read_text())
            if _run(record) is not None:
                return record
        except FileNotFoundError:
            return {}
        except (ValueError, TypeError, KeyError):
            pass
        raise UnreadableLock(f"{self.file} does not name the run that holds the lock: remove it once no run works here")

    def _write(self, record: dict[str, Any]) -> None:
        """Atomic, also across a loss of power."""
        beside = self.file.with_name(".run-lock.writing")
        with open(beside, "w") as file:
            file.write(json.dumps(record) + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, self.file)

    @contextlib.contextmanager
    def _exclusive(self) -> Iterator[None]:
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with open(self.file.with_suffix(".lock"), "a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def process(pid: int) -> dict[str, Any]:
    """Identifies a process of this host, even after its id is reused. components/processes.py records the same."""
    file = pathlib.Path("/etc/machine-id")
    machine = file.read_text().strip() if file.is_file() else ""
    host = f"{socket.gethostname()} {os.readlink('/proc/self/ns/pid')} {machine}"
    return {"host": host.rstrip(), "pid": pid, "started": _started(pid)}


def is_gone(record: dict[str, Any]) -> bool:
    """Whether the scheduler in `record` is known to be gone: it ran on this host, and its process no longer exists."""
    if not record.get("started") or type(record.get("pid")) is not int:
        return False
    now = process(record["pid"])
    if record.get("host") != now["host"] or record["started"] == now["started"]:
        return False
    try:
        os.kill(record["pid"], 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        # The process belongs to another user, and /proc may hide it.
        return bool(now["started"])
    return True


def _run(record: dict[str, Any]) -> Run | None:
    return Run(record["airflow"], record["dag"], record["run"]) if record else None


def _started(pid: int) -> str:
    """The boot, and the start in ticks since then; empty if there is no such process, or only its zombie."""
    try:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        boot = pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
    return "" if fields[0] in "ZXx" else f"{boot} {fields[19]}"
