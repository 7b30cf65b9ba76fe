"""What `bitsum serve` is asked to do, and the checks that need no server."""

import argparse
import dataclasses
import json
import os
import pathlib
import socket
from typing import Any

from components import atomic
from components.errors import BitsumError
from serving.versions.version_directory import on_disk_versions

_MODEL = "saved_model.pb"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """The flags of `bitsum serve` by their names, with the defaults of tensorflow_model_server where it has them.

    model_base_path is None where model_config_file says what is served. Times are in seconds unless the name says
    otherwise: ready_timeout bounds the wait for a first version, 0 waits for ever as TensorFlow Serving does;
    drain_timeout bounds how long calls under way may take after SIGTERM; file_system_poll_wait_seconds lies between two
    looks at the disk, 0 is a single look and a negative one none; model_config_file_poll_wait_seconds lies between two
    looks at model_config_file, 0 is a single one. log_file takes what TensorFlow or the external program says;
    ready_file tells others that a version is served. passed are the flags that tensorflow_model_server alone is given.
    """

    model_name: str
    server: str
    image: str
    host: str
    port: int
    grpc_max_threads: int
    ready_timeout: float
    drain_timeout: float
    max_request_bytes: int
    file_system_poll_wait_seconds: float
    request_log_rate: float
    model_base_path: pathlib.Path | None = None
    log_file: pathlib.Path | None = None
    ready_file: pathlib.Path | None = None
    model_config_file: pathlib.Path | None = None
    model_config_file_poll_wait_seconds: int = 0
    max_num_load_retries: int = 5
    load_retry_interval_micros: int = 60_000_000
    num_load_threads: int = 0
    allow_version_labels_for_unavailable_models: bool = False
    enable_model_warmup: bool = True
    num_request_iterations_for_warmup: int = 1
    enable_batching: bool = False
    batching_parameters_file: pathlib.Path | None = None
    ssl_config_file: pathlib.Path | None = None
    monitoring_config_file: pathlib.Path | None = None
    metrics_port: int | None = None
    request_log_dir: pathlib.Path | None = None
    grpc_channel_arguments: str = ""
    passed: tuple[str, ...] = ()

    @classmethod
    def of(cls, args: argparse.Namespace, passed: tuple[str, ...]) -> "Options":
        """Those of the parsed `args`, in which None is the value of a flag that was not given."""
        values = {field.name: getattr(args, field.name, None) for field in dataclasses.fields(cls)}
        return cls(**{name: value for name, value in values.items() if value is not None} | {"passed": passed})

    @property
    def threads(self) -> int:
        """Calls that are worked on at the same time."""
        return self.grpc_max_threads or 4 * len(os.sched_getaffinity(0))


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


def check_base_path(path: pathlib.Path, named: str) -> None:
    """Refuse a folder without versions; `named` is what the user called it.

    Raises:
        BitsumError: no such folder, or no version in it.
    """
    if not path.is_dir():
        raise BitsumError(
            f"{named} {path} is no folder: give the one that holds the versions, as in FOLDER/1/saved_model.pb"
        )
    if (path / _MODEL).exists():
        raise BitsumError(
            f"{named} {path} is a model itself: give the folder above, whose folders are named by version numbers"
        )
    if not on_disk_versions(path):
        raise BitsumError(f"{named} {path} holds no version: versions are folders named by numbers, as in {path}/1")


def newest_complete(path: pathlib.Path) -> int:
    """The highest version in `path` that holds a model. Raises: BitsumError, there is none."""
    found = [version for version, folder in (on_disk_versions(path) or {}).items() if (folder / _MODEL).is_file()]
    if not found:
        raise BitsumError(
            f"--model_base_path {path} holds no version with a {_MODEL}, so no model config file can be written for it"
        )
    return max(found)


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


def write_ready_file(path: pathlib.Path, ready: Ready) -> None:
    """Write `ready` as JSON; the file appears whole. Raises: BitsumError."""
    content: dict[str, Any] = dataclasses.asdict(ready)
    try:
        atomic.write(path, json.dumps(content) + "\n")
    except OSError as error:
        raise BitsumError(f"cannot write --ready_file {path}: {error.strerror}") from error
