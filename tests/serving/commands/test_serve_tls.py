"""`bitsum serve` with TLS: SIGHUP, certificates that are not valid today, and the sockets that it listens on."""

import contextlib
import pathlib
import re
import signal
import threading

import grpc
import pytest
from google.protobuf import text_format

from serving import config_protos, protos, tls
from tests.serving.conftest import bitsum, serving
from tests.support.identities import Identity

_PREDICT = "/tensorflow.serving.PredictionService/Predict"


@pytest.fixture(scope="module")
def authority():
    return Identity("authority")


def write(path, identity, key=None):
    message = config_protos.messages().SSLConfig(
        server_key=(key or identity).private_key, server_cert=identity.certificate
    )
    path.write_text(text_format.MessageToString(message))
    return path


@contextlib.contextmanager
def channel(target, authority, folder):
    (folder / "ca.pem").write_text(authority.certificate)
    credentials = tls.client_credentials(ca=folder / "ca.pem").channel_credentials()
    with grpc.secure_channel(target, credentials, [("grpc.use_local_subchannel_pool", 1)]) as opened:
        yield opened


def add(opened):
    """The status code of a Predict; a request without a model is refused, so the server has answered."""
    try:
        opened.unary_unary(_PREDICT)(protos.load().predict.PredictRequest().SerializeToString(), timeout=20)
    except grpc.RpcError as error:
        return error.code()


ANSWERED = grpc.StatusCode.INVALID_ARGUMENT


def line(process, words):
    """The next line of output with `words`; a process that does not write it ends after a while."""
    patience = threading.Timer(60, process.kill)
    patience.start()
    try:
        return next(text for text in process.stdout if words in text)
    finally:
        patience.cancel()


def test_sighup_reads_the_certificate_again_and_no_call_fails(base_path, authority, tmp_path):
    file = write(tmp_path / "ssl.txt", Identity("server", authority, "127.0.0.1"))
    other = Identity("another authority")
    with (
        serving(base_path, "--server=embedded", f"--ssl_config_file={file}") as server,
        channel(server.target, authority, tmp_path) as before,
    ):
        codes, stop = [], threading.Event()

        def keep_asking():
            while not stop.is_set():
                codes.append(add(before))

        asking = threading.Thread(target=keep_asking)
        asking.start()
        write(file, Identity("server", authority, "127.0.0.1"), key=other)
        server.process.send_signal(signal.SIGHUP)
        kept = line(server.process, "SIGHUP")
        assert "SIGHUP: the former certificate stays: " in kept and "server_key is not the private key" in kept
        with channel(server.target, authority, tmp_path) as opened:
            assert add(opened) == ANSWERED
        write(file, Identity("server", other, "127.0.0.1", days=(-3, -1)))
        server.process.send_signal(signal.SIGHUP)
        assert "SIGHUP: new connections have the certificate" in line(server.process, "SIGHUP")
        assert "server_cert of CN=server expired on " in line(server.process, "expired")
        write(file, Identity("server", other, "127.0.0.1"))
        server.process.send_signal(signal.SIGHUP)
        assert "SIGHUP: new connections have the certificate" in line(server.process, "SIGHUP")
        with channel(server.target, other, tmp_path) as opened:
            assert add(opened) == ANSWERED
        stop.set()
        asking.join()
        assert {*codes} == {ANSWERED}


def test_sighup_without_tls_is_ignored(base_path):
    with serving(base_path, "--server=embedded") as server:
        for _ in range(3):
            server.process.send_signal(signal.SIGHUP)
        with grpc.insecure_channel(server.target) as opened:
            assert add(opened) == ANSWERED
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(60) == 0


def test_a_certificate_that_is_not_valid_today_is_served_with_a_warning(base_path, authority, tmp_path):
    file = write(tmp_path / "ssl.txt", Identity("server", authority, "127.0.0.1", days=(2, 3)))
    with serving(base_path, "--server=embedded", f"--ssl_config_file={file}") as server:
        assert re.search(r"server_cert of CN=server is valid from \d{4}-\d\d-\d\d", line(server.process, "CN="))


def test_a_wrong_key_is_refused_before_the_model_loads(authority, tmp_path):
    (tmp_path / "models" / "1").mkdir(parents=True)
    server = Identity("server", authority, "127.0.0.1")
    for file, code, words in (
        (write(tmp_path / "ssl.txt", server, key=authority), 2, "server_key is not the private key of server_cert"),
        (tmp_path / "absent", 2, "absent: No such file or directory"),
    ):
        done = bitsum(
            "serve",
            "--server=embedded",
            "--port=0",
            f"--model_base_path={tmp_path / 'models'}",
            f"--ssl_config_file={file}",
        )
        assert (done[0], done[1], done[2].count("\n")) == (code, "", 1) and words in done[2]


def _listening(pid):
    """The inodes of the process's sockets that listen: (TCP ports, names of Unix sockets)."""
    links = [entry.readlink() for entry in pathlib.Path(f"/proc/{pid}/fd").iterdir()]
    inodes = {str(link)[len("socket:[") : -1] for link in links if str(link).startswith("socket:[")}
    ports, unix = set(), []
    for table in ("tcp", "tcp6"):
        for row in pathlib.Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            local, state, inode = (row.split()[column] for column in (1, 3, 9))
            if inode in inodes and state == "0A":
                ports.add(int(local.rpartition(":")[2], 16))
    for row in pathlib.Path(f"/proc/{pid}/net/unix").read_text().splitlines()[1:]:
        # Number, references, protocol, flags (10000: it listens), type, state, inode, name.
        columns = row.split()
        if columns[6] in inodes and columns[3] == "00010000":
            unix.append(columns[7:])
    return ports, unix


def test_it_listens_on_the_given_ports_only(base_path, authority, tmp_path):
    file = write(tmp_path / "ssl.txt", Identity("server", authority, "127.0.0.1"))
    flags = [f"--ssl_config_file={file}", "--metrics_port=0", f"--request_log_dir={tmp_path / 'log'}"]
    with serving(base_path, "--server=embedded", *flags) as server:
        page = line(server.process, "metrics at ")
        metrics_port = int(re.search(r":(\d+)/", page)[1])
        assert _listening(server.process.pid) == ({server.ready.port, metrics_port}, [])
