"""Whether a version on disk is what a pipeline pushed: its files against the manifest, and who blessed it."""

import dataclasses
import pathlib

from components import certificate, version_folder
from components.errors import BitsumError
from components.transducer import ADDITION, TASKS, Transducer


@dataclasses.dataclass(frozen=True)
class Provenance:
    """`damage`: what the files have against the manifest, a line each. `unblessed`: why no pipeline stands behind the version."""

    run: str
    task: Transducer
    damage: tuple[str, ...] = ()
    unblessed: str = ""


def of(folder: pathlib.Path) -> Provenance:
    """The provenance of the version in `folder`, read from what lies there; the certificate is checked against the weights."""
    manifest = version_folder.manifest(folder)
    origin = manifest.get("origin", {})
    task = TASKS.get(origin.get("task", ""), ADDITION)
    if not manifest:
        return Provenance("", task, unblessed=f"{folder} has no manifest of a push")
    damage = tuple(version_folder.problems(folder))
    if damage:
        return Provenance(origin.get("run", ""), task, damage)
    if not origin.get("run"):
        return Provenance("", task, unblessed=f"the manifest of {folder} names no run of a pipeline")
    return Provenance(origin["run"], task, unblessed=_unproven(folder, task))


def _unproven(folder: pathlib.Path, task: Transducer) -> str:
    """Why the certificate in `folder` does not prove the weights there; empty where it does."""
    from components import checker, saved_weights

    file = folder / certificate.FILE
    try:
        verdict = checker.check(file.read_text(), saved_weights.read(folder), task)
    except (OSError, UnicodeDecodeError, BitsumError) as error:
        return f"{folder} is not proven: {getattr(error, 'strerror', None) or error}"
    return "" if verdict.proven else f"{folder} is not proven: {verdict.reason}"
