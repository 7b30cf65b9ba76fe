"""A connection to one model of a TensorFlow Serving server: requests, deadlines and the errors of serving.client.

It is independent of addition; serving.client builds on it. serving.client.protocol defines the exchanges, this module
drives them with blocking calls.
"""

import math
import numbers
import threading
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import grpc

from serving import defaults, protos
from serving.client import addresses
from serving.client.attempts import Attempts
from serving.client.protocol import (
    END,
    METHODS,
    MODELS,
    Answer,
    AwaitCall,
    Call,
    Exchange,
    ModelMetadata,
    ModelProtocol,
    Prediction,
    Read,
    Result,
    Rewind,
    Signature,
    StartCall,
    TensorInfo,
    VersionStatus,
    Write,
    check_count,
)
from serving.errors import ClientClosed, ServerUnavailable, ServingError

if TYPE_CHECKING:
    from serving.tls import ClientTls

__all__ = ["MESSAGE_BYTES", "Connection", "ModelMetadata", "Prediction", "Signature", "TensorInfo", "VersionStatus"]

# The largest message that a gRPC peer accepts by default; also the bound on the client's own requests.
MESSAGE_BYTES = 4 * 1024 * 1024
_OPTIONS = (
    ("grpc.max_receive_message_length", MESSAGE_BYTES),
    ("grpc.max_send_message_length", MESSAGE_BYTES),
    # gRPC's own pauses grow to minutes; the client must notice a restarted server at once.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # serving.client.attempts retries.
    ("grpc.enable_retries", 0),
)


class _BaseConnection:
    """The part that Connection and AsyncConnection share: options, channel, the methods of the services."""

    # The exchanges that can be driven, and the module that creates channels.
    protocol_type: type[ModelProtocol] = ModelProtocol
    channels: Any = grpc

    def __init__(
        self,
        target: str,
        model_name: str,
        *,
        version: int | None = None,
        label: str | None = None,
        deadline: float | None = defaults.DEADLINE,
        attempts: int = defaults.ATTEMPTS,
        max_concurrent_calls: int = defaults.CONCURRENT_CALLS,
        credentials: "ClientTls | grpc.ChannelCredentials | None" = None,
        channel: Any = None,
        observe: Callable[[Call, Answer], None] | None = None,
    ):
        for name, value in (("attempts", attempts), ("max_concurrent_calls", max_concurrent_calls)):
            check_count(name, value)
        self.target = target
        self.model_name = model_name
        self.deadline = _seconds(deadline)
        self._protocol = self.protocol_type(target, model_name, version, label, self.deadline)
        self._attempts = attempts
        self._max_concurrent_calls = max_concurrent_calls
        self._credentials = credentials
        self._given_channel = channel
        self._own_channel: Any = None
        self._observe = observe

    def _open(self) -> dict[str, Any]:
        """The methods by name, over the channel passed in or a new one."""
        apis = protos.load()
        channel = self._given_channel
        if channel is None:
            channel = self._own_channel = new_channel(self.target, self._credentials, _OPTIONS, self.channels)
        stubs = [apis.prediction_service.PredictionServiceStub(channel), apis.model_service.ModelServiceStub(channel)]
        return {method: getattr(stub, method) for method in METHODS for stub in stubs if hasattr(stub, method)}

    def _observed(self, call: Call, response: Any, seconds: float) -> Answer:
        answer = Answer(response, seconds)
        if self._observe:
            self._observe(call, answer)
        return answer

    def _attempts_at(self, call: Call) -> Attempts:
        """The attempts at `call`. `status` reports the present state, so it is never retried."""
        return Attempts(1 if METHODS[call.method] == MODELS else self._attempts, self.deadline)

    def _failure(self, error: grpc.RpcError, seconds: float) -> ServingError:
        """The error for the last attempt; finding the reason may take the `seconds` that are left."""
        code, details = error.code().name, error.details() or ""
        reason = ""
        if code == "UNAVAILABLE":
            from serving.client import diagnosis

            reason = diagnosis.of(self.target, details, self._credentials, seconds)
        return self._protocol.failure(code, details, reason)

    def _closed_error(self) -> ClientClosed:
        return ClientClosed(f"the connection to {self.target} is closed: make a new client")


