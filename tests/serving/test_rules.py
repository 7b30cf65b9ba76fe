"""Predict, GetModelMetadata and GetModelStatus answer as a real TensorFlow Serving 2.16.1 was seen to: codes, texts, order of checks."""

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2
from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2, predict_pb2

from serving import predict as predict_module
from serving.loaded_model import LoadedModel
from serving.predict import predict
from serving.status import StatusError
from serving.tensor_parsing import TENSOR_BYTES
from tests.serving import adder_model

_INVALID, _PRECONDITION = 3, 9
_PREDICT, _METADATA, _STATUS = "PredictionService/Predict", "PredictionService/GetModelMetadata", "ModelService/GetModelStatus"


@pytest.fixture(scope="module")
def model(models):
    model = LoadedModel(models / "right")
    yield model
    model.close()


def request(**inputs):
    """add_bits on 13 = 1011 and 5 = 1010, with `inputs` in place of theirs; None leaves one out."""
    inputs = {"a": [[1, 0, 1, 1]], "b": [[1, 0, 1, 0]], **inputs}
    made = predict_pb2.PredictRequest()
    made.model_spec.signature_name = "add_bits"
    for name, value in inputs.items():
        if value is not None:
            proto = value if isinstance(value, tensor_pb2.TensorProto) else tf.make_tensor_proto(np.asarray(value, np.int64))
            made.inputs[name].CopyFrom(proto)
    return made


def proto(shape=(1, 4), dtype=tf.int64, **values):
    """A TensorProto spelled out."""
    made = tensor_pb2.TensorProto(dtype=int(getattr(dtype, "as_datatype_enum", dtype)), **values)
    for size in shape:
        made.tensor_shape.dim.add(size=size)
    return made


def refusal(model, made):
    with pytest.raises(StatusError) as failure:
        predict(model, made, None)
    return failure.value.code, str(failure.value)


def test_outputs_come_in_typed_fields(model):
    response = predict(model, request(), None)
    assert list(response.outputs["sum"].int64_val) == [0, 1, 0, 0, 1]
    assert response.outputs["sum"].tensor_content == b""
    assert response.model_spec.signature_name == "add_bits"


def test_a_signature_that_is_unknown_or_left_out(model):
    made = request(b=None)
    made.model_spec.signature_name = "nope"
    assert refusal(model, made) == (_PRECONDITION, 'Serving signature key "nope" not found.')
    made = request()
    made.model_spec.signature_name = ""
    assert "2!=1 len({a,b}) != len({examples})" in refusal(model, made)[1]


@pytest.mark.parametrize(
    ("inputs", "text"),
    [
        ({"b": None}, "input size does not match signature: 1!=2 len({a}) != len({a,b}). Sent extra: {}. Missing but required: {b}."),
        ({"c": 1}, "input size does not match signature: 3!=2 len({a,b,c}) != len({a,b}). Sent extra: {c}. Missing but required: {}."),
        (
            {"b": None, "c": 1},
            "Signature input alias: b(feed name: add_bits_b:0) not found in request and no default value provided. Inputs expected to "
            "be in the request {a,c}, or default input alias set: ",
        ),
        ({"a": tf.make_tensor_proto([[1]], tf.int32)}, "Expects arg[0] to be int64 but int32 is provided"),
        ({"b": tf.make_tensor_proto([[1.0]])}, "Expects arg[1] to be int64 but float is provided"),
        ({"a": tf.make_tensor_proto([["1"]])}, "Expects arg[0] to be int64 but string is provided"),
        ({"a": proto(tensor_content=b"\0" * 31)}, "tensor parsing error: a"),
        ({"a": proto(tensor_content=b"\0" * 24)}, "tensor parsing error: a"),
        ({"b": proto(dtype=0, int64_val=[1])}, "tensor parsing error: b"),
        ({"a": proto(dtype=77, int64_val=[1])}, "tensor parsing error: a"),
        ({"a": proto(dtype=109, int64_val=[1])}, "tensor parsing error: a"),
        ({"a": proto(shape=(-2, 2), int64_val=[1] * 4)}, "tensor parsing error: a"),
        ({"a": proto(shape=(2**40, 2**40), int64_val=[1])}, "tensor parsing error: a"),
    ],
)
def test_inputs_that_are_refused(model, inputs, text):
    assert refusal(model, request(**inputs)) == (_INVALID, text)


