"""Server, model, version and TLS: the arguments of every command that calls a model server."""

import argparse
import pathlib
from typing import Any

from components.errors import ConfigError
from serving import defaults


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """All of these arguments, --server included."""
    add_server_argument(parser)
    add_call_arguments(parser)
    parser.add_argument(
        "--attempts",
        type=int,
        default=defaults.ATTEMPTS,
        metavar="N",
        help="attempts at a call while the server is unavailable (default %(default)s); if it is busy, until the "
        "deadline; 1 disables retries",
    )
    add_version_arguments(parser)
    add_tls_arguments(parser)


def add_server_argument(parser: argparse.ArgumentParser) -> None:
    """--server alone."""
    parser.add_argument(
        "--server", default=defaults.SERVER, metavar="HOST:PORT", help="model server (default %(default)s)"
    )


def add_call_arguments(
    parser: argparse.ArgumentParser, model_name: str = defaults.MODEL_NAME, deadline: float = defaults.DEADLINE
) -> None:
    """--model_name and --deadline, with these defaults."""
    parser.add_argument("--model_name", type=text, default=model_name, help="name of the model (default %(default)s)")
    parser.add_argument(
        "--deadline",
        type=float,
        default=deadline,
        metavar="SECONDS",
        help="time limit of each call; inf for none (default %(default)s)",
    )


def add_version_arguments(parser: argparse.ArgumentParser) -> None:
    """--version and --label alone."""
    version = parser.add_mutually_exclusive_group()
    version.add_argument("--version", type=int, metavar="N", help="use this version")
    version.add_argument(
        "--label",
        help='use the version with this label, "" for the newest (default stable if the server knows it, else "")',
    )


def add_tls_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments for TLS alone."""
    tls = parser.add_argument_group("TLS", "any of these encrypts the connection")
    tls.add_argument(
        "--tls_ca", type=path, metavar="FILE", help="PEM file of the authorities that sign the server's certificate"
    )
    tls.add_argument(
        "--tls_cert", type=path, metavar="FILE", help="PEM file of the client's certificate, for mutual TLS"
    )
    tls.add_argument("--tls_key", type=path, metavar="FILE", help="PEM file of the client's private key")
    tls.add_argument(
        "--tls_server_name",
        type=text,
        metavar="NAME",
        help="name that the server's certificate must have (default: the host of the address)",
    )


def text(argument: str) -> str:
    """The type of an option that only an unset variable of the shell makes empty. Raises: ArgumentTypeError."""
    if not argument:
        raise argparse.ArgumentTypeError("it is empty")
    return argument


def path(argument: str) -> pathlib.Path:
    """The type of an option that names a file or folder to be read.

    Raises: ArgumentTypeError, for an empty text, which pathlib takes for the current folder.
    """
    return pathlib.Path(text(argument))


def options(args: argparse.Namespace) -> dict[str, Any]:
    """The arguments of `add_arguments` as keyword arguments of serving.client.connection.Connection.

    Raises:
        ConfigError: a number is out of its limits, or a file for TLS cannot be used.
    """
    if not args.deadline > 0 or args.attempts < 1:
        raise ConfigError(
            f"--deadline {args.deadline:g}, --attempts {args.attempts}: the deadline must be more than 0, and the "
            "attempts at least 1"
        )
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
    """serving.tls.ClientTls from the arguments of `add_tls_arguments`, or None. Raises: ConfigError."""
    if not (args.tls_ca or args.tls_cert or args.tls_key or args.tls_server_name):
        return None
    from serving import tls

    return tls.client_credentials(args.tls_ca, args.tls_cert, args.tls_key, args.tls_server_name or "")
