"""The tables of docs/json.md as a schema: what a command prints with --json has their keys and types, all and no
others."""

import pathlib
import re

_DOCUMENT = pathlib.Path(__file__).parents[2] / "docs" / "json.md"
_ROW = re.compile(r"\| `([^`]+)` \| ([a-z ]+) \|[^|]*\| [^|]+ \|")
_SCALARS = {
    "string": lambda value: isinstance(value, str),
    "integer": lambda value: type(value) is int,
    "number": lambda value: type(value) in (int, float),
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
    "time": lambda value: isinstance(value, str) and re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", value),
    "array": lambda value: isinstance(value, list),
    "map": lambda value: isinstance(value, dict),
}


def tables() -> dict[str, dict[str, str]]:
    """The type of every key, by the heading of its table."""
    found: dict[str, dict[str, str]] = {}
    for section in _DOCUMENT.read_text().split("\n## ")[1:]:
        rows = [line for line in section.splitlines() if line.startswith("| `")]
        matches = [_ROW.fullmatch(row) for row in rows]
        assert all(matches), (
            f"not a row of four: {[row for row, match in zip(rows, matches, strict=True) if not match]}"
        )
        found[section.partition("\n")[0]] = {match[1]: match[2] for match in matches}
    return found


def check(title: str, document: object) -> None:
    """Fail unless `document` is what the table under `title` says."""
    types = tables()[title]
    _check_object(types, "", document, title)
    assert re.fullmatch(r"[a-z0-9_.*\[\]]+", "".join(types)), "keys are in snake_case"


def _check_object(types: dict[str, str], prefix: str, value: object, where: str) -> None:
    keys = {key[len(prefix) :] for key in types if key.startswith(prefix)}
    here = {key for key in keys if re.fullmatch(r"\w+", key)}
    assert isinstance(value, dict) and value.keys() == here, f"{where}: {sorted(value.keys() ^ here)}"
    for key in here:
        _check(types, prefix + key, types[prefix + key], value[key], f"{where}.{key}")


def _check(types: dict[str, str], path: str, kind: str, value: object, where: str) -> None:
    if kind.endswith(" or null"):
        if value is not None:
            _check(types, path, kind.removesuffix(" or null"), value, where)
    elif kind == "object":
        _check_object(types, f"{path}.", value, where)
    elif kind == "report":
        _check_object(types, "", value, where)
    elif " of " in kind:
        outer, _, inner = kind.partition(" of ")
        assert _SCALARS[outer](value), f"{where}: {value!r} is not of type {kind}"
        path += "[]" if outer == "array" else ".*"
        for key, item in enumerate(value) if outer == "array" else value.items():
            _check(types, path, inner, item, f"{where}[{key}]")
    else:
        assert _SCALARS[kind](value), f"{where}: {value!r} is not of type {kind}"
