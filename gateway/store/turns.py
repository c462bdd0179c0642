"""Turns: who asks, and the answer while it is written. Each step is one transaction, so that a crash leaves whole steps.

    begin_turn      what is said and an empty answer (``streaming``) are in the session, and the session is claimed: one turn at a time
    checkpoint      what there is of the answer, about once a second
    finish_turn     the answer as it ended; the claim is released
    break_off       what a process left ``streaming`` when it died ends as an error, and its claims are released

``finish_turn`` may be tried again after an unknown outcome, and is right even where a gateway was taken for dead. A session can be deleted
meanwhile: the turn finds it gone. How one is asked to stop: ``replicas.py``.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType
from sqlalchemy import ColumnElement, insert, literal, literal_column, or_, select, true, update
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.errors import BadRequest, Conflict, TooLarge
from gateway.messages import (
    CONTENT_MOST,
    MESSAGES_MOST,
    SESSION_MOST,
    Ending,
    MessageState,
    NewMessage,
    Role,
    Session,
    clean,
)
from gateway.store.none import Store
from gateway.store.rows import found, message_values, session_of, size
from gateway.store.schema import messages, replicas, sessions

ABSENT_SECONDS = 30.0  # far longer than a gateway that lives is ever silent (replicas.py)
BROKEN_OFF = "broken off: the gateway that wrote it has stopped"
CUT = f"the answer is longer than {CONTENT_MOST} characters; the rest was not kept"
_CLOCK_US: ColumnElement[int] = literal_column("(extract(epoch FROM clock_timestamp()) * 1000000)::bigint")


@dataclass(frozen=True, slots=True)
class Turn:
    """A turn that has begun. ``asked``: the numbers of what was said; ``parent``: the last message before the answer."""

    session: Session
    asked: tuple[int, ...]
    parent: int | None
    answer: int


class Turns:
    """The turns of all owners' sessions. ``wall``: Unix seconds. All raise StoreUnavailable."""

    def __init__(self, database: Store, wall: Callable[[], float]) -> None:
        self._database = database
        self._wall = wall

    async def begin_turn(
        self,
        owner: str,
        id_: str,
        *,
        generation: str,
        replica: str,
        said: Sequence[NewMessage] = (),
        parent: int | UnsetType | None = UNSET,
        model: str | None = None,
        name: str | None = None,
    ) -> Turn:
        """Claim the session, append what is said and begin the answer; that branch is shown from now on.

        ``parent``: the message to follow, for another branch (None: from the very beginning); else the last one that is shown. Nothing
        ``said``: the answer to what is there, again or for the first time. ``name``: the participant who answers. Raises NotFound, Conflict
        (somebody answers already), BadRequest (no such parent), TooLarge (the session is full).
        """
        now = self._now()
        async with self._database.writing() as connection:
            row = await found(connection, owner, id_, lock=True)
            if row.running is not None:
                why = f"session {id_} is being answered, by generation {row.running}"
                raise Conflict(why, generation=row.running)
            last = row.leaf if parent is UNSET else await _existing(connection, id_, parent)
            added = [message_values(message) for message in said]
            grown = row.size + sum(map(size, added))
            _fits(row.next_seq + len(added) + 1, grown)
            answer = message_values(NewMessage(content="", role=Role.ASSISTANT, name=name))
            answer |= {"model": model, "generation": generation, "state": MessageState.STREAMING}
            times = {"session_id": id_, "created_us": now, "updated_us": now}
            for seq, values in enumerate([*added, answer], row.next_seq):
                done = {"seq": seq, "parent": last, "state": MessageState.DONE}
                await connection.execute(insert(messages).values(times | done | values))
                last = seq
            claimed = {"running": generation, "replica": replica, "updated_us": now}
            written = {"leaf": last, "next_seq": seq + 1, "size": grown}
            changed = update(sessions).where(sessions.c.id == id_).values(claimed | written).returning(sessions)
            session = session_of((await connection.execute(changed)).one())
        asked = tuple(range(row.next_seq, seq))
        before = asked[-1] if asked else (row.leaf if parent is UNSET else parent)
        return Turn(session, asked, before, seq)

    async def checkpoint(
        self, owner: str, id_: str, answer: int, generation: str, *, content: str, thinking: str | None = None
    ) -> bool:
        """Keep what there is of an answer. False: nobody waits for it any more, as the session was deleted or the claim taken away."""
        values = {"content": clean(content[:CONTENT_MOST]), "thinking": thinking and clean(thinking[:CONTENT_MOST])}
        async with self._database.writing() as connection:
            running = await _running(connection, owner, id_)
            return running == generation and await self._write(connection, id_, answer, generation, values)

    async def finish_turn(self, owner: str, id_: str, answer: int, generation: str, ending: Ending) -> bool:
        """Keep the answer and release the claim; False where there is nothing (any more) to finish."""
        values = message_values(_cut(ending))
        if ending.model is None:
            del values["model"]  # it stays the one that was asked
        async with self._database.writing() as connection:
            running = await _running(connection, owner, id_)
            if running is None or not await self._write(connection, id_, answer, generation, values):
                return False
            grown = {"size": sessions.c.size + size(values), "updated_us": self._now()}
            released = {"running": None, "replica": None} if running == generation else {}
            await connection.execute(update(sessions).where(sessions.c.id == id_).values(grown | released))
        return True

    async def give_up(self, owner: str, id_: str, generation: str, error: str) -> bool:
        """Leave an answer as it is, as one that broke off, and release the claim; False where this generation has begun nothing here."""
        async with self._database.writing() as connection:
            if await _running(connection, owner, id_) != generation:
                return False
            here = (messages.c.session_id == id_, messages.c.generation == generation)
            begun = update(messages).where(*here, messages.c.state == MessageState.STREAMING)
            ended = {"state": MessageState.ERROR, "error": error, "updated_us": self._now()}
            await connection.execute(begun.values(ended))
            released = update(sessions).where(sessions.c.id == id_)
            await connection.execute(released.values(running=None, replica=None, updated_us=self._now()))
        return True

    async def break_off(self, before: float, *, alone: bool = False) -> int:
        """End what was begun before then (Unix seconds) by gateways that are gone; how many answers.

        Gone is who has not been seen for ABSENT_SECONDS among those that share the database; where none does (``alone``), everybody.
        """
        moment = literal(int(self._wall() * 1e6)) if self._database.sqlite else _CLOCK_US
        there = select(replicas.c.id).where(replicas.c.seen_us > moment - int(ABSENT_SECONDS * 1e6))
        wanted = (
            select(sessions.c.id, sessions.c.running, messages.c.seq)
            .join(messages, (messages.c.session_id == sessions.c.id) & (messages.c.generation == sessions.c.running))
            .where(sessions.c.running.is_not(None), true() if alone else sessions.c.replica.not_in(there))
            .where(messages.c.state == MessageState.STREAMING, messages.c.created_us < int(before * 1e6))
        )
        ended = {"state": MessageState.ERROR, "error": BROKEN_OFF}
        async with self._database.writing() as connection:
            left = (await connection.execute(wanted.order_by(sessions.c.id).with_for_update())).all()
            for row in left:
                await self._write(connection, row.id, row.seq, row.running, ended)
                released = update(sessions).where(sessions.c.id == row.id)
                await connection.execute(released.values(running=None, replica=None))
        return len(left)

    async def _write(
        self, connection: AsyncConnection, id_: str, seq: int, generation: str, values: dict[str, Any]
    ) -> bool:
        """Change an answer that has not ended; whether there is one."""
        changed = update(messages).where(
            messages.c.session_id == id_,
            messages.c.seq == seq,
            messages.c.generation == generation,
            or_(messages.c.state == MessageState.STREAMING, messages.c.error == BROKEN_OFF),
        )
        return bool((await connection.execute(changed.values(values | {"updated_us": self._now()}))).rowcount)

    def _now(self) -> int:
        return int(self._wall() * 1e6)


