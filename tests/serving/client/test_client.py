"""serving.client and serving.client.aio over an in-memory channel: requests for sums, and damaged answers."""

import logging
import random
import subprocess
import sys

import grpc
import numpy as np
import pytest

from components.task.transducer import COMPARISON, SUBTRACTION
from serving import client as client_module
from serving import tensors
from serving.client import BadResponse, InvalidNumber, InvalidRequest, ModelNotFound, adder_protocol, chunking, protocol
from serving.client.adder_protocol import CALL_BITS, groups
from tests.support.in_memory import UNITS, Channel, Failure

pytestmark = pytest.mark.fast

_MESSAGE_BYTES = 4 * 1024 * 1024
# Models with and without the signature add_packed must give the same results.
WAYS = pytest.mark.parametrize("packed", [True, False], ids=["packed", "unpacked"])


def test_thirteen_and_twenty_nine(make):
    channel = Channel()
    assert make(channel, deadline=2.5).add(13, 29) == 42
    [request] = channel.requests
    assert tensors.decode(request.inputs["a"]).shape == (1, 5)
    assert list(request.output_filter) == ["sum"] and channel.timeouts == [2.5]


@pytest.mark.parametrize(("a", "b"), [(0, 0), (0, 1), (2**64 - 1, 1), (2**4096 - 1, 2**4096 - 1)])
def test_the_final_carry_is_part_of_the_sum(a, b, make):
    assert make(Channel()).add(a, b) == a + b


def test_many_sums_keep_their_order_and_share_calls(make):
    draw = random.Random(1)
    pairs = [(draw.getrandbits(bits), draw.getrandbits(bits)) for bits in [3, 200, 1, 17, 100, 64] * 20]
    channel = Channel()
    assert make(channel).add_many(pairs) == [a + b for a, b in pairs]
    # One of them reads the metadata.
    assert len(channel.requests) <= 6
    assert make(channel).add_many([]) == []


def rows_of(request):
    return request.inputs["a"].tensor_shape.dim[0].size


def mixed_pairs(count):
    """Short and long numbers: in one call, packed, and in chunks."""
    draw = random.Random(count)
    sizes = (1, 5, 40, 3 * chunking.CHUNK_BITS)
    return [(draw.getrandbits(bits), draw.getrandbits(bits)) for bits in draw.choices(sizes, (9, 9, 9, 1), k=count)]


@WAYS
@pytest.mark.parametrize("options", [{}, {"max_batch_size": 7}])
def test_a_call_has_no_more_rows_than_given(options, packed, make):
    most = options.get("max_batch_size", 1000)
    for pairs in (mixed_pairs(60), [(n % 2, 1) for n in range(2 * most + 1)]):
        channel = Channel(packed=packed)
        assert make(channel, **options).add_many(pairs) == [a + b for a, b in pairs]
        assert max(map(rows_of, channel.predictions)) <= most
    # One row more than two full calls.
    assert sorted(map(rows_of, channel.predictions))[-2:] == [most, most]


def batching(limit, **options):
    """A channel that refuses more rows than `limit`, as the batching of TensorFlow Serving does."""

    def refuse(signature, outputs):
        rows = rows_of(channel.predictions[-1])
        if rows > limit:
            text = f"Task size {rows} is larger than maximum input batch size {limit}"
            raise Failure(grpc.StatusCode.INVALID_ARGUMENT, text)

    channel = Channel(refuse, **options)
    return channel


@WAYS
@pytest.mark.parametrize("limit", [1, 3, 64])
def test_a_call_with_too_many_rows_is_halved_and_later_calls_keep_to_that(limit, packed, make):
    channel, pairs = batching(limit, packed=packed), mixed_pairs(150)
    client = make(channel)
    assert client.add_many(pairs) == [a + b for a, b in pairs]
    assert max(map(rows_of, channel.predictions)) > limit
    channel.requests.clear()
    assert client.add_many(pairs) == [a + b for a, b in pairs]
    assert max(map(rows_of, channel.predictions)) <= limit


