"""The metrics of the evaluation, for TensorFlow Model Analysis: exact match and bit accuracy of sums of any length.

TFMA's own metrics expect labels of one length; these take the T + 1 bits of each example's `sum` as they are and look
at the first T + 1 bits of the model's output of the same name. A prediction that is too short, or that is not made of
0 and 1, is wrong in every bit that it lacks.
"""

from collections.abc import Callable, Iterable

import apache_beam as beam
import numpy as np
import tensorflow_model_analysis as tfma
from tensorflow_model_analysis.metrics import metric_types

EXACT_MATCH = "exact_match"
BIT_ACCURACY = "bit_accuracy"

# (right, counted) of one example.
Score = Callable[[np.ndarray, np.ndarray], tuple[int, int]]


def right_bits(label: np.ndarray, prediction: np.ndarray) -> tuple[int, int]:
    """How many of the T + 1 bits of `label` the `prediction` has right, and T + 1."""
    shown = np.full(label.shape, -1.0)
    shown[: prediction.size] = prediction[: label.size]
    return int(np.sum(shown == label)), int(label.size)


def right_sum(label: np.ndarray, prediction: np.ndarray) -> tuple[int, int]:
    """1 if every bit of `label` is right, else 0; and 1."""
    right, counted = right_bits(label, prediction)
    return int(right == counted), 1


class _Share(beam.CombineFn):
    """Adds up (right, counted) over the examples of a slice; their ratio is the metric."""

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
        rights, counts = zip(*accumulators)
        return sum(rights), sum(counts)

    def extract_output(self, accumulator: tuple[int, int]) -> dict[metric_types.MetricKey, float]:
        right, counted = accumulator
        return {self._key: right / counted if counted else float("nan")}


def _of_model(value, key: metric_types.MetricKey):
    """The value of one model's one output: TFMA nests them by model name, where there are two, and by output name."""
    for name in (key.model_name, key.output_name):
        if isinstance(value, dict) and name in value:
            value = value[name]
    return value


def _computations(name: str, score: Score) -> Callable[..., list[metric_types.MetricComputation]]:
    def create(model_names: list[str] | None = None, output_names: list[str] | None = None, **unused) -> list:
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
    """Share of the examples whose sum is right in every bit."""

    def __init__(self, name: str = EXACT_MATCH):
        super().__init__(_computations(name, right_sum), name=name)


class SumBitAccuracy(tfma.metrics.Metric):
    """Share of the bits of all sums that are right."""

    def __init__(self, name: str = BIT_ACCURACY):
        super().__init__(_computations(name, right_bits), name=name)
