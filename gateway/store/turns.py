"""Turns: who asks, and the answer while it is written. Each step is one transaction, so that a crash leaves whole steps.

    begin           what is said and empty answers (``streaming``) are in the session, and the session is claimed: one turn, or one conversation
                    with all its turns, at a time
    checkpoint      what there is of the answer, about once a second
    finish_turn     the answer as it ended; the claim is released
    give_up         the claim is released, whatever was not finished
    break_off       the same, with what a process left when it died

``finish_turn`` may be tried again after an unknown outcome, and is right even where a gateway was taken for dead. A session can be deleted
meanwhile: the turn finds it gone. How one is asked to stop: ``replicas.py``.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec
from msgspec import UNSET, UnsetType
from sqlalchemy import ColumnElement, Row, insert, literal, literal_column, or_, select, true, update
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.errors import BadRequest, Conflict, NotFound, TooLarge
from gateway.messages import (
    CONTENT_MOST,
    CONVERSATION,
    MESSAGES_MOST,
    SESSION_MOST,
    Ending,
    Message,
    MessageState,
    NewMessage,
    Role,
    Session,
    clean,
)
from gateway.store.none import Store
from gateway.store.rows import found, message_of, message_values, session_of, session_values, size
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


class Answering(NamedTuple):
    """An answer that is to be. ``name``: the participant who gives it."""

    generation: str
    model: str | None
    name: str | None


@dataclass(frozen=True, slots=True)
class Begun:
    """What has begun. ``asked``: the numbers of what was said; ``parent``: the last message before ``answers``, which are numbers, too."""

    session: Session
    asked: tuple[int, ...]
    parent: int | None
    answers: tuple[int, ...]


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
    ) -> Turn:
        """Claim the session, append what is said and begin the answer; that branch is shown from now on.

        ``parent``: the message to follow, for another branch (None: from the very beginning); else the last one that is shown. Nothing
        ``said``: the answer to what is there, again or for the first time. Raises as ``begin``.
        """
        answers = [Answering(generation, model, None)]
        begun = await self.begin(
            owner, id_, claim=generation, replica=replica, said=said, parent=parent, answers=answers
        )
        return Turn(begun.session, begun.asked, begun.parent, begun.answers[0])

    async def begin(
        self,
        owner: str,
        id_: str,
        *,
        claim: str,
        replica: str,
        held: bool = False,
        said: Sequence[NewMessage] = (),
        parent: int | UnsetType | None = UNSET,
        answers: Sequence[Answering] = (),
        new: Mapping[str, Any] | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> Begun:
        """Claim the session for ``claim``, a generation or a conversation, append what is said and begin ``answers``, one behind the other.

        ``held``: it has the claim already; ``new``: the session's row, where it is made only now; ``settings``: it is a conversation with these
        from now on. Raises NotFound, Conflict (somebody answers already), BadRequest (no such parent), TooLarge (the
        session is full).
        """
        now = self._now()
        async with self._database.writing() as connection:
            if new is not None:
                await connection.execute(insert(sessions).values(new))
            row = await found(connection, owner, id_, lock=True)
            if row.running is not None and not (held and row.running == claim):
                raise _busy(row)
            last = row.leaf if parent is UNSET else await _existing(connection, id_, parent)
            added = [message_values(message) | {"state": MessageState.DONE} for message in said]
            grown = row.size + sum(map(size, added))
            _fits(row.next_seq + len(added) + len(answers), grown)
            before = last if not added else row.next_seq + len(added) - 1
            seq = row.next_seq
            for values in [*added, *map(_begun, answers)]:
                place = {"session_id": id_, "seq": seq, "parent": last, "created_us": now, "updated_us": now}
                await connection.execute(insert(messages).values(place | values))
                last, seq = seq, seq + 1
            claimed = {"running": claim, "replica": replica, "updated_us": now}
            if settings is not None:
                claimed |= {"kind": CONVERSATION, **session_values({"settings": settings})}
            written = {"leaf": last, "next_seq": seq, "size": grown}
            changed = update(sessions).where(sessions.c.id == id_).values(claimed | written).returning(sessions)
            session = session_of((await connection.execute(changed)).one())
        first = row.next_seq + len(added)
        return Begun(session, tuple(range(row.next_seq, first)), before, tuple(range(first, seq)))

    async def say(self, owner: str, id_: str, said: NewMessage) -> Message:
        """Append what the user says, and let nobody answer; into a conversation also while it runs. Raises NotFound, Conflict (somebody answers), TooLarge."""
        now = self._now()
        values = message_values(said) | {"state": MessageState.DONE, "created_us": now, "updated_us": now}
        async with self._database.writing() as connection:
            row = await found(connection, owner, id_, lock=True)
            if row.running is not None and row.kind != CONVERSATION:
                raise _busy(row)
            grown = row.size + size(values)
            _fits(row.next_seq + 1, grown)
            place = {"session_id": id_, "seq": row.next_seq, "parent": row.leaf}
            message = message_of(
                (await connection.execute(insert(messages).values(place | values).returning(messages))).one()
            )
            written = {"leaf": row.next_seq, "next_seq": row.next_seq + 1, "size": grown, "updated_us": now}
            await connection.execute(update(sessions).where(sessions.c.id == id_).values(written))
        return message

    async def checkpoint(
        self,
        owner: str,
        id_: str,
        answer: int,
        generation: str,
        *,
        content: str,
        thinking: str | None = None,
        claim: str = "",
    ) -> bool:
        """Keep what there is of an answer. ``claim``: of the conversation that it is a turn of. False: nobody waits for it any more, as the
        claim was taken away. Raises NotFound: nor ever will."""
        values = {"content": clean(content[:CONTENT_MOST]), "thinking": thinking and clean(thinking[:CONTENT_MOST])}
        async with self._database.writing() as connection:
            running = await _running(connection, owner, id_)
            if running is None:
                raise NotFound(f"session {id_} was deleted")
            return running == (claim or generation) and await self._write(connection, id_, answer, generation, values)

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

    async def give_up(self, owner: str, id_: str, claim: str, error: str) -> bool:
        """Leave what is not answered as it is, as what broke off, and release the claim; False where it is somebody else's."""
        async with self._database.writing() as connection:
            if await _running(connection, owner, id_) != claim:
                return False
            begun = update(messages).where(messages.c.session_id == id_, messages.c.state == MessageState.STREAMING)
            ended = {"state": MessageState.ERROR, "error": error, "updated_us": self._now()}
            await connection.execute(begun.values(ended))
            released = update(sessions).where(sessions.c.id == id_)
            await connection.execute(released.values(running=None, replica=None, updated_us=self._now()))
        return True

    async def break_off(self, before: float, *, alone: bool = False) -> int:
        """Release what was claimed before then (Unix seconds) by gateways that are gone, and end what they were answering; how many claims.

        Gone is who has not been seen for ABSENT_SECONDS among those that share the database; where none does (``alone``), everybody.
        """
        moment = literal(int(self._wall() * 1e6)) if self._database.sqlite else _CLOCK_US
        there = select(replicas.c.id).where(replicas.c.seen_us > moment - int(ABSENT_SECONDS * 1e6))
        wanted = select(sessions.c.id).where(
            sessions.c.running.is_not(None),
            true() if alone else sessions.c.replica.not_in(there),
            sessions.c.updated_us < int(before * 1e6),
        )
        ended = {"state": MessageState.ERROR, "error": BROKEN_OFF, "updated_us": self._now()}
        async with self._database.writing() as connection:
            left = (await connection.execute(wanted.order_by(sessions.c.id).with_for_update())).scalars().all()
            for id_ in left:
                begun = update(messages).where(messages.c.session_id == id_, messages.c.state == MessageState.STREAMING)
                await connection.execute(begun.values(ended))
                released = update(sessions).where(sessions.c.id == id_)
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


def _busy(row: Row[Any]) -> Conflict:
    who = "conversation" if row.kind == CONVERSATION else "generation"
    return Conflict(f"session {row.id} is being answered, by {who} {row.running}", generation=row.running)


def _begun(answer: Answering) -> dict[str, Any]:
    values = message_values(NewMessage(content="", role=Role.ASSISTANT, name=answer.name))
    return values | {
        "model": answer.model and clean(answer.model),
        "generation": answer.generation,
        "state": MessageState.STREAMING,
    }


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
