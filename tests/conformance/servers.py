"""Starts the server under test as a child process with the flags of tensorflow_model_server."""

import contextlib
import dataclasses
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import grpc

from components.processes import free_port
from tests.conformance import models, outcomes, wire

ENVIRONMENT = "BITSUM_MODEL_SERVER"
_START_SECONDS = 120.0
ROOT = pathlib.Path(__file__).parents[2]


@dataclasses.dataclass(frozen=True)
class Program:
    """A model server: its name in the table, its command, and its polling interval in seconds."""

    name: str
    command: tuple[str, ...]
    poll: float

    @property
    def embedded(self) -> bool:
        return self.name == outcomes.EMBEDDED


def embedded() -> Program:
    """`bitsum serve` with the embedded server, which waits for versions as long as the real one does."""
    return Program(
        outcomes.EMBEDDED, (sys.executable, "-m", "pipeline", "serve", "--server=embedded", "--ready_timeout=0"), 0.2
    )


def real() -> Program | None:
    """The real server in the environment variable BITSUM_MODEL_SERVER or on the PATH, if any."""
    path = os.environ.get(ENVIRONMENT) or shutil.which(outcomes.REAL)
    return Program(outcomes.REAL, (path,), 1) if path else None


@dataclasses.dataclass
class Server:
    """A running server, its log and a channel to it."""

    program: Program
    process: subprocess.Popen
    target: str
    log: pathlib.Path
    stub: grpc.Channel

    def call(self, method: str, request: bytes, timeout: float = wire.CALL_SECONDS) -> wire.Answer:
        """The answer to a serialized request."""
        return wire.call(self.stub, method, request, timeout)

    def states(self, model: str = "m") -> list:
        """The states of the versions of `model`."""
        return wire.states(self.stub, model)

    def predict(self, model: str = "m") -> str:
        """The version that answers a request for the latest, as 'OK v2', or the error."""
        answer = self.call(wire.PREDICT, models.adding(model))
        if answer.code != "OK":
            return f"{answer.code}: {answer.message}"
        return f"OK v{wire.decoded(wire.PREDICT, answer.response).model_spec.version.value}"

    def content(self, model: str = "m") -> int:
        """The version number in the files of the latest version of `model`, written by make_model.py."""
        answer = self.call(wire.PREDICT, models.adding(model))
        return wire.decoded(wire.PREDICT, answer.response).outputs["ver"].int64_val[0]


def begin(program: Program, folder: pathlib.Path, *flags: str, port: int | None = None) -> Server:
    """Start `program` with `flags` on a free port, without waiting; stop it with `end`."""
    port = port or free_port("127.0.0.1")
    log = folder / f"server-{port}.log"
    folder.mkdir(parents=True, exist_ok=True)
    command = [*program.command, f"--port={port}", f"--file_system_poll_wait_seconds={program.poll:g}", *flags]
    with open(log, "wb") as output:
        process = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
    target = f"127.0.0.1:{port}"
    return Server(program, process, target, log, wire.channel(target))


def end(server: Server) -> None:
    """Stop a server that is still running."""
    server.stub.close()
    if server.process.poll() is None:
        server.process.send_signal(signal.SIGTERM)
        try:
            server.process.wait(20)
        except subprocess.TimeoutExpired:
            server.process.kill()
            server.process.wait()


@contextlib.contextmanager
def running(program: Program, folder: pathlib.Path, *flags: str) -> Iterator[Server]:
    """A server that answers during the context."""
    server = begin(program, folder, *flags)
    try:
        wait_ready(server)
        yield server
    finally:
        end(server)


def wait_ready(server: Server) -> None:
    """Wait for an open port, which means that every model has a version. Raises: AssertionError."""
    ready = until(lambda: port_open(server.target) or server.process.poll() is not None, _START_SECONDS)
    if not ready or server.process.poll() is not None:
        raise AssertionError(f"the server did not start: {server.log.read_text(errors='replace')[-2000:]}")


def port_open(target: str) -> bool:
    """Whether a server listens on `target`."""
    host, _, port = target.rpartition(":")
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((host, int(port))) == 0


def until(condition: Callable[[], object], seconds: float) -> bool:
    """Poll until `condition()` is true, for at most `seconds`; whether it became true."""
    end_ = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end_:
            return False
        time.sleep(0.05)
    return True


def config_file(folder: pathlib.Path, *entries: str, name: str = "models.config") -> str:
    """The flag for a config file with these `config` entries, each in text format without braces."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text("model_config_list {\n" + "".join(f"  config {{ {entry} }}\n" for entry in entries) + "}\n")
    return f"--model_config_file={path}"


def entry(name: str, base: pathlib.Path, more: str = "") -> str:
    """A `config` entry."""
    return f'name: "{name}" base_path: "{base}" model_platform: "tensorflow" {more}'
