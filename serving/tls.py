"""TLS and mutual TLS for gRPC: server credentials from TensorFlow Serving's SSLConfig file, client ones from PEM files.

OpenSSL checks keys and certificates first, because gRPC does not report their faults.
"""

import contextlib
import dataclasses
import datetime
import os
import pathlib
import socket
import ssl
import tempfile
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from components import regular_files
from components.errors import ConfigError
from serving import config_protos

if TYPE_CHECKING:
    import grpc


class ServerIdentity:
    """A server's key, certificate and client authorities, from a text file with an SSLConfig; `reload` reads it again.

    The file contains the PEM texts themselves. `client_verify` requires client certificates; `custom_ca` contains the
    certificate authorities that may issue them.

    Raises:
        ConfigError: an unreadable file, a missing or invalid PEM text, or a key that does not match the certificate.
    """

    def __init__(self, path: pathlib.Path):
        self._path = path
        self._config = _ssl_config(path)
        # The configuration that gRPC has not fetched yet.
        self._fresh: grpc.ServerCertificateConfiguration | None = None

    def credentials(self) -> "grpc.ServerCredentials":
        """For a gRPC server; after a `reload`, its new connections have the new certificate."""
        import grpc

        return grpc.dynamic_ssl_server_credentials(
            _certificate_configuration(self._config), self._fetch, self._config.client_verify
        )

    def reload(self) -> None:
        """Read the file again. Open connections keep the former certificate.

        Raises:
            ConfigError: as at the construction, or `client_verify` has changed; the former certificate stays.
        """
        config = _ssl_config(self._path)
        if config.client_verify != self._config.client_verify:
            raise ConfigError(
                f"--ssl_config_file {self._path}: client_verify cannot change while the server runs: restart it"
            )
        self._config, self._fresh = config, _certificate_configuration(config)

    def warnings(self) -> list[str]:
        """A line for each certificate that is not valid today, with the date."""
        now = datetime.datetime.now(datetime.timezone.utc)
        return [
            f"--ssl_config_file {self._path}: {problem}"
            for name in ("server_cert", "custom_ca")
            for problem in _expired_or_early(getattr(self._config, name).encode(), name, now)
        ]

    def _fetch(self) -> "grpc.ServerCertificateConfiguration | None":
        """Called by gRPC, one call at a time, before each handshake: None for no change."""
        fresh, self._fresh = self._fresh, None
        return fresh


# How a gRPC server refuses a client's certificate.
CLOSED = "it closes the connection after the TLS handshake"


