"""The order of pushes: no older model replaces the newest pushed version, unless the user allows it.

A model is older if it is for an earlier span (a run without a span, 0, is earlier than every span), or if the newest
version continued its training, directly or over several runs. The manifest of the newest version holds spans and
ancestors, so the rule needs no metadata store; a trainer writes the ancestors beside the model. `bitsum rollback` goes
back to an older version.
"""

import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any

from components import atomic, regular_files
from components.errors import BitsumError, Refusal, unreadable
from components.savedmodel import version_folder

GATE = "push"
OPTION = "--allow-older"
HELP = "push the model even if the newest version is for a later span, or was trained from the model"

# Names in the origin of a manifest.
SPAN = "span"
SPAN_DATE = "span_date"
ANCESTORS = "ancestors"

# Beside the SavedModel: JSON, the hashes of the weights (`fingerprint.weights_sha256`) whose training it continued, the
# latest first.
_ANCESTORS_FILE = "ancestors.json"


def write_ancestors(model_dir: str, ancestors: Sequence[str]) -> None:
    """Record beside the SavedModel in `model_dir` the weights whose training it continued, the latest first."""
    atomic.write(pathlib.Path(model_dir).parent / _ANCESTORS_FILE, json.dumps(list(ancestors)) + "\n")


def ancestors(model_dir: str) -> list[str]:
    """The weights whose training the SavedModel in `model_dir` continued, the latest first; empty without a record.

    Raises:
        BitsumError: the file cannot be read, or is damaged.
    """
    file = pathlib.Path(model_dir).parent / _ANCESTORS_FILE
    try:
        hashes = regular_files.read_json(file)
        if isinstance(hashes, list) and all(isinstance(value, str) for value in hashes):
            return hashes
        raise ValueError("not a list of hashes")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise BitsumError(unreadable(f"{file}, the ancestors of a model", error)) from error
    except ValueError as error:
        raise BitsumError(f"cannot read {file}, the ancestors of a model: {error}; train it again") from error


def check_span(destination: pathlib.Path, span: int, date: str = "") -> None:
    """Raise Refusal if the newest version in `destination` is for a later span than `span`, which was given as the
    `date`, or as a number if that is empty."""
    newest, manifest = _newest(destination)
    if span < manifest.get("origin", {}).get(SPAN, 0):
        raise Refusal(
            GATE, f"{_named(span, date)} is earlier than {_named_in(manifest)} of {_stays(newest, destination)}"
        )


def check(destination: pathlib.Path, span: int, identity: str, weights: str, date: str = "") -> None:
    """Raise Refusal if a model is older than the newest version in `destination`, unless it is the same model.

    Args:
        span: of the run that pushes it, 0 for a run without a span.
        identity: of the model, as in `version_folder.push`.
        weights: the hash of its weights.
        date: as in `check_span`.
    """
    newest, manifest = _newest(destination)
    if manifest.get("identity") == identity:
        return
    check_span(destination, span, date)
    if weights in manifest.get("origin", {}).get(ANCESTORS, []):
        ancestor = f"the model of {_named(span, date)} is an ancestor of that of {_named_in(manifest)}"
        raise Refusal(GATE, f"{ancestor}, {_stays(newest, destination)}")


def _newest(destination: pathlib.Path) -> tuple[int, dict[str, Any]]:
    """The number of the newest version and its manifest: (0, {}) without a version, {} if no pipeline pushed it.

    Raises:
        Refusal: its manifest is damaged.
    """
    newest = max(version_folder.versions(destination), default=0)
    manifest = version_folder.manifest(destination / str(newest))
    path = destination / str(newest) / version_folder.MANIFEST
    if not manifest and os.path.lexists(path):
        problem = f"{path} is damaged, so the age of version {newest} is unknown"
        raise Refusal(GATE, f"{problem}; nothing was pushed: {OPTION} pushes the model anyway")
    return newest, manifest


def _named_in(manifest: dict[str, Any]) -> str:
    origin = manifest.get("origin", {})
    return f"span {origin.get(SPAN_DATE) or origin.get(SPAN, 0)}"


def _named(span: int, date: str) -> str:
    return f"span {date or span}" if span else "span 0 (a run without a span)"


def _stays(version: int, destination: pathlib.Path) -> str:
    return f"version {version} in {destination}, which stays; nothing was pushed: {OPTION} pushes the model anyway"
