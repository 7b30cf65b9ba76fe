"""Latencies of any number of calls in constant memory.

Bounds go from 0.1 ms to about 105 s in steps of 1/16 of a doubling, so that a quantile is at most 4.5 % above the true
one.
"""

import itertools

from serving.exposition import Distribution

_FIRST = 1e-4
_STEPS, _DOUBLINGS = 16, 20
# Powers of 2 are exact, so every 16th of these equals a coarse bound.
_FINE = tuple(_FIRST * 2 ** (step / _STEPS) for step in range(_STEPS * _DOUBLINGS + 1))
BOUNDS = _FINE[::_STEPS]


class Latencies:
    """A histogram of latencies in seconds."""

    def __init__(self) -> None:
        self._calls = Distribution(_FINE)
        self._longest = 0.0

    def __len__(self) -> int:
        return sum(self._calls.counts)

    def add(self, seconds: float) -> None:
        """Count a call."""
        self._calls.add(seconds)
        self._longest = max(self._longest, seconds)

    def merge(self, other: "Latencies") -> None:
        """Add the calls of `other`."""
        self._calls.counts = [a + b for a, b in zip(self._calls.counts, other._calls.counts, strict=True)]
        self._calls.total += other._calls.total
        self._longest = max(self._longest, other._longest)

    def quantile(self, share: float) -> float | None:
        """Seconds within which that share of the calls was answered; None without calls."""
        wanted = share * len(self)
        for count, bound in zip(itertools.accumulate(self._calls.counts), (*_FINE, self._longest), strict=True):
            if count and count >= wanted:
                return min(bound, self._longest)
        return None

    def histogram(self) -> Distribution:
        """The same with one bound per doubling, BOUNDS, few enough for Prometheus."""
        up_to = list(itertools.accumulate(self._calls.counts))
        coarse = Distribution(BOUNDS)
        at_bounds = [0, *up_to[:-1:_STEPS], up_to[-1]]
        coarse.counts = [after - before for before, after in itertools.pairwise(at_bounds)]
        coarse.total = self._calls.total
        return coarse
