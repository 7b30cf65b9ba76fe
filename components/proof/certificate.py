"""The certificate: the claim, in JSON, that a cell with certain weights computes a transducer.

`components.proof.checker` decides whether the claim holds.

Schema version 1 is an object with exactly these members. H is the number of hidden units. Integers are JSON numbers;
every other number is a string, the exact value of a double in hexadecimal as Python's `float.hex` writes it
("0x1.8000000000000p-1" is 0.75).

format          "bitsum-certificate"
version         1
task            name of the transducer, e.g. "addition"
transducer      {initial, table: [[state, symbol, output, next state], ...], flush: [symbol, ...], reading}
units           H
weights_sha256  of the float32 weights (`components.proof.weights.Weights.sha256`)
allowances      {name: number}: the errors that a runtime may make, `ALLOWANCES` below
boxes           [{state, output, lower: [H numbers], upper: [H numbers]}, ...]: the hidden states after a step that
                wrote `output` and led to `state`; several boxes may have the same label
starts          [{state, hidden: [H numbers]}, ...]: for each state of the transducer one float32 hidden state to start
                from
margin          the claimed least distance of every logit from 0, on the right side

The reader trusts nothing and refuses unknown members. `parse` guarantees finite floats and lists of `units` numbers;
the checker decides what they mean.
"""

import dataclasses
import json
import math
import pathlib
import re
from typing import Any, TypeVar

from components.task.transducer import Transducer

# The certificate's place in its SavedModel.
FILE = pathlib.PurePosixPath("assets.extra/certificate.json")

FORMAT = "bitsum-certificate"
VERSION = 1
MAX_CHARACTERS = 16 * 2**20
MAX_BOXES = 512

# Derived, or measured on the runtimes that are served. The checker's docstring says where it uses each of them.
UNIT_ROUNDOFF = 2.0**-24
UNDERFLOW = 2.0**-124
PRODUCT = 2.0**-22
SIGMOID = 2.0**-20
TANH = 2.0**-19
# The activations are known to keep their allowances from -ACTIVATION_RANGE to ACTIVATION_RANGE.
ACTIVATION_RANGE = 128.0
ALLOWANCES = {
    "unit_roundoff": UNIT_ROUNDOFF,
    "underflow": UNDERFLOW,
    "product": PRODUCT,
    "sigmoid": SIGMOID,
    "tanh": TANH,
    "activation_range": ACTIVATION_RANGE,
}

_Value = TypeVar("_Value")
_HEX = re.compile(r"-?0x[01]\.[0-9a-f]{1,13}p[+-][0-9]{1,4}", re.ASCII)
_MEMBERS = (
    "format",
    "version",
    "task",
    "transducer",
    "units",
    "weights_sha256",
    "allowances",
    "boxes",
    "starts",
    "margin",
)


class Malformed(ValueError):
    """The text is not a certificate; the message says why in one line."""


@dataclasses.dataclass(frozen=True)
class Box:
    """The hidden states between `lower` and `upper` in each component, and the label of the steps that lead there."""

    state: int
    output: int
    lower: tuple[float, ...]
    upper: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class Start:
    """A float32 hidden state that represents a state of the transducer."""

    state: int
    hidden: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class Certificate:
    """The claim (see the schema above); `transducer` is the description in canonical JSON."""

    task: str
    transducer: str
    units: int
    weights_sha256: str
    allowances: tuple[tuple[str, float], ...]
    boxes: tuple[Box, ...]
    starts: tuple[Start, ...]
    margin: float


