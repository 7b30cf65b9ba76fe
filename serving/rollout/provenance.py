"""The origin of a version on disk: the run that pushed it, and checks of its files, certificate and graph."""

import dataclasses
import pathlib

from components.errors import BitsumError
from components.savedmodel import certified, graph_identity, model_files, version_folder
from components.task.transducer import ADDITION, TASKS, Transducer

# Prefix of `Provenance.unblessed` if the files are as pushed but the certificate or the graph does not hold.
UNPROVEN = "it is not proven: "


@dataclasses.dataclass(frozen=True)
class Provenance:
    """The origin of a version and its defects.

    `damage`: one line for each foreign file and each difference from the manifest. `unblessed`: why no pipeline blessed
    the version; None if one did. `margin`: the worst margin, if the certificate proves the weights. `ignored`: names of
    files that do not count.
    """

    run: str
    task: Transducer
    damage: tuple[str, ...] = ()
    unblessed: str | None = None
    margin: float | None = None
    ignored: tuple[str, ...] = ()


def of(folder: pathlib.Path) -> Provenance:
    """The provenance of the version in `folder`: its certificate is checked against the weights, its graph against the
    hash of the graph that was compared with the cell.

    Raises:
        BitsumError: the folder cannot be listed.
    """
    foreign = tuple(f"{folder}: {problem}" for problem in model_files.foreign(folder))
    if foreign:
        # No file is opened: it could be a FIFO.
        return Provenance("", ADDITION, foreign, "it has foreign files")
    manifest = version_folder.manifest(folder)
    origin = manifest.get("origin", {})
    task, ignored = TASKS.get(origin.get("task", ""), ADDITION), tuple(model_files.litter(folder))
    provenance = Provenance(origin.get("run", ""), task, ignored=ignored)
    if not manifest:
        return dataclasses.replace(provenance, unblessed=f"{folder} has no manifest of a push")
    damage = tuple(version_folder.problems(folder))
    if damage:
        return dataclasses.replace(provenance, damage=damage, unblessed="it is damaged")
    try:
        verdict = certified.check(folder, task).verdict
        graph = graph_identity.graph_sha256(folder)
    except BitsumError as error:
        return dataclasses.replace(provenance, unblessed=f"{UNPROVEN}{error}")
    if not verdict.proven:
        return dataclasses.replace(provenance, unblessed=f"{UNPROVEN}{verdict.reason}")
    if graph != origin.get("graph_sha256"):
        return dataclasses.replace(
            provenance, unblessed=f"{UNPROVEN}its graph is not the one that was compared with the cell"
        )
    unblessed = None if provenance.run else f"the manifest of {folder} names no run of a pipeline"
    return dataclasses.replace(provenance, unblessed=unblessed, margin=verdict.margin)
