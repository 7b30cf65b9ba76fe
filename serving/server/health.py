"""grpc.health.v1 for the embedded server, as a generic handler.

Check, and Watch for a few clients at a time. Not the servicer of grpcio-health-checking: its Watch holds the lock that
the end of a call needs while it waits for the thread that would end it, so that a client which hangs up early stops the
whole server for good; and it remembers every name asked for. Messages are parsed here and not by gRPC, which forgets to
end a stream whose request is no message: such a call would stay for ever, and hold up the end of the server.
"""

import threading
from collections.abc import Iterable, Iterator

import grpc
from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2
from grpc_health.v1.health import SERVICE_NAME

from components.formats import strict_protos

# Each takes a thread for as long as it watches.
WATCHES = 8

_Response = health_pb2.HealthCheckResponse


class Health:
    """The services called `names` are serving until `stop`; others are unknown."""

    def __init__(self, names: Iterable[str]):
        self._names = frozenset(names)
        self._slots = threading.Semaphore(WATCHES)
        self._changed = threading.Condition()
        self._stopped = False

    def handler(self) -> grpc.GenericRpcHandler:
        """The methods Check and Watch."""
        methods = {
            "Check": grpc.unary_unary_rpc_method_handler(self._check),
            "Watch": grpc.unary_stream_rpc_method_handler(self._watch),
        }
        return grpc.method_handlers_generic_handler(SERVICE_NAME, methods)

    def stop(self) -> None:
        """Nothing is serving any more; those who watch are told, and let go."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def _check(self, data: bytes, context: grpc.ServicerContext) -> bytes:
        name = _service(data, context)
        if name not in self._names:
            context.abort(grpc.StatusCode.NOT_FOUND, "service name unknown")
        return self._response(name)

    def _watch(self, data: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        name = _service(data, context)
        if not self._slots.acquire(blocking=False):
            context.abort(
                grpc.StatusCode.RESOURCE_EXHAUSTED, f"{WATCHES} clients watch already, which is the limit here"
            )
        try:
            # False where the call has ended already.
            watching = context.add_callback(self._wake)
            yield self._response(name)
            with self._changed:
                while watching and not self._stopped and context.is_active():
                    self._changed.wait()
            if context.is_active():
                yield self._response(name)
        finally:
            self._slots.release()

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _response(self, name: str) -> bytes:
        status = (
            _Response.SERVICE_UNKNOWN
            if name not in self._names
            else _Response.NOT_SERVING
            if self._stopped
            else _Response.SERVING
        )
        return _Response(status=status).SerializeToString()


def _service(data: bytes, context: grpc.ServicerContext) -> str:
    try:
        return strict_protos.parse(health_pb2.HealthCheckRequest, data).service
    except DecodeError:
        context.abort(grpc.StatusCode.INTERNAL, "")
