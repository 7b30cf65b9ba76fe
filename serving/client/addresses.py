"""Addresses of model servers."""

from serving.errors import InvalidAddress

# Names that gRPC resolves itself: https://github.com/grpc/grpc/blob/master/doc/naming.md
_SCHEMES = ("dns:", "ipv4:", "ipv6:", "unix:", "unix-abstract:", "vsock:", "xds:")


def check(target: str) -> None:
    """Refuse an address that gRPC would misread or try in vain: it takes the port 86536 for 21000.

    Raises:
        InvalidAddress: `target` is neither HOST:PORT nor a name with a scheme of gRPC.
    """
    if problem := "" if target.startswith(_SCHEMES) else _problem(target):
        raise InvalidAddress(
            f"{target!r} is not the address of a server: {problem}; write HOST:PORT, as in 127.0.0.1:8500 or [::1]:8500"
        )


def host_and_port(target: str) -> tuple[str, int] | None:
    """The host, without brackets, and the port of HOST:PORT; None for a name with a scheme of gRPC."""
    if target.startswith(_SCHEMES) or _problem(target):
        return None
    host, _, port = target.rpartition(":")
    return host.strip("[]"), int(port)


def _problem(target: str) -> str:
    host, colon, port = target.rpartition(":")
    if not target or target != target.strip():
        return "it has blanks" if target.strip() else "it is empty"
    if "://" in target:
        return "it is a URL"
    if "/" in target:
        return "it has a path"
    if not colon or target.endswith("]"):
        return "it has no port"
    if ":" in host and not (host.startswith("[") and host.endswith("]")):
        return "an IPv6 address needs brackets"
    if not host.strip("[]"):
        return "it has no host"
    if not (port.isascii() and port.isdecimal() and len(port) <= 9 and 1 <= int(port) <= 65535):
        return "its port is not a number from 1 to 65535"
    return ""
