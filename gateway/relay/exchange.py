"""One attempt on the wire: takes what the host sends and puts it into the client's sink, in the same step.

An error status is collected instead, so that the relay can try another host; everything else goes out as it comes.
"""

import asyncio
from collections.abc import Callable
from typing import Protocol

from gateway.dialects.lines import Framing, Meter, framing_of
from gateway.fleet.registry import Fleet, Lease
from gateway.record import AttemptOutcome, Phase
from gateway.relay.generations import Generation
from gateway.relay.headers import value_of
from gateway.relay.upstream import Connection, UpstreamError

COLLECT_LIMIT_BYTES = 64 * 1024


class ClientGone(Exception):
    """The client's transport is closed; its handler is about to be cancelled."""


class Sink(Protocol):
    """Where an answer goes. ``started``: a byte of it has been sent, or may have been."""

    started: bool

    def begin(self, status: int, headers: list[tuple[bytes, bytes]], framing: Framing, host: str) -> None:
        """Take the head; it goes out with the first byte of the body."""

    def write(self, data: bytes, *, last: bool) -> bool:
        """Send. False: ``drain`` before more. Raises ClientGone."""

    async def drain(self) -> None:
        """Wait until there is room again."""

    def abort(self) -> None:
        """Break the answer off: nothing can be said any more."""


class Exchange:
    """A Receiver for one attempt. ``ended`` once the host has nothing more to say, by ``complete`` or ``error``."""

    __slots__ = (
        "_clock", "_connection", "_fleet", "_lease", "_waiter", "collected", "complete", "error", "generation", "gone", "headers", "meter",
        "sink", "status", "streaming", "throttled",
    )  # fmt: skip

    def __init__(
        self, generation: Generation, lease: Lease, sink: Sink, fleet: Fleet, clock: Callable[[], float]
    ) -> None:
        self.generation = generation
        self.sink = sink
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.meter: Meter | None = None
        self.collected = b""
        self.streaming = False
        self.complete = False
        self.throttled = False
        self.gone = False
        self.error: UpstreamError | None = None
        self._fleet = fleet
        self._lease = lease
        self._clock = clock
        self._connection: Connection | None = None
        self._waiter: asyncio.Future[None] | None = None

    @property
    def ended(self) -> bool:
        """The host has nothing more to say."""
        return self.complete or self.error is not None

    async def run(self, connection: Connection, head: bytes, body: bytes) -> None:
        """Send the request and wait for the end of the answer; only a client slower than the host wakes this before."""
        self.error = None
        self._connection = connection
        loop = asyncio.get_running_loop()
        connection.send(self, head, body)
        self.generation.phase = Phase.PREFILL
        while not self.ended:
            self._waiter = loop.create_future()
            await self._waiter
            if self.gone:
                connection.abort()
                raise asyncio.CancelledError
            if self.throttled and not self.ended:
                await self.sink.drain()
                self.throttled = False
                connection.resume()
        if self.throttled:
            await self.sink.drain()

    def close(self) -> None:
        """Close the connection unless its answer came whole."""
        if not self.complete and self._connection is not None:
            self._connection.abort()

    def stream(self) -> None:
        """From now on the answer goes out as it comes."""
        self.streaming = True
        framing = framing_of(value_of(self.headers, b"content-type"))
        self.meter = self.generation.meter = Meter(framing)
        self.generation.status = self.status
        self.sink.begin(self.status, self.headers, framing, self._lease.host)

    # -- Receiver --------------------------------------------------------------------------------------------------------------

    def head(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        self.status = status
        self.headers = headers
        if status < 400:
            self.stream()

    def received(self, data: bytes, *, complete: bool) -> None:
        if complete:
            self.complete = True
        if not self.streaming:
            self.collected += data
            if len(self.collected) > COLLECT_LIMIT_BYTES:
                data, self.collected = self.collected, b""
                self.stream()
            else:
                if complete:
                    self._wake()
                return
        now = self._clock()
        meter = self.meter
        assert meter is not None
        if data:
            data = meter.feed(data, now)
        if complete:
            data += meter.flush()
        generation = self.generation
        if generation.first_byte is None and (data or complete):
            generation.first_byte = now
            generation.phase = Phase.STREAMING
            self._fleet.answered(self._lease, generation.request.model, now)
        if not data and not complete:
            return
        try:
            room = self.sink.write(data, last=complete)
        except ClientGone:
            self.gone = True
            self._wake()
            return
        if complete:
            self.throttled = not room
            self._wake()
        elif not room:
            self.throttled = True
            if self._connection is not None:
                self._connection.pause()
            self._wake()

    def lost(self, error: UpstreamError) -> None:
        if self.sink.started and error.outcome is AttemptOutcome.RESET:
            error = UpstreamError(AttemptOutcome.MIDSTREAM_ERROR, error.why)
        self.error = error
        if self.meter is not None:
            self.meter.drop()
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
