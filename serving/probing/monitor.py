"""Probes one model server continuously, at a bounded rate and through all failures; thread-safe for readers."""

import dataclasses
import threading
from collections.abc import Callable, Iterator

from components.task.transducer import Transducer
from serving.probing.prober import GIVE_UP_AFTER, Round, TimedClient, rounds
from serving.probing.questions import Question
from serving.probing.report import Report, wrong_statement

# Wrong answers that are printed one by one until the next summary; further ones are only counted.
MAX_LISTED_WRONG = 100
# Pauses in seconds before the next call to a server that does not answer: they double from the first to the longest.
_FIRST_PAUSE, _MAX_PAUSE = 0.2, 5.0


@dataclasses.dataclass(frozen=True)
class Plan:
    """The questions and their pace.

    Args:
        wanted: signatures; None for all signatures of the model.
        rate: questions per second, each through one signature; None for no limit.
        lasting: continue after any failure; otherwise give up after GIVE_UP_AFTER failures in a row.
        expected: the version that must answer; None for any.
    """

    task: Transducer
    wanted: tuple[str, ...] | None = None
    rate: float | None = None
    lasting: bool = False
    expected: int | None = None


class Watch:
    """The probe of one server; `log` gets a line for each wrong answer, version change, failure and recovery."""

    def __init__(self, client: TimedClient, plan: Plan, questions: Iterator[Question], log: Callable[[str], None]):
        self.target = client.target
        self._client = client
        self._plan = plan
        self._questions = questions
        self._log = log
        self._lock = threading.Lock()
        self._total, self._period, self._last = Report(plan.task), Report(plan.task), Round(plan.task)
        self._failures = 0

    def run(self, stop: threading.Event) -> None:
        """Ask until the questions end, the probe gives up on the server, or `stop` is set."""
        plan = self._plan
        at_once = {} if plan.rate is None else {"at_once": max(1, int(plan.rate))}
        try:
            for round_ in rounds(self._client, plan.task, self._questions, plan.wanted, plan.expected, **at_once):
                # A stop may cut off the call in flight.
                if stop.is_set() and round_.errors:
                    return
                self._record(round_)
                if self._failures >= GIVE_UP_AFTER and not plan.lasting:
                    self._give_up()
                    return
                if stop.wait(self._pause(round_)):
                    return
        except ValueError:
            # A closed channel raises it.
            if not stop.is_set():
                raise

    def cut_off(self) -> None:
        """End it before all questions are asked; a lasting probe may end at any time."""
        if not self._plan.lasting:
            self._give_up()

    def total(self) -> Report:
        """The report up to now."""
        with self._lock:
            return Report(self._plan.task).merge(self._total)

    def period(self) -> Report:
        """The report since the last call of `period`."""
        with self._lock:
            period, self._period = self._period, Report(self._plan.task)
            return period

    def last(self) -> Round:
        """The last round."""
        with self._lock:
            return self._last

    def _give_up(self) -> None:
        with self._lock:
            self._total.gave_up = True

    def _record(self, round_: Round) -> None:
        with self._lock:
            before, listed = self._total.version, self._period.wrong_count
            self._total.merge(round_)
            self._period.merge(round_)
            self._last = round_
        self._log_round(round_, before, listed)
        self._failures = self._failures + 1 if round_.errors else 0

    def _log_round(self, round_: Round, before: int | None, listed: int) -> None:
        if round_.version is not None and before not in (None, round_.version):
            self._log(f"{self.target}: version {round_.version} answers, previously version {before}")
        if round_.unexpected_version and round_.version != before:
            self._log(f"{self.target}: version {round_.version} answers, version {self._plan.expected} is expected")
        for wrong in round_.wrong[: max(0, MAX_LISTED_WRONG - listed)]:
            self._log(
                f"{self.target}: wrong: {wrong_statement(round_.task, wrong)}; version {round_.named_version} answered"
            )
        if round_.errors and not self._failures:
            self._log(f"{self.target}: {round_.first_error}")
        if self._failures and not round_.errors:
            self._log(f"{self.target}: answers again after {self._failures} failures in a row")

    def _pause(self, round_: Round) -> float:
        """Seconds to wait before the next round."""
        pause = max(0.0, round_.asked / self._plan.rate - round_.seconds) if self._plan.rate else 0.0
        if self._failures and self._plan.lasting:
            pause = max(pause, min(_MAX_PAUSE, _FIRST_PAUSE * 2 ** min(self._failures - 1, 10)))
        return pause
