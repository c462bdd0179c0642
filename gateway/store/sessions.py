"""Sessions: made, listed, changed, deleted and restored. Every question says whose they are.

Who deletes one may leave time to think again: it is found nowhere any more, but for the list of what is deleted, and erased when the time is over
(``retention.py``).
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec import UNSET
from sqlalchemy import ColumnElement, delete, func, insert, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.branches import newest_end
from gateway.errors import BadRequest, NotFound
from gateway.ids import new_id
from gateway.messages import NewSession, Session, SessionChanges
from gateway.store.none import Store
from gateway.store.rows import found, session_of, session_values
from gateway.store.schema import messages, sessions
from gateway.store.search import titled

BEGINS_MOST = 100  # characters
Place = tuple[bool, int, str]
"""Of a session in the list: pinned, updated_us, id."""


@dataclass(frozen=True, slots=True)
class Listed:
    """Which sessions. None: whatever; ``words``: of the title, all of them; ``deleted``: those that are, archived or not."""

    archived: bool = False
    deleted: bool = False
    pinned: bool | None = None
    model: str | None = None
    kind: str | None = None
    words: str = ""

    def conditions(self) -> list[ColumnElement[bool]]:
        """For a query. Raises BadRequest for words that are none."""
        asked: list[ColumnElement[bool]] = [sessions.c.erase_us.is_not(None)]
        if not self.deleted:
            asked = [sessions.c.erase_us.is_(None), sessions.c.archived == self.archived]
        for column, value in (
            (sessions.c.pinned, self.pinned),
            (sessions.c.model, self.model),
            (sessions.c.kind, self.kind),
        ):
            if value is not None:
                asked.append(column == value)
        return asked + (titled(self.words) if self.words else [])


_USUAL = Listed()
_BEGINS = (
    select(func.substr(messages.c.content, 1, BEGINS_MOST))
    .where(messages.c.session_id == sessions.c.id, messages.c.seq == 0)
    .scalar_subquery()
)


class Sessions:
    """The sessions of all owners. ``wall``: Unix seconds; ``rng`` makes ids that cannot be guessed. All raise StoreUnavailable."""

    def __init__(self, database: Store, wall: Callable[[], float], rng: random.Random) -> None:
        self._database = database
        self._wall = wall
        self._rng = rng

    async def create(
        self, owner: str, new: NewSession, *, kind: str = "chat", settings: dict[str, Any] | None = None
    ) -> Session:
        """A session without messages."""
        values = self.values(owner, new, kind, settings)
        async with self._database.writing() as connection:
            row = (await connection.execute(insert(sessions).values(values).returning(sessions))).one()
        return session_of(row)

    def values(self, owner: str, new: NewSession, kind: str, settings: dict[str, Any] | None) -> dict[str, Any]:
        """The row of a new session."""
        now = self._wall()
        return {
            **session_values(msgspec.structs.asdict(new) | {"settings": settings}),
            "id": new_id(now, self._rng.getrandbits(52)),
            "owner": owner,
            "kind": kind,
            "next_seq": 0,
            "size": 0,
            "created_us": int(now * 1e6),
            "updated_us": int(now * 1e6),
        }

    async def page(
        self, owner: str, which: Listed = _USUAL, *, after: Place | None = None, limit: int = 50
    ) -> tuple[list[Session], Place | None]:
        """Some sessions, pinned ones first, then what was written to last; and the place to go on after, if there are more. Raises
        BadRequest."""
        order = (sessions.c.pinned, sessions.c.updated_us, sessions.c.id)
        wanted = select(sessions, _BEGINS.label("begins")).where(sessions.c.owner == owner, *which.conditions())
        if after is not None:
            wanted = wanted.where(tuple_(*order) < tuple_(*after))
        wanted = wanted.order_by(*(column.desc() for column in order)).limit(limit + 1)
        async with self._database.reading() as connection:
            rows = (await connection.execute(wanted)).all()
        page = rows[:limit]
        last = page[-1] if len(rows) > limit else None
        told = [msgspec.structs.replace(session_of(row), begins=row.begins) for row in page]
        return told, (last.pinned, last.updated_us, last.id) if last else None

    async def get(self, owner: str, id_: str) -> Session:
        """One session. Raises NotFound."""
        async with self._database.reading() as connection:
            return session_of(await found(connection, owner, id_))

    async def change(self, owner: str, id_: str, changes: SessionChanges) -> Session:
        """Change what is set of ``changes``; the last writer wins. Raises NotFound, and BadRequest for a leaf that is not there."""
        given = {name: value for name, value in msgspec.structs.asdict(changes).items() if value is not UNSET}
        values = session_values(given)
        async with self._database.writing() as connection:
            row = await found(connection, owner, id_, lock=True)
            if not values:
                return session_of(row)
            if "leaf" in values:
                values["leaf"] = await self._end(connection, id_, values["leaf"])
            changed = update(sessions).where(sessions.c.id == id_).values(values).returning(sessions)
            return session_of((await connection.execute(changed)).one())

    async def _end(self, connection: AsyncConnection, id_: str, through: int) -> int:
        rows = await connection.execute(select(messages.c.seq, messages.c.parent).where(messages.c.session_id == id_))
        parents = {row.seq: row.parent for row in rows}
        if through not in parents:
            raise BadRequest(f"leaf: there is no message {through} in this session")
        return newest_end(parents, through)

    async def delete(self, owner: str, id_: str, restorable_seconds: float = 0.0) -> None:
        """Erase a session with all its messages; what writes to it now finds it gone. ``restorable_seconds``: only hide it, and erase it after
        that. One that is hidden can be deleted again, and then its time begins anew. Raises NotFound."""
        hidden = update(sessions).values(erase_us=self._now() + int(restorable_seconds * 1e6))
        async with self._database.writing() as connection:
            await found(connection, owner, id_, lock=True, deleted=True)
            gone = hidden if restorable_seconds else delete(sessions)
            await connection.execute(gone.where(sessions.c.id == id_))

    async def restore(self, owner: str, id_: str) -> Session:
        """Bring back one that was deleted; one that was not stays as it is. Raises NotFound, also where its time is over."""
        now = self._now()
        async with self._database.writing() as connection:
            row = await found(connection, owner, id_, lock=True, deleted=True)
            if row.erase_us is not None and row.erase_us <= now:
                raise NotFound(f"session {row.id!r} was deleted, and its time is over")
            back = update(sessions).where(sessions.c.id == row.id).values(erase_us=None).returning(sessions)
            return session_of((await connection.execute(back)).one())

    def _now(self) -> int:
        return int(self._wall() * 1e6)
