"""Titles of sessions, made by a model of how they begin. They run in the background: only where a slot is free that nobody else waits for.

Made by themselves (``sessions.title_model``), one after the other, for sessions that have an answer and no title; what takes longer than
PATIENCE_SECONDS is left, until the session's next answer.
"""

import asyncio
import logging
import re
from collections import deque

import msgspec

from gateway.errors import BadRequest, CorralError, DeadlineExceeded, HostsFailed
from gateway.messages import Message, Role, Session, SessionChanges
from gateway.record import CancelSource, Outcome
from gateway.relay.detached import Detached
from gateway.relay.failures import broken_off
from gateway.relay.generations import Generations
from gateway.store.session_store import SessionStore
from gateway.tasks import Tasks
from gateway.telemetry.context import current
from gateway.turns.history import written
from gateway.turns.spoken import Spoken

PATIENCE_SECONDS = 120.0
WAITING_MOST = 100
BEGINNING = 4  # messages that are shown to the model
EXCERPT = 1_000  # characters of each
TITLE_TOKENS = 200  # some models think before
LONGEST = 100
ASK = (
    "Give the conversation above a title of at most six words, in the language in which it is held. Answer with the title alone: no quotation"
    " marks, no explanation."
)
_THOUGHT = re.compile(r"<think>.*?(</think>|\Z)", re.DOTALL)
_LABEL = re.compile(r"(?i)\s*(title|заголовок|название)\s*:\s*")

log = logging.getLogger(__name__)


class Titles:
    """``model``: the one that makes titles unasked; empty: none are."""

    def __init__(
        self, store: SessionStore, detached: Detached, generations: Generations, tasks: Tasks, model: str
    ) -> None:
        self._store = store
        self._detached = detached
        self._generations = generations
        self._tasks = tasks
        self._model = model
        self._waiting: deque[tuple[str, str]] = deque()
        self._running = False

    def __repr__(self) -> str:
        return f"<Titles [{len(self._waiting)} waiting]>"

    def answered(self, owner: str, session: str) -> None:
        """A session got an answer: it may want a title."""
        if not self._model or (owner, session) in self._waiting or len(self._waiting) >= WAITING_MOST:
            return
        self._waiting.append((owner, session))
        if not self._running:
            self._running = True
            self._tasks.spawn("titles", self._by_themselves())

    async def _by_themselves(self) -> None:
        current.set(None)  # for many, not for the request that was the first
        try:
            while self._waiting:
                await self._one(*self._waiting.popleft())
        finally:
            self._running = False

    async def _one(self, owner: str, id_: str) -> None:
        try:
            if not (session := await self._store.sessions.get(owner, id_)).title:
                await self._made(owner, session, self._model, PATIENCE_SECONDS, over="")
        except CorralError as error:
            log.info("session %s gets no title now: %s", id_, error.message)

    async def make(self, owner: str, id_: str, model: str | None) -> Session:
        """Title a session anew, by ``model``, else the configured one, else its own; as it is then. Raises CorralError."""
        session = await self._store.sessions.get(owner, id_)
        by = model or self._model or session.model
        if not by:
            raise BadRequest("model: name one, here or in the session")
        return await self._made(owner, session, by, None, over=None)

    async def _made(
        self, owner: str, session: Session, model: str, patience: float | None, *, over: str | None
    ) -> Session:
        beginning = await self._beginning(owner, session.id)
        if not any(message.role is Role.USER for message in beginning):
            raise BadRequest("there is nothing to make a title of: say something first")
        title = await self._told(owner, session, model, beginning, patience)
        if over is not None and (await self._store.sessions.get(owner, session.id)).title != over:
            return session  # somebody named it meanwhile
        return await self._store.sessions.change(owner, session.id, SessionChanges(title=title))

    async def _beginning(self, owner: str, id_: str) -> list[Message]:
        branch = await self._store.messages.history(owner, id_, limit=200)
        told = [
            message for message in branch if message.content.strip() and message.role in (Role.USER, Role.ASSISTANT)
        ]
        return [
            msgspec.structs.replace(message, content=message.content[:EXCERPT], images=None, tool_calls=None)
            for message in told[:BEGINNING]
        ]

    async def _told(
        self, owner: str, session: Session, model: str, beginning: list[Message], patience: float | None
    ) -> str:
        messages = [*written(beginning), {"role": "user", "content": ASK}]
        options = {"num_predict": TITLE_TOKENS, "temperature": 0.2}
        body = msgspec.json.encode({"model": model, "messages": messages, "think": False, "options": options})
        answer = await self._detached.ask(
            "/api/chat", body, session=session.id, principal=owner, background=True, keep=False
        )
        spoken, why = Spoken(), (CancelSource.CLIENT, "the client left")
        try:
            async with asyncio.timeout(patience):
                with answer.reader() as reader:
                    async for batch in reader:
                        for chunk in batch.chunks:
                            spoken.take(chunk)
        except TimeoutError:
            why = (CancelSource.DEADLINE, "no slot was free for a title")
            raise DeadlineExceeded(why[1]) from None
        finally:
            self._generations.stop_named(answer.id, *why)
        if answer.error is not None:
            raise answer.error
        assert answer.record is not None
        if answer.record.outcome is not Outcome.OK:
            raise broken_off(answer.record)
        return title_of(spoken.content)


def title_of(text: str) -> str:
    """What a model said, as a title: its first line, without what models put around one. Raises HostsFailed if nothing is left."""
    lines = [line.strip() for line in _THOUGHT.sub("", text).splitlines() if line.strip()]
    line = _LABEL.sub("", lines[0], count=1) if lines else ""
    title = " ".join(line.strip("#*_`\"'«»“”„‘’ \t").split())
    if not title:
        raise HostsFailed("the model gave no title")
    return title[:LONGEST].rstrip(" .")
