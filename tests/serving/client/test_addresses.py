"""Addresses are refused before gRPC sees them."""

import pytest

from serving.client import AdderClient, addresses
from serving.errors import InvalidAddress

pytestmark = pytest.mark.fast


@pytest.mark.parametrize(
    "target", ["127.0.0.1:8500", "localhost:1", "[::1]:65535", "dns:///server:8500", "unix:/run/x", "a-b.example:8500"]
)
def test_addresses_of_grpc_are_accepted(target):
    addresses.check(target)


@pytest.mark.parametrize(
    ("target", "problem"),
    [
        ("", "empty"),
        ("  ", "empty"),
        (" localhost:1", "blanks"),
        ("http://localhost:8501", "a URL"),
        ("localhost:8500/", "a path"),
        ("localhost/v1", "a path"),
        ("localhost", "no port"),
        ("[::1]", "no port"),
        ("localhost:", "port is not a number"),
        ("localhost:000028500999", "port is not a number"),
        ("localhost:http", "port is not a number"),
        ("localhost:0", "port is not a number"),
        ("localhost:99999", "port is not a number"),
        ("localhost:86536", "port is not a number"),
        ("localhost:" + "9" * 5000, "port is not a number"),
        ("localhost:²", "port is not a number"),
        ("::1:8500", "brackets"),
        (":8500", "no host"),
        ("[]:8500", "no host"),
    ],
)
def test_others_are_refused_in_one_line_that_says_why(target, problem):
    with pytest.raises(InvalidAddress, match=problem) as refusal, AdderClient(target) as client:
        client.add(1, 2)
    assert refusal.value.exit_code == 2 and "write HOST:PORT" in str(refusal.value) and "\n" not in str(refusal.value)
