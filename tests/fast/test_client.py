"""serving.client over a channel in memory: how sums become requests, and what is made of damaged answers."""

import random

import grpc
import pytest

from components.transducer import COMPARISON, SUBTRACTION
from serving import client as module
from serving import tensors
from serving.client import AdderClient, BadResponse, InvalidNumber, InvalidRequest, ModelNotFound, groups
from tests.fast.in_memory import UNITS, Channel, Failure

_MESSAGE_BYTES = 4 * 1024 * 1024


def make(channel, **options):
    return AdderClient("memory", channel=channel, **options)


def test_thirteen_and_twenty_nine():
    channel = Channel()
    assert make(channel, deadline=2.5).add(13, 29) == 42
    [request] = channel.requests
    assert tensors.decode(request.inputs["a"]).shape == (1, 5)
    assert list(request.output_filter) == ["sum"] and channel.timeouts == [2.5]


@pytest.mark.parametrize(("a", "b"), [(0, 0), (0, 1), (2**64 - 1, 1), (2**4096 - 1, 2**4096 - 1)])
def test_the_final_carry_is_part_of_the_sum(a, b):
    assert make(Channel()).add(a, b) == a + b


def test_many_sums_keep_their_order_and_share_calls():
    draw = random.Random(1)
    pairs = [(draw.getrandbits(bits), draw.getrandbits(bits)) for bits in [3, 200, 1, 17, 100, 64] * 20]
    channel = Channel()
    assert make(channel).add_many(pairs) == [a + b for a, b in pairs]
    assert len(channel.requests) <= 5
    assert make(channel).add_many([]) == []


def test_numbers_beyond_a_chunk_are_streamed_with_their_state(monkeypatch):
    monkeypatch.setattr(module, "CHUNK_BITS", 16)
    channel = Channel()
    # Every carry goes through every border between chunks.
    assert make(channel).outputs_streamed([(2**100 - 1, 1), (2**100 - 1, 0)], 100, 16) == [2**100, 2**100 - 1]
    metadata, *steps = channel.requests
    assert len(steps) == 7 and {request.model_spec.signature_name for request in steps} == {"step"}
    assert {request.model_spec.version.value for request in steps} == {1}
    assert make(channel).add(2**40, 2**40) == 2**41


def sized_pairs(bits):
    """Pairs of numbers of about so many bits, equal and neighbouring ones among them."""
    draw = random.Random(bits)
    a, b = draw.getrandbits(bits), draw.getrandbits(bits)
    return [(a, b), (b, a), (a, a), (a, a + 1), (a + 1, a), (0, a), (a, 0), (2**bits - 1, 1), (1, 2**bits - 1), (2**bits, 2**bits - 1)]


# The longest are sent in chunks: a borrow or a verdict then goes over their borders.
@pytest.mark.parametrize("bits", [1, 8, 64, 1000, 3 * module.CHUNK_BITS])
def test_differences_have_their_sign_and_verdicts_are_bools(bits):
    pairs = sized_pairs(bits)
    with make(Channel(task=SUBTRACTION)) as client:
        assert client.apply(SUBTRACTION, pairs) == [a - b for a, b in pairs]
        assert [client.subtract(a, b) for a, b in pairs[:2]] == [a - b for a, b in pairs[:2]]
    with make(Channel(task=COMPARISON)) as client:
        assert client.apply(COMPARISON, pairs) == [a > b for a, b in pairs]
        assert [client.is_greater(a, b) for a, b in pairs] == [a > b for a, b in pairs]
        assert client.is_greater(1, 2) is False and client.is_greater(2, 1) is True


def test_numbers_of_any_size_share_a_batch():
    pairs = [pair for bits in (1, 5, 16, 17, 100, 5000) for pair in sized_pairs(bits)]
    assert make(Channel(task=SUBTRACTION)).apply(SUBTRACTION, pairs) == [a - b for a, b in pairs]
    assert make(Channel(task=COMPARISON)).apply(COMPARISON, pairs) == [a > b for a, b in pairs]


