"""Conversations: several models in one session, turn by turn, each turn a generation like any other.

One runs as a task of the gateway's own and holds its session's claim from the first word to the last, so that nobody else answers in between;
the user may say something at any time (``Turns.say``), and whoever speaks next sees it. What can happen:

1. It cannot begin (no such session, somebody answers already, no database): the caller is told.
2. A turn fails or is stopped by itself: that is told and kept, and the others go on, or not (``on_error``); where everybody fails one after
   another, nobody is left to go on.
3. It is stopped: by its id, its session's, a caller who leaves, an orphan's timer. So are the turns that run.
4. The database is lost, the session deleted, the gateway shuts down: what runs is finished and kept as any answer is, no turn begins any more.
"""

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import msgspec

from gateway.conversation.events import EndReason, Events, Speaker, Started, UserSaid
from gateway.conversation.order import Round, check_turns, rounds
from gateway.conversation.rounds import Rounds
from gateway.conversation.talk import Talk
from gateway.errors import BadRequest, CorralError, ShuttingDown
from gateway.messages import CONVERSATION, NewMessage, NewSession, Role, Session
from gateway.participants import TOPIC_KEPT, ConversationSettings, Mode, settled
from gateway.record import CancelSource
from gateway.relay.detached import Detached
from gateway.relay.generations import Generations
from gateway.relay.intents import Intent
from gateway.store.session_store import SessionStore
from gateway.tasks import Tasks
from gateway.turns.busy import Busy
from gateway.turns.writer import Place, Writer

TITLE_LENGTH = 80
WHO = "participants: name 2 to 8 models"
WHAT = "topic: say what they are to answer"


@dataclass(frozen=True, slots=True)
class Wish:
    """What is wanted. ``session``: one that is there goes on, else a new one begins. ``changes`` to its settings, by name; ``turns`` None: as many as
    usual; ``token_budget``: tokens that all may say, None: no bound."""

    session: str | None = None
    changes: Mapping[str, Any] = field(default_factory=dict)
    said: NewMessage | None = None
    title: str = ""
    turns: int | None = None
    token_budget: int | None = None


class Running(NamedTuple):
    """A conversation that has begun."""

    session: Session
    events: Events