def canonical(value: Any) -> str:
    """JSON text that is equal for equal values, and distinguishes 1, 1.0 and true."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def claim(
    task: Transducer, sha256: str, boxes: tuple[Box, ...], starts: tuple[Start, ...], margin: float
) -> Certificate:
    """The certificate for `task`, with the allowances of this version."""
    allowances = tuple(sorted(ALLOWANCES.items()))
    units = len(boxes[0].lower)
    return Certificate(task.name, canonical(task.description()), units, sha256, allowances, boxes, starts, margin)


def write(certificate: Certificate) -> str:
    """The certificate as JSON text."""
    value = {
        "format": FORMAT,
        "version": VERSION,
        "task": certificate.task,
        "transducer": json.loads(certificate.transducer),
        "units": certificate.units,
        "weights_sha256": certificate.weights_sha256,
        "allowances": {name: number.hex() for name, number in certificate.allowances},
        "boxes": [
            {"state": box.state, "output": box.output, "lower": _hexes(box.lower), "upper": _hexes(box.upper)}
            for box in certificate.boxes
        ],
        "starts": [{"state": start.state, "hidden": _hexes(start.hidden)} for start in certificate.starts],
        "margin": certificate.margin.hex(),
    }
    return json.dumps(value, indent=1) + "\n"


def parse(source: str | dict[str, Any]) -> Certificate:
    """The certificate in JSON text, or in the object that the text stands for.

    Raises:
        Malformed: `source` does not have the schema: it is not JSON; a member is missing, unknown or repeated; the
            version differs; a number is not finite, not hexadecimal or not an integer; a list has a wrong length.
    """
    try:
        return _read(_load(source))
    except RecursionError as error:
        raise Malformed("the certificate is nested too deeply") from error


def _read(value: Any) -> Certificate:
    _expect(type(value) is dict and value.get("format") == FORMAT, f"not an object with format {FORMAT!r}")
    _expect(type(value.get("version")) is int and value["version"] == VERSION, f"the schema version is not {VERSION}")
    value = _members(value, _MEMBERS, "the certificate")
    units = _integer(value["units"], "units")
    _expect(1 <= units <= 4096, f"units = {units}, must be from 1 to 4096")
    boxes = _list(value["boxes"], "boxes")
    _expect(1 <= len(boxes) <= MAX_BOXES, f"{len(boxes)} boxes, must be 1 to {MAX_BOXES}")
    _expect(type(value["allowances"]) is dict, "allowances is not an object")
    return Certificate(
        task=_text(value["task"], "task"),
        transducer=canonical(value["transducer"]),
        units=units,
        weights_sha256=_text(value["weights_sha256"], "weights_sha256"),
        allowances=tuple(sorted((name, _number(number, name)) for name, number in value["allowances"].items())),
        boxes=tuple(_box(box, units, f"box {index}") for index, box in enumerate(boxes)),
        starts=tuple(
            _start(start, units, f"start {index}") for index, start in enumerate(_list(value["starts"], "starts"))
        ),
        margin=_number(value["margin"], "margin"),
    )


def _load(source: Any) -> Any:
    _expect(type(source) in (str, dict), f"a certificate is JSON text or an object, not {type(source).__name__}")
    try:
        text = source if type(source) is str else canonical(source)
        _expect(len(text) <= MAX_CHARACTERS, f"{len(text)} characters, must be at most {MAX_CHARACTERS}")
        return json.loads(
            text, object_pairs_hook=_once, parse_constant=_no_number, parse_float=_no_number, parse_int=_small_integer
        )
    except Malformed:
        raise
    except (ValueError, TypeError) as error:
        raise Malformed(f"not JSON: {type(error).__name__}: {str(error)[:100]}") from error


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    _expect(len(value) == len(pairs), f"a member is repeated among {sorted(name[:40] for name, _ in pairs)[:20]}")
    return value


def _no_number(text: str) -> Any:
    raise Malformed(f"{text[:40]} is not an integer: other numbers are hexadecimal strings")


def _small_integer(text: str) -> int:
    _expect(len(text) <= 6, f"the integer {text[:40]} is too long")
    return int(text)


def _box(value: Any, units: int, where: str) -> Box:
    value = _members(value, ("state", "output", "lower", "upper"), where)
    label = _integer(value["state"], f"state of {where}"), _integer(value["output"], f"output of {where}")
    return Box(
        *label, _vector(value["lower"], units, f"lower of {where}"), _vector(value["upper"], units, f"upper of {where}")
    )


def _start(value: Any, units: int, where: str) -> Start:
    value = _members(value, ("state", "hidden"), where)
    return Start(_integer(value["state"], f"state of {where}"), _vector(value["hidden"], units, f"hidden of {where}"))


def _vector(value: Any, units: int, where: str) -> tuple[float, ...]:
    _expect(len(_list(value, where)) == units, f"{where} has {len(value)} numbers for {units} units")
    return tuple(_number(item, where) for item in value)


def _number(value: Any, where: str) -> float:
    shown = f"{where}: {str(value)[:40]!r}"
    _expect(
        type(value) is str and len(value) <= 32 and _HEX.fullmatch(value) is not None,
        f"{shown} is not a hexadecimal float",
    )
    try:
        number = float.fromhex(value)
    except (OverflowError, ValueError) as error:
        raise Malformed(f"{shown} is not a finite float") from error
    _expect(math.isfinite(number) and number.hex() == value, f"{shown} is not the shortest form of a finite float")
    return number


def _integer(value: Any, where: str) -> int:
    return _of_type(int, value, f"{where} is not an integer")


def _text(value: Any, where: str) -> str:
    text = _of_type(str, value, f"{where} is not a string")
    _expect(len(text) <= 100, f"{where} has {len(text)} characters, must be at most 100")
    return text


def _list(value: Any, where: str) -> list[Any]:
    return _of_type(list, value, f"{where} is not a list")


def _members(value: Any, names: tuple[str, ...], where: str) -> dict[str, Any]:
    members: dict[str, Any] = _of_type(dict, value, f"{where} is not an object")
    missing, unknown = set(names) - set(members), set(members) - set(names)
    _expect(not missing, f"{where} lacks {', '.join(sorted(missing))}")
    _expect(not unknown, f"{where} has unknown members: {', '.join(map(repr, sorted(unknown)))[:100]}")
    return members


def _hexes(numbers: tuple[float, ...]) -> list[str]:
    return [float(number).hex() for number in numbers]


def _of_type(kind: type[_Value], value: Any, problem: str) -> _Value:
    # A bool is an int to isinstance, and not in JSON.
    if type(value) is not kind:
        raise Malformed(problem)
    return value


def _expect(holds: bool, problem: str) -> None:
    if not holds:
        raise Malformed(problem)
