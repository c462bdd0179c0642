"""The relay: wait, choose, lease, send, pass the answer on; another host if one fails before its first byte.

``run`` reads as the request's path. What can happen to one attempt:

1. The answer comes whole: relayed as it came, learned from, done.
2. The host fails before its first byte, by its own fault: the next host, at most ``attempts``. Never by a timeout of ours: a host
   that is silent may be loading a model, and leaving it would make it start again.
3. It answers an error that is the caller's: relayed unchanged.
4. It breaks off after the first byte: the dialect's last words. Nothing is tried again.
5. The scope ends (operator, session, deadline, shutdown) or the client leaves: the connection is closed, then the lease released.
"""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Final

import msgspec

from gateway.dialects.lines import Framing
from gateway.dialects.ollama import message_of
from gateway.dialects.request import Farewell, InferenceRequest
from gateway.errors import CorralError, DeadlineUnmet
from gateway.fleet.health import Event
from gateway.fleet.host import Lease
from gateway.fleet.registry import Fleet
from gateway.record import Attempt, AttemptOutcome, CancelSource, Outcome, Phase
from gateway.relay.connections import Connections
from gateway.relay.discretion import discreet
from gateway.relay.exchange import ClientGone, Exchange, Sink, account, outcome_of
from gateway.relay.failures import BUSY, STOPPED, hosts_failed, missing_model, outcome_of_error, unroutable
from gateway.relay.generations import Generation
from gateway.relay.headers import Inbound, request_head
from gateway.relay.overheard import Overheard
from gateway.relay.upstream import UpstreamError
from gateway.routing.admission import NOBODY, Admission, Grant, Verdict
from gateway.routing.clamping import clamped
from gateway.routing.policy import Unroutable

_QUEUED: Final = Phase.QUEUED
_CONNECTING: Final = Phase.CONNECTING
_CANCELLED: Final = AttemptOutcome.CANCELLED
_ATTEMPT_OK: Final = AttemptOutcome.OK
_OK: Final = Outcome.OK
_SINGLE: Final = Framing.SINGLE

STALE_WITHIN_SECONDS: Final = 0.25
LAST_WORDS_SECONDS: Final = 2.0  # for a client that is slow to take them
_BROKEN: Final = (502, 504)
# What Ollama says in a 500 that is the host's trouble, not the request's (docs/errors.md).
_HOST_TROUBLE: Final = (
    "process has terminated",
    "timed out waiting for",
    "out of memory",
    "error was encountered while running the model",
    "unable to load model",
    "error loading",
)


