"""The metrics of the model server, and a small HTTP server that exposes a metrics page to Prometheus.

Names, labels and buckets are TensorFlow Serving's, as in `:tensorflow:serving:request_count`. Metrics of our own are
called `:bitsum:serving:...`. TensorFlow Serving exposes its page on the port of its REST API; the embedded server has
no REST API, so the page has its own port (`--metrics_port`).

    metrics = Metrics()
    with serve_metrics(metrics.page, port=8501) as port:
        metrics.observe("bitsum", "Predict", 0, 0.0004)
"""

import contextlib
import http.server
import itertools
import pathlib
import socketserver
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from components.errors import BitsumError, ConfigError
from serving.exposition import CONTENT_TYPE, Distribution, Family, exponential_bounds, exposition
from serving.status import code_name
from serving.versions.loader import LOAD_FAILED, LOAD_SUCCEEDED, UNLOADED

DEFAULT_PATH = "/monitoring/prometheus/metrics"
# Counts the unknown names beyond the limits: clients may send any name, and each would take memory forever.
OTHER_MODELS = "(other)"
MAX_UNKNOWN_MODELS = 100
MAX_NAME_LENGTH = 256

# In microseconds: from 10 us to about 25 minutes.
LATENCY_BOUNDS = exponential_bounds(10.0, 1.8, 33)
_PAGES_AT_ONCE = 8
_CLIENT_SECONDS = 10


class Metrics:
    """Counts requests, latencies, loads and versions. Thread-safe.

    `model_path(model, version)` gives the label of loads: in TensorFlow Serving, the folder of the version. `sources`
    are functions that give further families for each page.
    """

    def __init__(self, model_path: Callable[[str, int], str] = lambda model, version: f"{model}/{version}"):
        self._model_path = model_path
        self.sources: list[Callable[[], Iterable[Family]]] = []
        self._lock = threading.Lock()
        self._calls: dict[tuple[str, str, int], _Calls] = {}
        self._runs: dict[tuple[str, str], Distribution] = {}
        self._loads: dict[tuple[str, str], int] = {}
        self._load_micros: dict[str, int] = {}
        self._available: set[tuple[str, int]] = set()
        self._known: set[str] = set()
        self._unknown: set[str] = set()

    def observe(self, model: str, method: str, code: int, seconds: float) -> None:
        """Count a call of `method` (without the service name) that ended with status `code` after `seconds`.

        As in TensorFlow Serving, the latency includes only calls with status OK.
        """
        calls = self._calls.get((model, method, code)) or self._new_calls(model, method, code)
        with self._lock:
            calls.count += 1
            if not code:
                calls.latency.add(seconds * 1e6)

    def observe_run(self, model: str, method: str, seconds: float) -> None:
        """Count a run of the graph that took `seconds`, for a call of `method`."""
        with self._lock:
            runs = self._runs.get((model, method)) or self._runs.setdefault(
                (model, method), Distribution(LATENCY_BOUNDS)
            )
            runs.add(seconds * 1e6)

    def event(self, kind: str, model: str, version: int, detail: Any = None) -> None:
        """Count loads and available versions: a serving.versions.loader.Listener."""
        with self._lock:
            self._known.add(model)
            if kind == LOAD_SUCCEEDED:
                self._count_load(self._model_path(model, version), "success", round(detail * 1e6))
                self._available.add((model, version))
            elif kind == LOAD_FAILED:
                self._count_load(self._model_path(model, version), "fail", 0)
            elif kind == UNLOADED:
                self._available.discard((model, version))

    def families(self) -> list[Family]:
        """A snapshot of all metrics, sorted by name."""
        with self._lock:
            own = [*self._request_families(), *self._load_families()]
        return sorted(itertools.chain(own, *(source() for source in self.sources)), key=lambda family: family.name)

    def value(self, name: str) -> int:
        """The sum of counter `name` over all labels; 0 for an unknown counter."""
        samples = (value for family in self.families() if family.name == name for _, value in family.samples)
        return int(sum(value for value in samples if not isinstance(value, Distribution)))

    def page(self) -> bytes:
        """All metrics, with those of the process (CPU, memory, open files), in Prometheus' text format."""
        return exposition(self.families()) + _process_page()

    def _new_calls(self, model: str, method: str, code: int) -> "_Calls":
        with self._lock:
            if model not in self._known and model not in self._unknown:
                if len(self._unknown) >= MAX_UNKNOWN_MODELS or len(model) > MAX_NAME_LENGTH:
                    model = OTHER_MODELS
                else:
                    self._unknown.add(model)
            return self._calls.setdefault((model, method, code), _Calls())

    def _count_load(self, path: str, status: str, micros: int) -> None:
        self._loads[path, status] = self._loads.get((path, status), 0) + 1
        self._load_micros[path] = self._load_micros.get(path, 0) + micros

    def _request_families(self) -> list[Family]:
        requests: dict[tuple[str, str], int] = {}
        latency, calls = [], []
        for (model, method, code), counted in sorted(self._calls.items()):
            status = code_name(code)
            calls.append(({"model_name": model, "method": method, "status": status}, counted.count))
            if method != "Predict":
                continue
            requests[model, status] = requests.get((model, status), 0) + counted.count
            if not code:
                latency.append(({"model_name": model, "API": method, "entrypoint": "GRPC"}, counted.latency.copy()))
        runs = [
            ({"model_name": model, "API": method, "runtime": "TF1"}, run.copy())
            for (model, method), run in sorted(self._runs.items())
        ]
        by_status = [
            ({"model_name": model, "status": status}, count) for (model, status), count in sorted(requests.items())
        ]
        return [
            Family(":bitsum:serving:call_count", "counter", tuple(calls)),
            Family(":tensorflow:serving:request_count", "counter", tuple(by_status)),
            Family(":tensorflow:serving:request_latency", "histogram", tuple(latency)),
            Family(":tensorflow:serving:runtime_latency", "histogram", tuple(runs)),
        ]

    def _load_families(self) -> list[Family]:
        attempts = [
            ({"model_path": path, "status": status}, count) for (path, status), count in sorted(self._loads.items())
        ]
        micros = [({"model_path": path}, value) for path, value in sorted(self._load_micros.items())]
        versions = [({"model_name": model, "version": str(version)}, 1) for model, version in sorted(self._available)]
        return [
            Family(":bitsum:serving:version_available", "gauge", tuple(versions)),
            Family(":tensorflow:cc:saved_model:load_attempt_count", "counter", tuple(attempts)),
            Family(":tensorflow:cc:saved_model:load_latency", "counter", tuple(micros)),
        ]


