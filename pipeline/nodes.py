"""The nodes of the graph and its gates: their ids in the metadata store, and the names that users see."""

GENERATOR = "BitstringExampleGen"
ARITHMETIC_VALIDATOR = "ArithmeticValidator"
READABILITY_GATE = "ReadabilityGate"
STATISTICS = "StatisticsGen"
PREVIOUS_SPAN = "PreviousSpan"
DATA_GATE = "DataGate"
WINDOW_SPANS = "WindowSpans"
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
    "ImportSchemaGen": "schema",
    "ExampleValidator": "validate schema",
    PREVIOUS_SPAN: "previous span",
    "RequestStatistics": "requests",
    "DriftValidator": "validate drift",
    DATA_GATE: "data gate",
    WINDOW_SPANS: "spans",
    "SpanWindow": "window",
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
