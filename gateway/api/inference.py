"""The inference endpoints, all dialects: read, track, relay."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final, cast

import msgspec
from aiohttp import hdrs, web

from gateway.access.gate import Gate, Principal, asked_by, permit, require
from gateway.access.rights import Right
from gateway.access.tallies import Tallies
from gateway.api.answers import JSON_UTF8, Answer, rendered
from gateway.api.bodies import SMALL_BYTES, Bodies, read_body
from gateway.api.caller import NEAR, who_asks
from gateway.api.detaching import accepted, detaching
from gateway.api.manners import CORS, Headers, Manners
from gateway.api.sinks import ResponseSink, TransportSink
from gateway.config import QueueConfig, RelayConfig
from gateway.dialects.endpoints import ENDPOINTS
from gateway.dialects.read import read
from gateway.dialects.request import Endpoint, InferenceRequest, Kind
from gateway.dialects.urgency import Background, deadline_of, priority_of
from gateway.errors import (
    Cancelled,
    CorralError,
    DeadlineUnmet,
    Loop,
    QueueFull,
    ShuttingDown,
    TooLarge,
    internal,
)
from gateway.fleet.client import HostAnswer
from gateway.fleet.registry import Fleet
from gateway.fleet.targets import pinned
from gateway.ids import new_id
from gateway.record import Refusal, Trace
from gateway.relay.detached import Detached
from gateway.relay.generations import Generations
from gateway.relay.headers import Inbound, inbound
from gateway.relay.relay import Relay
from gateway.store.audit import Deed
from gateway.telemetry.context import Contexts, current
from gateway.turns.recording import Recorder

_UNLOAD: Final = Kind.UNLOAD
_INFER: Final = Right.INFER

THREAD_BYTES: Final = 1024 * 1024  # reading a larger body takes milliseconds: not on the loop
# from here on aiohttp may have paused the connection, and has to know that the body was taken
PAUSED_BYTES: Final = 64 * 1024
Unload = Callable[[InferenceRequest], Awaitable[tuple[HostAnswer, str]]]
Rejected = Callable[[str], None]
TurnedAway = Callable[[Refusal], None]
Responded = Callable[[str, int], None]
Handler = Callable[[Any], Awaitable[web.StreamResponse]]
log = logging.getLogger(__name__)


class Inference:
    """Handlers for all inference endpoints. ``draining`` makes them refuse new work.

    ``dispatch`` serves them without aiohttp's router and middlewares, which would cost as much as the routing decision. What needs
    the framework (Expect: 100-continue, redirects, 404, 405) or a look at who asks (an Origin, a Host that is not let in) goes the
    ordinary way and ends in the same handlers.
    """

    def __init__(
        self,
        relay: Relay,
        generations: Generations,
        detached: Detached,
        recorder: Recorder,
        unload: Unload,
        rejected: Rejected,
        turned_away: TurnedAway | None,
        responded: Responded,
        rng: random.Random,
        fleet: Fleet,
        contexts: Contexts,
        gate: Gate,
        tallies: Tallies,
        did: Callable[[Deed], None],
        config: RelayConfig,
        queue: QueueConfig,
    ) -> None:
        self._relay = relay
        self._generations = generations
        self._detached = detached
        self._recorder = recorder
        self._unload = unload
        self._rejected = rejected
        self._turned_away = turned_away
        self._responded = responded
        self._rng = rng
        self._fleet = fleet
        self._contexts = contexts
        self._background = Background(queue.background_prompts) if queue.background else None
        self._deadline_seconds = queue.deadline_seconds
        self._gate = gate
        self._tallies = tallies
        self._did = did
        self._model_at_host = config.model_at_host
        self._body_limit = config.body_limit_bytes
        self.bodies = Bodies(config.bodies_bytes)
        self._handlers = {path: partial(self._handle, endpoint) for path, endpoint in ENDPOINTS.items()}
        self.draining = False

    def routes(self) -> list[web.RouteDef]:
        """One POST route an endpoint."""
        return [web.post(path, partial(self._from_framework, endpoint)) for path, endpoint in ENDPOINTS.items()]

    def dispatch(self, manners: Manners, otherwise: Handler, near: bool) -> Handler:
        """A handler for all requests: plain inference at once, everything else by ``otherwise``. ``near``: as in ``Gate``."""
        prefix = manners.prefix
        handlers = self._handlers | {prefix + path: handler for path, handler in self._handlers.items()}

        def dispatched(request: Any) -> Awaitable[web.StreamResponse]:
            message = request._message  # what request.method, .raw_path and .headers look into, each interpreted
            if message.method != "POST":
                return otherwise(request)
            handler = handlers.get(message.path) or handlers.get(request.path)  # the second decodes, and has no query
            if handler is None:
                return otherwise(request)
            headers = message.headers
            if hdrs.ORIGIN in headers or not manners.hosts[headers.get(hdrs.HOST, "")]:
                return otherwise(request)
            return handler(request, otherwise, near)

        return dispatched

    async def _from_framework(self, endpoint: Endpoint, request: web.Request) -> web.StreamResponse:
        return await self._handle(endpoint, request, None, request.get(NEAR, False))

    async def _handle(
        self, endpoint: Endpoint, request: web.Request, otherwise: Handler | None, near: bool
    ) -> web.StreamResponse:
        generations = self._generations
        received = generations.clock()
        headers = inbound(cast("Any", request)._message.raw_headers)
        if headers.expect and otherwise is not None:
            return await otherwise(request)  # aiohttp says 100-continue, then calls us again
        id_ = new_id(generations.wall(), self._rng.getrandbits(52))
        trace = self._contexts.enter(id_, headers.traceparent, headers.tracestate, headers.request_id)
        sink: TransportSink | ResponseSink | None = None
        tracked = False
        try:
            inference = await self._read(endpoint, request, headers, id_, trace, near)
            query = request.rel_url.raw_query_string if "?" in request.raw_path else ""
            asked = headers.detach or "detach" in query
            detach, query = detaching(query, headers.detach) if asked else (False, query)
            if inference.kind is _UNLOAD:
                response: web.StreamResponse = await self._unloaded(inference, id_, request, near)
            elif detach:
                tracked = True
                answer = await self._detached.start(
                    *(inference, headers, query, received), began=partial(self.bodies.hold_until_done, request)
                )
                if headers.session:
                    self._recorder.record(inference, headers.content_encoding, answer)
                response = accepted(answer, request.path.removesuffix(endpoint.path))
            else:
                sink = self._sink(request, inference, () if otherwise is not None else request.get(CORS, ()))
                tracked = True
                if headers.session and self._recorder.wants(inference):
                    await self._recorder.relay(generations.track(inference, received), headers, query, sink)
                else:
                    with generations.track(inference, received) as generation:
                        await self._relay.run(generation, headers, query, sink)
                response = sink.response()
        except CorralError as error:
            self._count(error, let_in=sink is not None)
            if not tracked:
                self._tell(request, endpoint, id_, trace, received, error.code, error.status)
            response = rendered(error, endpoint, id_)
        except Exception:  # the request's supervisor: one caller gets a 500, the service goes on
            log.exception("%s failed", endpoint.path)
            response = _broken_off(sink) or rendered(internal(), endpoint, id_)
            if not tracked:
                self._tell(request, endpoint, id_, trace, received, CorralError.code, CorralError.status)
        except asyncio.CancelledError:
            if not tracked:
                self._tell(request, endpoint, id_, trace, received, Cancelled.code, Cancelled.status)
            self._responded(endpoint.path, 499)
            raise
        finally:
            self._done(request)
        self._responded(endpoint.path, response.status)
        return _naming(response, trace)

    def _done(self, request: web.Request) -> None:
        current.set(None)
        if self.bodies.of:
            self.bodies.let_go(request)

    def _inference(
        self, endpoint: Endpoint, body: bytes, id_: str, headers: Inbound, client: str, trace: Trace, query: str
    ) -> InferenceRequest:
        inference = read(
            endpoint,
            body,
            id_,
            headers.content_type,
            headers.content_encoding,
            headers.session or None,
            client,
            headers.pin,
            self._fleet.names if self._model_at_host else (),
            trace,
            priority_of(headers.priority) if headers.priority else None,
            self._background,
            deadline_of(headers.deadline) if headers.deadline else self._deadline_seconds,
            query,
        )
        return msgspec.structs.replace(inference, own_deadline=True) if headers.deadline else inference

    def _count(self, error: CorralError, *, let_in: bool) -> None:
        """As refused, unless it had been let in: then it is a generation, and counted as that. The waiting room turns away in there."""
        if not let_in or isinstance(error, (QueueFull, DeadlineUnmet)):
            self._rejected(error.code)

    def _tell(
        self, request: web.Request, endpoint: Endpoint, id_: str, trace: Trace, received: float, code: str, status: int
    ) -> None:
        """What ends before it is a generation has no record: the log and the traces hear of it here."""
        if self._turned_away is None:
            return
        seconds = self._generations.clock() - received
        at, path, client = self._generations.wall() - seconds, request.rel_url.raw_path, request.remote or ""
        self._turned_away(Refusal(id_, trace, endpoint.dialect, endpoint.path, path, code, status, at, seconds, client))

    def _sink(self, request: web.Request, inference: InferenceRequest, cors: Headers) -> TransportSink | ResponseSink:
        told: Headers = ()
        if inference.principal:
            told = self._tallies.told(inference.principal, inference.endpoint.dialect)
        if TransportSink.suits(request):
            return TransportSink(request, inference.id, inference.trace, cors, told)
        return ResponseSink(request, inference.id, inference.trace, cors, told)

    def _who(self, request: web.Request, near: bool) -> Principal:
        """Raises CorralError for who may not infer."""
        who = who_asks(self._gate, request, near=near)
        require(who, _INFER)
        return who

    async def _unloaded(self, inference: InferenceRequest, id_: str, request: web.Request, near: bool) -> web.Response:
        status = CorralError.status
        try:
            answer, hosts = await self._unload(inference)
            status = answer.status
        except CorralError as error:
            status = error.status
            raise
        finally:
            role = self._who(request, near).role or ""
            at, operation = self._generations.wall(), f"POST {inference.endpoint.path} (unload)"
            self._did(Deed(at, inference.principal, role, inference.client, operation, inference.model, status))
        log.info("unloaded %s: %s answered %d", inference.model, hosts, answer.status)
        return _answered(answer, hosts, id_)

    async def _read(
        self, endpoint: Endpoint, request: web.Request, headers: Inbound, id_: str, trace: Trace, near: bool
    ) -> InferenceRequest:
        """What is asked for, by somebody who may. Raises CorralError."""
        who = None if self._gate.open[near] and headers.user is None else self._who(request, near)
        if self.draining:
            raise ShuttingDown("the gateway is shutting down", retry_after=5.0)
        content = request.content
        if not content.is_eof():
            body = await read_body(request, self._body_limit, self.bodies)  # nearly every body has come whole by now
        elif 0 < content.total_bytes < PAUSED_BYTES and len(content._buffer) == 1:
            body = content._buffer[0]  # where read_nowait() would have the connection's parser run once more
        else:
            body = content.read_nowait()
            if len(body) > SMALL_BYTES:
                self.bodies.hold(request, len(body))
        if len(body) > self._body_limit:
            raise TooLarge(f"the body is over {self._body_limit} bytes")
        peer = request._transport_peername  # what request.remote is made of, each time by an interpreted property
        client: str = peer[0] if isinstance(peer, tuple) else request.remote or ""
        query = request.rel_url.raw_query_string if endpoint.multipart else ""
        if len(body) <= THREAD_BYTES and not headers.content_encoding:  # what is packed may unfold
            inference = self._inference(endpoint, body, id_, headers, client, trace, query)
        else:
            inference = await asyncio.to_thread(self._inference, endpoint, body, id_, headers, client, trace, query)
        if headers.generation and self._generations.get(headers.generation) is not None:
            _refuse_loop()
        pinned(inference.pin, self._fleet.names)
        return inference if who is None else self._asked_by(who, inference)

    def _asked_by(self, who: Principal, inference: InferenceRequest) -> InferenceRequest:
        """The same, of that principal. Raises Unauthorized and NotAllowed for what is not theirs to do, RateLimited once they have had enough."""
        if inference.kind is _UNLOAD:
            require(who, Right.MANAGE)
        permit(who, inference.model, inference.pin)
        if who.name and inference.kind is not _UNLOAD:
            self._tallies.admit(who.name, inference.endpoint.dialect)
        return asked_by(who, inference)


def _naming(response: web.StreamResponse, trace: Trace) -> web.StreamResponse:
    """An answer that did not go through a sink gets the request's name."""
    if not response.prepared:
        response.headers.extend(trace.answer)
    return response


def _broken_off(sink: TransportSink | ResponseSink | None) -> web.StreamResponse | None:
    """An answer that has begun cannot become an error: its connection is closed."""
    if sink is None or not sink.started:
        return None
    sink.abort()
    return sink.response()


def _refuse_loop() -> None:
    raise Loop("this request was sent on by this Corral itself: one of its hosts leads back to it")


def _answered(answer: HostAnswer, hosts: str, id_: str) -> web.Response:
    kind = answer.content_type if answer.content_type.isprintable() else JSON_UTF8
    headers = {"Content-Type": kind, "X-Corral-Generation": id_, "X-Corral-Host": hosts}
    return Answer(status=answer.status, body=answer.body, headers=headers)