class _Calls:
    """The calls of one model and method with one status code."""

    __slots__ = ("count", "latency")

    def __init__(self) -> None:
        self.count = 0
        self.latency = Distribution(LATENCY_BOUNDS)


def prometheus_path(path: pathlib.Path | None) -> str | None:
    """The URL path of the page from a text file with a MonitoringConfig; None if the file does not enable the page.

    Raises:
        ConfigError: an unreadable file, or a URL path without a leading slash.
    """
    if path is None:
        return DEFAULT_PATH
    from serving import config_protos

    config = config_protos.parse_text(config_protos.messages().MonitoringConfig, path).prometheus_config
    if config.path and not config.path.startswith("/"):
        raise ConfigError(
            f"--monitoring_config_file {path}: the path {config.path!r} must begin with a slash, as in {DEFAULT_PATH}"
        )
    return (config.path or DEFAULT_PATH) if config.enable else None


@contextlib.contextmanager
def serve_metrics(
    collect: Callable[[], bytes], host: str = "127.0.0.1", port: int = 0, path: str = DEFAULT_PATH
) -> Iterator[int]:
    """Serves the page of `collect` at `path` over HTTP during the context, which gives the port (0 takes a free one).

    Serves up to eight clients concurrently and disconnects further ones. Clients see an error of `collect` as HTTP 500.

    Raises:
        BitsumError: the port is not available.
    """
    try:
        server = _PageServer((host, port), collect, path)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise BitsumError(f"cannot serve metrics on {host}:{port}: {reason}; give another port") from error
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, name="metrics", daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _PageServer(socketserver.ThreadingMixIn, socketserver.TCPServer):
    allow_reuse_address = True
    request_queue_size = 2 * _PAGES_AT_ONCE
    daemon_threads = True
    block_on_close = False

    def __init__(self, address: tuple[str, int], collect: Callable[[], bytes], path: str):
        self.collect, self.path = collect, path
        self._free = threading.BoundedSemaphore(_PAGES_AT_ONCE)
        super().__init__(address, _PageHandler)

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignores clients that disconnect."""


class _PageHandler(http.server.BaseHTTPRequestHandler):
    timeout = _CLIENT_SECONDS
    server_version, sys_version = "bitsum", ""
    server: _PageServer

    def do_GET(self) -> None:
        if self.path.partition("?")[0] != self.server.path:
            self._answer(404, f"Unexpected path: {self.path}. Should be {self.server.path}\n".encode())
            return
        try:
            page = self.server.collect()
        except Exception as error:
            self._answer(500, f"cannot collect the metrics: {type(error).__name__}: {error}\n".encode())
            return
        self._answer(200, page)

    do_HEAD = do_GET

    def log_message(self, format: str, *args: Any) -> None:
        """Logs nothing: Prometheus requests the page every few seconds."""

    def _answer(self, code: int, body: bytes) -> None:
        self.send_response(code)
        self.send_header("Content-Type", CONTENT_TYPE)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _process_page() -> bytes:
    import prometheus_client

    registry = prometheus_client.CollectorRegistry()
    prometheus_client.ProcessCollector(registry=registry)
    return prometheus_client.generate_latest(registry)
