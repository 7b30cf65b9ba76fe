"""The signatures of the exported model: names, dtypes and shapes, for the export, the client and the checks.

B examples of T bits each, H hidden units; bits are int64, least significant first.

serving_default  examples: string [B], serialized tf.Examples with `a` and `b`
                 -> sum: int64 [B, T + 1], padded with zeros to the longest T in the batch; length: int64 [B]
<verb>_bits      a, b: int64 [B, T] -> sum: int64 [B, T + 1]
step             a, b: int64 [B, T]; state: float32 [B, H], zeros before the first bit
                 -> sum: int64 [B, T]; logits: float32 [B, T]; state: float32 [B, H]
                 It adds numbers of any length chunk by chunk; a final (0, 0) pair of bits flushes the last carry.
<verb>_packed    a, b: string [B], N >= 1 bytes each, as from int.to_bytes(N, "little"): bit i % 8 of byte i // 8 is
                 bit i; state: float32 [B, H], zeros before the first byte
                 -> sum: string [B], N bytes; state: float32 [B, H]
                 It is `step` with eight bits a byte and without logits; a final zero byte flushes the last carry.

<verb> is the task's (components.task.transducer): add, subtract or compare. So a server refuses to subtract with a
model that adds. The other names are the same for every task. `sum` holds the task's outputs, as the feature of that
name in `components.task.addition`. Models of the first format (components.savedmodel.export_format) have `add_bits` and
`add_packed` for every task.
"""

from collections.abc import Collection, Iterable

# Name under which a server serves the sweep model (components.model.activation_sweep).
SWEEP_MODEL_NAME = "bitsum-activations"

SERVING_DEFAULT = "serving_default"
STEP = "step"

EXAMPLES = "examples"
A = "a"
B = "b"
STATE = "state"
SUM = "sum"
LENGTH = "length"
LOGITS = "logits"

_BITS, _PACKED = "_bits", "_packed"


def bits(verb: str) -> str:
    """The name of the signature for bits."""
    return f"{verb}{_BITS}"


def packed(verb: str) -> str:
    """The name of the signature for packed bits."""
    return f"{verb}{_PACKED}"


def verbs(names: Iterable[str]) -> list[str]:
    """The verbs of the signatures for bits among `names`; a model has one.

    >>> verbs(["serving_default", "subtract_bits", "step", "subtract_packed"])
    ['subtract']
    """
    return [name.removesuffix(_BITS) for name in names if name.endswith(_BITS)]


def called(name: str, known: Collection[str]) -> str:
    """The name that a model with the signatures `known` has for the signature `name`, possibly with another verb.

    >>> called("add_packed", ["serving_default", "subtract_bits", "step", "subtract_packed"])
    'subtract_packed'
    """
    kind = next((kind for kind in (_BITS, _PACKED) if name.endswith(kind)), "")
    return name if name in known or not kind else next((verb + kind for verb in verbs(known)), name)


# The names for addition, and for every task of the first format.
ADD = "add"
ADD_BITS, ADD_PACKED = bits(ADD), packed(ADD)
