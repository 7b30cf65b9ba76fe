"""serving.client.streaming over an in-memory channel: bytes in, bytes out in any pieces, all from one version."""

import asyncio
import itertools
import random

import pytest

from components.errors import BitsumError
from components.task.transducer import SUBTRACTION
from serving import tensors
from serving.client import (
    AsyncAdderClient,
    BadResponse,
    FilePieces,
    InvalidNumber,
    InvalidRequest,
    ModelNotFound,
    VersionGone,
    chunking,
)
from tests.support.in_memory import AsyncChannel, Channel

pytestmark = pytest.mark.fast


@pytest.fixture(autouse=True)
def small_calls(monkeypatch):
    """The first call takes 64 bytes, so short streams take several calls."""
    monkeypatch.setattr(chunking.ChunkSizer, "FIRST_BYTES", 64)


def pieces(number, size, *lengths):
    """The bytes of a number in pieces of the given sizes, cyclically."""
    data, lengths = number.to_bytes(size, "little"), itertools.cycle(lengths)
    parts = []
    while data:
        length = next(lengths)
        parts.append(data[:length])
        data = data[length:]
    return parts


def total(parts):
    return int.from_bytes(b"".join(parts), "little")


def test_thirteen_and_twenty_nine(make):
    assert list(make(Channel()).add_stream([b"\x0d"], [b"\x1d"])) == [b"\x2a\x00"]


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize(
    ("size_a", "size_b"), [(0, 0), (0, 1), (63, 63), (64, 64), (65, 3), (3, 65), (192, 191), (700, 700)]
)
def test_a_carry_runs_through_pieces_of_any_size(size_a, size_b, packed, make):
    a, b = 256**size_a - 1, int(size_b > 0)
    written = list(make(Channel(packed=packed)).add_stream(pieces(a, size_a, 5, 1, 200), pieces(b, size_b, 64)))
    assert total(written) == a + b and sum(map(len, written)) == max(size_a, size_b) + 1


def test_random_numbers_and_empty_pieces(make):
    draw = random.Random(1)
    for _ in range(5):
        a, b = draw.getrandbits(8 * 500), draw.getrandbits(8 * 300)
        assert total(make(Channel()).add_stream(pieces(a, 500, 7, 0, 100), pieces(b, 300, 0, 64))) == a + b


def test_a_difference_is_in_twos_complement(make):
    written = b"".join(make(Channel(task=SUBTRACTION)).add_stream([b"\x0d"], [b"\x1d"], SUBTRACTION))
    assert int.from_bytes(written, "little", signed=True) == -16


def test_all_calls_are_small_and_pinned_to_the_first_version(make):
    channel = Channel()
    list(make(channel).add_stream([bytes(2000)], [bytes(10)]))
    _metadata, *calls = channel.requests
    assert len(calls) > 3 and {request.model_spec.version.value for request in calls} == {1}
    assert calls[0].inputs["a"].string_val == [bytes(64)]


def test_the_next_call_starts_before_a_sum_is_written(make):
    channel = Channel()
    stream = make(channel).add_stream([bytes(64)] * 50, [])
    next(stream)
    stream.close()
    # After the metadata and the first call, a second call started; it was answered or cancelled with the stream.
    assert len(channel.requests) + channel.cancelled == 3


def test_a_stream_reads_only_as_much_as_its_calls_need(make):
    taken = 0

    def operand():
        nonlocal taken
        while True:
            taken += 1
            yield bytes(64)

    stream = make(Channel()).add_stream(operand(), [])
    written = sum(len(next(stream)) for _ in range(5))
    stream.close()
    assert 64 * taken < 10 * written


def swapping(calls, **options):
    """A channel that replaces version 1 by version 2 after so many predictions."""

    def swap(signature, outputs):
        if len(channel.predictions) == calls:
            channel.version = 2

    channel = Channel(swap, **options)
    return channel


def test_a_replayable_stream_restarts_and_writes_each_byte_once(make, tmp_path):
    a, b = 256**1500 - 1, random.Random(1).getrandbits(8 * 1000)
    (tmp_path / "a").write_bytes(a.to_bytes(1500, "little"))
    written = list(make(swapping(3)).add_stream(FilePieces(tmp_path / "a", 100), pieces(b, 1000, 77)))
    assert total(written) == a + b and sum(map(len, written)) == 1501