@pytest.mark.parametrize(
    ("a", "total"),
    [
        (proto(int64_val=[1]), 15 + 5),
        (proto(int64_val=[1, 0]), 1 + 5),
        (proto(int64_val=[1, 0, 1, 1, 1, 1]), 13 + 5),
        (proto(int_val=[1, 1, 1, 1]), 0 + 5),
        (proto(), 0 + 5),
        (proto(int64_val=[1, 1, 1, 1], tensor_content=np.array([1, 0, 0, 0], np.int64).tobytes()), 1 + 5),
    ],
)
def test_values_that_are_too_few_too_many_or_elsewhere_are_taken_as_tensorflow_takes_them(model, a, total):
    assert list(predict(model, request(a=a), None).outputs["sum"].int64_val) == [total >> place & 1 for place in range(5)]


def test_the_graph_judges_shapes_and_values(model):
    # A bit is added to either before they are compared.
    code, text = refusal(model, request(a=[[1, 0]]))
    assert code == _INVALID and "[1,3] != values[1].shape = [1,5]" in text
    code, text = refusal(model, request(a=[[2, 0, 0, 0]]))
    assert code == _INVALID and adder_model.NOT_BITS in text


@pytest.mark.parametrize(
    ("wanted", "text"),
    [
        (["nope"], "output tensor alias not found in signature: nope Outputs expected to be in the set {logits,state,sum}."),
        ([""], "output tensor alias not found in signature:  Outputs expected to be in the set {logits,state,sum}."),
        (["sum", "sum", "nope"], "duplicate output tensor alias: sum"),
    ],
)
def test_output_filters_that_are_refused(model, wanted, text):
    made = request(state=tf.make_tensor_proto([[0.0, 0.0]]))
    made.model_spec.signature_name = "step"
    made.output_filter[:] = wanted
    assert refusal(model, made) == (_INVALID, text)
    made.inputs["a"].dtype = 77
    assert refusal(model, made) == (_INVALID, "tensor parsing error: a")


def test_only_the_wanted_outputs_come(model):
    made = request(state=tf.make_tensor_proto([[0.0, 0.0]]))
    made.model_spec.signature_name = "step"
    made.output_filter[:] = ["state"]
    response = predict(model, made, None)
    assert list(response.outputs) == ["state"] and list(response.outputs["state"].float_val) == [1.0, 0.0]


def test_the_initialization_is_a_signature_that_cannot_be_run(model):
    made = predict_pb2.PredictRequest()
    made.model_spec.signature_name = "__saved_model_init_op"
    assert refusal(model, made) == (11, "Node 'NoOp' (type: 'NoOp', num of outputs: 0) does not have output 0")


def test_tensorflow_stops_a_run_at_its_deadline(model):
    bits = np.zeros((1, 200_000), np.int64)
    with pytest.raises(StatusError) as failure:
        predict(model, request(a=bits, b=bits), 0.05)
    assert (failure.value.code, str(failure.value)) == (4, "Timed out waiting for notification")


def test_a_tensor_that_would_take_the_machine_s_memory_is_refused(model):
    code, text = refusal(model, request(a=proto(shape=(2**20, 2**20), int64_val=[1])))
    assert code == 8 and str(TENSOR_BYTES) in text


@pytest.mark.parametrize(
    "value",
    [
        np.array([[1.5, -2.0]], np.float32), np.array([1.5], np.float64), np.array([1, -1], np.int32), np.array([1], np.int8),
        np.array([255], np.uint8), np.array([2**64 - 1], np.uint64), np.array([2**32 - 1], np.uint32), np.array([True, False]),
        np.array([b"a", b"\xff"], object), np.array([1 + 2j], np.complex64), np.array([0.5], np.float16), np.array(7, np.int64),
        np.zeros((0, 3), np.int64),
    ],
)  # fmt: skip
def test_every_dtype_is_written_as_tensorflow_reads_it(value):
    made = tensor_pb2.TensorProto()
    predict_module._encode(value, made)
    read = tf.make_ndarray(made)
    assert made.tensor_content == b"" and made.HasField("tensor_shape")
    assert (read.dtype, read.shape, read.tolist()) == (value.dtype, value.shape, value.tolist())


def spec(kind, fields=(), **model_spec):
    made = kind()
    made.model_spec.SetInParent()
    for name, value in model_spec.items():
        if name == "version":
            made.model_spec.version.value = value
        else:
            setattr(made.model_spec, name, value)
    if fields:
        made.metadata_field.extend(fields)
    return made


def predict_spec(**model_spec):
    return spec(predict_pb2.PredictRequest, **model_spec)


