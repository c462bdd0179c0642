"""What is in flight, and how to stop it."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
from aiohttp import web

from gateway.api.handler import handler
from gateway.api.queue import PLACE, WAIT, WAITS_FOR, rounded
from gateway.api.sessions import OWNER
from gateway.api.stopping import STOPPED, Ended, Stopping
from gateway.doc import doc
from gateway.errors import NotFound, StoreUnavailable
from gateway.record import CancelSource, Outcome, Phase, Route, RouteReason
from gateway.relay.feed import Feed
from gateway.relay.generations import Generation, Generations
from gateway.relay.kept import KeptAnswer
from gateway.relay.shelf import Shelf
from gateway.routing.outlook import Outlook, WaitsFor
from gateway.routing.waiting import Waiter
from gateway.store.sessions import Sessions


class OneGeneration(msgspec.Struct, frozen=True):
    """Names a generation."""

    id: Annotated[str, doc("a generation's id, as `X-Corral-Generation` told it")]


class OneOrSession(msgspec.Struct, frozen=True):
    """Names a generation, or all of a session."""

    id: Annotated[str, doc("a generation's id, or the word of a session, as `X-Corral-Session` said it")]


class Wanted(msgspec.Struct, frozen=True):
    """Which generations."""

    session: Annotated[str | None, doc("of one session only")] = None
    kept: Annotated[bool, doc("`true`: before them the detached that ended and can still be read")] = False


class GenerationRow(msgspec.Struct, frozen=True):
    """One generation in flight, or a detached one that ended and can still be read."""

    id: Annotated[str, doc("unique, sortable by time")]
    session: Annotated[str | None, doc("the caller's word in `X-Corral-Session`")]
    model: Annotated[str, doc("the model's full name")]
    host: Annotated[str | None, doc("where it runs; null while it is queued")]
    phase: Annotated[
        Phase,
        doc(
            "`queued`; `connecting`; `prefill`: sent, nothing back yet: the host queues, loads or reads the prompt; "
            "`streaming`; `done`: the host is, the caller has not taken it all; or it has ended"
        ),
    ]
    dialect: Annotated[str, doc("`ollama`, `openai` or `anthropic`")]
    endpoint: Annotated[str, doc("the path that was called")]
    stream: Annotated[bool, doc("whether the answer comes in pieces")]
    client: Annotated[str, doc("the caller's address")]
    received_at: Annotated[str, doc("in UTC, ISO 8601", extra_json_schema={"format": "date-time"})]
    age_seconds: Annotated[float, doc("since it was received; how long it took once it has ended")]
    tokens: Annotated[int, doc("output tokens so far, as counted in passing", ge=0)]
    attempts: Annotated[int, doc("how many hosts were tried, with the present one", ge=0)]
    queue_place: Annotated[int | None, doc(PLACE)]
    queue_seconds: Annotated[float | None, doc(WAIT)]
    waits_for: Annotated[WaitsFor | None, doc(WAITS_FOR)]
    route_reason: Annotated[RouteReason | None, doc("why it went to this host; null while it is queued")]
    predicted_seconds: Annotated[
        float | None, doc("to the first token, as routing thought when it chose the host; null while it is queued")
    ]
    predicted_load_seconds: Annotated[float | None, doc("of these, to load the model, and the harm of evicting others")]
    detached: Annotated[
        bool, doc("whether it runs on without its caller; only then what follows can be other than null")
    ]
    readers: Annotated[int | None, doc("who read its answer now")]
    chunks: Annotated[int | None, doc("lines or events that have come")]
    first_chunk: Annotated[int | None, doc("number of the oldest that is still held")]
    outcome: Annotated[Outcome | None, doc("how it ended; null while it runs")]
    reason: Annotated[str | None, doc("why it ended so; null while it runs")]


class ConversationRow(msgspec.Struct, frozen=True):
    """A conversation that runs, or one that ended and whose events can still be read. Its turns are generations."""

    id: Annotated[str, doc("by which its events are read, and it is stopped")]
    session: Annotated[str | None, doc("the session's id")]
    running: Annotated[bool, doc("whether it has not ended")]
    readers: Annotated[int, doc("who read its events now", ge=0)]
    chunks: Annotated[int, doc("how many events have come", ge=0)]
    first_chunk: Annotated[int, doc("number of the oldest that is still held", ge=0)]


class InFlight(msgspec.Struct, frozen=True):
    """All that is in flight."""

    generations: Annotated[list[GenerationRow], doc("oldest first; those that ended before the others")]
    conversations: Annotated[list[ConversationRow], doc("of several models")]


class GenerationStopped(msgspec.Struct, frozen=True):
    """A generation that ends now."""

    id: Annotated[str, doc("the generation's id")]
    cancelled: Annotated[bool, doc("true")]
    phase: Annotated[Phase, doc("where it was")]
    already: Annotated[bool, doc("whether it was ending before")]


class SessionStopped(msgspec.Struct, frozen=True):
    """All generations of a session, or what another gateway runs under an id. They end now."""

    id: Annotated[str, doc("the session's word, or what was asked for")]
    cancelled: Annotated[int, doc("how many end, wherever they run", ge=0)]
    already: Annotated[bool, doc("whether all that run here were ending before")]
    generations: Annotated[list[str], doc("the ids of those that run here")]
    elsewhere: Annotated[int | None, doc("how many of them run at other gateways; null: those cannot be reached now")]


class GenerationsApi:
    """Handlers of ``/api/generations``, ``/api/chat/cancel`` and ``/api/sessions/{id}/cancel``. ``outlook``: of those that wait."""

    def __init__(
        self,
        generations: Generations,
        shelf: Shelf,
        stopping: Stopping,
        sessions: Sessions,
        outlook: Callable[[float], list[tuple[Waiter, Outlook]]],
    ) -> None:
        self._generations = generations
        self._shelf = shelf
        self._stopping = stopping
        self._sessions = sessions
        self._outlook = outlook

    def routes(self) -> list[web.RouteDef]:
        """List, look at, stop."""
        return [
            web.get("/api/generations", self.all),
            web.get("/api/generations/{id}", self.one),
            web.delete("/api/generations/{id}", self.stop),
            web.post("/api/chat/cancel/{id}", self.cancel),
            web.post("/api/sessions/{id}/cancel", self.cancel_session),
        ]

    @handler()
    async def all(self, query: Wanted) -> InFlight:
        """Everything in flight, oldest first."""
        rows = [_ended(one) for one in self._shelf.ended() if isinstance(one, KeptAnswer)] if query.kept else []
        waiting = self._waiting()
        rows += [self._row(generation, waiting.get(generation.id)) for generation in self._generations]
        talks = [
            _conversation(one) for one in self._shelf if isinstance(one, Feed) and (query.kept or one.ended is None)
        ]
        return InFlight(
            [row for row in rows if query.session in (None, row.session)],
            [row for row in talks if query.session in (None, row.session)],
        )

    @handler(NotFound)
    async def one(self, path: OneGeneration) -> GenerationRow:
        """One generation in flight, or a detached one that ended and can still be read."""
        answer = self._shelf.get(path.id)
        if isinstance(answer, KeptAnswer) and answer.record is not None:
            return _ended(answer)
        found = self._found(path.id)
        return self._row(found, self._waiting().get(found.id))

    @handler(NotFound, StoreUnavailable)
    async def stop(self, path: OneGeneration) -> GenerationStopped | SessionStopped:
        """Stop a generation or a conversation, here or at another gateway on the same PostgreSQL. Idempotent while it winds down; 404 once it is gone."""
        found = self._generations.get(path.id)
        if found is not None:
            return self._stopped(found)
        intent = self._generations.intended(path.id)
        return self._told(path.id, await self._stopping.stop(path.id, () if intent is None else (intent,)))

    @handler(NotFound, StoreUnavailable)
    async def cancel(self, path: OneOrSession) -> GenerationStopped | SessionStopped:
        """Stop a generation, as DELETE does, or all of a session: what is queued, what loads, what streams, at every gateway on the same
        PostgreSQL."""
        return await self._cancelled(path.id)

    @handler(NotFound, StoreUnavailable)
    async def cancel_session(self, path: OneOrSession) -> GenerationStopped | SessionStopped:
        """The same as `/api/chat/cancel/{id}`; a stored session in which nothing runs is not a 404."""
        try:
            return await self._cancelled(path.id)
        except NotFound as nothing:
            try:
                await self._sessions.get(OWNER, path.id)
            except StoreUnavailable:
                raise nothing from None
            return SessionStopped(path.id, 0, already=True, generations=[], elsewhere=0)

    async def _cancelled(self, id_: str) -> GenerationStopped | SessionStopped:
        found = self._generations.get(id_)
        if found is not None:
            return self._stopped(found)
        return self._told(id_, await self._stopping.stop(id_, self._generations.named(id_)))

    def _told(self, id_: str, ended: Ended) -> SessionStopped:
        if not ended.total:
            raise NotFound(f"no generation {id_[:64]!r} is in flight, and none of such a session")
        already = bool(ended.here) and not ended.fresh
        return SessionStopped(id_, ended.total, already, [one.id for one in ended.here], ended.elsewhere)

    def _stopped(self, generation: Generation) -> GenerationStopped:
        phase = generation.phase
        stopped = generation.stop(CancelSource.OPERATOR, STOPPED)
        return GenerationStopped(generation.id, cancelled=True, phase=phase, already=not stopped)

    def _found(self, id_: str) -> Generation:
        generation = self._generations.get(id_)
        if generation is None:
            raise NotFound(f"no generation {id_[:64]!r} is in flight")
        return generation

    def _waiting(self) -> Mapping[str, Outlook]:
        return {waiter.request.id: told for waiter, told in self._outlook(self._generations.clock())}

    def _row(self, generation: Generation, told: Outlook | None) -> GenerationRow:
        request, answer = generation.request, self._shelf.get(generation.id)
        return GenerationRow(
            id=generation.id,
            session=request.session,
            model=request.model,
            host=generation.host,
            phase=generation.phase,
            dialect=request.endpoint.dialect,
            endpoint=request.endpoint.path,
            stream=request.stream,
            client=request.client,
            received_at=_moment(generation.received_at),
            age_seconds=round(self._generations.clock() - generation.received, 3),
            tokens=generation.tokens,
            attempts=len(generation.attempts) + (generation.phase is not Phase.QUEUED),
            queue_place=told.place if told else None,
            queue_seconds=rounded(told.wait_seconds) if told else None,
            waits_for=told.waits_for if told else None,
            **_routed(generation.route),
            detached=answer is not None,
            readers=answer.readers if answer else None,
            chunks=answer.count if answer else None,
            first_chunk=answer.first if answer else None,
            outcome=None,
            reason=None,
        )


def _conversation(feed: Feed) -> ConversationRow:
    return ConversationRow(feed.id, feed.session, feed.ended is None, feed.readers, feed.count, feed.first)


def _ended(answer: KeptAnswer) -> GenerationRow:
    record = answer.record
    assert record is not None
    return GenerationRow(
        id=record.id,
        session=record.session,
        model=record.model,
        host=record.host,
        phase=Phase.DONE,
        dialect=record.dialect,
        endpoint=record.endpoint,
        stream=record.stream,
        client=record.client,
        received_at=_moment(record.received_at),
        age_seconds=round(record.duration_seconds, 3),
        tokens=record.usage.output_tokens,
        attempts=len(record.attempts),
        queue_place=None,
        queue_seconds=None,
        waits_for=None,
        **_routed(record.route),
        detached=True,
        readers=answer.readers,
        chunks=answer.count,
        first_chunk=answer.first,
        outcome=record.outcome,
        reason=record.reason,
    )


def _routed(route: Route | None) -> dict[str, Any]:
    """Rounded to milliseconds."""
    if route is None:
        return {"route_reason": None, "predicted_seconds": None, "predicted_load_seconds": None}
    seconds, load = route.predicted_seconds, route.costs[0].load_time
    return {
        "route_reason": route.reason,
        "predicted_seconds": round(seconds, 3),
        "predicted_load_seconds": round(load, 3),
    }


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
