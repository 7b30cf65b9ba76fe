"""Sends raw bytes to a model server, and compares answers.

Two answers are the same if their status codes, texts and decoded responses are equal. Every field and the presence of
messages matter, and typed fields differ from tensor_content. The order within maps does not matter, nor that of the
metrics of a reload, which the real server keeps in a hash map. Texts are compared without the numbers of traced
functions in node names, which depend on other traces.
"""

import dataclasses
import functools
import re
import types
from typing import Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, text_format

from components.formats import protos
from serving import config_protos

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
# The timeout of a call: the first call of a model on a busy machine is slow.
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
def apis() -> types.SimpleNamespace:
    """The generated modules of the methods, and prediction_log, tensor, types, config (of the model server)."""
    return protos.load(
        **{module: f"{_APIS}{module}_pb2" for module, _, _ in _TYPES.values()},
        prediction_log=f"{_APIS}prediction_log_pb2",
        tensor="tensorflow.core.framework.tensor_pb2",
        types="tensorflow.core.framework.types_pb2",
        config="tensorflow_serving.config.model_server_config_pb2",
    )


def request_type(method: str) -> type:
    """The request message of `method`."""
    module, name, _ = _TYPES[method]
    return getattr(getattr(apis(), module), name)


def response_type(method: str) -> type:
    """The response message of `method`."""
    module, _, name = _TYPES[method]
    return getattr(getattr(apis(), module), name)


@dataclasses.dataclass(frozen=True)
class Answer:
    """The name of the status code, its text, and the serialized response (empty unless the code is OK)."""

    code: str
    message: str = ""
    response: bytes = b""


def channel(target: str, options: list = _UNLIMITED) -> grpc.Channel:
    """A channel to HOST:PORT; by default without a limit for the size of messages."""
    # Channels of one process share their connections unless told otherwise.
    return grpc.insecure_channel(target, [*options, ("grpc.use_local_subchannel_pool", 1)])


def call(
    stub: grpc.Channel, method: str, request: bytes, timeout: float = CALL_SECONDS, metadata: tuple = ()
) -> Answer:
    """Send the serialized `request`."""
    try:
        return Answer("OK", "", stub.unary_unary(method)(request, timeout=timeout, metadata=metadata))
    except grpc.RpcError as error:
        return Answer(error.code().name, error.details() or "")


def difference(method: str, expected: Answer, got: Answer) -> str:
    """The difference between `got` and `expected` in words; empty if they are the same."""
    if (expected.code, without_numbers(expected.message)) != (got.code, without_numbers(got.message)):
        return f"expected {_described(expected)}, got {_described(got)}"
    if expected.code != "OK" or method not in _TYPES:
        return (
            ""
            if expected.response == got.response
            else f"expected response {expected.response!r}, got {got.response!r}"
        )
    wanted, response = decoded(method, expected.response), decoded(method, got.response)
    return "" if wanted == response else f"expected response {shown(wanted)}, got {shown(response)}"


def decoded(method: str, response: bytes) -> Any:
    """The response in a form for comparison with `==`."""
    message = response_type(method).FromString(response)
    if method == METADATA:
        signatures = apis().get_model_metadata.SignatureDefMap()
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
    """A request of `method` with only the model spec; the caller fills in the rest."""
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
    """[version, state, error code, error text] of each version, oldest first; [code, text] of an error, as recorded.

    The real server can send a text that is not UTF-8, which no client can parse; such bytes are escaped here.
    """
    answer = call(stub, STATUS, spec_request(STATUS, model).SerializeToString())
    if answer.code != "OK":
        return [answer.code, answer.message]
    versions = _status_response().FromString(answer.response).model_version_status
    name = apis().get_model_status.ModelVersionStatus.State.Name
    return sorted(
        [
            item.version,
            name(item.state),
            item.status.error_code,
            item.status.error_message.decode(errors="backslashreplace"),
        ]
        for item in versions
    )


@functools.cache
def _status_response() -> Any:
    """GetModelStatusResponse with the error text as bytes."""
    pool = descriptor_pool.DescriptorPool()

    def add(file: Any) -> None:
        for dependency in file.dependencies:
            add(dependency)
        described = descriptor_pb2.FileDescriptorProto.FromString(file.serialized_pb)
        for message in described.message_type:
            for field in message.field:
                if field.name == "error_message":
                    field.type = field.TYPE_BYTES
        pool.AddSerializedFile(described.SerializeToString())

    add(apis().get_model_status.DESCRIPTOR)
    return config_protos.message_class(pool, "tensorflow.serving.GetModelStatusResponse")


def without_numbers(message: str) -> str:
    """`message` without the numbers of traced functions."""
    return _FUNCTION_NUMBER.sub(r"\1", message)


def _described(answer: Answer) -> str:
    return f"{answer.code} {answer.message!r}"