def test_a_single_row_that_is_refused_is_one_error(make):
    with pytest.raises(InvalidRequest, match="Task size 1 is larger than maximum input batch size 0") as failure:
        make(batching(0)).add_many(mixed_pairs(50))
    assert "\n" not in str(failure.value)


def test_a_refusal_in_the_middle_of_many_calls_is_one_error(make):
    def refuse(signature, outputs):
        if len(channel.predictions) == 3:
            raise Failure(grpc.StatusCode.INTERNAL, "no such luck")

    channel = Channel(refuse)
    with pytest.raises(client_module.ServingError, match=r"memory refused: no such luck \[INTERNAL\]"):
        make(channel, max_batch_size=2).add_many([(1, 1)] * 100)
    assert len(channel.predictions) == 3


def test_numbers_are_streamed_with_their_state(make):
    channel = Channel()
    # Every carry crosses every border between chunks.
    assert make(channel).outputs_streamed([(2**100 - 1, 1), (2**100 - 1, 0)], 100, 16) == [2**100, 2**100 - 1]
    _metadata, *steps = channel.requests
    assert len(steps) == 7 and {request.model_spec.signature_name for request in steps} == {"step"}
    assert {request.model_spec.version.value for request in steps} == {1}


def sized_pairs(bits):
    """Pairs of numbers of about `bits` bits, some of them equal or neighbouring."""
    draw = random.Random(bits)
    a, b = draw.getrandbits(bits), draw.getrandbits(bits)
    return [
        (a, b),
        (b, a),
        (a, a),
        (a, a + 1),
        (a + 1, a),
        (0, a),
        (a, 0),
        (2**bits - 1, 1),
        (1, 2**bits - 1),
        (2**bits, 2**bits - 1),
    ]


# The longest are sent in chunks, so a borrow or a verdict crosses their borders.
@pytest.mark.parametrize("bits", [1, 8, 64, 1000, 3 * chunking.CHUNK_BITS])
@WAYS
def test_differences_have_their_sign_and_verdicts_are_bools(bits, packed, make):
    pairs = sized_pairs(bits)
    with make(Channel(task=SUBTRACTION, packed=packed)) as client:
        assert client.apply(SUBTRACTION, pairs) == [a - b for a, b in pairs]
        assert [client.subtract(a, b) for a, b in pairs[:2]] == [a - b for a, b in pairs[:2]]
    with make(Channel(task=COMPARISON, packed=packed)) as client:
        assert client.apply(COMPARISON, pairs) == [a > b for a, b in pairs]
        assert [client.is_greater(a, b) for a, b in pairs] == [a > b for a, b in pairs]
        assert client.is_greater(1, 2) is False and client.is_greater(2, 1) is True


@WAYS
def test_numbers_of_any_size_share_a_batch(packed, make):
    pairs = [pair for bits in (1, 5, 16, 17, 100, 5000) for pair in sized_pairs(bits)]
    assert make(Channel(task=SUBTRACTION, packed=packed)).apply(SUBTRACTION, pairs) == [a - b for a, b in pairs]
    assert make(Channel(task=COMPARISON, packed=packed)).apply(COMPARISON, pairs) == [a > b for a, b in pairs]


def test_the_verdict_is_the_last_output_alone(make):
    def spoil(signature, outputs):
        outputs["sum"] = tensors.bits_tensor([0b011111], 6)

    assert make(Channel(spoil, COMPARISON)).is_greater(29, 13) is False


@WAYS
def test_every_message_stays_below_the_limit_of_grpc(packed, make):
    channel = Channel(packed=packed)
    make(channel).add_many([(2**4096 - 1, 1)] * 35 + [(2**63, 6)] * 2_100)
    assert max(request.ByteSize() for request in channel.requests) < _MESSAGE_BYTES


def test_a_stream_restarts_when_its_version_is_unloaded(make):
    def swap(signature, outputs):
        if len(channel.requests) == 3:
            channel.version = 2

    channel = Channel(swap)
    assert make(channel).outputs_streamed([(2**50 - 1, 1)], 50, 10) == [2**50]
    assert [request.model_spec.version.value for request in channel.requests[-6:]] == [2] * 6


