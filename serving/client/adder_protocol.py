"""The exchanges of a client that adds: turns sums into calls and answers into numbers, without any I/O.

A single short pair takes one call of `<verb>_bits`, without the model's metadata. Many short pairs and long numbers are
sent as packed bytes (`<verb>_packed`), long numbers in chunks; a model without that signature gets them through
`<verb>_bits` and `step`.

The verb is the task's, so a model for another task lacks these signatures. `step` has the same name for every task, so
the client reads the metadata before it; it also reads them after a refused single pair, to name the model's task in the
error.

Rows are little-endian bytes (components.signatures, <verb>_packed). B rows, H units.
"""

import collections
import math
import operator
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, SupportsIndex

from components import signatures
from components.progress import report
from components.task.addition import abbreviated
from components.task.transducer import TASKS, Transducer
from serving import defaults, labels, tensors
from serving.client.chunking import CHUNK_BITS, PACKED, STEPPED, ChunkSizer, Model
from serving.client.protocol import (
    Answer,
    Call,
    Exchange,
    ModelMetadata,
    ModelProtocol,
    Prediction,
    Result,
    check_count,
)
from serving.errors import BadResponse, InvalidNumber, InvalidRequest, ModelNotFound

# Bits of an operand in one call of <verb>_bits. A bit takes 8 bytes, so two operands fill half a message of 4 MiB.
CALL_BITS = 131_072
# The refusal of a server that batches (batching_session.cc of TensorFlow Serving).
_TOO_MANY_ROWS = re.compile(r"Task size \d+ is larger than maximum")
# Restarts of a stream whose pinned version was unloaded.
RESTARTS = 3


