"""Processes of this machine: their identity, how they end with their parent, their output, and the ports they take.

Process ids are reused. Host, id and start time together identify a process for good.
"""

import ctypes
import dataclasses
import os
import pathlib
import re
import signal
import socket
import sys
from collections.abc import Callable

_PROC = pathlib.Path("/proc")
_MACHINE = pathlib.Path("/etc/machine-id")
# The program's name in parentheses may hold any character. The state follows it, and 19 fields later the start in ticks
# since boot.
_STAT = re.compile(r".*\) (?P<state>\S)(?: \S+){18} (?P<ticks>\d+)", re.DOTALL)
_DEAD = "ZXx"
_MAX_COMMAND_CHARACTERS = 80
_PR_SET_PDEATHSIG = 1


@dataclasses.dataclass(frozen=True)
class Process:
    """A process: its host, its id there, and when it started (boot and ticks since then; empty if /proc did not show
    it)."""

    host: str
    pid: int
    started: str

    @property
    def host_name(self) -> str:
        """The name of the host, without the namespace and the machine id."""
        return self.host.partition(" ")[0]

    def is_gone(self) -> bool:
        """Whether the process has certainly ended: it ran here, and no process with its id has its start time."""
        if self.host != host() or not self.started or started(self.pid) == self.started:
            return False
        return not _is_hidden(self.pid)

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host_name}"


def this() -> Process:
    """The calling process."""
    return Process(host(), os.getpid(), started(os.getpid()) or "")


def host() -> str:
    """The host's name, the namespace of its process ids, and the machine id: the scope in which a process id is unique.

    Machines made from one image share the name, and the initial namespace has the same number on every machine.
    """
    machine = _MACHINE.read_text().strip() if _MACHINE.is_file() else ""
    return f"{socket.gethostname()} {os.readlink(_PROC / 'self/ns/pid')} {machine}".rstrip()


def started(pid: int) -> str | None:
    """When process `pid` started: the boot and the ticks since then, unique among processes with that id. None if no
    such process runs."""
    try:
        stat = _STAT.match((_PROC / str(pid) / "stat").read_text(errors="replace"))
        boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None
    # A zombie no longer runs.
    return None if not stat or stat["state"] in _DEAD else f"{boot} {stat['ticks']}"


def _is_hidden(pid: int) -> bool:
    """Whether process `pid` runs but /proc hides it: another user's process, where /proc is mounted with hidepid."""
    try:
        (_PROC / str(pid) / "stat").read_bytes()
        return False
    except OSError:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True
        return True


def lock_holder(path: str | os.PathLike) -> str | None:
    """The process that holds a POSIX lock on a file (SQLite's kind), in words: id and command; None if unknown."""
    try:
        status = os.stat(path)
        inode = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
        for line in (_PROC / "locks").read_text().splitlines():
            # 1: POSIX  ADVISORY  WRITE 18845 fe:00:9978181 1073741824 1073742335
            words = line.split()
            if words[1] == "POSIX" and words[5] == inode:
                command = (
                    (_PROC / words[4] / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                )
                return f"process {words[4]}, {command[:_MAX_COMMAND_CHARACTERS]!r}"
    except (OSError, IndexError):
        pass
    return None


def ended_with_parent() -> Callable[[], None] | None:
    """A `preexec_fn` for subprocess.Popen: the kernel sends the child SIGTERM when its parent dies, however it dies.

    None where the system does not support it.
    """
    if sys.platform != "linux":
        return None
    # Looked up here: between fork and exec a child should do as little as possible.
    prctl = ctypes.CDLL(None).prctl
    return lambda: prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def output_lines(text: str) -> list[str]:
    """The lines of a program's output, without blank ones; at least one."""
    return [line.strip() for line in text.splitlines() if line.strip()] or ["no output"]


def free_port(host: str) -> int:
    """A TCP port of `host` that is free now."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((host, 0))
        return probe.getsockname()[1]
