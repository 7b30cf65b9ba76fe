"""The protocol buffers and gRPC stubs of TensorFlow and TensorFlow Serving, without importing TensorFlow.

apis = load()
request = apis.predict.PredictRequest()
"""

import functools
import types

from components.formats import protos

_MODULES = {
    "tensor": "tensorflow.core.framework.tensor_pb2",
    "types": "tensorflow.core.framework.types_pb2",
    "example": "tensorflow.core.example.example_pb2",
    "predict": "tensorflow_serving.apis.predict_pb2",
    "metadata": "tensorflow_serving.apis.get_model_metadata_pb2",
    "status": "tensorflow_serving.apis.get_model_status_pb2",
    "management": "tensorflow_serving.apis.model_management_pb2",
    "config": "tensorflow_serving.config.model_server_config_pb2",
    "prediction_service": "tensorflow_serving.apis.prediction_service_pb2_grpc",
    "model_service": "tensorflow_serving.apis.model_service_pb2_grpc",
}


@functools.cache
def load() -> types.SimpleNamespace:
    """The generated modules, by short names: tensor, types, example, predict, metadata, status, management, config,
    prediction_service, model_service.

    Thread-safe, even while another thread imports TensorFlow.

    Raises:
        BitsumError: the packages are not installed.
    """
    return protos.load(**_MODULES)
