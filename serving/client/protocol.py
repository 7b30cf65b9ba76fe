"""What is asked of one model of a TensorFlow Serving server and what its answers mean, without any input or output.

An exchange is a generator. It yields the steps to take (Call, StartCall, ...), is sent what came of each, or has the
ServingError of it thrown in, and returns its result. serving.client.connection takes the steps with threads,
serving.client.aio_connection with asyncio.
"""

import dataclasses
import logging
import time
from collections.abc import Generator, Mapping, Sequence
from typing import Any, TypeVar

from serving import errors, protos, tensors
from serving.status import code_name

LOGGER = logging.getLogger("bitsum.client")
# For so many seconds a client asks without its preferred label, where the server does not know it, before it tries it
# again.
LABEL_SECONDS = 10.0

Result = TypeVar("Result")
Exchange = Generator[Any, Any, Result]


@dataclasses.dataclass(frozen=True)
class Answer:
    """The response to a call, and the seconds until it came."""

    response: Any
    seconds: float


@dataclasses.dataclass(frozen=True)
class Call:
    """Ask and wait; what comes of it is an Answer. `method` is one of METHODS."""

    method: str
    request: Any


@dataclasses.dataclass(frozen=True)
class StartCall:
    """Ask and do not wait; what comes of it is for Finish."""

    call: Call


@dataclasses.dataclass(frozen=True)
class AwaitCall:
    """Wait for a call that was begun; what comes of it is its Answer."""

    pending: Any


@dataclasses.dataclass(frozen=True)
class Read:
    """Take the next piece of an input, by its number; what comes of it are bytes, or END."""

    source: int


END = object()


@dataclasses.dataclass(frozen=True)
class Rewind:
    """Begin with all inputs again; nothing comes of it."""


@dataclasses.dataclass(frozen=True)
class Write:
    """Hand `data` on; nothing comes of it."""

    data: bytes


# method -> service that has it.
PREDICTIONS, MODELS = "tensorflow.serving.PredictionService", "tensorflow.serving.ModelService"
METHODS = {"Predict": PREDICTIONS, "GetModelMetadata": PREDICTIONS, "GetModelStatus": MODELS}


@dataclasses.dataclass(frozen=True)
class VersionStatus:
    """State of a version: START, LOADING, AVAILABLE, UNLOADING or END; `error` says why it failed, `code` the gRPC code
    of that."""

    version: int
    state: str
    error: str
    code: str = "OK"


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
    """Decoded outputs by name, the version that made them, and the seconds until they came."""

    outputs: dict[str, tensors.Tensor]
    version: int
    seconds: float


