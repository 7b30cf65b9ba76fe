"""The options of `bitsum serve`, and the checks that need no server."""

import argparse
import dataclasses
import json
import os
import pathlib
import socket
from typing import Any

from components import atomic
from components.errors import BitsumError, reason, unreadable
from serving.versions.version_directory import on_disk_versions

# The page of metrics is for this machine only.
METRICS_HOST = "127.0.0.1"
_MODEL = "saved_model.pb"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """The flags of `bitsum serve` by name; shared flags have the defaults of tensorflow_model_server.

    Times are in seconds unless the name says otherwise.

    model_base_path: None if model_config_file lists the models.
    ready_timeout: limit of the wait for a first version; 0 waits forever, as TensorFlow Serving does.
    drain_timeout: limit for calls in progress after SIGTERM.
    file_system_poll_wait_seconds: time between polls of the disk; 0 polls once, a negative value never.
    model_config_file_poll_wait_seconds: time between polls of model_config_file; 0 reads it once.
    log_file: receives the log of TensorFlow or of the external program.
    ready_file: appears once a version is served.
    passed: the flags for tensorflow_model_server.
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
        """The options in the parsed `args`, where None is the value of an absent flag."""
        values = {field.name: getattr(args, field.name, None) for field in dataclasses.fields(cls)}
        return cls(**{name: value for name, value in values.items() if value is not None} | {"passed": passed})

    @property
    def threads(self) -> int:
        """The limit of concurrent calls."""
        return self.grpc_max_threads or 4 * len(os.sched_getaffinity(0))


@dataclasses.dataclass(frozen=True)
class Ready:
    """The content of the ready file, which says that a version is served."""

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
    """Refuse a missing or unreadable folder and one without versions; `named` is the user's name for it.

    Raises:
        BitsumError: always in these cases.
    """
    try:
        if not path.is_dir():
            raise BitsumError(
                f"{named} {path} is not a folder: give the folder of the versions, as in FOLDER/1/saved_model.pb"
            )
        names = os.listdir(path)
    except OSError as error:
        raise BitsumError(unreadable(f"{named} {path}", error)) from error
    if _MODEL in names:
        raise BitsumError(
            f"{named} {path} is a model: give its parent folder, whose subfolders are named by version numbers"
        )
    if not on_disk_versions(path):
        raise BitsumError(f"{named} {path} has no versions: a version is a folder named by its number, as in {path}/1")


def newest_complete(path: pathlib.Path) -> int:
    """The highest version in `path` with a SavedModel. Raises: BitsumError, no version has one."""
    complete = [version for version, folder in (on_disk_versions(path) or {}).items() if (folder / _MODEL).is_file()]
    if not complete:
        raise BitsumError(f"cannot write a model config file: no version in --model_base_path {path} has a {_MODEL}")
    return max(complete)


def check_port(host: str, port: int, flag: str) -> None:
    """Refuse a port that is not free before a model loads; `flag` is the option for it. Raises: BitsumError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            # Like gRPC, treat a port with closing connections as free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except socket.gaierror as error:
        raise BitsumError(f"cannot listen on {address(host, port)}: {reason(error)}; give another --host") from error
    except OSError as error:
        raise BitsumError(
            f"cannot listen on {address(host, port)}: {reason(error)}; give another {flag}; 0 takes a free one"
        ) from error


def write_ready_file(path: pathlib.Path, ready: Ready) -> None:
    """Write `ready` as JSON; the file appears whole. Raises: BitsumError."""
    content: dict[str, Any] = dataclasses.asdict(ready)
    try:
        atomic.write(path, json.dumps(content) + "\n")
    except OSError as error:
        raise BitsumError(f"cannot write --ready_file {path}: {error.strerror}") from error
