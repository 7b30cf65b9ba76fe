"""Malformed requests: the fuzzer's first 2,000, and a test for each defect that it found."""

import gc
import random
import socket
import struct
import time

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2
from tensorflow_serving.apis import model_management_pb2, predict_pb2

from benchmarks import fuzz, fuzz_server
from benchmarks.malformed import Malformed, mutate
from benchmarks.well_formed import HEALTH, METHODS, MODEL, MODELS, PREDICT, RELOAD, WellFormed
from serving import model_config
from serving.runtime.loaded_model import LoadedModel
from serving.runtime.tensor_decoding import TENSOR_BYTES, decode
from serving.status import StatusError
from serving.versions.version_directory import on_disk_versions
from tests.support import certified_model

REQUESTS = 2000
INT64, STRING, RESOURCE, VARIANT, QUANTIZED, REFERENCE = 9, 7, 20, 21, 12, 109


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    base_path = tmp_path_factory.mktemp("fuzz") / "model"
    certified_model.push(base_path)
    fuzz_server.plant(base_path)
    with fuzz_server.serving(base_path) as server:
        yield server, base_path
    assert server.process.returncode == 0


def test_every_malformed_request_is_answered_properly(served):
    server, base_path = served
    outcome = fuzz.run(server, base_path, REQUESTS, seed=7)
    # Memory needs longer runs: the first requests of each kind allocate theirs.
    assert not [str(violation) for violation in outcome.violations if not violation.what.startswith("memory")]
    assert sum(statuses.total() for kind, statuses in outcome.statuses.items() if kind != "good") == REQUESTS
    assert outcome.statuses["good"]["OK"] == outcome.statuses["good"].total() > REQUESTS // 50


def test_the_same_seed_gives_the_same_requests():
    assert [*Malformed(3, "/x").cases(200)] == [*Malformed(3, "/x").cases(200)] != [*Malformed(4, "/x").cases(200)]
    assert mutate(random.Random(1), b"abcdef") == mutate(random.Random(1), b"abcdef") != b"abcdef"


@pytest.mark.parametrize(
    ("code", "text", "proper"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, "tensor parsing error: a", True),
        (grpc.StatusCode.INTERNAL, "", True),
        (grpc.StatusCode.INTERNAL, "something", False),
        (grpc.StatusCode.UNKNOWN, "", False),
        (grpc.StatusCode.UNKNOWN, "1 model(s) did not become available: {}", True),
        (grpc.StatusCode.INVALID_ARGUMENT, "KeyError: 'a'", False),
        (grpc.StatusCode.NOT_FOUND, "model b'\\xff'", False),
        (grpc.StatusCode.DEADLINE_EXCEEDED, "", False),
        (grpc.StatusCode.UNAVAILABLE, "", False),
    ],
)
def test_the_definition_of_a_proper_answer(code, text, proper):
    assert bool(fuzz.judged(code, text, busy=False)) is not proper


def ask(server, method, data):
    """Status code and text of a call; None for OK."""
    with grpc.insecure_channel(server.target) as channel:
        try:
            channel.unary_unary(method)(data, timeout=20)
        except grpc.RpcError as error:
            return error.code().name, error.details()
    return None


def predict_request(alias, proto, signature="add_bits"):
    request = predict_pb2.PredictRequest(model_spec={"name": MODEL, "signature_name": signature})
    for name in ("examples",) if signature == "serving_default" else ("a", "b"):
        request.inputs[name].CopyFrom(tf.make_tensor_proto(np.zeros((1, 2), np.int64)))
    request.inputs[alias].CopyFrom(proto)
    return request.SerializeToString()


@pytest.mark.parametrize("dtype", [RESOURCE, VARIANT])
def test_resources_and_variants_do_not_crash_the_server(served, dtype):
    proto = tensor_pb2.TensorProto(dtype=dtype, tensor_shape={"dim": [{"size": 2}]})
    inner = proto.variant_val.add(type_name="tensorflow::TensorList").tensors.add(dtype=VARIANT)
    inner.variant_val.add(type_name="tensorflow::TensorList", metadata=b"\xff")
    proto.resource_handle_val.add(device="\0", maybe_type_name="int")
    for _ in range(20):
        assert ask(served[0], PREDICT, predict_request("a", proto)) == ("INVALID_ARGUMENT", "tensor parsing error: a")