class AdderProtocol(ModelProtocol):
    """The exchanges with a model that computes addition or another task of components.task.transducer."""

    preferred_label = labels.STABLE

    def __init__(self, *arguments: Any):
        super().__init__(*arguments)
        self._sizer = ChunkSizer(self.deadline)
        self._models: dict[str, Model] = {}
        self._given_verb = ""
        self._batch_size = defaults.BATCH_SIZE

    def use_batch_size(self, batch_size: int) -> None:
        """Send at most `batch_size` rows in a call. Raises: ValueError, if it is no integer from 1."""
        check_count("max_batch_size", batch_size)
        self._batch_size = batch_size

    def use_signature(self, signature: str | None) -> None:
        """Use `signature`, a `<verb>_bits`, and `<verb>_packed` for every task; None for the signatures of each task.

        Raises:
            ValueError: no task has such a signature.
        """
        verbs = {signatures.bits(task.verb): task.verb for task in TASKS.values()}
        if signature is not None and signature not in verbs:
            raise ValueError(f"signature = {signature!r} must be one of {', '.join(verbs)}")
        self._given_verb = verbs[signature] if signature else ""

    def verb(self, task: Transducer) -> str:
        """The verb in the names of the signatures used for `task`."""
        return self._given_verb or task.verb

    def apply(self, task: Transducer, pairs: Iterable[tuple[int, int]]) -> Exchange[list[int]]:
        """The result for every pair, in the order of the pairs."""
        verb = self.verb(task)
        pairs = [(_check_operand(a), _check_operand(b)) for a, b in pairs]
        lengths = [_length(pair) for pair in pairs]
        values = [0] * len(pairs)
        at_once = sum(lengths) <= CHUNK_BITS
        waiting = collections.deque(groups(lengths))
        while waiting:
            indices = waiting.popleft()
            if len(indices) > self._batch_size:
                waiting.extendleft([indices[self._batch_size :], indices[: self._batch_size]])
                continue
            batch = [pairs[index] for index in indices]
            try:
                rows, count = yield from self._outputs(batch, max(map(_length, batch)), verb, at_once)
            except InvalidRequest as refusal:
                if len(batch) == 1 or not _TOO_MANY_ROWS.search(str(refusal)):
                    raise
                self._batch_size = min(self._batch_size, len(batch) // 2)
                waiting.appendleft(indices)
                continue
            for index, outputs in zip(indices, rows, strict=True):
                values[index] = task.read(outputs, count)
        return values

    def outputs_at_once(self, pairs: Sequence[tuple[int, int]], length: int, verb: str) -> Exchange[list[int]]:
        """The length + 1 outputs for each pair, as the bits of an integer, by one call of `<verb>_bits`."""
        name = signatures.bits(verb)
        a, b = (tensors.bits_tensor(numbers, length) for numbers in zip(*pairs, strict=True))
        try:
            answer = yield from self.predict(name, {signatures.A: a, signatures.B: b}, [signatures.SUM])
        except InvalidRequest as refusal:
            if f'"{name}" not found' in str(refusal):
                self._require(verb, (yield from self.metadata()))
            raise
        return [int(row[::-1], 2) for row in self._digits(answer.outputs[signatures.SUM], (len(pairs), length + 1))]

    def outputs_streamed(
        self, pairs: Sequence[tuple[int, int]], length: int, chunk_bits: int, verb: str = ""
    ) -> Exchange[list[int]]:
        """As `outputs_at_once`, by calls of `step` for `chunk_bits` bits of each pair; without a verb, of any model."""
        return (yield from self._restarting(lambda: self._steps(pairs, length + 1, chunk_bits, verb)))

    def outputs_packed(self, pairs: Sequence[tuple[int, int]], length: int, verb: str) -> Exchange[list[int]]:
        """The 8 * (length // 8 + 1) outputs for each pair, as the bits of an integer, by calls of `<verb>_packed`."""
        size = length // 8 + 1
        operands = [[number.to_bytes(size, "little") for number in numbers] for numbers in zip(*pairs, strict=True)]
        if length <= CHUNK_BITS:
            rows = yield from self._packed_at_once(operands, verb)
        else:
            rows = yield from self._restarting(lambda: self._chunks(operands, size, verb))
        return [int.from_bytes(row, "little") for row in rows]

    def model(self, verb: str, fresh: bool = False) -> Exchange[Model]:
        """The version that answers: cached, or read from the server if `fresh`. Raises: InvalidRequest, for another
        verb."""
        if verb not in self._models or fresh:
            metadata = yield from self.metadata()
            self._require(verb, metadata)
            packed = signatures.packed(verb)
            name, encoding = (packed, PACKED) if packed in metadata.signatures else (signatures.STEP, STEPPED)
            self._models[verb] = Model(metadata.version, name, encoding, self._units(metadata, name))
        return self._models[verb]

    def prediction(self, answer: Answer, signature: str, outputs: Sequence[str]) -> Prediction:
        """As ModelProtocol.prediction."""
        prediction = super().prediction(answer, signature, outputs)
        if any(model.version != prediction.version for model in self._models.values()):
            self._models.clear()
        return prediction

    def initial_state(self, model: Model, rows: int) -> Any:
        """The state [B, H] before the first bit. Raises: InvalidRequest, if the model takes no state."""
        if model.units is None:
            raise InvalidRequest(
                f"{self.model_name} at {self.target} has no signature {model.signature}, which long numbers need"
            )
        return tensors.filled_tensor(0.0, (rows, model.units))

    def chunk_call(
        self, model: Model, rows_a: Sequence[bytes], rows_b: Sequence[bytes], state: Any, version: int | None
    ) -> Call:
        """The call for one chunk of every row from `state` on."""
        encode = model.encoding.encode
        inputs = {signatures.A: encode(rows_a), signatures.B: encode(rows_b), signatures.STATE: state}
        return self.predict_call(model.signature, inputs, [signatures.SUM, signatures.STATE], version)

    def chunk_result(self, model: Model, answer: Answer, rows: int, size: int) -> tuple[list[bytes], Any]:
        """The outputs of `chunk_call` and the state after them. Raises: BadResponse."""
        prediction = self.prediction(answer, model.signature, [signatures.SUM, signatures.STATE])
        try:
            outputs = model.encoding.decode(prediction.outputs[signatures.SUM], rows, size)
        except ValueError as error:
            raise BadResponse(f"{self.target} returned {error}") from error
        return outputs, self._state(prediction.outputs[signatures.STATE], (rows, model.units))

    def chunk_bytes(self, model: Model, rows: int = 1) -> int:
        """Bytes of each row for the next call."""
        return max(1, min(self._sizer.size, model.encoding.max_bytes) // rows)

    def record(self, size: int, seconds: float) -> None:
        """Record a call of `size` bytes, all rows together, that took `seconds`."""
        self._sizer.record(size, seconds)

    def _outputs(
        self, pairs: Sequence[tuple[int, int]], length: int, verb: str, at_once: bool = False
    ) -> Exchange[tuple[list[int], int]]:
        """The outputs for each pair and their number, by one call of `<verb>_bits` or the model's best signature."""
        if at_once:
            return (yield from self.outputs_at_once(pairs, length, verb)), length + 1
        model = yield from self.model(verb)
        if model.encoding is PACKED:
            try:
                return (yield from self.outputs_packed(pairs, length, verb)), 8 * (length // 8 + 1)
            except InvalidRequest:
                # Another version may answer by now, with a state of another size or without this signature.
                if (yield from self.model(verb, fresh=True)) == model:
                    raise
            return (yield from self._outputs(pairs, length, verb))
        if length <= CHUNK_BITS:
            return (yield from self.outputs_at_once(pairs, length, verb)), length + 1
        return (yield from self.outputs_streamed(pairs, length, CHUNK_BITS, verb)), length + 1

    def _packed_at_once(self, operands: Sequence[Sequence[bytes]], verb: str) -> Exchange[list[bytes]]:
        rows, size = len(operands[0]), len(operands[0][0])
        model = yield from self.model(verb)
        a, b = map(PACKED.encode, operands)
        inputs = {signatures.A: a, signatures.B: b, signatures.STATE: self.initial_state(model, rows)}
        prediction = yield from self.predict(signatures.packed(verb), inputs, [signatures.SUM])
        try:
            return PACKED.decode(prediction.outputs[signatures.SUM], rows, size)
        except ValueError as error:
            raise BadResponse(f"{self.target} returned {error}") from error

    def _chunks(self, operands: Sequence[Sequence[bytes]], size: int, verb: str) -> Exchange[list[bytes]]:
        """The outputs for rows of `size` bytes, chunk by chunk."""
        model = yield from self.model(verb, fresh=True)
        rows = len(operands[0])
        state, written, start = self.initial_state(model, rows), [bytearray() for _ in range(rows)], 0
        while start < size:
            length = min(self.chunk_bytes(model, rows), size - start)
            a, b = ([number[start : start + length] for number in numbers] for numbers in operands)
            answer = yield self.chunk_call(model, a, b, state, model.version)
            self.record(rows * length, answer.seconds)
            outputs, state = self.chunk_result(model, answer, rows, length)
            for row, piece in zip(written, outputs, strict=True):
                row += piece
            start += length
            report("stream", step=8 * start, of=8 * size, unit="bits")
        return [bytes(row) for row in written]

    def _steps(self, pairs: Sequence[tuple[int, int]], length: int, chunk_bits: int, verb: str) -> Exchange[list[int]]:
        metadata = yield from self.metadata()
        if verb:
            self._require(verb, metadata)
        model = Model(metadata.version, signatures.STEP, STEPPED, self._units(metadata, signatures.STEP))
        state = self.initial_state(model, len(pairs))
        operands = [[f"{number:0{length}b}"[::-1] for number in numbers] for numbers in zip(*pairs, strict=True)]
        written = [bytearray() for _ in pairs]
        for start in range(0, length, chunk_bits):
            shape = len(pairs), min(chunk_bits, length - start)
            a, b = (_chunk(numbers, start, shape) for numbers in operands)
            inputs = {signatures.A: a, signatures.B: b, signatures.STATE: state}
            answer = yield from self.predict(signatures.STEP, inputs, [signatures.SUM, signatures.STATE], model.version)
            for row, piece in zip(written, self._digits(answer.outputs[signatures.SUM], shape), strict=True):
                row += piece
            state = self._state(answer.outputs[signatures.STATE], (len(pairs), model.units))
            report("stream", step=start + shape[1], of=length, unit="bits")
        return [int(row[::-1], 2) for row in written]

    def _restarting(self, exchange: Callable[[], Exchange[Result]]) -> Exchange[Result]:
        """Restart with another version when the pinned one is unloaded: a state is valid for its own version only."""
        for _ in range(RESTARTS):
            try:
                return (yield from exchange())
            except ModelNotFound:
                if self.version is not None:
                    raise
        return (yield from exchange())

    def _require(self, verb: str, metadata: ModelMetadata) -> None:
        """Raises: InvalidRequest, if the version has no signature with this verb; the text says what to do."""
        name = signatures.bits(verb)
        if name in metadata.signatures:
            return
        model = f"{self.model_name} at {self.target} (version {metadata.version})"
        problem = f"{model} does not {verb}: it has no signature {name}"
        others = [task for task in TASKS.values() if signatures.bits(task.verb) in metadata.signatures]
        if not others:
            raise InvalidRequest(
                f"{problem}, nor that of another task; name a model that bitsum exported (--model_name)"
            )
        other = others[0]
        advice = f"it computes {other.name}: call it with bitsum {other.verb}"
        if self._given_verb:
            advice += " and without --signature"
        elif other.verb == signatures.ADD:
            advice += f"; if its export format is 1 and it does {verb}, give --signature {signatures.ADD_BITS}"
        raise InvalidRequest(
            f"{problem} but {signatures.bits(other.verb)}; {advice}; or name another model (--model_name)"
        )

    def _units(self, metadata: ModelMetadata, name: str) -> int | None:
        signature = metadata.signatures.get(name)
        if signature is None:
            return None
        info = signature.inputs.get(signatures.STATE)
        if info is None or info.shape is None or len(info.shape) != 2 or info.shape[1] < 1:
            raise BadResponse(f"{self.target} declares the state of {name} as {info}, not of the shape [B, units]")
        return info.shape[1]

    def _state(self, tensor: tensors.Tensor, shape: tuple[int, int | None]) -> Any:
        if tensor.dtype != tensors.FLOAT or tensor.shape != shape:
            raise BadResponse(
                f"{self.target} returned a state {tensor.dtype} {list(tensor.shape)}, not float32 {list(shape)}"
            )
        if not math.isfinite(math.fsum(tensor.values)):
            raise BadResponse(f"{self.target} returned a state that is not finite")
        return tensors.float_tensor(tensor.values, tensor.shape)

    def _digits(self, tensor: tensors.Tensor, shape: tuple[int, int]) -> Iterator[bytes]:
        if tensor.shape != shape:
            raise BadResponse(f"{self.target} returned a sum of shape {list(tensor.shape)}, not {list(shape)}")
        try:
            digits = tensors.bit_digits(tensor)
        except ValueError as error:
            raise BadResponse(f"{self.target} returned {error}") from error
        return (digits[row * shape[1] : (row + 1) * shape[1]] for row in range(shape[0]))


def groups(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Indices of `lengths` in groups, one for each call.

    The longest of a group is at most twice the shortest, or 16 bits, so that there is less padding than
    data. Rows times bits, at most a chunk of them for long numbers, stay below CALL_BITS.
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


def _check_operand(number: SupportsIndex) -> int:
    try:
        if isinstance(number, bool):
            raise TypeError("a truth value has an index as well")
        value = operator.index(number)
    except TypeError as error:
        raise InvalidNumber(f"{number!r} is not an integer: an operand must be a non-negative integer") from error
    if value < 0:
        raise InvalidNumber(f"{abbreviated(value)} is negative: an operand must be a non-negative integer")
    return value


def _length(pair: tuple[int, int]) -> int:
    return max(1, pair[0].bit_length(), pair[1].bit_length())


def _chunk(numbers: Sequence[str], start: int, shape: tuple[int, int]) -> Any:
    return tensors.bit_digits_tensor("".join(number[start : start + shape[1]] for number in numbers).encode(), shape)
