"""Thousands of calls at the same time: the client limits what is in flight, and a busy server is asked again."""

import asyncio
import collections
import random
import threading
import time
from concurrent import futures

import grpc
import pytest

from serving.client import AdderClient, AsyncAdderClient, ClientClosed, ServerBusy
from tests.serving.client.test_connection import answering
from tests.support.in_memory import Channel, Failure

CALLS = 400


class Counting(Channel):
    """Answers when `together` calls are there; `most` is how many there were at once."""

    def __init__(self, together):
        super().__init__()
        self._barrier = threading.Barrier(together)
        self._lock = threading.Lock()
        self._running = self.most = 0

    def answer(self, method, request, timeout=None):
        with self._lock:
            self._running += 1
            self.most = max(self.most, self._running)
        self._barrier.wait(20)
        with self._lock:
            self._running -= 1
        return super().answer(method, request, timeout)


class Busy(Channel):
    """Refuses each request so many times, as TensorFlow Serving does; `refused` counts them."""

    def __init__(self, times):
        super().__init__()
        self._times = times
        self.refused = collections.Counter()

    def answer(self, method, request, timeout=None):
        key = request.SerializeToString()
        if self.refused[key] < self._times:
            self.refused[key] += 1
            raise Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, "Server Threadpool Exhausted")
        return super().answer(method, request, timeout)


def by_threads(target, count, **options):
    with AdderClient(target, **options) as client, futures.ThreadPoolExecutor(50) as pool:
        return list(pool.map(lambda number: client.add(number, 1), range(count)))


def on_a_loop(target, count, **options):
    async def sums():
        async with AsyncAdderClient(target, **options) as client:
            return await asyncio.gather(*(client.add(number, 1) for number in range(count)))

    return asyncio.run(sums())


WAYS = pytest.mark.parametrize("ways", [by_threads, on_a_loop])


@WAYS
@pytest.mark.parametrize(("options", "limit"), [({}, 4), ({"max_concurrent_calls": 2}, 2)])
def test_no_more_calls_are_in_flight_than_given(ways, options, limit):
    channel = Counting(limit)
    with answering(channel, threads=64) as target:
        assert ways(target, CALLS, **options) == list(range(1, CALLS + 1))
    assert channel.most == limit


@WAYS
def test_a_busy_server_is_asked_again_until_every_call_is_answered(ways, monkeypatch):
    monkeypatch.setattr(random, "uniform", lambda low, high: high / 1000)
    channel = Busy(10)
    with answering(channel) as target:
        # More than the attempts at a server that is unavailable.
        assert ways(target, CALLS, attempts=2) == list(range(1, CALLS + 1))
    assert len(channel.refused) == CALLS and {*channel.refused.values()} == {10}


@WAYS
def test_a_server_that_stays_busy_is_an_error_within_the_deadline(ways):
    with (
        answering(Busy(1000)) as target,
        pytest.raises(ServerBusy, match=r"Server Threadpool Exhausted \[RESOURCE_EXH"),
    ):
        ways(target, 1, deadline=1.0)


@WAYS
def test_the_wait_for_a_turn_is_not_part_of_the_deadline(ways):
    def slow(signature, outputs):
        time.sleep(0.1)

    with answering(Channel(slow), threads=8) as target:
        assert ways(target, 20, max_concurrent_calls=1, deadline=1.5) == list(range(1, 21))


@WAYS
def test_streams_that_feed_each_other_do_not_wait_for_each_other(ways):
    """Each stream reads from the next, all with one client and a single slot."""
    zero, depth = [b"\0" * 9000], 5
    with answering(Channel(), threads=8) as target:
        if ways is by_threads:
            with AdderClient(target, max_concurrent_calls=1) as client:
                pieces = [b"\xff" * 9000]
                for _ in range(depth):
                    pieces = client.add_stream(pieces, zero)
                total = b"".join(pieces)
        else:

            async def sums():
                async with AsyncAdderClient(target, max_concurrent_calls=1) as client:
                    pieces = [b"\xff" * 9000]
                    for _ in range(depth):
                        pieces = client.add_stream(pieces, zero)
                    return b"".join([piece async for piece in pieces])

            total = asyncio.run(sums())
    assert total == b"\xff" * 9000 + bytes(depth)