def test_the_verdict_is_the_last_output_alone():
    def spoil(signature, outputs):
        outputs["sum"] = tensors.bits_tensor([0b011111], 6)

    assert make(Channel(spoil)).is_greater(29, 13) is False


def test_every_message_stays_below_the_limit_of_grpc():
    channel = Channel()
    make(channel).add_many([(2**4096 - 1, 1)] * 35 + [(2**63, 6)] * 2_100)
    assert max(request.ByteSize() for request in channel.requests) < _MESSAGE_BYTES


def test_a_stream_begins_again_when_its_version_goes():
    def swap(signature, outputs):
        if len(channel.requests) == 3:
            channel.version = 2

    channel = Channel(swap)
    assert make(channel).outputs_streamed([(2**50 - 1, 1)], 50, 10) == [2**50]
    assert [request.model_spec.version.value for request in channel.requests[-6:]] == [2] * 6


def test_a_client_that_asks_for_a_version_does_not_change_over():
    channel = Channel()
    channel.version = 2
    with pytest.raises(ModelNotFound, match="Specific"):
        make(channel, version=1).outputs_streamed([(1, 1)], 50)


@pytest.mark.parametrize("number", [-1, -(2**200), 1.0, "5", None, True])
def test_what_is_no_number_from_zero_up_is_refused_before_anything_is_sent(number):
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
        (lambda outputs: setattr(outputs["sum"], "tensor_content", b"\x07" + b"\x00" * 47), "element 0 of the bits is 7"),
    ],
)
def test_a_damaged_answer_is_no_sum(spoil, words):
    with pytest.raises(BadResponse, match=words):
        make(Channel(lambda signature, outputs: spoil(outputs))).add(13, 29)


@pytest.mark.parametrize(
    ("state", "words"),
    [(([0.0] * 2, (1, 2)), r"\[1, 2\], not float32 \[1, 3\]"), (([0.0, float("nan"), 0.0], (1, UNITS)), "not finite")],
)
def test_a_damaged_state_ends_the_stream(state, words):
    def spoil(signature, outputs):
        outputs["state"] = tensors.float_tensor(*state)

    with pytest.raises(BadResponse, match=words):
        make(Channel(spoil)).outputs_streamed([(1, 1)], 50)


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (grpc.StatusCode.UNAVAILABLE, module.ServerUnavailable),
        (grpc.StatusCode.DEADLINE_EXCEEDED, module.DeadlineExceeded),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, module.ServerBusy),
        (grpc.StatusCode.INVALID_ARGUMENT, InvalidRequest),
        (grpc.StatusCode.FAILED_PRECONDITION, InvalidRequest),
        (grpc.StatusCode.DATA_LOSS, module.ServingError),
    ],
)
def test_every_refusal_becomes_one_line_of_the_tree(code, error):
    def refuse(signature, outputs):
        raise Failure(code, "first line\n\t [[{{node second}}]]")

    with pytest.raises(module.ServingError) as failure:
        make(Channel(refuse)).add(1, 2)
    assert type(failure.value) is error and failure.value.code == code.name
    assert "memory" in str(failure.value) and "\n" not in str(failure.value)


def test_version_and_label_are_asked_for():
    channel = Channel()
    make(channel, label="stable").add(1, 2)
    make(channel, version=1).add(1, 2)
    assert [request.model_spec.WhichOneof("version_choice") for request in channel.requests] == ["version_label", "version"]


def test_groups_bound_padding_and_size():
    lengths = [random.Random(2).randrange(1, 5000) for _ in range(1000)] + [1] * 200_000
    seen = []
    for group in groups(lengths):
        inside = [lengths[index] for index in group]
        assert max(inside) <= max(16, 2 * min(inside))
        assert len(group) * min(max(inside), module.CHUNK_BITS) <= module.CALL_BITS
        seen += group
    assert sorted(seen) == list(range(len(lengths)))
