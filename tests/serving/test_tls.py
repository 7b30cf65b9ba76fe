"""serving.tls with real gRPC servers and clients, and generated certificates."""

import contextlib
import datetime
import pathlib
from concurrent import futures

import grpc
import pytest
from cryptography.hazmat.primitives import serialization
from google.protobuf import text_format

from components.errors import ConfigError
from serving import config_protos, tls
from tests.support.identities import DAY, Identity

pytestmark = pytest.mark.fast

_METHOD = "/test.Echo/Echo"


@pytest.fixture(scope="module")
def authority():
    return Identity("authority")


@pytest.fixture(scope="module")
def stranger():
    return Identity("stranger")


@pytest.fixture(scope="module")
def server(authority):
    return Identity("server", authority, address="127.0.0.1")


def _config(folder: pathlib.Path, **fields) -> pathlib.Path:
    path = folder / "ssl.pbtxt"
    path.write_text(text_format.MessageToString(config_protos.messages().SSLConfig(**fields)))
    return path


def _files(folder: pathlib.Path, **texts: str) -> dict[str, pathlib.Path]:
    for name, text in texts.items():
        (folder / f"{name}.pem").write_text(text)
    return {name: folder / f"{name}.pem" for name in texts}


@contextlib.contextmanager
def _serving(credentials):
    """An echo server on a free port."""
    handler = grpc.unary_unary_rpc_method_handler(lambda request, context: request)
    server = grpc.server(futures.ThreadPoolExecutor(1))
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("test.Echo", {"Echo": handler})])
    port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    try:
        yield port
    finally:
        server.stop(None).wait()


def _echo(port: int, credentials, name: str | None = None) -> bytes:
    options = [("grpc.ssl_target_name_override", name)] if name else []
    with grpc.secure_channel(f"127.0.0.1:{port}", credentials.channel_credentials(), options) as channel:
        return channel.unary_unary(_METHOD)(b"sum", timeout=10)


def _refused(port: int, credentials, name: str | None = None) -> str:
    with pytest.raises(grpc.RpcError) as refusal:
        _echo(port, credentials, name)
    assert refusal.value.code() == grpc.StatusCode.UNAVAILABLE
    return refusal.value.details()


@pytest.fixture
def tls_port(server, tmp_path):
    with _serving(
        tls.ServerIdentity(
            _config(tmp_path, server_key=server.private_key, server_cert=server.certificate)
        ).credentials()
    ) as port:
        yield port


@pytest.fixture
def mutual_port(authority, server, tmp_path):
    path = _config(
        tmp_path,
        server_key=server.private_key,
        server_cert=server.certificate,
        custom_ca=authority.certificate,
        client_verify=True,
    )
    with _serving(tls.ServerIdentity(path).credentials()) as port:
        yield port


def test_a_client_that_trusts_the_authority_is_answered(authority, tls_port, tmp_path):
    assert _echo(tls_port, tls.client_credentials(**_files(tmp_path, ca=authority.certificate))) == b"sum"


def test_a_client_that_trusts_another_authority_disconnects(stranger, tls_port, tmp_path):
    credentials = tls.client_credentials(**_files(tmp_path, ca=stranger.certificate))
    assert "CERTIFICATE_VERIFY_FAILED" in _refused(tls_port, credentials)


def test_a_client_does_not_trust_private_authorities_by_default(tls_port):
    assert "CERTIFICATE_VERIFY_FAILED" in _refused(tls_port, tls.client_credentials())


def test_a_client_of_another_host_name_disconnects(authority, tls_port, tmp_path):
    credentials = tls.client_credentials(**_files(tmp_path, ca=authority.certificate))
    assert "Hostname Verification Check failed" in _refused(tls_port, credentials, name="bank.example")


def test_a_client_without_tls_is_not_answered(tls_port):
    with grpc.insecure_channel(f"127.0.0.1:{tls_port}") as channel, pytest.raises(grpc.RpcError) as refusal:
        channel.unary_unary(_METHOD)(b"sum", timeout=10)
    assert refusal.value.code() == grpc.StatusCode.UNAVAILABLE


