"""DataGate: lets the run go on only if the data passed the checks: TFDV's, the one that knows arithmetic, and drift and
skew.

What it blesses is what later runs of a series may train on; what it refuses is kept in the quarantine with its report.
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
DRIFTED = "the data drifted, or are not like what is asked"

# How many offenders of each check the refusal names; the anomalies' artifacts have more.
NAMED = 3

# Kinds of anomalies that TFDV's statistics do not survive.
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

    Without `example_anomalies` only unreadable data is refused: put such a gate before the statistics, which would
    crash on it.

    Args:
        code: hash of the code that decides, for TFX's cache.
        examples, statistics: what is blessed, in a series of runs.
        quarantine_folder: where the report of a refused span goes, in a series of runs.

    Raises:
        Refusal: names the first offenders and says where the offending records were set aside.
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
    tf.io.gfile.makedirs(blessing.uri)
    blessing.span = arithmetic_anomalies.span
    if examples is not None and statistics is not None:
        blessing.set_int_custom_property(EXAMPLES_ID, examples.id)
        blessing.set_int_custom_property(STATISTICS_ID, statistics.id)
        blessing.set_int_custom_property(SPAN, arithmetic_anomalies.span)


def tfdv_reasons(heading: str, anomalies: standard_artifacts.ExampleAnomalies) -> list[str]:
    """`heading` and what the anomalies of TFDV's kind say, one line for all splits that have some."""
    splits = artifact_utils.decode_split_names(anomalies.split_names)
    found = [line for split in splits for line in _split_anomalies(anomalies.uri, split)]
    return [f"{heading}: {_listed(found)} (all in {anomalies.uri})"] if found else []


def arithmetic_reasons(content: dict, uri: str) -> list[str]:
    """What the anomalies file of the artifact at `uri` says, one line."""
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
    place = quarantine.set_aside(folder, anomalies.span, GATE, reasons, anomalies.uri, records)
    return f"the report on span {anomalies.span} is in {place}"


def _split_anomalies(uri: str, split: str) -> list[str]:
    with tf.io.gfile.GFile(os.path.join(uri, f"Split-{split}", SCHEMA_DIFF_FILE), "rb") as file:
        anomalies = strict_protos.parse(anomalies_pb2.Anomalies, file.read())
    found = {name: info.description for name, info in anomalies.anomaly_info.items()}
    if anomalies.HasField("dataset_anomaly_info"):
        found["the whole split"] = anomalies.dataset_anomaly_info.description
    # TFX leaves the splits without any example unmentioned.
    if anomalies.data_missing:
        found["the whole split"] = "no examples"
    return [f"split {split!r}, {name}: {' '.join(text.split())}" for name, text in sorted(found.items())]


def _listed(lines: list[str], count: int | None = None) -> str:
    count = len(lines) if count is None else count
    more = f" and {count - NAMED} more" if count > NAMED else ""
    return " | ".join(lines[:NAMED]) + more
