"""Prometheus' text format, with metric names as TensorFlow Serving writes them.

prometheus_client appends `_total` to the name of every counter; TensorFlow Serving does not.
https://prometheus.io/docs/instrumenting/exposition_formats/
"""

import bisect
import dataclasses
import itertools
import operator
from collections.abc import Iterable

from components.printable import printable

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def exponential_bounds(first: float, growth: float, count: int) -> tuple[float, ...]:
    """`count` bounds from `first` on; each is `growth` times its predecessor."""
    return tuple(itertools.accumulate(itertools.repeat(growth, count - 1), operator.mul, initial=first))


@dataclasses.dataclass(frozen=True)
class Family:
    """The samples of one metric: (labels, value), or (labels, Distribution) for a histogram."""

    name: str
    kind: str
    samples: tuple[tuple[dict[str, str], "float | Distribution"], ...] = ()


class Distribution:
    """A histogram: the counts of values in the intervals between the bounds, and the sum of all values."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]):
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        """Count `value`."""
        self.counts[bisect.bisect_left(self.bounds, value)] += 1
        self.total += value

    def copy(self) -> "Distribution":
        """An independent copy."""
        copied = Distribution(self.bounds)
        copied.counts, copied.total = list(self.counts), self.total
        return copied


def exposition(families: Iterable[Family]) -> bytes:
    """The families in Prometheus' text format."""
    lines = []
    for family in families:
        lines.append(f"# TYPE {family.name} {family.kind}")
        for labels, value in family.samples:
            lines += (
                _histogram(family.name, labels, value)
                if isinstance(value, Distribution)
                else [_line(family.name, labels, value)]
            )
    return "".join(f"{line}\n" for line in lines).encode()


def _histogram(name: str, labels: dict[str, str], distribution: Distribution) -> list[str]:
    bounds = [f"{bound:g}" for bound in distribution.bounds] + ["+Inf"]
    up_to = list(itertools.accumulate(distribution.counts))
    buckets = [
        _line(f"{name}_bucket", {**labels, "le": bound}, count) for bound, count in zip(bounds, up_to, strict=True)
    ]
    return [*buckets, _line(f"{name}_sum", labels, distribution.total), _line(f"{name}_count", labels, up_to[-1])]


def _line(name: str, labels: dict[str, str], value: float) -> str:
    inside = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels.items())
    return f"{name}{{{inside}}} {value:.15g}"


def _escaped(text: str) -> str:
    # The format has its own escape for the end of a line.
    return "\\n".join(printable(line).replace("\\", "\\\\").replace('"', '\\"') for line in text.split("\n"))
