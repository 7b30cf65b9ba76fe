"""Sums through a real server, and what it refuses."""

import random
import threading
import time

import grpc
import pytest

from components.errors import BitsumError
from serving import client as module
from serving import protos, tensors
from serving.client import AdderClient, DeadlineExceeded, InvalidRequest, ModelNotFound, ServerUnavailable
from serving.client.connection import TensorInfo
from serving.client.sync import served
from serving.server.grpc_server import Server
from tests.serving.conftest import bitsum
from tests.support import adder_model


@pytest.fixture
def client(server):
    with AdderClient(server.target) as client:
        yield client


def test_sums_of_any_size_are_exact(client):
    draw = random.Random(1)
    pairs = [(draw.getrandbits(bits), draw.getrandbits(bits)) for bits in (1, 8, 64, 1000, 4096, 4097)] + [
        (0, 0),
        (13, 29),
    ]
    assert client.add_many(pairs) == [a + b for a, b in pairs]


def test_a_carry_runs_through_a_hundred_thousand_bits(client):
    assert client.add(2**100_000 - 1, 1) == 2**100_000


def test_the_graph_refuses_what_is_no_bit_in_its_own_words(client):
    proto = tensors.bits_tensor([1], 1)
    proto.tensor_content = (2).to_bytes(8, "little")
    with pytest.raises(InvalidRequest, match=adder_model.NOT_BITS):
        client.predict("add_bits", {"a": proto, "b": tensors.bits_tensor([1], 1)})


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"model_name": "nope"}, ModelNotFound, r"Servable not found for request: Latest\(nope\)"),
        ({"version": 99}, ModelNotFound, r"Servable not found for request: Specific\(bitsum, 99\)"),
        ({"label": "nope"}, InvalidRequest, "Unrecognized servable version label: nope"),
    ],
)
def test_unknown_model_version_and_label(server, options, error, text):
    with AdderClient(server.target, **options) as client, pytest.raises(error, match=text):
        client.add(1, 2)


def test_an_unknown_signature(client):
    with pytest.raises(InvalidRequest, match='Serving signature key "nope" not found.'):
        client.predict("nope", {})


def test_status_and_metadata(client, server):
    assert [(state.version, state.state, state.error) for state in client.status()] == [(1, "AVAILABLE", "")]
    metadata = client.metadata()
    assert metadata.version == 1
    assert metadata.signatures["step"].inputs["state"] == TensorInfo("float32", (-1, adder_model.UNITS))
    with pytest.raises(ModelNotFound, match="Could not find any versions of model nope"):
        served(server.target, "nope")


def test_the_deadline_ends_a_long_call_and_the_server_goes_on(server):
    with AdderClient(server.target, deadline=0.2) as client:
        start = time.monotonic()
        with pytest.raises(DeadlineExceeded, match=f"{server.target} did not answer within 0.2 s"):
            client.outputs_at_once([(1, 1)], 120_000)
        assert time.monotonic() - start < 5
        assert client.add(13, 29) == 42


def test_nobody_there():
    with AdderClient("127.0.0.1:1") as client:
        with pytest.raises(ServerUnavailable, match="no model server answers at 127.0.0.1:1 .*bitsum serve"):
            client.add(1, 2)


def test_many_clients_at_once(server):
    failures = []

    def ask(seed):
        draw = random.Random(seed)
        try:
            with AdderClient(server.target) as client:
                for _ in range(20):
                    a, b = draw.getrandbits(50), draw.getrandbits(50)
                    assert client.add(a, b) == a + b
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


@pytest.mark.parametrize(
    ("method", "text"),
    [
        ("PredictionService/Predict", "Missing ModelSpec"),
        ("ModelService/HandleReloadConfigRequest", "ServerModelConfig type not supported"),
    ],
)
def test_an_empty_request_is_refused_in_words(server, method, text):
    with grpc.insecure_channel(server.target) as channel, pytest.raises(grpc.RpcError) as failure:
        channel.unary_unary(f"/tensorflow.serving.{method}")(b"", timeout=10)
    assert failure.value.code() is grpc.StatusCode.INVALID_ARGUMENT and text in failure.value.details()


def test_a_request_over_the_bound_is_refused(server):
    apis = protos.load()
    request = apis.predict.PredictRequest()
    request.inputs["a"].tensor_content = b"\x00" * (65 * 1024 * 1024)
    with grpc.insecure_channel(server.target, options=[("grpc.max_send_message_length", -1)]) as channel:
        with pytest.raises(grpc.RpcError) as failure:
            apis.prediction_service.PredictionServiceStub(channel).Predict(request, timeout=30)
    assert failure.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_the_command_prints_the_sum_and_nothing_else(server):
    ask = "add", "--server", server.target, "--label="
    assert bitsum(*ask, "13", "29") == (0, "42\n", "")
    assert bitsum(*ask, "0xff", "0b1") == (0, "256\n", "")
    assert bitsum(*ask, "9" * 5000, "1") == (0, "1" + "0" * 5000 + "\n", "")


def test_a_server_without_the_label_is_asked_for_the_newest_version(server, caplog):
    with AdderClient(server.target) as client:
        assert client.add(13, 29) == client.add(29, 13) == 42
    assert [record.name for record in caplog.records] in ([], ["bitsum.client"])


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("-5", "3"), 2, "-5 is negative"),
        (("-0x5", "3"), 2, "-0x5 is negative"),
        (("five", "3"), 2, "'five' is no integer"),
        (
            ("1", "3", "--server=127.0.0.1:1"),
            1,
            "no model server answers at 127.0.0.1:1 (Connection refused); start one with: bitsum",
        ),
    ],
)
def test_the_command_refuses_in_one_line(arguments, code, words):
    done, out, err = bitsum("add", *arguments)
    assert (done, out, err.count("\n")) == (code, "", 1) and err.startswith(f"bitsum: {words}")


def test_the_client_module_lists_its_errors():
    errors = (
        "ServerUnavailable",
        "DeadlineExceeded",
        "ServerBusy",
        "ModelNotFound",
        "VersionGone",
        "InvalidRequest",
        "BadResponse",
    )
    for name in (*errors, "InvalidNumber"):
        assert name in module.__doc__ and issubclass(getattr(module, name), module.ServingError)


def test_two_servers_never_share_a_port(server):
    no_methods = grpc.method_handlers_generic_handler("none", {})
    with pytest.raises(BitsumError, match=f"cannot listen on 127.0.0.1:{server.ready.port}"):
        Server(no_methods, "127.0.0.1", server.ready.port, 1, 1000)
