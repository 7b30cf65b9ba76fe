"""serving.server.metrics: pages read back by prometheus_client, names and buckets compared with TensorFlow's own."""

import contextlib
import http.client
import json
import pathlib
import socket
import threading

import pytest
from prometheus_client import parser

from components.errors import BitsumError, ConfigError
from serving.exposition import Distribution, Family, exponential_bounds, exposition
from serving.server.metrics import (
    DEFAULT_PATH,
    LATENCY_BOUNDS,
    MAX_UNKNOWN_MODELS,
    Metrics,
    prometheus_path,
    serve_metrics,
)
from serving.server.request_log import RequestLog
from serving.status import StatusError

pytestmark = pytest.mark.fast


def _samples(page: bytes) -> dict[tuple[str, tuple], float]:
    """The samples by name and sorted labels."""
    families = parser.text_string_to_metric_families(page.decode())
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


def _own_lines(metrics: Metrics, name: str) -> list[str]:
    return [line for line in exposition(metrics.families()).decode().splitlines() if name in line]


def test_the_request_counts_match_the_lines_of_a_real_server():
    metrics = Metrics()
    metrics.observe("nope", "Predict", 5, 0.001)
    metrics.observe("add", "Predict", 0, 0.001)
    metrics.observe("add", "Predict", 9, 0.001)
    metrics.observe("add", "GetModelMetadata", 0, 0.001)
    assert _own_lines(metrics, "request_count") == [
        "# TYPE :tensorflow:serving:request_count counter",
        ':tensorflow:serving:request_count{model_name="add",status="FAILED_PRECONDITION"} 1',
        ':tensorflow:serving:request_count{model_name="add",status="OK"} 1',
        ':tensorflow:serving:request_count{model_name="nope",status="NOT_FOUND"} 1',
    ]


def test_each_method_is_counted_separately():
    metrics = Metrics()
    metrics.observe("add", "GetModelMetadata", 0, 0.001)
    metrics.observe("add", "Predict", 0, 0.001)
    metrics.observe("add", "Predict", 0, 0.001)
    assert _own_lines(metrics, "call_count")[1:] == [
        ':bitsum:serving:call_count{model_name="add",method="GetModelMetadata",status="OK"} 1',
        ':bitsum:serving:call_count{model_name="add",method="Predict",status="OK"} 2',
    ]


def test_the_bucket_bounds_are_those_of_tensorflow():
    from tensorflow.python.eager import monitoring

    sampler = monitoring.Sampler(
        "/bitsum/test_monitoring", monitoring.ExponentialBuckets(10, 1.8, 33), "the bounds", "label"
    )
    cell = sampler.get_cell("x")
    cell.add(1.0)
    limits = list(cell.value().bucket_limit)
    assert list(LATENCY_BOUNDS) == limits[:-1] and limits[-1] > 1e308


def test_the_latency_is_a_cumulative_histogram_of_successful_calls_in_microseconds():
    metrics = Metrics()
    for micros in (3.0, 18.0, 20.0, 2e9):
        metrics.observe("add", "Predict", 0, micros / 1e6)
    metrics.observe("add", "Predict", 3, 0.5)
    labels = {"model_name": "add", "API": "Predict", "entrypoint": "GRPC"}
    samples = _samples(exposition(metrics.families()))

    def sample(suffix: str, **more: str) -> float:
        return samples[f":tensorflow:serving:request_latency_{suffix}", tuple(sorted({**labels, **more}.items()))]

    assert [sample("bucket", le=bound) for bound in ("10", "18", "32.4", "1.47476e+09", "+Inf")] == [1, 2, 3, 3, 4]
    assert sample("count") == 4
    assert sample("sum") == 2_000_000_041


def test_runs_of_the_graph_have_their_own_histogram():
    metrics = Metrics()
    metrics.observe_run("add", "Predict", 0.000_030)
    prefix = ':tensorflow:serving:runtime_latency_bucket{model_name="add",API="Predict",runtime="TF1",'
    assert _own_lines(metrics, "runtime")[2:4] == [f'{prefix}le="18"}} 0', f'{prefix}le="32.4"}} 1']


