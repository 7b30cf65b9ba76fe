"""The lock of the folder in which a run keeps everything: one run at a time, the nodes of a scheduled one side by side.

It is a flock on the folder's marker, which the kernel lets go of when its holder is gone, however it went. Beside it
are

    holders/*.json        who holds it, so that others can say for whom they wait
    schedule/turn.json    the scheduled run that has the turn, from its first task to its last (airflow/dags/bitsum_turn.py writes it)

Whoever wants the folder for itself waits for the turn, too, unless the Airflow that has it can be seen to be gone.
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

TURN = pathlib.PurePath("schedule", "turn.json")
# Held for the moment in which turn.json changes, by all who change it.
_TURN_LOCK = "turn.lock"
_HOLDERS = "holders"
_KNOB = "pipeline.lock_timeout"
_ASK_AGAIN_SECONDS = 0.5
_SAY_AGAIN_SECONDS = 10.0


@contextlib.contextmanager
def held(config: Config, doing: str, say: Callable[[str], None], shared: bool = False) -> Iterator[None]:
    """Hold the folder `config.root`, which is prepared, for what `doing` names: a command, and the run that it is part
    of.

    Those who hold it `shared`, the nodes of a scheduled run, do not wait for one another; everybody else waits for all
    of that run.

    Args:
        say: told in one line for whom it waits, again and again.

    Raises:
        BitsumError: pipeline.lock_timeout has passed, or the folder cannot be locked.
    """
    root = config.root
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(open(root / workspace.MARKER, "r+"))
            _until_free(lambda: _take(file, root, say, shared), say, config.pipeline.lock_timeout)
        except BrokenPipeError:
            # Of whoever reads what `say` is told.
            raise
        except OSError as error:
            raise BitsumError(f"cannot lock pipeline.root = {root}: {error.strerror or error}") from error
        stack.enter_context(_recorded(root / _HOLDERS, doing, shared))
        yield


def _until_free(holder: Callable[[], str | None], say: Callable[[str], None], limit: float) -> None:
    """Ask `holder` for who has the lock until it says None, which takes it; `say` is told of whom, at first and again.

    Raises:
        BitsumError: it was given up after `limit` seconds.
    """
    began = said = time.monotonic()
    before = None
    while found := holder():
        now = time.monotonic()
        if now - began >= limit:
            raise BitsumError(
                f"gave up after {_KNOB} = {limit:g} s of waiting for {found}; stop that, or set {_KNOB} higher"
            )
        if found != before or now - said >= _SAY_AGAIN_SECONDS:
            say(f"waiting for {found}" + (f"; {now - began:.0f} s so far" if before else ""))
            before, said = found, now
        time.sleep(min(_ASK_AGAIN_SECONDS, limit))


def forget(root: pathlib.Path) -> None:
    """Remove what the original of a copied root had written down of its lock: nobody works in the copy."""
    with contextlib.suppress(OSError):
        (root / TURN).unlink(missing_ok=True)
        for path in (root / _HOLDERS).glob("*.json"):
            path.unlink(missing_ok=True)


def _take(file: TextIO, root: pathlib.Path, say: Callable[[str], None], shared: bool) -> str | None:
    """Take the lock if it is free; who has it otherwise, in words."""
    turn = None if shared else _Turn.read(root / TURN)
    if turn and not turn.is_gone():
        return str(turn)
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return _holders(root / _HOLDERS) or f"another program that works in {root}"
    if turn and turn.end():
        say(f"the Airflow {turn.airflow!r} is gone: the turn of its run {turn.run!r} is taken over")
    # It was free a moment ago, or this one's: that somebody got it since is found out here.
    turn = None if shared else _Turn.read(root / TURN)
    if turn:
        fcntl.flock(file, fcntl.LOCK_UN)
        return str(turn)
    return None


@dataclasses.dataclass(frozen=True)
class _Turn:
    """What turn.json says: the scheduled run that has the turn, since when, and the Airflow (its scheduler's process)
    that runs it."""

    path: pathlib.Path
    text: str
    airflow: str
    dag: str
    run: str
    since: float
    service: processes.Process | None

    @classmethod
    def read(cls, path: pathlib.Path) -> "_Turn | None":
        """None where nobody has it. Raises: BitsumError, the file does not say who."""
        try:
            text, changed = regular_files.read(path).decode(errors="replace"), path.stat().st_mtime
        except FileNotFoundError:
            return None
        try:
            told = json.loads(text)
            return cls(
                path, text, told["airflow"], told["dag"], told["run"], float(told.get("since", changed)), _process(told)
            )
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError) as error:
            raise BitsumError(
                f"{path} does not say which run has the turn: remove it once no run works here"
            ) from error

    def is_gone(self) -> bool:
        """Whether it can be seen that nobody runs this run any more."""
        return self.service is not None and self.service.is_gone()

    def end(self) -> bool:
        """Let the next one have it; False where somebody else changes it at this moment, or has."""
        with open(self.path.parent / _TURN_LOCK, "a") as lock, contextlib.suppress(BlockingIOError, FileNotFoundError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if self.path.read_bytes().decode(errors="replace") == self.text:
                self.path.unlink()
                return True
        return False

    def __str__(self) -> str:
        service = f" ({self.service})" if self.service else ""
        return (
            f"the scheduled run {self.run!r} of {self.dag!r}, which has the turn since {_when(self.since)} from the Airflow "
            f"{self.airflow!r}{service}; if that is no more, remove {self.path}"
        )


@contextlib.contextmanager
def _recorded(folder: pathlib.Path, doing: str, shared: bool) -> Iterator[None]:
    """Write down who holds the lock. Nothing but what others are told depends on it, so what goes wrong with it stops
    nobody."""
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
    """What a file in holders/ says; None where that cannot be read, or is nothing of ours."""
    try:
        told = regular_files.read_json(path)
        process = _process(told)
        return _Holder(str(told["doing"]), float(told["since"]), process) if process else None
    except (OSError, ValueError, TypeError, KeyError, AttributeError, OverflowError):
        return None


def _holders(folder: pathlib.Path) -> str | None:
    """Who holds the lock, in words; None where nobody who lives has written it down."""
    known = [holder for path in folder.glob("*.json") if (holder := _holder(path)) and not holder.process.is_gone()]
    if not known:
        return None
    first = min(known, key=lambda holder: holder.since)
    more = f", and {len(known) - 1} more" if len(known) > 1 else ""
    return f"{first.doing!r}, {first.process}, at work in {folder.parent} since {_when(first.since)}{more}"


def _process(told: dict[str, Any]) -> processes.Process | None:
    """The process that a record names; None where it names none, as those of before."""
    host, pid, started = told.get("host"), told.get("pid"), told.get("started")
    known = isinstance(host, str) and type(pid) is int and 0 < pid < 2**31 and isinstance(started, str)
    return processes.Process(host, pid, started) if known else None


def _when(seconds: float) -> str:
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
    except (OverflowError, ValueError, OSError):
        return "some time ago"
