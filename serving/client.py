"""The client: Python integers of any size in, their sums out, added by the model that a server serves.

    with AdderClient("127.0.0.1:8500") as client:
        client.add(13, 29)                                   # 42
        client.add_many([(1, 2), (2**4096, 5)])

A model that was trained for another task (components.transducer) is asked in the same way, but for how its outputs are read;
the model does not say which task it computes, the caller has to know.

        client.subtract(13, 29)                              # -16
        client.is_greater(13, 29)                            # False
        client.apply(SUBTRACTION, [(1, 2), (2**4096, 5)])

Every call has a deadline. What can go wrong:

BitsumError
└── ServingError            any failure of asking; `code` is the gRPC status code's name, where there is one
    ├── ServerUnavailable   nobody listens there, or the connection broke
    ├── DeadlineExceeded    no answer within the deadline
    ├── ServerBusy          the server works on as many requests as it takes
    ├── ModelNotFound       no such model, or no such version of it
    ├── InvalidRequest      unknown label or signature, or the graph refused its inputs
    ├── BadResponse         an answer of the wrong dtype or shape, or with bits other than 0 and 1
    └── InvalidNumber       refused before anything is sent: negative, or no integer

An answer is whatever the model computed: the client checks the form of an answer, `bitsum probe` the arithmetic.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from components import signatures
from components.transducer import ADDITION, COMPARISON, SUBTRACTION, Transducer
from serving import tensors
from serving.connection import Connection, VersionStatus
from serving.errors import (
    BadResponse,
    DeadlineExceeded,
    InvalidNumber,
    InvalidRequest,
    ModelNotFound,
    ServerBusy,
    ServerUnavailable,
    ServingError,
)

__all__ = [
    "AdderClient", "BadResponse", "DeadlineExceeded", "InvalidNumber", "InvalidRequest", "ModelNotFound", "ServerBusy",
    "ServerUnavailable", "ServingError", "VersionStatus", "groups", "served",
]  # fmt: skip

# Numbers longer than this are sent piece by piece: a call then stays far from any deadline.
CHUNK_BITS = 4096
# Bits of an operand in one call. A bit takes 8 bytes, so two operands fill half of a message of 4 MiB.
CALL_BITS = 131_072
# How often a stream starts again because the version that it was pinned to went away.
_RESTARTS = 3


class AdderClient(Connection):
    """Computes through the model at `target`; arguments as of Connection. A context manager that closes the channel."""

    def __init__(self, target: str, model_name: str = "bitsum", **options):
        super().__init__(target, model_name, **options)

    def __enter__(self) -> "AdderClient":
        return self

    def __exit__(self, *_) -> None:
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
        return self.apply(COMPARISON, [(a, b)])[0]

    def apply(self, task: Transducer, pairs: Iterable[tuple[int, int]]) -> list[int]:
        """What the outputs say for every pair, in the order of the pairs, with as few calls as padding and message size allow.

        Args:
            task: what the model was trained for, which says how its outputs are read: an int, or a bool for a verdict.
            pairs: integers from 0 up of any size.

        Raises:
            InvalidNumber: before anything is sent.
            ServingError: as the module says.
        """
        pairs = [(_checked(a), _checked(b)) for a, b in pairs]
        values = [0] * len(pairs)
        for indices in groups([_length(pair) for pair in pairs]):
            batch = [pairs[index] for index in indices]
            length = max(map(_length, batch))
            ask = self.outputs_at_once if length <= CHUNK_BITS else self.outputs_streamed
            for index, outputs in zip(indices, ask(batch, length)):
                values[index] = task.read(outputs, length + 1)
        return values

    def outputs_at_once(self, pairs: Sequence[tuple[int, int]], length: int) -> list[int]:
        """The length + 1 outputs for each pair of at most `length` bits, as the bits of an integer, by one call of `add_bits`.

        For a model that adds these integers are the sums.

        Raises:
            ServingError: as the module says.
        """
        a, b = (tensors.bits_tensor(numbers, length) for numbers in zip(*pairs))
        answer = self.predict(signatures.ADD_BITS, {signatures.A: a, signatures.B: b}, [signatures.SUM])
        return [int(row[::-1], 2) for row in self._digits(answer.outputs[signatures.SUM], (len(pairs), length + 1))]

    def outputs_streamed(self, pairs: Sequence[tuple[int, int]], length: int, chunk_bits: int = CHUNK_BITS) -> list[int]:
        """As `outputs_at_once`, by calls of `step`, each for `chunk_bits` bits of every pair.

        A state means something to the version that made it only, so that a stream keeps to the version it began with, and
        begins again where that one is unloaded meanwhile.

        Raises:
            ServingError: as the module says.
        """
        for _ in range(_RESTARTS):
            try:
                return self._stream(pairs, length + 1, chunk_bits)
            except ModelNotFound:
                if self.version is not None:
                    raise
        return self._stream(pairs, length + 1, chunk_bits)

    def _stream(self, pairs: Sequence[tuple[int, int]], length: int, chunk_bits: int) -> list[int]:
        version, units = self._state_size()
        state = tensors.float_tensor([0.0] * (len(pairs) * units), (len(pairs), units))
        operands = [[f"{number:0{length}b}"[::-1] for number in numbers] for numbers in zip(*pairs)]
        written = [bytearray() for _ in pairs]
        for start in range(0, length, chunk_bits):
            shape = len(pairs), min(chunk_bits, length - start)
            a, b = (_chunk(numbers, start, shape) for numbers in operands)
            inputs = {signatures.A: a, signatures.B: b, signatures.STATE: state}
            answer = self.predict(signatures.STEP, inputs, [signatures.SUM, signatures.STATE], version)
            for row, piece in zip(written, self._digits(answer.outputs[signatures.SUM], shape)):
                row += piece
            state = self._state(answer.outputs[signatures.STATE], (len(pairs), units))
        return [int(row[::-1], 2) for row in written]

    def _state_size(self) -> tuple[int, int]:
        """The version that answers now, and the number of units of its state."""
        metadata = self.metadata()
        signature = metadata.signatures.get(signatures.STEP)
        if signature is None:
            raise InvalidRequest(f"{self.model_name} at {self.target} has no signature {signatures.STEP}, which long numbers need")
        info = signature.inputs.get(signatures.STATE)
        if info is None or info.shape is None or len(info.shape) != 2 or info.shape[1] < 1:
            raise BadResponse(f"{self.target} says that the state of {signatures.STEP} is {info}, not of the shape [B, units]")
        return metadata.version, info.shape[1]

    def _state(self, tensor: tensors.Tensor, shape: tuple[int, int]) -> Any:
        if tensor.dtype != tensors.FLOAT or tensor.shape != shape:
            raise BadResponse(f"{self.target} answered a state {tensor.dtype} {list(tensor.shape)}, not float32 {list(shape)}")
        if not math.isfinite(math.fsum(tensor.values)):
            raise BadResponse(f"{self.target} answered a state that is not finite")
        return tensors.float_tensor(tensor.values, shape)

    def _digits(self, tensor: tensors.Tensor, shape: tuple[int, int]) -> Iterator[bytes]:
        if tensor.shape != shape:
            raise BadResponse(f"{self.target} answered a sum of shape {list(tensor.shape)}, not {list(shape)}")
        try:
            digits = tensors.bit_digits(tensor)
        except ValueError as error:
            raise BadResponse(f"{self.target} answered {error}") from error
        return (digits[row * shape[1] : (row + 1) * shape[1]] for row in range(shape[0]))


def served(target: str, model_name: str = "bitsum", deadline: float = 10.0) -> list[VersionStatus]:
    """The versions that the server at `target` knows of `model_name`, newest first. Raises: ServingError."""
    with AdderClient(target, model_name, deadline=deadline) as client:
        return client.status()


def groups(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Indices of `lengths` in groups for one call each.

    In a group the longest is at most twice the shortest, or 16 bits, so that padding stays below the numbers themselves; rows
    times bits, at most a chunk of them for long numbers, stay below CALL_BITS.
    """
    group: list[int] = []
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        length = lengths[index]
        full = (len(group) + 1) * min(length, CHUNK_BITS) > CALL_BITS
        if group and (full or length > max(16, 2 * lengths[group[0]])):
            yield group
            group = []
        group.append(index)
    if group:
        yield group


def _checked(number: int) -> int:
    if not isinstance(number, int) or isinstance(number, bool):
        raise InvalidNumber(f"{number!r} is no integer: an operand has to be an integer from 0 up")
    if number < 0:
        raise InvalidNumber(f"{number} is negative: an operand has to be an integer from 0 up")
    return number


def _length(pair: tuple[int, int]) -> int:
    return max(1, pair[0].bit_length(), pair[1].bit_length())


def _chunk(numbers: Sequence[str], start: int, shape: tuple[int, int]) -> Any:
    return tensors.bit_digits_tensor("".join(number[start : start + shape[1]] for number in numbers).encode(), shape)
