"""The flags of tensorflow_model_server, by their own names, and what becomes of them here.

With `--server tensorflow_model_server` or docker those that were given are passed on as they are, but for those that
would have it compute something else than the graph that was proven. The embedded server uses some, takes others with a
note since they change nothing that a client sees, and refuses the rest, of which it could not keep the promise.
"""

import argparse
import dataclasses
import importlib.metadata
import pathlib
from collections.abc import Callable

from components.errors import ConfigError

# What --version prints: the release whose behaviour the embedded server has.
SERVING_VERSION = "2.16.1"
_REST = "the embedded server speaks gRPC only, it has no REST API"
_SESSION = "the embedded server leaves TensorFlow's session as it is"
_ANY_SESSION = "its session options can switch on XLA and mixed precision, which the proof excludes"
_XLA = "the proof excludes XLA's rewriting of the arithmetic"


def boolean(text: str) -> bool:
    """--flag, --flag=true, --flag=false; 1 and 0 too."""
    values = {"true": True, "1": True, "false": False, "0": False}
    if text.lower() not in values:
        raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")
    return values[text.lower()]


@dataclasses.dataclass(frozen=True)
class Flag:
    """A flag, the type of its value, and what the embedded server does with it: uses it unless one of the reasons is
    given.

    excluded: why no server may be given any value but those in `harmless`: it would compute what was not proven.
    refused: why the embedded server refuses any such value.
    ignored: why it changes nothing there.
    """

    name: str
    kind: Callable
    help: str = ""
    excluded: str = ""
    refused: str = ""
    ignored: str = ""
    harmless: tuple = (False, 0, "")


