"""Which server, which model, which version, and how safely: the arguments of every command that asks a model server."""

import argparse
import pathlib
from typing import Any

from components.errors import ConfigError

# As settings.Serve; not imported, since these commands have to start fast.
SERVER = "127.0.0.1:8500"
MODEL_NAME = "bitsum"
DEADLINE = 10.0
_ATTEMPTS = range(1, 6)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """All of them; the server is --server."""
    parser.add_argument("--server", default=SERVER, metavar="HOST:PORT", help="model server (default %(default)s)")
    parser.add_argument("--model_name", default=MODEL_NAME, help="name of the model (default %(default)s)")
    parser.add_argument(
        "--deadline",
        type=float,
        default=DEADLINE,
        metavar="SECONDS",
        help="time limit of each call (default %(default)s)",
    )
    parser.add_argument(
        "--attempts",
        type=int,
        default=_ATTEMPTS[-1],
        metavar="N",
        help=f"calls to a server that is unavailable, at most {_ATTEMPTS[-1]}, with growing pauses (default %(default)s)",
    )
    add_version_arguments(parser)
    add_tls_arguments(parser)


def add_version_arguments(parser: argparse.ArgumentParser) -> None:
    """Those for the version alone."""
    version = parser.add_mutually_exclusive_group()
    version.add_argument("--version", type=int, metavar="N", help="ask for this version")
    version.add_argument(
        "--label",
        help="ask for the version with this label (default stable, where the server knows it; else the newest)",
    )


def add_tls_arguments(parser: argparse.ArgumentParser) -> None:
    """Those for TLS alone."""
    tls = parser.add_argument_group("TLS", "with any of these the connection is encrypted")
    tls.add_argument(
        "--tls_ca",
        type=pathlib.Path,
        metavar="FILE",
        help="PEM file of the authorities that the server is certified by",
    )
    tls.add_argument(
        "--tls_cert", type=pathlib.Path, metavar="FILE", help="PEM file of the client's certificate, for mutual TLS"
    )
    tls.add_argument("--tls_key", type=pathlib.Path, metavar="FILE", help="PEM file of the client's private key")


def options(args: argparse.Namespace) -> dict[str, Any]:
    """What the arguments of `add_arguments` say, as keyword arguments of serving.client.connection.Connection.

    Raises:
        ConfigError: a number is out of its limits, or a file for TLS cannot be used.
    """
    if not args.deadline > 0 or args.attempts not in _ATTEMPTS:
        raise ConfigError(f"--deadline must be more than 0, and --attempts from {_ATTEMPTS[0]} to {_ATTEMPTS[-1]}")
    return {
        "target": args.server,
        "model_name": args.model_name,
        "deadline": args.deadline,
        "attempts": args.attempts,
        "version": args.version,
        "label": args.label,
        "credentials": credentials(args),
    }


def credentials(args: argparse.Namespace) -> Any:
    """grpc.ChannelCredentials by the arguments of `add_tls_arguments`; None without any of them. Raises:
    ConfigError."""
    if not (args.tls_ca or args.tls_cert or args.tls_key):
        return None
    from serving import tls as ssl_config

    return ssl_config.client_credentials(args.tls_ca, args.tls_cert, args.tls_key)
