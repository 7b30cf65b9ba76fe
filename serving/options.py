"""What `bitsum serve` is asked to do, and the checks that need no server."""

import dataclasses
import json
import os
import pathlib
import socket
from typing import Any

from components.errors import BitsumError
from components.settings import Serve


@dataclasses.dataclass(frozen=True)
class Options:
    """`knobs` are those of the configuration; the rest belongs to one process.

    log_file takes what TensorFlow or the external program says; ready_file tells others that a version is served;
    ready_timeout in seconds bounds the wait for that, 0 waits for ever as TensorFlow Serving does; drain_timeout in seconds
    bounds how long calls under way may take after SIGTERM.
    """

    knobs: Serve
    base_path: pathlib.Path
    log_file: pathlib.Path | None
    ready_file: pathlib.Path | None
    ready_timeout: float
    drain_timeout: float
    max_request_bytes: int


@dataclasses.dataclass(frozen=True)
class Ready:
    """A version is served; the content of the ready file."""

    host: str
    port: int
    pid: int
    server: str
    model_name: str
    version: int


def address(host: str, port: int) -> str:
    """HOST:PORT, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def check_base_path(options: Options) -> None:
    """Refuse a folder without versions, unless the server may wait for them.

    Raises:
        BitsumError: no such folder, or no version in it.
    """
    if not options.ready_timeout:
        return
    path = options.base_path
    if not path.is_dir():
        raise BitsumError(f"--model_base_path {path} is no folder: give the one that holds the versions, as in FOLDER/1/saved_model.pb")
    if (path / "saved_model.pb").exists():
        raise BitsumError(f"--model_base_path {path} is a model itself: give the folder above, whose folders are named by version numbers")
    if not any(name.isdigit() for name in os.listdir(path)):
        raise BitsumError(f"--model_base_path {path} holds no version: versions are folders named by numbers, as in {path}/1")


def check_port(host: str, port: int) -> None:
    """Raises: BitsumError, when `host`:`port` cannot be listened on now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            # A port whose last connections are still closing is free, for us as for gRPC.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        raise BitsumError(
            f"cannot listen on {address(host, port)}: {error.strerror or error}; --port takes another port, 0 a free one"
        ) from error


def free_port(host: str) -> int:
    """A port that nobody listens on now."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((host, 0))
        return probe.getsockname()[1]


def write_ready_file(path: pathlib.Path, ready: Ready) -> None:
    """Write `ready` as JSON; the file appears whole. Raises: BitsumError."""
    content: dict[str, Any] = dataclasses.asdict(ready)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_text(json.dumps(content) + "\n")
        os.replace(beside, path)
    except OSError as error:
        raise BitsumError(f"cannot write --ready_file {path}: {error.strerror}") from error
