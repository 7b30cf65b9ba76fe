"""Shows the result of a command, a dataclass: as lines for people or as one JSON document for programs (docs/json.md).

Keys are the fields of the dataclass. Times are ISO 8601 in UTC, numbers that are not finite are null.
"""

import dataclasses
import datetime
import json
import math
import pathlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from components.printable import say

_Result = TypeVar("_Result")


def show(result: _Result, lines: Callable[[_Result], Iterable[str]], as_json: bool) -> None:
    """Write the dataclass `result` to standard output: as one line of JSON, or as the `lines` that a function makes."""
    say(*([to_json(result)] if as_json else lines(result)))


def to_json(result: Any) -> str:
    """The JSON of a dataclass, on one line, in ASCII. A JSON parser restores every text unchanged."""
    return json.dumps(_plain(dataclasses.asdict(result)), allow_nan=False)


def from_milliseconds(time: int) -> datetime.datetime:
    """The UTC time `time` milliseconds after 1970-01-01, as in ML Metadata."""
    return datetime.datetime.fromtimestamp(time / 1000, datetime.timezone.utc)


def local_time(time: datetime.datetime) -> str:
    """`time` for people: to the second, in this machine's time zone."""
    return time.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, datetime.datetime):
        utc = value.astimezone(datetime.timezone.utc)
        return utc.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return str(value) if isinstance(value, pathlib.PurePath) else value
