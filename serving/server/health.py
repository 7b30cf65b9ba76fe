"""The method Check of grpc.health.v1 for the embedded server, as a generic handler.

Replaces the servicer of grpcio-health-checking, whose Watch can deadlock the whole server: when a client hangs up
early, Watch holds the lock that the end of a call needs, and waits for that end. Here Watch is UNIMPLEMENTED, which
gRPC's own clients treat as healthy.
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
    """The services in `names` are SERVING until `stop`; others are unknown."""

    def __init__(self, names: Iterable[str]):
        self._names = frozenset(names)
        self._status = _Response.SERVING

    def handler(self) -> grpc.GenericRpcHandler:
        """The method Check."""
        check = grpc.unary_unary_rpc_method_handler(self._check)
        return grpc.method_handlers_generic_handler(SERVICE_NAME, {"Check": check})

    def stop(self) -> None:
        """Report NOT_SERVING for all services."""
        self._status = _Response.NOT_SERVING

    def _check(self, data: bytes, context: grpc.ServicerContext) -> bytes:
        try:
            name = strict_protos.parse(health_pb2.HealthCheckRequest, data).service
        except DecodeError:
            context.abort(grpc.StatusCode.INTERNAL, "")
        if name not in self._names:
            context.abort(grpc.StatusCode.NOT_FOUND, "service name unknown")
        return _Response(status=self._status).SerializeToString()
