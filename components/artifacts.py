"""The artifact types that TFX does not have."""

from tfx.types.artifact import Artifact, Property, PropertyType


class ArithmeticAnomalies(Artifact):
    """What is wrong with the records of an Examples artifact, seen with arithmetic.

    {uri}/anomalies.json: {"records": {split: count}, "anomalies": {kind: count}, "offenders": [[file, record, what], ...]}
    {uri}/quarantine.tfrecord.gz: the bytes of the offending records, in the order of file and record.
    """

    TYPE_NAME = "ArithmeticAnomalies"
    PROPERTIES = {"span": Property(type=PropertyType.INT)}


class DataBlessing(Artifact):
    """Says that the data passed both checks. {uri}/blessing.json: {"records": {split: count}}."""

    TYPE_NAME = "DataBlessing"
    PROPERTIES = {"span": Property(type=PropertyType.INT)}
