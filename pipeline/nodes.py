"""The nodes of the graph and its gates: their ids in the metadata store, and the names that users see."""

GENERATOR = "BitstringExampleGen"
ARITHMETIC_VALIDATOR = "ArithmeticValidator"
READABILITY_GATE = "ReadabilityGate"
STATISTICS = "StatisticsGen"
SCHEMA = "ImportSchemaGen"
EXAMPLE_VALIDATOR = "ExampleValidator"
PREVIOUS_SPAN = "PreviousSpan"
REQUEST_STATISTICS = "RequestStatistics"
DRIFT_VALIDATOR = "DriftValidator"
DATA_GATE = "DataGate"
WINDOW_SPANS = "WindowSpans"
SPAN_WINDOW = "SpanWindow"
BASE_MODEL = "BaseModel"
TRAINER = "Trainer"
LAST_BLESSED = "LastBlessedModel"
EVALUATOR = "Evaluator"
PROVER = "Prover"
INFRA_VALIDATOR = "InfraValidator"
PUSHER = "Pusher"

STAGES = {
    GENERATOR: "generate",
    ARITHMETIC_VALIDATOR: "validate sums",
    READABILITY_GATE: "readability check",
    STATISTICS: "statistics",
    SCHEMA: "schema",
    EXAMPLE_VALIDATOR: "validate schema",
    PREVIOUS_SPAN: "previous span",
    REQUEST_STATISTICS: "requests",
    DRIFT_VALIDATOR: "validate drift",
    DATA_GATE: "data gate",
    WINDOW_SPANS: "spans",
    SPAN_WINDOW: "window",
    BASE_MODEL: "base model",
    TRAINER: "train",
    LAST_BLESSED: "last blessed",
    EVALUATOR: "evaluate",
    PROVER: "prove",
    INFRA_VALIDATOR: "infra-validate",
    PUSHER: "push",
}

# The gates, in the order of the graph.
DATA = "data"
EVALUATION = "evaluation"
PROOF = "proof"
INFRA_VALIDATION = "infra validation"
PUSH = "push"

# These nodes raise when they refuse; the others write a blessing. In older runs the readability gate has the id
# ReadableGate.
REFUSING = {
    **dict.fromkeys((GENERATOR, READABILITY_GATE, "ReadableGate", DATA_GATE), DATA),
    INFRA_VALIDATOR: INFRA_VALIDATION,
    PUSHER: PUSH,
}


def in_series(compares_requests: bool, warm_start: bool) -> dict[str, list[str]]:
    """The edges of the graph of a run in a series: {node: the nodes before it}, in topological order.

    A scheduler asks for them often, and TFX takes long to import. They depend neither on the span nor on whether the
    data are imported.

    Args:
        compares_requests: whether spans.request_log is set.
        warm_start: whether train.warm_start is set.
    """
    requests = [REQUEST_STATISTICS] if compares_requests else []
    trained_from = [DATA_GATE, SCHEMA, SPAN_WINDOW]
    return {
        GENERATOR: [],
        SCHEMA: [],
        PREVIOUS_SPAN: [],
        **{node: [] for node in requests},
        BASE_MODEL: [],
        ARITHMETIC_VALIDATOR: [GENERATOR],
        READABILITY_GATE: [ARITHMETIC_VALIDATOR],
        STATISTICS: [GENERATOR, READABILITY_GATE],
        EXAMPLE_VALIDATOR: [SCHEMA, STATISTICS],
        DRIFT_VALIDATOR: [PREVIOUS_SPAN, *requests, STATISTICS],
        DATA_GATE: [ARITHMETIC_VALIDATOR, GENERATOR, DRIFT_VALIDATOR, EXAMPLE_VALIDATOR, STATISTICS],
        WINDOW_SPANS: [GENERATOR, DATA_GATE],
        SPAN_WINDOW: [WINDOW_SPANS],
        TRAINER: [BASE_MODEL, *trained_from] if warm_start else trained_from,
        EVALUATOR: [BASE_MODEL, GENERATOR, SCHEMA, TRAINER],
        PROVER: [BASE_MODEL, EVALUATOR, TRAINER],
        INFRA_VALIDATOR: [GENERATOR, PROVER, TRAINER],
        PUSHER: [GENERATOR, INFRA_VALIDATOR, PROVER, TRAINER],
    }
