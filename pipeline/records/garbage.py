"""Finds and removes the folders below the artifacts' folder that are no longer needed.

Needed are the outputs of the last runs, the ancestors of every kept model, and the outputs of the runs that evaluated,
proved or pushed such a model. A model is kept if it was finally blessed, or if it is among the versions that may be
served. Nothing outside the artifacts' folder, in particular no served version, is ever touched.
"""

import dataclasses
import pathlib
import shutil
from collections.abc import Collection, Iterable, Iterator

from ml_metadata import metadata_store
from ml_metadata.proto import metadata_store_pb2 as mlmd

from components import atomic, properties
from components.errors import BitsumError
from pipeline import nodes
from pipeline.records import ownership
from pipeline.records.lineage_graph import LineageGraph

_ENDED_BADLY = (mlmd.Execution.FAILED, mlmd.Execution.CANCELED)
_ENDED = (mlmd.Execution.COMPLETE, mlmd.Execution.CACHED, *_ENDED_BADLY)
_EXISTING = (mlmd.Artifact.LIVE, mlmd.Artifact.MARKED_FOR_DELETION)
_SYSTEM = ".system"
# The clocks of a file system and a database may differ by this much.
_CLOCK_MS = 2_000


@dataclasses.dataclass(frozen=True)
class Garbage:
    """A folder that can be removed, its size in bytes, the reason, and its artifacts in the store."""

    path: pathlib.Path
    size: int
    reason: str
    artifacts: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True)
class Collected:
    """The result of `bitsum gc`: the folders, removed if `deleted`, their size in bytes, the closed executions, and the
    number of running executions by the name of their unreachable host."""

    deleted: bool
    closed: list[ownership.Closed]
    elsewhere: dict[str, int]
    folders: list[Garbage]
    size: int


def old(
    lineage: LineageGraph, folder: pathlib.Path, keep: int, served: Collection[int], window: int = 0
) -> list[Garbage]:
    """Artifacts below `folder` that are not needed.

    Args:
        keep: how many of the last runs with artifacts there keep everything, besides all unfinished runs.
        served: the versions that may be served, besides those that were pushed and still exist.
        window: how many of the last blessed spans of each pipeline keep their data, since later runs train on them.
    """
    needed = _needed(lineage, folder, keep, served) | lineage.ancestors(_blessed_spans(lineage, folder, window))
    needed_paths = {pathlib.Path(lineage.artifacts[id].uri) for id in needed}
    by_path: dict[pathlib.Path, list[int]] = {}
    for id, artifact in sorted(lineage.artifacts.items()):
        path = pathlib.Path(artifact.uri)
        if id not in needed and artifact.state in _EXISTING and folder in path.parents and ".." not in path.parts:
            by_path.setdefault(path, []).append(id)
    return [
        Garbage(
            path,
            _size(path),
            f"artifact {', '.join(map(str, ids))}, {lineage.kind(ids[0])}: {_reason(lineage, ids[0])}",
            tuple(ids),
        )
        for path, ids in by_path.items()
        if not any(path == other or path in other.parents or other in path.parents for other in needed_paths)
    ]


def orphans(lineage: LineageGraph, folder: pathlib.Path) -> list[Garbage]:
    """Folders left by an execution that failed or was killed.

    A folder stays if its execution is not in the store, or is newer than the folder: it may belong to another store.

    Raises:
        OSError: a folder cannot be read.
    """
    recorded_paths = {pathlib.Path(artifact.uri) for artifact in lineage.artifacts.values()}
    orphaned = []
    outputs = _entries(_entries(_entries([folder])))
    for path in sorted([*outputs, *_entries(path for path in outputs if path.parent.name == _SYSTEM)]):
        node = path.relative_to(folder).parts[0]
        execution = lineage.executions.get(int(path.name)) if path.name.isdecimal() and path.is_dir() else None
        if execution is None or execution.last_known_state not in _ENDED_BADLY:
            continue
        if lineage.node_of.get(execution.id) != node or path in recorded_paths:
            continue
        if path.stat().st_mtime * 1000 + _CLOCK_MS >= execution.create_time_since_epoch:
            state = mlmd.Execution.State.Name(execution.last_known_state)
            orphaned.append(Garbage(path, _size(path), f"orphaned: execution {execution.id} of {node} is {state}"))
    return orphaned


