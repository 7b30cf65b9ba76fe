"""Runs a bitsum command for a task: its lines go to the task's log, its exit code is the result."""

import contextlib
import ctypes
import dataclasses
import os
import re
import signal
import subprocess
from collections.abc import Callable, Sequence

# The exit codes of every bitsum command.
WRONG_USAGE = 2
REFUSED = 3

_PREFIX = "bitsum: "
_REFUSAL = re.compile(r"(?P<gate>.+?) refused: (?P<reason>.*)")
# Settings of Airflow's own Python, and Airflow's secrets, must not reach the program.
_NOT_PASSED_ON = re.compile(r"_?AIRFLOW.*|PYTHON(PATH|HOME)|VIRTUAL_ENV|__.*")
_PR_SET_PDEATHSIG = 1
# Airflow kills a task that takes longer than 5 seconds to stop, and the program would survive it.
_KILL_SECONDS = 3.0


@dataclasses.dataclass(frozen=True)
class Ended:
    """How a program ended: its exit code, and the line that gives the reason."""

    code: int
    reason: str


class Program:
    """A running program, with its children in a process group of their own."""

    def __init__(self, command: Sequence[str], folder: str):
        environment = {name: value for name, value in os.environ.items() if not _NOT_PASSED_ON.fullmatch(name)}
        self._process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
            preexec_fn=_ends_with_parent(),
        )

    def wait(self, on_line: Callable[[str], None]) -> Ended:
        """Wait until the program ends; `on_line` gets each line at once."""
        last = ""
        for line in self._process.stdout or ():
            line = printable(line.rstrip())
            last = line or last
            on_line(line)
        code = self._process.wait()
        reason = last.removeprefix(_PREFIX) if last.startswith(_PREFIX) else f"exit code {code}: {last or 'no output'}"
        return Ended(code, reason)

    def stop(self) -> None:
        """End the program and its children: SIGTERM, then SIGKILL."""
        # The process group may outlive its leader, for example if the system killed only that.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_KILL_SECONDS)
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def printable(text: str) -> str:
    """`text` as one line: line breaks and control characters are escaped, as in bitsum's own output."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def refusal(reason: str) -> tuple[str, str]:
    """(gate, reason) of the line in which a gate refused; the gate is empty if the line names none."""
    match = _REFUSAL.fullmatch(reason)
    return (match["gate"], match["reason"]) if match else ("", reason)


def _ends_with_parent() -> Callable[[], None]:
    """Linux ends the program when its task is killed, so that a second attempt never runs beside it."""
    library = ctypes.CDLL(None, use_errno=True)
    return lambda: library.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
