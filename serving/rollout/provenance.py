"""Whether a version on disk is what a pipeline pushed: its files, its certificate and its graph, and who blessed it."""

import dataclasses
import pathlib

from components.errors import BitsumError
from components.savedmodel import certified, graph_identity, model_files, version_folder
from components.task.transducer import ADDITION, TASKS, Transducer

# How `Provenance.unblessed` begins where the version is as it was pushed, but its certificate or graph does not hold.
UNPROVEN = "it is not proven: "


@dataclasses.dataclass(frozen=True)
class Provenance:
    """Where a version comes from, and what is wrong with it.

    `damage`: files that no certified version has, and what the files have against the manifest, a line each.
    `unblessed`: why no pipeline stands behind the version, None where one does. `margin`: the worst one, where the
    certificate proves the weights. `ignored`: names of files that do not count.
    """

    run: str
    task: Transducer
    damage: tuple[str, ...] = ()
    unblessed: str | None = None
    margin: float | None = None
    ignored: tuple[str, ...] = ()


def of(folder: pathlib.Path) -> Provenance:
    """The provenance of the version in `folder`, read from what lies there: the certificate is checked against the
    weights, the graph against the hash of the one that was compared with the cell.

    Raises:
        BitsumError: the folder cannot be listed.
    """
    foreign = tuple(f"{folder}: {problem}" for problem in model_files.foreign(folder))
    if foreign:
        # Nothing of it is opened: it could be a FIFO.
        return Provenance("", ADDITION, foreign, "it has foreign files")
    manifest = version_folder.manifest(folder)
    origin = manifest.get("origin", {})
    task, ignored = TASKS.get(origin.get("task", ""), ADDITION), tuple(model_files.litter(folder))
    found = Provenance(origin.get("run", ""), task, ignored=ignored)
    if not manifest:
        return dataclasses.replace(found, unblessed=f"{folder} has no manifest of a push")
    damage = tuple(version_folder.problems(folder))
    if damage:
        return dataclasses.replace(found, damage=damage, unblessed="it is damaged")
    try:
        verdict = certified.check(folder, task).verdict
        graph = graph_identity.graph_sha256(folder)
    except BitsumError as error:
        return dataclasses.replace(found, unblessed=f"{UNPROVEN}{error}")
    if not verdict.proven:
        return dataclasses.replace(found, unblessed=f"{UNPROVEN}{verdict.reason}")
    if graph != origin.get("graph_sha256"):
        unblessed = f"{UNPROVEN}its graph is not the one that was compared with the cell"
        return dataclasses.replace(found, unblessed=unblessed)
    unblessed = None if found.run else f"the manifest of {folder} names no run of a pipeline"
    return dataclasses.replace(found, unblessed=unblessed, margin=verdict.margin)
