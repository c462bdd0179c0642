"""An answer that is kept instead of sent, for whoever reads it: the Sink of a detached generation.

A chunk is one NDJSON line or one SSE event, as it came; an answer in one piece is one chunk.
"""

import asyncio
from collections.abc import Callable
from typing import Final

from gateway.dialects.lines import Framing
from gateway.errors import CorralError
from gateway.record import GenerationRecord, Phase
from gateway.relay.chunks import Chunks, Head
from gateway.relay.generations import Generation
from gateway.relay.headers import RawHeaders

_TERMINATORS: Final = {Framing.NDJSON: b"\n", Framing.SSE: b"\n\n"}


class KeptAnswer(Chunks):
    """One generation's answer. ``record`` is there from the end on, ``generation`` until then."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        generation: Generation,
        limit_bytes: int,
        held: Callable[[Chunks, int], int],
        attended: Callable[[Chunks, int], None],
    ) -> None:
        super().__init__(loop, generation.id, generation.request.endpoint, limit_bytes, held, attended)
        self.generation: Generation | None = generation
        self.record: GenerationRecord | None = None
        self.started = False
        self._next_head: Head | None = None
        self._pieces: list[bytes] = []  # of a chunk that has not all come
        self._skipping = False  # that chunk is too large

    @property
    def phase(self) -> Phase:
        """The generation's."""
        return self.generation.phase if self.generation is not None else Phase.DONE

    @property
    def session(self) -> str | None:
        """The caller's word."""
        if self.generation is not None:
            return self.generation.request.session
        return self.record.session if self.record is not None else None

    @property
    def principal(self) -> str:
        """Whoever asked."""
        if self.generation is not None:
            return self.generation.request.principal
        return self.record.principal if self.record is not None else ""

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
        self._pieces = []
        super().forget()

    # -- pieces ----------------------------------------------------------------------------------------------------------------

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

    def _lose(self) -> None:
        """The chunk that has been coming is gone, and with it, as numbers have no gaps, all before it."""
        self._skipping = False
        self._drop(len(self._chunks))
        self.first += 1

    def _shed(self, surplus: int) -> int:
        """A chunk of a host's may be of any size: the newest stays only if it fits at all. What has not all come goes last."""
        dropped = super()._shed(surplus)
        if self._chunks and len(self._chunks[-1]) > self._limit:
            self._drop(len(self._chunks))
        if dropped < surplus and self._pieces:
            lost = b"".join(self._pieces)
            self._pieces = [lost[-1:]]  # half of a terminator, perhaps
            self._skipping = True
            self._grow(1 - len(lost))
        return dropped
