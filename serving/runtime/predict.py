"""Predict on one loaded version, with the checks of TensorFlow Serving 2.16, their order and their texts.

signature -> number of inputs -> name and parsing of each input -> output filter -> run. Dtypes and shapes are not
compared with the signature: the session and the graph check them.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from tensorflow.core.framework import tensor_pb2
from tensorflow.python.framework import dtypes
from tensorflow_serving.apis import predict_pb2

from components import signatures
from serving.runtime.model import Model
from serving.runtime.tensor_decoding import FIELDS, decode
from serving.status import Code, StatusError


def predict(
    model: Model,
    request: predict_pb2.PredictRequest,
    timeout: float | None,
    observe_run: Callable[[float], None] = lambda seconds: None,
) -> predict_pb2.PredictResponse:
    """The outputs of `request` in typed fields; the caller fills in name and version.

    Args:
        timeout: seconds until the caller's deadline; None without one.
        observe_run: called with the seconds of the graph's run.

    Raises:
        StatusError: with the code and text for the client.
    """
    name = request.model_spec.signature_name or signatures.SERVING_DEFAULT
    signature = model.signatures.get(name)
    if signature is None:
        raise StatusError(Code.FAILED_PRECONDITION, f'Serving signature key "{name}" not found.')
    feeds = _feeds(signature, request.inputs)
    aliases = _aliases(signature, list(request.output_filter))
    start = time.perf_counter()
    values = model.run(feeds, [signature.outputs[alias].name for alias in aliases], timeout)
    observe_run(time.perf_counter() - start)
    response = predict_pb2.PredictResponse()
    response.model_spec.signature_name = name
    for alias, value in zip(aliases, values, strict=True):
        _encode(_array(value), response.outputs[alias])
    return response


def _array(value: Any) -> np.ndarray:
    """`value` as an array; numpy's own type for bytes would drop trailing zeros."""
    return np.array(value, dtype=object) if isinstance(value, bytes) else np.asarray(value)


def _feeds(signature: Any, inputs: Mapping[str, tensor_pb2.TensorProto]) -> dict[str, np.ndarray]:
    if len(inputs) != len(signature.inputs):
        expected, sent = sorted(signature.inputs), sorted(inputs)
        extra, missing = sorted({*sent} - {*expected}), sorted({*expected} - {*sent})
        raise StatusError(
            Code.INVALID_ARGUMENT,
            f"input size does not match signature: {len(sent)}!={len(expected)} len({{{','.join(sent)}}}) != "
            f"len({{{','.join(expected)}}}). Sent extra: {{{','.join(extra)}}}. "
            f"Missing but required: {{{','.join(missing)}}}.",
        )
    feeds = {}
    for alias in sorted(signature.inputs):
        feed = signature.inputs[alias].name
        if alias not in inputs:
            raise StatusError(
                Code.INVALID_ARGUMENT,
                f"Signature input alias: {alias}(feed name: {feed}) not found in request and no default value "
                f"provided. Inputs expected to be in the request {{{','.join(sorted(inputs))}}}, or default input "
                "alias set: ",
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
    dtype = dtypes.string if value.dtype == object else dtypes.as_dtype(value.dtype)
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
