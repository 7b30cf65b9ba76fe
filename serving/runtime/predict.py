"""Predict on one loaded version: the checks, their order and their texts are those of TensorFlow Serving 2.16.

signature -> number of inputs -> each input by name and its parsing -> output filter -> run. Dtypes and shapes are not
compared with the signature: the session and the graph judge them.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2
from tensorflow_serving.apis import predict_pb2

from serving.runtime.loaded_model import LoadedModel
from serving.runtime.tensor_decoding import FIELDS, decode
from serving.status import Code, StatusError


def predict(
    model: LoadedModel,
    request: predict_pb2.PredictRequest,
    timeout: float | None,
    ran: Callable[[float], None] = lambda seconds: None,
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


def _feeds(signature: Any, inputs: Mapping[str, tensor_pb2.TensorProto]) -> dict[str, np.ndarray]:
    if len(inputs) != len(signature.inputs):
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
        if alias not in inputs:
            raise StatusError(
                Code.INVALID_ARGUMENT,
                f"Signature input alias: {alias}(feed name: {feed}) not found in request and no default value provided. Inputs "
                f"expected to be in the request {{{','.join(sorted(inputs))}}}, or default input alias set: ",
            )
        feeds[feed] = decode(inputs[alias], alias)
    return feeds


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
    if dtype not in FIELDS:
        raise StatusError(Code.UNIMPLEMENTED, f"outputs of dtype {dtype.name} cannot be sent")
    proto.dtype = dtype.as_datatype_enum
    proto.tensor_shape.SetInParent()
    for size in value.shape:
        proto.tensor_shape.dim.add(size=size)
    flat = value.ravel()
    if FIELDS[dtype] == "half_val":
        flat = flat.view(np.uint16)
    elif dtype.is_complex:
        flat = flat.view(flat.real.dtype)
    getattr(proto, FIELDS[dtype]).extend(flat.tolist())
