"""Numbers larger than memory: the exchange that reads two operands and writes their sum piece by piece.

Little-endian bytes in, little-endian bytes out. While the server works on a call, the exchange reads the next pieces
and writes the last sum. The calls run one after the other, since each starts from the state of the one before.
"""

import hashlib
import os
from collections.abc import AsyncIterable, Iterable, Iterator

from components.errors import BitsumError
from components.task.transducer import Transducer
from serving.client.adder_protocol import RESTARTS, AdderProtocol
from serving.client.chunking import Model
from serving.client.protocol import END, AwaitCall, Exchange, Read, Rewind, StartCall, Write
from serving.errors import BadResponse, InvalidNumber, ModelNotFound, VersionGone


class FilePieces:
    """The bytes of a file in pieces; each iteration starts at the beginning.

    Raises:
        BitsumError: while iterating, if the file cannot be read.
    """

    def __init__(self, path: str | os.PathLike[str], piece_bytes: int = 2**18):
        self._path = path
        self._piece_bytes = piece_bytes

    def __iter__(self) -> Iterator[bytes]:
        try:
            with open(self._path, "rb") as file:
                while piece := file.read(self._piece_bytes):
                    yield piece
        except OSError as error:
            raise BitsumError(f"cannot read {os.fspath(self._path)}: {error.strerror}") from error


def is_replayable(operand: Iterable[bytes] | AsyncIterable[bytes]) -> bool:
    """Whether `operand` can be iterated over again: a list can, an open file or a generator cannot."""
    return (aiter(operand) if isinstance(operand, AsyncIterable) else iter(operand)) is not operand


def stream(protocol: AdderProtocol, task: Transducer, replayable: bool) -> Exchange[None]:
    """Write max(N_a, N_b) + 1 bytes, the outputs of `task`, for inputs 0 and 1 of N_a and N_b bytes.

    One version computes the whole stream. If it is unloaded and the inputs are `replayable`, the version that answers
    then computes everything again, and the bytes already written are compared with its own.

    Raises:
        VersionGone: the version was unloaded, and the inputs cannot be read again, or too many versions were unloaded.
        BadResponse: another version computes bytes that differ from those already written.
        ServingError: see serving.client.
    """
    written = _WrittenDigest(protocol.target)
    for restart in range(RESTARTS + 1):
        model = yield from protocol.model(protocol.verb(task), fresh=True)
        try:
            return (yield from _stream(protocol, model, written))
        except ModelNotFound as error:
            if protocol.version is not None:
                raise
            if not replayable or restart == RESTARTS:
                why = f"as were {RESTARTS} versions before it" if replayable else "and its input cannot be read again"
                raise VersionGone(
                    f"version {model.version} of {protocol.model_name} at {protocol.target} was unloaded in the middle "
                    f"of a stream, after {written.count} bytes of the sum, {why}: start the stream again",
                    error.code,
                ) from error
            written.begin_again()
            yield Rewind()


def _stream(protocol: AdderProtocol, model: Model, written: "_WrittenDigest") -> Exchange[None]:
    state, operands, ready = protocol.initial_state(model, 1), _Operands(), b""
    a, b = yield from operands.read(protocol.chunk_bytes(model))
    while a:
        pending = yield StartCall(protocol.chunk_call(model, [a], [b], state, model.version))
        if fresh := written.unwritten(ready):
            yield Write(fresh)
        following = yield from operands.read(protocol.chunk_bytes(model))
        answer = yield AwaitCall(pending)
        protocol.record(len(a), answer.seconds)
        [ready], state = protocol.chunk_result(model, answer, 1, len(a))
        a, b = following
    if fresh := written.unwritten(ready):
        yield Write(fresh)


class _Operands:
    """Both operands in chunks of the same size: zeros pad the shorter one, and a zero byte takes the last carry."""

    def __init__(self) -> None:
        self._buffers = bytearray(), bytearray()
        self._ended = [False, False]
        self._flushed = False

    def read(self, size: int) -> Exchange[tuple[bytes, bytes]]:
        """The next `size` bytes of each: fewer at the end, none after it."""
        for source, buffer in enumerate(self._buffers):
            while len(buffer) < size and not self._ended[source]:
                piece = yield Read(source)
                if piece is END:
                    self._ended[source] = True
                elif not isinstance(piece, (bytes, bytearray, memoryview)):
                    raise InvalidNumber(f"a stream yielded {piece!r}: an operand must be an iterable of bytes")
                else:
                    buffer += piece
        length = min(size, max(map(len, self._buffers)))
        if length < size and not self._flushed:
            self._flushed = True
            length += 1
        chunks = [bytes(buffer[:length]).ljust(length, b"\0") for buffer in self._buffers]
        for buffer in self._buffers:
            del buffer[:length]
        return chunks[0], chunks[1]


class _WrittenDigest:
    """A digest of the bytes written, so that a replay is compared with them and continues after them."""

    def __init__(self, target: str):
        self.count = 0
        self._target = target
        self._digest = hashlib.blake2b()
        self.begin_again()

    def begin_again(self) -> None:
        """Expect the outputs from the first byte on."""
        self._replayed = 0
        self._again = hashlib.blake2b()

    def unwritten(self, data: bytes) -> bytes:
        """The part of the next bytes that was not written yet. Raises: BadResponse, if a replay differs."""
        old, new = data[: self.count - self._replayed], data[self.count - self._replayed :]
        if old:
            self._again.update(old)
            self._replayed += len(old)
            if self._replayed == self.count and self._again.digest() != self._digest.digest():
                raise BadResponse(f"{self._target} differs from the previous version in the first {self.count} bytes")
        self._digest.update(new)
        self._again.update(new)
        self._replayed += len(new)
        self.count += len(new)
        return new
