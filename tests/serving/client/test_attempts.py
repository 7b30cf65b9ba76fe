"""serving.client.attempts: what is repeated, when, and until when."""

import math
import random

import pytest

from serving.client.attempts import FIRST_PAUSE, LONGEST_PAUSE, Attempts

pytestmark = pytest.mark.fast

BUSY = ("RESOURCE_EXHAUSTED", "Server Threadpool Exhausted")
GONE = ("UNAVAILABLE", "failed to connect to all addresses; last error: UNKNOWN: Connection refused")


@pytest.fixture
def bounds(monkeypatch):
    """The bounds of the pauses; every pause takes its whole bound."""
    asked = []

    def longest(low, high):
        assert low == 0
        asked.append(high)
        return high

    monkeypatch.setattr(random, "uniform", longest)
    return asked


def test_the_bound_of_the_pauses_doubles_up_to_the_longest(bounds):
    attempts = Attempts(100, math.inf)
    for _ in range(2000):
        assert attempts.pause(*BUSY, 0.0) == bounds[-1]
    assert bounds[:3] == [FIRST_PAUSE, 2 * FIRST_PAUSE, LONGEST_PAUSE] and {*bounds[2:]} == {LONGEST_PAUSE}


def test_an_unavailable_server_is_asked_as_often_as_given(bounds):
    attempts = Attempts(3, 10.0)
    assert [attempts.pause(*GONE, 0.1) is None for _ in range(3)] == [False, False, True]


def test_a_busy_server_is_asked_until_the_deadline_of_all_attempts_and_pauses(bounds):
    attempts, spent = Attempts(2, 5.0), 0.0
    while (pause := attempts.pause(*BUSY, 0.1)) is not None:
        spent += 0.1 + pause
        assert attempts.timeout == pytest.approx(5.0 - spent)
    assert len(bounds) == 6 and 5.0 - LONGEST_PAUSE - 0.1 <= spent < 5.0


@pytest.mark.parametrize(
    ("code", "details"),
    [
        ("RESOURCE_EXHAUSTED", "CLIENT: Sent message larger than max (5000000 vs. 4194304)"),
        ("RESOURCE_EXHAUSTED", "SERVER: Received message larger than max (70000000 vs. 67108864)"),
        ("UNAVAILABLE", "Tls handshake failed: SSL_ERROR_SSL: CERTIFICATE_VERIFY_FAILED: certificate has expired: OK"),
        ("INVALID_ARGUMENT", "Task size 65 is larger than maximum input batch size 64"),
        ("DEADLINE_EXCEEDED", "Deadline Exceeded"),
        ("INTERNAL", ""),
        ("NOT_FOUND", "Servable not found for request: Latest(nope)"),
    ],
)
def test_what_would_fail_again_is_not_repeated(code, details):
    assert Attempts(5, 10.0).pause(code, details, 0.0) is None


def test_a_single_attempt_is_not_repeated():
    assert Attempts(1, 10.0).pause(*BUSY, 0.0) is None and Attempts(1, 10.0).pause(*GONE, 0.0) is None


@pytest.mark.parametrize(("deadline", "timeout"), [(2.5, 2.5), (1e8, 1e8), (1e300, None), (math.inf, None)])
def test_grpc_gets_no_timeout_that_it_takes_for_one_in_the_past(deadline, timeout):
    assert Attempts(1, deadline).timeout == timeout
