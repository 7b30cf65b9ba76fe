"""Run a model server and its prober as the programs that the configuration names, the way a deployment does.

Nothing of them is imported: a step that needs a server starts one, waits until it says that it is ready, asks, and ends
it.

Whose fault it is that a server does not serve is told by how its program ends, before it is ready or while it is asked:

    exit code 3         ModelError: the server says that the model does not load, as `bitsum serve` ends then
    SIGSEGV, ABRT, ...  ServerCrashed: by the signal itself, or by exit code 128 + signal from a program around it (a shell, docker)
    anything else       ServerFailed: another signal (SIGKILL is what the kernel sends when memory is short), another exit code (a port
                        that is taken, a wrong flag), no version in time
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

from components import processes
from components.errors import BitsumError, ModelError

_STOP_SECONDS = 20.0
_POLL_SECONDS = 0.05
# What the program itself runs into; the others are sent to it.
_CRASHES = frozenset({signal.SIGSEGV, signal.SIGABRT, signal.SIGFPE, signal.SIGILL, signal.SIGBUS})
_SIGNAL_EXIT = 128


class ServerFailed(BitsumError):
    """The server did not come to serve the model, or ended before it was told to; the text ends with the last line that
    it said."""


class ServerCrashed(ServerFailed):
    """It ended by a signal that programs bring upon themselves."""


@dataclasses.dataclass(frozen=True)
class Running:
    """A server that serves: where, which kind, the version that was available first, its process, and what it says."""

    target: str
    kind: str
    version: int
    process: subprocess.Popen
    log: pathlib.Path

    def check_alive(self, patience: float = 0.0) -> None:
        """Look whether it still runs; `patience` is how many seconds it may take to end.

        Raises:
            ServerFailed, ModelError: it has ended; see the table above.
        """
        try:
            self.process.wait(patience)
        except subprocess.TimeoutExpired:
            return
        raise _failure(self.process.returncode, self.log)


def program(command: Sequence[str]) -> list[str]:
    """`command` with its program resolved: beside this Python first, as an environment that is not activated needs it.

    Raises:
        BitsumError: there is no such program.
    """
    found = shutil.which(command[0], path=str(pathlib.Path(sys.executable).parent)) or shutil.which(command[0])
    if not found:
        raise BitsumError(f"there is no program {command[0]!r}, neither beside {sys.executable} nor on the PATH")
    return [found, *command[1:]]


@contextlib.contextmanager
def serving(
    command: Sequence[str], model_name: str, base_path: pathlib.Path, log: pathlib.Path, timeout: float
) -> Iterator[Running]:
    """Serve the versions in `base_path` on a free port while the context lasts; arguments and errors as in `start`.

    A server that ends meanwhile is the error of the context, whatever else came of that.
    """
    server = start(command, model_name, base_path, log, timeout, port=0, outlives=False)
    try:
        yield server
    except BitsumError:
        server.check_alive()
        raise
    else:
        server.check_alive()
    finally:
        stop(server.process)


def start(
    command: Sequence[str],
    model_name: str,
    base_path: pathlib.Path,
    log: pathlib.Path,
    timeout: float,
    port: int,
    outlives: bool,
) -> Running:
    """Serve the versions in `base_path`, until the server is stopped.

    Args:
        command: program and arguments; flags as `bitsum serve` has them are added.
        model_name: name of the model.
        base_path: folder of versions.
        log: file that takes what the server says.
        timeout: seconds within which a version must be available.
        port: port to listen on, 0 for a free one.
        outlives: whether it goes on when this process ends, or is killed.

    Raises:
        ServerFailed: it ended, or served nothing in time.
        ModelError: it says that the model does not load.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    ready_file = log.with_suffix(".ready.json")
    ready_file.unlink(missing_ok=True)
    flags = [
        f"--port={port}",
        f"--model_name={model_name}",
        f"--model_base_path={base_path}",
        f"--ready_file={ready_file}",
    ]
    with open(log, "ab") as output:
        process = subprocess.Popen(
            [*program(command), *flags],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=None if outlives else processes.ended_with_parent(),
        )
    try:
        ready = _wait(process, ready_file, log, timeout)
    except BaseException:
        stop(process)
        raise
    return Running(f"{ready['host']}:{ready['port']}", ready["server"], ready["version"], process, log)


def stop(process: subprocess.Popen) -> None:
    """End a server: asked first, so that it finishes the calls under way; then what its program may have started and
    left."""
    process.terminate()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGTERM)


def probe(command: Sequence[str], target: str, arguments: Sequence[str], timeout: float) -> dict[str, Any]:
    """What the prober reports of the server at `target` (the JSON of `bitsum probe --json`).

    Raises:
        BitsumError: it gave no report within `timeout` seconds.
    """
    line = [*program(command), target, "--json", *arguments]
    try:
        done = subprocess.run(line, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout)
    except subprocess.TimeoutExpired as error:
        raise BitsumError(f"the prober did not finish within {timeout:g} s: infra.probe_timeout bounds it") from error
    try:
        report = json.loads(done.stdout)
    except ValueError:
        report = {"error": "no JSON"}
    if "error" in report:
        raise BitsumError(
            f"the prober {command[0]} ended with exit code {done.returncode}: {processes.output_lines(done.stderr)[-1]}"
        )
    return report


def _wait(process: subprocess.Popen, ready_file: pathlib.Path, log: pathlib.Path, timeout: float) -> dict[str, Any]:
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        if ready_file.exists():
            return _ready(ready_file)
        if process.poll() is not None:
            raise _failure(process.returncode, log)
        time.sleep(_POLL_SECONDS)
    raise ServerFailed(f"the model server had no version available within {timeout:g} s: {_last_line(log)}")


def _ready(ready_file: pathlib.Path) -> dict[str, Any]:
    try:
        told = json.loads(ready_file.read_text())
        return {
            "host": str(told["host"]),
            "port": int(told["port"]),
            "server": str(told["server"]),
            "version": int(told["version"]),
        }
    except (ValueError, TypeError, KeyError, OSError) as error:
        raise ServerFailed(f"the model server wrote a ready file {ready_file} that cannot be read: {error}") from error


def _failure(returncode: int, log: pathlib.Path) -> BitsumError:
    """The error that the end of a server is, as the table above has it."""
    number = -returncode if returncode < 0 else returncode - _SIGNAL_EXIT
    kind = ServerCrashed if number in _CRASHES else ModelError if returncode == ModelError.exit_code else ServerFailed
    how = f"by {signal.Signals(number).name}" if number in set(signal.Signals) else f"with exit code {returncode}"
    return kind(f"the model server ended {how}: {_last_line(log)}")


def _last_line(log: pathlib.Path) -> str:
    return processes.output_lines(log.read_text(errors="replace"))[-1]
