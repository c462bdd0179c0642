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
from dataclasses import dataclass
from datetime import UTC, datetime

from gateway.dialects.lines import Ended, Framing, usage_of
from gateway.dialects.ollama import message_of
from gateway.dialects.request import Farewell, InferenceRequest
from gateway.errors import (
    BadRequest,
    Cancelled,
    CorralError,
    DeadlineExceeded,
    HostsFailed,
    ModelNotFound,
    NoHost,
    ShuttingDown,
)
from gateway.fleet.health import Event
from gateway.fleet.registry import Fleet, Lease
from gateway.record import Attempt, AttemptOutcome, CancelSource, Outcome, Phase
from gateway.relay.exchange import ClientGone, Exchange, Sink
from gateway.relay.generations import Generation, Stopped
from gateway.relay.headers import RawHeaders, request_head
from gateway.relay.upstream import Connections, UpstreamError
from gateway.routing.admission import Admission, Grant, Verdict, Waiter
from gateway.routing.policy import Unroutable

_BUSY = (429, 503)
_BROKEN = (502, 504)
# What Ollama says in a 500 that is the host's trouble, not the request's (docs/errors.md).
_HOST_TROUBLE = (
    "process has terminated",
    "timed out waiting for",
    "out of memory",
    "error was encountered while running the model",
    "unable to load model",
    "error loading",
)


@dataclass(frozen=True, slots=True)
class Inbound:
    """What is sent on besides the body: the client's headers, unfiltered, and its query string."""

    headers: RawHeaders = ()
    query: str = ""


