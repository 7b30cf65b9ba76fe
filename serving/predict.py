"""Predict on one loaded version: the checks, their order and their texts are those of TensorFlow Serving 2.16.

signature -> number of inputs -> each input by name and its parsing -> output filter -> run. Dtypes and shapes are not compared
with the signature: the session and the graph judge them.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2
from tensorflow_serving.apis import predict_pb2

from serving.loaded_model import LoadedModel
from serving.status import Code, StatusError
from serving.tensor_parsing import COMPLEX, FIELDS, HALVES, Unfit, decode


def predict(
    model: LoadedModel, request: predict_pb2.PredictRequest, timeout: float | None, ran: Callable[[float], None] = lambda seconds: None
) -> predict_pb2.PredictResponse:
    """The outputs of `request` in typed fields; the caller fills in name and version.

    Args:
        timeout: seconds until the caller's deadline; None without one.
        ran: told the seconds that the run of the graph took.

    Raises:
        StatusError: with the code and text that the client gets.
    """
    name = request.model_spec.signature_name or tf.saved_model.DEFAULT_SERVING_SIGNATURE_DEF_KEY
    signature = model.signatures.get(name)
    if signature is None:
        raise StatusError(Code.FAILED_PRECONDITION, f'Serving signature key "{name}" not found.')
    feeds = _feeds(signature, request.inputs)
    aliases = _aliases(signature, list(request.output_filter))
    _check_fit(signature, feeds)
    start = time.perf_counter()
    values = model.run(feeds, [signature.outputs[alias].name for alias in aliases], timeout)
    ran(time.perf_counter() - start)
    response = predict_pb2.PredictResponse()
    response.model_spec.signature_name = name
    for alias, value in zip(aliases, values):
        _encode(_array(value), response.outputs[alias])
    return response


def _array(value: Any) -> np.ndarray:
    """`value` as an array; of bytes numpy would make a type that forgets the zeros at their end."""
    return np.array(value, dtype=object) if isinstance(value, bytes) else np.asarray(value)


def _feeds(signature: Any, inputs: Mapping[str, tensor_pb2.TensorProto]) -> dict[str, np.ndarray | Unfit]:
    if len(inputs) > len(signature.inputs) or (len(inputs) < len(signature.inputs) and not signature.defaults):
        expected, sent = sorted(signature.inputs), sorted(inputs)
        extra, missing = sorted({*sent} - {*expected}), sorted({*expected} - {*sent})
        raise StatusError(
            Code.INVALID_ARGUMENT,
            f"input size does not match signature: {len(sent)}!={len(expected)} len({{{','.join(sent)}}}) != "
            f"len({{{','.join(expected)}}}). Sent extra: {{{','.join(extra)}}}. Missing but required: {{{','.join(missing)}}}.",
        )
    feeds = {}
    for alias in sorted(signature.inputs):
        feed = signature.inputs[alias].name
        proto = inputs[alias] if alias in inputs else signature.defaults[alias] if alias in signature.defaults else None
        if proto is None:
            raise StatusError(
                Code.INVALID_ARGUMENT,
                f"Signature input alias: {alias}(feed name: {feed}) not found in request and no default value provided. Inputs "
                f"expected to be in the request {{{','.join(sorted(inputs))}}}, or default input alias set: "
                f"{','.join(sorted(signature.defaults))}",
            )
        feeds[feed] = decode(proto, alias)
    return feeds


def _check_fit(signature: Any, feeds: Mapping[str, np.ndarray | Unfit]) -> None:
    """What the session says of a dtype that is not the placeholder's, where the tensor cannot be fed to ask it."""
    if not any(isinstance(value, Unfit) for value in feeds.values()):
        return
    expected = {info.name: tf.as_dtype(info.dtype) for info in signature.inputs.values()}
    for index, feed in enumerate(sorted(feeds)):
        value = feeds[feed]
        dtype = value.dtype if isinstance(value, Unfit) else tf.string if value.dtype == object else tf.as_dtype(value.dtype)
        if dtype != expected[feed]:
            raise StatusError(
                Code.INVALID_ARGUMENT, f"Expects arg[{index}] to be {_named(expected[feed])} but {_named(dtype)} is provided"
            )
    raise StatusError(Code.UNIMPLEMENTED, "inputs that are resources, variants or quantized cannot be fed here")


def _named(dtype: tf.DType) -> str:
    """DataTypeString."""
    return {tf.float32: "float", tf.float64: "double", tf.float16: "half"}.get(dtype, dtype.name)


def _aliases(signature: Any, wanted: list[str]) -> list[str]:
    seen = set()
    for alias in wanted:
        if alias not in signature.outputs:
            raise StatusError(
                Code.INVALID_ARGUMENT,
                f"output tensor alias not found in signature: {alias} Outputs expected to be in the set "
                f"{{{','.join(sorted(signature.outputs))}}}.",
            )
        if alias in seen:
            raise StatusError(Code.INVALID_ARGUMENT, f"duplicate output tensor alias: {alias}")
        seen.add(alias)
    return wanted or sorted(signature.outputs)


def _encode(value: np.ndarray, proto: tensor_pb2.TensorProto) -> None:
    """Fill in `proto` as Tensor::AsProtoField does: typed fields, never tensor_content."""
    dtype = tf.string if value.dtype == object else tf.as_dtype(value.dtype)
    proto.dtype = dtype.as_datatype_enum
    proto.tensor_shape.SetInParent()
    for size in value.shape:
        proto.tensor_shape.dim.add(size=size)
    flat = value.ravel()
    if dtype in COMPLEX:
        getattr(proto, COMPLEX[dtype]).extend(flat.view(flat.real.dtype).tolist())
    elif dtype in HALVES:
        proto.half_val.extend(flat.view(np.uint16).tolist())
    elif dtype in FIELDS:
        getattr(proto, FIELDS[dtype]).extend(flat.tolist())
    else:
        raise StatusError(Code.UNIMPLEMENTED, f"outputs of dtype {dtype.name} cannot be sent")
