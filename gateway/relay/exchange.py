"""One attempt on the wire: takes what the host sends and puts it into the client's sink, in the same step.

An error status is collected instead, so that the relay can try another host; everything else goes out as it comes.
"""

import asyncio
from collections.abc import Callable
from typing import Final, Protocol

from gateway.dialects.ending import Ended
from gateway.dialects.lines import Framing, Meter, framing_of
from gateway.dialects.request import Kind
from gateway.dialects.usage import usage_of
from gateway.fleet.host import Lease
from gateway.fleet.residence import Trigger
from gateway.record import AttemptOutcome, Outcome, Phase, Usage
from gateway.relay.discretion import discreet
from gateway.relay.generations import Generation
from gateway.relay.headers import NUM_CTX, RawHeaders, value_of
from gateway.relay.upstream import Connection, UpstreamError
from gateway.routing.admission import Admission

_PREFILL: Final = Phase.PREFILL
_STREAMING: Final = Phase.STREAMING
_REQUEST: Final = Trigger.REQUEST
_LOAD: Final = Kind.LOAD
_SINGLE: Final = Framing.SINGLE
_NDJSON: Final = Framing.NDJSON
_COMPLETE: Final = Ended.COMPLETE
_OK: Final = Outcome.OK

COLLECT_LIMIT_BYTES: Final = 64 * 1024
HIGH_WATER_BYTES: Final = 64 * 1024  # where asyncio's and uvloop's transports call writing paused


class ClientGone(Exception):
    """The client's transport is closed; its handler is about to be cancelled."""


class Sink(Protocol):
    """Where an answer goes. ``started``: a byte of it has been sent, or may have been.

    ``raw``: once the head is out, how to write whole chunks as they stood on the wire, and how many bytes of what was written wait;
    None where the answer is framed otherwise.
    """

    started: bool

    @property
    def buffered(self) -> bool:
        """Whether ``flush`` has something to wait for."""

    @property
    def raw(self) -> tuple[Callable[[bytes], None], Callable[[], int]] | None:
        """See above."""

    def begin(self, status: int, headers: RawHeaders, framing: Framing, host: str) -> None:
        """Take the head; it goes out with the first byte of the body."""

    def write(self, data: bytes, last: bool = False) -> bool:
        """Send. False: ``drain`` before more. Raises ClientGone."""

    async def drain(self) -> None:
        """Wait until there is room again."""

    async def flush(self) -> None:
        """Wait until the whole answer is with the transport."""

    def abort(self) -> None:
        """Break the answer off: nothing can be said any more."""