class Relay:
    """Runs generations. ``refresh`` asks all hosts for their models; ``poke`` polls one host now."""

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
    ) -> None:
        self._fleet = fleet
        self._admission = admission
        self._connections = connections
        self._clock = clock
        self._attempts = attempts
        self._refresh = refresh
        self._poke = poke

    async def run(self, generation: Generation, inbound: Inbound, sink: Sink) -> None:
        """Serve one generation into ``sink``. Raises CorralError if nothing was sent, CancelledError if the client left."""
        try:
            with generation:
                await self._serve(generation, inbound, sink)
        except Stopped as stopped:
            self._say_stopped(generation, sink, stopped)
        except CorralError as error:
            generation.status = error.status
            generation.ended(_outcome_of(error), error.message)
            raise

    async def _serve(self, generation: Generation, inbound: Inbound, sink: Sink) -> None:
        request = generation.request
        if not request.model:
            status, message = request.endpoint.missing_model
            raise _MISSING.get(status, BadRequest)(message)
        failures: list[str] = []
        tried: set[str] = set()
        while True:
            grant = await self._admit(generation, tried, failures)
            exchange = Exchange(generation, grant.lease, sink, self._fleet, self._clock)
            try:
                await self._attempt(exchange, grant, inbound)
            finally:
                exchange.close()
                self._admission.release(grant.lease, self._clock())
            host = grant.lease.host
            why = self._judge(exchange, grant)
            if why is None:
                return
            failures.append(f"{host}: {why}")
            tried.add(host)
            if len(failures) >= self._attempts:
                self._give_up(exchange, failures)
                return
            if exchange.collected and not self._another(request, tried):
                self._give_up(exchange, failures)
                return

    # -- waiting ---------------------------------------------------------------------------------------------------------------

    async def _admit(self, generation: Generation, tried: set[str], failures: list[str]) -> Grant:
        generation.phase = Phase.QUEUED
        generation.queued_since = self._clock()
        request = generation.request
        verdict = await self._verdict(request, tried)
        if isinstance(verdict, Unroutable) and verdict.unknown_model and not tried:
            await self._refresh()  # it may have been pulled a moment ago
            verdict = await self._verdict(request, tried)
        now = self._clock()
        generation.queued_seconds += now - generation.queued_since
        if isinstance(verdict, Unroutable):
            raise _unroutable(request, verdict, failures)
        generation.route = verdict.route
        generation.leased = now
        generation.cold = verdict.lease.cold
        generation.phase = Phase.CONNECTING
        return verdict

    async def _verdict(self, request: InferenceRequest, tried: set[str]) -> Verdict:
        future: asyncio.Future[Verdict] | None = None

        def deliver(verdict: Verdict) -> bool:
            assert future is not None
            if future.done():
                return False
            future.set_result(verdict)
            return True

        answer = self._admission.request(request, self._clock(), deliver, frozenset(tried))
        if not isinstance(answer, Waiter):
            return answer
        future = asyncio.get_running_loop().create_future()
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and isinstance(granted := future.result(), Grant):
                self._admission.release(granted.lease, self._clock())
            else:
                self._admission.withdraw(answer, self._clock())
            raise

    def _another(self, request: InferenceRequest, tried: set[str]) -> bool:
        """Whether any host is left that could take the request."""
        views = self._fleet.snapshot(self._clock()).hosts
        return any(
            view.name not in tried and (view.available is None or request.model in view.available) for view in views
        )

    # -- one attempt -----------------------------------------------------------------------------------------------------------

    async def _attempt(self, exchange: Exchange, grant: Grant, inbound: Inbound) -> None:
        generation, host = exchange.generation, grant.lease.host
        request, origin = generation.request, self._connections.origins[host]
        path = origin.base_path + request.endpoint.path
        head = request_head(path, inbound.query, origin.authority, inbound.headers, len(request.body), request.id)
        started = self._clock()
        outcome, why = AttemptOutcome.CANCELLED, ""
        try:
            connection = self._connections.idle(host) or await self._connections.dial(host)
            await exchange.run(connection, head, request.body)
            if exchange.error is not None and exchange.error.stale:
                # The pooled connection had died unnoticed: that says nothing about the host as it is now.
                self._connections.drop(host)
                await exchange.run(await self._connections.dial(host), head, request.body)
            outcome, why = _ended(exchange)
        except UpstreamError as error:
            exchange.error = error
            outcome, why = error.outcome, error.why
        finally:
            now = self._clock()
            if outcome is AttemptOutcome.CANCELLED:
                exchange.close()
                generation.cancel_noticed = generation.cancel_noticed or now
                now = self._clock()
                if exchange.complete and exchange.streaming:
                    outcome = AttemptOutcome.OK
            generation.attempts.append(Attempt(host, outcome, started, now, exchange.status, why))
            _account(exchange)

    # -- judging ---------------------------------------------------------------------------------------------------------------

    def _judge(self, exchange: Exchange, grant: Grant) -> str | None:
        """What an attempt means: None if the caller has their answer, else why the host failed and another may be tried."""
        now, lease, generation = self._clock(), grant.lease, exchange.generation
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
        if exchange.status == 404 and "model" in text and "not found" in text:
            self._fleet.forget_model(lease.host, generation.request.model)  # a ghost: listed, but gone
            self._poke(lease.host)
            return text
        if exchange.status in _BUSY:
            return f"{exchange.status} {text}"
        if exchange.status in _BROKEN or (exchange.status == 500 and any(words in text for words in _HOST_TROUBLE)):
            self._fleet.note(lease.host, Event.ATTEMPT_FAILED, now, f"answered {exchange.status}: {text}")
            return f"{exchange.status} {text}"
        generation.ended(Outcome.CLIENT_ERROR if exchange.status < 500 else Outcome.UPSTREAM_ERROR, text)
        self._pass_on(exchange)
        return None

    def _give_up(self, exchange: Exchange, failures: list[str]) -> None:
        """No more hosts: a single host's own answer goes out unchanged; of several, say which were tried and why each failed."""
        generation = exchange.generation
        if len(failures) == 1 and exchange.collected:
            outcome = Outcome.CLIENT_ERROR if exchange.status < 500 else Outcome.UPSTREAM_ERROR
            generation.ended(outcome, failures[0])
            self._pass_on(exchange)
            return
        raise _hosts_failed(failures, exchange.status)

    def _pass_on(self, exchange: Exchange) -> None:
        exchange.stream()
        assert exchange.meter is not None
        now = self._clock()
        exchange.generation.first_byte = exchange.generation.last_byte = now
        exchange.generation.bytes_out = len(exchange.collected)
        _write_last(exchange.sink, exchange.collected)

    def _learn(self, exchange: Exchange, lease: Lease, now: float) -> None:
        generation = exchange.generation
        if generation.outcome is not Outcome.OK:
            if exchange.meter is not None and generation.reason:
                self._fleet.note(lease.host, Event.ATTEMPT_FAILED, now, generation.reason)
            return
        usage, request = generation.usage, generation.request
        known = self._fleet.snapshot(now).affinity.get(request.prefix)
        cached = known is not None and known[0] == lease.host
        self._fleet.learn(
            lease,
            seconds=now - lease.since,
            load_seconds=usage.load_seconds,
            prefill_rate=0.0 if cached or not usage.prefill_seconds else usage.input_tokens / usage.prefill_seconds,
            prefill_seconds=0.0 if cached else usage.prefill_seconds,
            decode_rate=usage.output_tokens / usage.decode_seconds if usage.decode_seconds else 0.0,
        )
        if request.prefix:
            self._fleet.remember_prefix(request.prefix, lease.host, usage.input_tokens or request.prompt_tokens)

    # -- last words ------------------------------------------------------------------------------------------------------------

    def _say_failed(self, exchange: Exchange, host: str) -> None:
        assert exchange.error is not None
        self._farewell(
            exchange.generation, exchange.sink, f"host {host} {exchange.error.why}", "host_failed", cancelled=False
        )

    def _say_stopped(self, generation: Generation, sink: Sink, stopped: Stopped) -> None:
        if generation.outcome is not None:
            return  # it came after the last byte: the caller has the whole answer
        outcome = Outcome.TIMEOUT if stopped.source is CancelSource.DEADLINE else Outcome.CANCELLED
        generation.ended(outcome, stopped.why)
        if not sink.started:
            error = _STOPPED[stopped.source](stopped.why)
            generation.status = error.status
            raise error
        self._farewell(generation, sink, stopped.why, "stopped", cancelled=stopped.source is CancelSource.OPERATOR)

    def _farewell(self, generation: Generation, sink: Sink, message: str, code: str, *, cancelled: bool) -> None:
        meter = generation.meter
        if meter is None or meter.framing is Framing.SINGLE or not meter.whole_lines:
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
            tail=meter.tail,
        )
        _write_last(sink, (request.endpoint.cancelled if cancelled else request.endpoint.failed)(words))


