"""The tasks of the DAG: wait for the turn, run a program of bitsum for the run's span, give the turn back; and who is
told of failures."""

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
from bitsum_turn import Run, Turn, UnreadableTurn, process

GIVE_BACK_TURN = "give_back_turn"

_UNFINISHED = ["queued", "running"]
_ENDED = ("success", "failed", "skipped", "upstream_failed", "removed")
_ASK_AGAIN_SECONDS = 10.0
# A backfill starts its runs within seconds, unless it is one that goes backwards.
_PATIENCE_SECONDS = 300.0
_WEBHOOK_SECONDS = 10.0
_NO_ERROR = "the process of a task ended and left no error: its log has the last lines"


class Refused(AirflowFailException):
    """A gate refused: trying again would change nothing. `gate` is empty where the line named none."""

    def __init__(self, line: str):
        super().__init__(line)
        self.gate, self.reason = refusal(line)


def span_of(context: Context, hours: int) -> int:
    """The span of a run: its parameter, a number or a date, or else the span of `hours` in which its logical date lies.

    Raises:
        AirflowFailException: it has neither, or a parameter that is no span.
    """
    given = context["params"].get("span")
    # A form or a shell may give a number as text, and JSON's integers are floats with nothing after the point, too.
    if isinstance(given, float) or (isinstance(given, str) and given.isdecimal() and len(given) < len("20260131")):
        return int(given)
    try:
        moment = datetime.datetime.fromisoformat(given) if isinstance(given, str) else context["dag_run"].logical_date
    except ValueError as error:
        raise AirflowFailException(
            f"the parameter span = {given!r} is neither a number nor a date, as 2026-01-31"
        ) from error
    if isinstance(given, int):
        return given
    if moment is None:
        raise AirflowFailException(
            'this run has neither the parameter span nor a logical date: trigger it with {"span": "2026-01-31"}'
        )
    return int(moment.replace(tzinfo=moment.tzinfo or datetime.timezone.utc).timestamp()) // (hours * 3600)


def run_of(context: Context) -> Run:
    """The run that a task is part of. BITSUM_AIRFLOW names the installation, on whichever of its hosts the task
    runs."""
    here = os.environ.get("BITSUM_AIRFLOW") or f"{socket.gethostname()}:{os.environ.get('AIRFLOW_HOME', '')}"
    return Run(here, context["dag_run"].dag_id, context["dag_run"].run_id)


def run_id(context: Context) -> str:
    """The id of the run in bitsum's metadata and logs."""
    return re.sub(r"[^\w.:+-]", "_", context["dag_run"].run_id)[:200]


def _holder(root: str) -> Run | None:
    """Who has the turn. Raises: AirflowFailException: that cannot be read, and will not become readable by asking
    again."""
    try:
        return Turn(root).holder()
    except UnreadableTurn as error:
        raise AirflowFailException(str(error)) from error


def scheduler() -> dict[str, Any] | None:
    """The process that runs this Airflow; None where `make airflow` has not started it, or not on this host."""
    try:
        recorded = json.loads(pathlib.Path(os.environ["AIRFLOW_HOME"], "processes.json").read_text())["scheduler"]
        found = process(recorded["pid"])
        return found if found["started"] and found["started"] == recorded["started"] else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _take(root: str, context: Context, log: Any) -> bool:
    """Whether the run has the turn now; who has it else is told to `log`. Raises: AirflowFailException, as
    `_holder`."""
    turn, task = Turn(root), context["ti"]
    try:
        holder = turn.take(
            run_of(context),
            lambda other: task.get_dr_count(other.dag, run_ids=[other.run], states=_UNFINISHED) == 0,
            scheduler(),
        )
    except UnreadableTurn as error:
        raise AirflowFailException(str(error)) from error
    if holder:
        log.info(
            "run %s of %s at %s has the turn in %s: waiting for it; if that Airflow is no more, remove %s",
            holder.run,
            holder.dag,
            holder.airflow,
            root,
            turn.file,
        )
    return holder is None


