"""What TensorFlow Model Analysis wrote about a model, read without importing it: metrics by length, and which
thresholds were missed."""

import functools
import math
import pathlib
import types

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
    found = {}
    for path in sorted(pathlib.Path(evaluation).glob(_METRICS)):
        for metrics in tfrecords.messages(_protos().metrics.MetricsForSlice, path):
            keys = {key.column: key.int64_value for key in metrics.slice_key.single_slice_keys}
            for entry in metrics.metric_keys_and_values:
                wanted = entry.key.name == _EXACT_MATCH and entry.key.model_name != _BASELINE and not entry.key.is_diff
                if _LENGTH in keys and wanted:
                    found[keys[_LENGTH]] = entry.value.double_value.value
    return {length: found[length] for length in sorted(found)}


def failures(evaluation: str) -> list[str]:
    """Which thresholds the candidate missed, a line each: on a metric, shortest length first, or for want of examples.

    Raises:
        BitsumError: there is no such file, or it is damaged.
    """
    lines, missing = [], []
    for result in tfrecords.messages(_protos().validation.ValidationResult, pathlib.Path(evaluation) / _VALIDATIONS):
        # They are written in whatever order Beam's workers were done in.
        for per_slice in sorted(result.metric_validations_per_slice, key=_length):
            for failure in sorted(
                per_slice.failures, key=lambda failure: (failure.metric_key.name, failure.metric_key.is_diff)
            ):
                value = failure.metric_value.double_value.value
                # A difference is that to the last blessed model.
                verb = "changes by" if failure.metric_key.is_diff else "is"
                lines.append(f"{_slice(per_slice.slice_key)}: {failure.metric_key.name} {verb} {value:.4g}")
        missing += [f"{_spec(spec)}: no examples" for spec in result.missing_slices]
    return [*lines, *missing]


@functools.cache
def _protos() -> types.SimpleNamespace:
    folder = f"{_PACKAGE}.proto"
    return protos.load_from(
        _PACKAGE, metrics=f"{folder}.metrics_for_slice_pb2", validation=f"{folder}.validation_result_pb2"
    )


def _length(per_slice) -> float:
    """The length that a slice is of; that of all lengths comes after the others."""
    return min((one.int64_value for one in per_slice.slice_key.single_slice_keys), default=math.inf)


def _slice(key) -> str:
    return ", ".join(f"{one.column} {one.int64_value}" for one in key.single_slice_keys) or "all lengths"


def _spec(spec) -> str:
    return ", ".join(f"{name} {value}" for name, value in spec.feature_values.items()) or "all lengths"