async def _existing(connection: AsyncConnection, id_: str, parent: int | None) -> int | None:
    if parent is not None:
        wanted = select(messages.c.seq).where(messages.c.session_id == id_, messages.c.seq == parent)
        if (await connection.execute(wanted)).one_or_none() is None:
            raise BadRequest(f"parent: there is no message {parent} in this session")
    return parent


async def _running(connection: AsyncConnection, owner: str, id_: str) -> str | None:
    """Which generation writes to a session, "" for none; locked. None: there is no such session."""
    wanted = select(sessions.c.running).where(sessions.c.id == id_, sessions.c.owner == owner).with_for_update()
    row = (await connection.execute(wanted)).one_or_none()
    return None if row is None else str(row.running or "")


def _fits(count: int, characters: int) -> None:
    if count > MESSAGES_MOST:
        raise TooLarge(f"the session is full: it has {MESSAGES_MOST} messages. Begin another one")
    if characters > SESSION_MOST:
        raise TooLarge(f"the session is full: all its messages have over {SESSION_MOST} characters. Begin another one")


def _cut(ending: Ending) -> Ending:
    """No longer than any message may be; and it says so."""
    thinking = ending.thinking or ""
    if max(len(ending.content), len(thinking)) <= CONTENT_MOST:
        return ending
    return msgspec.structs.replace(
        ending,
        content=ending.content[:CONTENT_MOST],
        thinking=thinking[:CONTENT_MOST] or None,
        error=ending.error or CUT,
    )
