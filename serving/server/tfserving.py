"""Runs TensorFlow Serving itself, as an installed program or as a container: a child process that ends with this one.

Readiness is what GetModelStatus says. The child gets SIGTERM when this process is asked to stop or dies, and is killed
where it does not heed that.
"""

import contextlib
import json
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
from typing import BinaryIO

from components import arithmetic_switches, processes
from components.errors import MODEL_CODES, BitsumError, ModelError
from components.printable import say
from serving import model_config
from serving.client import ServingError
from serving.client.sync import served
from serving.server.options import Options, Ready, address

PROGRAM = "tensorflow_model_server"
DOCKER = "docker"
_CONTAINER_PORT = 8500
_POLL_SECONDS = 0.1
# What shells and docker add to the number of a signal.
_SIGNAL_EXIT = 128
_WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1"}
# What TensorFlow Serving says before it ends because of models: "1 servable(s) did not become available: {{{name: m
# version: 1} due to error: DATA_LOSS: Can't parse ...}, }" (server_core.cc).
_CAUSE = re.compile(r"due to error: (\w+): ")


class ProgramKilled(BitsumError):
    """A signal ended the program that serves; the exit code says which."""

    def __init__(self, message: str, exit_code: int):
        super().__init__(message)
        self.exit_code = exit_code


def serve(options: Options, server: str, stop: threading.Event, announce: Callable[[Ready], None]) -> int:
    """Run `server` until `stop` is set or it ends by itself; the exit code, that of the child in the latter case.

    Raises:
        ModelError: it says that the models do not load.
        ProgramKilled: a signal ended it.
        BitsumError: it could not be started, or served no version in time.
    """
    port = options.port or processes.free_port(options.host)
    name = _model_name(options)
    command = {PROGRAM: _program, DOCKER: _container}[server](options, port)
    target = address(_WILDCARDS.get(options.host, options.host), port)
    with _log(options.log_file) as log:
        begun = log.tell()
        with _child(command, log, options.drain_timeout) as child:
            version = _wait(child, target, name, options.ready_timeout, stop)
            if child.poll() is not None and not stop.is_set():
                raise _ended(server, _exit_code(child), _lines(log, begun))
            if version is None and not stop.is_set():
                raise BitsumError(
                    f"{server} had no version of {options.model_config_file or options.model_base_path} available "
                    f"within --ready_timeout {options.ready_timeout:g} s: {_lines(log, begun)[-1]}"
                )
            if version is not None:
                announce(Ready(options.host, port, os.getpid(), server, name, version))
            while child.poll() is None and not stop.wait(_POLL_SECONDS):
                pass
            return 0 if stop.is_set() else _exit_code(child)


def _model_name(options: Options) -> str:
    """The model whose versions tell that the server is ready: the first one."""
    models = model_config.read(options.model_config_file).model_config_list.config if options.model_config_file else []
    return models[0].name if models else options.model_name


def _program(options: Options, port: int) -> list[str]:
    if options.host not in _WILDCARDS:
        say(f"note: {PROGRAM} listens on all addresses of this machine, not only on {options.host}", stream=sys.stderr)
    return [shutil.which(PROGRAM) or PROGRAM, *_flags(options, port, str(options.model_base_path))]


def _container(options: Options, port: int) -> list[str]:
    inspected = subprocess.run([DOCKER, "image", "inspect", options.image], capture_output=True, text=True)
    if inspected.returncode:
        said = processes.output_lines(inspected.stderr)[-1]
        raise BitsumError(
            f"the image {options.image} is not here ({said}); it is not pulled silently: docker pull {options.image}"
        )
    inside = f"/models/{options.model_name}"
    # A variable without a value is taken out of what the image sets; of this process's variables the container gets
    # none.
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
    """The names of the environment variables that an image sets, by what `docker image inspect` says of it."""
    try:
        return [
            setting.partition("=")[0] for image in json.loads(inspected) for setting in image["Config"].get("Env") or []
        ]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BitsumError(
            f"docker image inspect says nothing of the image's environment that can be read: {error!r}"
        ) from error


def _volumes(options: Options, inside: str) -> list[tuple[str, str]]:
    """(path outside, path in the container) of all that the server reads; what a file names has the same path in
    both."""
    if not options.model_config_file:
        folders = [(str(options.model_base_path), inside)]
    else:
        models = model_config.read(options.model_config_file).model_config_list.config
        # The folder, since the file is replaced when it changes.
        paths = {str(options.model_config_file.parent), *(model.base_path for model in models)}
        folders = [(path, path) for path in sorted(paths)]
    files = [options.batching_parameters_file, options.ssl_config_file, options.monitoring_config_file]
    return folders + [(str(file.absolute()), str(file.absolute())) for file in files if file]


def _flags(options: Options, port: int, base_path: str) -> list[str]:
    # TensorFlow Serving takes whole seconds, and 0 for a single look.
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
        # It knows no labels of versions that it has not loaded yet, that is, of none when it starts.
        flags.append("--allow_version_labels_for_unavailable_models=true")
    return flags


def _wait(child: subprocess.Popen, target: str, name: str, ready_timeout: float, stop: threading.Event) -> int | None:
    """The newest version available, once there is one; None when the child ended, the time is over or `stop` is set."""
    end = time.monotonic() + (ready_timeout or float("inf"))
    while child.poll() is None and time.monotonic() < end and not stop.wait(_POLL_SECONDS):
        # Not yet listening, or nothing loaded yet.
        with contextlib.suppress(ServingError):
            states = served(target, name, deadline=1.0)
            available = [state.version for state in states if state.state == "AVAILABLE"]
            if available:
                return max(available)
    return None


@contextlib.contextmanager
def _child(command: Sequence[str], log: BinaryIO, drain_timeout: float) -> Iterator[subprocess.Popen]:
    """`command` as a process in a group of its own, which is gone after the context."""
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
        try:
            child.wait(drain_timeout)
        except subprocess.TimeoutExpired:
            pass
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


@contextlib.contextmanager
def _log(path: pathlib.Path | None) -> Iterator[BinaryIO]:
    """Where the child's lines go; a temporary file without `path`, for the last line that explains a failure."""
    try:
        log = open(path, "a+b") if path else tempfile.TemporaryFile()
    except OSError as error:
        raise BitsumError(f"cannot write --log_file {path}: {error.strerror}") from error
    with log:
        yield log


def _lines(log: BinaryIO, begun: int) -> list[str]:
    """The last lines of those from the byte `begun` on, at least one: an earlier server may have written into the same
    file."""
    log.seek(max(begun, log.seek(0, os.SEEK_END) - 10_000))
    return processes.output_lines(log.read().decode(errors="replace"))


def _ended(server: str, exit_code: int, lines: list[str]) -> BitsumError:
    """The error that the end of a program is which has not served yet; `lines` is what it said."""
    causes = {cause: line for line in lines for cause in _CAUSE.findall(line)}
    said = f"{server} ended with exit code {exit_code}: {[*lines, *causes.values()][-1]}"
    if exit_code - _SIGNAL_EXIT in set(signal.Signals):
        return ProgramKilled(said, exit_code)
    return ModelError(said) if causes and causes.keys() <= MODEL_CODES else BitsumError(said)


def _exit_code(child: subprocess.Popen) -> int:
    return child.returncode if child.returncode >= 0 else _SIGNAL_EXIT - child.returncode
