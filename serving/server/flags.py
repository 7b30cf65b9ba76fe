"""The flags of tensorflow_model_server, by their own names, and their effect on each server.

`--server tensorflow_model_server` and docker receive the given flags unchanged, except those that would make the server
compute something other than the proven graph. The embedded server uses some flags, ignores others with a note because
clients see no difference, and refuses the rest, which it cannot honour.
"""

import argparse
import dataclasses
import importlib.metadata
import pathlib
import re
from collections.abc import Callable
from typing import Any

from components.errors import ConfigError

# The values of --server.
EMBEDDED = "embedded"
PROGRAM = "tensorflow_model_server"
DOCKER = "docker"

# The release that the embedded server follows; --version prints it.
SERVING_VERSION = "2.16.1"
_REST = "the embedded server speaks gRPC only and has no REST API"
_SESSION = "the embedded server does not configure TensorFlow's session"
_ANY_SESSION = "session options can enable XLA and mixed precision, which the proof excludes"
_XLA = "XLA rewrites arithmetic, which the proof excludes"


def boolean(text: str) -> bool:
    """--flag, --flag=true, --flag=false; 1 and 0 too."""
    values = {"true": True, "1": True, "false": False, "0": False}
    if text.lower() not in values:
        raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")
    return values[text.lower()]


@dataclasses.dataclass(frozen=True)
class Flag:
    """A flag and the type of its value. The embedded server uses it unless a reason is given.

    excluded: why no server may have a value outside `harmless`: it would compute something unproven.
    refused: why the embedded server refuses a value outside `harmless`.
    ignored: why the flag has no effect on the embedded server.
    """

    name: str
    kind: Callable
    help: str = ""
    excluded: str = ""
    refused: str = ""
    ignored: str = ""
    harmless: tuple = (False, 0, "")


