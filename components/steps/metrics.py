"""The metrics of the evaluation, for TensorFlow Model Analysis: exact match and bit accuracy of sums of any length.

TFMA's own metrics expect labels of one length; these compare the T + 1 bits of each example's `sum` with the first
T + 1 bits of the model's output of the same name. Bits that a prediction lacks, and values other than 0 and 1, count as
wrong.
"""

from collections.abc import Callable, Iterable
from typing import Any

import apache_beam as beam
import numpy as np
import tensorflow_model_analysis as tfma
from tensorflow_model_analysis.metrics import metric_types

EXACT_MATCH = "exact_match"
BIT_ACCURACY = "bit_accuracy"

# (right, counted) of one example.
Score = Callable[[np.ndarray, np.ndarray], tuple[int, int]]


def right_bits(label: np.ndarray, prediction: np.ndarray) -> tuple[int, int]:
    """The number of bits of `label` that `prediction` gets right, and T + 1."""
    predicted = np.full(label.shape, -1.0)
    predicted[: prediction.size] = prediction[: label.size]
    return int(np.sum(predicted == label)), int(label.size)


def right_sum(label: np.ndarray, prediction: np.ndarray) -> tuple[int, int]:
    """1 if every bit of `label` is right, else 0; and 1."""
    right, counted = right_bits(label, prediction)
    return int(right == counted), 1


class _Share(beam.CombineFn):
    """Sums (right, counted) over the examples of a slice; the metric is their ratio."""

    def __init__(self, key: metric_types.MetricKey, score: Score):
        self._key = key
        self._score = score

    def create_accumulator(self) -> tuple[int, int]:
        return 0, 0

    def add_input(self, accumulator: tuple[int, int], element: metric_types.StandardMetricInputs) -> tuple[int, int]:
        label = _of_model(element.label, self._key)
        prediction = _of_model(element.prediction, self._key)
        right, counted = self._score(np.asarray(label).reshape(-1), np.asarray(prediction).reshape(-1))
        return accumulator[0] + right, accumulator[1] + counted

    def merge_accumulators(self, accumulators: Iterable[tuple[int, int]]) -> tuple[int, int]:
        rights, counts = zip(*accumulators, strict=True)
        return sum(rights), sum(counts)

    def extract_output(self, accumulator: tuple[int, int]) -> dict[metric_types.MetricKey, float]:
        right, counted = accumulator
        return {self._key: right / counted if counted else float("nan")}


def _of_model(value: Any, key: metric_types.MetricKey) -> Any:
    """The value for one output of one model: TFMA nests values by model name, if there are two, and by output name."""
    for name in (key.model_name, key.output_name):
        if isinstance(value, dict) and name in value:
            value = value[name]
    return value


def _computations(name: str, score: Score) -> Callable[..., list[metric_types.MetricComputation]]:
    def create(model_names: list[str] | None = None, output_names: list[str] | None = None, **unused: Any) -> list:
        keys = [
            metric_types.MetricKey(name=name, model_name=model, output_name=output)
            for model in model_names or [""]
            for output in output_names or [""]
        ]
        return [
            metric_types.MetricComputation(keys=[key], preprocessors=None, combiner=_Share(key, score)) for key in keys
        ]

    return create


class SumExactMatch(tfma.metrics.Metric):
    """The fraction of examples with every bit of the sum right."""

    def __init__(self, name: str = EXACT_MATCH):
        super().__init__(_computations(name, right_sum), name=name)


class SumBitAccuracy(tfma.metrics.Metric):
    """The fraction of right bits over all sums."""

    def __init__(self, name: str = BIT_ACCURACY):
        super().__init__(_computations(name, right_bits), name=name)
