"""How rows of bytes go chunk by chunk through a signature that takes and gives a state, and how large the chunks are.

Rows are little-endian bytes: bit i of a number is bit i % 8 of byte i // 8 (components.signatures, <verb>_packed).
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from serving import tensors

# Numbers longer than this are sent piece by piece: a call then stays far from any deadline.
CHUNK_BITS = 4096


class ChunkEncoding(NamedTuple):
    """How rows of bytes go through a signature of a kind with a state: encode(rows) and decode(tensor, rows, bytes of
    each).

    `max_bytes`: those of an operand in one call, of all rows together; a message then stays far below gRPC's 4 MiB.
    """

    max_bytes: int
    encode: Callable[[Sequence[bytes]], Any]
    decode: Callable[[tensors.Tensor, int, int], list[bytes]]


# From 2^18 bits a call on the server's throughput grows by a few percent only (benchmarks.streaming), its answers come
# later.
PACKED = ChunkEncoding(2**16, tensors.string_tensor, tensors.strings)
STEPPED = ChunkEncoding(CHUNK_BITS // 8, tensors.unpacked_tensor, tensors.packed_rows)


class Model(NamedTuple):
    """What is known of the version that answers: how it is streamed through, by which signature, and H, None where it
    takes no state."""

    version: int
    signature: str
    encoding: ChunkEncoding
    units: int | None


class ChunkSizer:
    """How many bytes of an operand to send in one call: more while calls are quick, fewer when they are slow.

    A server that runs chunks side by side likes large calls, one that goes step by step must not meet the deadline.
    """

    FIRST_BYTES, MIN_BYTES = 2**12, 2**6
    TARGET_SECONDS = 0.5

    def __init__(self, deadline: float):
        self.size = self.FIRST_BYTES
        self._aim = min(self.TARGET_SECONDS, deadline / 8)

    def record(self, size: int, seconds: float) -> None:
        """A call of `size` bytes took `seconds`."""
        if seconds > 2 * self._aim:
            self.size = max(self.MIN_BYTES, size // 2)
        elif seconds < self._aim / 2 and size >= self.size:
            self.size = min(2 * size, PACKED.max_bytes)