FLAGS = (
    Flag("allow_version_labels_for_unavailable_models", boolean, "allow new labels on unavailable versions"),
    Flag(
        "model_config_file_poll_wait_seconds",
        int,
        "seconds between polls of the model config file; 0 disables them (default 0)",
    ),
    Flag("max_num_load_retries", int, "retries of a failed load (default 5)"),
    Flag("load_retry_interval_micros", int, "microseconds between retries of a load (default 60000000)"),
    Flag(
        "num_load_threads",
        int,
        "concurrent loads; 0 is unlimited in the embedded server, one in the real one (default 0)",
    ),
    Flag("enable_model_warmup", boolean, "run the warmup requests of a model (default true)"),
    Flag("num_request_iterations_for_warmup", int, "runs of each warmup request (default 1)"),
    Flag("enable_batching", boolean, "batch concurrent requests"),
    Flag("batching_parameters_file", pathlib.Path, "text file with BatchingParameters"),
    Flag(
        "ssl_config_file",
        pathlib.Path,
        "text file with an SSLConfig, for TLS; the embedded server reads it again on SIGHUP",
    ),
    Flag("monitoring_config_file", pathlib.Path, "text file with a MonitoringConfig"),
    Flag(
        "grpc_channel_arguments",
        str,
        "arguments of the gRPC server, such as grpc.max_connection_age_ms=2000,NAME=VALUE",
    ),
    Flag("grpc_socket_path", str, refused="the embedded server listens on a TCP port only"),
    Flag("num_unload_threads", int, ignored="each version is unloaded in its own thread"),
    Flag("flush_filesystem_caches", boolean, ignored="TensorFlow's Python API cannot flush them"),
    Flag("enable_grpc_healthcheck_service", boolean, ignored="the health service is always enabled", harmless=(True,)),
    Flag("enable_profiler", boolean, ignored="the embedded server has no profiler service", harmless=(False,)),
    Flag(
        "remove_unused_fields_from_bundle_metagraph", boolean, ignored="the embedded server frees them after the load"
    ),
    Flag("per_process_gpu_memory_fraction", float, ignored="the embedded server uses no GPU"),
    Flag("skip_initialize_tpu", boolean, ignored="the embedded server uses no TPU"),
    Flag("num_tflite_pools", int, ignored="the embedded server serves no TensorFlow Lite models"),
    Flag("num_tflite_interpreters_per_pool", int, ignored="the embedded server serves no TensorFlow Lite models"),
    Flag("rest_api_num_threads", int, ignored=_REST),
    Flag("rest_api_timeout_in_ms", int, ignored=_REST),
    Flag("rest_api_enable_cors_support", boolean, ignored=_REST),
    Flag("rest_api_port", int, refused=f"{_REST}; --metrics_port serves the metrics"),
    Flag(
        "enable_per_model_batching_parameters",
        boolean,
        refused="the embedded server has one set of batching parameters for all models",
    ),
    Flag("tensorflow_session_parallelism", int, refused=_SESSION),
    Flag("tensorflow_intra_op_parallelism", int, refused=_SESSION),
    Flag("tensorflow_inter_op_parallelism", int, refused=_SESSION),
    Flag("tensorflow_session_config_file", str, excluded=_ANY_SESSION),
    Flag("platform_config_file", str, excluded=_ANY_SESSION),
    Flag("use_alts_credentials", boolean, refused="the embedded server supports TLS only: --ssl_config_file"),
    Flag("saved_model_tags", str, excluded="the proof covers the graph with the tag serve", harmless=("serve",)),
    Flag("enable_signature_method_name_check", boolean, refused="the embedded server does not check method names"),
    Flag("xla_cpu_compilation_enabled", boolean, excluded=_XLA),
    Flag("xla_gpu_compilation_enabled", boolean, excluded=_XLA),
    Flag(
        "prefer_tflite_model",
        boolean,
        excluded="the proof covers the SavedModel, not a TensorFlow Lite model beside it",
    ),
    Flag("thread_pool_factory_config_file", str, refused="the embedded server uses TensorFlow's own thread pools"),
    Flag("mixed_precision", str, excluded="the proof covers float32 only"),
    Flag("enable_serialization_as_tensor_content", boolean, refused="the embedded server answers in typed fields"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add all of FLAGS; the value of an absent flag is None."""
    used = parser.add_argument_group("flags of tensorflow_model_server that the embedded server has too")
    passed = parser.add_argument_group("flags that only tensorflow_model_server has")
    excluded = parser.add_argument_group("flags of tensorflow_model_server that are refused: they invalidate the proof")
    for flag in FLAGS:
        group = excluded if flag.excluded else passed if flag.refused or flag.ignored else used
        optional: dict[str, Any] = (
            {"nargs": "?", "const": True, "metavar": "true|false"} if flag.kind is boolean else {}
        )
        reason = flag.excluded or flag.refused
        text = flag.help or (f"refused: {reason}" if reason else f"no effect: {flag.ignored}")
        group.add_argument(f"--{flag.name}", type=flag.kind, help=text, **optional)


def given(args: argparse.Namespace) -> tuple[str, ...]:
    """The given flags, in the form that tensorflow_model_server accepts."""
    texts = []
    for flag in FLAGS:
        value = getattr(args, flag.name)
        if isinstance(value, pathlib.Path):
            value = value.absolute()
        if value is not None:
            texts.append(f"--{flag.name}={str(value).lower() if flag.kind is boolean else value}")
    return tuple(texts)


def check(args: argparse.Namespace, embedded: bool) -> list[str]:
    """A note for each given flag without effect on the server, `embedded` or another.

    Raises:
        ConfigError: the embedded server refuses a flag, or the proof excludes it.
    """
    notes = []
    for flag in FLAGS:
        value = getattr(args, flag.name)
        if value is None or value in flag.harmless:
            continue
        if flag.excluded:
            raise ConfigError(f"--{flag.name}={str(value).lower()}: {flag.excluded}; remove the flag")
        if not embedded:
            continue
        if flag.refused:
            raise ConfigError(f"--{flag.name}: {flag.refused}; --server tensorflow_model_server supports it")
        if flag.ignored:
            notes.append(f"--{flag.name} has no effect: {flag.ignored}")
    return notes


def channel_arguments(text: str) -> tuple[tuple[str, int | str], ...]:
    """The pairs in name=value,..., with integer values as int. Raises: ConfigError."""
    arguments: list[tuple[str, int | str]] = []
    for pair in filter(None, text.split(",")):
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise ConfigError(f"--grpc_channel_arguments: {pair!r} must have the form name=value")
        number = int(value) if re.fullmatch(r"[+-]?[0-9]{1,20}", value) else None
        if number is not None and not -(2**31) <= number < 2**31:
            raise ConfigError(f"--grpc_channel_arguments: {name} = {number} does not fit into 32 bits")
        arguments.append((name, value if number is None else number))
    return tuple(arguments)


def version_lines() -> str:
    """The output of --version."""
    return (
        f"bitsum: {importlib.metadata.version('bitsum')}, its embedded server behaves as\n"
        f"TensorFlow ModelServer: {SERVING_VERSION}\n"
        f"TensorFlow Library: {_tensorflow_version()}"
    )


def _tensorflow_version() -> str:
    for package in ("tensorflow-cpu", "tensorflow"):
        try:
            return importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return "not installed"
