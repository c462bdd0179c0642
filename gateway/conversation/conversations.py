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

from gateway.conversation.order import Round, check_turns, rounds
from gateway.conversation.rounds import Rounds
from gateway.conversation.talk import Talk
from gateway.errors import BadRequest, CorralError, ShuttingDown, StoreUnavailable, internal
from gateway.messages import CONVERSATION, Message, NewMessage, NewSession, Role, Session
from gateway.participants import TOPIC_KEPT, ConversationSettings, EndReason, Mode, settled
from gateway.record import CancelSource
from gateway.relay.detached import Detached
from gateway.relay.feed import Feed
from gateway.relay.generations import Generations
from gateway.relay.intents import Intent
from gateway.store.session_store import SessionStore
from gateway.tasks import Tasks
from gateway.telemetry.catalogue import Catalogue
from gateway.turns.busy import Busy
from gateway.turns.reading import PAGE
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
    feed: Feed


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
        counted: Catalogue,
    ) -> None:
        self._store = store
        self._detached = detached
        self._generations = generations
        self._rounds = rounds
        self._tasks = tasks
        self._name = name
        self._writer = writer
        self._busy = busy
        self._counted = counted

    async def begin(self, owner: str, wish: Wish, client: str = "") -> Running:
        """Begin one; its events can be read from now on. Raises CorralError if it cannot be; a caller who leaves meanwhile stops it."""
        if self._detached.draining:
            raise ShuttingDown("the gateway is shutting down", retry_after=5.0)
        ready: asyncio.Future[Running] = self._generations.loop.create_future()
        intent = self._generations.intend(self._detached.fresh_id(), wish.session or "", owner)
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
        """The claim is given up before the last word is told: who reads that can go on at once."""
        place = Place(owner, "", intent.id, None)
        try:
            with self._busy, intent:
                talk, order = await self._begun(owner, wish, client, intent)
                place = place._replace(session=talk.session.id)
                with self._writer.releasing(place), talk.telling():
                    _tell(ready, Running(talk.session, talk.feed))
                    await self._go_on(talk, order)
                    await self._writer.end(place, None)
        except CorralError as error:
            _tell(ready, error)
        finally:
            _tell(ready, internal())

    async def _go_on(self, talk: Talk, order: Iterator[Round]) -> None:
        for speakers in order:
            await self._rounds.run(talk, speakers)
            if talk.reason is not None:
                return
        talk.ends(EndReason.TURNS)

    # -- beginning -------------------------------------------------------------------------------------------------------------

    async def _begun(self, owner: str, wish: Wish, client: str, intent: Intent) -> tuple[Talk, Iterator[Round]]:
        """Its session is claimed, what the user says is in it, and the first event is told."""
        there = await self._store.sessions.get(owner, wish.session) if wish.session else None
        settings = _settings(there, wish)
        check_turns(settings, wish.turns)
        leaf, last = await self._last_answer(owner, there) if there else (None, None)
        together = settings.mode in (Mode.COMPARE, Mode.JUDGE)
        if wish.said is None and (leaf is None or (together and leaf.role is not Role.USER)):
            raise BadRequest(WHAT)
        kept, new = msgspec.to_builtins(settings), None
        if there is None:
            title = wish.title or _title(wish.said)
            new = self._store.sessions.values(owner, NewSession(title=title), CONVERSATION, kept)
        id_ = intent.session = there.id if there else str(new and new["id"])
        place = Place(owner, id_, intent.id, None)
        try:
            with self._writer.releasing(place):
                begun = await self._store.turns.begin(
                    owner,
                    id_,
                    claim=intent.id,
                    replica=self._name,
                    said=[wish.said] if wish.said else [],
                    new=new,
                    settings=kept,
                )
        except StoreUnavailable:  # perhaps it has begun, and only the word of it was lost
            await self._writer.end(place, None)
            raise
        feed = Feed(self._detached.shelf, intent.id, id_, owner)
        heard = -1 if last is None else last.seq
        talk = Talk(owner, client, intent, begun.session, settings, feed, wish.token_budget, heard, self._counted)
        intent.told = partial(self._stopped, talk)
        return talk, rounds(settings, wish.turns, last.name if last else None)

    async def _last_answer(self, owner: str, session: Session) -> tuple[Message | None, Message | None]:
        """The last message that is shown, and the last of them that is an answer."""
        leaf: Message | None = None
        at = session.leaf
        while at is not None:
            page = await self._store.messages.history(owner, session.id, at, PAGE)
            leaf = leaf or page[-1]
            for message in reversed(page):
                if message.role is Role.ASSISTANT:
                    return leaf, message
            at = page[0].parent
        return leaf, None

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


def _tell(ready: "asyncio.Future[Running]", what: Running | CorralError) -> None:
    """Unless nobody waits for it any more."""
    if ready.done():
        return
    if isinstance(what, CorralError):
        ready.set_exception(what)
    else:
        ready.set_result(what)


def _title(said: NewMessage | None) -> str:
    lines = said.content.split("\n") if said else []
    line = next((line.strip() for line in lines if line.strip()), "")
    return line if len(line) <= TITLE_LENGTH else line[: TITLE_LENGTH - 1] + "…"
