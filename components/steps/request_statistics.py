"""RequestStatistics: the statistics of the requests served, for comparison with the data."""

import pathlib

import pyarrow as pa
import tensorflow_data_validation as tfdv
from tensorflow_data_validation.statistics import stats_impl
from tfx.dsl.component.experimental.annotations import OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.types import artifact_utils, standard_artifacts

from components.data import logged_requests
from components.progress import report
from components.steps.drift_validator import SPLIT, Statistics, write_statistics
from components.task.addition import FEATURE_A, FEATURE_B

# The statistics cover this many of the newest pairs, and this many of the first bits of each number.
MAX_PAIRS = 5000
MAX_BITS = 1024


@component
def RequestStatistics(
    statistics: OutputArtifact[standard_artifacts.ExampleStatistics],
    folder: Parameter[str],
    fingerprint: Parameter[str],
    code: Parameter[str],
) -> None:
    """Write the statistics of the pairs in the request log `folder`.

    `fingerprint` is the log's, `code` a hash of the code, both for TFX's cache.
    """
    pairs = list(logged_requests.pairs(pathlib.Path(folder), MAX_PAIRS, MAX_BITS))
    write_statistics(of_pairs(pairs), statistics.uri, SPLIT)
    statistics.split_names = artifact_utils.encode_split_names([SPLIT])
    report("requests", pairs=len(pairs))


def of_pairs(pairs: list[logged_requests.Bits]) -> Statistics:
    """TFDV's statistics of the bits of pairs; without pairs, those of an empty dataset."""
    if not pairs:
        empty = Statistics()
        empty.datasets.add(num_examples=0)
        return empty
    columns = {
        name: pa.array([pair[side] for pair in pairs], pa.list_(pa.int64()))
        for side, name in enumerate((FEATURE_A, FEATURE_B))
    }
    batch = pa.RecordBatch.from_arrays(list(columns.values()), list(columns))
    return stats_impl.generate_statistics_in_memory(batch, tfdv.StatsOptions())
