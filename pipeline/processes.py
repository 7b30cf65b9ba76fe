"""Identifies processes uniquely, even after their ids are reused: by host, id, and start time."""

import dataclasses
import os
import pathlib
import re
import socket

_PROC = pathlib.Path("/proc")
_MACHINE = pathlib.Path("/etc/machine-id")
# After the program's name, which may contain anything in its parentheses: the state, and 19 fields later the start in
# ticks since boot.
_STAT = re.compile(r".*\) (?P<state>\S)(?: \S+){18} (?P<ticks>\d+)", re.DOTALL)
_DEAD = "ZXx"
# Of a command line, in characters.
_MAX_COMMAND = 80


@dataclasses.dataclass(frozen=True)
class Process:
    """A process: its host, its id there, and its start (boot, and ticks since then; empty if unknown)."""

    host: str
    pid: int
    started: str

    @property
    def host_name(self) -> str:
        """The name of the host, without machine and namespace."""
        return self.host.partition(" ")[0]

    def is_gone(self) -> bool:
        """Whether the process is known to be gone: it ran on this host, and no process has its id and start."""
        if self.host != host() or not self.started or started(self.pid) == self.started:
            return False
        return not _is_hidden(self.pid)

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host_name}"


def this() -> Process:
    """The current process."""
    return Process(host(), os.getpid(), started(os.getpid()) or "")


def host() -> str:
    """The host's name, process-id namespace and machine id, within which a process id is meaningful.

    The name and namespace do not suffice: machines made from one image share the name, and the first namespace has the
    same number everywhere.
    """
    machine = _MACHINE.read_text().strip() if _MACHINE.is_file() else ""
    return f"{socket.gethostname()} {os.readlink(_PROC / 'self/ns/pid')} {machine}".rstrip()


def started(pid: int) -> str | None:
    """The start of process `pid`: the boot, and the ticks since then, unique per id; None if it does not exist."""
    try:
        stat = _STAT.match((_PROC / str(pid) / "stat").read_text(errors="replace"))
        boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None
    # A zombie was killed but not yet reaped; it no longer works.
    return None if not stat or stat["state"] in _DEAD else f"{boot} {stat['ticks']}"


def _is_hidden(pid: int) -> bool:
    """Whether the process exists but /proc hides it, for example another user's under hidepid."""
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


def lock_holder(path: str | os.PathLike[str]) -> str | None:
    """The process, with its command, that holds a POSIX lock such as SQLite's on a file; None if unknown."""
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
                return f"process {words[4]}, {command[:_MAX_COMMAND]!r}"
    except (OSError, IndexError):
        pass
    return None
