"""A connection to one model of a TensorFlow Serving server: requests, deadlines and the errors of serving.client.

It is independent of addition; serving.client builds on it. serving.client.protocol defines the exchanges, this module
drives them with blocking calls.
"""

import json
import threading
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from typing import Any

import grpc

from serving import defaults, protos
from serving.client import addresses
from serving.client.protocol import (
    END,
    METHODS,
    PREDICTIONS,
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
)
from serving.errors import ServerUnavailable, ServingError

__all__ = ["MESSAGE_BYTES", "Connection", "ModelMetadata", "Prediction", "Signature", "TensorInfo", "VersionStatus"]

# The largest message that a gRPC peer accepts by default; also the bound on the client's own requests.
MESSAGE_BYTES = 4 * 1024 * 1024
_BACKOFF = {"initialBackoff": "0.15s", "maxBackoff": "2s", "backoffMultiplier": 2}


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
        deadline: float = defaults.DEADLINE,
        attempts: int = defaults.MAX_ATTEMPTS,
        credentials: grpc.ChannelCredentials | None = None,
        channel: Any = None,
        observe: Callable[[Call, Answer], None] | None = None,
    ):
        if not 1 <= attempts <= defaults.MAX_ATTEMPTS:
            raise ValueError(f"attempts = {attempts} must be from 1 to {defaults.MAX_ATTEMPTS}")
        self.target = target
        self.model_name = model_name
        self.deadline = deadline
        self._protocol = self.protocol_type(target, model_name, version, label, deadline)
        self._attempts = attempts
        self._credentials = credentials
        self._given_channel = channel
        self._own_channel: Any = None
        self._observe = observe

    def _open(self) -> dict[str, Any]:
        """The methods by name, over the channel passed in or a new one."""
        apis = protos.load()
        channel = self._given_channel
        if channel is None:
            channel = self._own_channel = new_channel(
                self.target, self._credentials, _options(self._attempts), self.channels
            )
        stubs = [apis.prediction_service.PredictionServiceStub(channel), apis.model_service.ModelServiceStub(channel)]
        return {method: getattr(stub, method) for method in METHODS for stub in stubs if hasattr(stub, method)}

    def _observed(self, call: Call, response: Any, seconds: float) -> Answer:
        answer = Answer(response, seconds)
        if self._observe:
            self._observe(call, answer)
        return answer

    def _failure(self, error: grpc.RpcError) -> ServingError:
        return self._protocol.failure(error.code().name, error.details() or "")


class Connection(_BaseConnection):
    """Requests to `model_name` at `target` ("HOST:PORT"). Several threads may share one.

    Args:
        version: use only this version.
        label: use only the version with this label; None or "" for the newest version.
        deadline: time limit of a call in seconds, all attempts included.
        attempts: attempts at a call, with growing random pauses, while the server is UNAVAILABLE; 1 disables retries. A
            sum changes nothing on the server, so a retry is safe. `status` is never retried.
        credentials: for TLS (serving.tls reads them from files); None for plain text.
        channel: a grpc.Channel, or anything with its `unary_unary`, in place of a new one to `target`. The caller
            closes it; its options decide what is retried.
        observe: called with each answered call and its answer.

    Raises:
        ValueError: `attempts` is not from 1 to 5.
    """

    def __init__(self, target: str, model_name: str, **options: Any):
        super().__init__(target, model_name, **options)
        self._methods = self._open()

    def close(self) -> None:
        """Close the channel, unless it was passed in."""
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
                        except grpc.RpcError as error:
                            failure = self._failure(error)
                            failure.__cause__ = error
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

    def _call(self, call: Call) -> Answer:
        start = time.perf_counter()
        response = self._methods[call.method](call.request, timeout=self.deadline)
        return self._observed(call, response, time.perf_counter() - start)


class _PendingCall:
    """A call in flight."""

    def __init__(self, connection: Connection, call: Call):
        self._connection = connection
        self._call = call
        self._start = self._end = time.perf_counter()
        self._future = connection._methods[call.method].future(call.request, timeout=connection.deadline)
        self._future.add_done_callback(self._done)

    def answer(self) -> Answer:
        response = self._future.result()
        # The callback may come after the result.
        end = self._end if self._end > self._start else time.perf_counter()
        return self._connection._observed(self._call, response, end - self._start)

    def cancel(self) -> None:
        self._future.cancel()

    def _done(self, _: Any) -> None:
        self._end = time.perf_counter()


def new_channel(
    target: str,
    credentials: grpc.ChannelCredentials | None,
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
    return channels.secure_channel(target, credentials, options=options)


def _options(attempts: int) -> list[tuple[str, Any]]:
    options: list[tuple[str, Any]] = [
        ("grpc.max_receive_message_length", MESSAGE_BYTES),
        ("grpc.max_send_message_length", MESSAGE_BYTES),
        # gRPC's own pauses grow to minutes; the client must notice a restarted server at once.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 1000),
    ]
    if attempts == 1:
        return [*options, ("grpc.enable_retries", 0)]
    policy = {"maxAttempts": attempts, "retryableStatusCodes": ["UNAVAILABLE"], **_BACKOFF}
    return [
        *options,
        (
            "grpc.service_config",
            json.dumps({"methodConfig": [{"name": [{"service": PREDICTIONS}], "retryPolicy": policy}]}),
        ),
    ]
