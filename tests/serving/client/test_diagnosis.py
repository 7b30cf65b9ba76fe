"""Faults of TLS between real clients and real servers: each in one line that says which it is."""

import asyncio
import contextlib
import os
import socket
import ssl
import subprocess
import sys
import threading
from concurrent import futures

import grpc
import pytest

from pipeline import cli
from serving import model_config, tls
from serving.client import AdderClient, AsyncAdderClient, ServerUnavailable
from tests.serving.conftest import BITSUM
from tests.support.identities import Identity

pytestmark = [pytest.mark.fast, pytest.mark.slow]

ADDRESS = "127.0.0.1"


@pytest.fixture(scope="module")
def authority():
    return Identity("authority")


@contextlib.contextmanager
def listening(identity=None, client_authority=None):
    """The target of a gRPC server without methods, in plain text without `identity`."""
    server = grpc.server(futures.ThreadPoolExecutor(1))
    if identity:
        pair, roots = (identity.private_key.encode(), identity.certificate.encode()), None
        if client_authority:
            roots = client_authority.certificate.encode()
        credentials = grpc.ssl_server_credentials([pair], roots, require_client_auth=client_authority is not None)
        port = server.add_secure_port(f"{ADDRESS}:0", credentials)
    else:
        port = server.add_insecure_port(f"{ADDRESS}:0")
    server.start()
    try:
        yield f"{ADDRESS}:{port}"
    finally:
        server.stop(None).wait()


def client_of(authority, identity=None, server_name=""):
    return tls.ClientTls(
        authority.certificate.encode() if authority else None,
        identity.certificate.encode() if identity else None,
        identity.private_key.encode() if identity else None,
        server_name,
    )


def failures(target, credentials, **options):
    """The text of the error of both clients."""
    options = {"credentials": credentials, "attempts": 1, **options}
    with AdderClient(target, **options) as client, pytest.raises(ServerUnavailable) as blocking:
        client.add(1, 2)

    async def on_a_loop():
        async with AsyncAdderClient(target, **options) as client:
            await client.add(1, 2)

    with pytest.raises(ServerUnavailable) as of_asyncio:
        asyncio.run(on_a_loop())
    assert str(blocking.value) == str(of_asyncio.value) and "\n" not in str(blocking.value)
    return str(blocking.value)


def test_a_client_without_tls_is_told_that_the_server_uses_it(authority):
    for client_authority in (None, authority):
        with listening(Identity("server", authority, ADDRESS), client_authority) as target:
            text = failures(target, None)
        assert text == f"the server at {target} uses TLS: give the authority that signed its certificate: --tls_ca FILE"


def test_a_client_with_tls_is_told_that_the_server_does_not_use_it(authority):
    with listening() as target:
        text = failures(target, client_of(authority))
    assert text == f"the server at {target} does not use TLS: leave out --tls_ca and the other options of TLS"


@pytest.mark.parametrize("trusted", ["stranger", "nobody"])
def test_an_unknown_authority(authority, trusted):
    with listening(Identity("server", authority, ADDRESS)) as target:
        text = failures(target, client_of(Identity("stranger") if trusted == "stranger" else None))
    assert f"the certificate of the server at {target} is refused: its authority is not trusted (" in text
    assert text.endswith("give the authority that signed its certificate: --tls_ca FILE")


@pytest.mark.parametrize(
    ("days", "words"),
    [
        ((-3, -1), "is refused: certificate has expired; renew it on the server"),
        ((1, 3), "is refused: certificate is not yet valid; compare the clocks of both machines"),
    ],
)
def test_a_certificate_that_is_not_valid_today(authority, days, words):
    with listening(Identity("server", authority, ADDRESS, days=days)) as target:
        assert failures(target, client_of(authority)) == f"the certificate of the server at {target} {words}"


def test_another_host_name_and_the_override(authority):
    with listening(Identity("bank.example", authority)) as target:
        text = failures(target, client_of(authority))
        assert text == (
            f"the certificate of the server at {target} is for another host name: give a name that it contains: "
            "--tls_server_name NAME"
        )
        with (
            AdderClient(target, credentials=client_of(authority, server_name="bank.example")) as client,
            pytest.raises(Exception, match="UNIMPLEMENTED"),
        ):
            client.add(1, 2)


def test_a_missing_and_a_wrong_client_certificate(authority):
    stranger = Identity("client", Identity("stranger"))
    with listening(Identity("server", authority, ADDRESS), authority) as target:
        missing = failures(target, client_of(authority))
        wrong = failures(target, client_of(authority, stranger))
    assert f"the server at {target} seems to require a client certificate (" in missing
    assert missing.endswith("give --tls_cert and --tls_key")
    assert f"the server at {target} seems to refuse the client certificate (" in wrong


@contextlib.contextmanager
def openssl_server(identity, folder, version, authority=None):
    """The target of a server of Python's ssl, which says nothing after the handshake, or why it refuses."""
    (folder / "server.pem").write_text(identity.private_key + identity.certificate)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem")
    context.maximum_version = version
    context.set_alpn_protocols(["h2"])
    if authority:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cadata=authority.certificate)

    def serve():
        with contextlib.ExitStack() as stack:
            while True:
                connection = stack.enter_context(listener.accept()[0])
                with contextlib.suppress(OSError):
                    stack.enter_context(context.wrap_socket(connection, server_side=True))
                if ended.is_set():
                    return

    ended, listener = threading.Event(), socket.create_server((ADDRESS, 0))
    thread = threading.Thread(target=serve)
    with listener:
        thread.start()
        try:
            yield f"{ADDRESS}:{listener.getsockname()[1]}"
        finally:
            ended.set()
            socket.create_connection(listener.getsockname()).close()
            thread.join()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_server_that_is_not_one_of_grpc(authority, version, tmp_path):
    server = Identity("server", authority, ADDRESS)
    with openssl_server(server, tmp_path, version, authority) as target:
        missing = failures(target, client_of(authority))
        wrong = failures(target, client_of(authority, Identity("client", Identity("stranger"))))
    assert "seems to require a client certificate (" in missing and " alert " in missing
    assert "seems to refuse the client certificate (" in wrong and "alert unknown ca" in wrong
    with openssl_server(server, tmp_path, version) as target:
        assert f"the server at {target} uses TLS" in failures(target, None, deadline=1)


