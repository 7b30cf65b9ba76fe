"""Where a pushed version comes from: run, spans, statistics, anomalies, schema, knobs, code, training, verdicts."""

import dataclasses
import datetime
import hashlib
import pathlib
import struct
from collections.abc import Iterator
from typing import Any

from ml_metadata.proto import metadata_store_pb2 as mlmd

from components import atomic, properties, regular_files, results
from components.errors import BitsumError
from components.formats import strict_protos, tfrecords
from components.savedmodel import version_folder
from pipeline import nodes
from pipeline.records import ownership, verdicts
from pipeline.records.lineage_graph import BASE_MODEL, LineageGraph

_BLESSERS = (nodes.EVALUATOR, nodes.PROVER, nodes.INFRA_VALIDATOR)
_BLESSINGS = ("ModelBlessing", "InfraBlessing")
_CODE = "code"
_SCHEMA_FILE = "schema.pbtxt"
_PLAIN = ("int_value", "double_value", "string_value", "bool_value")
# Custom properties of an execution that are not knobs.
_NO_KNOBS = (_CODE, ownership.HOST, ownership.PID, ownership.STARTED, ownership.CLOSED, properties.REFUSED_BECAUSE)


@dataclasses.dataclass(frozen=True)
class Model:
    """The model's artifact in the metadata store, the execution that made it, and its folder."""

    artifact: int
    execution: int
    uri: str


@dataclasses.dataclass(frozen=True)
class Base:
    """A model that training started from; version 0 if it was never pushed."""

    artifact: int
    run: str
    version: int


@dataclasses.dataclass(frozen=True)
class Span:
    """A span that the model was trained on: records by split, statistics and anomalies.

    `date`: what it was given as, empty for a number. `notes`: what its import ignored or warned of.
    """

    span: int
    date: str
    artifact: int
    node: str
    uri: str
    records: dict[str, int]
    statistics: list[str]
    anomalies: list[str]
    notes: list[str]


@dataclasses.dataclass(frozen=True)
class Schema:
    """The schema file; empty and 0 if the model has none. `sha256` is empty if the file is gone."""

    uri: str = ""
    sha256: str = ""
    features: int = 0


