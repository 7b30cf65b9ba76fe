"""Why a TLS connection fails: in gRPC's own words, or by a handshake after the failed call where gRPC has none."""

import re

from serving import tls
from serving.client import addresses

# gRPC's texts for a connection that broke without a reason, or for a reason that gRPC does not pass on.
_BROKEN = ("Socket closed", "Connection reset by peer", "Broken pipe", "handshake failed", "Unwrap failed")
_SECONDS = 2.0
_TRUST = "give the authority that signed its certificate: --tls_ca FILE"


def told(target: str, details: str) -> str:
    """The fault of TLS that `details`, gRPC's text, names, and what to do, in one line; "" if it names none."""
    if "WRONG_VERSION_NUMBER" in details:
        return f"the server at {target} does not use TLS: leave out --tls_ca and the other options of TLS"
    certificate = f"the certificate of the server at {target}"
    if "Hostname Verification Check failed" in details:
        return f"{certificate} is for another host name: give a name that it contains: --tls_server_name NAME"
    if refusal := re.search(r"CERTIFICATE_VERIFY_FAILED(?:: ([^:\n]*))?", details):
        reason = refusal[1] or "it cannot be verified"
        if "expired" in reason:
            return f"{certificate} is refused: {reason}; renew it on the server"
        if "not yet valid" in reason:
            return f"{certificate} is refused: {reason}; compare the clocks of both machines"
        if re.search("issuer|self.signed", reason):
            return f"{certificate} is refused: its authority is not trusted ({reason}); {_TRUST}"
        return f"{certificate} is refused: {reason}"
    return ""


def of(target: str, details: str, credentials: object, seconds: float) -> str:
    """As `told`; tries a handshake with the server at `target` if `details` says only that the connection broke.

    Args:
        credentials: the client's tls.ClientTls; None for plain text. The content of any others is unknown.
        seconds: the time that is left; the handshake takes at most two seconds.
    """
    if reason := told(target, details):
        return reason
    place = addresses.host_and_port(target)
    if place is None or seconds <= 0 or not any(text in details for text in _BROKEN):
        return ""
    if credentials is not None and not isinstance(credentials, tls.ClientTls):
        return ""
    ending = (credentials or tls.ClientTls()).handshake(*place, min(seconds, _SECONDS))
    if credentials is None:
        return "" if ending is None else f"the server at {target} uses TLS: {_TRUST}"
    if not ending:
        return ""
    if not re.search("certificate|unknown ca|handshake failure", ending) and ending != tls.CLOSED:
        return f"the server at {target} ends the TLS connection: {ending}"
    if credentials.cert is None:
        return f"the server at {target} seems to require a client certificate ({ending}): give --tls_cert and --tls_key"
    return f"the server at {target} seems to refuse the client certificate ({ending}): give one of its authority"