def test_another_fault_of_the_handshake_is_told_as_it_is(authority, tmp_path, monkeypatch):
    with openssl_server(Identity("server", authority, ADDRESS), tmp_path, ssl.TLSVersion.TLSv1_2, authority) as target:
        monkeypatch.setattr(tls.ClientTls, "handshake", lambda *_: "tlsv1 alert protocol version")
        assert (
            failures(target, client_of(authority))
            == f"the server at {target} ends the TLS connection: tlsv1 alert protocol version"
        )
        monkeypatch.setattr(tls.ClientTls, "handshake", lambda *_: None)
        text = failures(target, client_of(authority))
        assert text.startswith(f"no model server answers at {target} (") and "SSLV3_ALERT_HANDSHAKE_FAILURE)" in text


def test_credentials_of_grpc_are_used_as_they_are(authority):
    credentials = grpc.ssl_channel_credentials(authority.certificate.encode())
    with listening(Identity("server", authority, ADDRESS), authority) as target:
        assert failures(target, credentials).startswith(f"no model server answers at {target} (")


def test_the_handshake_ends_with_the_deadline(authority):
    """The server breaks the first connection, as one with TLS does, and never answers the handshake."""
    with socket.create_server((ADDRESS, 0)) as listener, contextlib.ExitStack() as stack:

        def accept():
            connection, _ = listener.accept()
            # Closed with unread data, it is reset.
            connection.recv(1)
            connection.close()
            stack.enter_context(listener.accept()[0])

        thread = threading.Thread(target=accept)
        thread.start()
        target = f"{ADDRESS}:{listener.getsockname()[1]}"
        with (
            AdderClient(target, attempts=1, deadline=0.5) as client,
            pytest.raises(ServerUnavailable, match="no model server answers"),
        ):
            client.add(1, 2)
        thread.join()


def run(target, *flags, **env):
    environment = {name: value for name, value in os.environ.items() if name != "GRPC_VERBOSITY"} | env
    command = [*BITSUM, "add", "1", "2", f"--server={target}", "--attempts=1", *flags]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)


def test_the_command_line_prints_one_line_and_none_of_grpc(authority, tmp_path):
    (tmp_path / "ca.pem").write_text(authority.certificate)
    ca = f"--tls_ca={tmp_path / 'ca.pem'}"
    with listening(Identity("server", authority, ADDRESS)) as target:
        done = run(target, ca, "--tls_server_name=bank.example")
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
        assert done.stderr.startswith(f"bitsum: the certificate of the server at {target} is for another host name")
        # A user's own setting wins.
        shown = run(target, ca, "--tls_server_name=bank.example", GRPC_VERBOSITY="INFO")
    assert shown.stderr.count("\n") > 1 and done.stderr in shown.stderr
    with listening(Identity("bank.example", authority)) as target:
        # The call arrives; this server has no methods.
        assert "UNIMPLEMENTED" in run(target, ca, "--tls_server_name=bank.example").stderr


@pytest.mark.parametrize(("flags", "verbosity"), [([], "NONE"), (["-q"], "NONE"), (["-v"], "None")])
def test_the_lines_of_grpc_are_shown_with_those_of_the_libraries(flags, verbosity):
    program = (
        "import os\nfrom pipeline import cli\nos.environ.pop('GRPC_VERBOSITY', None)\n"
        f"cli.main(['add', '1', '2', '--server=127.0.0.1:1', '--attempts=1', *{flags}])\n"
        "print(os.environ.get('GRPC_VERBOSITY'))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stdout == f"{verbosity}\n"


@pytest.mark.parametrize("command", ["add", "status", "probe", "qualify", "rollout", "rollback"])
def test_every_command_that_calls_a_server_names_the_fault(authority, command, tmp_path, monkeypatch, capsys):
    # The command sets it for this process.
    monkeypatch.setenv("GRPC_VERBOSITY", "NONE")
    base, config_file = tmp_path / "base", tmp_path / "models.config"
    for version in ("1", "2"):
        (base / version).mkdir(parents=True)
    model_config.write(config_file, model_config.one_model("bitsum", str(base), [1, 2], {"stable": 2, "previous": 1}))
    with listening(Identity("server", authority, ADDRESS)) as target:
        arguments = {
            "add": ["1", "2", f"--server={target}", "--attempts=1"],
            "status": [f"--server={target}", "--set", f"pipeline.root={tmp_path}"],
            "probe": [target, "--count=1"],
            "qualify": [target],
            "rollout": ["2", f"--server={target}", f"--config_file={config_file}"],
            "rollback": [f"--server={target}", f"--config_file={config_file}"],
        }
        cli.main([command, *arguments[command]])
    out, err = capsys.readouterr()
    assert f"the server at {target} uses TLS: give the authority" in out + err