class ModelProtocol:
    """Conversations with `model_name` at `target`; arguments as of serving.client.connection.Connection."""

    # Asked for where neither version nor label is given, as long as the server knows it.
    preferred_label = ""

    def __init__(self, target: str, model_name: str, version: int | None, label: str | None, deadline: float):
        self.target = target
        self.model_name = model_name
        self.version = version
        self.label = label
        self.deadline = deadline
        self._unlabelled_until = float("-inf")
        self._said = False

    def predict(
        self, signature: str, inputs: Mapping[str, Any], outputs: Sequence[str] = (), version: int | None = None
    ) -> Exchange[Prediction]:
        """Run `signature` on TensorProtos; only the named `outputs` (all without names) come back."""
        call = self.predict_call(signature, inputs, outputs, version)
        return self.prediction((yield from self._ask(call)), signature, outputs)

    def metadata(self) -> Exchange[ModelMetadata]:
        """The version that answers now, and its signatures."""
        apis = protos.load()
        request = apis.metadata.GetModelMetadataRequest(metadata_field=["signature_def"])
        self._fill(request.model_spec, None)
        response = (yield from self._ask(Call("GetModelMetadata", request))).response
        found = apis.metadata.SignatureDefMap()
        if not response.metadata["signature_def"].Unpack(found):
            raise errors.BadResponse(f"{self.target} answered without the signatures of {self.model_name}")
        signatures = {
            name: Signature(_infos(signature.inputs), _infos(signature.outputs))
            for name, signature in found.signature_def.items()
        }
        return ModelMetadata(response.model_spec.version.value, signatures)

    def status(self) -> Exchange[list[VersionStatus]]:
        """Every version that the server knows of, newest first."""
        apis = protos.load()
        request = apis.status.GetModelStatusRequest()
        request.model_spec.name = self.model_name
        response = (yield Call("GetModelStatus", request)).response
        states = apis.status.ModelVersionStatus.State
        return [
            VersionStatus(
                item.version, states.Name(item.state), item.status.error_message, code_name(item.status.error_code)
            )
            for item in response.model_version_status
        ]

    def predict_call(
        self, signature: str, inputs: Mapping[str, Any], outputs: Sequence[str], version: int | None
    ) -> Call:
        """The call that `predict` makes."""
        request = protos.load().predict.PredictRequest(output_filter=outputs)
        self._fill(request.model_spec, version)
        request.model_spec.signature_name = signature
        for name, tensor in inputs.items():
            request.inputs[name].CopyFrom(tensor)
        return Call("Predict", request)

    def prediction(self, answer: Answer, signature: str, outputs: Sequence[str]) -> Prediction:
        """The answer to such a call. Raises: BadResponse."""
        response = answer.response
        missing = [name for name in outputs if name not in response.outputs]
        if missing:
            raise errors.BadResponse(f"{self.target} answered {signature} without the output {missing[0]}")
        try:
            decoded = {name: tensors.decode(tensor) for name, tensor in response.outputs.items()}
        except ValueError as error:
            raise errors.BadResponse(f"{self.target} answered {signature} with {error}") from error
        return Prediction(decoded, response.model_spec.version.value, answer.seconds)

    def failure(self, code: str, details: str) -> errors.ServingError:
        """The error for a call that ended with the status `code`, by name, and `details`."""
        kind = errors.OF_CODE.get(code, errors.ServingError)
        return kind(self._describe(code, details), code)

    def _ask(self, call: Call) -> Exchange[Answer]:
        try:
            return (yield call)
        except errors.InvalidRequest as error:
            spec = call.request.model_spec
            unknown = f"Unrecognized servable version label: {self.preferred_label} ["
            if (
                self.label is not None
                or spec.WhichOneof("version_choice") != "version_label"
                or unknown not in str(error)
            ):
                raise
        self._unlabelled_until = time.monotonic() + LABEL_SECONDS
        if not self._said:
            self._said = True
            missing = self.target, self.model_name, self.preferred_label
            LOGGER.warning("%s has no version of %s with the label %s: asking for the newest", *missing)
        spec.ClearField("version_label")
        return (yield call)

    def _fill(self, spec: Any, version: int | None) -> None:
        spec.name = self.model_name
        version = self.version if version is None else version
        label = self.label
        if label is None and time.monotonic() >= self._unlabelled_until:
            label = self.preferred_label
        if version is not None:
            spec.version.value = version
        elif label:
            spec.version_label = label

    def _describe(self, code: str, details: str) -> str:
        line = details.splitlines()[0] if details else "no details"
        if code == "UNAVAILABLE":
            reason = line.rpartition(": ")[2]
            return f"no model server answers at {self.target} ({reason}); start one with: bitsum serve --model_base_path FOLDER"
        if code == "DEADLINE_EXCEEDED":
            return f"{self.target} did not answer within {self.deadline:g} s"
        return f"{self.target} refused: {line} [{code}]"


def _infos(infos: Mapping[str, Any]) -> dict[str, TensorInfo]:
    return {name: TensorInfo(tensors.dtype_name(info.dtype), _shape(info.tensor_shape)) for name, info in infos.items()}


def _shape(proto: Any) -> tuple[int, ...] | None:
    return None if proto.unknown_rank else tuple(dim.size for dim in proto.dim)
