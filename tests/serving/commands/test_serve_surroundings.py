"""TLS, metrics, the request log, batching and health of the embedded server, all on one server."""

import signal
import urllib.request
from concurrent import futures
from types import SimpleNamespace

import pytest
from google.protobuf import text_format

from serving import config_protos, tls
from serving.client import AdderClient
from serving.server import request_log
from tests.serving.conftest import bitsum, put, serving
from tests.support.identities import Identity


@pytest.fixture(scope="module")
def surrounded(models, tmp_path_factory):
    """A server with mutual TLS, batching, metrics and a log of every request."""
    folder = tmp_path_factory.mktemp("surrounded")
    base_path = folder / "bitsum"
    base_path.mkdir()
    put(models / "right", base_path, 1)
    authority = Identity("authority")
    server, client = Identity("server", authority, "127.0.0.1"), Identity("client", authority)
    files = {"ca": authority.certificate, "cert": client.certificate, "key": client.private_key}
    for name, text in files.items():
        (folder / f"{name}.pem").write_text(text)
    ssl = config_protos.messages().SSLConfig(
        server_key=server.private_key,
        server_cert=server.certificate,
        custom_ca=authority.certificate,
        client_verify=True,
    )
    (folder / "ssl.txt").write_text(text_format.MessageToString(ssl))
    (folder / "batching.txt").write_text("max_batch_size { value: 64 } num_batch_threads { value: 1 }")
    (folder / "monitoring.txt").write_text('prometheus_config { enable: true path: "/metrics" }')
    flags = [
        f"--ssl_config_file={folder / 'ssl.txt'}",
        "--enable_batching",
        f"--batching_parameters_file={folder / 'batching.txt'}",
        f"--monitoring_config_file={folder / 'monitoring.txt'}",
        "--metrics_port=0",
        f"--request_log_dir={folder / 'log'}",
        "--request_log_rate=1",
        "--grpc_max_threads=64",
    ]
    with serving(base_path, "--server=embedded", *flags) as running:
        page = next(line for line in running.process.stdout if line.startswith("metrics at ")).split()[-1]
        paths = [folder / f"{name}.pem" for name in files]
        yield SimpleNamespace(
            target=running.target,
            page=page,
            log=folder / "log",
            process=running.process,
            credentials=tls.client_credentials(*paths),
            tls=[f"--tls_{name}={path}" for name, path in zip(files, paths, strict=True)],
        )


def client(surrounded):
    return AdderClient(surrounded.target, label="", credentials=surrounded.credentials)


def metrics(surrounded):
    """Sample values by name and labels, as text."""
    with urllib.request.urlopen(surrounded.page, timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))}


def test_the_command_line_adds_over_mutual_tls(surrounded):
    code, out, err = bitsum("add", "13", "29", "--server", surrounded.target, "--label=", *surrounded.tls)

    assert (code, out, err) == (0, "42\n", "")


def test_a_missing_certificate_is_reported_in_one_line(surrounded):
    for flags, words in (([], "uses TLS"), (surrounded.tls[:1], "seems to require a client certificate")):
        code, out, err = bitsum("add", "13", "29", "--server", surrounded.target, "--attempts=1", *flags)
        assert (code, out, err.count("\n")) == (1, "", 1) and words in err, err


def test_a_file_with_more_pairs_than_a_batch_is_answered_in_order(surrounded, tmp_path):
    pairs = [(number, number % 7) for number in range(2000)]
    (tmp_path / "pairs").write_text("".join(f"{a} {b}\n" for a, b in pairs))
    answered = bitsum("add", "--file", tmp_path / "pairs", "--server", surrounded.target, "--label=", *surrounded.tls)
    assert answered == (0, "".join(f"{a + b}\n" for a, b in pairs), "")


def test_concurrent_requests_are_batched_and_answered_correctly(surrounded):
    pairs = [(2**bits - 1, 1 + bits) for bits in range(1, 65) for _ in range(4)]
    with client(surrounded) as adder, futures.ThreadPoolExecutor(32) as pool:
        assert list(pool.map(lambda pair: adder.add(*pair), pairs)) == [a + b for a, b in pairs]


def test_the_metrics_count_the_requests(surrounded):
    before = metrics(surrounded)
    with client(surrounded) as adder:
        assert adder.add(1, 1) == 2
    after = metrics(surrounded)

    for key in (
        ':tensorflow:serving:request_count{model_name="bitsum",status="OK"}',
        ':tensorflow:serving:request_latency_count{model_name="bitsum",API="Predict",entrypoint="GRPC"}',
        ':tensorflow:serving:runtime_latency_count{model_name="bitsum",API="Predict",runtime="TF1"}',
    ):
        assert after[key] == before.get(key, 0) + 1
    assert after[':bitsum:serving:version_available{model_name="bitsum",version="1"}'] == 1
    assert [value for name, value in after.items() if "load_attempt_count" in name and 'status="success"' in name] == [
        1
    ]


def test_at_the_end_the_requests_are_in_the_log(surrounded):
    """The last test: it stops the server."""
    with client(surrounded) as adder:
        assert adder.add(0b1011, 0b1) == 0b1100
    surrounded.process.send_signal(signal.SIGTERM)

    assert surrounded.process.wait(60) == 0
    logged = list(request_log.read(surrounded.log))
    assert logged[-1].inputs["a"].tensor_shape.dim[1].size == 4
    assert {request.model_spec.signature_name for request in logged} == {"add_bits"}
