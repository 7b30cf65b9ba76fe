"""Which model may take the place of the newest pushed version: none that is older, unless somebody says so.

A model is older if it is for an earlier span, a run without a span (0) being earlier than every span, or if the newest
version was trained on from it, at once or over several runs. Spans and ancestors stand in the manifest of the newest
version, so that the rule needs no metadata store; a trainer writes the ancestors beside the model. Going back to an
older version is `bitsum rollback`.
"""

import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any

from components import atomic, regular_files
from components.errors import BitsumError, Refusal
from components.savedmodel import version_folder

GATE = "push"
OPTION = "--allow-older"
HELP = "push the model also if the newest version is for a later span, or was trained on from it"

# Names in the origin of a manifest.
SPAN = "span"
ANCESTORS = "ancestors"

# Beside the SavedModel: JSON, the hashes of the weights (`model_identity.weights_sha256`) that it was trained on from,
# the last first.
_ANCESTORS_FILE = "ancestors.json"


def write_ancestors(model_dir: str, ancestors: Sequence[str]) -> None:
    """Write down beside the SavedModel in `model_dir` which weights it was trained on from, the last first."""
    atomic.write(pathlib.Path(model_dir).parent / _ANCESTORS_FILE, json.dumps(list(ancestors)) + "\n")


def ancestors(model_dir: str) -> list[str]:
    """Which weights the SavedModel in `model_dir` was trained on from, the last first; none where nobody wrote that down.

    Raises:
        BitsumError: the file cannot be read, or is damaged.
    """
    file = pathlib.Path(model_dir).parent / _ANCESTORS_FILE
    try:
        found = regular_files.read_json(file)
        if isinstance(found, list) and all(isinstance(one, str) for one in found):
            return found
        raise ValueError("no list of hashes")
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise BitsumError(f"cannot read {file}, the ancestors of a model: {error}; train it again") from error


def check_span(destination: pathlib.Path, span: int) -> None:
    """Raise Refusal if the newest version in `destination` is for a later span than `span`."""
    newest, manifest = _newest(destination)
    later = _span(manifest)
    if span < later:
        raise Refusal(GATE, f"{_named(span)} is earlier than span {later} of {_stays(newest, destination)}")


def check(destination: pathlib.Path, span: int, identity: str, weights: str) -> None:
    """Raise Refusal if a model is older than the newest version in `destination`, unless it is that very model.

    Args:
        span: of the run that pushes it, 0 for a run on its own.
        identity: what the model computes, as `version_folder.push` has it.
        weights: the hash of its weights.
    """
    newest, manifest = _newest(destination)
    if manifest.get("identity") == identity:
        return
    check_span(destination, span)
    if weights in manifest.get("origin", {}).get(ANCESTORS, []):
        whose = f"the model of {_named(span)} is an ancestor: training went on from it to span {_span(manifest)}"
        raise Refusal(GATE, f"{whose} of {_stays(newest, destination)}")


def _newest(destination: pathlib.Path) -> tuple[int, dict[str, Any]]:
    """The number of the newest version and its manifest; (0, {}) where there is none, {} where it was not pushed by a
    pipeline.

    Raises:
        Refusal: its manifest is damaged.
    """
    newest = max(version_folder.versions(destination), default=0)
    manifest = version_folder.manifest(destination / str(newest))
    path = destination / str(newest) / version_folder.MANIFEST
    if not manifest and os.path.lexists(path):
        told = f"{path} is damaged: whether version {newest} is newer cannot be seen"
        raise Refusal(GATE, f"{told}; nothing was pushed: {OPTION} pushes it all the same")
    return newest, manifest


def _span(manifest: dict[str, Any]) -> int:
    return manifest.get("origin", {}).get(SPAN, 0)


def _named(span: int) -> str:
    return f"span {span}" if span else "span 0, a run on its own,"


def _stays(version: int, destination: pathlib.Path) -> str:
    return f"version {version} in {destination}, which stays; nothing was pushed: {OPTION} pushes it all the same"
