"""Runs TensorFlow Serving as a child process, from an installed program or a container image.

GetModelStatus tells when the child is ready. The child gets SIGTERM when this process stops or dies, and SIGKILL if it
outlives the drain timeout.
"""

import contextlib
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, BinaryIO

from components import arithmetic_switches, processes, regular_files
from components.errors import MODEL_CODES, BitsumError, ModelError
from components.printable import say
from serving import model_config, tls
from serving.client import ServingError
from serving.client.sync import served
from serving.server.flags import DOCKER, PROGRAM
from serving.server.options import Options, Ready, address

_CONTAINER_PORT = 8500
_POLL_SECONDS = 0.1
# The offset of a signal number in the exit codes of shells and docker.
_SIGNAL_EXIT = 128
_WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1"}
# The last message of TensorFlow Serving when models fail to load: "1 servable(s) did not become available: {{{name: m
# version: 1} due to error: DATA_LOSS: Can't parse ...}, }" (server_core.cc).
_CAUSE = re.compile(r"due to error: (\w+): ")


class ProgramKilled(BitsumError):
    """A signal ended the serving program; `exit_code` is 128 plus its number."""

    def __init__(self, message: str, exit_code: int):
        super().__init__(message)
        self.exit_code = exit_code


def serve(options: Options, server: str, stop: threading.Event, announce: Callable[[Ready], None]) -> int:
    """Run `server` until `stop` is set or it exits, then return the exit code: 0, or that of the child.

    Raises:
        ModelError: the server reports models that do not load.
        ProgramKilled: a signal ended the server.
        BitsumError: the server did not start, or served no version in time.
    """
    if options.ssl_config_file:
        for warning in tls.ServerIdentity(options.ssl_config_file).warnings():
            say(f"note: {warning}", stream=sys.stderr)
    port = options.port or processes.free_port(options.host)
    name = _model_name(options)
    command = {PROGRAM: _program, DOCKER: _container}[server](options, port)
    target = address(_WILDCARDS.get(options.host, options.host), port)
    with _log(options.log_file) as log:
        log_start = log.tell()
        with _child(command, log, options.drain_timeout) as child:
            version = _wait(child, target, name, options.ready_timeout, stop)
            if child.poll() is not None and not stop.is_set():
                raise _ended(server, _exit_code(child), _lines(log, log_start))
            if version is None and not stop.is_set():
                raise BitsumError(
                    f"{server} had no version of {options.model_config_file or options.model_base_path} available "
                    f"within --ready_timeout {options.ready_timeout:g} s: {_lines(log, log_start)[-1]}"
                )
            if version is not None:
                announce(Ready(options.host, port, os.getpid(), server, name, version))
            while child.poll() is None and not stop.wait(_POLL_SECONDS):
                pass
            return 0 if stop.is_set() else _exit_code(child)


def _model_name(options: Options) -> str:
    """The first model; an available version of it means that the server is ready."""
    models = model_config.read(options.model_config_file).model_config_list.config if options.model_config_file else []
    return models[0].name if models else options.model_name


def _program(options: Options, port: int) -> list[str]:
    if options.host not in _WILDCARDS:
        say(f"note: {PROGRAM} listens on all addresses of this machine, not just {options.host}", stream=sys.stderr)
    return [shutil.which(PROGRAM) or PROGRAM, *_flags(options, port, str(options.model_base_path))]


def _container(options: Options, port: int) -> list[str]:
    inspected = subprocess.run([DOCKER, "image", "inspect", options.image], capture_output=True, text=True)
    if inspected.returncode:
        reason = processes.output_lines(inspected.stderr)[-1]
        raise BitsumError(
            f"the image {options.image} is not on this machine ({reason}): run docker pull {options.image}"
        )
    inside = f"/models/{options.model_name}"
    # --env with a name only removes a variable that the image sets; the container inherits none from this process.
    cleared = [f"--env={name}" for name in arithmetic_switches.among(_variables(inspected.stdout))]
    return [
        DOCKER,
        "run",
        "--rm",
        "--init",
        "--pull=never",
        f"--publish={address(options.host, port)}:{_CONTAINER_PORT}",
        *(f"--volume={outside}:{within}:ro" for outside, within in _volumes(options, inside)),
        *cleared,
        f"--entrypoint={PROGRAM}",
        options.image,
        *_flags(options, _CONTAINER_PORT, inside),
    ]


