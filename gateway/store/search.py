"""Search over titles and what was said: all words, the last of which may go on, whatever their case. What streams is not yet found."""

from datetime import datetime
from typing import Annotated

import msgspec
from sqlalchemy import ColumnElement, Integer, Text, column, func, literal_column, select, table

from gateway.doc import doc
from gateway.excerpts import Excerpt, excerpt, folded, words
from gateway.messages import Role, Session
from gateway.store.none import Store
from gateway.store.rows import moment, session_of
from gateway.store.schema import messages, sessions

LOOKED_AT = 200_000  # characters of a message; PostgreSQL finds no word beyond

_FTS = table("messages_fts", column("rowid", Integer), column("messages_fts", Text))
_SIMPLE: ColumnElement[str] = literal_column("'simple'")


class Hit(msgspec.Struct, frozen=True, kw_only=True):
    """A message that was found."""

    session: Annotated[str, doc("the session's id")]
    title: Annotated[str, doc("the session's title")]
    kind: Annotated[str, doc("`chat`, or `conversation`: of several models")]
    seq: Annotated[int, doc("the message's number")]
    role: Annotated[Role, doc("who said it")]
    excerpt: Annotated[Excerpt, doc("what stands around the first word that was found")]
    created_at: Annotated[datetime, doc("when it was begun")]


class Search:
    """Finds things in the sessions of one owner. All raise StoreUnavailable, and BadRequest for a query without words."""

    def __init__(self, database: Store) -> None:
        self._database = database

    async def titles(self, owner: str, query: str, limit: int) -> list[Session]:
        """Sessions whose title has the words, what was written to last first."""
        wanted = select(sessions).where(sessions.c.owner == owner, sessions.c.erase_us.is_(None), *titled(query))
        wanted = wanted.order_by(sessions.c.updated_us.desc(), sessions.c.id.desc()).limit(limit)
        async with self._database.reading() as connection:
            return [session_of(row) for row in await connection.execute(wanted)]

    async def messages(self, owner: str, query: str, before: int | None, limit: int) -> tuple[list[Hit], int | None]:
        """Messages that have the words, the newest first; and where to go on (``before``), if there are more."""
        wanted_words = words(query)
        wanted = (
            select(
                messages.c.id,
                messages.c.session_id,
                sessions.c.title,
                sessions.c.kind,
                messages.c.seq,
                messages.c.role,
                func.substr(messages.c.content, 1, LOOKED_AT).label("content"),
                messages.c.created_us,
            )
            .join(sessions, sessions.c.id == messages.c.session_id)
            .where(
                sessions.c.owner == owner,
                sessions.c.erase_us.is_(None),
                messages.c.state != literal_column("'streaming'"),
            )
        )
        if self._database.sqlite:
            wanted = wanted.join(_FTS, _FTS.c.rowid == messages.c.id).where(_fts5(wanted_words))
            at: ColumnElement[int] = _FTS.c.rowid  # in whose order FTS5 finds things: it stops when the page is full
        else:
            wanted = wanted.where(_tsquery(wanted_words))
            at = (
                messages.c.id + 0
            )  # else PostgreSQL reads all messages from the last one on: 17 s where none of 100,000 has the word
        if before is not None:
            wanted = wanted.where(at < before)
        async with self._database.reading() as connection:
            rows = (await connection.execute(wanted.order_by(at.desc()).limit(limit + 1))).all()
        hits = [
            Hit(
                session=row.session_id,
                title=row.title,
                kind=row.kind,
                seq=row.seq,
                role=Role(row.role),
                excerpt=excerpt(row.content, wanted_words),
                created_at=moment(row.created_us),
            )
            for row in rows[:limit]
        ]
        return hits, rows[limit - 1].id if len(rows) > limit else None


def titled(query: str) -> list[ColumnElement[bool]]:
    """Sessions whose title has all words, the last of which may go on. Raises BadRequest for a query without words."""
    *whole, last = (folded(word).strip() for word in words(query))
    return [sessions.c.title_words.like(pattern) for pattern in (*(f"% {word} %" for word in whole), f"% {last}%")]


def _fts5(wanted: list[str]) -> ColumnElement[bool]:
    """Each word in quotes, so that none is an operator."""
    return _FTS.c.messages_fts.op("MATCH")(" ".join(f'"{word}"' for word in wanted) + "*")


def _tsquery(wanted: list[str]) -> ColumnElement[bool]:
    """The words go the way of the text, which leaves nothing that could be an operator; and never to the planner as an empty query."""
    there = func.nullif(func.btrim(func.corral_words(" ".join(wanted))), "")
    query = func.to_tsquery(_SIMPLE, func.replace(there, " ", " & ").concat(":*"))
    return func.to_tsvector(_SIMPLE, func.corral_words(messages.c.content)).op("@@")(query)
