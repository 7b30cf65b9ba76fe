"""Predict: errors of the graph, the deadline of a run, and the output filter.

tests/conformance compares codes, texts and dtypes with the real server.
"""

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2
from tensorflow_serving.apis import predict_pb2

from serving.runtime.loaded_model import LoadedModel
from serving.runtime.predict import predict
from serving.status import StatusError
from tests.support import adder_model

_INVALID = 3


@pytest.fixture(scope="module")
def model(models):
    model = LoadedModel(models / "right")
    yield model
    model.close()


def request(**inputs):
    """add_bits on 13 = 1011 and 5 = 1010; `inputs` replace these, None removes one."""
    inputs = {"a": [[1, 0, 1, 1]], "b": [[1, 0, 1, 0]], **inputs}
    made = predict_pb2.PredictRequest()
    made.model_spec.signature_name = "add_bits"
    for name, value in inputs.items():
        if value is not None:
            proto = (
                value
                if isinstance(value, tensor_pb2.TensorProto)
                else tf.make_tensor_proto(np.asarray(value, np.int64))
            )
            made.inputs[name].CopyFrom(proto)
    return made


def refusal(model, made):
    with pytest.raises(StatusError) as failure:
        predict(model, made, None)
    return failure.value.code, str(failure.value)


def test_the_graph_checks_shapes_and_values(model):
    # The graph appends a bit to each input before it compares them.
    code, text = refusal(model, request(a=[[1, 0]]))
    assert code == _INVALID and "[1,3] != values[1].shape = [1,5]" in text
    code, text = refusal(model, request(a=[[2, 0, 0, 0]]))
    assert code == _INVALID and adder_model.NOT_BITS in text


def test_the_output_filter_selects_the_outputs(model):
    made = request(state=tf.make_tensor_proto([[0.0, 0.0]]))
    made.model_spec.signature_name = "step"
    made.output_filter[:] = ["state"]
    response = predict(model, made, None)
    assert list(response.outputs) == ["state"] and list(response.outputs["state"].float_val) == [1.0, 0.0]


def test_the_initialization_signature_cannot_be_run(model):
    made = predict_pb2.PredictRequest()
    made.model_spec.signature_name = "__saved_model_init_op"
    assert refusal(model, made) == (11, "Node 'NoOp' (type: 'NoOp', num of outputs: 0) does not have output 0")


def test_tensorflow_stops_a_run_at_its_deadline(model):
    bits = np.zeros((1, 200_000), np.int64)
    with pytest.raises(StatusError) as failure:
        predict(model, request(a=bits, b=bits), 0.05)
    assert (failure.value.code, str(failure.value)) == (4, "Timed out waiting for notification")
