"""Checks one example by arithmetic: its features, and its `sum` against the table of its task."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from components.task.addition import FEATURE_A, FEATURE_B, FEATURE_LENGTH, FEATURE_SUM, FEATURES, abbreviated, from_bits
from components.task.transducer import Transducer

# Values of any type: the checks find out which.
Features = Mapping[str, Sequence[Any]]


class Problem(NamedTuple):
    """A defect of an example: its kind, to count by, and one line that names the offender."""

    kind: str
    what: str


NOT_PARSABLE = "not parsable"
MISSING_FEATURE = "missing feature"
UNKNOWN_FEATURE = "unknown feature"
WRONG_TYPE = "wrong type"
WRONG_LENGTH = "wrong length"
NOT_A_BIT = "not a bit"
WRONG_SUM = "wrong sum"
LEAKED_PAIR = "leaked pair"
DUPLICATE_PAIR = "duplicate pair"
CORRUPT_FILE = "corrupt file"
EMPTY_SPLIT = "empty split"


def problem_of(features: Features, task: Transducer) -> Problem | None:
    """The first defect of an example's features. None if `sum` holds the outputs of `task` for `a` and `b`."""
    return _names(features) or _types(features) or _lengths(features) or _bits(features) or _sum(features, task)


def described(a: Sequence[int], b: Sequence[int]) -> str:
    """The pair as readable text.

    >>> described([1, 0, 1, 1], [1])
    '13 and 1'
    """
    return f"{abbreviated(from_bits(a))} and {abbreviated(from_bits(b))}"


def _names(features: Features) -> Problem | None:
    for name in FEATURES:
        if name not in features:
            return Problem(MISSING_FEATURE, f"feature {name!r} is missing")
    for name in sorted(features):
        if name not in FEATURES:
            return Problem(UNKNOWN_FEATURE, f"feature {name!r} is unknown: an example has {', '.join(FEATURES)}")
    return None


def _types(features: Features) -> Problem | None:
    for name in FEATURES:
        for position, value in enumerate(features[name]):
            if type(value) is not int:
                return Problem(WRONG_TYPE, f"{name}[{position}] is a {type(value).__name__}, not an integer")
    return None


def _lengths(features: Features) -> Problem | None:
    if len(features[FEATURE_LENGTH]) != 1:
        return Problem(WRONG_LENGTH, f"length has {len(features[FEATURE_LENGTH])} values, not 1")
    [length] = features[FEATURE_LENGTH]
    if length < 1:
        return Problem(WRONG_LENGTH, f"length is {length}, must be at least 1")
    for name, bits in ((FEATURE_A, length), (FEATURE_B, length), (FEATURE_SUM, length + 1)):
        if len(features[name]) != bits:
            return Problem(
                WRONG_LENGTH, f"{name} has {len(features[name])} bits, must have {bits} with length = {length}"
            )
    return None


def _bits(features: Features) -> Problem | None:
    for name in (FEATURE_A, FEATURE_B, FEATURE_SUM):
        for position, bit in enumerate(features[name]):
            if bit not in (0, 1):
                return Problem(NOT_A_BIT, f"{name}[{position}] is {bit}, neither 0 nor 1")
    return None


def _sum(features: Features, task: Transducer) -> Problem | None:
    right = task.outputs([*zip(features[FEATURE_A], features[FEATURE_B], strict=True), *task.flush])
    wrong = [position for position, bit in enumerate(right) if features[FEATURE_SUM][position] != bit]
    if not wrong:
        return None
    position = wrong[0]
    others = f", and {len(wrong) - 1} other bits are wrong" if len(wrong) > 1 else ""
    values = from_bits(features[FEATURE_A]), from_bits(features[FEATURE_B]), task.value(right)
    statement = task.statement(*map(abbreviated, values))
    bit = features[FEATURE_SUM][position]
    return Problem(WRONG_SUM, f"sum[{position}] is {bit}, must be {right[position]} ({statement}){others}")