class Connection(_BaseConnection):
    """Requests to `model_name` at `target` ("HOST:PORT"). Several threads may share one.

    Args:
        version: use only this version.
        label: use only the version with this label; None or "" for the newest version.
        deadline: time limit of a call in seconds, all attempts and pauses included, but not the time that it waits for
            its turn (max_concurrent_calls); None or infinity for no limit.
        attempts: attempts at a call while the server is UNAVAILABLE, with growing random pauses; 1 disables all
            retries. A call that the server refuses because it is busy (RESOURCE_EXHAUSTED) is repeated until the
            deadline. A sum changes nothing on the server, so a retry is safe. `status` is never retried.
        max_concurrent_calls: calls of this client that run at the same time, from all threads; further ones wait. By
            default 4, the least that TensorFlow Serving accepts (four for each CPU, --grpc_max_threads).
        credentials: for TLS, from serving.tls.client_credentials, or grpc.ChannelCredentials; None for plain text.
        channel: a grpc.Channel, or anything with its `unary_unary`, in place of a new one to `target`. The caller
            closes it, and passes its `credentials` too, so that errors explain faults of TLS.
        observe: called with each answered call and its answer.

    Raises:
        ValueError: the deadline is not a number more than 0, or attempts or max_concurrent_calls is no integer from 1.
        InvalidAddress: `target` is not an address.
    """

    def __init__(self, target: str, model_name: str, **options: Any):
        super().__init__(target, model_name, **options)
        self._methods = self._open()
        self._slots = threading.Semaphore(self._max_concurrent_calls)
        self._closed = threading.Event()

    def close(self) -> None:
        """Close the channel, unless it was passed in; calls that wait or run end with ClientClosed."""
        self._closed.set()
        if self._own_channel is not None:
            self._own_channel.close()

    def predict(
        self, signature: str, inputs: Mapping[str, Any], outputs: Sequence[str] = (), version: int | None = None
    ) -> Prediction:
        """Run `signature` on TensorProtos and return the named `outputs`, or all of them without names.

        Raises:
            ServingError: see the tree in serving.client.
        """
        return self._result(self._protocol.predict(signature, inputs, outputs, version))

    def metadata(self) -> ModelMetadata:
        """The version that answers now and its signatures. Raises: ServingError."""
        return self._result(self._protocol.metadata())

    def status(self) -> list[VersionStatus]:
        """Every version that the server knows of, newest first. Raises: ServingError."""
        return self._result(self._protocol.status())

    def _result(self, exchange: Exchange[Result]) -> Result:
        """Drive an exchange without inputs and outputs."""
        try:
            next(self._drive(exchange))
        except StopIteration as end:
            result: Result = end.value
            return result
        raise AssertionError("the exchange writes")

    def _drive(
        self, exchange: Exchange[Result], sources: Sequence[Iterable[bytes]] = ()
    ) -> Generator[bytes, None, Result]:
        """Yield the outputs of the exchange and return its result."""
        inputs = [iter(source) for source in sources]
        pending: _PendingCall | None = None
        outcome: Any = None
        failure: ServingError | None = None
        try:
            while True:
                try:
                    step = exchange.throw(failure) if failure else exchange.send(outcome)
                except StopIteration as end:
                    result: Result = end.value
                    return result
                outcome = failure = None
                match step:
                    case Call() | AwaitCall():
                        try:
                            outcome = step.pending.answer() if isinstance(step, AwaitCall) else self._call(step)
                        except ServingError as error:
                            failure = error
                    case StartCall(call):
                        outcome = pending = self._start_call(call)
                    case Read(source):
                        outcome = next(inputs[source], END)
                    case Write(data):
                        yield data
                    case Rewind():
                        inputs = [iter(source) for source in sources]
        finally:
            if pending:
                pending.cancel()
            exchange.close()

    def _start_call(self, call: Call) -> "_PendingCall":
        """Raises: ServerUnavailable, if no thread can be started: gRPC needs one and would wait for it forever."""
        try:
            trial = threading.Thread(target=int)
            trial.start()
        except RuntimeError as error:
            raise ServerUnavailable(
                f"cannot call {self.target}: {error}: the system allows no more", "UNAVAILABLE"
            ) from error
        trial.join()
        return _PendingCall(self, call)

    def _call(self, call: Call, attempts: Attempts | None = None) -> Answer:
        attempts = attempts or self._attempts_at(call)
        # A call keeps its slot while it pauses, so the waiting calls do not reach a busy server all at once.
        with self._slots:
            while True:
                start = time.perf_counter()
                try:
                    response = self._invoke(self._methods[call.method], call, attempts)
                except grpc.RpcError as error:
                    self._pause(attempts, error, time.perf_counter() - start)
                else:
                    return self._observed(call, response, time.perf_counter() - start)

    def _pause(self, attempts: Attempts, error: grpc.RpcError, seconds: float) -> None:
        """Wait until the next attempt, after one that took `seconds`. Raises: ServingError, if there is none."""
        if self._closed.is_set():
            raise self._closed_error() from error
        pause = attempts.pause(error.code().name, error.details() or "", seconds)
        if pause is None:
            raise self._failure(error, attempts.left) from error
        self._closed.wait(pause)

    def _invoke(self, method: Callable[..., Any], call: Call, attempts: Attempts) -> Any:
        """Raises: ClientClosed; grpc.RpcError."""
        if self._closed.is_set():
            raise self._closed_error()
        try:
            return method(call.request, timeout=attempts.timeout)
        except ValueError as error:
            # gRPC's error for a closed channel: just now, or by the caller who passed it in.
            raise self._closed_error() from error


