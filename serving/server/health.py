"""The method Check of grpc.health.v1 for the embedded server, as a generic handler.

Not the servicer of grpcio-health-checking: its Watch holds the lock that the end of a call needs while it waits for the
thread that would end it, so that a client which hangs up early stops the whole server for good. Watch is UNIMPLEMENTED,
which gRPC's own clients take for healthy.
https://github.com/grpc/grpc/blob/master/doc/health-checking.md
"""

from collections.abc import Iterable

import grpc
from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2
from grpc_health.v1.health import SERVICE_NAME

from components.formats import strict_protos

_Response = health_pb2.HealthCheckResponse


class Health:
    """The services called `names` are serving until `stop`; others are unknown."""

    def __init__(self, names: Iterable[str]):
        self._names = frozenset(names)
        self._status = _Response.SERVING

    def handler(self) -> grpc.GenericRpcHandler:
        """The method Check."""
        check = grpc.unary_unary_rpc_method_handler(self._check)
        return grpc.method_handlers_generic_handler(SERVICE_NAME, {"Check": check})

    def stop(self) -> None:
        """Nothing is serving any more."""
        self._status = _Response.NOT_SERVING

    def _check(self, data: bytes, context: grpc.ServicerContext) -> bytes:
        try:
            name = strict_protos.parse(health_pb2.HealthCheckRequest, data).service
        except DecodeError:
            context.abort(grpc.StatusCode.INTERNAL, "")
        if name not in self._names:
            context.abort(grpc.StatusCode.NOT_FOUND, "service name unknown")
        return _Response(status=self._status).SerializeToString()
