"""The methods of PredictionService and ModelService, without gRPC.

The checks, their order, status codes and texts are those of TensorFlow Serving 2.16. Every method raises StatusError
for a refused request.
"""

from collections.abc import Callable
from typing import Any

from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_management_pb2,
    model_pb2,
    predict_pb2,
)

from serving.model_config import MODEL_LIST
from serving.runtime.predict import predict
from serving.status import Code, StatusError
from serving.versions.loader import LOGGER
from serving.versions.model_manager import ModelManager

_SIGNATURES = "signature_def"


class PredictionService:
    """Predict and GetModelMetadata.

    Args:
        observe_run: called with (model, method, seconds) for each run of a graph.
    """

    def __init__(
        self, models: ModelManager, observe_run: Callable[[str, str, float], None] = lambda model, method, seconds: None
    ):
        self._models = models
        self._observe_run = observe_run

    def predict(self, request: predict_pb2.PredictRequest, timeout: float | None) -> predict_pb2.PredictResponse:
        """The outputs; `timeout` is the time to the caller's deadline in seconds, None without a deadline."""
        with self._models.handle(_spec(request)) as (version, model):
            response = predict(
                model, request, timeout, lambda seconds: self._observe_run(request.model_spec.name, "Predict", seconds)
            )
        response.model_spec.name = request.model_spec.name
        response.model_spec.version.value = version
        return response

    def get_model_metadata(
        self, request: get_model_metadata_pb2.GetModelMetadataRequest
    ) -> get_model_metadata_pb2.GetModelMetadataResponse:
        """The signatures of a version."""
        spec = _spec(request)
        if not request.metadata_field:
            raise StatusError(Code.INVALID_ARGUMENT, "GetModelMetadataRequest must specify at least one metadata_field")
        for field in request.metadata_field:
            if field != _SIGNATURES:
                raise StatusError(Code.INVALID_ARGUMENT, f"Metadata field {field} is not supported")
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        signatures = get_model_metadata_pb2.SignatureDefMap()
        with self._models.handle(spec) as (version, model):
            for name, signature in model.signatures.items():
                signatures.signature_def[name].CopyFrom(signature)
        response.model_spec.name = spec.name
        response.model_spec.version.value = version
        response.metadata[_SIGNATURES].Pack(signatures)
        return response


class ModelService:
    """GetModelStatus and HandleReloadConfigRequest.

    Args:
        metric: the value of a counter by its TensorFlow Serving name, 0 for an unknown counter. A reload answers with
        the increase of the requested counters.
    """

    def __init__(self, models: ModelManager, metric: Callable[[str], int] = lambda name: 0):
        self._models = models
        self._metric = metric

    def get_model_status(
        self, request: get_model_status_pb2.GetModelStatusRequest
    ) -> get_model_status_pb2.GetModelStatusResponse:
        """The states of a model's versions, newest first."""
        response = get_model_status_pb2.GetModelStatusResponse()
        for version, state, error in self._models.status(_spec(request)):
            item = response.model_version_status.add(
                version=version, state=get_model_status_pb2.ModelVersionStatus.State.Value(state)
            )
            item.status.error_code = error.code if error else Code.OK
            item.status.error_message = str(error) if error else ""
        return response

    def handle_reload_config_request(
        self, request: model_management_pb2.ReloadConfigRequest
    ) -> model_management_pb2.ReloadConfigResponse:
        """Serve the models of the request and no others.

        A refusal is raised: with a status other than OK, gRPC sends no message, as in TensorFlow Serving.
        """
        before = {name: self._metric(name) for name in request.metric_names}
        try:
            if request.config.WhichOneof("config") != MODEL_LIST:
                raise StatusError(
                    Code.INVALID_ARGUMENT,
                    "ServerModelConfig type not supported by HandleReloadConfigRequest. "
                    "Only ModelConfigList is currently supported",
                )
            self._models.reload(request.config)
        except StatusError as refusal:
            LOGGER.warning("refused a reload of the config: %s", refusal)
            raise
        LOGGER.info("accepted a reload of the config")
        response = model_management_pb2.ReloadConfigResponse()
        response.status.SetInParent()
        for name, value in before.items():
            response.metric.add(name=name, int64_value_increase=self._metric(name) - value)
        return response


def _spec(request: Any) -> model_pb2.ModelSpec:
    if not request.HasField("model_spec"):
        raise StatusError(Code.INVALID_ARGUMENT, "Missing ModelSpec")
    return request.model_spec
