"""What TensorFlow Serving checks before it runs Classify, Regress or MultiInference: signatures, methods and the input.

The embedded server stops after these checks. Signatures are SignatureDefs by name, as a loaded model has them.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from serving.status import Code, StatusError

if TYPE_CHECKING:
    from tensorflow.core.protobuf.meta_graph_pb2 import SignatureDef
    from tensorflow_serving.apis.inference_pb2 import MultiInferenceRequest
    from tensorflow_serving.apis.input_pb2 import Input

_DEFAULT_SIGNATURE = "serving_default"
_CLASSIFY = "tensorflow/serving/classify"
_REGRESS = "tensorflow/serving/regress"


def check_classify(signatures: "Mapping[str, SignatureDef]", name: str, data: "Input") -> None:
    """Raises: StatusError, what a classification by signature `name` of `data` is refused for."""
    _check_classification(_signature(signatures, name, "No signature was found with the name: "))
    _check_input(data)


def check_regress(signatures: "Mapping[str, SignatureDef]", name: str, data: "Input") -> None:
    """Raises: StatusError, what a regression by signature `name` of `data` is refused for."""
    _check_regression(_signature(signatures, name, "No signature was found with the name: "))
    _check_input(data)


def check_multi_inference(signatures: "Mapping[str, SignatureDef]", request: "MultiInferenceRequest") -> None:
    """Raises: StatusError, what the tasks of `request` are refused for."""
    model, seen = "", set()
    for task in request.tasks:
        spec = task.model_spec
        if not spec.name:
            raise _invalid("Found ModelSpec with an empty model name.")
        if model not in ("", spec.name):
            raise _invalid("All ModelSpecs in a MultiInferenceRequest must access the same model name.")
        model = spec.name
        name = spec.signature_name or _DEFAULT_SIGNATURE
        if name in seen:
            raise _invalid(f"Duplicate evaluation of signature: {name}")
        seen.add(name)
        signature = _signature(signatures, name, "Requested signature not found in model graph: ")
        if task.method_name not in (_CLASSIFY, _REGRESS):
            raise StatusError(Code.UNIMPLEMENTED, f"Unsupported signature method_name: {task.method_name}")
        (_check_classification if task.method_name == _CLASSIFY else _check_regression)(signature)
    _check_input(request.input)


def _signature(signatures: "Mapping[str, SignatureDef]", name: str, text: str) -> "SignatureDef":
    name = name or _DEFAULT_SIGNATURE
    if name not in signatures:
        raise _invalid(f"{text}{name}")
    return signatures[name]


def _check_classification(signature: "SignatureDef") -> None:
    if len(signature.inputs) != 1:
        raise _invalid("Expected one input Tensor.")
    if len(signature.outputs) not in (1, 2):
        raise _invalid(f"Expected one or two output Tensors, found {len(signature.outputs)}")
    if "inputs" not in signature.inputs:
        raise _invalid(f"No classification inputs found in SignatureDef: {signature}")
    if not {"classes", "scores"} & set(signature.outputs):
        raise _invalid(
            f'Expected classification signature outputs to contain at least one of "classes" or "scores". Signature was: {signature}'
        )


def _check_regression(signature: "SignatureDef") -> None:
    if len(signature.inputs) != 1:
        raise _invalid("Expected one input Tensor.")
    if len(signature.outputs) != 1:
        raise _invalid("Expected one output Tensor.")
    if "inputs" not in signature.inputs:
        raise _invalid(f"No regression inputs found in SignatureDef: {signature}")
    if "outputs" not in signature.outputs:
        raise _invalid(f"No regression outputs found in SignatureDef: {signature}")


def _check_input(data: "Input") -> None:
    kind = data.WhichOneof("kind")
    if not kind or not getattr(data, kind).examples:
        raise _invalid("Input is empty.")


def _invalid(text: str) -> StatusError:
    return StatusError(Code.INVALID_ARGUMENT, text)
