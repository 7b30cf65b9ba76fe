"""A connection to one model of a TensorFlow Serving server: requests, deadlines, and errors of the tree in
serving.client.

Knows nothing of addition: `serving.client` builds on it. What is asked stands in serving.client.protocol; this module carries it
out.
"""

import json
import threading
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from typing import Any

import grpc

from serving import protos
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

__all__ = [
    "ATTEMPTS",
    "MESSAGE_BYTES",
    "Connection",
    "ModelMetadata",
    "Prediction",
    "Signature",
    "TensorInfo",
    "VersionStatus",
]

# What a gRPC peer takes by default; also the bound for the requests that the client makes.
MESSAGE_BYTES = 4 * 1024 * 1024
# How often a call is made at most while the server is UNAVAILABLE; gRPC allows no more than 5. All waits together take
# about 2 seconds, in which a server that restarts quickly is back.
ATTEMPTS = 5
_BACKOFF = {"initialBackoff": "0.15s", "maxBackoff": "2s", "backoffMultiplier": 2}


class _BaseConnection:
    """What Connection and its counterpart for asyncio share: options, channel, the methods of the services."""

    # What can be talked about, and the module that makes channels.
    protocol_type: type[ModelProtocol] = ModelProtocol
    channels: Any = grpc

    def __init__(
        self,
        target: str,
        model_name: str,
        *,
        version: int | None = None,
        label: str | None = None,
        deadline: float = 10.0,
        attempts: int = ATTEMPTS,
        credentials: grpc.ChannelCredentials | None = None,
        channel: Any = None,
        observe: Callable[[Call, Answer], None] | None = None,
    ):
        if not 1 <= attempts <= ATTEMPTS:
            raise ValueError(f"attempts = {attempts} must be from 1 to {ATTEMPTS}")
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
        """The methods by name, over the channel that was given or a new one."""
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
        version: ask for this version and no other.
        label: ask for the version with this label and no other; None or "" for the newest version.
        deadline: seconds after which a call is given up, all its attempts included.
        attempts: how often a call is made, with growing random pauses, as long as the server is UNAVAILABLE; 1 for no
            retries. A sum changes nothing at the server, so that asking twice is safe. Not for `status`.
        credentials: for TLS (serving.tls makes them from files); None for a connection in plain text. channel: a
        grpc.Channel, or anything with its `unary_unary`, to use in place of a new one to `target`; the caller
            closes it, and its options say what is retried.
        observe: told each call that was answered, and the answer.

    Raises:
        ValueError: attempts are not from 1 to 5.
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
        """Run `signature` on TensorProtos; only the named `outputs` (all without names) come back.

        Raises:
            ServingError: see the tree in serving.client.
        """
        return self._result(self._protocol.predict(signature, inputs, outputs, version))

    def metadata(self) -> ModelMetadata:
        """The version that answers now, and its signatures. Raises: ServingError."""
        return self._result(self._protocol.metadata())

    def status(self) -> list[VersionStatus]:
        """Every version that the server knows of, newest first. Raises: ServingError."""
        return self._result(self._protocol.status())

    def _result(self, exchange: Exchange[Result]) -> Result:
        """What an exchange that reads and writes nothing comes to."""
        try:
            next(self._drive(exchange))
        except StopIteration as end:
            return end.value
        raise AssertionError("the exchange writes")

    def _drive(
        self, exchange: Exchange[Result], sources: Sequence[Iterable[bytes]] = ()
    ) -> Generator[bytes, None, Result]:
        """Yields what the exchange writes, and returns what it comes to."""
        inputs = [iter(source) for source in sources]
        begun: list[_PendingCall] = []
        outcome: Any = None
        failure: ServingError | None = None
        try:
            while True:
                try:
                    step = exchange.throw(failure) if failure else exchange.send(outcome)
                except StopIteration as end:
                    return end.value
                outcome = failure = None
                match step:
                    case Call() | AwaitCall():
                        try:
                            outcome = step.pending.finish() if isinstance(step, AwaitCall) else self._call(step)
                        except grpc.RpcError as error:
                            failure = self._failure(error)
                            failure.__cause__ = error
                    case StartCall(call):
                        outcome = self._start_call(call)
                        begun = [outcome]
                    case Read(source):
                        outcome = next(inputs[source], END)
                    case Write(data):
                        yield data
                    case Rewind():
                        inputs = [iter(source) for source in sources]
        finally:
            for pending in begun:
                pending.cancel()
            exchange.close()

    def _start_call(self, call: Call) -> "_PendingCall":
        """Raises: ServerUnavailable, where no thread can be started: gRPC needs one, and would wait for it without
        end."""
        try:
            trial = threading.Thread(target=int)
            trial.start()
        except RuntimeError as error:
            raise ServerUnavailable(
                f"cannot ask {self.target}: {error}: the system allows no more", "UNAVAILABLE"
            ) from error
        trial.join()
        return _PendingCall(self, call)

    def _call(self, call: Call) -> Answer:
        start = time.perf_counter()
        response = self._methods[call.method](call.request, timeout=self.deadline)
        return self._observed(call, response, time.perf_counter() - start)


class _PendingCall:
    """A call that is answered while its caller does something else."""

    def __init__(self, connection: Connection, call: Call):
        self._connection = connection
        self._call = call
        self._start = self._end = time.perf_counter()
        self._future = connection._methods[call.method].future(call.request, timeout=connection.deadline)
        self._future.add_done_callback(self._done)

    def finish(self) -> Answer:
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
    """A channel to `target`, in plain text where `credentials` are None; of `channels`, which is grpc or grpc.aio."""
    # A server on this machine must not be asked for through a proxy of the environment.
    options = [*options, ("grpc.enable_http_proxy", 0)]
    if credentials is None:
        return channels.insecure_channel(target, options=options)
    return channels.secure_channel(target, credentials, options=options)


def _options(attempts: int) -> list[tuple[str, Any]]:
    options: list[tuple[str, Any]] = [
        ("grpc.max_receive_message_length", MESSAGE_BYTES),
        ("grpc.max_send_message_length", MESSAGE_BYTES),
        # A server that is back is found at once and not after the minutes that gRPC's own pauses grow to.
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
