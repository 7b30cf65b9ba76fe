"""Which files below the artifacts' folder nobody needs any more, and their removal.

Needed is what the last runs put out, what a model that counts was made from, and what the runs that evaluated, proved
or pushed such a model found out. A model counts if it was finally blessed, or if it is among the versions that may be
served. What is outside of the artifacts' folder, the served versions above all, is never touched.
"""

import dataclasses
import pathlib
import shutil
from collections.abc import Collection, Iterable, Iterator

from ml_metadata import metadata_store
from ml_metadata.proto import metadata_store_pb2 as mlmd

from components.errors import BitsumError
from pipeline.records import ownership, recorded
from pipeline.records.lineage_graph import LineageGraph

_ENDED_BADLY = (mlmd.Execution.FAILED, mlmd.Execution.CANCELED)
_ENDED = (mlmd.Execution.COMPLETE, mlmd.Execution.CACHED, *_ENDED_BADLY)
_THERE = (mlmd.Artifact.LIVE, mlmd.Artifact.MARKED_FOR_DELETION)
_SYSTEM = ".system"
_PROVER = "Prover"
_DATA_GATE = "DataGate"
_SPAN = "span"
# Clocks of file systems and of databases may differ by so much.
_CLOCK_MS = 2_000


@dataclasses.dataclass(frozen=True)
class Garbage:
    """A folder that can go, its size in bytes, why, and the artifacts in the store that it belongs to."""

    path: pathlib.Path
    size: int
    reason: str
    artifacts: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True)
