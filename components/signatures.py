"""The signatures of the exported model: names, dtypes and shapes, for the export, the client and the checks.

B examples of T bits each, H hidden units; bits are int64, least significant first.

serving_default  examples: string [B], serialized tf.Examples with `a` and `b`
                 -> sum: int64 [B, T + 1], T the longest in the batch, zeros after a shorter sum; length: int64 [B]
add_bits         a, b: int64 [B, T] -> sum: int64 [B, T + 1]
step             a, b: int64 [B, T]; state: float32 [B, H], zeros before the first bit
                 -> sum: int64 [B, T]; logits: float32 [B, T]; state: float32 [B, H]
                 A number of any length is added chunk by chunk; one more (0, 0) pair of bits brings the final carry out.
add_packed       a, b: string [B], N >= 1 bytes each, as int.to_bytes(N, "little") writes a number: bit i % 8 of byte i // 8 is
                 bit i; state: float32 [B, H], zeros before the first byte
                 -> sum: string [B], N bytes; state: float32 [B, H]
                 `step` eight bits a byte, without the logits; one more zero byte brings the final carry out.

The names are those of addition whatever the task is that the model was trained for; `sum` then holds the task's outputs, as
`components.addition` says of the feature of that name. The model does not say which task it computes.
"""

SERVING_DEFAULT = "serving_default"
ADD_BITS = "add_bits"
STEP = "step"
ADD_PACKED = "add_packed"

EXAMPLES = "examples"
A = "a"
B = "b"
STATE = "state"
SUM = "sum"
LENGTH = "length"
LOGITS = "logits"
