"""Calls on a model server with raw bytes, and how their answers are compared.

Two answers are the same if their status codes, texts and decoded responses are: every field counts, whether a message
is present counts, typed fields are not tensor_content; the order within maps does not count, nor that of the metrics of
a reload, which the real server keeps in a hash map. The numbers that TensorFlow gives to traced functions in the names
of nodes are left out of texts: they depend on what else was traced.
"""

import dataclasses
import functools
import re
import types
from typing import Any

import grpc
from google.protobuf import text_format

from components.formats import protos as lean_protos

_PREDICTION, _MODEL = "/tensorflow.serving.PredictionService/", "/tensorflow.serving.ModelService/"
PREDICT = _PREDICTION + "Predict"
METADATA = _PREDICTION + "GetModelMetadata"
CLASSIFY = _PREDICTION + "Classify"
REGRESS = _PREDICTION + "Regress"
MULTI_INFERENCE = _PREDICTION + "MultiInference"
STATUS = _MODEL + "GetModelStatus"
RELOAD = _MODEL + "HandleReloadConfigRequest"
HEALTH = "/grpc.health.v1.Health/Check"

AVAILABLE, LOADING, START, UNLOADING, END = "AVAILABLE", "LOADING", "START", "UNLOADING", "END"
# The longest that any call here may take: first calls of a model on a busy machine.
CALL_SECONDS = 60.0

_APIS = "tensorflow_serving.apis."
_TYPES = {
    PREDICT: ("predict", "PredictRequest", "PredictResponse"),
    METADATA: ("get_model_metadata", "GetModelMetadataRequest", "GetModelMetadataResponse"),
    STATUS: ("get_model_status", "GetModelStatusRequest", "GetModelStatusResponse"),
    RELOAD: ("model_management", "ReloadConfigRequest", "ReloadConfigResponse"),
}
_FUNCTION_NUMBER = re.compile(r"(\{\{function_node \w+?)_\d+(?=\}\})")
_UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


@functools.cache
def protos() -> types.SimpleNamespace:
    """The generated modules: those of the methods, and prediction_log, tensor, types and config (of the model
    server)."""
    return lean_protos.load(
        **{module: f"{_APIS}{module}_pb2" for module, _, _ in _TYPES.values()},
        prediction_log=f"{_APIS}prediction_log_pb2",
        tensor="tensorflow.core.framework.tensor_pb2",
        types="tensorflow.core.framework.types_pb2",
        config="tensorflow_serving.config.model_server_config_pb2",
    )


def request_type(method: str) -> type:
    """The message that `method` takes."""
    module, name, _ = _TYPES[method]
    return getattr(getattr(protos(), module), name)


def response_type(method: str) -> type:
    """The message that `method` answers with."""
    module, _, name = _TYPES[method]
    return getattr(getattr(protos(), module), name)


@dataclasses.dataclass(frozen=True)
class Answer:
    """What came back: the name of the status code, its text, and the serialized response (empty unless the code is
    OK)."""

    code: str
    message: str = ""
    response: bytes = b""


def channel(target: str, options: list = _UNLIMITED) -> grpc.Channel:
    """A channel to HOST:PORT; by default messages of any size pass on this side."""
    # Channels of one process share their connections unless told otherwise.
    return grpc.insecure_channel(target, [*options, ("grpc.use_local_subchannel_pool", 1)])


def call(
    stub: grpc.Channel, method: str, request: bytes, timeout: float = CALL_SECONDS, metadata: tuple = ()
) -> Answer:
    """Send `request` as it is."""
    try:
        return Answer("OK", "", stub.unary_unary(method)(request, timeout=timeout, metadata=metadata))
    except grpc.RpcError as error:
        return Answer(error.code().name, error.details() or "")


def difference(method: str, expected: Answer, got: Answer) -> str:
    """How `got` differs from `expected`, in words; empty if they are the same."""
    if (expected.code, without_numbers(expected.message)) != (got.code, without_numbers(got.message)):
        return f"expected {_told(expected)}, got {_told(got)}"
    if expected.code != "OK" or method not in _TYPES:
        return (
            ""
            if expected.response == got.response
            else f"expected response {expected.response!r}, got {got.response!r}"
        )
    wanted, found = decoded(method, expected.response), decoded(method, got.response)
    return "" if wanted == found else f"expected response {shown(wanted)}, got {shown(found)}"


def decoded(method: str, response: bytes) -> Any:
    """The response in a form whose `==` means the same answer."""
    message = response_type(method).FromString(response)
    if method == METADATA:
        signatures = protos().get_model_metadata.SignatureDefMap()
        unpacked = {name: any_.Unpack(signatures) and any_.type_url for name, any_ in message.metadata.items()}
        return message.model_spec, unpacked, signatures
    if method == RELOAD:
        message.metric.sort(key=lambda metric: metric.name)
    return message


def shown(message: Any, limit: int = 600) -> str:
    """One line of text for a message or a tuple of them."""
    parts = message if isinstance(message, tuple) else (message,)
    line = ", ".join(
        text_format.MessageToString(p, as_one_line=True) if hasattr(p, "DESCRIPTOR") else repr(p) for p in parts
    )
    return line if len(line) <= limit else line[:limit] + " ..."


def spec_request(method: str, name: str, version: int | None = None, label: str | None = None) -> Any:
    """An otherwise empty request of `method` for a model; fill in the rest."""
    request = request_type(method)()
    request.model_spec.name = name
    if version is not None:
        request.model_spec.version.value = version
    if label is not None:
        request.model_spec.version_label = label
    if method == METADATA:
        request.metadata_field.append("signature_def")
    return request


def states(stub: grpc.Channel, model: str) -> list:
    """[version, state, error code, error text] of each version, oldest first; [code, text] if there is none, as
    recorded."""
    answer = call(stub, STATUS, spec_request(STATUS, model).SerializeToString())
    if answer.code != "OK":
        return [answer.code, answer.message]
    module = protos().get_model_status
    found = module.GetModelStatusResponse.FromString(answer.response).model_version_status
    name = module.ModelVersionStatus.State.Name
    return sorted([item.version, name(item.state), item.status.error_code, item.status.error_message] for item in found)


def without_numbers(message: str) -> str:
    """`message` without the numbers of traced functions."""
    return _FUNCTION_NUMBER.sub(r"\1", message)


def _told(answer: Answer) -> str:
    return f"{answer.code} {answer.message!r}"
