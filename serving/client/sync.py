"""The blocking client; serving.client shows its use."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from typing_extensions import Self

from components import signatures
from components.task.transducer import ADDITION, COMPARISON, SUBTRACTION, Transducer
from serving import defaults
from serving.client.adder_protocol import AdderProtocol
from serving.client.chunking import CHUNK_BITS
from serving.client.connection import Connection, VersionStatus
from serving.client.streaming import is_replayable, stream


class AdderClient(Connection):
    """Computes with the model at `target`; a context manager that closes the channel.

    Arguments as for Connection. Without version and label the client uses the label `stable`. If the server does not
    know that label, the client uses the newest version, logs one warning to the logger bitsum.client, and tries the
    label again after 10 seconds (serving.client.protocol.LABEL_SECONDS). label="" always means the newest version.

    Args:
        signature: used in place of the task's own `<verb>_bits`; its verb also replaces that of `<verb>_packed`.
        max_batch_size: rows of one call; more pairs take several calls. A server with batching refuses more than its
            own max_batch_size, 1,000 by default; the client then halves the rows, and keeps the smaller number.

    Raises:
        ValueError: as for Connection; no task has such a signature; or max_batch_size is no integer from 1.
        InvalidAddress: as for Connection.
    """

    protocol_type = AdderProtocol
    _protocol: AdderProtocol

    def __init__(
        self,
        target: str,
        model_name: str = defaults.MODEL_NAME,
        signature: str | None = None,
        max_batch_size: int = defaults.BATCH_SIZE,
        **options: Any,
    ):
        super().__init__(target, model_name, **options)
        self._protocol.use_signature(signature)
        self._protocol.use_batch_size(max_batch_size)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def add(self, a: int, b: int) -> int:
        """a + b, for non-negative integers of any size. Raises: ServingError."""
        return self.add_many([(a, b)])[0]

    def add_many(self, pairs: Iterable[tuple[int, int]]) -> list[int]:
        """The sum of every pair; see `apply`."""
        return self.apply(ADDITION, pairs)

    def subtract(self, a: int, b: int) -> int:
        """a - b, negative where a < b, by a model for subtraction; otherwise as `add`."""
        return self.apply(SUBTRACTION, [(a, b)])[0]

    def is_greater(self, a: int, b: int) -> bool:
        """Whether a > b, by a model for comparison; otherwise as `add`."""
        return bool(self.apply(COMPARISON, [(a, b)])[0])

    def apply(self, task: Transducer, pairs: Iterable[tuple[int, int]]) -> list[int]:
        """The result for every pair, in the order of the pairs, in as few calls as padding and message size allow.

        Args:
            task: the model's task, which names its signatures and gives the type of the results: int, or bool for a
                comparison.
            pairs: non-negative integers of any size.

        Raises:
            InvalidNumber: before anything is sent.
            ServingError: see serving.client.
        """
        return self._result(self._protocol.apply(task, pairs))

    def add_stream(self, a: Iterable[bytes], b: Iterable[bytes], task: Transducer = ADDITION) -> Iterator[bytes]:
        """The sum of two numbers of any size, in constant memory: little-endian bytes in pieces of any size.

        Operands of N_a and N_b bytes give max(N_a, N_b) + 1 bytes; bit 0 of the last byte is the last carry. Another
        `task` gives the bytes of the model's outputs: a difference in two's complement, or verdicts on the bits so far.
        One version computes all of them. If it is unloaded meanwhile, the next version starts again, provided that both
        operands can be iterated over again: a list or FilePieces can, an open file or a generator cannot.

        Raises:
            ServingError: see serving.client; also in the middle of the iteration.
        """
        return self._drive(stream(self._protocol, task, all(map(is_replayable, (a, b)))), (a, b))

    def outputs_at_once(self, pairs: Sequence[tuple[int, int]], length: int, verb: str = signatures.ADD) -> list[int]:
        """The length + 1 outputs for each pair of at most `length` bits, as the bits of an integer, by one call of
        `<verb>_bits`.

        For a model that adds, these integers are the sums.

        Raises:
            ServingError: see serving.client.
        """
        return self._result(self._protocol.outputs_at_once(pairs, length, verb))

    def outputs_streamed(
        self, pairs: Sequence[tuple[int, int]], length: int, chunk_bits: int = CHUNK_BITS
    ) -> list[int]:
        """As `outputs_at_once`, by calls of `step`, which every model has, each for `chunk_bits` bits of every pair.

        A state is valid for its own version only, so a stream is pinned to the version of its first call. If that
        version is unloaded meanwhile, the stream restarts.

        Raises:
            ServingError: see serving.client.
        """
        return self._result(self._protocol.outputs_streamed(pairs, length, chunk_bits))

    def outputs_packed(self, pairs: Sequence[tuple[int, int]], length: int, verb: str = signatures.ADD) -> list[int]:
        """The 8 * (length // 8 + 1) outputs for each pair of at most `length` bits, as the bits of an integer, by
        `<verb>_packed`.

        Long numbers take several calls, as in `outputs_streamed`.

        Raises:
            ServingError: see serving.client.
        """
        return self._result(self._protocol.outputs_packed(pairs, length, verb))


def served(
    target: str, model_name: str = defaults.MODEL_NAME, deadline: float = defaults.DEADLINE
) -> list[VersionStatus]:
    """The versions of `model_name` that the server at `target` knows, newest first. Raises: ServingError."""
    with AdderClient(target, model_name, deadline=deadline) as client:
        return client.status()
