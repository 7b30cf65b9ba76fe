"""Reads the output of TensorFlow Model Analysis without importing it: metrics by length, and missed thresholds."""

import functools
import math
import pathlib
import types
from typing import Any

from components import atomic
from components.formats import protos, tfrecords

_METRICS = "metrics-*"
_VALIDATIONS = "validations.tfrecord"
_LENGTH = "length"
_EXACT_MATCH = "exact_match"
_BASELINE = "baseline"
_PACKAGE = "tensorflow_model_analysis"


def exact_match_by_length(evaluation: str) -> dict[int, float]:
    """The candidate's exact match at each length in bits, shortest first, from the Evaluator's output in `evaluation`.

    Raises:
        BitsumError: a file there is damaged.
    """
    rates = {}
    for path in atomic.matching(evaluation, _METRICS):
        for metrics in tfrecords.messages(_protos().metrics.MetricsForSlice, path):
            keys = {key.column: key.int64_value for key in metrics.slice_key.single_slice_keys}
            for entry in metrics.metric_keys_and_values:
                is_candidates = entry.key.model_name != _BASELINE and not entry.key.is_diff
                if _LENGTH in keys and entry.key.name == _EXACT_MATCH and is_candidates:
                    rates[keys[_LENGTH]] = entry.value.double_value.value
    return dict(sorted(rates.items()))


def failures(evaluation: str) -> list[str]:
    """The thresholds that the candidate missed, one line each: metrics, shortest length first, then missing examples.

    Raises:
        BitsumError: the file is missing or damaged.
    """
    lines, missing = [], []
    for result in tfrecords.messages(_protos().validation.ValidationResult, pathlib.Path(evaluation) / _VALIDATIONS):
        # Beam's workers write them in any order.
        for per_slice in sorted(result.metric_validations_per_slice, key=_length):
            for failure in sorted(
                per_slice.failures, key=lambda failure: (failure.metric_key.name, failure.metric_key.is_diff)
            ):
                value = failure.metric_value.double_value.value
                # Differences are to the last blessed model.
                verb = "changes by" if failure.metric_key.is_diff else "is"
                lines.append(f"{_slice(per_slice.slice_key)}: {failure.metric_key.name} {verb} {value:.4g}")
        missing += [f"{_spec(spec)}: no examples" for spec in result.missing_slices]
    return [*lines, *missing]


@functools.cache
def _protos() -> types.SimpleNamespace:
    folder = f"{_PACKAGE}.proto"
    # In this order: those of some versions do not import the modules that they use.
    return protos.load_from(
        _PACKAGE,
        wrappers="google.protobuf.wrappers_pb2",
        config=f"{folder}.config_pb2",
        metrics=f"{folder}.metrics_for_slice_pb2",
        validation=f"{folder}.validation_result_pb2",
    )


def _length(per_slice: Any) -> float:
    """The length of a MetricsValidationForSlice; the slice of all lengths comes last."""
    return min((key.int64_value for key in per_slice.slice_key.single_slice_keys), default=math.inf)


def _slice(slice_key: Any) -> str:
    return ", ".join(f"{key.column} {key.int64_value}" for key in slice_key.single_slice_keys) or "all lengths"


def _spec(spec: Any) -> str:
    return ", ".join(f"{name} {value}" for name, value in spec.feature_values.items()) or "all lengths"