class TakeTurn(BaseSensorOperator):
    """Waits until no other run works in the pipeline's folder, and no run of an earlier date is under way; then holds
    the turn.

    It is asked again and again instead of waiting in a process, so that any number of waiting runs leaves room for the
    one at work.
    """

    def __init__(self, *, root: str, span_hours: int, **options: Any):
        super().__init__(mode="reschedule", poke_interval=_ASK_AGAIN_SECONDS, **options)
        self.root = root
        self.span_hours = span_hours

    def poke(self, context: Context) -> bool:
        span = span_of(context, self.span_hours)
        run, task = run_of(context), context["ti"]
        if _holder(self.root) != run:
            earlier = task.get_previous_dagrun("running") or (
                task.get_previous_dagrun("queued") if self._is_patient(context) else None
            )
            if earlier:
                self.log.info("run %s is of an earlier date and not done: waiting for it", earlier.run_id)
                return False
        if not _take(self.root, context, self.log):
            return False
        self.log.info("span %d has the turn", span)
        return True

    def _is_patient(self, context: Context) -> bool:
        """Whether an earlier run that has not been started yet is still waited for; Airflow may never start it before
        this one ends."""
        since = context["ti"].get_first_reschedule_date(context)
        return (
            since is None or (datetime.datetime.now(datetime.timezone.utc) - since).total_seconds() < _PATIENCE_SECONDS
        )


class GiveBackTurn(BaseOperator):
    """Lets the next run begin.

    Airflow leaves a run that somebody marks as failed running until this task is done, and forgets what it was marked
    as: all that is left to see is that the task `last` was skipped, which nothing else does.
    """

    def __init__(self, *, root: str, last: str, **options: Any):
        super().__init__(**options)
        self.root = root
        self.last = last

    def execute(self, context: Context) -> None:
        Turn(self.root).give_back(run_of(context))
        run = context["dag_run"]
        states = context["ti"].get_task_states(run.dag_id, run_ids=[run.run_id]).get(run.run_id, {})
        if states.get(self.last) == "skipped":
            raise AirflowFailException("the run was ended by hand, before its verdict")


class BitsumOperator(BaseOperator):
    """Runs a command of bitsum. Exit code 3 and 2 fail the task at once, anything else is tried again.

    A BashOperator would try every exit code again, or none. Each takes the turn of its run first, which has it already
    unless its Airflow was stopped meanwhile; where another run has it now, it is asked again later, and leaves its
    place to that run's tasks.
    """

    def __init__(self, *, command: Sequence[str], folder: str, root: str, **options: Any):
        super().__init__(**options)
        self.command = list(command)
        self.folder = folder
        self.root = root
        self._program: Program | None = None

    def execute(self, context: Context) -> None:
        if _holder(self.root) != run_of(context) and self._has_given_back(context):
            raise AirflowFailException(f"this run has not the turn in {self.root}: clear its task take_turn")
        if not _take(self.root, context, self.log):
            again = datetime.timedelta(seconds=_ASK_AGAIN_SECONDS)
            raise AirflowRescheduleException(datetime.datetime.now(datetime.timezone.utc) + again)
        self._program = Program(self.line(context), self.folder)
        ended = self._program.wait(self.log.info)
        if ended.code == REFUSED:
            raise Refused(ended.reason)
        if ended.code == WRONG_USAGE:
            raise AirflowFailException(ended.reason)
        if ended.code:
            raise AirflowException(ended.reason)

    def _has_given_back(self, context: Context) -> bool:
        """Whether the run is past its end, so that nobody would give the turn back again."""
        run = context["dag_run"]
        states = context["ti"].get_task_states(run.dag_id, run_ids=[run.run_id], task_ids=[GIVE_BACK_TURN])
        return states.get(run.run_id, {}).get(GIVE_BACK_TURN) in _ENDED

    def line(self, context: Context) -> list[str]:
        """Program and arguments."""
        return self.command

    def on_kill(self) -> None:
        if self._program:
            self._program.stop()


