"""TLS and mutual TLS for gRPC: credentials from TensorFlow Serving's SSLConfig file, and from PEM files for a client.

gRPC says nothing of what is wrong with a key or a certificate; OpenSSL does, so it looks at them first.
"""

import contextlib
import os
import pathlib
import ssl
import tempfile
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from components.errors import ConfigError
from serving import config_protos

if TYPE_CHECKING:
    import grpc


def server_credentials(path: pathlib.Path) -> "grpc.ServerCredentials":
    """The credentials of the server that a text file with an SSLConfig describes; the PEM texts stand in it themselves.

    `client_verify` makes a client's certificate a duty; `custom_ca` holds the authorities that it has to come from.

    Raises:
        ConfigError: a text is missing or no PEM, or key and certificate do not belong together.
    """
    import grpc

    config = config_protos.parse_text(config_protos.messages().SSLConfig, path, secret=True)
    try:
        _check(config)
    except ConfigError as error:
        raise ConfigError(f"--ssl_config_file {path}: {error}") from error
    pair = (config.server_key.encode(), config.server_cert.encode())
    return grpc.ssl_server_credentials(
        [pair], config.custom_ca.encode() or None, require_client_auth=config.client_verify
    )


def client_credentials(
    ca: pathlib.Path | None = None, cert: pathlib.Path | None = None, key: pathlib.Path | None = None
) -> "grpc.ChannelCredentials":
    """The credentials of a client from PEM files.

    ca: the authorities that the server's certificate has to come from; None: those that gRPC knows. cert, key: the
    client's own certificate (with its chain) and private key, both or neither, for a server that asks for them.

    Raises:
        ConfigError: a file cannot be read, is no PEM, or key and certificate do not belong together.
    """
    import grpc

    if (cert is None) != (key is None):
        raise ConfigError(f"{cert or key} alone: a client's certificate and its private key are given together")
    authorities = _read(ca) if ca else None
    if authorities is not None:
        _check_certificates(authorities, str(ca))
    chain, private_key = (_read(cert), _read(key)) if cert and key else (None, None)
    if chain is not None and private_key is not None:
        _check_pair(chain, private_key, str(cert), str(key))
    return grpc.ssl_channel_credentials(authorities, private_key, chain)


def _check(config: Any) -> None:
    for field in ("server_key", "server_cert"):
        if not getattr(config, field):
            raise ConfigError(f"{field} is missing; it holds the PEM text itself, not the name of a file")
    if config.client_verify and not config.custom_ca:
        raise ConfigError(
            "client_verify needs custom_ca, the PEM text of the authorities that clients' certificates come from"
        )
    _check_pair(config.server_cert.encode(), config.server_key.encode(), "server_cert", "server_key")
    if config.custom_ca:
        _check_certificates(config.custom_ca.encode(), "custom_ca")


def _read(path: pathlib.Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error


def _check_certificates(pem: bytes, name: str) -> None:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=pem.decode("ascii"))
    except (ValueError, ssl.SSLError) as error:
        raise ConfigError(
            f"{name} holds no certificate that can be read; PEM text begins with -----BEGIN CERTIFICATE-----"
        ) from error


def _check_pair(cert: bytes, key: bytes, cert_name: str, key_name: str) -> None:
    _check_certificates(cert, cert_name)
    if b"ENCRYPTED" in key:
        raise ConfigError(
            f"{key_name} is encrypted, and nobody is there to give the password: give the key without one"
        )
    try:
        with _in_memory(cert) as cert_path, _in_memory(key) as key_path:
            # An empty password instead of none: OpenSSL would ask the terminal for one.
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert_path, key_path, password="")
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise ConfigError(
                f"{key_name} is not the private key of {cert_name}: give the two that were made together"
            ) from error
        raise ConfigError(
            f"{key_name} holds no private key that can be read; PEM text begins with -----BEGIN PRIVATE KEY-----"
        ) from error


@contextlib.contextmanager
def _in_memory(pem: bytes) -> Iterator[str]:
    """A path where `pem` can be read: OpenSSL takes a key from a file only, and a key is not to be left on a disk."""
    with os.fdopen(os.memfd_create("pem"), "w+b") if hasattr(os, "memfd_create") else tempfile.TemporaryFile() as file:
        file.write(pem)
        file.seek(0)
        yield f"/dev/fd/{file.fileno()}"