class Relay:
    """Runs generations. ``refresh`` asks all hosts for their models; ``poke`` polls one host now; ``overhear_bytes`` of each answer are
    remembered for its trace."""

    def __init__(
        self,
        fleet: Fleet,
        admission: Admission,
        connections: Connections,
        clock: Callable[[], float],
        *,
        attempts: int,
        refresh: Callable[[], Awaitable[None]],
        poke: Callable[[str], None],
        overhear_bytes: int = 0,
    ) -> None:
        self._fleet = fleet
        self._admission = admission
        self._connections = connections
        self._clock = clock
        self._attempts = attempts
        self._refresh = refresh
        self._poke = poke
        self._overhear_bytes = overhear_bytes

    async def run(self, generation: Generation, headers: Inbound, query: str, sink: Sink) -> None:
        """Serve one generation into ``sink``. Raises CorralError if nothing was sent, CancelledError if the client left."""
        cancelled = stopped = False
        failures: list[str] = []
        tried = NOBODY
        overheard = Overheard(sink, generation, self._overhear_bytes) if self._overhear_bytes else None
        sink = overheard or sink
        if self._fleet.clamps:
            generation.request = clamped(generation.request, self._fleet.snapshot(self._clock()))
        generation.open_scope()
        try:
            if generation.cancelled_by is not None:  # before its task's turn came
                raise asyncio.CancelledError  # noqa: TRY301 - as if a moment later
            while True:
                lease = self._leased(generation, tried) or await self._admitted(generation, tried, failures)
                exchange = Exchange(generation, lease, sink, self._admission, self._clock)
                try:
                    await self._attempt(exchange, lease.host, headers, query)
                finally:
                    exchange.close()
                    self._admission.release(lease, self._clock())
                why = self._judge(exchange, lease)
                if why is None:
                    break
                failures.append(f"{lease.host}: {why}")
                tried |= {lease.host}
                if len(failures) >= self._attempts or (
                    exchange.answered and not self._another(generation.request, tried)
                ):
                    self._give_up(exchange, failures)
                    break
            if sink.buffered:
                generation.delivering = True
                await sink.flush()
        except asyncio.CancelledError:
            cancelled = True
        except CorralError as error:
            _refused(generation, error)
            raise
        finally:
            stopped = generation.close_scope(cancelled=cancelled)
            if overheard is not None:
                overheard.settle()
        if stopped:
            self._say_stopped(generation, sink)
            if sink.buffered:
                await _flush_soon(sink)
        elif cancelled:
            raise asyncio.CancelledError

    # -- waiting ---------------------------------------------------------------------------------------------------------------

    def _leased(self, generation: Generation, tried: frozenset[str]) -> Lease | None:
        """A lease at once, if the best host has a free slot: the ordinary case."""
        verdict = self._admission.grant(generation.request, self._clock(), tried, generation.due)
        return _granted(generation, verdict) if isinstance(verdict, Grant) else None

    async def _admitted(self, generation: Generation, tried: frozenset[str], failures: list[str]) -> Lease:
        """A lease after waiting for it. Raises ModelNotFound, NoHost, HostsFailed, QueueFull, DeadlineUnmet."""
        request, since, due = generation.request, self._clock(), generation.due
        if not request.model:
            status, message = request.endpoint.missing_model
            raise missing_model(status, message)
        try:
            verdict = self._admission.grant(request, since, tried, due) or await self._wait(generation, tried)
            if isinstance(verdict, Unroutable) and verdict.unknown_model and not tried:
                await self._refresh()  # it may have been pulled a moment ago
                verdict = self._admission.grant(request, self._clock(), tried, due) or await self._wait(
                    generation, tried
                )
        finally:
            generation.queue_seconds += self._clock() - since
        if isinstance(verdict, Unroutable):
            raise unroutable(request, verdict, failures)
        if isinstance(verdict, DeadlineUnmet):
            raise verdict
        return _granted(generation, verdict)

    async def _wait(self, generation: Generation, tried: frozenset[str]) -> Verdict:
        generation.phase = _QUEUED
        future = generation.future()
        verdict: Verdict | None = None

        def deliver(granted: Verdict) -> bool:
            nonlocal verdict
            if future.done():
                return False
            verdict = granted
            future.set_result(None)
            return True

        waiter = self._admission.join(generation.request, self._clock(), deliver, tried, generation.due)
        try:
            await future
        except asyncio.CancelledError:
            if isinstance(verdict, Grant):
                self._admission.release(verdict.lease, self._clock())
            else:
                self._admission.withdraw(waiter, self._clock())
            raise
        assert verdict is not None
        return verdict

    def _another(self, request: InferenceRequest, tried: frozenset[str]) -> bool:
        """Whether any host is left that could take the request."""
        views = self._fleet.snapshot(self._clock()).hosts
        return any(
            view.name not in tried and (view.available is None or request.model in view.available) for view in views
        )

    # -- one attempt -----------------------------------------------------------------------------------------------------------

    async def _attempt(self, exchange: Exchange, host: str, headers: Inbound, query: str) -> None:
        """One try; a second on the same host if a pooled connection had died unnoticed, which says nothing about the host.

        Such a connection breaks at once. One that breaks later was alive: the host worked on the request, and failed.
        """
        generation = exchange.generation
        request = generation.request
        while True:
            started = self._clock()
            outcome, why = _CANCELLED, ""
            try:
                origin = self._connections.origin(host)
                target = origin.base_path + request.endpoint.path
                if query:
                    target = f"{target}?{query}"
                trace = request.trace.lines(len(generation.attempts) + 1)
                lines = origin.headers.among(headers.lines) if origin.headers is not None else headers.lines
                head = request_head(target, origin.authority, lines, len(request.body), request.id, trace)
                connection = self._connections.idle(host) or await self._connections.dial(host)
                await exchange.send(connection, head, request.body)
                if exchange.unsettled:
                    await exchange.settle()
                outcome, why = _ended(exchange)
            except UpstreamError as error:
                exchange.error = error
                outcome, why = error.outcome, error.why
            finally:
                now = self._clock()
                if outcome is _CANCELLED:
                    generation.cancel_noticed = generation.cancel_noticed or now
                    exchange.close()
                    now = self._clock()
                    if exchange.complete and exchange.streaming:
                        outcome = _ATTEMPT_OK  # it came after the last byte
                if exchange.meter is not None:
                    account(exchange, exchange.meter)
                if outcome is _ATTEMPT_OK and generation.outcome is Outcome.UPSTREAM_ERROR:
                    outcome, why = AttemptOutcome.MIDSTREAM_ERROR, generation.reason  # whole for HTTP alone
                attempt = Attempt(host, outcome, started - generation.received, now - started, exchange.status, why)
                generation.attempts += (attempt,)
            if exchange.error is None or not exchange.error.stale or now - started > STALE_WITHIN_SECONDS:
                return
            self._connections.drop(host)  # the others of its age are dead as well

    # -- judging ---------------------------------------------------------------------------------------------------------------

    def _judge(self, exchange: Exchange, lease: Lease) -> str | None:
        """What an attempt means: None if the caller has their answer, else why the host failed and another may be tried."""
        now, generation = self._clock(), exchange.generation
        if exchange.error is not None:
            event = Event.UNREACHABLE if exchange.error.unreachable else Event.ATTEMPT_FAILED
            self._fleet.note(lease.host, event, now, exchange.error.why)
            self._poke(lease.host)
            if exchange.sink.started:
                generation.ended(Outcome.UPSTREAM_ERROR, exchange.error.why)
                self._say_failed(exchange, lease.host)
                return None
            return exchange.error.why
        if exchange.streaming:
            self._learn(exchange, lease, now)
            return None
        text = message_of(exchange.collected)
        told = discreet(text, generation.request)
        if exchange.status == 404 and "model" in text and "not found" in text and self._is_listed(lease, generation):
            self._fleet.forget_model(lease.host, generation.request.model)  # a ghost: listed, but gone
            self._poke(lease.host)
            return told
        if exchange.status in BUSY:
            return f"{exchange.status} {told}"
        if exchange.status in _BROKEN or (exchange.status == 500 and any(words in text for words in _HOST_TROUBLE)):
            self._fleet.note(lease.host, Event.ATTEMPT_FAILED, now, f"answered {exchange.status}: {told}")
            return f"{exchange.status} {told}"
        generation.ended(outcome_of(exchange.status), told)
        self._pass_on(exchange)
        return None

    def _is_listed(self, lease: Lease, generation: Generation) -> bool:
        """Whether a 404 contradicts the host's own list. Not so where a path takes names as they are written and the case differs."""
        request = generation.request
        if request.endpoint.path != "/api/embeddings" or lease.host not in self._fleet.names:
            return True
        available = self._fleet.view(lease.host, self._clock()).available or {}
        listed = available[request.model].name if request.model in available else ""
        return request.requested_model in (listed, listed.removesuffix(":latest"))

    def _give_up(self, exchange: Exchange, failures: list[str]) -> None:
        """No more hosts: a single host's own answer goes out unchanged; of several, say which were tried and why each failed."""
        generation = exchange.generation
        if len(failures) == 1 and exchange.answered:
            generation.ended(Outcome.UPSTREAM_ERROR, failures[0])
            self._pass_on(exchange)
            return
        raise hosts_failed(failures, exchange.status)

    def _pass_on(self, exchange: Exchange) -> None:
        exchange.stream()
        assert exchange.meter is not None
        now = self._clock()
        exchange.generation.first_byte = now
        exchange.generation.bytes_out = len(exchange.collected)
        _write_last(exchange.sink, exchange.collected)

    def _learn(self, exchange: Exchange, lease: Lease, now: float) -> None:
        generation = exchange.generation
        if generation.outcome is not _OK:
            self._fleet.note(lease.host, Event.ATTEMPT_FAILED, now, generation.reason)
            return
        self._fleet.ran(lease, generation.usage)
        if self._fleet.wants_sample(lease.host, now):
            usage, first = generation.usage, generation.first_byte
            if not usage.decode_seconds and first is not None and generation.request.stream:
                usage = msgspec.structs.replace(
                    usage, decode_seconds=now - first
                )  # what the host does not say, we have seen
            request = generation.request
            self._fleet.learn(lease, now - lease.since, usage, embedded=request.prompt_tokens if request.embeds else 0)

    # -- last words ------------------------------------------------------------------------------------------------------------

    def _say_failed(self, exchange: Exchange, host: str) -> None:
        assert exchange.error is not None
        self._farewell(
            exchange.generation, exchange.sink, f"host {host} {exchange.error.why}", "host_failed", cancelled=False
        )

    def _say_stopped(self, generation: Generation, sink: Sink) -> None:
        if generation.outcome is not None:
            sink.abort()  # the host was done, but the caller took too long
            return
        source, why = generation.cancelled_by, generation.reason
        assert source is not None
        generation.ended(generation.stopped, why)
        if not sink.started:
            error = STOPPED[source](why, retry_after=5.0 if source is CancelSource.SHUTDOWN else None)
            generation.status = error.status
            raise error
        asked_for = source in (CancelSource.OPERATOR, CancelSource.ORPHAN)
        self._farewell(generation, sink, why, STOPPED[source].code, cancelled=asked_for)

    def _farewell(self, generation: Generation, sink: Sink, message: str, code: str, *, cancelled: bool) -> None:
        meter = generation.meter
        if meter is None or meter.framing is _SINGLE or not meter.whole_lines:
            sink.abort()
            return
        request = generation.request
        moment = datetime.fromtimestamp(generation.received_at + self._clock() - generation.received, UTC)
        words = Farewell(
            id=request.id,
            model=request.requested_model,
            message=message,
            code=code,
            tokens=generation.tokens,
            now=moment.isoformat().replace("+00:00", "Z"),
            unix=int(moment.timestamp()),
            head=meter.head,
            tail=meter.tail,
        )
        _write_last(sink, (request.endpoint.cancelled if cancelled else request.endpoint.failed)(words))