@dataclasses.dataclass(frozen=True)
class Knobs:
    """The hash of the configuration, and the knobs by "NODE" or "NODE.PARAMETER"."""

    sha256: str
    knobs: dict[str, dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class Training:
    """The scalars that the training wrote for TensorBoard, one row per step."""

    curve: list[dict[str, float]]


@dataclasses.dataclass(frozen=True)
class Approval:
    """An execution that let the model pass; `host` is empty and `process` 0 if they were not recorded."""

    node: str
    execution: int
    run: str
    at: datetime.datetime
    host: str
    process: int


@dataclasses.dataclass(frozen=True)
class Lineage:
    """Where a pushed version comes from.

    `state`: the state of its files. `bases`: the models that training started from, the nearest first. `margin`: the
    certified worst margin, None without one.
    """

    version: int
    path: pathlib.Path
    state: str
    run: str
    started: datetime.datetime
    finished: datetime.datetime
    task: str
    model: Model
    bases: list[Base]
    spans: list[Span]
    schema: Schema
    config: Knobs
    code_sha256: str
    data_sha256: str
    training: Training
    gates: list[verdicts.Verdict]
    margin: float | None
    blessed_by: list[Approval]


def of_version(lineage: LineageGraph, push_to: pathlib.Path, version: int | None) -> Lineage:
    """The lineage of a pushed version, of the newest one if `version` is None.

    Raises:
        BitsumError: the store has no push of this version, or not all of its lineage.
    """
    pushed = _pushed(lineage, push_to, version)
    push = lineage.producer(pushed.id)
    run = lineage.run_of[push]
    model = lineage.inputs(push, "model")[0].artifact
    trainer = lineage.producer(model)
    path = pathlib.Path(_text(pushed, properties.DESTINATION))
    manifest = version_folder.manifest(path).get("origin", {})
    outputs = lineage.outputs_of(run)
    executions = [lineage.executions[execution] for execution in lineage.executions_of(run)]
    pusher = lineage.executions[push].custom_properties
    return Lineage(
        version=int(_text(pushed, properties.VERSION)),
        path=path,
        state=_state(path),
        run=run,
        started=results.from_milliseconds(min(execution.create_time_since_epoch for execution in executions)),
        finished=results.from_milliseconds(max(execution.last_update_time_since_epoch for execution in executions)),
        task=pusher["task"].string_value,
        model=Model(model, trainer, lineage.artifacts[model].uri),
        bases=_bases(lineage, model),
        spans=_spans(lineage, model),
        schema=_schema(lineage, model),
        config=Knobs(pusher["config_hash"].string_value, _knobs(lineage, run)),
        code_sha256=pusher[_CODE].string_value,
        data_sha256=manifest.get("data_sha256", ""),
        training=Training(_curve(lineage, trainer)),
        gates=verdicts.of_run(outputs),
        margin=verdicts.margin_of_run(outputs),
        blessed_by=list(_blessed_by(lineage, push)),
    )


def _pushed(lineage: LineageGraph, push_to: pathlib.Path, version: int | None) -> mlmd.Artifact:
    """The artifact of the push that made the version, preferably in `push_to`."""
    pushes = [
        artifact
        for artifact in lineage.of_kind("PushedModel")
        if artifact.custom_properties[properties.IS_NEW].int_value
    ]
    candidates = [
        artifact for artifact in pushes if pathlib.Path(_text(artifact, properties.DESTINATION)).parent == push_to
    ] or pushes
    for artifact in reversed(candidates):
        if version is None or _text(artifact, properties.VERSION) == str(version):
            return artifact
    versions = ", ".join(_text(artifact, properties.VERSION) for artifact in candidates[-5:]) or "none"
    missing = "a pushed version" if version is None else f"version {version}"
    raise BitsumError(f"the metadata store does not know {missing}; the last versions it knows: {versions}")


def _bases(lineage: LineageGraph, model: int) -> list[Base]:
    """The models that training started from, the nearest first."""
    bases = []
    while links := lineage.made_from(model, BASE_MODEL):
        model = links[0].artifact
        bases.append(Base(model, lineage.producer_run(model) or "unknown", _version_of(lineage, model)))
    return bases


def _version_of(lineage: LineageGraph, model: int) -> int:
    for artifact in lineage.of_kind("PushedModel"):
        version = _text(artifact, properties.VERSION)
        if version and any(link.artifact == model for link in lineage.made_from(artifact.id, "model")):
            return int(version)
    return 0


def _spans(lineage: LineageGraph, model: int) -> list[Span]:
    """The data that the model itself was trained on."""
    data = [id for id in sorted(lineage.ancestors([model], without=[BASE_MODEL])) if lineage.kind(id) == "Examples"]
    # A window of spans is made from the spans in it.
    return [_span(lineage, examples) for examples in data if not lineage.ancestors([examples]) & {*data} - {examples}]


def _span(lineage: LineageGraph, examples: int) -> Span:
    statistics = _made_with(lineage, examples, "ExampleStatistics", "examples")
    # A refused run may have checked the same data against other requests, or with other knobs.
    blessings = _made_with(lineage, examples, "DataBlessing", "examples")
    passed = {link.artifact for blessing in blessings for link in lineage.made_from(blessing)}
    validated = [id for source in statistics for id in _made_with(lineage, source, "ExampleAnomalies", "statistics")]
    anomalies = [line for id in validated if id in passed for line in _schema_anomalies(_uri(lineage, id))]
    for id in {*_made_with(lineage, examples, "ArithmeticAnomalies", "examples")} & passed:
        counts = _json(_uri(lineage, id) / properties.ANOMALIES_FILE).get("anomalies")
        anomalies += [f"{count} x {kind}" for kind, count in counts.items()] if isinstance(counts, dict) else []
    artifact = lineage.artifacts[examples]
    return Span(
        span=artifact.properties[properties.SPAN].int_value,
        date=_text(artifact, properties.SPAN_DATE),
        artifact=examples,
        node=lineage.producer_node(examples),
        uri=artifact.uri,
        records=next((dict(_records(_uri(lineage, id))) for id in statistics), {}),
        statistics=[lineage.artifacts[id].uri for id in statistics],
        anomalies=anomalies,
        notes=_text(artifact, properties.NOTES).splitlines(),
    )


def _made_with(lineage: LineageGraph, artifact: int, kind: str, key: str) -> list[int]:
    """The artifacts of a kind whose executions read `artifact` as their input `key`, not, say, as the previous span."""
    candidates = [candidate.id for candidate in lineage.of_kind(kind)]
    return [id for id in candidates if any(link.artifact == artifact for link in lineage.made_from(id, key))]


def _records(statistics: pathlib.Path) -> Iterator[tuple[str, int]]:
    from tensorflow_metadata.proto.v0 import statistics_pb2

    for path in atomic.matching(statistics, "Split-*/FeatureStats.pb"):
        for data in strict_protos.read(statistics_pb2.DatasetFeatureStatisticsList, path).datasets:
            yield path.parent.name.removeprefix("Split-"), int(data.num_examples)


def _schema_anomalies(folder: pathlib.Path) -> list[str]:
    from tensorflow_metadata.proto.v0 import anomalies_pb2

    lines = []
    for path in atomic.matching(folder, f"Split-*/{properties.SCHEMA_DIFF_FILE}"):
        anomalies = strict_protos.read(anomalies_pb2.Anomalies, path)
        lines += [
            f"{path.parent.name}, {name}: {info.description}" for name, info in sorted(anomalies.anomaly_info.items())
        ]
    return lines


def _schema(lineage: LineageGraph, model: int) -> Schema:
    schemas = [id for id in lineage.ancestors([model], without=[BASE_MODEL]) if lineage.kind(id) == "Schema"]
    if not schemas:
        return Schema()
    uri = _uri(lineage, max(schemas))
    if not (uri / _SCHEMA_FILE).is_file():
        return Schema(str(uri))
    content = (uri / _SCHEMA_FILE).read_bytes()
    return Schema(str(uri), hashlib.sha256(content).hexdigest(), content.count(b"feature {"))


def _knobs(lineage: LineageGraph, run: str) -> dict[str, dict[str, Any]]:
    """The parameters of a run's nodes: JSON objects by "NODE.PARAMETER", plain values by "NODE"; no code hashes."""
    knobs: dict[str, dict[str, Any]] = {}
    for execution in lineage.executions_of(run):
        node = lineage.node_of[execution]
        for name, value in sorted(lineage.executions[execution].custom_properties.items()):
            if name.startswith("_") or name in _NO_KNOBS:
                continue
            section = _dictionary(value.string_value)
            section.pop(_CODE, None)
            kind = value.WhichOneof("value")
            if section:
                knobs[f"{node}.{name}"] = section
            elif kind in _PLAIN:
                knobs.setdefault(node, {})[name] = getattr(value, kind)
    return knobs


def _curve(lineage: LineageGraph, trainer: int) -> list[dict[str, float]]:
    """The scalars that the training wrote for TensorBoard, one row per step."""
    runs = [link.artifact for link in lineage.outputs(trainer) if lineage.kind(link.artifact) == "ModelRun"]
    rows: dict[int, dict[str, float]] = {}
    for id in runs:
        for path in atomic.matching(_uri(lineage, id), "*tfevents*"):
            for step, name, value in _scalars(path):
                rows.setdefault(step, {"step": step})[name] = value
    return [rows[step] for step in sorted(rows)]


def _scalars(path: pathlib.Path) -> Iterator[tuple[int, str, float]]:
    from tensorboard.compat.proto import event_pb2

    for event in tfrecords.messages(event_pb2.Event, path):
        for value in event.summary.value:
            if value.tensor.tensor_content and len(value.tensor.tensor_content) == 4:
                yield event.step, value.tag, struct.unpack("<f", value.tensor.tensor_content)[0]
            elif value.tensor.float_val:
                yield event.step, value.tag, value.tensor.float_val[0]


def _blessed_by(lineage: LineageGraph, push: int) -> Iterator[Approval]:
    """The executions whose blessings the push read, directly or not, and the push itself."""
    read = [link.artifact for link in lineage.inputs(push) if lineage.kind(link.artifact) in _BLESSINGS]
    behind = lineage.ancestors(read, without=[BASE_MODEL, "baseline", "baseline_model"])
    blessings = [id for id in behind if lineage.kind(id) in _BLESSINGS]
    for id in sorted({push, *(lineage.producer(id) for id in blessings if lineage.producer_node(id) in _BLESSERS)}):
        execution = lineage.executions[id]
        owner = execution.custom_properties
        yield Approval(
            node=lineage.node_of[id],
            execution=id,
            run=lineage.run_of[id],
            at=results.from_milliseconds(execution.last_update_time_since_epoch),
            host=owner[ownership.HOST].string_value.partition(" ")[0] if ownership.HOST in owner else "",
            process=owner[ownership.PID].int_value if ownership.PID in owner else 0,
        )


def _state(path: pathlib.Path) -> str:
    if not path.is_dir():
        return "no longer on disk"
    return "DAMAGED: " + version_folder.problems(path)[0] if version_folder.problems(path) else "files as pushed"


def _uri(lineage: LineageGraph, artifact: int) -> pathlib.Path:
    return pathlib.Path(lineage.artifacts[artifact].uri)


def _text(artifact: mlmd.Artifact, name: str) -> str:
    return artifact.custom_properties[name].string_value


def _json(path: pathlib.Path) -> dict[str, Any]:
    try:
        return _dictionary(regular_files.read(path))
    except FileNotFoundError:
        return {}


def _dictionary(text: str | bytes) -> dict[str, Any]:
    try:
        value = regular_files.parse_json(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
