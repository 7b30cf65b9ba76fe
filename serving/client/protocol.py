"""The requests to one model of a TensorFlow Serving server and the meaning of its answers, without any I/O.

An exchange is a generator. It yields steps (Call, StartCall, ...), receives the result of each step or has its
ServingError thrown in, and returns its own result. serving.client.connection takes the steps with blocking calls,
serving.client.aio_connection with asyncio.
"""

import dataclasses
import logging
import math
import time
from collections.abc import Generator, Mapping, Sequence
from typing import Any, TypeVar

from serving import errors, protos, tensors
from serving.status import code_name

LOGGER = logging.getLogger("bitsum.client")
# Seconds after which a client whose server does not know the preferred label tries the label again.
LABEL_SECONDS = 10.0

Result = TypeVar("Result")
Exchange = Generator[Any, Any, Result]


@dataclasses.dataclass(frozen=True)
class Answer:
    """The response to a call, and the seconds it took."""

    response: Any
    seconds: float


@dataclasses.dataclass(frozen=True)
class Call:
    """Call `method`, one of METHODS, and wait; the result is an Answer."""

    method: str
    request: Any


@dataclasses.dataclass(frozen=True)
class StartCall:
    """Start a call without waiting; the result is for AwaitCall."""

    call: Call


@dataclasses.dataclass(frozen=True)
class AwaitCall:
    """Wait for a call that StartCall started; the result is its Answer."""

    pending: Any


@dataclasses.dataclass(frozen=True)
class Read:
    """Read the next piece of the input with the number `source`; the result is bytes, or END."""

    source: int


END = object()


@dataclasses.dataclass(frozen=True)
class Rewind:
    """Read all inputs from the beginning again; no result."""


@dataclasses.dataclass(frozen=True)
class Write:
    """Output `data`; no result."""

    data: bytes


# Method -> its service.
PREDICTIONS, MODELS = "tensorflow.serving.PredictionService", "tensorflow.serving.ModelService"
METHODS = {"Predict": PREDICTIONS, "GetModelMetadata": PREDICTIONS, "GetModelStatus": MODELS}


@dataclasses.dataclass(frozen=True)
class VersionStatus:
    """State of a version: START, LOADING, AVAILABLE, UNLOADING or END; why it failed, with the gRPC code."""

    version: int
    state: str
    error: str
    code: str = "OK"


@dataclasses.dataclass(frozen=True)
class TensorInfo:
    """An input or output of a signature; an unknown size is -1, an unknown rank None."""

    dtype: str
    shape: tuple[int, ...] | None


@dataclasses.dataclass(frozen=True)
class Signature:
    """The inputs and outputs of a signature, by name."""

    inputs: dict[str, TensorInfo]
    outputs: dict[str, TensorInfo]


@dataclasses.dataclass(frozen=True)
class ModelMetadata:
    """The version that answers and its signatures, by name."""

    version: int
    signatures: dict[str, Signature]


@dataclasses.dataclass(frozen=True)
class Prediction:
    """Decoded outputs by name, the version that computed them, and the seconds the call took."""

    outputs: dict[str, tensors.Tensor]
    version: int
    seconds: float


class ModelProtocol:
    """The exchanges with `model_name` at `target`; arguments as for serving.client.connection.Connection."""

    # Used where neither a version nor a label is given, as long as the server knows it.
    preferred_label = ""

    def __init__(self, target: str, model_name: str, version: int | None, label: str | None, deadline: float):
        self.target = target
        self.model_name = model_name
        self.version = version
        self.label = label
        self.deadline = deadline
        self._unlabelled_until = float("-inf")
        self._warned = False

    def predict(
        self, signature: str, inputs: Mapping[str, Any], outputs: Sequence[str] = (), version: int | None = None
    ) -> Exchange[Prediction]:
        """Run `signature` on TensorProtos and return the named `outputs`, or all of them without names."""
        call = self.predict_call(signature, inputs, outputs, version)
        return self.prediction((yield from self._ask(call)), signature, outputs)

    def metadata(self) -> Exchange[ModelMetadata]:
        """The version that answers now, and its signatures."""
        apis = protos.load()
        request = apis.metadata.GetModelMetadataRequest(metadata_field=["signature_def"])
        self._fill(request.model_spec, None)
        response = (yield from self._ask(Call("GetModelMetadata", request))).response
        signature_defs = apis.metadata.SignatureDefMap()
        if not response.metadata["signature_def"].Unpack(signature_defs):
            raise errors.BadResponse(f"{self.target} did not return the signatures of {self.model_name}")
        signatures = {
            name: Signature(_infos(signature.inputs), _infos(signature.outputs))
            for name, signature in signature_defs.signature_def.items()
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
        """Decode the answer to `predict_call`. Raises: BadResponse."""
        response = answer.response
        missing = [name for name in outputs if name not in response.outputs]
        if missing:
            raise errors.BadResponse(f"{self.target} answered {signature} without the output {missing[0]}")
        try:
            decoded = {name: tensors.decode(tensor) for name, tensor in response.outputs.items()}
        except ValueError as error:
            raise errors.BadResponse(f"{self.target} answered {signature} with {error}") from error
        return Prediction(decoded, response.model_spec.version.value, answer.seconds)

    def failure(self, code: str, details: str, reason: str = "") -> errors.ServingError:
        """The error for a call that ended with the status `code`, by name, and `details`; its text is `reason`, if
        known."""
        kind = errors.OF_CODE.get(code, errors.ServingError)
        return kind(reason or self._describe(code, details), code)

    def _ask(self, call: Call) -> Exchange[Answer]:
        try:
            answer: Answer = yield call
            return answer
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
        if not self._warned:
            self._warned = True
            missing = self.target, self.model_name, self.preferred_label
            LOGGER.warning("%s has no version of %s with the label %s: asking for the newest", *missing)
        spec.ClearField("version_label")
        answer = yield call
        return answer

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
            # A handshake that failed ends with the status of the check of the certificate.
            reason = line.removesuffix(": OK").rpartition(": ")[2]
            advice = "start one with: bitsum serve --model_base_path FOLDER"
            return f"no model server answers at {self.target} ({reason}); {advice}"
        if code == "DEADLINE_EXCEEDED" and math.isfinite(self.deadline):
            return f"{self.target} did not answer within {self.deadline:g} s"
        return f"{self.target} refused: {line} [{code}]"


def _infos(infos: Mapping[str, Any]) -> dict[str, TensorInfo]:
    return {name: TensorInfo(tensors.dtype_name(info.dtype), _shape(info.tensor_shape)) for name, info in infos.items()}


def _shape(proto: Any) -> tuple[int, ...] | None:
    return None if proto.unknown_rank else tuple(dim.size for dim in proto.dim)


def check_count(name: str, value: int) -> None:
    """Raise ValueError unless the argument `name` is an integer from 1."""
    if not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} = {value!r} must be an integer, 1 or more")
