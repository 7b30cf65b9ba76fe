"""The lock of the folder that holds everything of a pipeline: one run at a time; the nodes of a scheduled run share it.

It is a flock on the folder's marker file, which the kernel releases when its holder ends, however it ends. Two more
files name the holders:

    holders/*.json          holders of the flock, for the messages of those who wait
    schedule/run-lock.json  the scheduled run that holds the run lock, which airflow/dags/bitsum_run_lock.py writes

An exclusive lock also waits for the run lock, unless the Airflow that holds it is known to be gone.
"""

import contextlib
import dataclasses
import fcntl
import json
import pathlib
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any, TextIO

from components import atomic, processes, regular_files
from components.errors import BitsumError
from pipeline import workspace
from pipeline.config import Config

RUN_LOCK = pathlib.PurePath("schedule", "run-lock.json")
# Every writer of run-lock.json holds a flock on this file while it writes.
_CHANGE_LOCK = "run-lock.lock"
_HOLDERS = "holders"
_KNOB = "pipeline.lock_timeout"
_POLL_SECONDS = 0.5
_REPORT_SECONDS = 10.0


@contextlib.contextmanager
def locked(config: Config, doing: str, on_wait: Callable[[str], None], shared: bool = False) -> Iterator[None]:
    """Lock the folder `config.root`, which is prepared, for `doing`: a command and its run.

    `shared` holders, the nodes of a scheduled run, do not wait for one another. An exclusive lock waits for them all.

    Args:
        on_wait: gets a line that names the holder, first at once and then every ten seconds.

    Raises:
        BitsumError: pipeline.lock_timeout has passed, or the folder cannot be locked.
    """
    root = config.root
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(open(root / workspace.MARKER, "r+"))
            _until_free(lambda: _acquire(file, root, on_wait, shared), on_wait, config.pipeline.lock_timeout)
        except BrokenPipeError:
            # The reader of the `on_wait` lines is gone; the lock is not affected.
            raise
        except OSError as error:
            raise BitsumError(f"cannot lock pipeline.root = {root}: {error.strerror or error}") from error
        stack.enter_context(_recorded(root / _HOLDERS, doing, shared))
        yield


def _until_free(acquire: Callable[[], str | None], on_wait: Callable[[str], None], limit: float) -> None:
    """Call `acquire` until it returns None instead of the holder, and report the holder to `on_wait`.

    Raises:
        BitsumError: `limit` seconds have passed.
    """
    began = reported = time.monotonic()
    before = None
    while holder := acquire():
        now = time.monotonic()
        if now - began >= limit:
            raise BitsumError(
                f"gave up after {_KNOB} = {limit:g} s of waiting for {holder}; stop it, or set {_KNOB} higher"
            )
        if holder != before or now - reported >= _REPORT_SECONDS:
            on_wait(f"waiting for {holder}" + (f"; {now - began:.0f} s so far" if before else ""))
            before, reported = holder, now
        time.sleep(min(_POLL_SECONDS, limit))


def forget(root: pathlib.Path) -> None:
    """Remove the lock files that a copied root inherited from its original: they do not name processes of the copy."""
    with contextlib.suppress(OSError):
        (root / RUN_LOCK).unlink(missing_ok=True)
        for path in (root / _HOLDERS).glob("*.json"):
            path.unlink(missing_ok=True)


def _acquire(file: TextIO, root: pathlib.Path, on_takeover: Callable[[str], None], shared: bool) -> str | None:
    """Acquire the lock if it is free; otherwise describe its holder."""
    run_lock = None if shared else _RunLock.read(root / RUN_LOCK)
    if run_lock and not run_lock.is_gone():
        return str(run_lock)
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return _holders(root / _HOLDERS) or f"another program that works in {root}"
    if run_lock and run_lock.remove():
        on_takeover(f"the Airflow {run_lock.airflow!r} is gone: its run {run_lock.run!r} has lost the run lock")
    # Another run may have acquired the run lock in the meantime.
    run_lock = None if shared else _RunLock.read(root / RUN_LOCK)
    if run_lock:
        fcntl.flock(file, fcntl.LOCK_UN)
        return str(run_lock)
    return None