def test_a_client_with_a_certificate_of_the_authority_is_answered(authority, mutual_port, tmp_path):
    client = Identity("client", authority)
    files = _files(tmp_path, ca=authority.certificate, cert=client.certificate, key=client.private_key)
    assert _echo(mutual_port, tls.client_credentials(**files)) == b"sum"


def test_a_client_without_a_certificate_is_refused(authority, mutual_port, tmp_path):
    _refused(mutual_port, tls.client_credentials(**_files(tmp_path, ca=authority.certificate)))


def test_a_client_certificate_of_another_authority_is_refused(authority, stranger, mutual_port, tmp_path):
    client = Identity("client", stranger)
    files = _files(tmp_path, ca=authority.certificate, cert=client.certificate, key=client.private_key)
    _refused(mutual_port, tls.client_credentials(**files))


def test_a_server_without_client_verify_accepts_any_client(authority, stranger, tls_port, tmp_path):
    client = Identity("client", stranger)
    files = _files(tmp_path, ca=authority.certificate, cert=client.certificate, key=client.private_key)
    assert _echo(tls_port, tls.client_credentials(**files)) == b"sum"


def test_the_whole_certificate_chain_is_sent(authority, tmp_path):
    middle = Identity("middle")
    server = Identity("server", middle, address="127.0.0.1")
    path = _config(tmp_path, server_key=server.private_key, server_cert=server.certificate + middle.certificate)
    with _serving(tls.ServerIdentity(path).credentials()) as port:
        assert _echo(port, tls.client_credentials(**_files(tmp_path, ca=middle.certificate))) == b"sum"


@pytest.mark.parametrize(
    "change, words",
    [
        ({"server_key": ""}, "server_key is missing: give the PEM text itself, not a file name"),
        ({"server_cert": ""}, "server_cert is missing"),
        ({"server_key": "server.key"}, "server_key has no valid private key"),
        ({"server_cert": "server.crt"}, "server_cert has no valid certificate"),
        ({"server_cert": "é"}, "server_cert has no valid certificate"),
        ({"custom_ca": "ca.crt"}, "custom_ca has no valid certificate"),
        ({"client_verify": True}, "client_verify needs custom_ca"),
    ],
)
def test_an_invalid_server_configuration_is_refused_in_one_line(change, words, server, tmp_path):
    path = _config(tmp_path, **{"server_key": server.private_key, "server_cert": server.certificate, **change})
    with pytest.raises(ConfigError) as refusal:
        tls.ServerIdentity(path)
    assert str(refusal.value).startswith(f"--ssl_config_file {path}: {words}") and "\n" not in str(refusal.value)


def test_a_key_of_another_certificate_is_refused(server, stranger, tmp_path):
    path = _config(tmp_path, server_key=stranger.private_key, server_cert=server.certificate)
    with pytest.raises(ConfigError, match="server_key is not the private key of server_cert"):
        tls.ServerIdentity(path)


def test_an_encrypted_key_is_refused_without_a_password_prompt(server, tmp_path):
    key = server.pem(serialization.BestAvailableEncryption(b"secret"))
    with pytest.raises(ConfigError, match="server_key is encrypted"):
        tls.ServerIdentity(_config(tmp_path, server_key=key, server_cert=server.certificate))


def test_a_client_error_names_the_invalid_file(server, stranger, tmp_path):
    files = _files(tmp_path, cert=server.certificate, key=stranger.private_key, ca="nothing")
    with pytest.raises(ConfigError, match=r"key.pem is not the private key of .*cert.pem"):
        tls.client_credentials(cert=files["cert"], key=files["key"])
    with pytest.raises(ConfigError, match=r"key.pem alone"):
        tls.client_credentials(key=files["key"])
    with pytest.raises(ConfigError, match=r"ca.pem has no valid certificate"):
        tls.client_credentials(ca=files["ca"])
    with pytest.raises(ConfigError, match=r"cannot read .*absent.pem: No such file"):
        tls.client_credentials(ca=tmp_path / "absent.pem")