_MISSING: dict[int, type[CorralError]] = {404: ModelNotFound}
_STOPPED: dict[CancelSource, type[CorralError]] = {
    CancelSource.CLIENT: Cancelled,
    CancelSource.OPERATOR: Cancelled,
    CancelSource.DEADLINE: DeadlineExceeded,
    CancelSource.SHUTDOWN: ShuttingDown,
}
_OUTCOMES = {
    "model_not_found": Outcome.CLIENT_ERROR,
    "bad_request": Outcome.CLIENT_ERROR,
    "no_host": Outcome.NO_HOST,
    "queue_full": Outcome.REJECTED,
}


def _outcome_of(error: CorralError) -> Outcome:
    return _OUTCOMES.get(error.code, Outcome.UPSTREAM_ERROR if error.code == "hosts_failed" else Outcome.GATEWAY_ERROR)


def _account(exchange: Exchange) -> None:
    """Write what passed into the generation: also of an answer that was cut short."""
    generation, meter = exchange.generation, exchange.meter
    if meter is None:
        return
    generation.chunks = meter.reads
    generation.bytes_out = meter.bytes
    generation.max_gap = meter.max_gap
    generation.last_byte = meter.last_at
    if exchange.complete and exchange.status >= 400:
        generation.ended(
            Outcome.CLIENT_ERROR if exchange.status < 500 else Outcome.UPSTREAM_ERROR, f"answered {exchange.status}"
        )
    elif exchange.complete:
        ending = generation.request.endpoint.ending(meter.tail) if meter.framing is not Framing.SINGLE else None
        whole = ending is None or ending.ended is Ended.COMPLETE
        tokens = generation.tokens - (ending.extra_events if ending else 0)
        generation.usage = usage_of(meter.tail, max(0, tokens) if ending else 0, complete=whole)
        if whole:
            generation.ended(Outcome.OK)
        elif ending:
            generation.ended(
                Outcome.UPSTREAM_ERROR, ending.message or "the host ended the answer without its last event"
            )
    else:
        generation.usage = usage_of(
            b"", generation.tokens if meter.framing is not Framing.SINGLE else 0, complete=False
        )


def _ended(exchange: Exchange) -> tuple[AttemptOutcome, str]:
    if exchange.error is not None:
        return exchange.error.outcome, exchange.error.why
    if exchange.status >= 500:
        return AttemptOutcome.HTTP_5XX, message_of(exchange.collected)
    if exchange.status >= 400:
        return AttemptOutcome.HTTP_4XX, message_of(exchange.collected)
    return AttemptOutcome.OK, ""


def _unroutable(request: InferenceRequest, verdict: Unroutable, failures: list[str]) -> CorralError:
    if failures:
        return _hosts_failed(failures, 0)
    if verdict.unknown_model:
        return ModelNotFound(request.endpoint.not_found.format(request.requested_model))
    reasons = "; ".join(f"{left_out.host} {left_out.why}" for left_out in verdict.rejected)
    return NoHost(f"no host can take {request.requested_model!r}: {reasons}", retry_after=5.0)


def _hosts_failed(failures: list[str], status: int) -> HostsFailed:
    tried = f"{len(failures)} hosts were tried and failed: " if len(failures) > 1 else ""
    return HostsFailed(
        tried + "; ".join(failures),
        status=status if status >= 400 else 502,
        retry_after=5.0 if status in _BUSY else None,
    )


def _write_last(sink: Sink, data: bytes) -> None:
    try:
        sink.write(data, last=True)
    except ClientGone:
        return  # nobody is left to tell; the record says how it ended
