"""The artifact types that TFX lacks, and the names of files inside its own."""

from typing import ClassVar

from tfx.types.artifact import Artifact, Property, PropertyType

# TFX's name for the anomalies of a split in an ExampleAnomalies artifact.
SCHEMA_DIFF_FILE = "SchemaDiff.pb"


class ArithmeticAnomalies(Artifact):
    """The records of an Examples artifact that violate the arithmetic of its task.

    {uri}/anomalies.json: {"records": {split: count}, "anomalies": {kind: count},
                           "offenders": [[file, record, what], ...]}
    {uri}/quarantine.tfrecord.gz: the bytes of the offending records, ordered by file and record.
    """

    TYPE_NAME = "ArithmeticAnomalies"
    PROPERTIES: ClassVar = {"span": Property(type=PropertyType.INT)}


class DataBlessing(Artifact):
    """Records that the data passed every check. {uri}/BLESSED is an empty file."""

    TYPE_NAME = "DataBlessing"
    PROPERTIES: ClassVar = {"span": Property(type=PropertyType.INT)}


class CertificateArtifact(Artifact):
    """The outcome of the attempt to prove a model.

    {uri}/certificate.json: the certificate (`components.proof.certificate`), if the checker accepted one.
    {uri}/report.json: {"proven": bool, "reason": str, "margin": float | null, "slack": float | null, "wrong": {...}}
    {uri}/proof.svg: the boxes of hidden states, if there is a certificate.
    """

    TYPE_NAME = "Certificate"
    PROPERTIES: ClassVar = {
        "proven": Property(type=PropertyType.INT),
        "task": Property(type=PropertyType.STRING),
        "margin": Property(type=PropertyType.FLOAT),
    }