def _file(folder, server, authority, verify=True):
    return _config(
        folder,
        server_key=server.private_key,
        server_cert=server.certificate,
        custom_ca=authority.certificate,
        client_verify=verify,
    )


def test_new_connections_have_the_reloaded_certificate_and_authorities(authority, server, tmp_path):
    other = Identity("another authority")
    renewed = Identity("server", other, address="127.0.0.1")
    identity = tls.ServerIdentity(_file(tmp_path, server, authority))

    def of(issuer, trusted):
        client = Identity("client", issuer)
        texts = {"ca": trusted.certificate, "cert": client.certificate, "key": client.private_key}
        return tls.client_credentials(**_files(tmp_path, **texts))

    old, new = of(authority, authority), of(other, other)
    # Channels of one process would share their connections.
    options = [("grpc.use_local_subchannel_pool", 1)]
    with (
        _serving(identity.credentials()) as port,
        grpc.secure_channel(f"127.0.0.1:{port}", old.channel_credentials(), options) as open_channel,
    ):
        assert open_channel.unary_unary(_METHOD)(b"sum", timeout=10) == b"sum"
        _refused(port, new)
        _file(tmp_path, renewed, other)
        identity.reload()
        assert open_channel.unary_unary(_METHOD)(b"sum", timeout=10) == b"sum"
        for _ in range(2):
            with grpc.secure_channel(f"127.0.0.1:{port}", new.channel_credentials(), options) as channel:
                assert channel.unary_unary(_METHOD)(b"sum", timeout=10) == b"sum"
        with (
            grpc.secure_channel(f"127.0.0.1:{port}", old.channel_credentials(), options) as channel,
            pytest.raises(grpc.RpcError),
        ):
            channel.unary_unary(_METHOD)(b"sum", timeout=10)


def test_after_a_refused_reload_the_former_certificate_stays(authority, server, stranger, tmp_path):
    path = _file(tmp_path, server, authority, verify=False)
    identity = tls.ServerIdentity(path)
    credentials = tls.client_credentials(**_files(tmp_path, ca=authority.certificate))
    with _serving(identity.credentials()) as port:
        for change, words in (
            (
                lambda: _config(tmp_path, server_key=stranger.private_key, server_cert=server.certificate),
                "not the priv",
            ),
            (lambda: path.write_text("server_key:"), "Invalid protobuf file"),
            (lambda: _file(tmp_path, server, authority, verify=True), "client_verify cannot change"),
            (path.unlink, "cannot read"),
        ):
            change()
            with pytest.raises(ConfigError, match=words):
                identity.reload()
            assert _echo(port, credentials) == b"sum"


@pytest.mark.parametrize(
    "days, words", [((-3, -1), "expired on {:%Y-%m-%d %H:%M} UTC"), ((1, 3), "is valid from {:%Y-%m-%d %H:%M} UTC")]
)
def test_certificates_that_are_not_valid_today_are_named_with_the_date(authority, server, days, words, tmp_path):
    first, last = days
    untimely = Identity("old\nserver", authority, address="127.0.0.1", days=days)
    now = datetime.datetime.now(datetime.timezone.utc)
    date = words.format(now + (first if first > 0 else last) * DAY)
    [warning] = tls.ServerIdentity(_file(tmp_path, untimely, authority)).warnings()
    assert "server_cert of CN=old" in warning and date[:-8] in warning and warning.endswith(": clients refuse it")
    [warning] = tls.ServerIdentity(_file(tmp_path, server, Identity("authority", days=days))).warnings()
    assert "custom_ca of CN=authority" in warning
    assert warning.endswith(": client certificates that it has signed are refused")
    assert tls.ServerIdentity(_file(tmp_path, server, authority)).warnings() == []
