"""TLS and mutual TLS for gRPC: server credentials from TensorFlow Serving's SSLConfig file, client ones from PEM files.

OpenSSL checks keys and certificates first, because gRPC does not report their faults.
"""

import contextlib
import datetime
import os
import pathlib
import ssl
import tempfile
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
            for problem in _untimely(getattr(self._config, name).encode(), name, now)
        ]

    def _fetch(self) -> "grpc.ServerCertificateConfiguration | None":
        """Called by gRPC, one call at a time, before each handshake: None for no change."""
        fresh, self._fresh = self._fresh, None
        return fresh


def client_credentials(
    ca: pathlib.Path | None = None, cert: pathlib.Path | None = None, key: pathlib.Path | None = None
) -> "grpc.ChannelCredentials":
    """The credentials of a client from PEM files.

    Args:
        ca: the certificate authorities that may issue the server's certificate; None for gRPC's default. cert, key:
        the client's certificate (with its chain) and private key, both or neither, for a server that requires them.

    Raises:
        ConfigError: an unreadable or invalid file, or a key that does not match the certificate.
    """
    import grpc

    if (cert is None) != (key is None):
        raise ConfigError(f"{cert or key} alone: give both the client's certificate and its private key")
    authorities = _read(ca) if ca else None
    if authorities is not None:
        _check_certificates(authorities, str(ca))
    chain, private_key = (_read(cert), _read(key)) if cert and key else (None, None)
    if chain is not None and private_key is not None:
        _check_pair(chain, private_key, str(cert), str(key))
    return grpc.ssl_channel_credentials(authorities, private_key, chain)


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


def _untimely(pem: bytes, name: str, now: datetime.datetime) -> Iterator[str]:
    from cryptography import x509

    for certificate in x509.load_pem_x509_certificates(pem) if pem else []:
        subject = f"{name} of {certificate.subject.rfc4514_string()}"
        if now > certificate.not_valid_after_utc:
            yield f"{subject} expired on {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC: clients refuse it"
        elif now < certificate.not_valid_before_utc:
            yield f"{subject} is valid from {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC: clients refuse it"


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
        with _in_memory(cert) as cert_path, _in_memory(key) as key_path:
            # Without a password argument, OpenSSL would prompt on the terminal.
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert_path, key_path, password="")
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise ConfigError(f"{key_name} is not the private key of {cert_name}: give a matching pair") from error
        raise ConfigError(
            f"{key_name} has no valid private key; PEM text begins with -----BEGIN PRIVATE KEY-----"
        ) from error


@contextlib.contextmanager
def _in_memory(pem: bytes) -> Iterator[str]:
    """A path for reading `pem`: OpenSSL reads keys from files only, and a key must not remain on a disk."""
    with os.fdopen(os.memfd_create("pem"), "w+b") if hasattr(os, "memfd_create") else tempfile.TemporaryFile() as file:
        file.write(pem)
        file.seek(0)
        yield f"/dev/fd/{file.fileno()}"