def remove(store: metadata_store.MetadataStore, folders: list[Garbage]) -> None:
    """Remove the folders. The store is updated before and after, so that no run takes half an artifact from the cache.

    Raises:
        BitsumError: a folder cannot be removed; those before it are gone, and the next call continues from there.
    """
    for folder in folders:
        _set_state(store, folder, mlmd.Artifact.MARKED_FOR_DELETION)
        try:
            if folder.path.exists():
                shutil.rmtree(folder.path)
        except OSError as error:
            raise BitsumError(
                f"cannot remove {error.filename or folder.path}: {error.strerror}; everything before it is removed"
            ) from error
        _set_state(store, folder, mlmd.Artifact.DELETED)


def _needed(lineage: LineageGraph, folder: pathlib.Path, keep: int, served: Collection[int]) -> set[int]:
    last: dict[str, int] = {}
    for id, run in lineage.run_of.items():
        if any(folder in pathlib.Path(lineage.artifacts[link.artifact].uri).parents for link in lineage.outputs(id)):
            last[run] = max(id, last.get(run, 0))
    kept = set(sorted(last, key=lambda run: last[run])[-keep:])
    kept |= {
        lineage.run_of.get(id, "")
        for id, execution in lineage.executions.items()
        if execution.last_known_state not in _ENDED
    }
    models = {*_blessed_models(lineage), *_served_models(lineage, served)}
    # The runs that checked such a model hold the evidence for it.
    kept |= {
        lineage.run_of.get(id, "")
        for id in lineage.executions
        if any(link.artifact in models for link in lineage.inputs(id, "model"))
    }
    executions = [execution for run in kept for execution in lineage.executions_of(run)]
    links = [link for execution in executions for link in [*lineage.outputs(execution), *lineage.inputs(execution)]]
    return lineage.ancestors({*(link.artifact for link in links), *models})


def _blessed_spans(lineage: LineageGraph, folder: pathlib.Path, window: int) -> Iterator[int]:
    """The data gate's blessings of the last spans, in this folder, of each pipeline."""
    by_pipeline: dict[str, dict[int, int]] = {}
    for artifact in lineage.of_kind("DataBlessing"):
        span = artifact.custom_properties[properties.SPAN].int_value
        is_final = lineage.producer_node(artifact.id) == nodes.DATA_GATE
        # A run outside a series has span 0.
        if is_final and span > 0 and folder in pathlib.Path(artifact.uri).parents:
            pipeline = lineage.pipeline_of[lineage.producer(artifact.id)]
            by_pipeline.setdefault(pipeline, {})[artifact.id] = span
    for spans in by_pipeline.values():
        last = sorted({*spans.values()})[-window:] if window else []
        yield from (id for id, span in spans.items() if span in last)


def _blessed_models(lineage: LineageGraph) -> Iterator[int]:
    for artifact in lineage.of_kind("ModelBlessing"):
        is_final = lineage.producer_node(artifact.id) == nodes.PROVER
        if is_final and artifact.custom_properties[properties.BLESSED].int_value:
            yield from (link.artifact for link in lineage.made_from(artifact.id, "model"))


def _served_models(lineage: LineageGraph, served: Collection[int]) -> Iterator[int]:
    """Compares the number alone: the folder may have been moved, and keeping one model too many is harmless."""
    versions = {str(version) for version in served}
    for artifact in lineage.of_kind("PushedModel"):
        destination = artifact.custom_properties[properties.DESTINATION].string_value
        exists = destination and pathlib.Path(destination).exists()
        if exists or artifact.custom_properties[properties.VERSION].string_value in versions:
            yield from (
                link.artifact
                for link in lineage.made_from(artifact.id)
                if lineage.kind(link.artifact) in ("Model", "InfraBlessing")
            )


def _entries(folders: Iterable[pathlib.Path]) -> list[pathlib.Path]:
    """The entries of the folders but those of the file system. Unlike pathlib's glob, it raises if a folder cannot be
    read."""
    entries = (entry for folder in folders if folder.is_dir() for entry in folder.iterdir())
    return [entry for entry in entries if entry.name not in atomic.OF_THE_FILE_SYSTEM]


def _reason(lineage: LineageGraph, artifact: int) -> str:
    run = lineage.producer_run(artifact)
    return f"of run {run}, not an ancestor of any kept model" if run else "no recorded producer"


def _set_state(store: metadata_store.MetadataStore, folder: Garbage, state: int) -> None:
    artifacts = store.get_artifacts_by_id(list(folder.artifacts)) if folder.artifacts else []
    for artifact in artifacts:
        artifact.state = state
    if artifacts:
        store.put_artifacts(artifacts)


def _size(path: pathlib.Path) -> int:
    return sum(file.stat().st_size for file in atomic.matching(path, "*") if file.is_file() and not file.is_symlink())