class Exchange:
    """A Receiver for one attempt. ``ended`` once the host has nothing more to say, by ``complete`` or ``error``."""

    # What has not happened yet is read from the class.
    status = 0
    headers: RawHeaders = ()
    meter: Meter | None = None
    collected = b""
    streaming = False
    complete = False
    throttled = False
    gone = False
    error: UpstreamError | None = None
    _connection: Connection | None = None
    _waiter: "asyncio.Future[None] | None" = None

    def __init__(
        self, generation: Generation, lease: Lease, sink: Sink, admission: Admission, clock: Callable[[], float]
    ) -> None:
        self.generation = generation
        self.sink = sink
        self._admission = admission
        self._lease = lease
        self._clock = clock
        self._pass: Callable[[bytes], None]
        self._backlog: Callable[[], int]

    @property
    def unsettled(self) -> bool:
        """The host has more to say, or the client is gone. What a slow client has still to take needs no host, and no lease."""
        return self.gone or not (self.complete or self.error)

    @property
    def answered(self) -> bool:
        """The host gave a whole answer that was collected: an error, perhaps without a word."""
        return self.complete and not self.streaming

    def send(self, connection: Connection, head: bytes, body: bytes) -> "asyncio.Future[None]":
        """Send the request. The future is done when the answer has ended, or when ``settle`` has something to do."""
        self.error = None
        self._connection = connection
        self._waiter = waiter = self.generation.future()
        connection.send(self, head, body)
        self.generation.phase = _PREFILL
        self.generation.cold = self._lease.cold
        return waiter

    async def settle(self) -> None:
        """Wait for the end of the answer, slowing the host down to the client's pace. Raises CancelledError for a client gone."""
        while self.unsettled:
            if self.gone:
                raise asyncio.CancelledError
            if self.throttled:
                await self.sink.drain()
                self.throttled = False
                if self._connection is not None:
                    self._connection.resume()
            else:
                self._waiter = self.generation.future()
                await self._waiter

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
        headers = self.headers
        if self.generation.request.clamped_from:
            headers = (*headers, (NUM_CTX, b"%d" % dict(self.generation.request.runner_options)["num_ctx"]))
        self.sink.begin(self.status, headers, framing, self._lease.host)

    # -- Receiver --------------------------------------------------------------------------------------------------------------

    def head(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        self.status = status
        self.headers = headers
        if 300 <= status < 400 and status != 304:  # a caller who followed it would be led anywhere
            assert self._connection is not None
            self._connection.abort()
            why = f"answered {status}, a redirect, which nobody follows: its url has to lead to Ollama itself"
            self.lost(UpstreamError(AttemptOutcome.PROTOCOL_ERROR, why))
        elif status < 400:
            self.stream()

    def chunk(self, framed: bytes, start: int) -> None:
        meter = self.meter
        assert meter is not None
        if meter.held:
            self.received(framed[start:-2], False)
            return
        meter.passed(framed[start:-2], self._clock())
        try:
            self._pass(framed)
        except RuntimeError:  # uvloop's word for a transport that closed a moment ago
            self._gone()
            return
        if self._backlog() > HIGH_WATER_BYTES:
            self._throttle()

    def received(self, data: bytes, complete: bool) -> None:
        if not self.streaming:
            self.collected += data
            if len(self.collected) <= COLLECT_LIMIT_BYTES:
                if complete:
                    self.complete = True
                    self._wake()
                return
            data, self.collected = self.collected, b""
            self.stream()
        meter, now = self.meter, self._clock()
        assert meter is not None
        if data:
            data = meter.feed(data, now)
        if complete:
            self.complete = True
            data += meter.flush()
        elif not data:
            return
        if self.generation.first_byte is None:
            self._first(meter, now)
        try:
            if not self.sink.write(data, complete):
                self._throttle()
        except ClientGone:
            self._gone()
        if complete:
            self._wake()

    def _throttle(self) -> None:
        """The client is slower than the host: stop reading until it has caught up."""
        self.throttled = True
        if not self.complete and self._connection is not None:
            self._connection.pause()
        self._wake()

    def _gone(self) -> None:
        self.gone = True
        self._wake()

    def _first(self, meter: Meter, now: float) -> None:
        generation = self.generation
        generation.first_byte = now
        generation.phase = _STREAMING
        trigger = Trigger.PRELOAD if generation.request.kind is _LOAD else _REQUEST
        self._admission.answered(self._lease, generation.request.model, now, trigger)
        if (raw := self.sink.raw) is not None and meter.terminator and self._connection is not None:
            self._pass, self._backlog = raw
            self._connection.pass_whole(meter.terminator)

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


def outcome_of(status: int) -> Outcome:
    """Whose error a host's status is. 501: the model cannot do what was asked, and no other host's can."""
    return Outcome.CLIENT_ERROR if status < 500 or status == 501 else Outcome.UPSTREAM_ERROR


def account(exchange: Exchange, meter: Meter) -> None:
    """Write what passed into the generation: also of an answer that was cut short."""
    generation = exchange.generation
    generation.bytes_out = meter.size
    streamed = meter.framing is not _SINGLE
    if not exchange.complete:
        generation.usage = Usage(output_tokens=generation.tokens if streamed else 0)
    elif exchange.status >= 400:
        generation.ended(outcome_of(exchange.status), f"answered {exchange.status}")
    elif streamed:
        ending = generation.request.endpoint.ending(meter.tail)
        whole = ending.ended is _COMPLETE
        final = meter.last_line if meter.framing is _NDJSON else meter.tail
        generation.usage = usage_of(final, max(0, generation.tokens - ending.extra_events), complete=whole)
        if whole:
            generation.ended(_OK)
        else:
            generation.ended(
                Outcome.UPSTREAM_ERROR,
                discreet(ending.message, generation.request) or "the host ended the answer without its last event",
            )
    else:
        generation.usage = usage_of(meter.tail, 0, complete=True)
        generation.ended(_OK)