def test_loads_failures_and_versions():
    metrics = Metrics(model_path=lambda model, version: f"/models/{model}/{version}")
    for kind, version, detail in [
        ("load_started", 1, None),
        ("load_succeeded", 1, 0.25),
        ("load_started", 2, None),
        ("load_failed", 2, StatusError(5, "no files")),
        ("load_failed", 2, StatusError(5, "no files")),
        ("load_started", 3, None),
        ("load_succeeded", 3, 0.5),
        ("unloaded", 1, None),
    ]:
        metrics.event(kind, "add", version, detail)
    assert _own_lines(metrics, "load_")[1:4] == [
        ':tensorflow:cc:saved_model:load_attempt_count{model_path="/models/add/1",status="success"} 1',
        ':tensorflow:cc:saved_model:load_attempt_count{model_path="/models/add/2",status="fail"} 2',
        ':tensorflow:cc:saved_model:load_attempt_count{model_path="/models/add/3",status="success"} 1',
    ]
    assert ':tensorflow:cc:saved_model:load_latency{model_path="/models/add/1"} 250000' in _own_lines(
        metrics, "load_latency"
    )
    assert _own_lines(metrics, "version_available")[1:] == [
        ':bitsum:serving:version_available{model_name="add",version="3"} 1'
    ]


def test_every_metric_with_a_tensorflow_name_exists_on_a_real_server(tmp_path):
    log = RequestLog(tmp_path, 0.0)
    log.close()
    types = {
        family.name: family.kind
        for family in [*Metrics().families(), *log.families()]
        if family.name.startswith(":tensorflow:")
    }
    assert types == {
        ":tensorflow:cc:saved_model:load_attempt_count": "counter",
        ":tensorflow:cc:saved_model:load_latency": "counter",
        ":tensorflow:serving:request_count": "counter",
        ":tensorflow:serving:request_latency": "histogram",
        ":tensorflow:serving:request_log_count": "counter",
        ":tensorflow:serving:runtime_latency": "histogram",
    }
    recorded = (pathlib.Path(__file__).parents[2] / "conformance" / "recorded_behaviour.json").read_text()
    assert [name for name in types if json.dumps(name) not in recorded] == []


@pytest.mark.parametrize("name", ['a"b', "a\\b", "a\nb", "a\\nb", "", "ä{},="])
def test_any_model_name_survives_the_text_format(name):
    metrics = Metrics()
    metrics.observe(name, "Predict", 5, 0.001)
    samples = _samples(exposition(metrics.families()))
    # The parser appends _total to the name of a counter.
    assert samples[":tensorflow:serving:request_count_total", (("model_name", name), ("status", "NOT_FOUND"))] == 1


def test_unknown_model_names_take_limited_memory():
    metrics = Metrics()
    metrics.event("load_succeeded", "add", 1, 0.1)
    for number in range(MAX_UNKNOWN_MODELS + 50):
        metrics.observe(f"made-up-{number}", "Predict", 5, 0.001)
    metrics.observe("x" * 300, "Predict", 5, 0.001)
    metrics.observe("add", "Predict", 0, 0.001)
    lines = _own_lines(metrics, "request_count")[1:]
    assert len(lines) == MAX_UNKNOWN_MODELS + 2
    assert ':tensorflow:serving:request_count{model_name="(other)",status="NOT_FOUND"} 51' in lines
    assert ':tensorflow:serving:request_count{model_name="add",status="OK"} 1' in lines


