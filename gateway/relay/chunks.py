"""What is kept for readers: numbered chunks that grow, and those who read them.

Theory: chunks are numbered from 0. Readers hold a number, not a place in a queue: each takes what there is from its number on, at its own
pace, and waits only when it has everything. So readers cost the writer one wake-up each and cannot slow it or each other. What is over the
bound loses its oldest chunks; a reader who wanted them is told how many are gone. Nothing here awaits but ``Reader``.
"""

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Final, NamedTuple, Self

from gateway.dialects.lines import Framing
from gateway.dialects.request import Endpoint
from gateway.errors import CorralError
from gateway.record import Phase
from gateway.relay.headers import RawHeaders

CHUNK_COST_BYTES: Final = 64  # what Python adds to each
BATCH_BYTES: Final = 64 * 1024


class Head(NamedTuple):
    """How an answer began. ``host``: where it ran; empty: it is none of one host's."""

    status: int
    headers: RawHeaders
    framing: Framing
    host: str


class Batch(NamedTuple):
    """Chunks from number ``at`` on. ``gone``: how many before them were wanted and are no longer held."""

    at: int
    gone: int
    chunks: list[bytes]


class Chunks:
    """Chunks growing until ``ended`` (monotonic seconds). ``endpoint``: whose dialect errors are told in.

    ``head`` is there once its first byte is. ``error``: what the caller would have been told, where there was no byte. ``aborted``:
    it broke off in a way that its framing cannot tell.

    ``held(chunks, bytes)`` is told of every change of ``size`` and says how many bytes are too much now; ``attended(chunks, change)`` of
    readers that come and go.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        id_: str,
        endpoint: Endpoint,
        limit_bytes: int,
        held: Callable[["Chunks", int], int],
        attended: Callable[["Chunks", int], None],
    ) -> None:
        self.id = id_
        self.endpoint = endpoint
        self.head: Head | None = None
        self.error: CorralError | None = None
        self.aborted = False
        self.ended: float | None = None
        self.first = 0  # number of the oldest chunk that is held
        self.size = 0
        self.readers = 0
        self._loop = loop
        self._limit = limit_bytes
        self._held = held
        self._attended = attended
        self._chunks: list[bytes] = []
        self._waiters: dict[asyncio.Future[None], None] = {}

    def __repr__(self) -> str:
        return (
            f"<{type(self).__name__} {self.id} [{self.first} to {self.count}{'' if self.ended is None else ', ended'}]>"
        )

    @property
    def count(self) -> int:
        """How many chunks have come: the number of the next."""
        return self.first + len(self._chunks)

    @property
    def phase(self) -> Phase:
        """How far it is."""
        return Phase.STREAMING if self.ended is None else Phase.DONE

    @property
    def session(self) -> str | None:
        """The session that it belongs to; None: to none."""
        return None

    @property
    def principal(self) -> str:
        """Whose they are; empty: somebody's without a key."""
        return ""

    def reader(self, at: int = 0, *, counted: bool = True) -> "Reader":
        """``with chunks.reader(at) as reader``: from chunk ``at`` on. Not ``counted``: it shows in no count, and keeps no orphan alive."""
        return Reader(self, at, counted=counted)

    def forget(self) -> None:
        """Hold nothing any more; who still reads is told that the rest is gone."""
        self.first = self.count
        self._chunks = []
        self._grow(-self.size)
        self._wake()

    def batch(self, at: int) -> Batch | None:
        """What there is from ``at`` on, at most about BATCH_BYTES; None: nothing yet, or at the end nothing any more."""
        if at >= self.count:
            return None
        start = max(at, self.first)
        chunks: list[bytes] = []
        size = 0
        for index in range(start - self.first, len(self._chunks)):
            chunk = self._chunks[index]
            if chunks and size + len(chunk) > BATCH_BYTES:
                break
            chunks.append(chunk)
            size += len(chunk)
        return Batch(start, start - at, chunks)

    def come(self, change: int) -> None:
        """A counted reader came (1) or went (-1)."""
        self.readers += change
        self._attended(self, change)

    async def changed(self) -> None:
        """Wait until there is more, or the end."""
        waiter = self._loop.create_future()
        self._waiters[waiter] = None
        try:
            await waiter
        finally:
            self._waiters.pop(waiter, None)

    # -- for who writes --------------------------------------------------------------------------------------------------------

    def _add(self, chunk: bytes) -> None:
        self._chunks.append(chunk)
        self._grow(len(chunk) + CHUNK_COST_BYTES)

    def _grow(self, size: int) -> None:
        self.size += size
        surplus = max(self._held(self, size), self.size - self._limit)
        if size > 0 and surplus > 0:
            self._shed(surplus)

    def _shed(self, surplus: int) -> int:
        """Drop the oldest chunks; how many bytes. The newest stays, so that who follows misses nothing."""
        number = dropped = 0
        enough = surplus + self._limit // 16  # rarely much, instead of a little each time
        while dropped < enough and number < len(self._chunks) - 1:
            dropped += len(self._chunks[number]) + CHUNK_COST_BYTES
            number += 1
        self._drop(number)
        return dropped

    def _drop(self, number: int) -> None:
        size = sum(map(len, self._chunks[:number])) + number * CHUNK_COST_BYTES
        del self._chunks[:number]
        self.first += number
        self._grow(-size)

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, {}
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)


class Reader:
    """One who reads, from chunk ``at`` on. ``async for batch in reader`` ends when the chunks have."""

    def __init__(self, chunks: Chunks, at: int, *, counted: bool) -> None:
        self.chunks = chunks
        self.at = at
        self._counted = counted

    def __enter__(self) -> Self:
        if self._counted:
            self.chunks.come(1)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._counted:
            self.chunks.come(-1)

    async def begun(self) -> Head | None:
        """How it began, once it has; None: it ended without a byte, and ``error`` says why."""
        while self.chunks.head is None and self.chunks.ended is None:
            await self.chunks.changed()
        return self.chunks.head

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Batch:
        while (batch := self.chunks.batch(self.at)) is None:
            if self.chunks.ended is not None:
                raise StopAsyncIteration
            await self.chunks.changed()
        self.at = batch.at + len(batch.chunks)
        return batch