def test_a_client_with_a_fixed_version_keeps_it(make):
    channel = Channel()
    channel.version = 2
    with pytest.raises(ModelNotFound, match="Specific"):
        make(channel, version=1).outputs_streamed([(1, 1)], 50)


@pytest.mark.parametrize("number", [np.int8(5), np.uint64(5), np.array(5)])
def test_an_operand_is_anything_with_an_index(number, make):
    with make(Channel()) as client:
        assert client.add(number, 2) == 7


@pytest.mark.parametrize(
    "number", [-1, -(2**200), -(1 << 20_000), 1.0, "5", None, True, np.int64(-1), np.float32(1)], ids=range(9)
)
def test_an_invalid_operand_is_refused_before_any_call(number, make):
    channel = Channel()
    with pytest.raises(InvalidNumber) as failure:
        make(channel).add_many([(1, 1), (2, number)])
    assert channel.requests == [] and "\n" not in str(failure.value) and failure.value.exit_code == 2


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda outputs: outputs.pop("sum"), "without the output sum"),
        (lambda outputs: setattr(outputs["sum"].tensor_shape.dim[1], "size", 5), "with 6 values"),
        (lambda outputs: outputs.update(sum=tensors.bits_tensor([42, 42], 6)), r"shape \[2, 6\], not \[1, 6\]"),
        (lambda outputs: outputs.update(sum=tensors.float_tensor([0] * 6, (1, 6))), "float32"),
        (lambda outputs: outputs.update(sum=tensors.float_tensor([float("nan")] * 6, (1, 6))), "float32"),
        (
            lambda outputs: setattr(outputs["sum"], "tensor_content", b"\x07" + b"\x00" * 47),
            "element 0 of the bits is 7",
        ),
    ],
)
def test_a_damaged_answer_is_a_bad_response(spoil, words, make):
    with pytest.raises(BadResponse, match=words):
        make(Channel(lambda signature, outputs: spoil(outputs))).add(13, 29)


@pytest.mark.parametrize(
    ("state", "words"),
    [(([0.0] * 2, (1, 2)), r"\[1, 2\], not float32 \[1, 3\]"), (([0.0, float("nan"), 0.0], (1, UNITS)), "not finite")],
)
def test_a_damaged_state_ends_the_stream(state, words, make):
    def spoil(signature, outputs):
        outputs["state"] = tensors.float_tensor(*state)

    with pytest.raises(BadResponse, match=words):
        make(Channel(spoil)).outputs_streamed([(1, 1)], 50)


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (grpc.StatusCode.UNAVAILABLE, client_module.ServerUnavailable),
        (grpc.StatusCode.DEADLINE_EXCEEDED, client_module.DeadlineExceeded),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, client_module.ServerBusy),
        (grpc.StatusCode.INVALID_ARGUMENT, InvalidRequest),
        (grpc.StatusCode.FAILED_PRECONDITION, InvalidRequest),
        (grpc.StatusCode.DATA_LOSS, client_module.ServingError),
    ],
)
def test_every_status_code_becomes_a_one_line_error(code, error, make):
    def refuse(signature, outputs):
        raise Failure(code, "first line\n\t [[{{node second}}]]")

    with pytest.raises(client_module.ServingError) as failure:
        make(Channel(refuse), attempts=1).add(1, 2)
    assert type(failure.value) is error and failure.value.code == code.name
    assert "memory" in str(failure.value) and "\n" not in str(failure.value)


def test_groups_bound_padding_and_size():
    lengths = [random.Random(2).randrange(1, 5000) for _ in range(1000)] + [1] * 200_000
    seen = []
    for group in groups(lengths):
        inside = [lengths[index] for index in group]
        assert max(inside) <= max(16, 2 * min(inside))
        assert len(group) * min(max(inside), chunking.CHUNK_BITS) <= CALL_BITS
        seen += group
    assert sorted(seen) == list(range(len(lengths)))


def versions(channel):
    return [request.model_spec.WhichOneof("version_choice") for request in channel.requests]


