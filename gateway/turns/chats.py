"""A turn: what is said is kept, the session is claimed, a generation answers to all that fits into its context, and the answer is kept.

It runs as a task of the gateway's own, so that no step is left half done when its caller leaves. What can happen:

1. It cannot begin (no such session, somebody answers already, the session is full): the caller is told, nothing is kept.
2. It begins, and no host will have it: the question is kept, with an answer that says why; the caller is told.
3. It is answered: whole, or as far as it came when it was stopped or broke off.
4. The database is lost on the way: the caller's stream goes on, and the end is written when it is back (``writer.py``).
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec
from msgspec import UNSET, UnsetType

from gateway.errors import BadRequest, CorralError, ShuttingDown, StoreUnavailable, internal
from gateway.fleet.registry import Fleet
from gateway.messages import NewMessage, Role
from gateway.record import CancelSource
from gateway.relay.detached import Detached
from gateway.relay.generations import Generations
from gateway.relay.intents import Intent
from gateway.relay.kept import KeptAnswer
from gateway.store.session_store import SessionStore
from gateway.store.turns import Turn
from gateway.tasks import Tasks
from gateway.turns.aside import Aside
from gateway.turns.busy import Busy
from gateway.turns.history import Window, context_of
from gateway.turns.reading import fill
from gateway.turns.spoken import Spoken, refused
from gateway.turns.writer import Place, Writer

NO_MODEL = "model: name one, here or in the session"
NOTHING = "there is nothing to answer: say something"


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked. ``said`` None: what was asked before is answered again. ``parent`` as ``Turns.begin_turn`` has it.

    ``options`` go over the session's; ``fields`` are others of ``/api/chat``.
    """

    said: NewMessage | None
    parent: int | UnsetType | None = UNSET
    model: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    fields: Mapping[str, Any] = field(default_factory=dict)


class Begun(NamedTuple):
    """A turn that is being answered."""

    turn: Turn
    answer: KeptAnswer


class Chats:
    """Runs turns. ``name`` is this gateway's; ``context_tokens``: a model's context where nothing tells of it;
    ``answered(owner, session)`` is told of each answer that has ended."""

    def __init__(
        self,
        store: SessionStore,
        detached: Detached,
        generations: Generations,
        fleet: Fleet,
        tasks: Tasks,
        name: str,
        context_tokens: int,
        answered: Callable[[str, str], None],
    ) -> None:
        self._store = store
        self._detached = detached
        self._generations = generations
        self._fleet = fleet
        self._tasks = tasks
        self._name = name
        self._context_tokens = context_tokens
        self._answered = answered
        self.writer = Writer(store.turns, generations.clock, tasks)
        self.busy = Busy()
        self.aside = Aside()

    def __repr__(self) -> str:
        return f"<Chats [{len(self.busy)} being kept]>"

    async def ask(self, owner: str, session: str, question: Question, client: str = "") -> Begun:
        """Begin a turn; its answer can be read from now on. Raises CorralError if it cannot be; a caller who leaves meanwhile stops it."""
        if self._detached.draining:
            raise ShuttingDown("the gateway is shutting down", retry_after=5.0)
        ready: asyncio.Future[Begun] = self._generations.loop.create_future()
        intent = self._generations.intend(self._detached.fresh_id(), session, owner)
        run = self._run(_Asked(owner, session, question, client, intent), ready)
        self._tasks.spawn(f"turn {intent.id}", run)
        try:
            return await ready
        except asyncio.CancelledError:
            intent.stop(CancelSource.CLIENT, "the client left")
            self.left(intent.id)
            raise

    def left(self, generation: str) -> None:
        """Its caller has left, and it was not to run on without."""
        self._generations.stop_named(generation, CancelSource.CLIENT, "the client left")

    async def _run(self, asked: "_Asked", ready: "asyncio.Future[Begun]") -> None:
        try:
            with self.busy, self.writer.releasing(asked.place(None)):
                with asked.intent:
                    begun = await self._begun(asked)
                _tell(ready, begun)
                await self.writer.write(asked.place(begun.turn.answer), begun.answer, Spoken())
            self._answered(asked.owner, asked.session)
        except CorralError as error:
            _tell(ready, error)
        finally:
            _tell(ready, internal())

    async def _begun(self, asked: "_Asked") -> Begun:
        turn = await self._claimed(asked)
        try:
            body = await self._body(asked, turn)
            answer = await self._detached.ask(
                "/api/chat",
                body,
                session=asked.session,
                pin=turn.session.host or "",
                client=asked.client,
                principal=asked.owner,
                id_=asked.intent.id,
            )
        except CorralError as error:
            await self.writer.end(asked.place(turn.answer), refused(error))
            raise
        return Begun(turn, answer)

    async def _claimed(self, asked: "_Asked") -> Turn:
        """The turn has begun in the database. Raises NotFound, Conflict, BadRequest, TooLarge, StoreUnavailable."""
        question, session = asked.question, await self._store.sessions.get(asked.owner, asked.session)
        model = question.model or session.model
        if not model:
            raise BadRequest(NO_MODEL)
        parent = question.parent if question.said else await self._answered_before(asked)
        try:
            return await self._store.turns.begin_turn(
                asked.owner,
                asked.session,
                generation=asked.intent.id,
                replica=self._name,
                said=[question.said] if question.said else (),
                parent=parent,
                model=model,
            )
        except StoreUnavailable:  # perhaps it has begun, and only the word of it was lost
            await self.writer.end(asked.place(None), None)
            raise

    async def _answered_before(self, asked: "_Asked") -> int:
        """The message that is to be answered, again or for the first time."""
        parent = asked.question.parent
        if isinstance(parent, UnsetType):
            last = await self._store.messages.history(asked.owner, asked.session, limit=1)
            parent = None if not last else last[0].parent if last[0].role is Role.ASSISTANT else last[0].seq
        if parent is None:
            raise BadRequest(NOTHING)
        return parent

    async def _body(self, asked: "_Asked", turn: Turn) -> bytes:
        session, question = turn.session, asked.question
        model, options = question.model or session.model or "", {**session.options, **question.options}
        snapshot = self._fleet.snapshot(self._generations.clock())
        context = context_of(options, model, session.host or "", snapshot, self._context_tokens)
        window = Window(context, options, session.system)
        await fill(window, self.aside, self._store.messages, asked.owner, asked.session, turn.parent)
        given = {"model": model, "stream": True, **question.fields} | ({"options": options} if options else {})
        return await self.aside.do(lambda: msgspec.json.encode(given | {"messages": window.messages()}))


class _Asked(NamedTuple):
    """A question on its way."""

    owner: str
    session: str
    question: Question
    client: str
    intent: Intent

    def place(self, answer: int | None) -> Place:
        return Place(self.owner, self.session, self.intent.id, answer)


def _tell(ready: "asyncio.Future[Begun]", what: Begun | CorralError) -> None:
    """Unless nobody waits for it any more."""
    if ready.done():
        return
    if isinstance(what, CorralError):
        ready.set_exception(what)
    else:
        ready.set_result(what)
