"""The Evaluator's configuration: the metrics, the slices by length, and the thresholds that a model must reach.

This checks that a model generalizes to longer numbers. TFX's own Evaluator runs it on TensorFlow Model Analysis.
"""

import tensorflow_model_analysis as tfma

from components import settings, signatures
from components.steps import metrics
from components.task import addition

BASELINE = "baseline"
CANDIDATE = "candidate"


def eval_config(knobs: settings.Evaluate, lengths: list[int]) -> tfma.EvalConfig:
    """Thresholds on exact match and bit accuracy at each of `lengths`, and on exact match against the baseline, at each
    length and overall.

    A length without examples has no metrics, which TFMA counts as a failed threshold.
    """
    slices = [_slice(length) for length in lengths]
    no_worse = tfma.GenericChangeThreshold(
        direction=tfma.MetricDirection.HIGHER_IS_BETTER, absolute={"value": -knobs.max_regression - _ROUNDING}
    )
    exact = tfma.MetricConfig(
        class_name=metrics.SumExactMatch.__name__,
        module=metrics.__name__,
        threshold=tfma.MetricThreshold(change_threshold=no_worse),
        per_slice_thresholds=_at_least(knobs.exact_match, slices, no_worse),
    )
    bits = tfma.MetricConfig(
        class_name=metrics.SumBitAccuracy.__name__,
        module=metrics.__name__,
        per_slice_thresholds=_at_least(knobs.bit_accuracy, slices),
    )
    return tfma.EvalConfig(
        model_specs=[_model(CANDIDATE), _model(BASELINE)],
        slicing_specs=[tfma.SlicingSpec(), tfma.SlicingSpec(feature_keys=[addition.FEATURE_LENGTH])],
        metrics_specs=[tfma.MetricsSpec(metrics=[exact, bits], output_names=[signatures.SUM])],
    )


# TFMA's thresholds are strict (greater than), but a ratio that equals the threshold must pass.
_ROUNDING = 1e-9


def _model(name: str) -> tfma.ModelSpec:
    return tfma.ModelSpec(
        name=name,
        is_baseline=name == BASELINE,
        signature_name=signatures.SERVING_DEFAULT,
        label_keys={signatures.SUM: addition.FEATURE_SUM},
    )


def _slice(length: int) -> tfma.SlicingSpec:
    return tfma.SlicingSpec(feature_values={addition.FEATURE_LENGTH: str(length)})


def _at_least(
    bound: float, slices: list[tfma.SlicingSpec], change: tfma.GenericChangeThreshold | None = None
) -> list[tfma.PerSliceMetricThreshold]:
    value = tfma.GenericValueThreshold(lower_bound={"value": bound - _ROUNDING})
    threshold = tfma.MetricThreshold(value_threshold=value, change_threshold=change)
    return [tfma.PerSliceMetricThreshold(slicing_specs=slices, threshold=threshold)]
