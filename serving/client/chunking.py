"""The encoding of rows of bytes, chunk by chunk, for a signature with a state, and the size of the chunks.

Rows are little-endian bytes: bit i of a number is bit i % 8 of byte i // 8 (components.signatures, <verb>_packed).
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from serving import tensors

# Longer numbers are sent in chunks, so that a call stays far below any deadline.
CHUNK_BITS = 4096


class ChunkEncoding(NamedTuple):
    """The tensors of one kind of signature with a state: encode(rows) and decode(tensor, rows, bytes per row).

    `max_bytes` bounds an operand of one call, all rows together, and keeps the message far below gRPC's 4 MiB.
    """

    max_bytes: int
    encode: Callable[[Sequence[bytes]], Any]
    decode: Callable[[tensors.Tensor, int, int], list[bytes]]


# Beyond 2^18 bits per call, throughput grows by only a few percent (benchmarks.streaming), while latency keeps growing.
PACKED = ChunkEncoding(2**16, tensors.string_tensor, tensors.strings)
STEPPED = ChunkEncoding(CHUNK_BITS // 8, tensors.unpacked_tensor, tensors.packed_rows)


class Model(NamedTuple):
    """The version that answers: its signature for streams, the encoding of it, and H (None without a state)."""

    version: int
    signature: str
    encoding: ChunkEncoding
    units: int | None


class ChunkSizer:
    """The bytes of an operand to send in one call: more while calls are fast, fewer when they are slow.

    Large calls suit a server that runs chunks in parallel; a server that runs step by step must stay within the
    deadline.
    """

    FIRST_BYTES, MIN_BYTES = 2**12, 2**6
    TARGET_SECONDS = 0.5

    def __init__(self, deadline: float):
        self.size = self.FIRST_BYTES
        self._target_seconds = min(self.TARGET_SECONDS, deadline / 8)

    def record(self, size: int, seconds: float) -> None:
        """Record a call of `size` bytes that took `seconds`."""
        if seconds > 2 * self._target_seconds:
            self.size = max(self.MIN_BYTES, size // 2)
        elif seconds < self._target_seconds / 2 and size >= self.size:
            self.size = min(2 * size, PACKED.max_bytes)