def test_version_and_label_are_sent(make):
    channel = Channel(labels=("stable", "canary"))
    make(channel).add(1, 2)
    make(channel, label="canary").add(1, 2)
    make(channel, version=1).add(1, 2)
    make(channel, label="").add(1, 2)
    assert [request.model_spec.version_label for request in channel.requests] == ["stable", "canary", "", ""]
    assert versions(channel) == ["version_label", "version_label", "version", None]


def test_without_the_label_the_newest_version_is_used_with_one_warning(make, caplog):
    channel = Channel(labels=())
    client = make(channel)
    assert [client.add(1, 2), client.add(3, 4)] == [3, 7]
    assert versions(channel) == ["version_label", None, None]
    [warning] = caplog.records
    assert (warning.name, warning.levelno) == (
        "bitsum.client",
        logging.WARNING,
    ) and "memory has no version of bitsum" in warning.getMessage()


def test_a_label_that_appears_later_is_used(make, monkeypatch, caplog):
    channel = Channel(labels=())
    client = make(channel)
    monkeypatch.setattr(protocol, "LABEL_SECONDS", 0.0)
    assert [client.add(1, 2), client.add(5, 6)] == [3, 11]
    channel.labels = ("stable",)
    assert client.add(3, 4) == 7
    assert (
        versions(channel) == ["version_label", None, "version_label", None, "version_label"]
        and len(caplog.records) == 1
    )


@pytest.mark.parametrize("label", ["stable", "nope"])
def test_an_explicit_label_is_never_replaced(label, make, caplog):
    channel = Channel(labels=())
    with pytest.raises(InvalidRequest, match=f"Unrecognized servable version label: {label}"):
        make(channel, label=label).add(1, 2)
    assert len(channel.requests) == 1 and caplog.records == []


def test_another_error_is_not_mistaken_for_a_missing_label(make, caplog):
    def refuse(signature, outputs):
        raise Failure(grpc.StatusCode.INVALID_ARGUMENT, "every bit of a and b must be 0 or 1, these go from 0 to 7")

    channel = Channel(refuse)
    with pytest.raises(InvalidRequest, match="from 0 to 7"):
        make(channel).add(1, 2)
    assert len(channel.requests) == 1 and caplog.records == []


def test_many_short_numbers_are_sent_packed_and_metadata_are_read_once(make):
    draw = random.Random(3)
    pairs = [(draw.getrandbits(64), draw.getrandbits(64)) for _ in range(1000)]
    channel = Channel()
    client = make(channel)
    for _ in range(2):
        assert client.add_many(pairs) == [a + b for a, b in pairs]
    _metadata, *calls = channel.requests
    assert [request.model_spec.signature_name for request in calls] == ["add_packed"] * 2
    assert sorted(calls[0].inputs["a"].string_val) == sorted(a.to_bytes(9, "little") for a, _ in pairs)
    # Two operands of 9 bytes a row and two bytes before each; all states are zeros and take no more than one.
    assert calls[0].ByteSize() < 1000 * 2 * (9 + 2) + 200


@pytest.mark.parametrize("change", [{"units": 5}, {"packed": False}], ids=str)
def test_the_client_notices_a_version_with_another_state_or_without_add_packed(change, make):
    pairs = [(2**64 - 1, n) for n in range(100)]
    channel = Channel()
    client = make(channel)
    assert client.add_many(pairs) == [a + b for a, b in pairs]
    channel.version = 2
    vars(channel).update(change)
    assert client.add_many(pairs) == [a + b for a, b in pairs]


def test_the_client_notices_a_version_that_has_add_packed_again(make):
    pairs = [(2**64 - 1, n) for n in range(100)]
    channel = Channel(packed=False)
    client = make(channel)
    client.add_many(pairs)
    channel.version, channel.packed = 2, True
    for _ in range(2):
        assert client.add_many(pairs) == [a + b for a, b in pairs]
    assert channel.requests[-1].model_spec.signature_name == "add_packed"


def test_a_call_refused_by_the_same_version_is_not_repeated(make):
    def refuse(signature, outputs):
        raise Failure(grpc.StatusCode.INVALID_ARGUMENT, "no")

    channel = Channel(refuse)
    with pytest.raises(InvalidRequest):
        make(channel).add_many([(2**64, 1)] * 100)
    assert len(channel.predictions) == 1


