"""Runs the embedded server in this process, from the first poll of the disk to the drain after SIGTERM."""

import contextlib
import functools
import logging
import os
import pathlib
import queue
import sys
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from components import compat
from components.errors import MODEL_CODES, BitsumError, ModelError
from components.log_lines import LineHandler
from components.printable import say
from serving import model_config, tls
from serving.runtime import batching_parameters
from serving.server import flags
from serving.server.metrics import Metrics, prometheus_path, serve_metrics
from serving.server.options import METRICS_HOST, Options, Ready
from serving.server.request_log import RequestLog
from serving.status import Code, StatusError
from serving.versions.loader import LOGGER, LoadOptions
from serving.versions.model_manager import ManagerOptions, ModelManager, NotAvailable

if TYPE_CHECKING:
    from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

NAME = "embedded"


def serve(
    options: Options, stop: threading.Event, hangups: "queue.SimpleQueue[bool]", announce: Callable[[Ready], None]
) -> int:
    """Serve until `stop` is set, then return the exit code. Each item of `hangups` reads the TLS certificate again.

    Raises:
        ModelError: no version loads because of faulty models.
        BitsumError: a refused config, no version in time, or a port in use.
    """
    config = _config(options)
    # Report unusable files and folders before the slow import of TensorFlow.
    identity = tls.ServerIdentity(options.ssl_config_file) if options.ssl_config_file else None
    batching = batching_parameters.read(options.batching_parameters_file) if options.enable_batching else None
    page = prometheus_path(options.monitoring_config_file)
    arguments = flags.channel_arguments(options.grpc_channel_arguments)
    with _event_lines(), _request_log(options) as log, quiet_tensorflow(options.log_file):
        if identity:
            _warn(identity)
        from serving.server import grpc_server, memory
        from serving.server.handlers import Handlers
        from serving.server.services import ModelService, PredictionService

        memory.limit_arenas_and_freeze()
        load = functools.partial(
            grpc_server.load,
            warm_up=options.enable_model_warmup,
            iterations=max(1, options.num_request_iterations_for_warmup),
            batching=batching,
            # Warmup requests may take minutes, and a process that ends meanwhile crashes in TensorFlow.
            stop=stop,
        )
        models = ModelManager(load, _manager_options(options))
        metrics = Metrics(models.folder)
        models.listeners.append(metrics.event)
        if log:
            metrics.sources.append(log.families)
        with _metrics_page(metrics, page, options), _serving(models, config, options):
            if not _wait(models, options, stop):
                return 0
            predictions = PredictionService(models, metrics.observe_run)
            handlers = Handlers(predictions, ModelService(models, metrics.value), metrics, log, options.threads)
            server = grpc_server.Server(
                handlers,
                options.host,
                options.port,
                options.threads,
                options.max_request_bytes,
                identity.credentials() if identity else None,
                arguments,
            )
            server.start()
            try:
                names = [model.name for model in config.model_config_list.config] or [options.model_name]
                version = models.newest(names[0]) or 0
                announce(Ready(options.host, server.port, os.getpid(), NAME, names[0], version))
                with _following(models, options), _reloading(identity, hangups), memory.periodic_malloc_trim():
                    stop.wait()
                LOGGER.info("stopping: calls in progress finish, new calls are refused")
            finally:
                finished = server.stop(options.drain_timeout)
            if not finished:
                LOGGER.warning(
                    "cancelled the calls still in progress after --drain_timeout %g s", options.drain_timeout
                )
    return 0


@contextlib.contextmanager
def _metrics_page(metrics: Metrics, path: str | None, options: Options) -> Iterator[None]:
    """Serves the metrics page during the context if a port is given."""
    if options.metrics_port is None or path is None:
        yield
        return
    with serve_metrics(metrics.page, METRICS_HOST, options.metrics_port, path) as port:
        say(f"metrics at http://{METRICS_HOST}:{port}{path}")
        yield


@contextlib.contextmanager
def _request_log(options: Options) -> Iterator[RequestLog | None]:
    """The request log if a folder is given; after the context, everything offered is on the disk."""
    if not options.request_log_dir:
        yield None
        return
    log = RequestLog(options.request_log_dir, options.request_log_rate)
    try:
        yield log
    finally:
        log.close()


def _config(options: Options) -> "ModelServerConfig":
    if not options.model_config_file:
        return model_config.one_model(options.model_name, str(options.model_base_path))
    config = model_config.read(options.model_config_file)
    # Checked again when the models start, but that is after the slow import of TensorFlow.
    with _refusals():
        if config.WhichOneof("config") is not None:
            model_config.check(config)
    return config


