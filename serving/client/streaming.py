"""Numbers longer than memory: the exchange that reads two operands piece by piece and writes their sum piece by
piece.

Little-endian bytes in, little-endian bytes out. While the server works on a call, the next pieces are read and the last
sum is handed on; the calls themselves follow each other, since each starts from the state that the one before ended
with.
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
    """The bytes of a file in pieces, from the beginning each time they are iterated over.

    Raises:
        BitsumError: while iterating, when the file cannot be read.
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
    """Whether it can be iterated over again, as a list can and an open file or a generator cannot."""
    return (aiter(operand) if isinstance(operand, AsyncIterable) else iter(operand)) is not operand


def stream(protocol: AdderProtocol, task: Transducer, replayable: bool) -> Exchange[None]:
    """Writes max(N_a, N_b) + 1 bytes, the outputs of `task`, for inputs 0 and 1 of N_a and N_b bytes.

    Keeps to one version. When that goes away and the inputs are `replayable`, all is computed again by the version that
    answers then, and what was written already is compared with it.

    Raises:
        VersionGone: the version went away, and the inputs cannot be read again, or too many versions went away.
        BadResponse: another version gives other bytes than those that were written.
        ServingError: as serving.client says.
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
                why = "its input cannot be read again" if not replayable else f"so did {RESTARTS} versions before it"
                raise VersionGone(
                    f"version {model.version} of {protocol.model_name} at {protocol.target} went away in the middle of a stream, "
                    f"after {written.count} bytes of the sum, and {why}: start it again",
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
    """Both operands in chunks of the same size, the shorter one followed by zeros, and both by a zero byte for the last
    carry."""

    def __init__(self):
        self._held = bytearray(), bytearray()
        self._ended = [False, False]
        self._flushed = False

    def read(self, size: int) -> Exchange[tuple[bytes, bytes]]:
        """The next `size` bytes of each, or fewer at the end, or none after it."""
        for source, held in enumerate(self._held):
            while len(held) < size and not self._ended[source]:
                piece = yield Read(source)
                if piece is END:
                    self._ended[source] = True
                elif not isinstance(piece, (bytes, bytearray, memoryview)):
                    raise InvalidNumber(f"a stream gave {piece!r}, no bytes: an operand has to be an iterable of bytes")
                else:
                    held += piece
        length = min(size, max(map(len, self._held)))
        if length < size and not self._flushed:
            self._flushed = True
            length += 1
        chunks = [bytes(held[:length]).ljust(length, b"\0") for held in self._held]
        for held in self._held:
            del held[:length]
        return chunks[0], chunks[1]


class _WrittenDigest:
    """Knows what was written by a digest of it, so that a replay is handed on from there, after a comparison."""

    def __init__(self, target: str):
        self.count = 0
        self._target = target
        self._digest = hashlib.blake2b()
        self.begin_again()

    def begin_again(self) -> None:
        """The outputs come from the first byte on again."""
        self._replayed = 0
        self._again = hashlib.blake2b()

    def unwritten(self, data: bytes) -> bytes:
        """What of the next bytes was not written yet. Raises: BadResponse, when a replay differs from what was
        written."""
        old, new = data[: self.count - self._replayed], data[self.count - self._replayed :]
        if old:
            self._again.update(old)
            self._replayed += len(old)
            if self._replayed == self.count and self._again.digest() != self._digest.digest():
                raise BadResponse(
                    f"{self._target} answered other outputs than the version before it, in the first {self.count} bytes"
                )
        self._digest.update(new)
        self._again.update(new)
        self._replayed += len(new)
        self.count += len(new)
        return new