FLAGS = (
    Flag(
        "allow_version_labels_for_unavailable_models",
        boolean,
        "allow new labels on versions that are not available yet",
    ),
    Flag(
        "model_config_file_poll_wait_seconds",
        int,
        "how often to read the model config file again; 0 never does (default 0)",
    ),
    Flag("max_num_load_retries", int, "how often a load that failed is tried again (default 5)"),
    Flag("load_retry_interval_micros", int, "microseconds between two such tries (default 60000000)"),
    Flag("num_load_threads", int, "loads under way at the same time; 0 is any number here, one there (default 0)"),
    Flag("enable_model_warmup", boolean, "run the warmup requests that lie with a model (default true)"),
    Flag("num_request_iterations_for_warmup", int, "how often each warmup request is run (default 1)"),
    Flag("enable_batching", boolean, "run small requests together"),
    Flag("batching_parameters_file", pathlib.Path, "text file with BatchingParameters"),
    Flag("ssl_config_file", pathlib.Path, "text file with an SSLConfig: serve over TLS"),
    Flag("monitoring_config_file", pathlib.Path, "text file with a MonitoringConfig"),
    Flag(
        "grpc_channel_arguments", str, "arguments of the gRPC server, as in grpc.max_connection_age_ms=2000,NAME=VALUE"
    ),
    Flag("grpc_socket_path", str, refused="the embedded server listens on its port alone"),
    Flag("num_unload_threads", int, ignored="versions are unloaded in threads of their own"),
    Flag("flush_filesystem_caches", boolean, ignored="TensorFlow's Python API cannot flush them"),
    Flag("enable_grpc_healthcheck_service", boolean, ignored="health checks are always answered", harmless=(True,)),
    Flag("enable_profiler", boolean, ignored="there is no profiler service", harmless=(False,)),
    Flag("remove_unused_fields_from_bundle_metagraph", boolean, ignored="they are not kept for long"),
    Flag("per_process_gpu_memory_fraction", float, ignored="no GPU is used"),
    Flag("skip_initialize_tpu", boolean, ignored="no TPU is used"),
    Flag("num_tflite_pools", int, ignored="TensorFlow Lite models are not served"),
    Flag("num_tflite_interpreters_per_pool", int, ignored="TensorFlow Lite models are not served"),
    Flag("rest_api_num_threads", int, ignored=_REST),
    Flag("rest_api_timeout_in_ms", int, ignored=_REST),
    Flag("rest_api_enable_cors_support", boolean, ignored=_REST),
    Flag("rest_api_port", int, refused=f"{_REST}; metrics are at --metrics_port"),
    Flag(
        "enable_per_model_batching_parameters",
        boolean,
        refused="the embedded server has one set of batching parameters",
    ),
    Flag("tensorflow_session_parallelism", int, refused=_SESSION),
    Flag("tensorflow_intra_op_parallelism", int, refused=_SESSION),
    Flag("tensorflow_inter_op_parallelism", int, refused=_SESSION),
    Flag("tensorflow_session_config_file", str, excluded=_ANY_SESSION),
    Flag("platform_config_file", str, excluded=_ANY_SESSION),
    Flag("use_alts_credentials", boolean, refused="the embedded server has TLS only: --ssl_config_file"),
    Flag(
        "saved_model_tags", str, excluded="the graph with the tag serve is the one that was proven", harmless=("serve",)
    ),
    Flag("enable_signature_method_name_check", boolean, refused="the embedded server does not look at method names"),
    Flag("xla_cpu_compilation_enabled", boolean, excluded=_XLA),
    Flag("xla_gpu_compilation_enabled", boolean, excluded=_XLA),
    Flag("prefer_tflite_model", boolean, excluded="the SavedModel was proven, not a TensorFlow Lite model beside it"),
    Flag("thread_pool_factory_config_file", str, refused="the embedded server has TensorFlow's own thread pools"),
    Flag("mixed_precision", str, excluded="the proof is about float32"),
    Flag("enable_serialization_as_tensor_content", boolean, refused="the embedded server answers in typed fields"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """All of FLAGS; None is the value of one that was not given."""
    used = parser.add_argument_group("flags of tensorflow_model_server that the embedded server has too")
    passed = parser.add_argument_group(
        "flags of tensorflow_model_server that are passed on to it; the embedded server needs none of them"
    )
    never = parser.add_argument_group(
        "flags of tensorflow_model_server that no server is given, since it would compute what is not proven"
    )
    for flag in FLAGS:
        group = never if flag.excluded else passed if flag.refused or flag.ignored else used
        optional = {"nargs": "?", "const": True, "metavar": "true|false"} if flag.kind is boolean else {}
        reason = flag.excluded or flag.refused
        text = flag.help or (f"refused: {reason}" if reason else f"no effect: {flag.ignored}")
        group.add_argument(f"--{flag.name}", type=flag.kind, help=text, **optional)


def given(args: argparse.Namespace) -> tuple[str, ...]:
    """The flags that were given, as tensorflow_model_server takes them."""
    found = []
    for flag in FLAGS:
        value = getattr(args, flag.name)
        if isinstance(value, pathlib.Path):
            value = value.absolute()
        if value is not None:
            found.append(f"--{flag.name}={str(value).lower() if flag.kind is boolean else value}")
    return tuple(found)


def check(args: argparse.Namespace, embedded: bool) -> list[str]:
    """Notes on the flags that were given and change nothing in the server that is started, the embedded one or another.

    Raises:
        ConfigError: a flag that it has not, or that no server is given.
    """
    notes = []
    for flag in FLAGS:
        value = getattr(args, flag.name)
        if value is None or value in flag.harmless:
            continue
        if flag.excluded:
            raise ConfigError(f"--{flag.name}={str(value).lower()}: {flag.excluded}; leave the flag away")
        if not embedded:
            continue
        if flag.refused:
            raise ConfigError(f"--{flag.name}: {flag.refused}; --server tensorflow_model_server takes it")
        if flag.ignored:
            notes.append(f"--{flag.name} has no effect: {flag.ignored}")
    return notes


def channel_arguments(text: str) -> tuple[tuple[str, int | str], ...]:
    """The pairs in name=value,..., with values as integers where they are some. Raises: ConfigError."""
    found: list[tuple[str, int | str]] = []
    for pair in filter(None, text.split(",")):
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise ConfigError(f"--grpc_channel_arguments: {pair!r} is not of the form name=value")
        found.append((name, int(value) if value.lstrip("+-").isdecimal() else value))
    return tuple(found)


def version_lines() -> str:
    """What --version prints."""
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