def _manager_options(options: Options) -> ManagerOptions:
    loading = LoadOptions(
        options.max_num_load_retries, options.load_retry_interval_micros / 1e6, options.num_load_threads
    )
    labels_for_unavailable = options.allow_version_labels_for_unavailable_models
    return ManagerOptions(loading, options.file_system_poll_wait_seconds, labels_for_unavailable)


@contextlib.contextmanager
def _serving(models: ModelManager, config: "ModelServerConfig", options: Options) -> Iterator[None]:
    try:
        with _refusals():
            path = options.model_config_file
            models.start(config, trust_labels=path is not None and model_config.is_ours(path))
            yield
    finally:
        models.close()


@contextlib.contextmanager
def _refusals() -> Iterator[None]:
    """Turns a StatusError into one line that contains TensorFlow Serving's own text."""
    try:
        yield
    except StatusError as error:
        hint = (
            "; --allow_version_labels_for_unavailable_models allows it"
            if error.code == Code.FAILED_PRECONDITION
            else ""
        )
        is_models_fault = isinstance(error, NotAvailable) and all(cause.name in MODEL_CODES for cause in error.causes)
        kind = ModelError if is_models_fault else BitsumError
        raise kind(f"Failed to start server. Error: {' '.join(error.described().split())}{hint}") from error


def _wait(models: ModelManager, options: Options, stop: threading.Event) -> bool:
    """Whether every model is available; false if `stop` was set first.

    Raises:
        BitsumError: not in time, or never because the disk is not polled.
    """
    awaited, polls = models.awaited(), options.file_system_poll_wait_seconds > 0
    for line in awaited:
        LOGGER.warning("%s", line)
    if awaited and not polls and options.ready_timeout:
        raise BitsumError(f"{awaited[0]}; --file_system_poll_wait_seconds=1 polls it")
    available = models.wait(options.ready_timeout or None, stop.is_set)
    if not available and not stop.is_set():
        source = options.model_config_file or options.model_base_path
        missing = "".join(f"; {line}" for line in models.awaited()[:1])
        limit = f"--ready_timeout {options.ready_timeout:g} s"
        raise BitsumError(f"no version in {source} was available within {limit}{missing}")
    return available


@contextlib.contextmanager
def _following(models: ModelManager, options: Options) -> Iterator[None]:
    """Poll the model config file during the context, if that is enabled; the file overrides earlier reloads."""
    path = options.model_config_file
    if not path or options.model_config_file_poll_wait_seconds <= 0:
        yield
        return
    stopped = threading.Event()

    def follow(path: pathlib.Path) -> None:
        last_refusal = None
        while not stopped.wait(options.model_config_file_poll_wait_seconds):
            refusal = _follow(models, path)
            if refusal and refusal != last_refusal:
                LOGGER.warning("%s", refusal)
            last_refusal = refusal

    threading.Thread(target=follow, args=(path,), name="model-config", daemon=True).start()
    try:
        yield
    finally:
        stopped.set()


@contextlib.contextmanager
def _reloading(identity: tls.ServerIdentity | None, hangups: "queue.SimpleQueue[bool]") -> Iterator[None]:
    """Reads the certificate again for each item of `hangups` during the context, if there is one."""
    if identity is None:
        yield
        return

    def reload() -> None:
        while hangups.get():
            try:
                identity.reload()
            except BitsumError as error:
                LOGGER.warning("SIGHUP: the former certificate stays: %s", error)
                continue
            LOGGER.info("SIGHUP: new connections have the certificate that is now in --ssl_config_file")
            _warn(identity)

    thread = threading.Thread(target=reload, name="certificate", daemon=True)
    thread.start()
    try:
        yield
    finally:
        hangups.put(False)
        thread.join()


def _warn(identity: tls.ServerIdentity) -> None:
    for warning in identity.warnings():
        LOGGER.warning("%s", warning)


def _follow(models: ModelManager, path: pathlib.Path) -> str | None:
    """Reload the config in `path`; returns the reason of a refusal, else None."""
    try:
        models.reload(model_config.read(path))
    except (StatusError, BitsumError) as error:
        return f"refused the model config file {path}: {error}"
    return None


@contextlib.contextmanager
def _event_lines() -> Iterator[None]:
    """Prints the log lines of the server to standard output."""
    handler = LineHandler(sys.stdout, "%(asctime)s %(message)s", "%H:%M:%S")
    LOGGER.addHandler(handler)
    LOGGER.setLevel(logging.INFO)
    try:
        yield
    finally:
        LOGGER.removeHandler(handler)


@contextlib.contextmanager
def quiet_tensorflow(log_file: pathlib.Path | None) -> Iterator[None]:
    """Redirects TensorFlow's log to `log_file`, or silences it. Its C++ part writes to file descriptor 2 directly."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "0" if log_file else "3")
    if not log_file:
        logging.getLogger("tensorflow").setLevel(logging.ERROR)
        compat.import_tensorflow()
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
