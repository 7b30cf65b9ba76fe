"""Requests that a served adder answers, for `benchmarks.malformed` to break. The protocol buffers do not need
TensorFlow."""

import random
from typing import Any

from benchmarks import hostile_configs
from components import signatures
from serving import protos, tensors

MODEL = "bitsum"
UNITS = 8
PREDICTION = "/tensorflow.serving.PredictionService/"
MODELS = "/tensorflow.serving.ModelService/"
PREDICT, RELOAD = PREDICTION + "Predict", MODELS + "HandleReloadConfigRequest"
HEALTH = "/grpc.health.v1.Health/"
METHODS = (PREDICT, PREDICTION + "GetModelMetadata", MODELS + "GetModelStatus", RELOAD, HEALTH + "Check")


class WellFormed:
    """Random valid requests; `folder` is the base path of the served model."""

    def __init__(self, folder: str):
        self.folder = folder
        self.apis = protos.load()

    def messages(self) -> dict[str, Any]:
        """The request of each method that takes a model's name."""
        apis = self.apis
        return dict(
            zip(
                METHODS[:3],
                (apis.predict.PredictRequest, apis.metadata.GetModelMetadataRequest, apis.status.GetModelStatusRequest),
                strict=True,
            )
        )

    def good(self, draw: random.Random, methods: tuple[str, ...] = METHODS[:4]) -> tuple[str, bytes]:
        """The path of a method, usually Predict, and a request."""
        method = draw.choice((*methods, *[PREDICT] * len(methods)))
        if method == PREDICT:
            return method, self.predict(draw).SerializeToString(deterministic=True)
        if method == RELOAD:
            config = hostile_configs.right(MODEL, self.folder)
            return method, self.apis.management.ReloadConfigRequest(
                config=config, metric_names=["x"]
            ).SerializeToString(deterministic=True)
        message = self.messages()[method]()
        message.model_spec.CopyFrom(self.spec(draw.choice((signatures.SERVING_DEFAULT, ""))))
        if method.endswith("GetModelMetadata"):
            message.metadata_field.append("signature_def")
        return method, message.SerializeToString(deterministic=True)

    def predict(self, draw: random.Random) -> Any:
        """A PredictRequest by any of the signatures."""
        rows = draw.choice((1, 1, 2, 5))
        size = draw.choice((1, 2, 9, 70))
        name = draw.choice((signatures.SERVING_DEFAULT, signatures.ADD_BITS, signatures.STEP, signatures.ADD_PACKED))
        if name == signatures.SERVING_DEFAULT:
            inputs = {signatures.EXAMPLES: tensors.string_tensor([self.example(draw) for _ in range(rows)])}
        else:
            packed = name == signatures.ADD_PACKED
            made = [
                tensors.string_tensor([draw.randbytes(size) for _ in range(rows)])
                if packed
                else tensors.bits_tensor([draw.getrandbits(size) for _ in range(rows)], size)
                for _ in range(2)
            ]
            inputs = dict(zip((signatures.A, signatures.B), made, strict=True))
            if name != signatures.ADD_BITS:
                inputs[signatures.STATE] = tensors.filled_tensor(0.0, (rows, UNITS))
        return self.apis.predict.PredictRequest(model_spec=self.spec(name), inputs=inputs)

    def spec(self, signature: str) -> Any:
        """The ModelSpec of the newest version."""
        return self.apis.predict.PredictRequest(model_spec={"name": MODEL, "signature_name": signature}).model_spec

    def example(self, draw: random.Random) -> bytes:
        """A serialized tf.Example with two operands of the same length."""
        example = self.apis.example.Example()
        size = draw.randrange(1, 40)
        for name in (signatures.A, signatures.B):
            example.features.feature[name].int64_list.value.extend(draw.randrange(2) for _ in range(size))
        return example.SerializeToString(deterministic=True)
