"""DriftValidator: compares the train split with that of the previous span and with the requests served.

The distances are TensorFlow Data Validation's: the Jensen-Shannon divergence of two histograms, from 0 to 1. The step
never fails because of the data: it writes anomalies as TFX's ExampleValidator does, and the data gate decides.
"""

import collections
import math
import os
from typing import TypeAlias

import tensorflow_data_validation as tfdv
from tensorflow_metadata.proto.v0 import anomalies_pb2, schema_pb2, statistics_pb2
from tfx.dsl.component.experimental.annotations import InputArtifact, OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.dsl.io import fileio
from tfx.types import artifact_utils, standard_artifacts
from tfx.utils import io_utils, writer_utils

from components.progress import report
from components.properties import SCHEMA_DIFF_FILE
from components.task.addition import FEATURE_A, FEATURE_B, FEATURE_LENGTH

SPLIT = "train"
_STATISTICS_FILE = "FeatureStats.pb"
_DRIFTING = (FEATURE_A, FEATURE_B, FEATURE_LENGTH)
_SKEWED = (FEATURE_A, FEATURE_B)

Statistics: TypeAlias = statistics_pb2.DatasetFeatureStatisticsList


@component
def DriftValidator(
    statistics: InputArtifact[standard_artifacts.ExampleStatistics],
    anomalies: OutputArtifact[standard_artifacts.ExampleAnomalies],
    max_drift: Parameter[float],
    max_skew: Parameter[float],
    least_requests: Parameter[int],
    code: Parameter[str],
    previous: InputArtifact[standard_artifacts.ExampleStatistics] = None,
    requests: InputArtifact[standard_artifacts.ExampleStatistics] = None,
) -> None:
    """Write the anomalies of the train split against the `previous` span and the logged `requests`.

    `code` is a hash of the code, for TFX's cache.
    """
    before = read_statistics(previous.uri, SPLIT) if previous else None
    asked = read_statistics(requests.uri, SPLIT) if requests else None
    if asked and asked.datasets[0].num_examples < least_requests:
        asked = None
    differences = compare(read_statistics(statistics.uri, SPLIT), before, asked, max_drift, max_skew)
    anomalies.split_names = artifact_utils.encode_split_names([SPLIT])
    anomalies.span = statistics.span
    folder = os.path.join(anomalies.uri, f"Split-{SPLIT}")
    fileio.makedirs(folder)
    writer_utils.write_anomalies(os.path.join(folder, SCHEMA_DIFF_FILE), differences)
    report(
        "drift",
        previous=int(before is not None),
        requests=int(asked is not None),
        anomalies=len(differences.anomaly_info),
    )


def compare(
    now: Statistics, before: Statistics | None, asked: Statistics | None, max_drift: float, max_skew: float
) -> anomalies_pb2.Anomalies:
    """TFDV's anomalies of `now` against `before` and `asked`, where given."""
    schema = schema_pb2.Schema()
    for name in _DRIFTING:
        feature = schema.feature.add(name=name, type=schema_pb2.INT)
        feature.presence.min_count = 1
        feature.drift_comparator.jensen_shannon_divergence.threshold = max_drift
        if name in _SKEWED:
            feature.skew_comparator.jensen_shannon_divergence.threshold = max_skew
    return tfdv.validate_statistics(
        _only(now), schema, previous_statistics=before and _only(before), serving_statistics=asked and _only(asked)
    )


def read_statistics(uri: str, split: str) -> Statistics:
    """The statistics of a split of an ExampleStatistics artifact."""
    return tfdv.load_stats_binary(os.path.join(uri, f"Split-{split}", _STATISTICS_FILE))


def write_statistics(statistics: Statistics, uri: str, split: str) -> None:
    """Write statistics where TFX expects them."""
    io_utils.write_bytes_file(
        os.path.join(uri, f"Split-{split}", _STATISTICS_FILE), statistics.SerializeToString(deterministic=True)
    )


def _only(statistics: Statistics) -> Statistics:
    """The statistics of the compared features; the schema covers the others."""
    result = Statistics()
    result.CopyFrom(statistics)
    for dataset in result.datasets:
        kept = [
            feature
            for feature in dataset.features
            if (feature.path.step[0] if feature.path.step else feature.name) in _DRIFTING
        ]
        del dataset.features[:]
        dataset.features.extend(kept)
        for feature in dataset.features:
            _count_by_integer(feature)
    return result


def _count_by_integer(feature: statistics_pb2.FeatureNameStatistics) -> None:
    """Give each integer of a feature its own bucket in the histogram.

    TFDV uses equal buckets from the smallest to the largest value and spreads each of them evenly, so two honest spans
    would seem far apart if only their shortest numbers differed.
    """
    for histogram in feature.num_stats.histograms:
        if histogram.type != statistics_pb2.Histogram.STANDARD:
            continue
        counts: collections.Counter[int] = collections.Counter()
        for bucket in histogram.buckets:
            counts[math.floor((bucket.low_value + bucket.high_value + 1) / 2)] += bucket.sample_count
        del histogram.buckets[:]
        for value in range(min(counts, default=0), max(counts, default=-1) + 1):
            histogram.buckets.add(low_value=value - 0.5, high_value=value + 0.5, sample_count=counts[value])
