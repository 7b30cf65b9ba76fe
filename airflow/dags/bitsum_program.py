"""Run a program of bitsum for a task: its lines go to the task's log, its exit code says what became of it."""

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
# What Airflow sets for its own Python must not reach another one, and its secrets nobody.
_NOT_PASSED_ON = re.compile(r"_?AIRFLOW.*|PYTHON(PATH|HOME)|VIRTUAL_ENV|__.*")
_PR_SET_PDEATHSIG = 1
# Airflow itself kills a task that does not end within 5 seconds, and then nobody is left to do this.
_KILL_SECONDS = 3.0


@dataclasses.dataclass(frozen=True)
class Ended:
    """How a program ended: its exit code, and the line in which it said why."""

    code: int
    reason: str


class Program:
    """A program that runs until it ends or is stopped, with its children in a group of their own."""

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

    def wait(self, say: Callable[[str], None]) -> Ended:
        """How it ended; each of its lines is told to `say` at once."""
        last = ""
        for line in self._process.stdout:
            line = printable(line.rstrip())
            last = line or last
            say(line)
        code = self._process.wait()
        reason = (
            last.removeprefix(_PREFIX) if last.startswith(_PREFIX) else f"exit code {code}: {last or 'it said nothing'}"
        )
        return Ended(code, reason)

    def stop(self) -> None:
        """End it and its children: asked first, killed if that is not heard."""
        # It leads a group of its own, which may outlive it, as when the system killed it alone.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_KILL_SECONDS)
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def printable(text: str) -> str:
    """`text` as one line: what would end it or steer a terminal is escaped, as bitsum does with what it prints
    itself."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def refusal(reason: str) -> tuple[str, str]:
    """(gate, why) of the line in which a gate refused; the gate is empty where the line says nothing of one."""
    found = _REFUSAL.fullmatch(reason)
    return (found["gate"], found["reason"]) if found else ("", reason)


def _ends_with_parent() -> Callable[[], None]:
    """Linux ends the program when the task that started it is killed, so that no second attempt runs beside it."""
    library = ctypes.CDLL(None, use_errno=True)
    return lambda: library.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
