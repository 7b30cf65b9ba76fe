"""Sums and refusals of a real server."""

import time

import grpc
import pytest

from components.errors import BitsumError
from serving import client as client_module
from serving import protos
from serving.client import AdderClient, DeadlineExceeded, ModelNotFound
from serving.client.connection import TensorInfo
from serving.client.sync import served
from serving.server.grpc_server import Server
from tests.serving.conftest import bitsum
from tests.support import adder_model


@pytest.fixture
def client(server):
    with AdderClient(server.target) as client:
        yield client


def test_status_and_metadata(client, server):
    assert [(state.version, state.state, state.error) for state in client.status()] == [(1, "AVAILABLE", "")]
    metadata = client.metadata()
    assert metadata.version == 1
    assert metadata.signatures["step"].inputs["state"] == TensorInfo("float32", (-1, adder_model.UNITS))
    with pytest.raises(ModelNotFound, match="Could not find any versions of model nope"):
        served(server.target, "nope")


def test_a_long_call_ends_at_its_deadline_and_the_server_keeps_working(server):
    with AdderClient(server.target, deadline=0.2) as client:
        start = time.monotonic()
        with pytest.raises(DeadlineExceeded, match=f"{server.target} did not answer within 0.2 s"):
            client.outputs_at_once([(1, 1)], 120_000)
        assert time.monotonic() - start < 5
        assert client.add(13, 29) == 42


def test_an_oversized_request_is_refused(server):
    apis = protos.load()
    request = apis.predict.PredictRequest()
    request.inputs["a"].tensor_content = b"\x00" * (65 * 1024 * 1024)
    unlimited = grpc.insecure_channel(server.target, options=[("grpc.max_send_message_length", -1)])
    with unlimited as channel, pytest.raises(grpc.RpcError) as failure:
        apis.prediction_service.PredictionServiceStub(channel).Predict(request, timeout=30)
    assert failure.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_a_missing_server_is_reported_in_one_line():
    code, out, err = bitsum("add", "1", "3", "--server=127.0.0.1:1")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert err.startswith("bitsum: no model server answers at 127.0.0.1:1 (Connection refused); start one with: bitsum")


def test_the_client_docstring_lists_its_errors():
    errors = (
        "ServerUnavailable",
        "DeadlineExceeded",
        "ServerBusy",
        "ModelNotFound",
        "VersionGone",
        "InvalidRequest",
        "BadResponse",
    )
    for name in (*errors, "InvalidNumber", "InvalidAddress", "ClientClosed"):
        assert name in client_module.__doc__ and issubclass(getattr(client_module, name), client_module.ServingError)


def test_two_servers_never_share_a_port(server):
    no_methods = grpc.method_handlers_generic_handler("none", {})
    with pytest.raises(BitsumError, match=f"cannot listen on 127.0.0.1:{server.ready.port}"):
        Server(no_methods, "127.0.0.1", server.ready.port, 1, 1000)
