"""How long calls took, in a fixed amount of memory however many there were.

Bounds go from 0.1 ms to about 105 s in steps of 1/16 of a doubling, so that a quantile is at most 4.5 % above the true
one.
"""

import itertools

from serving.exposition import Distribution

_FIRST = 1e-4
_STEPS, _DOUBLINGS = 16, 20
# Powers of 2 are exact, so that every 16th of these is one of the coarse bounds.
_FINE = tuple(_FIRST * 2 ** (step / _STEPS) for step in range(_STEPS * _DOUBLINGS + 1))
BOUNDS = _FINE[::_STEPS]


class Latencies:
    """Counts of latencies in seconds."""

    def __init__(self):
        self._seen = Distribution(_FINE)
        self._longest = 0.0

    def __len__(self) -> int:
        return sum(self._seen.counts)

    def add(self, seconds: float) -> None:
        """One more call."""
        self._seen.add(seconds)
        self._longest = max(self._longest, seconds)

    def merge(self, other: "Latencies") -> None:
        """The calls of `other` too."""
        self._seen.counts = [a + b for a, b in zip(self._seen.counts, other._seen.counts)]
        self._seen.total += other._seen.total
        self._longest = max(self._longest, other._longest)

    def quantile(self, share: float) -> float | None:
        """Seconds within which that share of the calls was answered; None where there were none."""
        wanted = share * len(self)
        for count, bound in zip(itertools.accumulate(self._seen.counts), (*_FINE, self._longest)):
            if count and count >= wanted:
                return min(bound, self._longest)
        return None

    def histogram(self) -> Distribution:
        """The same with a bound at each doubling, BOUNDS, small enough to be shown to Prometheus."""
        up_to = list(itertools.accumulate(self._seen.counts))
        coarse = Distribution(BOUNDS)
        at_bounds = [0, *up_to[:-1:_STEPS], up_to[-1]]
        coarse.counts = [after - before for before, after in itertools.pairwise(at_bounds)]
        coarse.total = self._seen.total
        return coarse
