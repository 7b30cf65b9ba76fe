"""The attempts at one call: which failures are worth another one, after which pause, within which deadline.

gRPC's own retries do not fit. They end after five attempts, too early for a busy server. They also repeat a request
that is too large, because its status is the same, RESOURCE_EXHAUSTED.
"""

import random

# Bounds of the first and of every pause in seconds.
FIRST_PAUSE, LONGEST_PAUSE = 0.3, 1.0
# 30 years. gRPC takes much larger timeouts for times in the past.
_ENDLESS = 1e9


class Attempts:
    """At most `limit` attempts while the server is UNAVAILABLE, and any number while it is busy, in `deadline` seconds.

    A limit of 1 means a single attempt in any case. The pauses are random between 0 and a bound that doubles ("full
    jitter", https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/), so that clients that failed
    together do not return together. `left` is the rest of the deadline.
    """

    def __init__(self, limit: int, deadline: float):
        self.left = deadline
        self._limit = limit
        self._made = 0

    @property
    def timeout(self) -> float | None:
        """Seconds for the next attempt; None without a limit."""
        return self.left if self.left < _ENDLESS else None

    def pause(self, code: str, details: str, seconds: float) -> float | None:
        """Seconds until the next attempt, after one that took `seconds` and failed; None if there is none."""
        self._made += 1
        self.left -= seconds
        if self._limit == 1 or not _is_transient(code, details):
            return None
        if code == "UNAVAILABLE" and self._made >= self._limit:
            return None
        pause = random.uniform(0, min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(self._made - 1, 16)))
        if pause >= self.left:
            return None
        self.left -= pause
        return pause


def _is_transient(code: str, details: str) -> bool:
    """Whether the same request may succeed later; https://grpc.io/docs/guides/status-codes/ describes the codes."""
    if code == "UNAVAILABLE":
        from serving.client import diagnosis

        return not diagnosis.told("", details)
    return code == "RESOURCE_EXHAUSTED" and "larger than max" not in details
