"""The gRPC services of the embedded server: TensorFlow Serving's PredictionService and ModelService.

Checks, their order, status codes and texts are those of TensorFlow Serving 2.16.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import grpc
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from serving.predict import predict
from serving.status import Code, StatusError
from serving.versions import Versions

_CODES = {code.value[0]: code for code in grpc.StatusCode}
_SIGNATURES = "signature_def"
# A status text travels in a header, and headers are bounded.
_TEXT_CHARACTERS = 2000


class Models:
    """The served models by name, and what a ModelSpec asks of them."""

    def __init__(self, models: Mapping[str, Versions]):
        self._models = dict(models)

    @contextlib.contextmanager
    def use(self, spec: model_pb2.ModelSpec) -> Iterator[tuple[int, Any]]:
        """(version, model) that `spec` asks for, held for the context. Raises: StatusError."""
        if not spec.name:
            raise StatusError(Code.INVALID_ARGUMENT, "ModelSpec has no name specified.")
        if spec.WhichOneof("version_choice") == "version_label":
            raise StatusError(Code.INVALID_ARGUMENT, f"Unrecognized servable version label: {spec.version_label}")
        version = spec.version.value if spec.HasField("version") else None
        versions = self._models.get(spec.name)
        if versions is None:
            wanted = f"Latest({spec.name})" if version is None else f"Specific({spec.name}, {version})"
            raise StatusError(Code.NOT_FOUND, f"Servable not found for request: {wanted}")
        with versions.use(version) as found:
            yield found

    def status(self, spec: model_pb2.ModelSpec) -> list[tuple[int, str, StatusError | None]]:
        """States of the versions that `spec` asks for, newest first; a label is ignored. Raises: StatusError."""
        states = self._models[spec.name].status() if spec.name in self._models else []
        if not states:
            raise StatusError(Code.NOT_FOUND, f"Could not find any versions of model {spec.name}")
        if spec.HasField("version"):
            states = [state for state in states if state[0] == spec.version.value]
            if not states:
                raise StatusError(Code.NOT_FOUND, f"Could not find version {spec.version.value} of model {spec.name}")
        return states


def _answering(method: Callable) -> Callable:
    """A service method that answers a StatusError with its code and text."""

    def answer(self, request: Any, context: grpc.ServicerContext) -> Any:
        try:
            return method(self, request, context)
        except StatusError as error:
            failure = error
        context.abort(_CODES.get(failure.code, grpc.StatusCode.UNKNOWN), str(failure)[:_TEXT_CHARACTERS])

    return answer


def _unimplemented(name: str) -> Callable:
    def refuse(self, request: Any, context: grpc.ServicerContext) -> None:
        context.abort(grpc.StatusCode.UNIMPLEMENTED, f"the embedded server of bitsum does not implement {name}")

    return refuse


class PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):
    """Predict and GetModelMetadata."""

    def __init__(self, models: Models):
        self._models = models

    @_answering
    def Predict(self, request: predict_pb2.PredictRequest, context: grpc.ServicerContext) -> predict_pb2.PredictResponse:
        _check_spec(request)
        with self._models.use(request.model_spec) as (version, model):
            response = predict(model, request, _timeout(context))
        response.model_spec.name = request.model_spec.name
        response.model_spec.version.value = version
        return response

    @_answering
    def GetModelMetadata(
        self, request: get_model_metadata_pb2.GetModelMetadataRequest, context: grpc.ServicerContext
    ) -> get_model_metadata_pb2.GetModelMetadataResponse:
        _check_spec(request)
        if not request.metadata_field:
            raise StatusError(Code.INVALID_ARGUMENT, "GetModelMetadataRequest must specify at least one metadata_field")
        for field in request.metadata_field:
            if field != _SIGNATURES:
                raise StatusError(Code.INVALID_ARGUMENT, f"Metadata field {field} is not supported")
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        signatures = get_model_metadata_pb2.SignatureDefMap()
        with self._models.use(request.model_spec) as (version, model):
            for name, signature in model.signatures.items():
                signatures.signature_def[name].CopyFrom(signature)
        response.model_spec.name = request.model_spec.name
        response.model_spec.version.value = version
        response.metadata[_SIGNATURES].Pack(signatures)
        return response

    Classify = _unimplemented("Classify")
    Regress = _unimplemented("Regress")
    MultiInference = _unimplemented("MultiInference")


class ModelService(model_service_pb2_grpc.ModelServiceServicer):
    """GetModelStatus."""

    def __init__(self, models: Models):
        self._models = models

    @_answering
    def GetModelStatus(
        self, request: get_model_status_pb2.GetModelStatusRequest, context: grpc.ServicerContext
    ) -> get_model_status_pb2.GetModelStatusResponse:
        _check_spec(request)
        response = get_model_status_pb2.GetModelStatusResponse()
        for version, state, error in self._models.status(request.model_spec):
            item = response.model_version_status.add(
                version=version, state=get_model_status_pb2.ModelVersionStatus.State.Value(state)
            )
            item.status.error_code = error.code if error else Code.OK
            item.status.error_message = str(error) if error else ""
        return response

    HandleReloadConfigRequest = _unimplemented("HandleReloadConfigRequest")


def _check_spec(request: Any) -> None:
    if not request.HasField("model_spec"):
        raise StatusError(Code.INVALID_ARGUMENT, "Missing ModelSpec")


def _timeout(context: grpc.ServicerContext) -> float | None:
    remaining = context.time_remaining()
    # gRPC gives a very large number where the client set no deadline.
    return None if remaining is None or remaining > 1e9 else remaining
