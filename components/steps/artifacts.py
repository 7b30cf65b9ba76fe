"""The artifact types that TFX does not have."""

from tfx.types.artifact import Artifact, Property, PropertyType


class ArithmeticAnomalies(Artifact):
    """What is wrong with the records of an Examples artifact, seen with arithmetic.

    {uri}/anomalies.json: {"records": {split: count}, "anomalies": {kind: count}, "offenders": [[file, record, what],
    ...]} {uri}/quarantine.tfrecord.gz: the bytes of the offending records, in the order of file and record.
    """

    TYPE_NAME = "ArithmeticAnomalies"
    PROPERTIES = {"span": Property(type=PropertyType.INT)}


class DataBlessing(Artifact):
    """Says that the data passed every check; the folder is empty."""

    TYPE_NAME = "DataBlessing"
    PROPERTIES = {"span": Property(type=PropertyType.INT)}


class CertificateArtifact(Artifact):
    """What came of the attempt to prove a model.

    {uri}/certificate.json: the certificate that the checker accepted (`components.proof.certificate`), where it did.
    {uri}/report.json: {"proven": bool, "reason": str, "margin": float | null, "slack": float | null, "wrong": {...}}
    {uri}/proof.svg: the boxes of hidden states, where there is a certificate.
    """

    TYPE_NAME = "Certificate"
    PROPERTIES = {
        "proven": Property(type=PropertyType.INT),
        "task": Property(type=PropertyType.STRING),
        "margin": Property(type=PropertyType.FLOAT),
    }
