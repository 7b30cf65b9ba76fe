"""`bitsum serve`: serve the versions in a folder, with TensorFlow Serving where it is installed, else with the embedded server.

Flags are spelled as tensorflow_model_server's where they mean the same.
"""

import argparse
import contextlib
import os
import pathlib
import shutil
import signal
import threading
from collections.abc import Callable, Iterator

from components.errors import BitsumError, ConfigError

EMBEDDED = "embedded"
PROGRAM = "tensorflow_model_server"
DOCKER = "docker"
_DRAIN_SECONDS = 30.0
_REQUEST_BYTES = 64 * 1024 * 1024


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `bitsum serve`."""
    from components.settings import Serve

    defaults = Serve()
    parser.add_argument("--port", type=int, default=defaults.port, help="gRPC port; 0 takes a free one (default %(default)s)")
    parser.add_argument("--host", default=defaults.host, help="address to listen on (default %(default)s)")
    parser.add_argument("--model_name", default=defaults.model_name, help="name of the model (default %(default)s)")
    parser.add_argument("--model_base_path", required=True, metavar="FOLDER", help="folder of versions, as in FOLDER/1/saved_model.pb")
    parser.add_argument(
        "--file_system_poll_wait_seconds", type=float, default=defaults.poll_interval, metavar="SECONDS",
        help="how often to look for new versions (default %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--grpc_max_threads", type=int, default=defaults.max_workers, metavar="N",
        help="calls worked on at the same time; one more is refused (default %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--server", choices=("auto", EMBEDDED, PROGRAM, DOCKER), default=defaults.server,
        help=f"auto is {PROGRAM} where it is on the PATH, else {EMBEDDED} (default %(default)s)",
    )  # fmt: skip
    parser.add_argument("--image", default=defaults.image, help="image for --server docker (default %(default)s)")
    parser.add_argument("--ready_file", metavar="PATH", help="write JSON (host, port, pid, version, ...) once a version is served")
    parser.add_argument(
        "--ready_timeout", type=float, default=defaults.start_timeout, metavar="SECONDS",
        help="give up without a version after this time; 0 waits for ever, as TensorFlow Serving does (default %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--drain_timeout", type=float, default=_DRAIN_SECONDS, metavar="SECONDS",
        help="how long calls under way may take after SIGTERM (default %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--max_request_bytes", type=int, default=_REQUEST_BYTES, metavar="N", help="larger requests are refused (default %(default)s)"
    )
    parser.add_argument("--log_file", metavar="PATH", help="file for the log lines of TensorFlow or the external program")


def run(args: argparse.Namespace) -> int:
    """Serve until SIGTERM or SIGINT; the exit code.

    Raises:
        BitsumError: nothing could be served; the text says why.
    """
    from serving import options

    asked = _options(args)
    options.check_base_path(asked)
    server = _server(asked.knobs.server)
    options.check_port(asked.knobs.host, asked.knobs.port)
    with _stop_signals() as stop, _ready_file(asked.ready_file) as announce:
        if server == EMBEDDED:
            from serving import embedded

            return embedded.serve(asked, stop, announce)
        from serving import external

        return external.serve(asked, server, stop, announce)


def _options(args: argparse.Namespace):
    from components.settings import Serve
    from serving.options import Options

    if args.ready_timeout < 0 or args.drain_timeout < 0 or args.max_request_bytes < 1:
        raise ConfigError("--ready_timeout and --drain_timeout must not be negative, and --max_request_bytes at least 1")
    knobs = Serve(
        model_name=args.model_name, server=args.server, image=args.image, host=args.host, port=args.port,
        poll_interval=args.file_system_poll_wait_seconds, max_workers=args.grpc_max_threads,
    )  # fmt: skip
    return Options(
        knobs=knobs,
        base_path=pathlib.Path(args.model_base_path).expanduser().absolute(),
        log_file=pathlib.Path(args.log_file) if args.log_file else None,
        ready_file=pathlib.Path(args.ready_file).absolute() if args.ready_file else None,
        ready_timeout=args.ready_timeout,
        drain_timeout=args.drain_timeout,
        max_request_bytes=args.max_request_bytes,
    )


def _server(wanted: str) -> str:
    if wanted == "auto":
        return PROGRAM if shutil.which(PROGRAM) else EMBEDDED
    if wanted in (PROGRAM, DOCKER) and not shutil.which(wanted):
        raise BitsumError(f"--server {wanted}: there is no program {wanted} on the PATH; --server {EMBEDDED} needs none")
    return wanted


@contextlib.contextmanager
def _stop_signals() -> Iterator[threading.Event]:
    """An event that SIGTERM and SIGINT set; the second of them ends the process at once."""
    stop = threading.Event()

    def handle(number: int, _) -> None:
        if stop.is_set():
            os._exit(128 + number)
        stop.set()

    before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _ready_file(path: pathlib.Path | None) -> Iterator[Callable]:
    """A function that announces a Ready on the terminal and in the ready file, which exists no longer than the context."""
    from serving.options import Ready, address, write_ready_file

    if path:
        path.unlink(missing_ok=True)

    def announce(ready: Ready) -> None:
        if path:
            write_ready_file(path, ready)
        where = address(ready.host, ready.port)
        print(f"serving {ready.model_name} version {ready.version} at {where} ({ready.server} server, process {ready.pid})", flush=True)

    try:
        yield announce
    finally:
        if path:
            path.unlink(missing_ok=True)
