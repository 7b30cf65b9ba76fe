"""The two clients in one manner, so that a test asks both."""

import asyncio
import contextlib

from serving.client import AdderClient, AsyncAdderClient
from tests.support.in_memory import AsyncChannel


def blocking(channel, **options):
    """An AdderClient over `channel`."""
    return AdderClient("memory", channel=channel, **options)


def on_a_loop(channel, **options):
    """An AsyncAdderClient over `channel` whose methods wait for their answers."""
    return _Waiting(AsyncAdderClient("memory", channel=AsyncChannel(channel), **options))


class _Waiting:
    def __init__(self, client):
        self._client = client

    def __enter__(self):
        return self

    def __exit__(self, *_):
        asyncio.run(self._client.close())

    def __getattr__(self, name):
        return lambda *arguments, **options: asyncio.run(getattr(self._client, name)(*arguments, **options))

    def add_stream(self, a, b, *task):
        """Each piece is asked for by itself, as by a loop over the pieces."""
        loop = asyncio.new_event_loop()
        pieces = self._client.add_stream(a, b, *task)
        try:
            with contextlib.suppress(StopAsyncIteration):
                while True:
                    yield loop.run_until_complete(anext(pieces))
        finally:
            loop.run_until_complete(pieces.aclose())
            loop.close()