@pytest.mark.parametrize(
    ("method", "made", "code", "text"),
    [
        (_PREDICT, predict_pb2.PredictRequest(), "INVALID_ARGUMENT", "Missing ModelSpec"),
        (_PREDICT, predict_spec(), "INVALID_ARGUMENT", "ModelSpec has no name specified."),
        (_PREDICT, predict_spec(name="nope"), "NOT_FOUND", "Servable not found for request: Latest(nope)"),
        (_PREDICT, predict_spec(name="nope", version=7), "NOT_FOUND", "Servable not found for request: Specific(nope, 7)"),
        (_PREDICT, predict_spec(name="bitsum", version=0), "NOT_FOUND", "Servable not found for request: Specific(bitsum, 0)"),
        (_PREDICT, predict_spec(name="nope", version_label="x"), "INVALID_ARGUMENT", "Unrecognized servable version label: x"),
        (_PREDICT, predict_spec(name="bitsum", version_label=""), "INVALID_ARGUMENT", "Unrecognized servable version label: "),
        (_METADATA, get_model_metadata_pb2.GetModelMetadataRequest(), "INVALID_ARGUMENT", "Missing ModelSpec"),
        (
            _METADATA, spec(get_model_metadata_pb2.GetModelMetadataRequest), "INVALID_ARGUMENT",
            "GetModelMetadataRequest must specify at least one metadata_field",
        ),
        (
            _METADATA, spec(get_model_metadata_pb2.GetModelMetadataRequest, ["signature_def", "nope"], name="nope"), "INVALID_ARGUMENT",
            "Metadata field nope is not supported",
        ),
        (
            _METADATA, spec(get_model_metadata_pb2.GetModelMetadataRequest, ["signature_def"]), "INVALID_ARGUMENT",
            "ModelSpec has no name specified.",
        ),
        (
            _METADATA, spec(get_model_metadata_pb2.GetModelMetadataRequest, ["signature_def"], name="bitsum", version=99), "NOT_FOUND",
            "Servable not found for request: Specific(bitsum, 99)",
        ),
        (_STATUS, get_model_status_pb2.GetModelStatusRequest(), "INVALID_ARGUMENT", "Missing ModelSpec"),
        (_STATUS, spec(get_model_status_pb2.GetModelStatusRequest), "NOT_FOUND", "Could not find any versions of model "),
        (
            _STATUS, spec(get_model_status_pb2.GetModelStatusRequest, name="bitsum", version=99), "NOT_FOUND",
            "Could not find version 99 of model bitsum",
        ),
    ],
)  # fmt: skip
def test_refusals_over_the_wire(server, method, made, code, text):
    with grpc.insecure_channel(server.target) as channel, pytest.raises(grpc.RpcError) as failure:
        channel.unary_unary(f"/tensorflow.serving.{method}")(made.SerializeToString(), timeout=10)
    assert (failure.value.code().name, failure.value.details()) == (code, text)


def test_what_is_no_request_is_an_internal_error(server):
    with grpc.insecure_channel(server.target) as channel, pytest.raises(grpc.RpcError) as failure:
        channel.unary_unary(f"/tensorflow.serving.{_PREDICT}")(b"\xff\xff\xff", timeout=10)
    assert failure.value.code() is grpc.StatusCode.INTERNAL


def test_a_label_is_ignored_by_the_status_and_the_metadata_have_no_signature_name(server):
    with grpc.insecure_channel(server.target) as channel:
        made = spec(get_model_status_pb2.GetModelStatusRequest, name="bitsum", version_label="nope")
        answer = channel.unary_unary(f"/tensorflow.serving.{_STATUS}")(made.SerializeToString(), timeout=10)
        assert [item.version for item in get_model_status_pb2.GetModelStatusResponse.FromString(answer).model_version_status] == [1]
        made = spec(get_model_metadata_pb2.GetModelMetadataRequest, ["signature_def"] * 2, name="bitsum", signature_name="nope")
        answer = channel.unary_unary(f"/tensorflow.serving.{_METADATA}")(made.SerializeToString(), timeout=10)
    response = get_model_metadata_pb2.GetModelMetadataResponse.FromString(answer)
    found = get_model_metadata_pb2.SignatureDefMap()
    assert response.metadata["signature_def"].Unpack(found) and "__saved_model_init_op" in found.signature_def
    assert (response.model_spec.name, response.model_spec.version.value, response.model_spec.signature_name) == ("bitsum", 1, "")