@WAYS
def test_a_client_that_is_closed_ends_the_calls_that_run_and_wait(ways):
    running, released = threading.Event(), threading.Event()

    def slow(signature, outputs):
        running.set()
        released.wait(20)

    def threads(target):
        with futures.ThreadPoolExecutor(20) as pool:
            client = AdderClient(target)
            calls = [pool.submit(client.add, number, 1) for number in range(20)]
            running.wait()
            client.close()
            yield from (call.exception() for call in calls)
            # Also after it.
            yield from (pool.submit(talk).exception() for talk in (lambda: client.add(1, 1), client.status))
            yield pool.submit(lambda: list(client.add_stream([b"1"], [b"1"]))).exception()

    async def loop(target):
        client = AsyncAdderClient(target)
        calls = [asyncio.ensure_future(client.add(number, 1)) for number in range(20)]
        await asyncio.to_thread(running.wait)
        await client.close()
        late = client.add(1, 1), client.status(), anext(client.add_stream([b"1"], [b"1"]))
        return await asyncio.gather(*calls, *late, return_exceptions=True)

    with answering(Channel(slow), threads=8) as target:
        try:
            outcomes = list(threads(target)) if ways is by_threads else asyncio.run(loop(target))
        finally:
            released.set()
    assert {(type(outcome), str(outcome)) for outcome in outcomes} == {
        (ClientClosed, f"the connection to {target} is closed: make a new client")
    } and len(outcomes) == 23


@WAYS
def test_a_client_that_is_closed_ends_the_pause_of_a_retry(ways):
    refused = threading.Event()

    class Refusing(Channel):
        def answer(self, method, request, timeout=None):
            refused.set()
            raise Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, "Server Threadpool Exhausted")

    def threads(target):
        with futures.ThreadPoolExecutor(1) as pool:
            client = AdderClient(target, deadline=None)
            call = pool.submit(client.add, 1, 1)
            refused.wait()
            client.close()
            return call.exception()

    async def loop(target):
        client = AsyncAdderClient(target, deadline=None)
        call = asyncio.ensure_future(client.add(1, 1))
        await asyncio.to_thread(refused.wait)
        await client.close()
        return (await asyncio.gather(call, return_exceptions=True))[0]

    with answering(Refusing()) as target:
        assert type(threads(target) if ways is by_threads else asyncio.run(loop(target))) is ClientClosed


def test_a_channel_that_its_owner_has_closed():
    async def on_a_loop(target):
        async with grpc.aio.insecure_channel(target) as channel:
            client = AsyncAdderClient(target, channel=channel)
            assert await client.add(13, 29) == 42
        await client.add(13, 29)

    with answering(Channel()) as target:
        with grpc.insecure_channel(target) as channel:
            client = AdderClient(target, channel=channel)
            assert client.add(13, 29) == 42
        with pytest.raises(ClientClosed):
            client.add(13, 29)
        with pytest.raises(ClientClosed):
            list(client.add_stream([b"\x01"], []))
        with pytest.raises(ClientClosed):
            asyncio.run(on_a_loop(target))


def test_each_event_loop_may_use_the_client_one_after_the_other_but_not_together():
    async def add(client):
        return await client.add(13, 29)

    async def add_elsewhere(client):
        assert await client.add(13, 29) == 42
        with pytest.raises(ClientClosed, match="belongs to another event loop, which still runs: make one for each"):
            await asyncio.to_thread(asyncio.run, add(client))
        return await client.add(13, 29)

    with answering(Channel()) as target:
        client = AsyncAdderClient(target)
        assert [asyncio.run(add(client)) for _ in range(3)] == [42] * 3
        assert asyncio.run(add_elsewhere(client)) == 42
        asyncio.run(client.close())
        with pytest.raises(ClientClosed, match="is closed"):
            asyncio.run(add(client))


@pytest.mark.parametrize("deadline", [None, float("inf"), 1e300, 1e10, 5])
def test_deadlines_without_a_limit_and_large_ones(deadline):
    with answering(Channel()) as target:
        for ways in (by_threads, on_a_loop):
            assert ways(target, 1, deadline=deadline) == [1]
        with AdderClient(target, deadline=deadline) as client:
            assert b"".join(client.add_stream([b"\x0d"], [b"\x1d"])) == b"\x2a\x00"


@pytest.mark.parametrize("deadline", [float("nan"), 0, -1, -1e300, True, "5", b"5", [5]])
def test_what_is_no_deadline_is_refused(deadline):
    for kind in (AdderClient, AsyncAdderClient):
        with pytest.raises(ValueError, match="must be a number of seconds more than 0, or None for no limit"):
            kind("127.0.0.1:1", deadline=deadline)
