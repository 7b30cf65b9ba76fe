"""The gRPC side of the embedded server's methods: bytes in, bytes or a status out; counts each call and may log it.

Parses messages here and not in gRPC, so that an unparsable message gets TensorFlow Serving's answer (INTERNAL without a
text), and the request log needs no second serialization.
"""

import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import grpc
from google.protobuf.message import DecodeError
from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2, model_management_pb2, predict_pb2

from components.formats import strict_protos
from serving.server.metrics import Metrics
from serving.server.request_log import RequestLog
from serving.server.services import ModelService, PredictionService
from serving.status import Code, StatusError
from serving.versions.loader import LOGGER

PREDICTION_SERVICE = "tensorflow.serving.PredictionService"
MODEL_SERVICE = "tensorflow.serving.ModelService"

_PREDICT = "Predict"
# TensorFlow Serving truncates error texts to this (grpc_status_util.cc), because they travel in a bounded header.
_TEXT_BYTES = 1024
_CUT = "...TRUNCATED"
_BUSY = "Server Threadpool Exhausted"
_CODES = {code.value[0]: code for code in grpc.StatusCode}


class _Method(NamedTuple):
    """`answer(request, timeout)` gives the response, `model(request)` the model name for the metrics."""

    request: Any
    answer: Callable[[Any, float | None], Any]
    model: Callable[[Any], str]


class Handlers(grpc.GenericRpcHandler):
    """The methods of both services, and UNIMPLEMENTED for all others: register it after all other handlers.

    Args:
        metrics: counts every call.
        log: receives the answered predictions; None for no log.
        max_concurrent_calls: further calls are refused with RESOURCE_EXHAUSTED.
    """

    def __init__(
        self,
        predictions: PredictionService,
        models: ModelService,
        metrics: Metrics,
        log: RequestLog | None,
        max_concurrent_calls: int,
    ):
        self._metrics = metrics
        self._log = log
        # gRPC's own limit counts a call until some time after its answer, and would refuse the client's next call.
        self._slots = threading.Semaphore(max_concurrent_calls)
        self._handlers = {
            path: grpc.unary_unary_rpc_method_handler(self._unary(path.rpartition("/")[2], method))
            for path, method in _methods(predictions, models).items()
        }
        self._unknown = grpc.unary_unary_rpc_method_handler(
            lambda _, context: context.abort(grpc.StatusCode.UNIMPLEMENTED, "")
        )

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        """The handler of a method."""
        return self._handlers.get(handler_call_details.method, self._unknown)

    def _unary(self, name: str, method: _Method) -> Callable[[bytes, grpc.ServicerContext], bytes]:
        def handle(data: bytes, context: grpc.ServicerContext) -> bytes:
            if not self._slots.acquire(blocking=False):
                self._metrics.observe("", name, Code.RESOURCE_EXHAUSTED, 0.0)
                context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, _BUSY)
            start = time.perf_counter()
            model, failure, response = "", None, b""
            try:
                request = _parsed(method.request, data)
                model = method.model(request)
                response = method.answer(request, _timeout(context)).SerializeToString()
            except StatusError as error:
                # Its traceback refers to this frame, which refers to it: the cycle would keep the request's tensors
                # until the next garbage collection.
                failure = error.with_traceback(None)
            except MemoryError:
                failure = StatusError(Code.RESOURCE_EXHAUSTED, "not enough memory for this request")
            except Exception as error:
                LOGGER.exception("%s failed unexpectedly", name)
                failure = StatusError(Code.INTERNAL, f"{type(error).__name__}: {error}".partition("\n")[0])
            finally:
                self._slots.release()
            self._metrics.observe(model, name, failure.code if failure else Code.OK, time.perf_counter() - start)
            if failure:
                context.abort(_CODES.get(failure.code, grpc.StatusCode.UNKNOWN), _cut(str(failure)))
            if self._log and name == _PREDICT:
                self._log.offer(data, response)
            return response

        return handle


def _methods(predictions: PredictionService, models: ModelService) -> dict[str, _Method]:
    """The methods by their paths."""

    def model(request: Any) -> str:
        return request.model_spec.name

    metadata, status = get_model_metadata_pb2.GetModelMetadataRequest, get_model_status_pb2.GetModelStatusRequest
    reload, reload_config = model_management_pb2.ReloadConfigRequest, _untimed(models.handle_reload_config_request)
    return {
        f"/{PREDICTION_SERVICE}/{_PREDICT}": _Method(predict_pb2.PredictRequest, predictions.predict, model),
        f"/{PREDICTION_SERVICE}/GetModelMetadata": _Method(metadata, _untimed(predictions.get_model_metadata), model),
        f"/{MODEL_SERVICE}/GetModelStatus": _Method(status, _untimed(models.get_model_status), model),
        f"/{MODEL_SERVICE}/HandleReloadConfigRequest": _Method(reload, reload_config, lambda request: ""),
    }


def _untimed(answer: Callable[[Any], Any]) -> Callable[[Any, float | None], Any]:
    return lambda request, timeout: answer(request)


def _parsed(message: Any, data: bytes) -> Any:
    try:
        return strict_protos.parse(message, data)
    except DecodeError as error:
        raise StatusError(Code.INTERNAL, "") from error


def _timeout(context: grpc.ServicerContext) -> float | None:
    """Seconds until the caller's deadline; None without one. Raises: StatusError, the deadline has passed."""
    remaining = context.time_remaining()
    # Without a deadline, gRPC gives None or a very large number.
    if remaining is None or remaining > 1e9:
        return None
    if remaining <= 0:
        raise StatusError(Code.DEADLINE_EXCEEDED, "Deadline Exceeded")
    return remaining


def _cut(text: str) -> str:
    encoded = text.encode()
    return text if len(encoded) <= _TEXT_BYTES else encoded[:_TEXT_BYTES].decode(errors="ignore") + _CUT
