"""Runs a model server and its prober as the programs named in the configuration, as a deployment does.

The step imports neither: it starts a server, waits until it is ready, queries it, and stops it. If the server does not
serve, the way its program ended, before it was ready or during the queries, shows the cause:

    exit code 3         ModelError: the model does not load; `bitsum serve` uses this exit code
    SIGSEGV, ABRT, ...  ServerCrashed: the signal itself, or exit code 128 + signal from a wrapper (a shell, docker)
    anything else       ServerFailed: another signal (the kernel sends SIGKILL when memory is short), another exit code
                        (a port in use, a wrong flag), or no version in time
"""

import contextlib
import dataclasses
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

from components import processes, regular_files
from components.errors import BitsumError, ModelError

_STOP_SECONDS = 20.0
_POLL_SECONDS = 0.05
# Signals that a program causes itself; others are sent to it.
_CRASHES = frozenset({signal.SIGSEGV, signal.SIGABRT, signal.SIGFPE, signal.SIGILL, signal.SIGBUS})
_SIGNAL_EXIT = 128
# Content of the ready file.
_READY: dict[str, type] = {"host": str, "port": int, "server": str, "version": int}


class ServerFailed(BitsumError):
    """The server did not serve the model, or ended on its own; the text ends with the last line of its log."""


class ServerCrashed(ServerFailed):
    """The server ended by a signal that it caused itself."""


@dataclasses.dataclass(frozen=True)
class Running:
    """A running server: its address, its kind, the first available version, its process and its log."""

    target: str
    kind: str
    version: int
    process: subprocess.Popen
    log: pathlib.Path

    def check_alive(self, patience: float = 0.0) -> None:
        """Check that the server still runs, waiting up to `patience` seconds for its end.

        Raises:
            ServerFailed, ModelError: it has ended; see the table above.
        """
        try:
            self.process.wait(patience)
        except subprocess.TimeoutExpired:
            return
        raise _failure(self.process.returncode, self.log)


def program(command: Sequence[str]) -> list[str]:
    """`command` with its program resolved: first next to this Python, for environments that are not activated.

    Raises:
        BitsumError: the program does not exist.
    """
    path = shutil.which(command[0], path=str(pathlib.Path(sys.executable).parent)) or shutil.which(command[0])
    if not path:
        raise BitsumError(f"program {command[0]!r} not found, neither next to {sys.executable} nor on the PATH")
    return [path, *command[1:]]


@contextlib.contextmanager
def serving(
    command: Sequence[str], model_name: str, base_path: pathlib.Path, log: pathlib.Path, timeout: float
) -> Iterator[Running]:
    """Serve the versions in `base_path` on a free port while the context lasts; arguments and errors as in `start`.

    If the server ends meanwhile, its error replaces the error that this caused.
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
        command: program and arguments, to which flags of `bitsum serve` are added.
        model_name: name of the model.
        base_path: folder of versions.
        log: file for the server's output.
        timeout: seconds within which a version must be available.
        port: port to listen on, 0 for a free one.
        outlives: whether the server keeps running after this process ends or is killed.

    Raises:
        ServerFailed: the server ended, or served no version in time.
        ModelError: the server reports that the model does not load.
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
    """Stop a server gracefully, so that it finishes pending calls; kill it if that takes too long, and any processes it
    left behind."""
    process.terminate()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGTERM)


def probe(command: Sequence[str], target: str, arguments: Sequence[str], timeout: float) -> dict[str, Any]:
    """The prober's report on the server at `target` (the JSON of `bitsum probe --json`).

    Raises:
        BitsumError: the prober gave no report within `timeout` seconds.
    """
    line = [*program(command), target, "--json", *arguments]
    try:
        done = subprocess.run(line, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout)
    except subprocess.TimeoutExpired as error:
        raise BitsumError(
            f"the prober did not finish within {timeout:g} s: infra.probe_timeout sets this limit"
        ) from error
    try:
        report: Any = regular_files.parse_json(done.stdout)
    except ValueError:
        report = {"error": "not JSON"}
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
        ready: Any = regular_files.read_json(ready_file)
        return {name: kind(ready[name]) for name, kind in _READY.items()}
    except (ValueError, TypeError, KeyError, OSError) as error:
        raise ServerFailed(f"the model server's ready file {ready_file} cannot be read: {error}") from error


def _failure(returncode: int, log: pathlib.Path) -> BitsumError:
    """The error for the end of a server, by the table above."""
    number = -returncode if returncode < 0 else returncode - _SIGNAL_EXIT
    kind = ServerCrashed if number in _CRASHES else ModelError if returncode == ModelError.exit_code else ServerFailed
    how = f"by {signal.Signals(number).name}" if number in set(signal.Signals) else f"with exit code {returncode}"
    return kind(f"the model server ended {how}: {_last_line(log)}")


def _last_line(log: pathlib.Path) -> str:
    return processes.output_lines(log.read_text(errors="replace"))[-1]