class _PendingCall:
    """A call in flight. It occupies its slot until the server has answered, whether or not anybody waits for it."""

    def __init__(self, connection: Connection, call: Call):
        self._connection = connection
        self._call = call
        self._attempts = connection._attempts_at(call)
        connection._slots.acquire()
        try:
            self._start = self._end = time.perf_counter()
            self._future = connection._invoke(connection._methods[call.method].future, call, self._attempts)
            self._future.add_done_callback(self._done)
        except BaseException:
            connection._slots.release()
            raise

    def answer(self) -> Answer:
        try:
            response = self._future.result()
        except grpc.RpcError as error:
            self._connection._pause(self._attempts, error, self._seconds())
            return self._connection._call(self._call, self._attempts)
        except grpc.FutureCancelledError as error:
            raise self._connection._closed_error() from error
        return self._connection._observed(self._call, response, self._seconds())

    def cancel(self) -> None:
        self._future.cancel()

    def _seconds(self) -> float:
        # The callback may come after the result.
        return (self._end if self._end > self._start else time.perf_counter()) - self._start

    def _done(self, _: Any) -> None:
        self._end = time.perf_counter()
        self._connection._slots.release()


def new_channel(
    target: str,
    credentials: "ClientTls | grpc.ChannelCredentials | None",
    options: Sequence[tuple[str, Any]] = (),
    channels: Any = grpc,
) -> Any:
    """A channel of `channels` (grpc or grpc.aio) to `target`, in plain text without `credentials`.

    Raises:
        InvalidAddress: `target` is not an address.
    """
    addresses.check(target)
    # Ignore the environment's proxy, which would intercept calls to a server on this machine.
    options = [*options, ("grpc.enable_http_proxy", 0)]
    if credentials is None:
        return channels.insecure_channel(target, options=options)
    from serving.tls import ClientTls

    if isinstance(credentials, ClientTls):
        if credentials.server_name:
            options.append(("grpc.ssl_target_name_override", credentials.server_name))
        credentials = credentials.channel_credentials()
    return channels.secure_channel(target, credentials, options=options)


def _seconds(deadline: float | None) -> float:
    """Raises: ValueError, if it is neither None nor a number more than 0."""
    if deadline is None:
        return math.inf
    if isinstance(deadline, bool) or not isinstance(deadline, numbers.Real) or not deadline > 0:
        raise ValueError(f"deadline = {deadline!r} must be a number of seconds more than 0, or None for no limit")
    return float(deadline)
