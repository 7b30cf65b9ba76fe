"""`bitsum serve`: serve the versions in a folder, with TensorFlow Serving if installed, else with the embedded server.

Flags with the meaning of a flag of tensorflow_model_server have its name.

Exit code 0 after SIGTERM or SIGINT; 3 if the server ends and names its models as the reason; 128 + N if signal N ended
the server's process; 2 for a wrong flag; 1 for everything else: a port in use, a folder without versions, no version in
time.
"""

import argparse
import contextlib
import os
import pathlib
import queue
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from components import atomic, outputs
from components.errors import BitsumError, ConfigError
from components.printable import say
from serving.labels import STABLE
from serving.server import flags
from serving.server.flags import DOCKER, EMBEDDED, PROGRAM

if TYPE_CHECKING:
    from components.settings import Serve
    from serving.server.options import Options, Ready

_DRAIN_SECONDS = 30.0
_REQUEST_BYTES = 64 * 1024 * 1024
_LOG_RATE = 0.01
# 30 years; Python and gRPC cannot wait much longer.
_MOST_SECONDS = 1e9
# gRPC and protobuf count bytes in 31 bits.
_MOST_BYTES = 2**31 - 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `bitsum serve`."""
    from components.settings import Serve

    defaults = Serve()
    parser.add_argument(
        "--port", type=int, default=defaults.port, help="gRPC port; 0 takes a free one (default %(default)s)"
    )
    parser.add_argument("--host", default=defaults.host, help="address to listen on (default %(default)s)")
    parser.add_argument("--model_name", default=defaults.model_name, help="name of the model (default %(default)s)")
    parser.add_argument(
        "--model_base_path", type=_folder, metavar="FOLDER", help="folder of versions, as in FOLDER/1/saved_model.pb"
    )
    parser.add_argument(
        "--model_config_file",
        type=_absolute_output,
        metavar="FILE",
        help="text file with a ModelServerConfig; a missing file is created with the newest version, labelled stable",
    )
    parser.add_argument(
        "--file_system_poll_wait_seconds",
        type=float,
        default=defaults.poll_interval,
        metavar="SECONDS",
        help="time between polls for new versions; 0 polls once (default %(default)s)",
    )
    parser.add_argument(
        "--grpc_max_threads",
        type=int,
        default=defaults.max_workers,
        metavar="N",
        help="concurrent calls; further calls are refused; 0 is four times the number of CPUs (default %(default)s)",
    )
    _add_own_arguments(parser, defaults)
    flags.add_arguments(parser)


def _add_own_arguments(parser: argparse.ArgumentParser, defaults: "Serve") -> None:
    parser.add_argument(
        "--server",
        choices=("auto", EMBEDDED, PROGRAM, DOCKER),
        default=defaults.server,
        help=f"auto is {PROGRAM} if it is on the PATH, else {EMBEDDED} (default %(default)s)",
    )
    parser.add_argument("--image", default=defaults.image, help="image for --server docker (default %(default)s)")
    parser.add_argument(
        "--ready_file",
        type=_absolute_output,
        metavar="PATH",
        help="JSON (host, port, pid, ...), written once a version is served",
    )
    parser.add_argument(
        "--ready_timeout",
        type=float,
        default=defaults.start_timeout,
        metavar="SECONDS",
        help="time limit for a first version; 0 waits forever, as TensorFlow Serving does (default %(default)s)",
    )
    parser.add_argument(
        "--drain_timeout",
        type=float,
        default=_DRAIN_SECONDS,
        metavar="SECONDS",
        help="time for calls in flight after SIGTERM (default %(default)s)",
    )
    parser.add_argument(
        "--max_request_bytes",
        type=int,
        default=_REQUEST_BYTES,
        metavar="N",
        help="larger requests are refused (default %(default)s)",
    )
    parser.add_argument(
        "--log_file", type=_absolute_output, metavar="PATH", help="log file of TensorFlow or the external program"
    )
    parser.add_argument(
        "--metrics_port",
        type=int,
        metavar="N",
        help="loopback port for Prometheus (embedded server); 0 takes a free one",
    )
    parser.add_argument(
        "--request_log_dir", type=_absolute_output, metavar="FOLDER", help="log a sample of the answered requests here"
    )
    parser.add_argument(
        "--request_log_rate",
        type=float,
        default=_LOG_RATE,
        metavar="SHARE",
        help="share of the requests to log (default %(default)s)",
    )
    parser.add_argument("--version", action="store_true", help="print versions and exit")


def run(args: argparse.Namespace) -> int:
    """Serve until SIGTERM or SIGINT and return the exit code.

    Raises:
        ModelError: the models do not load.
        BitsumError: the server cannot serve; the text says why.
    """
    from serving.server import flags, options

    if args.version:
        say(*flags.version_lines().split("\n"))
        return 0
    if not args.log_file:
        # Before the first import of gRPC, whose log lines quote untrusted input unescaped.
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    settings = _options(args)
    _check_folders(settings)
    server = _server(settings.server)
    notes = flags.check(args, embedded=server == EMBEDDED)
    options.check_port(settings.host, settings.port, "--port")
    if server == EMBEDDED and settings.metrics_port is not None:
        options.check_port(options.METRICS_HOST, settings.metrics_port, "--metrics_port")
    _write_config_file(settings)
    for note in notes:
        say(f"note: {note}", stream=sys.stderr)
    with _signals() as (stop, hangups), _ready_file(settings.ready_file) as announce:
        if server == EMBEDDED:
            from serving.server import app

            return app.serve(settings, stop, hangups, announce)
        from serving.server import tfserving

        return tfserving.serve(settings, server, stop, announce)


def _options(args: argparse.Namespace) -> "Options":
    from components.settings import Serve
    from serving.server.options import Options

    if not args.model_base_path and not args.model_config_file:
        raise ConfigError(
            "neither --model_base_path nor --model_config_file is given: one of them must name the models"
        )
    if args.batching_parameters_file and not args.enable_batching:
        raise ConfigError("--batching_parameters_file needs --enable_batching")
    options = Options.of(args, passed=flags.given(args))
    _check_numbers(options)
    # Its checks apply the limits of the configuration.
    Serve(
        options.model_name,
        options.server,
        options.image,
        options.host,
        options.port,
        max_workers=options.grpc_max_threads,
    )
    return options


def _check_numbers(asked: "Options") -> None:
    for name, seconds in (
        ("ready_timeout", asked.ready_timeout),
        ("drain_timeout", asked.drain_timeout),
        ("file_system_poll_wait_seconds", asked.file_system_poll_wait_seconds),
        ("model_config_file_poll_wait_seconds", asked.model_config_file_poll_wait_seconds),
        ("load_retry_interval_micros", asked.load_retry_interval_micros / 1e6),
    ):
        if not abs(seconds) <= _MOST_SECONDS:
            raise ConfigError(f"--{name}: {seconds:g} s must be a number of at most {_MOST_SECONDS:g} s")
    if not 1 <= asked.max_request_bytes <= _MOST_BYTES:
        raise ConfigError(f"--max_request_bytes = {asked.max_request_bytes}: must be from 1 to {_MOST_BYTES}")
    if asked.ready_timeout < 0 or asked.drain_timeout < 0:
        raise ConfigError("--ready_timeout and --drain_timeout must not be negative")
    if asked.max_num_load_retries < 0 or asked.num_load_threads < 0:
        raise ConfigError("--max_num_load_retries and --num_load_threads must not be negative")
    if not 0 <= asked.request_log_rate <= 1:
        raise ConfigError(f"--request_log_rate = {asked.request_log_rate:g}: must be between 0 and 1")
    if asked.metrics_port is not None and not 0 <= asked.metrics_port <= 65535:
        raise ConfigError(f"--metrics_port = {asked.metrics_port}: must be between 0 and 65535")
    if asked.metrics_port and asked.metrics_port == asked.port:
        raise ConfigError(f"--metrics_port = {asked.metrics_port}: must differ from --port")


def _absolute(path: str) -> pathlib.Path | None:
    return pathlib.Path(path).expanduser().absolute() if path else None


def _absolute_output(path: str) -> pathlib.Path | None:
    return _absolute(str(outputs.path(path))) if path else None


def _folder(path: str) -> pathlib.Path | None:
    from serving import model_config

    scheme = model_config.remote_scheme(path)
    if scheme:
        raise argparse.ArgumentTypeError(f"{path}: cannot read {scheme}://, give a folder on this machine")
    return _absolute(path.removeprefix("file://"))


def _check_folders(asked: "Options") -> None:
    """Refuse folders without versions, unless --ready_timeout is 0. Raises: BitsumError."""
    from serving import model_config
    from serving.server import options

    if not asked.ready_timeout:
        return
    if asked.model_config_file and asked.model_config_file.exists():
        for model in model_config.read(asked.model_config_file).model_config_list.config:
            # The server itself refuses a base_path that is not absolute, or on another file system.
            folder = model_config.base_path(model)
            if folder.is_absolute():
                options.check_base_path(folder, f"{asked.model_config_file}: the base_path of {model.name},")
    elif asked.model_base_path:
        options.check_base_path(asked.model_base_path, "--model_base_path")


def _write_config_file(asked: "Options") -> None:
    """If the named model config file is missing, write one that serves the newest version with the label stable."""
    from serving import model_config
    from serving.server import options

    if not asked.model_config_file or asked.model_config_file.exists() or not asked.model_base_path:
        return
    newest = options.newest_complete(asked.model_base_path)
    name = asked.model_name
    model_config.write(
        asked.model_config_file, model_config.one_model(name, str(asked.model_base_path), [newest], {STABLE: newest})
    )
    say(f"{asked.model_config_file} written: version {newest} of {name} with the label {STABLE}")


def _server(wanted: str) -> str:
    if wanted == "auto":
        return PROGRAM if shutil.which(PROGRAM) else EMBEDDED
    if wanted in (PROGRAM, DOCKER) and not shutil.which(wanted):
        raise BitsumError(f"--server {wanted}: the program {wanted} is not on the PATH; --server {EMBEDDED} needs none")
    return wanted


@contextlib.contextmanager
def _signals() -> Iterator[tuple[threading.Event, "queue.SimpleQueue[bool]"]]:
    """An event that SIGTERM and SIGINT set, and a queue that grows by one for each SIGHUP.

    A second SIGTERM or SIGINT ends the process at once.
    """
    stop = threading.Event()
    hangups: queue.SimpleQueue[bool] = queue.SimpleQueue()

    def handle(number: int, _: object) -> None:
        if stop.is_set():
            os._exit(128 + number)
        stop.set()

    before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    before[signal.SIGHUP] = signal.signal(signal.SIGHUP, lambda *_: hangups.put(True))
    try:
        yield stop, hangups
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _ready_file(path: pathlib.Path | None) -> Iterator[Callable[["Ready"], None]]:
    """A function that prints a Ready and writes it to the ready file, which is removed after the context."""
    from serving.server.options import address, write_ready_file

    if path:
        try:
            atomic.require_file(path)
            path.unlink(missing_ok=True)
        except OSError as error:
            raise BitsumError(f"cannot write --ready_file {path}: {error.strerror}") from error

    def announce(ready: "Ready") -> None:
        if path:
            write_ready_file(path, ready)
        where = address(ready.host, ready.port)
        server = f"{ready.server} server, process {ready.pid}"
        say(f"serving {ready.model_name} version {ready.version} at {where} ({server})")

    try:
        yield announce
    finally:
        if path:
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                say(f"note: cannot remove --ready_file {path}: {error.strerror}", stream=sys.stderr)
