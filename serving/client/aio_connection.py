"""serving.client.connection for asyncio: the same exchanges, driven on the running event loop."""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterable, Iterable, Mapping, Sequence
from typing import Any

import grpc
import grpc.aio

from serving.client.attempts import Attempts
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
from serving.errors import ClientClosed, ServingError

Pieces = Iterable[bytes] | AsyncIterable[bytes]


class AsyncConnection(_BaseConnection):
    """Requests to `model_name` at `target`; arguments as for Connection, with a `channel` of grpc.aio.

    No event loop needs to run before the first call. After a loop has ended, the next one opens its own channel, as in
    two asyncio.run in a row; two loops at the same time need a client each. A channel that is passed in belongs to the
    loop that made it.
    """

    channels = grpc.aio

    def __init__(self, target: str, model_name: str, **options: Any):
        super().__init__(target, model_name, **options)
        self._methods: dict[str, Any] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    async def close(self) -> None:
        """As Connection.close."""
        self._closed = True
        # The channel of a loop that has ended is closed when it is collected.
        if self._own_channel is not None and self._loop is asyncio.get_running_loop():
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

    async def _start_call(self, call: Call) -> "_PendingCall":
        self._use_running_loop()
        await self._slots.acquire()
        try:
            return _PendingCall(self, call)
        except BaseException:
            self._slots.release()
            raise

    async def _call(self, call: Call, attempts: Attempts | None = None) -> Answer:
        self._use_running_loop()
        attempts = attempts or self._attempts_at(call)
        # As in Connection, a call keeps its slot while it pauses.
        async with self._slots:
            while True:
                start = time.perf_counter()
                try:
                    response = await self._answer(self._invoke(call, attempts))
                except grpc.RpcError as error:
                    await self._pause(attempts, error, time.perf_counter() - start)
                else:
                    return self._observed(call, response, time.perf_counter() - start)

    def _use_running_loop(self) -> None:
        """Open the methods on the running loop, to which a channel of grpc.aio belongs.

        Raises:
            ClientClosed: the client is closed, or used by another loop, which still runs.
        """
        if self._closed:
            raise self._closed_error()
        loop = asyncio.get_running_loop()
        if self._loop is loop:
            return
        if self._loop is not None and self._loop.is_running():
            raise ClientClosed(
                f"the client of {self.target} belongs to another event loop, which still runs: make one for each loop"
            )
        self._loop, self._methods = loop, self._open()
        self._slots = asyncio.Semaphore(self._max_concurrent_calls)

    def _invoke(self, call: Call, attempts: Attempts) -> Any:
        if self._closed:
            raise self._closed_error()
        try:
            return self._methods[call.method](call.request, timeout=attempts.timeout)
        except grpc.aio.UsageError as error:
            raise self._closed_error() from error

    async def _answer(self, response: Any) -> Any:
        """Raises: ClientClosed; grpc.RpcError."""
        try:
            return await response
        except asyncio.CancelledError as error:
            # Closing the channel cancels its calls, and would seem to cancel the task that waits for one.
            if self._closed:
                raise self._closed_error() from error
            raise

    async def _pause(self, attempts: Attempts, error: grpc.RpcError, seconds: float) -> None:
        """As Connection._pause."""
        pause = attempts.pause(error.code().name, error.details() or "", seconds)
        if pause is None:
            # In a thread, because it may ask the server.
            raise await asyncio.to_thread(self._failure, error, attempts.left) from error
        await asyncio.sleep(pause)


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
                        try:
                            if isinstance(step, AwaitCall):
                                outcome = await step.pending.answer()
                            else:
                                outcome = await self._connection._call(step)
                        except ServingError as error:
                            failure = error
                    case StartCall(call):
                        outcome = pending = await self._connection._start_call(call)
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
    """As connection._PendingCall; the caller has acquired its slot."""

    def __init__(self, connection: AsyncConnection, call: Call):
        self._connection = connection
        self._call = call
        self._attempts = connection._attempts_at(call)
        self._slots = connection._slots
        self._start = self._end = time.perf_counter()
        self._response = connection._invoke(call, self._attempts)
        self._response.add_done_callback(self._done)

    async def answer(self) -> Answer:
        try:
            response = await self._connection._answer(self._response)
        except grpc.RpcError as error:
            await self._connection._pause(self._attempts, error, self._seconds())
            return await self._connection._call(self._call, self._attempts)
        return self._connection._observed(self._call, response, self._seconds())

    def cancel(self) -> None:
        self._response.cancel()

    def _seconds(self) -> float:
        # The callback may come after the result.
        return (self._end if self._end > self._start else time.perf_counter()) - self._start

    def _done(self, _: Any) -> None:
        self._end = time.perf_counter()
        self._slots.release()


async def _pieces(source: Pieces) -> AsyncGenerator[bytes, None]:
    if isinstance(source, AsyncIterable):
        async for piece in source:
            yield piece
    else:
        for piece in source:
            yield piece