@dataclasses.dataclass(frozen=True)
class _RunLock:
    """The content of run-lock.json: the scheduled run that holds it, since when, and the Airflow that runs it with its
    scheduler's process."""

    path: pathlib.Path
    text: str
    airflow: str
    dag: str
    run: str
    since: float
    scheduler: processes.Process | None

    @classmethod
    def read(cls, path: pathlib.Path) -> "_RunLock | None":
        """The lock; None if it is free. Raises: BitsumError: the file is damaged."""
        try:
            text, changed = regular_files.read(path).decode(errors="replace"), path.stat().st_mtime
        except FileNotFoundError:
            return None
        try:
            record: Any = regular_files.parse_json(text)
            since = float(record.get("since", changed))
            return cls(path, text, record["airflow"], record["dag"], record["run"], since, _process(record))
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
            raise BitsumError(
                f"{path} does not name the run that holds the lock: remove it once no run works here"
            ) from error

    def is_gone(self) -> bool:
        """Whether the scheduler of this run is known to be gone."""
        return self.scheduler is not None and self.scheduler.is_gone()

    def remove(self) -> bool:
        """Release the lock; False if another process is changing or has changed it."""
        with (
            open(self.path.parent / _CHANGE_LOCK, "a") as lock,
            contextlib.suppress(BlockingIOError, FileNotFoundError),
        ):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if self.path.read_bytes().decode(errors="replace") == self.text:
                self.path.unlink()
                return True
        return False

    def __str__(self) -> str:
        scheduler = f" ({self.scheduler})" if self.scheduler else ""
        return (
            f"the scheduled run {self.run!r} of {self.dag!r}, which has held the run lock since {_when(self.since)} "
            f"from the Airflow {self.airflow!r}{scheduler}; if that no longer exists, remove {self.path}"
        )


@contextlib.contextmanager
def _recorded(folder: pathlib.Path, doing: str, shared: bool) -> Iterator[None]:
    """Record the holder. Only messages depend on the record, so a failure to write it is ignored."""
    record = folder / f"{uuid.uuid4().hex}.json"
    with contextlib.suppress(OSError):
        folder.mkdir(exist_ok=True)
        for path in folder.glob("*.json"):
            if not shared or (holder := _holder(path)) is None or holder.process.is_gone():
                path.unlink(missing_ok=True)
        atomic.write(
            record, json.dumps({"doing": doing, "since": time.time(), **dataclasses.asdict(processes.this())}) + "\n"
        )
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            record.unlink(missing_ok=True)


@dataclasses.dataclass(frozen=True)
class _Holder:
    doing: str
    since: float
    process: processes.Process


def _holder(path: pathlib.Path) -> _Holder | None:
    """The holder recorded in a file of holders/; None if the file is unreadable or not ours."""
    try:
        record: Any = regular_files.read_json(path)
        process = _process(record)
        return _Holder(str(record["doing"]), float(record["since"]), process) if process else None
    except (OSError, ValueError, TypeError, KeyError, AttributeError, OverflowError):
        return None


def _holders(folder: pathlib.Path) -> str | None:
    """The recorded holders that still run, in words; None without any."""
    holders = [holder for path in folder.glob("*.json") if (holder := _holder(path)) and not holder.process.is_gone()]
    if not holders:
        return None
    first = min(holders, key=lambda holder: holder.since)
    more = f", and {len(holders) - 1} more" if len(holders) > 1 else ""
    return f"{first.doing!r}, {first.process}, at work in {folder.parent} since {_when(first.since)}{more}"


def _process(record: dict[str, Any]) -> processes.Process | None:
    """The process in a record; None if the record lacks one."""
    host, pid, started = record.get("host"), record.get("pid"), record.get("started")
    if isinstance(host, str) and type(pid) is int and 0 < pid < 2**31 and isinstance(started, str):
        return processes.Process(host, pid, started)
    return None


def _when(seconds: float) -> str:
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
    except (OverflowError, ValueError, OSError):
        return "some time ago"
