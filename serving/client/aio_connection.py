"""serving.client.connection for asyncio: the same exchanges, driven on the running event loop."""

import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterable, Iterable, Mapping, Sequence
from typing import Any

import grpc
import grpc.aio

from serving.client.connection import _BaseConnection
from serving.client.protocol import (
    END,
    Answer,
    AwaitCall,
    Call,
    Exchange,
    ModelMetadata,
    Prediction,
    Read,
    Result,
    Rewind,
    StartCall,
    VersionStatus,
    Write,
)
from serving.errors import ServingError

Pieces = Iterable[bytes] | AsyncIterable[bytes]


class AsyncConnection(_BaseConnection):
    """Requests to `model_name` at `target`; arguments as for Connection, with a `channel` of grpc.aio.

    Belongs to the event loop of its first call; no loop needs to run before that.
    """

    channels = grpc.aio

    def __init__(self, target: str, model_name: str, **options: Any):
        super().__init__(target, model_name, **options)
        self._methods: dict[str, Any] = {}

    async def close(self) -> None:
        """Close the channel, unless it was passed in."""
        if self._own_channel is not None:
            await self._own_channel.close()

    async def predict(
        self, signature: str, inputs: Mapping[str, Any], outputs: Sequence[str] = (), version: int | None = None
    ) -> Prediction:
        """As Connection.predict."""
        return await self._result(self._protocol.predict(signature, inputs, outputs, version))

    async def metadata(self) -> ModelMetadata:
        """As Connection.metadata."""
        return await self._result(self._protocol.metadata())

    async def status(self) -> list[VersionStatus]:
        """As Connection.status."""
        return await self._result(self._protocol.status())

    async def _result(self, exchange: Exchange[Result]) -> Result:
        """Drive an exchange without inputs and outputs."""
        run = _Run(self, exchange, ())
        async for _ in run.outputs():
            raise AssertionError("the exchange writes")
        result: Result = run.result
        return result

    async def _drive(self, exchange: Exchange[None], sources: Sequence[Pieces]) -> AsyncGenerator[bytes, None]:
        """Yield the outputs of the exchange."""
        async with contextlib.aclosing(_Run(self, exchange, sources).outputs()) as outputs:
            async for data in outputs:
                yield data

    def _start_call(self, call: Call) -> "_PendingCall":
        if not self._methods:
            # A channel of grpc.aio belongs to the loop that creates it.
            self._methods = self._open()
        return _PendingCall(self, call)


class _Run:
    """One exchange being driven; `result` is its result."""

    def __init__(self, connection: AsyncConnection, exchange: Exchange[Any], sources: Sequence[Pieces]):
        self.result: Any = None
        self._connection = connection
        self._exchange = exchange
        self._sources = sources

    async def outputs(self) -> AsyncGenerator[bytes, None]:
        inputs = [_pieces(source) for source in self._sources]
        pending: _PendingCall | None = None
        outcome: Any = None
        failure: ServingError | None = None
        try:
            while True:
                try:
                    step = self._exchange.throw(failure) if failure else self._exchange.send(outcome)
                except StopIteration as end:
                    self.result = end.value
                    return
                outcome = failure = None
                match step:
                    case Call() | AwaitCall():
                        pending = step.pending if isinstance(step, AwaitCall) else self._connection._start_call(step)
                        try:
                            outcome = await pending.answer()
                        except grpc.RpcError as error:
                            failure = self._connection._failure(error)
                            failure.__cause__ = error
                    case StartCall(call):
                        outcome = pending = self._connection._start_call(call)
                    case Read(source):
                        outcome = await anext(inputs[source], END)
                    case Write(data):
                        yield data
                    case Rewind():
                        inputs = [_pieces(source) for source in self._sources]
        finally:
            if pending:
                pending.cancel()
            self._exchange.close()
            for pieces in inputs:
                await pieces.aclose()


class _PendingCall:
    """A call in flight."""

    def __init__(self, connection: AsyncConnection, call: Call):
        self._connection = connection
        self._call = call
        self._start = self._end = time.perf_counter()
        self._response = connection._methods[call.method](call.request, timeout=connection.deadline)
        self._response.add_done_callback(self._done)

    async def answer(self) -> Answer:
        response = await self._response
        # The callback may come after the result.
        end = self._end if self._end > self._start else time.perf_counter()
        return self._connection._observed(self._call, response, end - self._start)

    def cancel(self) -> None:
        self._response.cancel()

    def _done(self, _: Any) -> None:
        self._end = time.perf_counter()


async def _pieces(source: Pieces) -> AsyncGenerator[bytes, None]:
    if isinstance(source, AsyncIterable):
        async for piece in source:
            yield piece
    else:
        for piece in source:
            yield piece
