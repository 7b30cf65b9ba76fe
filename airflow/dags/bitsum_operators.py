"""The tasks of the DAG: acquire the run lock, run a bitsum command for the run's span, release the lock; and the
failure notifier."""

import contextlib
import datetime
import http.client
import json
import logging
import os
import pathlib
import re
import socket
import time
import urllib.request
from collections.abc import Sequence
from typing import Any

from airflow.sdk import BaseOperator, BaseSensorOperator, Context
from airflow.sdk.exceptions import (
    AirflowException,
    AirflowFailException,
    AirflowRescheduleException,
    AirflowSkipException,
)
from bitsum_program import REFUSED, WRONG_USAGE, Program, printable, refusal
from bitsum_run_lock import Run, RunLock, UnreadableLock, process

ACQUIRE_LOCK = "acquire_lock"
RELEASE_LOCK = "release_lock"

_UNFINISHED = ["queued", "running"]
_ENDED = ("success", "failed", "skipped", "upstream_failed", "removed")
_POLL_SECONDS = 10.0
# A backfill starts its runs within seconds, unless it runs backwards.
_QUEUED_RUN_SECONDS = 300.0
_WEBHOOK_SECONDS = 10.0
_HOURS_OF_DAY = 24
_NO_ERROR = "a task's process ended without an error message: see the end of its log"


class Refused(AirflowFailException):
    """A gate refused: a retry would change nothing. `gate` is empty if the line names none."""

    def __init__(self, line: str):
        super().__init__(line)
        self.gate, self.reason = refusal(line)


