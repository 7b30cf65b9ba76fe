"""The Evaluator's configuration: the metrics, the slices by length, and the thresholds that a model must reach.

This checks that a model generalizes to longer numbers. TFX's own Evaluator runs it on TensorFlow Model Analysis.
"""

from tensorflow_model_analysis.proto import config_pb2

from components import settings, signatures
from components.steps import metrics
from components.task import addition

BASELINE = "baseline"
CANDIDATE = "candidate"


def eval_config(knobs: settings.Evaluate, lengths: list[int]) -> config_pb2.EvalConfig:
    """Thresholds on exact match and bit accuracy at each of `lengths`, and on exact match against the baseline, at each
    length and overall.

    A length without examples has no metrics, which TFMA counts as a failed threshold.
    """
    slices = [_slice(length) for length in lengths]
    no_worse = config_pb2.GenericChangeThreshold(
        direction=config_pb2.MetricDirection.HIGHER_IS_BETTER, absolute={"value": -knobs.max_regression - _ROUNDING}
    )
    exact = config_pb2.MetricConfig(
        class_name=metrics.SumExactMatch.__name__,
        module=metrics.__name__,
        threshold=config_pb2.MetricThreshold(change_threshold=no_worse),
        per_slice_thresholds=_at_least(knobs.exact_match, slices, no_worse),
    )
    bits = config_pb2.MetricConfig(
        class_name=metrics.SumBitAccuracy.__name__,
        module=metrics.__name__,
        per_slice_thresholds=_at_least(knobs.bit_accuracy, slices),
    )
    return config_pb2.EvalConfig(
        model_specs=[_model(CANDIDATE), _model(BASELINE)],
        slicing_specs=[config_pb2.SlicingSpec(), config_pb2.SlicingSpec(feature_keys=[addition.FEATURE_LENGTH])],
        metrics_specs=[config_pb2.MetricsSpec(metrics=[exact, bits], output_names=[signatures.SUM])],
    )


# TFMA's thresholds are strict (greater than), but a ratio that equals the threshold must pass.
_ROUNDING = 1e-9


def _model(name: str) -> config_pb2.ModelSpec:
    return config_pb2.ModelSpec(
        name=name,
        is_baseline=name == BASELINE,
        signature_name=signatures.SERVING_DEFAULT,
        label_keys={signatures.SUM: addition.FEATURE_SUM},
    )


def _slice(length: int) -> config_pb2.SlicingSpec:
    return config_pb2.SlicingSpec(feature_values={addition.FEATURE_LENGTH: str(length)})


def _at_least(
    bound: float, slices: list[config_pb2.SlicingSpec], change: config_pb2.GenericChangeThreshold | None = None
) -> list[config_pb2.PerSliceMetricThreshold]:
    value = config_pb2.GenericValueThreshold(lower_bound={"value": bound - _ROUNDING})
    threshold = config_pb2.MetricThreshold(value_threshold=value, change_threshold=change)
    return [config_pb2.PerSliceMetricThreshold(slicing_specs=slices, threshold=threshold)]
