"""An answer that is kept instead of sent, for whoever reads it: the Sink of a detached generation.

Theory: a chunk is one NDJSON line or one SSE event, as it came; an answer in one piece is one chunk. Chunks are numbered from 0.
Readers hold a number, not a place in a queue: each takes what there is from its number on, at its own pace, and waits only when it
has everything. So readers cost the generation one wake-up each and cannot slow it or each other. What is over the bound loses its
oldest chunks; a reader who wanted them is told how many are gone. Nothing here awaits but ``Reader``.
"""

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import NamedTuple, Self

from gateway.dialects.lines import Framing
from gateway.errors import CorralError
from gateway.record import GenerationRecord
from gateway.relay.generations import Generation
from gateway.relay.headers import RawHeaders

CHUNK_COST_BYTES = 64  # what Python adds to each
BATCH_BYTES = 64 * 1024
_TERMINATORS = {Framing.NDJSON: b"\n", Framing.SSE: b"\n\n"}


class Head(NamedTuple):
    """How an answer began."""

    status: int
    headers: RawHeaders
    framing: Framing
    host: str


class Batch(NamedTuple):
    """Chunks from number ``at`` on. ``gone``: how many before them were wanted and are no longer held."""

    at: int
    gone: int
    chunks: list[bytes]


class KeptAnswer:
    """One generation's answer, growing until ``ended``. Monotonic seconds.

    ``head`` is there once its first byte is. ``error``: what the caller would have been told, where there was no byte. ``aborted``:
    it broke off in a way that its framing cannot tell. ``record`` is there from the end on, ``generation`` until then.

    ``held(answer, bytes)`` is told of every change of ``size`` and says how many bytes are too much now; ``attended(answer, change)`` of
    readers that come and go.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        generation: Generation,
        limit_bytes: int,
        held: Callable[["KeptAnswer", int], int],
        attended: Callable[["KeptAnswer", int], None],
    ) -> None:
        self.id = generation.id
        self.endpoint = generation.request.endpoint
        self.generation: Generation | None = generation
        self.record: GenerationRecord | None = None
        self.head: Head | None = None
        self.error: CorralError | None = None
        self.started = False
        self.aborted = False
        self.ended: float | None = None
        self.first = 0  # number of the oldest chunk that is held
        self.size = 0
        self.readers = 0
        self._loop = loop
        self._limit = limit_bytes
        self._held = held
        self._attended = attended
        self._next_head: Head | None = None
        self._chunks: list[bytes] = []
        self._pieces: list[bytes] = []  # of a chunk that has not all come
        self._skipping = False  # that chunk is too large
        self._waiters: dict[asyncio.Future[None], None] = {}

    def __repr__(self) -> str:
        return f"<KeptAnswer {self.id} [{self.first} to {self.count}{'' if self.ended is None else ', ended'}]>"

    @property
    def count(self) -> int:
        """How many chunks have come: the number of the next."""
        return self.first + len(self._chunks)

    @property
    def session(self) -> str | None:
        """The caller's word."""
        if self.generation is not None:
            return self.generation.request.session
        return self.record.session if self.record is not None else None

    def reader(self, at: int = 0, *, counted: bool = True) -> "Reader":
        """``with answer.reader(at) as reader``: from chunk ``at`` on. Not ``counted``: it shows in no count, and keeps no orphan alive."""
        return Reader(self, at, counted=counted)

    # -- Sink ------------------------------------------------------------------------------------------------------------------

    @property
    def buffered(self) -> bool:
        """Never: nothing waits for readers."""
        return False

    @property
    def raw(self) -> None:
        """Chunks are cut by the dialect's framing, not by that of the wire."""
        return None

    def begin(self, status: int, headers: RawHeaders, framing: Framing, host: str) -> None:
        """Counts once a byte follows: until then another host may begin anew."""
        self._next_head = Head(status, headers, framing, host)

    def write(self, data: bytes, last: bool = False) -> bool:  # noqa: ARG002 - the end is the generation's
        """Keep."""
        if self.head is None:
            self.head = self._next_head
            self.started = True
        assert self.head is not None
        if data:
            terminator = _TERMINATORS.get(self.head.framing)
            if terminator is None:
                self._pieces.append(data)
                self._grow(len(data))
            elif not self._pieces and not self._skipping and data.endswith(terminator) and data.count(terminator) == 1:
                self._add(data)
            else:
                self._cut(data, terminator)
        self._wake()
        return True

    async def drain(self) -> None:
        """There is always room."""

    async def flush(self) -> None:
        """Nothing to do."""

    def abort(self) -> None:
        """The answer is not whole, and nothing in it says so."""
        self.aborted = True

    # -- the end ---------------------------------------------------------------------------------------------------------------

    def end(self, record: GenerationRecord, now: float, error: CorralError | None) -> None:
        """Nothing more comes. ``error``: what the caller would have been told."""
        if error is not None:  # the frames that it came through hold the request, which may be large
            error.__traceback__ = error.__context__ = None
        self.record, self.generation, self.ended, self.error = record, None, now, error
        if self.head is not None and not self.aborted:
            rest = b"".join(self._pieces)
            self._pieces = []
            self._grow(-len(rest))
            if self._skipping:
                self._lose()
            elif rest or self.head.framing is Framing.SINGLE:
                self._add(rest)
        self._wake()

    def forget(self) -> None:
        """Hold nothing any more; who still reads is told that the rest is gone."""
        self.first = self.count
        self._chunks = []
        self._pieces = []
        self._grow(-self.size)
        self._wake()

    # -- chunks ----------------------------------------------------------------------------------------------------------------

    def _cut(self, data: bytes, terminator: bytes) -> None:
        before = b"".join(self._pieces)
        self._pieces = []
        self._grow(-len(before))
        whole = before + data
        *chunks, rest = whole.split(terminator)
        for chunk in chunks:
            if self._skipping:
                self._lose()
            else:
                self._add(chunk + terminator)
        if rest:
            self._pieces = [rest[-1:] if self._skipping else rest]
            self._grow(len(self._pieces[0]))

    def _add(self, chunk: bytes) -> None:
        self._chunks.append(chunk)
        self._grow(len(chunk) + CHUNK_COST_BYTES)

    def _lose(self) -> None:
        """The chunk that has been coming is gone, and with it, as numbers have no gaps, all before it."""
        self._skipping = False
        self._drop(len(self._chunks))
        self.first += 1

    def _grow(self, size: int) -> None:
        self.size += size
        surplus = max(self._held(self, size), self.size - self._limit)
        if size > 0 and surplus > 0:
            self._shed(surplus)

    def _shed(self, surplus: int) -> None:
        """Drop the oldest chunks. The newest stays if it fits at all, so that who follows misses nothing; a cut one goes last."""
        number = dropped = 0
        enough = surplus + self._limit // 16  # rarely much, instead of a little each time
        while dropped < enough and number < len(self._chunks) - 1:
            dropped += len(self._chunks[number]) + CHUNK_COST_BYTES
            number += 1
        if self._chunks and not self._pieces and len(self._chunks[-1]) > self._limit:
            number = len(self._chunks)
        self._drop(number)
        if dropped < surplus and self._pieces:
            lost = b"".join(self._pieces)
            self._pieces = [lost[-1:]]  # half of a terminator, perhaps
            self._skipping = True
            self._grow(1 - len(lost))

    def _drop(self, number: int) -> None:
        size = sum(map(len, self._chunks[:number])) + number * CHUNK_COST_BYTES
        del self._chunks[:number]
        self.first += number
        self._grow(-size)

    # -- readers ---------------------------------------------------------------------------------------------------------------

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

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, {}
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)


class Reader:
    """One who reads an answer, from chunk ``at`` on. ``async for batch in reader`` ends when the answer has."""

    def __init__(self, answer: KeptAnswer, at: int, *, counted: bool) -> None:
        self.answer = answer
        self.at = at
        self._counted = counted

    def __enter__(self) -> Self:
        if self._counted:
            self.answer.come(1)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._counted:
            self.answer.come(-1)

    async def begun(self) -> Head | None:
        """How the answer began, once it has; None: it ended without a byte, and ``answer.error`` says why."""
        while self.answer.head is None and self.answer.ended is None:
            await self.answer.changed()
        return self.answer.head

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Batch:
        while (batch := self.answer.batch(self.at)) is None:
            if self.answer.ended is not None:
                raise StopAsyncIteration
            await self.answer.changed()
        self.at = batch.at + len(batch.chunks)
        return batch
