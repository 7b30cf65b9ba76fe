"""Whose turn it is: one run at a time works in a pipeline's folder, however many the scheduler has started.

Airflow bounds neither the runs of a backfill by the DAG's max_active_runs nor runs without a logical date by
depends_on_past. The turn is a file that names the run which has it, from the run's first task to its last, and the
scheduler's process that runs it: once that is gone, and when Airflow is stopped, whoever else works in the folder need
not wait, and the run takes its turn again.
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


@dataclasses.dataclass(frozen=True)
class Run:
    """A run of a DAG: the name of its Airflow, the DAG, and the run's id there."""

    airflow: str
    dag: str
    run: str


class UnreadableTurn(Exception):
    """The file does not say who has the turn; the text says what to do."""


class Turn:
    """The turn in the pipeline's folder `root`. Any number of processes may ask for it at once."""

    def __init__(self, root: str):
        self.file = pathlib.Path(root, "schedule", "turn.json")

    def holder(self) -> Run | None:
        """Who has it; None if nobody has.

        Raises:
            UnreadableTurn: the file is damaged, as after a loss of power.
        """
        return _run(self._told())

    def take(self, run: Run, is_over: Callable[[Run], bool], service: dict | None = None) -> Run | None:
        """Take it for `run`; who has it otherwise, None on success.

        It is to be had where it is free or this run's already, where its holder's run `is_over`, and where another
        Airflow's scheduler is gone. `service`: the process that runs `run`, as `process` has it.
        """
        with self._alone():
            told = self._told()
            holder = _run(told)
            if holder and holder != run and not (is_over(holder) if holder.airflow == run.airflow else is_gone(told)):
                return holder
            record = {**dataclasses.asdict(run), **(service or {})}
            if {**told, "since": None} != {**record, "since": None}:
                self._write({**record, "since": time.time()})
            return None

    def give_back(self, run: Run) -> None:
        """Let the next one have it; nothing happens where `run` does not have it."""
        with self._alone():
            if self.holder() == run:
                self.file.unlink()

    def give_back_of(self, airflow: str) -> Run | None:
        """Let the next one have it if a run of this `airflow` has it, which has been stopped; that run."""
        with self._alone():
            holder = self.holder()
            if holder is None or holder.airflow != airflow:
                return None
            self.file.unlink()
            return holder

    def _told(self) -> dict:
        """What the file says; empty where nobody has the turn."""
        try:
            told = json.loads(self.file.read_text())
            if _run(told) is not None:
                return told
        except FileNotFoundError:
            return {}
        except (ValueError, TypeError, KeyError):
            pass
        raise UnreadableTurn(f"{self.file} does not say which run has the turn: remove it once no run works here")

    def _write(self, record: dict) -> None:
        """Whole or not at all, also after a loss of power."""
        beside = self.file.with_name(".turn.writing")
        with open(beside, "w") as file:
            file.write(json.dumps(record) + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, self.file)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with open(self.file.with_suffix(".lock"), "a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def process(pid: int) -> dict:
    """A process of this host as it stays known when its id is given to another one; components/processes.py writes down
    the same."""
    machine = pathlib.Path("/etc/machine-id")
    host = f"{socket.gethostname()} {os.readlink('/proc/self/ns/pid')} {machine.read_text().strip() if machine.is_file() else ''}"
    return {"host": host.rstrip(), "pid": pid, "started": _started(pid)}


def is_gone(told: dict) -> bool:
    """Whether it can be seen that the process in what turn.json says is no more: it was on this host, and none of its
    id has its start."""
    if not told.get("started") or type(told.get("pid")) is not int:
        return False
    now = process(told["pid"])
    if told.get("host") != now["host"] or told["started"] == now["started"]:
        return False
    try:
        os.kill(told["pid"], 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        # There is one, of another user, that /proc may not show us.
        return bool(now["started"])
    return True


def _run(told: dict) -> Run | None:
    return Run(told["airflow"], told["dag"], told["run"]) if told else None


def _started(pid: int) -> str:
    """The boot, and the ticks since then; empty where there is no such process, or its end only nobody has asked for
    yet."""
    try:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        boot = pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
    return "" if fields[0] in "ZXx" else f"{boot} {fields[19]}"