def test_concurrent_counts_are_not_lost():
    metrics = Metrics()
    threads = [
        threading.Thread(target=lambda: [metrics.observe("add", "Predict", 0, 0.001) for _ in range(5000)])
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert _own_lines(metrics, "request_count")[-1].endswith(" 20000")


def test_the_page_includes_other_sources_and_the_process_metrics():
    metrics = Metrics()
    waiting = Distribution(exponential_bounds(100, 1.2, 2))
    waiting.add(110)
    family = Family(":tensorflow:serving:batching_session:queuing_latency", "histogram", (({"pool": "p"}, waiting),))
    metrics.sources.append(lambda: [family])
    assert _own_lines(metrics, "queuing_latency")[1:] == [
        ':tensorflow:serving:batching_session:queuing_latency_bucket{pool="p",le="100"} 0',
        ':tensorflow:serving:batching_session:queuing_latency_bucket{pool="p",le="120"} 1',
        ':tensorflow:serving:batching_session:queuing_latency_bucket{pool="p",le="+Inf"} 1',
        ':tensorflow:serving:batching_session:queuing_latency_sum{pool="p"} 110',
        ':tensorflow:serving:batching_session:queuing_latency_count{pool="p"} 1',
    ]
    assert _samples(metrics.page())["process_resident_memory_bytes", ()] > 1e6


def _get(port: int, path: str, method: str = "GET") -> tuple[int, str, bytes]:
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, response.headers["Content-Type"], response.read()


def test_only_the_path_of_the_page_is_served():
    with serve_metrics(lambda: b"a 1\n") as port:
        assert _get(port, "/monitoring/prometheus/metrics") == (
            200,
            "text/plain; version=0.0.4; charset=utf-8",
            b"a 1\n",
        )
        assert _get(port, "/monitoring/prometheus/metrics?x=1")[0] == 200
        assert _get(port, "/monitoring/prometheus/metrics", "HEAD")[::2] == (200, b"")
        assert _get(port, "/")[::2] == (404, b"Unexpected path: /. Should be /monitoring/prometheus/metrics\n")
        assert _get(port, "/monitoring/prometheus/metrics", "POST")[0] == 501
    with serve_metrics(lambda: b"a 1\n", path="/m") as port:
        assert _get(port, "/m")[0] == 200


def test_the_page_listens_on_loopback_until_the_end_of_the_context():
    with serve_metrics(lambda: b"") as port, socket.socket() as other:
        other.bind(("127.0.0.2", port))
    with pytest.raises(ConnectionRefusedError):
        _get(port, "/")


def test_an_error_of_the_collector_is_reported_and_survived():
    pages = [b"a 1\n"]
    with serve_metrics(lambda: pages.pop()) as port:
        assert _get(port, DEFAULT_PATH)[0] == 200
        assert _get(port, DEFAULT_PATH)[::2] == (500, b"cannot collect the metrics: IndexError: pop from empty list\n")


def test_silent_clients_do_not_accumulate():
    with serve_metrics(lambda: b"a 1\n") as port, contextlib.ExitStack() as silent:
        for _ in range(8):
            silent.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10))
        with pytest.raises((http.client.RemoteDisconnected, ConnectionResetError)):
            _get(port, DEFAULT_PATH)


def test_garbage_from_a_client_is_survived(capfd):
    with serve_metrics(lambda: b"a 1\n") as port:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
            client.sendall(b"\x16\x03\x01\r\n\r\n")
            client.shutdown(socket.SHUT_WR)
            assert b"400" in client.recv(4096)
        assert _get(port, DEFAULT_PATH)[0] == 200
    assert capfd.readouterr() == ("", "")


def test_a_port_in_use_is_reported():
    with (
        serve_metrics(lambda: b"") as port,
        pytest.raises(BitsumError, match=f":{port}: Address already in use; give another port"),
        serve_metrics(lambda: b"", port=port),
    ):
        pass


@pytest.mark.parametrize("port", [-1, 65536])
def test_an_invalid_port_is_refused(port):
    with pytest.raises(BitsumError, match=f"127.0.0.1:{port}"), serve_metrics(lambda: b"", port=port):
        pass


@pytest.mark.parametrize(
    "text, path",
    [
        ("prometheus_config { enable: true }", DEFAULT_PATH),
        ('prometheus_config { enable: true path: "/metrics" }', "/metrics"),
        ('prometheus_config { path: "/metrics" }', None),
        ("", None),
    ],
)
def test_the_monitoring_config_sets_the_path(text, path, tmp_path):
    file = tmp_path / "monitoring.pbtxt"
    file.write_text(text)
    assert prometheus_path(file) == path


def test_the_default_path_is_that_of_the_real_server():
    assert prometheus_path(None) == "/monitoring/prometheus/metrics"


def test_a_path_without_a_leading_slash_is_refused(tmp_path):
    file = tmp_path / "monitoring.pbtxt"
    file.write_text('prometheus_config { enable: true path: "metrics" }')
    with pytest.raises(ConfigError, match="'metrics' must begin with a slash"):
        prometheus_path(file)
