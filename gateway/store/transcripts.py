"""Whole sessions: read to be exported, and written as they come from elsewhere."""

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import insert, select

from gateway.errors import TooLarge
from gateway.messages import SESSION_MOST, NewSession, Session
from gateway.store.none import Store
from gateway.store.rows import found, message_values, messages_of, microseconds, session_of, size
from gateway.store.schema import messages, sessions
from gateway.store.sessions import Sessions
from gateway.transcripts import Import, Transcript

ROWS = 500  # a statement


class Transcripts:
    """Exports and imports. All raise StoreUnavailable."""

    def __init__(self, database: Store, kept: Sessions) -> None:
        self._database = database
        self._sessions = kept

    async def export(self, owner: str, id_: str) -> Transcript:
        """A session and all its messages. Raises NotFound."""
        wanted = select(messages).where(messages.c.session_id == id_).order_by(messages.c.seq)
        async with self._database.reading() as connection:
            session = session_of(await found(connection, owner, id_))
            rows = (await connection.execute(wanted)).all()
        return Transcript(session=session, messages=await messages_of(rows))

    async def bring_in(self, owner: str, imports: Sequence[Import]) -> list[Session]:
        """Keep them all, or none. Raises TooLarge, BadRequest."""
        read = await asyncio.to_thread(lambda: [self._rows(owner, one) for one in imports])
        made = [session for session, _ in read]
        said = [row for _, rows in read for row in rows]
        if sum(session["size"] for session in made) > SESSION_MOST:
            raise TooLarge(f"the import has over {SESSION_MOST} characters: split it")
        async with self._database.writing() as connection:
            for table, rows in ((sessions, made), (messages, said)):
                for start in range(0, len(rows), ROWS):
                    await connection.execute(insert(table), rows[start : start + ROWS])
            wanted = select(sessions).where(sessions.c.id.in_([session["id"] for session in made]))
            kept = {row.id: session_of(row) for row in await connection.execute(wanted)}
        return [kept[session["id"]] for session in made]

    def _rows(self, owner: str, one: Import) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        told = one.session
        new = NewSession(
            title=told.title,
            model=told.model,
            host=told.host,
            system=told.system,
            options=told.options,
            pinned=told.pinned,
            archived=told.archived,
        )
        settings = None if told.settings is None else msgspec.to_builtins(told.settings)
        session = self._sessions.values(owner, new, told.kind, settings)
        rows = [message_values(message) | {"session_id": session["id"]} for message in one.messages]
        session |= {"next_seq": len(rows), "leaf": told.leaf, "size": sum(map(size, rows))}
        session |= {"created_us": microseconds(told.created_at), "updated_us": microseconds(told.updated_at)}
        return session, rows
