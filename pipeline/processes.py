"""Processes that can be told apart for good, also after their ids were given to others: by host, id, and when they
started."""

import dataclasses
import os
import pathlib
import re
import socket

_PROC = pathlib.Path("/proc")
_MACHINE = pathlib.Path("/etc/machine-id")
# After the name of the program, which may hold anything in its parentheses: state, and 19 fields on, the start in ticks
# since boot.
_STAT = re.compile(r".*\) (?P<state>\S)(?: \S+){18} (?P<ticks>\d+)", re.DOTALL)
_DEAD = "ZXx"
# Of a command line, in characters.
_LONGEST = 80


@dataclasses.dataclass(frozen=True)
class Process:
    """A process: its host, its id there, and when it started (boot and ticks since then; empty where that was not to be
    seen)."""

    host: str
    pid: int
    started: str

    @property
    def host_name(self) -> str:
        """The name of the host, without what tells it from others of that name."""
        return self.host.partition(" ")[0]

    def is_gone(self) -> bool:
        """Whether it can be seen that it is no more: it was on this host, and no process of that id has this start."""
        if self.host != host() or not self.started or started(self.pid) == self.started:
            return False
        return not _is_hidden(self.pid)

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host_name}"


def this() -> Process:
    """The process that asks."""
    return Process(host(), os.getpid(), started(os.getpid()) or "")


def host() -> str:
    """The host's name and, since process ids mean something only there, the machine and the namespace that they are in.

    Neither of the others would do: machines made from one image share the name, and the first namespace has one number
    on all.
    """
    machine = _MACHINE.read_text().strip() if _MACHINE.is_file() else ""
    return f"{socket.gethostname()} {os.readlink(_PROC / 'self/ns/pid')} {machine}".rstrip()


def started(pid: int) -> str | None:
    """When process `pid` started: the boot and the ticks since then, which no two processes of an id share; None if
    there is none."""
    try:
        found = _STAT.match((_PROC / str(pid) / "stat").read_text(errors="replace"))
        boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None
    # Killed, and not waited for yet: it works on nothing any more.
    return None if not found or found["state"] in _DEAD else f"{boot} {found['ticks']}"


def _is_hidden(pid: int) -> bool:
    """Whether there is such a process that /proc does not show us, as that of another user where it is mounted with
    hidepid."""
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
    """Who holds a POSIX lock on a file, as SQLite's are, in words: id and command; None where that cannot be seen."""
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
                return f"process {words[4]}, {command[:_LONGEST]!r}"
    except (OSError, IndexError):
        pass
    return None