def span_of(context: Context, hours: int) -> str:
    """The span of a run: its parameter, a number or a date; by default the span of `hours` that holds its logical date.

    A span of a day is a date unless the parameter is a number; other spans are numbers.

    Raises:
        AirflowFailException: the run has neither, or the parameter is not a span.
    """
    given = context["params"].get("span")
    # A form or a shell may pass a number as text, and JSON an integer as a float such as 3.0.
    if isinstance(given, float) or (isinstance(given, str) and given.isdecimal() and len(given) < len("20260131")):
        return str(int(given))
    try:
        moment = datetime.datetime.fromisoformat(given) if isinstance(given, str) else context["dag_run"].logical_date
    except ValueError as error:
        raise AirflowFailException(
            f"the parameter span = {given!r} is neither a number nor a date such as 2026-01-31"
        ) from error
    if isinstance(given, int):
        return str(given)
    if moment is None:
        raise AirflowFailException(
            'this run has neither the parameter span nor a logical date: trigger it with {"span": "2026-01-31"}'
        )
    moment = moment.replace(tzinfo=moment.tzinfo or datetime.timezone.utc).astimezone(datetime.timezone.utc)
    return str(moment.date()) if hours == _HOURS_OF_DAY else str(int(moment.timestamp()) // (hours * 3600))


def run_of(context: Context) -> Run:
    """The run that a task belongs to. BITSUM_AIRFLOW names the installation on all of its hosts."""
    airflow = os.environ.get("BITSUM_AIRFLOW") or f"{socket.gethostname()}:{os.environ.get('AIRFLOW_HOME', '')}"
    return Run(airflow, context["dag_run"].dag_id, context["dag_run"].run_id)


def run_id(context: Context) -> str:
    """The id of the run in bitsum's metadata and logs."""
    return re.sub(r"[^\w.:+-]", "_", context["dag_run"].run_id)[:200]


def _holder(root: str) -> Run | None:
    """The run that holds the lock. Raises: AirflowFailException: the file is unreadable, and a retry does not help."""
    try:
        return RunLock(root).holder()
    except UnreadableLock as error:
        raise AirflowFailException(str(error)) from error


def _states(context: Context, **which: Any) -> dict[str, str | None]:
    """{task: its state} of the run; None before its start. `which` selects tasks, as for `get_task_states`."""
    run = context["dag_run"]
    return context["ti"].get_task_states(run.dag_id, run_ids=[run.run_id], **which).get(run.run_id, {})


def _reschedule() -> AirflowRescheduleException:
    """Ends the task's process, frees its slot, and starts the task again after a pause."""
    pause = datetime.timedelta(seconds=_POLL_SECONDS)
    return AirflowRescheduleException(datetime.datetime.now(datetime.timezone.utc) + pause)


def scheduler() -> dict[str, Any] | None:
    """The scheduler's process of this Airflow; None unless `make airflow` started it on this host."""
    try:
        recorded = json.loads(pathlib.Path(os.environ["AIRFLOW_HOME"], "processes.json").read_text())["scheduler"]
        running = process(recorded["pid"])
        return running if running["started"] and running["started"] == recorded["started"] else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _acquire(root: str, context: Context, log: logging.Logger) -> bool:
    """Whether the run holds the lock now; otherwise logs the holder. Raises: AirflowFailException, as `_holder`."""
    lock, task = RunLock(root), context["ti"]
    try:
        holder = lock.acquire(
            run_of(context),
            lambda other: task.get_dr_count(other.dag, run_ids=[other.run], states=_UNFINISHED) == 0,
            scheduler(),
        )
    except UnreadableLock as error:
        raise AirflowFailException(str(error)) from error
    if holder:
        log.info(
            "waiting for run %s of %s at %s, which holds the lock of %s; if that Airflow no longer exists, remove %s",
            holder.run,
            holder.dag,
            holder.airflow,
            root,
            lock.file,
        )
    return holder is None


class AcquireLock(BaseSensorOperator):
    """Waits for the run lock of the pipeline's folder, and for runs of earlier dates; then holds the lock.

    It reschedules itself instead of blocking a worker slot, so that waiting runs leave room for the active one.
    """

    def __init__(self, *, root: str, span_hours: int, **options: Any):
        super().__init__(mode="reschedule", poke_interval=_POLL_SECONDS, **options)
        self.root = root
        self.span_hours = span_hours

    def poke(self, context: Context) -> bool:
        """Whether the run holds the lock now."""
        span = span_of(context, self.span_hours)
        run, task = run_of(context), context["ti"]
        if _holder(self.root) != run:
            earlier = task.get_previous_dagrun("running") or (
                task.get_previous_dagrun("queued") if self._waits_for_queued(context) else None
            )
            if earlier:
                self.log.info("waiting for run %s, which has an earlier date", earlier.run_id)
                return False
        if not _acquire(self.root, context, self.log):
            return False
        self.log.info("the run lock is held for span %s", span)
        return True

    def _waits_for_queued(self, context: Context) -> bool:
        """Whether to wait for an earlier run that is only queued; Airflow may not start it before this one ends."""
        since = context["ti"].get_first_reschedule_date(context)
        return (
            since is None
            or (datetime.datetime.now(datetime.timezone.utc) - since).total_seconds() < _QUEUED_RUN_SECONDS
        )


class ReleaseLock(BaseOperator):
    """Lets the next run begin, once no task of the group `nodes` runs any more.

    An edge from the last node would not do: Airflow skips it as soon as one of its upstream nodes fails, and the other
    nodes go on. Edges from all nodes would hide the graph's own.

    A run that a user marks as failed keeps running until this task is done, and Airflow forgets the mark. The only
    trace is that the task `last` was skipped, which nothing else causes.
    """

    def __init__(self, *, root: str, nodes: str, last: str, **options: Any):
        super().__init__(**options)
        self.root = root
        self.nodes = nodes
        self.last = last

    def execute(self, context: Context) -> None:
        """Release the lock.

        Raises:
            AirflowRescheduleException: a node runs.
            AirflowFailException: a user ended the run.
        """
        nodes = _states(context, task_group_id=self.nodes)
        if unfinished := [node for node, state in nodes.items() if state not in _ENDED]:
            self.log.info("waiting for %s", ", ".join(unfinished))
            raise _reschedule()
        RunLock(self.root).release(run_of(context))
        if _states(context, task_ids=[self.last]).get(self.last) == "skipped":
            raise AirflowFailException("a user ended the run before its verdict")


class BitsumOperator(BaseOperator):
    """Runs a bitsum command. Exit codes 3 and 2 fail the task at once; Airflow retries any other failure.

    A BashOperator would retry every exit code, or none. The task acquires the run lock first: its run lost the lock if
    Airflow was stopped meanwhile. If another run holds it, the task reschedules itself and frees its worker slot.
    """

    def __init__(self, *, command: Sequence[str], folder: str, root: str, **options: Any):
        super().__init__(**options)
        self.command = list(command)
        self.folder = folder
        self.root = root
        self._program: Program | None = None

    def execute(self, context: Context) -> None:
        """Run the command.

        Raises:
            AirflowFailException: a gate refused, the usage is wrong, or the run has released its lock.
            AirflowRescheduleException: another run holds the lock.
            AirflowException: any other failure.
        """
        # Without the last task nothing would release the lock again.
        if (
            _holder(self.root) != run_of(context)
            and _states(context, task_ids=[RELEASE_LOCK]).get(RELEASE_LOCK) in _ENDED
        ):
            raise AirflowFailException(f"this run does not hold the lock of {self.root}: clear its task {ACQUIRE_LOCK}")
        if not _acquire(self.root, context, self.log):
            raise _reschedule()
        self._program = Program(self.line(context), self.folder)
        ended = self._program.wait(self.log.info)
        if ended.code == REFUSED:
            raise Refused(ended.reason)
        if ended.code == WRONG_USAGE:
            raise AirflowFailException(ended.reason)
        if ended.code:
            raise AirflowException(ended.reason)

    def line(self, context: Context) -> list[str]:
        """Program and arguments."""
        return self.command

    def on_kill(self) -> None:
        """Stop the program and its children."""
        if self._program:
            self._program.stop()


class NodeOperator(BitsumOperator):
    """Runs a node of the pipeline for the run's span, with the knobs and options in the run's parameters."""

    def __init__(self, *, span_hours: int, **options: Any):
        super().__init__(**options)
        self.span_hours = span_hours

    def line(self, context: Context) -> list[str]:
        """Program and arguments."""
        knobs = [*context["params"].get("set", []), f"data.span={span_of(context, self.span_hours)}"]
        options = ["--allow-older"] if context["params"].get("allow_older") else []
        return [
            *self.command,
            "--run-id",
            run_id(context),
            *options,
            *(word for knob in knobs for word in ("--set", knob)),
        ]


class RolloutOperator(BitsumOperator):
    """Rolls out the newest version. The task is skipped before the first start of a server, which begins with that
    version."""

    def __init__(self, *, config_file: str, **options: Any):
        super().__init__(**options)
        self.config_file = config_file

    def execute(self, context: Context) -> None:
        """Roll out. Raises: AirflowSkipException: no server was ever started; otherwise as BitsumOperator."""
        if not pathlib.Path(self.folder, self.config_file).exists():
            raise AirflowSkipException(
                f"{self.config_file} does not exist: bitsum serve writes it at its first start, with the newest version"
            )
        super().execute(context)


class FailureNotifier:
    """Reports a task's final failure: a line in the log, a line in logs/failures.jsonl, and a POST to the webhook, if
    set."""

    def __init__(self, root: str, folder: str, webhook_file: str):
        self._file = pathlib.Path(root, "logs", "failures.jsonl")
        # Relative to where `make airflow` was called, like every path in knobs; Airflow runs in a folder of its own.
        self._webhook_file = str(pathlib.Path(folder, webhook_file)) if webhook_file else ""

    def __call__(self, context: Context) -> None:
        """Report the failure of a task."""
        task, error = context["ti"], context.get("exception")
        gate, reason = (error.gate, error.reason) if isinstance(error, Refused) else ("", str(error or _NO_ERROR))
        self._report(task.dag_id, task.run_id, task.task_id, gate, reason, task.task.log)

    def run_failed(self, context: Context) -> None:
        """Report the failure of a run unless a task did: Airflow calls no callback of a task whose process was
        killed."""
        run = context["dag_run"]
        if not self._is_reported(run):
            self._report(run.dag_id, run.run_id, "", "", _NO_ERROR, logging.getLogger(__name__))

    def _is_reported(self, run: Any) -> bool:
        """Whether a task reported a failure since the run was last started."""
        if not self._file.exists():
            return False
        since = run.start_date.timestamp()
        for line in self._file.read_text().splitlines():
            # A loss of power may leave half a line.
            with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
                failure = json.loads(line)
                if (failure["dag"], failure["run"]) == (run.dag_id, run.run_id) and failure.get("time", 0) >= since:
                    return True
        return False

    def _report(self, dag: str, run: str, task: str, gate: str, reason: str, log: logging.Logger) -> None:
        where = f"{dag} {run}, {task}" if task else f"{dag} {run}"
        failure = {
            "text": printable(f"{where}: {f'{gate} refused' if gate else 'failed'}: {reason}"),
            "dag": dag,
            "run": run,
            "task": task,
            "gate": gate,
            "reason": printable(reason),
            "refused": bool(gate),
            "time": time.time(),
        }
        log.error("%s", failure["text"])
        with open(self._file, "a") as file:
            file.write(json.dumps(failure) + "\n")
        if self._webhook_file:
            self._post(failure, log)

    def _post(self, failure: dict[str, Any], log: logging.Logger) -> None:
        try:
            url = pathlib.Path(self._webhook_file).read_text().splitlines()[0]
            body = json.dumps(failure).encode()
            request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
            urllib.request.urlopen(request, timeout=_WEBHOOK_SECONDS).close()
        except (OSError, http.client.HTTPException, ValueError, IndexError) as error:
            # The address is a secret and stays out of the log.
            log.error("cannot reach the webhook in %s: %s", self._webhook_file, type(error).__name__)