def test_an_operation_s_error_that_is_not_utf_8_is_answered(served):
    proto = tensor_pb2.TensorProto(dtype=STRING, tensor_shape={"dim": [{"size": 1}]}, string_val=[b"\xff\xfe"])
    code, text = ask(served[0], PREDICT, predict_request("examples", proto, "serving_default"))
    assert code == "INVALID_ARGUMENT" and text.startswith("Could not parse example input, value: '")


@pytest.mark.parametrize("path", ["/\0", "/a\0b", "file:///\0"])
def test_a_base_path_with_a_zero_byte_is_refused(served, path):
    server, base_path = served
    config = model_config.one_model(MODEL, str(base_path))
    config.model_config_list.config.add(name="x", base_path=path, model_platform="tensorflow")
    code, text = ask(server, RELOAD, model_management_pb2.ReloadConfigRequest(config=config).SerializeToString())
    assert code == "INVALID_ARGUMENT" and text.startswith("Could not find base path")


def test_a_path_with_a_zero_byte_has_no_versions():
    assert on_disk_versions("/a\0b") is None


def test_names_in_a_request_do_not_forge_log_lines(served):
    server, base_path = served
    config = model_config.one_model(MODEL, str(base_path))
    config.model_config_list.config.add(name="x", base_path="/", model_platform="y\n00:00:00 forged\x1b[2J")
    ask(server, RELOAD, model_management_pb2.ReloadConfigRequest(config=config).SerializeToString())
    output = server.output.read_text(errors="replace")
    assert "y\\n00:00:00 forged\\x1b[2J" in output and "\x1b" not in output


def test_an_unparsable_message_is_an_internal_error_without_text(served):
    for method in (PREDICT, RELOAD, MODELS + "GetModelStatus", HEALTH + "Check"):
        assert ask(served[0], method, b"\xff\xff") == ("INTERNAL", "")


@pytest.mark.parametrize("terminator", [b"\0", b"\x0c"])
def test_bytes_after_the_end_of_a_request_are_refused(served, terminator):
    draw, good = random.Random(5), WellFormed(str(served[1]))
    answered = set()
    for method in METHODS[:4]:
        drawn = iter(lambda method=method: good.good(draw, (method,)), None)
        data = next(data for path, data in drawn if path == method)
        if ask(served[0], method, data) is None:
            answered.add(method)
        # Without its output filter the request would get another answer.
        for ended in (terminator + data, data + terminator, data + terminator + b"\x1a\x03sum"):
            assert ask(served[0], method, ended) == ("INTERNAL", "")
    assert answered >= {PREDICT, MODELS + "GetModelStatus"}
    for method in (RELOAD, HEALTH + "Check"):
        assert ask(served[0], method, terminator) == ("INTERNAL", "")


SHAPES = [[], [0], [1], [3], [2, 2], [-1], [2**40, 2**40], [2**40, 2**40, 0], [1] * 32, [1] * 255, [2, -1, 0]]
FIELDS = {
    tf.float32: {"float_val": [1.5, 2.5]},
    tf.float64: {"double_val": [1.5]},
    tf.int64: {"int64_val": [-1, 2**62]},
    tf.int32: {"int_val": [-1, 5]},
    tf.int8: {"int_val": [300, -129]},
    tf.uint8: {"int_val": [-1, 256]},
    tf.int16: {"int_val": [2**31 - 1]},
    tf.uint16: {"int_val": [-1]},
    tf.uint32: {"uint32_val": [2**32 - 1]},
    tf.uint64: {"uint64_val": [2**64 - 1]},
    tf.bool: {"bool_val": [True, False]},
    tf.float16: {"half_val": [15360, 16384]},
    tf.bfloat16: {"half_val": [16256]},
    tf.complex64: {"scomplex_val": [1.0, 2.0, 3.0]},
    tf.complex128: {"dcomplex_val": [1.0, 2.0]},
    tf.string: {"string_val": [b"a\0", b""]},
}
STRINGS = [b"\x02\x01ab\x00", b"\x02\x01abc", b"\x80", b"\xff\xff\xff\xff\x0fab"]
CONTENTS = [b"", b"\x01\x00", bytes(range(16)), bytes(8), bytes(2), b"\x02", *STRINGS]


