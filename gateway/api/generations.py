"""What is in flight, and how to stop it."""

import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated

import msgspec
from aiohttp import web

from gateway.access.gate import Principal
from gateway.access.rights import Right
from gateway.api.handler import handler
from gateway.api.rows import GenerationDetail, GenerationRow, ended, explained, kept, running
from gateway.api.stopping import STOPPED, Ended, Stopping
from gateway.doc import doc
from gateway.errors import NotFound, StoreSlow, StoreUnavailable
from gateway.record import CancelSource, Phase
from gateway.relay.feed import Feed
from gateway.relay.generations import Generation, Generations
from gateway.relay.kept import KeptAnswer
from gateway.relay.shelf import Shelf
from gateway.routing.outlook import Outlook
from gateway.routing.waiting import Waiter
from gateway.store.entries import Row
from gateway.store.sessions import Sessions

_ID = re.compile(r"[0-9a-f]{24}\Z")


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
    """Handlers of ``/api/generations``, ``/api/chat/cancel`` and ``/api/sessions/{id}/cancel``. ``outlook``: of those that wait; ``row``: of
    one that ended, as the database keeps it."""

    def __init__(
        self,
        generations: Generations,
        shelf: Shelf,
        stopping: Stopping,
        sessions: Sessions,
        outlook: Callable[[float], list[tuple[Waiter, Outlook]]],
        row: Callable[[str], Awaitable[Row]],
    ) -> None:
        self._generations = generations
        self._shelf = shelf
        self._stopping = stopping
        self._sessions = sessions
        self._outlook = outlook
        self._kept = row

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
    async def all(self, query: Wanted, who: Principal) -> InFlight:
        """Everything in flight that is the caller's to know of, oldest first."""
        over = [one for one in self._shelf.ended() if isinstance(one, KeptAnswer)] if query.kept else []
        rows = [ended(one.record, one) for one in over if one.record is not None and who.sees(one.principal)]
        waiting = self._waiting()
        rows += [self._running(one, waiting) for one in self._generations if who.sees(one.principal)]
        feeds = [one for one in self._shelf if isinstance(one, Feed) and (query.kept or one.ended is None)]
        talks = [_conversation(one) for one in feeds if who.sees(one.principal)]
        return InFlight(
            [row for row in rows if query.session in (None, row.session)],
            [row for row in talks if query.session in (None, row.session)],
        )

    @handler(NotFound, StoreUnavailable, StoreSlow)
    async def one(self, path: OneGeneration, who: Principal) -> GenerationDetail:
        """One generation: in flight, one of the last 256 that ended, or one that the database keeps; and why it went where it went. Of the plain ones that
        went well the database keeps no `costs`.
        """
        if self._generations.get(path.id) is not None:
            found = self._found(path.id, who)
            return explained(self._running(found, self._waiting()), found.route)
        answer = self._shelf.get(path.id)
        if isinstance(answer, KeptAnswer) and answer.record is not None and who.sees(answer.principal):
            return explained(ended(answer.record, answer), answer.record.route)
        record = self._generations.past(path.id)
        if record is not None and who.sees(record.principal):
            return explained(ended(record), record.route)
        try:
            row = await self._kept(path.id)
        except NotFound:
            row = None
        if row is None or not who.sees(row.principal):
            raise NotFound(f"no generation {path.id[:64]!r} is in flight, or kept")
        return kept(row)

    @handler(NotFound, StoreUnavailable)
    async def stop(self, path: OneGeneration, who: Principal) -> GenerationStopped | SessionStopped:
        """Stop a generation or a conversation, here or at another gateway on the same PostgreSQL. Idempotent while it winds down; 404 once it is gone."""
        if self._generations.get(path.id) is not None:
            return self._stopped(self._found(path.id, who))
        _refuse_word(path.id, who)
        intent = self._generations.intended(path.id)
        here = () if intent is None or not who.sees(intent.principal) else (intent,)
        return self._told(path.id, await self._stopping.stop(path.id, here, who.whose))

    @handler(NotFound, StoreUnavailable)
    async def cancel(self, path: OneOrSession, who: Principal) -> GenerationStopped | SessionStopped:
        """Stop a generation, as DELETE does, or all of a session: what is queued, what loads, what streams, at every gateway on the same
        PostgreSQL."""
        return await self._cancelled(path.id, who)

    @handler(NotFound, StoreUnavailable)
    async def cancel_session(self, path: OneOrSession, who: Principal) -> GenerationStopped | SessionStopped:
        """The same as `/api/chat/cancel/{id}`; a stored session in which nothing runs is not a 404."""
        try:
            return await self._cancelled(path.id, who)
        except NotFound as nothing:
            try:
                await self._sessions.get(who.name, path.id)
            except StoreUnavailable:
                raise nothing from None
            return SessionStopped(path.id, 0, already=True, generations=[], elsewhere=0)

    async def _cancelled(self, id_: str, who: Principal) -> GenerationStopped | SessionStopped:
        if self._generations.get(id_) is not None:
            return self._stopped(self._found(id_, who))
        _refuse_word(id_, who)
        here = self._generations.named(id_, who.whose)
        return self._told(id_, await self._stopping.stop(id_, here, who.whose))

    def _told(self, id_: str, over: Ended) -> SessionStopped:
        if not over.total:
            raise _nothing(id_)
        already = bool(over.here) and not over.fresh
        return SessionStopped(id_, over.total, already, [one.id for one in over.here], over.elsewhere)

    def _stopped(self, generation: Generation) -> GenerationStopped:
        phase = generation.phase
        stopped = generation.stop(CancelSource.OPERATOR, STOPPED)
        return GenerationStopped(generation.id, cancelled=True, phase=phase, already=not stopped)

    def _found(self, id_: str, who: Principal) -> Generation:
        generation = self._generations.get(id_)
        if generation is None or not who.sees(generation.principal):
            raise NotFound(f"no generation {id_[:64]!r} is in flight")
        return generation

    def _waiting(self) -> Mapping[str, Outlook]:
        return {waiter.request.id: told for waiter, told in self._outlook(self._generations.clock())}

    def _running(self, generation: Generation, waiting: Mapping[str, Outlook]) -> GenerationRow:
        told, answer = waiting.get(generation.id), self._shelf.get(generation.id)
        detached = answer if isinstance(answer, KeptAnswer) else None
        return running(generation, self._generations.clock(), told, detached)


def _refuse_word(id_: str, who: Principal) -> None:
    """Who has no sessions can stop by an id, which nobody guesses, but not by a word: others without a key may use the same. Raises NotFound."""
    if not who.may(Right.OWN) and _ID.match(id_) is None:
        raise _nothing(id_)


def _nothing(id_: str) -> NotFound:
    return NotFound(f"no generation {id_[:64]!r} is in flight, and none of such a session")


def _conversation(feed: Feed) -> ConversationRow:
    return ConversationRow(feed.id, feed.session, feed.ended is None, feed.readers, feed.count, feed.first)
