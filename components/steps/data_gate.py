"""DataGate: lets the run continue only if the data passed TFDV's checks, the arithmetic, drift and skew checks.

Later runs of a series may train on blessed data; refused data goes to the quarantine with a report.
"""

import json
import os

import tensorflow as tf
from tensorflow_metadata.proto.v0 import anomalies_pb2
from tfx.dsl.component.experimental.annotations import InputArtifact, OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.types import artifact_utils, standard_artifacts

from components.data import quarantine
from components.errors import Refusal
from components.formats import strict_protos
from components.properties import ANOMALIES_FILE, EXAMPLES_ID, SCHEMA_DIFF_FILE, SPAN, STATISTICS_ID
from components.steps.arithmetic_validator import QUARANTINE_FILE
from components.steps.artifacts import ArithmeticAnomalies, DataBlessing
from components.task.record_checks import CORRUPT_FILE, NOT_PARSABLE, WRONG_TYPE

GATE = "data gate"
DRIFTED = "the data drifted, or differ from the requests served"

# The refusal names this many offenders of each check; the anomalies' artifacts have more.
NAMED = 3

# Kinds of anomalies that make TFDV's statistics crash.
UNREADABLE = {CORRUPT_FILE, NOT_PARSABLE, WRONG_TYPE}


@component
def DataGate(
    arithmetic_anomalies: InputArtifact[ArithmeticAnomalies],
    blessing: OutputArtifact[DataBlessing],
    code: Parameter[str],
    example_anomalies: InputArtifact[standard_artifacts.ExampleAnomalies] = None,
    drift_anomalies: InputArtifact[standard_artifacts.ExampleAnomalies] = None,
    examples: InputArtifact[standard_artifacts.Examples] = None,
    statistics: InputArtifact[standard_artifacts.ExampleStatistics] = None,
    quarantine_folder: Parameter[str] = "",
) -> None:
    """Bless the data or refuse it.

    Without `example_anomalies` the gate refuses only unreadable data. Put such a gate before the statistics, which
    would crash on it.

    Args:
        code: hash of the code, for TFX's cache.
        examples, statistics: the artifacts to bless, in a series of runs.
        quarantine_folder: the folder for the report if the span is refused, in a series of runs.

    Raises:
        Refusal: names the first offenders and the file with the offending records.
    """
    path = os.path.join(arithmetic_anomalies.uri, ANOMALIES_FILE)
    with tf.io.gfile.GFile(path) as file:
        content = json.load(file)
    if example_anomalies is None:
        reasons = (
            arithmetic_reasons(content, arithmetic_anomalies.uri) if content["anomalies"].keys() & UNREADABLE else []
        )
    else:
        reasons = tfdv_reasons("the schema is violated", example_anomalies) + arithmetic_reasons(
            content, arithmetic_anomalies.uri
        )
    if drift_anomalies is not None:
        reasons += tfdv_reasons(DRIFTED, drift_anomalies)
    if reasons and quarantine_folder:
        reasons.append(_set_aside(quarantine_folder, arithmetic_anomalies, reasons))
    if reasons:
        raise Refusal(GATE, "; ".join(reasons))
    # TFX's own blessings also hold this file: an object store keeps no empty folder.
    tf.io.gfile.makedirs(blessing.uri)
    with tf.io.gfile.GFile(os.path.join(blessing.uri, "BLESSED"), "w") as file:
        file.write("")
    blessing.span = arithmetic_anomalies.span
    if examples is not None and statistics is not None:
        blessing.set_int_custom_property(EXAMPLES_ID, examples.id)
        blessing.set_int_custom_property(STATISTICS_ID, statistics.id)
        blessing.set_int_custom_property(SPAN, arithmetic_anomalies.span)


def tfdv_reasons(heading: str, anomalies: standard_artifacts.ExampleAnomalies) -> list[str]:
    """One line with `heading` and TFDV's anomalies of all splits; none without anomalies."""
    splits = artifact_utils.decode_split_names(anomalies.split_names)
    lines = [line for split in splits for line in _split_anomalies(anomalies.uri, split)]
    return [f"{heading}: {_listed(lines)} (all in {anomalies.uri})"] if lines else []


def arithmetic_reasons(content: dict, uri: str) -> list[str]:
    """One line with the content of the anomalies file of the artifact at `uri`; none without anomalies."""
    if not content["anomalies"]:
        return []
    kinds = ", ".join(f"{count} x {kind}" for kind, count in content["anomalies"].items())
    offenders = [f"{file} record {record}: {what}" for file, record, what in content["offenders"]]
    quarantine = os.path.join(uri, QUARANTINE_FILE)
    listed = _listed(offenders, sum(content["anomalies"].values()))
    return [f"arithmetic is violated ({kinds}): {listed}; the records are set aside in {quarantine}"]


def _set_aside(folder: str, anomalies: ArithmeticAnomalies, reasons: list[str]) -> str:
    with tf.io.gfile.GFile(os.path.join(anomalies.uri, QUARANTINE_FILE), "rb") as file:
        records = {QUARANTINE_FILE: file.read()}
    quarantine.set_aside(folder, anomalies.span, GATE, reasons, anomalies.uri, records)
    return f"the report is in {folder}"


def _split_anomalies(uri: str, split: str) -> list[str]:
    with tf.io.gfile.GFile(os.path.join(uri, f"Split-{split}", SCHEMA_DIFF_FILE), "rb") as file:
        anomalies = strict_protos.parse(anomalies_pb2.Anomalies, file.read())
    problems = {name: info.description for name, info in anomalies.anomaly_info.items()}
    if anomalies.HasField("dataset_anomaly_info"):
        problems["the whole split"] = anomalies.dataset_anomaly_info.description
    # TFX does not report splits without examples.
    if anomalies.data_missing:
        problems["the whole split"] = "no examples"
    return [f"split {split!r}, {name}: {' '.join(text.split())}" for name, text in sorted(problems.items())]


def _listed(lines: list[str], count: int | None = None) -> str:
    count = len(lines) if count is None else count
    more = f" and {count - NAMED} more" if count > NAMED else ""
    return " | ".join(lines[:NAMED]) + more
