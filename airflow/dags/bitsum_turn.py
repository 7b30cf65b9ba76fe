"""Whose turn it is: one run at a time works in a pipeline's folder, however many the scheduler has started.

Airflow bounds neither the runs of a backfill by the DAG's max_active_runs nor runs without a logical date by depends_on_past. The
turn is a file that names the run which has it, from the run's first task to its last.
"""

import contextlib
import dataclasses
import fcntl
import json
import os
import pathlib
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
        try:
            return Run(**json.loads(self.file.read_text()))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError) as error:
            raise UnreadableTurn(f"{self.file} does not say which run has the turn: remove it once no run works here") from error

    def take(self, run: Run, is_over: Callable[[Run], bool]) -> Run | None:
        """Take it for `run` where it is free, or its holder's run `is_over`; who has it otherwise, None on success."""
        with self._alone():
            holder = self.holder()
            if holder and holder != run and not (holder.airflow == run.airflow and is_over(holder)):
                return holder
            beside = self.file.with_name(".turn.writing")
            beside.write_text(json.dumps(dataclasses.asdict(run)) + "\n")
            os.replace(beside, self.file)
            return None

    def give_back(self, run: Run) -> None:
        """Let the next one have it; nothing happens where `run` does not have it."""
        with self._alone():
            if self.holder() == run:
                self.file.unlink()

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with open(self.file.with_suffix(".lock"), "a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
