"""serving.client for asyncio, with the same methods, errors and calls; also for a notebook's running event loop.

async with AsyncAdderClient("127.0.0.1:8500") as client:
    await client.add(13, 29)                             # 42
    await asyncio.gather(*(client.add(n, 1) for n in range(100)))
    async for piece in client.add_stream(pieces_of_a, pieces_of_b):
        ...
"""

from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any

from typing_extensions import Self

from components import signatures
from components.task.transducer import ADDITION, COMPARISON, SUBTRACTION, Transducer
from serving import defaults
from serving.client.adder_protocol import AdderProtocol
from serving.client.aio_connection import AsyncConnection, Pieces
from serving.client.chunking import CHUNK_BITS
from serving.client.streaming import is_replayable, stream

__all__ = ["AsyncAdderClient"]


class AsyncAdderClient(AsyncConnection):
    """Computes with the model at `target`; arguments as for AsyncConnection and AdderClient."""

    protocol_type = AdderProtocol
    _protocol: AdderProtocol

    def __init__(
        self,
        target: str,
        model_name: str = defaults.MODEL_NAME,
        signature: str | None = None,
        max_batch_size: int = defaults.BATCH_SIZE,
        **options: Any,
    ):
        super().__init__(target, model_name, **options)
        self._protocol.use_signature(signature)
        self._protocol.use_batch_size(max_batch_size)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def add(self, a: int, b: int) -> int:
        """As AdderClient.add."""
        return (await self.add_many([(a, b)]))[0]

    async def add_many(self, pairs: Iterable[tuple[int, int]]) -> list[int]:
        """As AdderClient.add_many."""
        return await self.apply(ADDITION, pairs)

    async def subtract(self, a: int, b: int) -> int:
        """As AdderClient.subtract."""
        return (await self.apply(SUBTRACTION, [(a, b)]))[0]

    async def is_greater(self, a: int, b: int) -> bool:
        """As AdderClient.is_greater."""
        return bool((await self.apply(COMPARISON, [(a, b)]))[0])

    async def apply(self, task: Transducer, pairs: Iterable[tuple[int, int]]) -> list[int]:
        """As AdderClient.apply."""
        return await self._result(self._protocol.apply(task, pairs))

    def add_stream(self, a: Pieces, b: Pieces, task: Transducer = ADDITION) -> AsyncIterator[bytes]:
        """As AdderClient.add_stream; each operand may be an iterable or an asynchronous one."""
        return self._drive(stream(self._protocol, task, all(map(is_replayable, (a, b)))), (a, b))

    async def outputs_at_once(
        self, pairs: Sequence[tuple[int, int]], length: int, verb: str = signatures.ADD
    ) -> list[int]:
        """As AdderClient.outputs_at_once."""
        return await self._result(self._protocol.outputs_at_once(pairs, length, verb))

    async def outputs_streamed(
        self, pairs: Sequence[tuple[int, int]], length: int, chunk_bits: int = CHUNK_BITS
    ) -> list[int]:
        """As AdderClient.outputs_streamed."""
        return await self._result(self._protocol.outputs_streamed(pairs, length, chunk_bits))

    async def outputs_packed(
        self, pairs: Sequence[tuple[int, int]], length: int, verb: str = signatures.ADD
    ) -> list[int]:
        """As AdderClient.outputs_packed."""
        return await self._result(self._protocol.outputs_packed(pairs, length, verb))
