"""A connection to one model of a TensorFlow Serving server: requests, deadlines, and errors of the tree in serving.client.

Knows nothing of addition: `serving.client` builds on it.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import grpc

from serving import errors, protos, tensors

# What a gRPC peer takes by default; also the bound for the requests that the client makes.
MESSAGE_BYTES = 4 * 1024 * 1024


@dataclasses.dataclass(frozen=True)
class VersionStatus:
    """State of a version: START, LOADING, AVAILABLE, UNLOADING or END; `error` says why it failed."""

    version: int
    state: str
    error: str


@dataclasses.dataclass(frozen=True)
class TensorInfo:
    """What a signature says of an input or output; unknown sizes are -1, an unknown rank is None."""

    dtype: str
    shape: tuple[int, ...] | None


@dataclasses.dataclass(frozen=True)
class Signature:
    """Inputs and outputs by name."""

    inputs: dict[str, TensorInfo]
    outputs: dict[str, TensorInfo]


@dataclasses.dataclass(frozen=True)
class ModelMetadata:
    """The version that answers, and its signatures by name."""

    version: int
    signatures: dict[str, Signature]


@dataclasses.dataclass(frozen=True)
class Prediction:
    """Decoded outputs by name, and the version that made them."""

    outputs: dict[str, tensors.Tensor]
    version: int


class Connection:
    """Requests to `model_name` at `target` ("HOST:PORT").

    Args:
        version: ask for this version; None for the newest, or what `label` points to.
        label: ask for the version with this label.
        deadline: seconds after which a call is given up.
        channel: a grpc.Channel, or anything with its `unary_unary`, to use in place of a new one to `target`; the caller closes it.
    """

    def __init__(
        self,
        target: str,
        model_name: str,
        *,
        version: int | None = None,
        label: str | None = None,
        deadline: float = 10.0,
        channel: Any = None,
    ):
        apis = protos.load()
        self.target = target
        self.model_name = model_name
        self.version = version
        self.label = label
        self.deadline = deadline
        self._own_channel = None if channel is not None else grpc.insecure_channel(target, options=_CHANNEL_OPTIONS)
        channel = channel if channel is not None else self._own_channel
        self._predictions = apis.prediction_service.PredictionServiceStub(channel)
        self._models = apis.model_service.ModelServiceStub(channel)

    def close(self) -> None:
        """Close the channel, unless it was passed in."""
        if self._own_channel:
            self._own_channel.close()

    def predict(
        self, signature: str, inputs: Mapping[str, Any], outputs: Sequence[str] = (), version: int | None = None
    ) -> Prediction:
        """Run `signature` on TensorProtos; only the named `outputs` (all without names) come back.

        Raises:
            ServingError: see the tree in serving.client.
        """
        request = protos.load().predict.PredictRequest(output_filter=outputs)
        self._fill(request.model_spec, version)
        request.model_spec.signature_name = signature
        for name, tensor in inputs.items():
            request.inputs[name].CopyFrom(tensor)
        response = self._call(self._predictions.Predict, request)
        missing = [name for name in outputs if name not in response.outputs]
        if missing:
            raise errors.BadResponse(f"{self.target} answered {signature} without the output {missing[0]}")
        try:
            decoded = {name: tensors.decode(tensor) for name, tensor in response.outputs.items()}
        except ValueError as error:
            raise errors.BadResponse(f"{self.target} answered {signature} with {error}") from error
        return Prediction(decoded, response.model_spec.version.value)

    def metadata(self) -> ModelMetadata:
        """The version that answers now, and its signatures. Raises: ServingError."""
        apis = protos.load()
        request = apis.metadata.GetModelMetadataRequest(metadata_field=["signature_def"])
        self._fill(request.model_spec, None)
        response = self._call(self._predictions.GetModelMetadata, request)
        found = apis.metadata.SignatureDefMap()
        if not response.metadata["signature_def"].Unpack(found):
            raise errors.BadResponse(f"{self.target} answered without the signatures of {self.model_name}")
        signatures = {
            name: Signature(_infos(signature.inputs), _infos(signature.outputs)) for name, signature in found.signature_def.items()
        }
        return ModelMetadata(response.model_spec.version.value, signatures)

    def status(self) -> list[VersionStatus]:
        """Every version that the server knows of, newest first. Raises: ServingError."""
        apis = protos.load()
        request = apis.status.GetModelStatusRequest()
        request.model_spec.name = self.model_name
        response = self._call(self._models.GetModelStatus, request)
        states = apis.status.ModelVersionStatus.State
        return [
            VersionStatus(item.version, states.Name(item.state), item.status.error_message) for item in response.model_version_status
        ]

    def _fill(self, spec: Any, version: int | None) -> None:
        spec.name = self.model_name
        version = self.version if version is None else version
        if version is not None:
            spec.version.value = version
        elif self.label is not None:
            spec.version_label = self.label

    def _call(self, method: Any, request: Any) -> Any:
        try:
            return method(request, timeout=self.deadline)
        except grpc.RpcError as error:
            code = error.code().name
            raise errors.OF_CODE.get(code, errors.ServingError)(self._explained(code, error.details() or ""), code) from error

    def _explained(self, code: str, details: str) -> str:
        line = details.splitlines()[0] if details else "no details"
        if code == "UNAVAILABLE":
            reason = line.rpartition(": ")[2]
            return f"no model server answers at {self.target} ({reason}); start one with: bitsum serve --model_base_path FOLDER"
        if code == "DEADLINE_EXCEEDED":
            return f"{self.target} did not answer within {self.deadline:g} s"
        return f"{self.target} refused: {line} [{code}]"


_CHANNEL_OPTIONS = [
    ("grpc.max_receive_message_length", MESSAGE_BYTES),
    ("grpc.max_send_message_length", MESSAGE_BYTES),
    # A server on this machine must not be asked for through a proxy of the environment.
    ("grpc.enable_http_proxy", 0),
]


def _infos(infos: Mapping[str, Any]) -> dict[str, TensorInfo]:
    return {name: TensorInfo(tensors.dtype_name(info.dtype), _shape(info.tensor_shape)) for name, info in infos.items()}


def _shape(proto: Any) -> tuple[int, ...] | None:
    return None if proto.unknown_rank else tuple(dim.size for dim in proto.dim)