class Collected:
    """What `bitsum gc` found, and removed if `deleted`: executions that it closed, running ones by the name of a host
    that cannot be looked into, the folders, and their size in bytes."""

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
        keep: so many of the last runs that put something there are needed whole, and all that are under way.
        served: the versions that may be served, beside those that were pushed and are still there.
        window: the data of so many of the last blessed spans are needed, of each pipeline: later runs train on them.
    """
    needed = _needed(lineage, folder, keep, served) | lineage.ancestors(_blessed_spans(lineage, folder, window))
    needed_paths = {pathlib.Path(lineage.artifacts[id].uri) for id in needed}
    by_path: dict[pathlib.Path, list[int]] = {}
    for id, artifact in sorted(lineage.artifacts.items()):
        path = pathlib.Path(artifact.uri)
        if id not in needed and artifact.state in _THERE and folder in path.parents and ".." not in path.parts:
            by_path.setdefault(path, []).append(id)
    return [
        Garbage(
            path,
            _size(path),
            f"artifact {', '.join(map(str, ids))}, {lineage.kind(ids[0])}: {_whence(lineage, ids[0])}",
            tuple(ids),
        )
        for path, ids in by_path.items()
        if not any(path == other or path in other.parents or other in path.parents for other in needed_paths)
    ]


def orphans(lineage: LineageGraph, folder: pathlib.Path) -> list[Garbage]:
    """Folders that an execution left which failed or was killed.

    A folder whose execution the store does not know, or that is older than it, may belong to another store: it stays.

    Raises:
        OSError: a folder cannot be read.
    """
    recorded_paths = {pathlib.Path(artifact.uri) for artifact in lineage.artifacts.values()}
    found = []
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
            found.append(Garbage(path, _size(path), f"orphaned: execution {execution.id} of {node} is {state}"))
    return found


def remove(store: metadata_store.MetadataStore, found: list[Garbage]) -> None:
    """Remove what was found; the store learns of it before and after, so that no run takes half an artifact from the
    cache.

    Raises:
        BitsumError: a folder cannot be removed; what was removed before it stays removed, and the next time goes on
        from there.
    """
    for one in found:
        _set_state(store, one, mlmd.Artifact.MARKED_FOR_DELETION)
        try:
            if one.path.exists():
                shutil.rmtree(one.path)
        except OSError as error:
            raise BitsumError(
                f"cannot remove {error.filename or one.path}: {error.strerror}; everything before it is removed"
            ) from error
        _set_state(store, one, mlmd.Artifact.DELETED)


def _needed(lineage: LineageGraph, folder: pathlib.Path, keep: int, served: Collection[int]) -> set[int]:
    last: dict[str, int] = {}
    for id, run in lineage.run_of.items():
        if any(folder in pathlib.Path(lineage.artifacts[link.artifact].uri).parents for link in lineage.outputs(id)):
            last[run] = max(id, last.get(run, 0))
    kept = set(sorted(last, key=lambda run: last[run])[-keep:])
    kept |= {lineage.run_of.get(id, "") for id, one in lineage.executions.items() if one.last_known_state not in _ENDED}
    models = {*_blessed_models(lineage), *_served_models(lineage, served)}
    # What was found out about such a model is the evidence for it.
    kept |= {
        lineage.run_of.get(id, "")
        for id in lineage.executions
        if any(link.artifact in models for link in lineage.inputs(id, "model"))
    }
    executions = [execution for run in kept for execution in lineage.executions_of(run)]
    links = [link for execution in executions for link in [*lineage.outputs(execution), *lineage.inputs(execution)]]
    return lineage.ancestors({*(link.artifact for link in links), *models})


def _blessed_spans(lineage: LineageGraph, folder: pathlib.Path, window: int) -> Iterator[int]:
    """The data gate's blessings of the last spans: a refused span is in no window, nor is one of another pipeline or
    folder."""
    by_pipeline: dict[str, dict[int, int]] = {}
    for artifact in lineage.of_kind("DataBlessing"):
        made_by, span = lineage.producer(artifact.id), artifact.custom_properties[_SPAN].int_value
        # 0 is that of runs in no series.
        if lineage.node_of.get(made_by) == _DATA_GATE and span > 0 and folder in pathlib.Path(artifact.uri).parents:
            by_pipeline.setdefault(lineage.pipeline_of[made_by], {})[artifact.id] = span
    for spans in by_pipeline.values():
        last = sorted({*spans.values()})[-window:] if window else []
        yield from (id for id, span in spans.items() if span in last)


def _blessed_models(lineage: LineageGraph) -> Iterator[int]:
    for artifact in lineage.of_kind("ModelBlessing"):
        made_by = lineage.producer(artifact.id)
        final = made_by is not None and lineage.node_of.get(made_by) == _PROVER
        if final and artifact.custom_properties[recorded.BLESSED].int_value:
            yield from (link.artifact for link in lineage.inputs(made_by, "model"))


def _served_models(lineage: LineageGraph, served: Collection[int]) -> Iterator[int]:
    """By the number alone: the folder may have been moved since, and one model too many does no harm."""
    wanted = {str(version) for version in served}
    for artifact in lineage.of_kind("PushedModel"):
        made_by = lineage.producer(artifact.id)
        pushed_to = artifact.custom_properties[recorded.DESTINATION].string_value
        is_there = pushed_to and pathlib.Path(pushed_to).exists()
        if made_by is not None and (is_there or artifact.custom_properties[recorded.VERSION].string_value in wanted):
            yield from (
                link.artifact
                for link in lineage.inputs(made_by)
                if lineage.kind(link.artifact) in ("Model", "InfraBlessing")
            )


def _entries(folders: Iterable[pathlib.Path]) -> list[pathlib.Path]:
    """What is in the folders. Unlike pathlib's glob, one that cannot be read is an error and not left out."""
    return [entry for folder in folders if folder.is_dir() for entry in folder.iterdir()]


def _whence(lineage: LineageGraph, artifact: int) -> str:
    made_by = lineage.producer(artifact)
    return (
        f"of run {lineage.run_of.get(made_by, 'unknown')}, which no model that counts descends from"
        if made_by
        else "made by nobody"
    )


def _set_state(store: metadata_store.MetadataStore, one: Garbage, state: int) -> None:
    artifacts = store.get_artifacts_by_id(list(one.artifacts)) if one.artifacts else []
    for artifact in artifacts:
        artifact.state = state
    if artifacts:
        store.put_artifacts(artifacts)


def _size(path: pathlib.Path) -> int:
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file() and not file.is_symlink())