def _granted(generation: Generation, grant: Grant) -> Lease:
    generation.route = grant.route
    generation.phase = _CONNECTING
    return grant.lease


def _refused(generation: Generation, error: CorralError) -> None:
    generation.status = error.status
    if generation.request.own_deadline and isinstance(error, DeadlineUnmet):
        generation.cancelled_by, generation.own_deadline = CancelSource.DEADLINE, True
        generation.ended(generation.stopped, error.message)
    generation.ended(outcome_of_error(error), error.message)


def _ended(exchange: Exchange) -> tuple[AttemptOutcome, str]:
    if exchange.error is not None:
        return exchange.error.outcome, exchange.error.why
    if exchange.status >= 500:
        return AttemptOutcome.HTTP_5XX, discreet(message_of(exchange.collected), exchange.generation.request)
    if exchange.status >= 400:
        outcome = AttemptOutcome.HTTP_429 if exchange.status == 429 else AttemptOutcome.HTTP_4XX
        return outcome, discreet(message_of(exchange.collected), exchange.generation.request)
    return _ATTEMPT_OK, ""


async def _flush_soon(sink: Sink) -> None:
    try:
        async with asyncio.timeout(LAST_WORDS_SECONDS):
            await sink.flush()
    except TimeoutError:
        sink.abort()


def _write_last(sink: Sink, data: bytes) -> None:
    try:
        sink.write(data, True)
    except ClientGone:
        return  # nobody is left to tell; the record says how it ended
