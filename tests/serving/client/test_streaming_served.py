"""Long and many numbers through the embedded server, added by a proven model that runs chunks in parallel."""

import asyncio
import itertools
import random

import pytest

from components.progress import LOGGER
from serving.client import AdderClient, AsyncAdderClient, VersionGone
from tests.serving.conftest import bitsum, put, serving
from tests.support import certified_model
from tests.support.waiting import wait_for


@pytest.fixture(scope="module")
def proven(tmp_path_factory):
    """The folder of the certified model of tests/data, exported as the Trainer exports a proven one."""
    folder = tmp_path_factory.mktemp("proven") / "model"
    certified_model.export(folder)
    return folder


@pytest.fixture(scope="module")
def server(proven, tmp_path_factory):
    base_path = tmp_path_factory.mktemp("served")
    put(proven, base_path, 1)
    with serving(base_path, "--server=embedded") as running:
        yield running


@pytest.fixture
def client(server):
    with AdderClient(server.target, deadline=60) as client:
        yield client


@pytest.mark.parametrize("bits", [4097, 100_000, 1_000_000])
def test_long_sums_are_exact(client, bits, caplog):
    caplog.set_level("INFO", LOGGER)
    draw = random.Random(bits)
    pairs = [(2**bits - 1, 1), (draw.getrandbits(bits), draw.getrandbits(bits))]
    assert client.add_many(pairs) == [a + b for a, b in pairs]
    assert {record.name for record in caplog.records} >= {LOGGER}


def test_a_carry_runs_through_a_stream_of_both_clients(server, client):
    size = 200_000
    expected = bytes(size) + b"\x01"
    ones = itertools.repeat(b"\xff" * 1000, size // 1000)
    assert b"".join(client.add_stream(ones, [b"\x01"])) == expected

    async def on_a_loop():
        async with AsyncAdderClient(server.target, deadline=60) as client:
            # A short sum is answered in between.
            stream, short = client.add_stream([b"\xff" * size], [b"\x01"]), client.add(13, 29)
            return b"".join([piece async for piece in stream]), await short

    assert asyncio.run(on_a_loop()) == (expected, 42)


def test_packed_files_and_lines_of_pairs(server, tmp_path):
    draw = random.Random(3)
    a, b = draw.getrandbits(500_000), draw.getrandbits(400_000)
    (tmp_path / "a").write_bytes(a.to_bytes(62_500, "little"))
    (tmp_path / "b").write_bytes(b.to_bytes(50_000, "little"))
    ask = "add", "--server", server.target, "--label="
    assert bitsum(*ask, "--packed", tmp_path / "a", tmp_path / "b", "--output", tmp_path / "sum") == (0, "", "")
    assert int.from_bytes((tmp_path / "sum").read_bytes(), "little") == a + b
    (tmp_path / "pairs").write_text(f"13 29\n{a:#x} {b:#x}\n")
    assert bitsum(*ask, "--file", tmp_path / "pairs", "--base=16") == (0, f"0x2a\n{a + b:#x}\n", "")


def test_a_stream_whose_version_is_unloaded_restarts_or_reports_it(proven, tmp_path):
    put(proven, tmp_path, 1)
    size = 600_000
    operands = [b"\xff" * 1000] * (size // 1000), [b"\x01"]
    with serving(tmp_path, "--server=embedded") as server, AdderClient(server.target, deadline=60) as client:
        streams = [client.add_stream(*operands), client.add_stream(iter(operands[0]), operands[1])]
        written = [[next(stream)] for stream in streams]
        put(proven, tmp_path, 2)
        wait_for(lambda: [state.state for state in client.status() if state.version == 1] == ["END"])
        assert b"".join(written[0] + list(streams[0])) == bytes(size) + b"\x01"
        with pytest.raises(VersionGone, match=r"version 1 of bitsum .* cannot be read again"):
            list(streams[1])