def _variables(inspected: str) -> list[str]:
    """The names of the environment variables that an image sets, from the output of `docker image inspect`."""
    try:
        images: Any = regular_files.parse_json(inspected)
        return [setting.partition("=")[0] for image in images for setting in image["Config"].get("Env") or []]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BitsumError(
            f"cannot read the image's environment from the output of docker image inspect: {error!r}"
        ) from error


def _volumes(options: Options, inside: str) -> list[tuple[str, str]]:
    """(path outside, path in the container) of everything that the server reads; both are the same for the paths that
    a file names."""
    if not options.model_config_file:
        folders = [(str(options.model_base_path), inside)]
    else:
        models = model_config.read(options.model_config_file).model_config_list.config
        # The folder of the config file, because each change replaces the file.
        paths = {str(options.model_config_file.parent), *(model.base_path for model in models)}
        folders = [(path, path) for path in sorted(paths)]
    files = [options.batching_parameters_file, options.ssl_config_file, options.monitoring_config_file]
    return folders + [(str(file.absolute()), str(file.absolute())) for file in files if file]


def _flags(options: Options, port: int, base_path: str) -> list[str]:
    # TensorFlow Serving accepts whole seconds; 0 polls once.
    seconds, config_file = options.file_system_poll_wait_seconds, options.model_config_file
    poll = max(1, round(seconds)) if seconds > 0 else int(seconds)
    if config_file:
        served = [f"--model_config_file={config_file}"]
    else:
        served = [f"--model_name={options.model_name}", f"--model_base_path={base_path}"]
    flags = [f"--port={port}", *served, f"--file_system_poll_wait_seconds={poll}", *options.passed]
    if options.grpc_max_threads:
        flags.append(f"--grpc_max_threads={options.grpc_max_threads}")
    allowed = options.allow_version_labels_for_unavailable_models
    if config_file and not allowed and model_config.is_ours(config_file):
        # It refuses labels of versions that are not loaded yet, and none is loaded at its start.
        flags.append("--allow_version_labels_for_unavailable_models=true")
    return flags


def _wait(child: subprocess.Popen, target: str, name: str, ready_timeout: float, stop: threading.Event) -> int | None:
    """Wait for an available version and return the newest; None if the child exits, on timeout or when `stop` is
    set."""
    end = time.monotonic() + (ready_timeout or float("inf"))
    while child.poll() is None and time.monotonic() < end and not stop.wait(_POLL_SECONDS):
        # Errors until the server listens and a version is loaded.
        with contextlib.suppress(ServingError):
            states = served(target, name, deadline=1.0)
            available = [state.version for state in states if state.state == "AVAILABLE"]
            if available:
                return max(available)
    return None


@contextlib.contextmanager
def _child(command: Sequence[str], log: BinaryIO, drain_timeout: float) -> Iterator[subprocess.Popen]:
    """Runs `command` in a process group of its own, and ends the group after the context."""
    try:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=processes.ended_with_parent(),
        )
    except OSError as error:
        raise BitsumError(f"cannot start {command[0]}: {error.strerror}") from error
    try:
        yield child
    finally:
        child.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(drain_timeout)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


@contextlib.contextmanager
def _log(path: pathlib.Path | None) -> Iterator[BinaryIO]:
    """The log file of the child; a temporary file without `path`, because its last lines explain a failure."""
    try:
        log: BinaryIO = open(path, "a+b") if path else tempfile.TemporaryFile()  # noqa: SIM115 - closed below
    except OSError as error:
        raise BitsumError(f"cannot write --log_file {path}: {error.strerror}") from error
    with log:
        yield log


def _lines(log: BinaryIO, start: int) -> list[str]:
    """The last lines after byte `start`, at least one; before it are the lines of earlier servers."""
    log.seek(max(start, log.seek(0, os.SEEK_END) - 10_000))
    return processes.output_lines(log.read().decode(errors="replace"))


def _ended(server: str, exit_code: int, lines: list[str]) -> BitsumError:
    """The error for a program that exits before it serves; `lines` are its last lines."""
    causes = {cause: line for line in lines for cause in _CAUSE.findall(line)}
    text = f"{server} ended with exit code {exit_code}: {[*lines, *causes.values()][-1]}"
    if exit_code - _SIGNAL_EXIT in set(signal.Signals):
        return ProgramKilled(text, exit_code)
    return ModelError(text) if causes and causes.keys() <= MODEL_CODES else BitsumError(text)


def _exit_code(child: subprocess.Popen) -> int:
    return child.returncode if child.returncode >= 0 else _SIGNAL_EXIT - child.returncode