class Conversations:
    """Runs them. ``name`` is this gateway's."""

    def __init__(
        self,
        store: SessionStore,
        detached: Detached,
        generations: Generations,
        rounds: Rounds,
        tasks: Tasks,
        name: str,
        writer: Writer,
        busy: Busy,
    ) -> None:
        self._store = store
        self._detached = detached
        self._generations = generations
        self._rounds = rounds
        self._tasks = tasks
        self._name = name
        self._writer = writer
        self._busy = busy

    async def begin(self, owner: str, wish: Wish, client: str = "") -> Running:
        """Begin one; its events can be read from now on. Raises CorralError if it cannot be; a caller who leaves meanwhile stops it."""
        if self._detached.draining:
            raise ShuttingDown("the gateway is shutting down", retry_after=5.0)
        ready: asyncio.Future[Running] = self._generations.loop.create_future()
        intent = self._generations.intend(self._detached.fresh_id(), wish.session or "")
        self._tasks.spawn(f"conversation {intent.id}", self._run(owner, wish, client, intent, ready))
        try:
            return await ready
        except asyncio.CancelledError:
            self.left(intent.id)
            raise

    def left(self, id_: str) -> None:
        """Its caller has left, and it was not to run on without."""
        if (intent := self._generations.intended(id_)) is not None:
            intent.stop(CancelSource.CLIENT, "the client left")

    async def _run(self, owner: str, wish: Wish, client: str, intent: Intent, ready: "asyncio.Future[Running]") -> None:
        with self._busy, intent:
            try:
                talk, order = await self._begun(owner, wish, client, intent)
                if not ready.done():
                    ready.set_result(Running(talk.session, talk.events))
            except CorralError as error:
                if not ready.done():
                    ready.set_exception(error)
                return
            finally:
                ready.cancel()
            try:
                for speakers in order:
                    await self._rounds.run(talk, speakers)
                    if talk.reason is not None:
                        break
                talk.ends(EndReason.TURNS)
                await self._writer.end(Place(owner, talk.session.id, intent.id, None), None)
            finally:
                talk.ends(EndReason.ERROR, "internal error; the log has the details")
                talk.events.tell(talk.ended())
                talk.events.end()

    # -- beginning -------------------------------------------------------------------------------------------------------------

    async def _begun(self, owner: str, wish: Wish, client: str, intent: Intent) -> tuple[Talk, Iterator[Round]]:
        """Its session is claimed, what the user says is in it, and the first event is told."""
        sessions, turns = self._store.sessions, self._store.turns
        there = await sessions.get(owner, wish.session) if wish.session else None
        settings = _settings(there, wish)
        check_turns(settings, wish.turns)
        branch = await self._store.messages.history(owner, there.id, limit=len(settings.participants)) if there else []
        together = settings.mode in (Mode.COMPARE, Mode.JUDGE)
        if wish.said is None and (not branch or (together and branch[-1].role is not Role.USER)):
            raise BadRequest(WHAT)
        kept = msgspec.to_builtins(settings)
        if there is None:
            title = wish.title or _title(wish.said)
            there = await sessions.create(owner, NewSession(title=title), kind=CONVERSATION, settings=kept)
        intent.session = there.id
        said = [wish.said] if wish.said else []
        try:
            begun = await turns.begin(owner, there.id, claim=intent.id, replica=self._name, said=said)
            if there.settings != kept or there.kind != CONVERSATION:
                await sessions.converse(owner, there.id, kept)
        except CorralError:  # perhaps it has begun, and only the word of it was lost
            await self._writer.end(Place(owner, there.id, intent.id, None), None)
            raise
        events = Events(self._detached.shelf, intent.id, there.id)
        seen_last = begun.parent if begun.parent is not None else -1
        talk = Talk(owner, client, intent, begun.session, settings, events, wish.token_budget, seen_last)
        intent.told = partial(self._stopped, talk)
        events.begin(intent.stop)
        events.tell(_started(talk))
        if wish.said is not None:
            events.tell(UserSaid(message=seen_last, content=wish.said.content))
        last = next((message.name for message in reversed(branch) if message.role is Role.ASSISTANT), None)
        return talk, rounds(settings, wish.turns, last)

    def _stopped(self, talk: Talk, source: CancelSource, why: str) -> None:
        for generation in talk.current:
            self._generations.stop_named(generation, source, why)


def _settings(there: Session | None, wish: Wish) -> ConversationSettings:
    """Those of the session, changed as is wished. Raises BadRequest."""
    given: dict[str, Any] = dict((there.settings or {}) if there else {})
    if "participants" not in given and "participants" not in wish.changes:
        raise BadRequest(WHO)
    given = {"mode": Mode.DIALOGUE} | given | msgspec.to_builtins(dict(wish.changes))
    if given["mode"] != Mode.JUDGE and "judge" not in wish.changes:
        given["judge"] = None
    if not given.get("topic") and wish.said is not None:
        given["topic"] = wish.said.content[:TOPIC_KEPT]
    try:
        return settled(msgspec.convert(given, ConversationSettings))
    except msgspec.ValidationError as error:
        raise BadRequest(f"the settings of the session cannot be used: {error}") from None


def _title(said: NewMessage | None) -> str:
    lines = said.content.split("\n") if said else []
    line = next((line.strip() for line in lines if line.strip()), "")
    return line if len(line) <= TITLE_LENGTH else line[: TITLE_LENGTH - 1] + "…"


def _started(talk: Talk) -> Started:
    settings = talk.settings
    everybody = [*settings.participants, *([settings.judge] if settings.judge else [])]
    speakers = [Speaker(name=one.name or "", model=one.model, host=one.host) for one in everybody]
    return Started(id=talk.intent.id, session=talk.session.id, mode=settings.mode, participants=speakers)