@WAYS
def test_a_long_number_is_pinned_to_a_version_and_restarts_with_the_next(packed, make, monkeypatch):
    monkeypatch.setattr(chunking.ChunkSizer, "FIRST_BYTES", 64)

    def swap(signature, outputs):
        if len(channel.predictions) == 3:
            channel.version = 2

    channel = Channel(swap, packed=packed)
    bits = 20_000
    assert make(channel).add(2**bits - 1, 1) == 2**bits
    pinned = [request.model_spec.version.value for request in channel.predictions]
    assert pinned[:4] == [1] * 4 and set(pinned[4:]) == {2}


def test_progress_of_a_long_number_is_reported(make, caplog):
    caplog.set_level(logging.INFO, "bitsum.progress")
    make(Channel()).add(2**100_000, 1)
    steps = [record.numbers for record in caplog.records]
    assert steps[-1] == {"step": 100_008, "of": 100_008, "unit": "bits"} and sorted(
        numbers["step"] for numbers in steps
    ) == [n["step"] for n in steps]


@pytest.mark.parametrize(
    ("outputs", "words"),
    [
        ([b"\x00" * 9], r"string \[1\] instead of a sum of 100 strings"),
        ([b"\x00" * 8] * 100, "a sum of 8 bytes, not of 9"),
    ],
)
def test_a_damaged_packed_answer_is_a_bad_response(outputs, words, make):
    def spoil(signature, answer):
        answer["sum"] = tensors.string_tensor(outputs)

    with pytest.raises(BadResponse, match=words):
        make(Channel(spoil)).add_many([(2**64, 1)] * 100)


def test_chunks_grow_while_calls_are_fast_and_shrink_when_they_are_slow():
    sizer = chunking.ChunkSizer(deadline=10.0)
    assert sizer.size == sizer.FIRST_BYTES
    sizer.record(sizer.FIRST_BYTES, 0.01)
    assert sizer.size == 2 * sizer.FIRST_BYTES
    sizer.record(100, 0.01)  # a last, short chunk says nothing
    sizer.record(2 * sizer.FIRST_BYTES, sizer.TARGET_SECONDS)
    assert sizer.size == 2 * sizer.FIRST_BYTES
    sizer.record(2 * sizer.FIRST_BYTES, 3 * sizer.TARGET_SECONDS)
    assert sizer.size == sizer.FIRST_BYTES
    for _ in range(50):
        sizer.record(sizer.size, 0.01)
    assert sizer.size == chunking.PACKED.max_bytes
    for _ in range(50):
        sizer.record(sizer.size, 100.0)
    assert sizer.size == sizer.MIN_BYTES
    # With a short deadline the target time is shorter.
    sizer = chunking.ChunkSizer(deadline=0.8)
    sizer.record(sizer.FIRST_BYTES, 0.3)
    assert sizer.size == sizer.FIRST_BYTES // 2


def test_both_clients_have_the_same_methods():
    from serving.client import AsyncAdderClient

    public = [
        {name for name in dir(kind) if not name.startswith("_")}
        for kind in (client_module.AdderClient, AsyncAdderClient)
    ]
    assert public[0] == public[1]
    assert adder_protocol.AdderProtocol is client_module.AdderClient.protocol_type is AsyncAdderClient.protocol_type


_NO_THREADS = """
import threading
from serving.client import protocol; from serving import protos
from serving.client import AdderClient, ServerUnavailable
def refused(*_, **__):
    raise RuntimeError("can't start new thread")
with AdderClient("127.0.0.1:1", label="stable") as client:
    threading.Thread.start = refused
    for _ in range(2):
        try:
            client._start_call(protocol.Call("Predict", protos.load().predict.PredictRequest()))
        except ServerUnavailable as error:
            print(error)
del client
"""


def test_a_lack_of_threads_is_an_error_and_not_a_hang():
    """gRPC waits forever for a thread that it could not start; on a real channel without a server, then collected."""
    done = subprocess.run([sys.executable, "-c", _NO_THREADS], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "") and done.stdout.count("can't start new thread") == 2