@dataclasses.dataclass(frozen=True)
class ClientTls:
    """A client's side of TLS: PEM texts, and the name that the server's certificate must have, "" for the host's."""

    ca: bytes | None = None
    cert: bytes | None = None
    key: bytes | None = dataclasses.field(default=None, repr=False)
    server_name: str = ""

    def channel_credentials(self) -> "grpc.ChannelCredentials":
        """The same for gRPC, without the name."""
        import grpc

        return grpc.ssl_channel_credentials(self.ca, self.key, self.cert)

    def handshake(self, host: str, port: int, seconds: float) -> str | None:
        """Try a TLS handshake with the client's certificate, for at most `seconds`; the server's is not checked.

        Returns:
            None if there is no TLS connection; "" if the server goes on after the handshake; otherwise how it ended
            the connection.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_alpn_protocols(["h2"])
        if self.cert and self.key:
            _load_pair(context, self.cert, self.key)
        end = time.monotonic() + seconds
        try:
            with socket.create_connection((host, port), seconds) as plain:
                plain.settimeout(max(0.001, end - time.monotonic()))
                with context.wrap_socket(plain, server_hostname=self.server_name or host) as encrypted:
                    encrypted.settimeout(max(0.001, end - time.monotonic()))
                    # In TLS 1.3 a server refuses the client's certificate after the handshake.
                    try:
                        return "" if encrypted.recv(1) else CLOSED
                    except TimeoutError:
                        return ""
                    except ConnectionError:
                        return CLOSED
        except ssl.SSLError as error:
            return error.reason.lower().replace("_", " ") if "ALERT" in (error.reason or "") else None
        except (OSError, ValueError):
            # A ValueError: OpenSSL does not accept the name.
            return None


def client_credentials(
    ca: pathlib.Path | None = None,
    cert: pathlib.Path | None = None,
    key: pathlib.Path | None = None,
    server_name: str = "",
) -> ClientTls:
    """The credentials of a client (`credentials` of serving.client) from PEM files.

    Args:
        ca: the certificate authorities that may issue the server's certificate; None for gRPC's default.
        cert, key: the client's certificate (with its chain) and private key, both or neither, for a server that
            requires them.
        server_name: the name that the server's certificate must have, if it is not the host's.

    Raises:
        ConfigError: an unreadable or invalid file, or a key that does not match the certificate.
    """
    if (cert is None) != (key is None):
        raise ConfigError(f"{cert or key} alone: give both the client's certificate and its private key")
    authorities = _read(ca) if ca else None
    if authorities is not None:
        _check_certificates(authorities, str(ca))
    chain, private_key = (_read(cert), _read(key)) if cert and key else (None, None)
    if chain is not None and private_key is not None:
        _check_pair(chain, private_key, str(cert), str(key))
    return ClientTls(authorities, chain, private_key, server_name)


def _ssl_config(path: pathlib.Path) -> Any:
    config = config_protos.parse_text(config_protos.messages().SSLConfig, path, secret=True)
    try:
        _check(config)
    except ConfigError as error:
        raise ConfigError(f"--ssl_config_file {path}: {error}") from error
    return config


def _certificate_configuration(config: Any) -> "grpc.ServerCertificateConfiguration":
    import grpc

    pair = (config.server_key.encode(), config.server_cert.encode())
    return grpc.ssl_server_certificate_configuration([pair], config.custom_ca.encode() or None)


def _expired_or_early(pem: bytes, name: str, now: datetime.datetime) -> Iterator[str]:
    from cryptography import x509

    refused = "client certificates that it has signed are refused" if name == "custom_ca" else "clients refuse it"
    for certificate in x509.load_pem_x509_certificates(pem) if pem else []:
        subject = f"{name} of {certificate.subject.rfc4514_string()}"
        if now > certificate.not_valid_after_utc:
            yield f"{subject} expired on {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC: {refused}"
        elif now < certificate.not_valid_before_utc:
            yield f"{subject} is valid from {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC: {refused}"


def _check(config: Any) -> None:
    for field in ("server_key", "server_cert"):
        if not getattr(config, field):
            raise ConfigError(f"{field} is missing: give the PEM text itself, not a file name")
    if config.client_verify and not config.custom_ca:
        raise ConfigError(
            "client_verify needs custom_ca, the PEM text of the authorities that issue client certificates"
        )
    _check_pair(config.server_cert.encode(), config.server_key.encode(), "server_cert", "server_key")
    if config.custom_ca:
        _check_certificates(config.custom_ca.encode(), "custom_ca")


def _read(path: pathlib.Path) -> bytes:
    try:
        return regular_files.read(path)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error


def _check_certificates(pem: bytes, name: str) -> None:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=pem.decode("ascii"))
    except (ValueError, ssl.SSLError) as error:
        raise ConfigError(
            f"{name} has no valid certificate; PEM text begins with -----BEGIN CERTIFICATE-----"
        ) from error


def _check_pair(cert: bytes, key: bytes, cert_name: str, key_name: str) -> None:
    _check_certificates(cert, cert_name)
    if b"ENCRYPTED" in key:
        raise ConfigError(f"{key_name} is encrypted: give the key without a password")
    try:
        _load_pair(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), cert, key)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise ConfigError(f"{key_name} is not the private key of {cert_name}: give a matching pair") from error
        raise ConfigError(
            f"{key_name} has no valid private key; PEM text begins with -----BEGIN PRIVATE KEY-----"
        ) from error


def _load_pair(context: ssl.SSLContext, cert: bytes, key: bytes) -> None:
    with _in_memory(cert) as cert_path, _in_memory(key) as key_path:
        # Without a password argument, OpenSSL would prompt on the terminal.
        context.load_cert_chain(cert_path, key_path, password="")


@contextlib.contextmanager
def _in_memory(pem: bytes) -> Iterator[str]:
    """A path for reading `pem`: OpenSSL reads keys from files only, and a key must not remain on a disk."""
    with os.fdopen(os.memfd_create("pem"), "w+b") if hasattr(os, "memfd_create") else tempfile.TemporaryFile() as file:
        file.write(pem)
        file.seek(0)
        yield f"/dev/fd/{file.fileno()}"