def test_a_stream_that_cannot_be_replayed_ends_with_a_reason(make):
    with pytest.raises(
        VersionGone, match=r"version 1 of bitsum at memory .* its input cannot be read again: start the stream again"
    ) as failure:
        list(make(swapping(3)).add_stream(iter([bytes(2000)]), [bytes(3)]))
    assert (
        isinstance(failure.value, ModelNotFound)
        and failure.value.code == "NOT_FOUND"
        and "\n" not in str(failure.value)
    )


def test_a_fixed_version_is_not_replaced(make):
    with pytest.raises(ModelNotFound, match="Specific") as failure:
        list(make(swapping(3), version=1).add_stream([bytes(2000)], [bytes(3)]))
    assert not isinstance(failure.value, VersionGone)


def test_a_stream_gives_up_after_too_many_versions(make):
    def swap(signature, outputs):
        channel.version += 1

    channel = Channel(swap)
    with pytest.raises(VersionGone, match="as were 3 versions before it"):
        list(make(channel).add_stream([bytes(2000)], [bytes(3)]))


def test_a_next_version_with_other_outputs_is_detected(make):
    def swap(signature, outputs):
        if len(channel.predictions) == 4:
            channel.version = 2
        if channel.version == 2:
            outputs["sum"] = tensors.string_tensor([b"\x01" + outputs["sum"].string_val[0][1:]])

    channel = Channel(swap)
    with pytest.raises(BadResponse, match="differs from the previous version in the first"):
        list(make(channel).add_stream([bytes(5000)], [bytes(3)]))


def test_operands_other_than_bytes_are_refused(make):
    for operand in (b"\x05", [5], ["5"], [None]):
        with pytest.raises(InvalidNumber, match="an operand must be an iterable of bytes"):
            list(make(Channel()).add_stream(operand, []))


def test_an_exception_of_the_input_reaches_the_caller(make):
    def broken():
        yield bytes(100)
        raise ZeroDivisionError

    channel = Channel()
    with pytest.raises(ZeroDivisionError):
        list(make(channel).add_stream(broken(), []))
    assert channel.cancelled <= 1


def test_a_missing_file(make, tmp_path):
    with pytest.raises(BitsumError, match=f"cannot read {tmp_path}/absent: No such file"):
        list(make(Channel()).add_stream(FilePieces(tmp_path / "absent"), []))


def test_a_model_without_a_state_is_refused_with_a_reason(make):
    channel = Channel(packed=False)
    channel._metadata = lambda request: _with_bits_alone()
    with pytest.raises(InvalidRequest, match="has no signature step, which long numbers need"):
        list(make(channel).add_stream([b"\x01"], []))


def test_an_abandoned_async_stream_cancels_its_call():
    def slow(signature, outputs):
        loop_channel.seconds = 60

    async def run():
        async with AsyncAdderClient("memory", channel=loop_channel) as client:
            stream = client.add_stream([bytes(64)] * 50, [])
            await anext(stream)
            await asyncio.sleep(0)
            await stream.aclose()
            await asyncio.sleep(0)
            return len(channel.requests), channel.cancelled

    loop_channel = AsyncChannel(channel := Channel(slow))
    assert asyncio.run(run()) == (2, 1)


def test_asynchronous_operands():
    async def operand(number, size):
        for piece in pieces(number, size, 33):
            await asyncio.sleep(0)
            yield piece

    async def run():
        async with AsyncAdderClient("memory", channel=AsyncChannel(Channel())) as client:
            return [piece async for piece in client.add_stream(operand(256**300 - 1, 300), operand(1, 1))]

    assert total(asyncio.run(run())) == 256**300


def _with_bits_alone():
    from serving import protos

    apis = protos.load()
    response = apis.metadata.GetModelMetadataResponse()
    response.model_spec.version.value = 1
    signature_defs = apis.metadata.SignatureDefMap()
    signature_defs.signature_def["add_bits"].SetInParent()
    response.metadata["signature_def"].Pack(signature_defs)
    return response