@pytest.mark.parametrize("dtype", FIELDS, ids=lambda dtype: dtype.name)
def test_tensors_are_equal_to_those_of_tensorflow_s_own_parser(dtype):
    compared = 0
    for shape in SHAPES:
        for content in CONTENTS:
            for values in ({}, FIELDS[dtype], {"float_val": [1.0], "string_val": [b"x"]}):
                proto = tensor_pb2.TensorProto(dtype=dtype.as_datatype_enum, tensor_content=content, **values)
                for size in shape:
                    proto.tensor_shape.dim.add(size=size)
                compared += same(proto, dtype)
    assert compared > 10


def same(proto, dtype):
    """Whether the proto has a tensor; fails if the two parsers differ."""
    try:
        expected = tf.io.parse_tensor(proto.SerializeToString(), dtype).numpy()
    except tf.errors.InvalidArgumentError:
        with pytest.raises(StatusError, match="tensor parsing error: x"):
            decode(proto, "x")
        return False
    try:
        found = decode(proto, "x")
    except StatusError as error:
        # The limit of our own.
        assert error.code == 8
        return False
    if dtype == tf.string:
        assert (
            found.shape == np.shape(expected) and found.ravel().tolist() == np.array(expected, object).ravel().tolist()
        )
    else:
        assert found.dtype == expected.dtype and found.shape == expected.shape and found.tobytes() == expected.tobytes()
    return True


@pytest.mark.parametrize("shape", [[TENSOR_BYTES // 8 + 1], [0, TENSOR_BYTES // 8 + 1], [2**40, 0], [2**20, 2**20]])
def test_a_tensor_that_expands_from_a_few_bytes_is_refused(shape):
    proto = tensor_pb2.TensorProto(dtype=INT64, int64_val=[1], tensor_shape={"dim": [{"size": size} for size in shape]})
    with pytest.raises(StatusError, match=f"needs more than {TENSOR_BYTES} bytes") as failure:
        decode(proto, "x")
    assert failure.value.code == 8


def test_only_numbers_and_strings_are_accepted():
    for dtype in (0, REFERENCE, 99, -1, RESOURCE, VARIANT, QUANTIZED):
        with pytest.raises(StatusError, match="tensor parsing error: x"):
            decode(tensor_pb2.TensorProto(dtype=dtype), "x")


def frame(kind, payload, flags=0, stream=0):
    """An HTTP/2 frame (RFC 9113, 4.1)."""
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def headers():
    """The header block of a Predict, each field literal and without indexing (RFC 7541, 6.2.2)."""
    fields = {
        ":method": "POST",
        ":scheme": "http",
        ":path": PREDICT,
        ":authority": "x",
        "te": "trailers",
        "content-type": "application/grpc",
    }
    return b"".join(
        b"\0" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()
        for name, value in fields.items()
    )


def test_calls_that_never_send_their_request_do_not_block_others(served):
    server, _ = served
    begun = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, b"")
    for stream in range(1, 2 * 90, 2):
        begun += frame(1, headers(), 4, stream)
    with socket.create_connection(server.target.split(":")) as connection:
        connection.sendall(begun)
        time.sleep(0.5)
        assert ask(server, HEALTH + "Check", b"") is None
        assert ask(server, PREDICT, b"") == ("INVALID_ARGUMENT", "Missing ModelSpec")


def graphs():
    """The number of TensorFlow graphs in memory."""
    gc.collect()
    return sum(type(item) is tf.Graph for item in gc.get_objects())


def test_a_closed_model_frees_its_graph(served):
    _, base_path = served
    before = graphs()
    model = LoadedModel(next(base_path.glob("[0-9]*")))
    assert graphs() > before
    model.close()
    assert graphs() == before
    with pytest.raises(StatusError, match="Session has been closed"):
        model.run({}, ["x:0"])
    model.close()


def test_an_unreadable_model_is_unavailable(tmp_path):
    with pytest.raises(StatusError, match=r"cannot read .*saved_model.pb: File name too long") as failure:
        LoadedModel(tmp_path / ("1" * 300))
    assert failure.value.code == 14
