"""Runs the embedded server in this process: from the first look at the folder to the drain after SIGTERM."""

import contextlib
import logging
import os
import pathlib
import sys
import threading
from collections.abc import Callable, Iterator

from components.errors import BitsumError
from serving.options import Options, Ready
from serving.status import StatusError
from serving.versions import LOGGER, Versions

NAME = "embedded"


def serve(options: Options, stop: threading.Event, announce: Callable[[Ready], None]) -> int:
    """Serve until `stop` is set; the exit code.

    Raises:
        BitsumError: no version in time, none that loads, or the port is taken.
    """
    with _quiet_tensorflow(options.log_file), _event_lines():
        from serving import server

        knobs = options.knobs
        versions = Versions(knobs.model_name, options.base_path, server.load)
        with server.watching(versions, knobs.poll_interval):
            version = _first_version(versions, options, stop)
            if version is None:
                return 0
            grpc_server = server.Server(versions, knobs.host, knobs.port, knobs.max_workers, options.max_request_bytes)
            grpc_server.start()
            try:
                announce(Ready(knobs.host, grpc_server.port, os.getpid(), NAME, knobs.model_name, version))
                stop.wait()
                LOGGER.info("stopping: calls under way finish, new ones are refused")
            finally:
                finished = grpc_server.stop(options.drain_timeout)
            if not finished:
                LOGGER.warning("calls that took longer than --drain_timeout %g s were cancelled", options.drain_timeout)
    return 0


def _first_version(versions: Versions, options: Options, stop: threading.Event) -> int | None:
    try:
        version = versions.wait_available(options.ready_timeout or None, stop.is_set)
    except StatusError as error:
        line = str(error).partition("\n")[0]
        raise BitsumError(f"no version in {options.base_path} loads; the newest says: {line}") from error
    if version is None and not stop.is_set():
        raise BitsumError(f"no version in {options.base_path} was available within --ready_timeout {options.ready_timeout:g} s")
    return version


@contextlib.contextmanager
def _event_lines() -> Iterator[None]:
    """What happens to versions, as lines on standard output."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    LOGGER.addHandler(handler)
    LOGGER.setLevel(logging.INFO)
    try:
        yield
    finally:
        LOGGER.removeHandler(handler)


@contextlib.contextmanager
def _quiet_tensorflow(log_file: pathlib.Path | None) -> Iterator[None]:
    """TensorFlow's own lines go to `log_file`, or nowhere. Its C++ parts write to file descriptor 2, whatever Python does."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "0" if log_file else "3")
    if not log_file:
        logging.getLogger("tensorflow").setLevel(logging.ERROR)
        yield
        return
    try:
        log = os.open(log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    except OSError as error:
        raise BitsumError(f"cannot write --log_file {log_file}: {error.strerror}") from error
    terminal = os.dup(2)
    os.dup2(log, 2)
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(terminal, 2)
        os.close(terminal)
        os.close(log)
