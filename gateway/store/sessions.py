"""Sessions: made, listed, changed, deleted. Every question says whose they are."""

import random
from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import UNSET
from sqlalchemy import delete, insert, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.branches import newest_end
from gateway.errors import BadRequest
from gateway.messages import NewSession, Session, SessionChanges
from gateway.record import new_id
from gateway.store.none import Store
from gateway.store.rows import found, session_of, session_values
from gateway.store.schema import messages, sessions

Place = tuple[bool, int, str]
"""Of a session in the list: pinned, updated_us, id."""


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
        self, owner: str, *, archived: bool = False, after: Place | None = None, limit: int = 50
    ) -> tuple[list[Session], Place | None]:
        """Some sessions, pinned ones first, then what was written to last; and the place to go on after, if there are more."""
        order = (sessions.c.pinned, sessions.c.updated_us, sessions.c.id)
        wanted = select(sessions).where(sessions.c.owner == owner, sessions.c.archived == archived)
        if after is not None:
            wanted = wanted.where(tuple_(*order) < tuple_(*after))
        wanted = wanted.order_by(*(column.desc() for column in order)).limit(limit + 1)
        async with self._database.reading() as connection:
            rows = (await connection.execute(wanted)).all()
        page = rows[:limit]
        last = page[-1] if len(rows) > limit else None
        return [session_of(row) for row in page], (last.pinned, last.updated_us, last.id) if last else None

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

    async def delete(self, owner: str, id_: str) -> None:
        """Erase a session with all its messages; what writes to it now finds it gone. Raises NotFound."""
        async with self._database.writing() as connection:
            await found(connection, owner, id_, lock=True)
            await connection.execute(delete(sessions).where(sessions.c.id == id_))
