"""The signatures of the exported model: names, dtypes and shapes, for the export, the client and the checks.

B examples of T bits each, H hidden units; bits are int64, least significant first.

serving_default  examples: string [B], serialized tf.Examples with `a` and `b`
                 -> sum: int64 [B, T + 1], T the longest in the batch, zeros after a shorter sum; length: int64 [B]
<verb>_bits      a, b: int64 [B, T] -> sum: int64 [B, T + 1]
step             a, b: int64 [B, T]; state: float32 [B, H], zeros before the first bit
                 -> sum: int64 [B, T]; logits: float32 [B, T]; state: float32 [B, H]
                 A number of any length is added chunk by chunk; one more (0, 0) pair of bits brings the final carry out.
<verb>_packed    a, b: string [B], N >= 1 bytes each, as int.to_bytes(N, "little") writes a number: bit i % 8 of byte i // 8 is
                 bit i; state: float32 [B, H], zeros before the first byte
                 -> sum: string [B], N bytes; state: float32 [B, H]
                 `step` eight bits a byte, without the logits; one more zero byte brings the final carry out.

<verb> is the task's (components.task.transducer): add, subtract or compare. So a server refuses to subtract by a model that
adds. The other names are the same for every task; `sum` holds the task's outputs, as `components.task.addition` says of the
feature of that name. Models of the first format (components.savedmodel.export_format) have `add_bits` and `add_packed` whatever
their task is.
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
    """The verbs of the signatures for bits among `names`; of a model's own, the one verb that it has.

    >>> verbs(["serving_default", "subtract_bits", "step", "subtract_packed"])
    ['subtract']
    """
    return [name.removesuffix(_BITS) for name in names if name.endswith(_BITS)]


def called(name: str, known: Collection[str]) -> str:
    """How a model with the signatures `known` calls the signature `name`, if only by another verb.

    >>> called("add_packed", ["serving_default", "subtract_bits", "step", "subtract_packed"])
    'subtract_packed'
    """
    kind = next((kind for kind in (_BITS, _PACKED) if name.endswith(kind)), "")
    return name if name in known or not kind else next((verb + kind for verb in verbs(known)), name)


# What addition is named by, and every task of the first format.
ADD = "add"
ADD_BITS, ADD_PACKED = bits(ADD), packed(ADD)
