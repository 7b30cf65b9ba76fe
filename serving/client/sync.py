"""The client that blocks; serving.client says how it is used."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from components import signatures
from components.task.transducer import ADDITION, COMPARISON, SUBTRACTION, Transducer
from serving.client.adder_protocol import AdderProtocol, groups
from serving.client.chunking import CHUNK_BITS
from serving.client.connection import Connection, VersionStatus
from serving.client.streaming import FilePieces, is_replayable, stream
from serving.errors import (
    BadResponse,
    DeadlineExceeded,
    InvalidNumber,
    InvalidRequest,
    ModelNotFound,
    ServerBusy,
    ServerUnavailable,
    ServingError,
    VersionGone,
)

__all__ = [
    "CHUNK_BITS",
    "AdderClient",
    "BadResponse",
    "DeadlineExceeded",
    "FilePieces",
    "InvalidNumber",
    "InvalidRequest",
    "ModelNotFound",
    "ServerBusy",
    "ServerUnavailable",
    "ServingError",
    "VersionGone",
    "VersionStatus",
    "groups",
    "served",
]


class AdderClient(Connection):
    """Computes through the model at `target`; a context manager that closes the channel.

    Arguments as of Connection. Without version and label the client asks for the label `stable`. Where the server does
    not know that, it asks for the newest version, which a warning of the logger bitsum.client says once, and tries the
    label again after 10 seconds (serving.client.protocol.LABEL_SECONDS). With label="" it asks for the newest version at once.

    Args:
        signature: through which to ask in place of the task's own `<verb>_bits`, and likewise for packed bits.

    Raises:
        ValueError: as Connection; or no task has such a signature.
    """

    protocol_type = AdderProtocol
    _protocol: AdderProtocol

    def __init__(self, target: str, model_name: str = "bitsum", signature: str | None = None, **options: Any):
        super().__init__(target, model_name, **options)
        self._protocol.use_signature(signature)

    def __enter__(self) -> "AdderClient":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def add(self, a: int, b: int) -> int:
        """a + b, for integers from 0 up of any size. Raises: ServingError."""
        return self.add_many([(a, b)])[0]

    def add_many(self, pairs: Iterable[tuple[int, int]]) -> list[int]:
        """The sum of every pair; as `apply`."""
        return self.apply(ADDITION, pairs)

    def subtract(self, a: int, b: int) -> int:
        """a - b, negative where a < b, by a model for subtraction; else as `add`."""
        return self.apply(SUBTRACTION, [(a, b)])[0]

    def is_greater(self, a: int, b: int) -> bool:
        """Whether a > b, by a model for comparison; else as `add`."""
        return bool(self.apply(COMPARISON, [(a, b)])[0])

    def apply(self, task: Transducer, pairs: Iterable[tuple[int, int]]) -> list[int]:
        """What the outputs say for every pair, in the order of the pairs, with as few calls as padding and message size
        allow.

        Args:
            task: what the model was trained for, which names its signatures and says how its outputs are read: an int,
            or a
                bool for a verdict.
            pairs: integers from 0 up of any size.

        Raises:
            InvalidNumber: before anything is sent.
            ServingError: as the module says.
        """
        return self._result(self._protocol.apply(task, pairs))

    def add_stream(self, a: Iterable[bytes], b: Iterable[bytes], task: Transducer = ADDITION) -> Iterator[bytes]:
        """The sum of two numbers of any size, in constant memory: little-endian bytes in pieces of any size, in and
        out.

        For operands of N_a and N_b bytes, max(N_a, N_b) + 1 bytes come out, the last carry being bit 0 of the last
        byte. For another `task` come the bytes of the model's outputs: a difference in two's complement, or verdicts,
        each on the bits so far. All of them are computed by one version. Where that is unloaded meanwhile, the next one
        begins again if both operands can be iterated over again, as a list or FilePieces can and an open file or a
        generator cannot.

        Raises:
            ServingError: as the module says, in the middle of the iteration too.
        """
        return self._drive(stream(self._protocol, task, all(map(is_replayable, (a, b)))), (a, b))

    def outputs_at_once(self, pairs: Sequence[tuple[int, int]], length: int, verb: str = signatures.ADD) -> list[int]:
        """The length + 1 outputs for each pair of at most `length` bits, as the bits of an integer, by one call of
        `<verb>_bits`.

        For a model that adds these integers are the sums.

        Raises:
            ServingError: as the module says.
        """
        return self._result(self._protocol.outputs_at_once(pairs, length, verb))

    def outputs_streamed(
        self, pairs: Sequence[tuple[int, int]], length: int, chunk_bits: int = CHUNK_BITS
    ) -> list[int]:
        """As `outputs_at_once`, by calls of `step`, which every model has, each for `chunk_bits` bits of every pair.

        A state means something to the version that made it only, so that a stream keeps to the version it began with,
        and begins again where that one is unloaded meanwhile.

        Raises:
            ServingError: as the module says.
        """
        return self._result(self._protocol.outputs_streamed(pairs, length, chunk_bits))

    def outputs_packed(self, pairs: Sequence[tuple[int, int]], length: int, verb: str = signatures.ADD) -> list[int]:
        """The 8 * (length // 8 + 1) outputs for each pair of at most `length` bits, as the bits of an integer, by
        `<verb>_packed`.

        Long numbers go in several calls, as in `outputs_streamed`.

        Raises:
            ServingError: as the module says.
        """
        return self._result(self._protocol.outputs_packed(pairs, length, verb))


def served(target: str, model_name: str = "bitsum", deadline: float = 10.0) -> list[VersionStatus]:
    """The versions that the server at `target` knows of `model_name`, newest first. Raises: ServingError."""
    with AdderClient(target, model_name, deadline=deadline) as client:
        return client.status()