class NodeOperator(BitsumOperator):
    """Runs a node of the pipeline for the span of the run, with the knobs and the option that the run's parameters
    give."""

    def __init__(self, *, span_hours: int, **options: Any):
        super().__init__(**options)
        self.span_hours = span_hours

    def line(self, context: Context) -> list[str]:
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
    """Rolls the newest version out. Before a server was ever started there is nothing to do: it begins with the newest
    version."""

    def __init__(self, *, config_file: str, **options: Any):
        super().__init__(**options)
        self.config_file = config_file

    def execute(self, context: Context) -> None:
        if not pathlib.Path(self.folder, self.config_file).exists():
            raise AirflowSkipException(
                f"there is no {self.config_file}: bitsum serve writes it when it starts, with the newest version"
            )
        super().execute(context)


class Alarm:
    """What happens when a task has failed for good: a line in the log, one in a file, and a POST to the webhook where
    there is one."""

    def __init__(self, root: str, folder: str, webhook_file: str):
        self._file = pathlib.Path(root, "logs", "failures.jsonl")
        # Relative to where `make airflow` was called, as every path in knobs; Airflow works in a folder of its own.
        self._webhook_file = str(pathlib.Path(folder, webhook_file)) if webhook_file else ""

    def __call__(self, context: Context) -> None:
        task, error = context["ti"], context.get("exception")
        gate, reason = (error.gate, error.reason) if isinstance(error, Refused) else ("", str(error or _NO_ERROR))
        what = f"{gate} refused" if gate else "failed"
        failure = {
            "text": f"{task.dag_id} {task.run_id}, {task.task_id}: {what}: {reason}",
            "dag": task.dag_id,
            "run": task.run_id,
            "task": task.task_id,
            "gate": gate,
            "reason": reason,
            "refused": bool(gate),
        }
        self._tell(failure, task.task.log)

    def of_run(self, context: Context) -> None:
        """A run failed. Airflow asks no callback of a task whose process was killed: then this is the only one to
        tell."""
        run = context["dag_run"]
        if self._is_told(run):
            return
        self._tell(
            {
                "text": f"{run.dag_id} {run.run_id}: failed: {_NO_ERROR}",
                "dag": run.dag_id,
                "run": run.run_id,
                "task": "",
                "gate": "",
                "reason": _NO_ERROR,
                "refused": False,
            },
            logging.getLogger(__name__),
        )

    def _is_told(self, run: Any) -> bool:
        """Whether a task of the run told of its failure since the run was last started."""
        if not self._file.exists():
            return False
        since = run.start_date.timestamp()
        for line in self._file.read_text().splitlines():
            # A loss of power may leave half a line.
            with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
                told = json.loads(line)
                if (told["dag"], told["run"]) == (run.dag_id, run.run_id) and told.get("time", 0) >= since:
                    return True
        return False

    def _tell(self, failure: dict[str, Any], log: Any) -> None:
        failure |= {"text": printable(failure["text"]), "reason": printable(failure["reason"]), "time": time.time()}
        log.error("%s", failure["text"])
        with open(self._file, "a") as file:
            file.write(json.dumps(failure) + "\n")
        if self._webhook_file:
            self._post(failure, log)

    def _post(self, failure: dict[str, Any], log: Any) -> None:
        try:
            url = pathlib.Path(self._webhook_file).read_text().splitlines()[0]
            body = json.dumps(failure).encode()
            request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
            urllib.request.urlopen(request, timeout=_WEBHOOK_SECONDS).close()
        except (OSError, http.client.HTTPException, ValueError, IndexError) as error:
            # The address is a secret: what it was stays out of the log.
            log.error("the webhook of %s was not reached: %s", self._webhook_file, type(error).__name__)
