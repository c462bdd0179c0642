"""Messages as they are read, branch by branch. Who writes them: ``turns.py`` answers, ``transcripts.py`` what comes from elsewhere."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, UnsetType
from sqlalchemy import Row, func, literal, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.branches import ends, fork, path
from gateway.doc import doc
from gateway.errors import BadRequest
from gateway.messages import MESSAGES_MOST, Message, Role
from gateway.store.none import Store
from gateway.store.rows import found, messages_of, moment
from gateway.store.schema import messages

BRANCHES_MOST = 200
PREVIEW = 100


class Branched(Message, frozen=True, kw_only=True):
    """One message of a session, and what else stands in its place."""

    siblings: Annotated[list[int], doc("the numbers of all messages with its parent, its own among them, oldest first")]


class History(msgspec.Struct, frozen=True, kw_only=True):
    """A branch, or the last part of one."""

    messages: Annotated[list[Branched], doc("oldest first")]
    leaf: Annotated[int | None, doc("the number of the last of them")]
    earlier: Annotated[
        int | None, doc("the message before the first of them: `?leaf=` asks for it and those before it")
    ]


class Branch(msgspec.Struct, frozen=True, kw_only=True):
    """One branch of a session."""

    leaf: Annotated[int, doc("the number of its last message; `PATCH` with it shows this branch")]
    shown: Annotated[bool, doc("whether it is the one that is shown")]
    forks_at: Annotated[int | None, doc("the last message that it shares with the shown one; null: not even the first")]
    messages: Annotated[int, doc("how many it has", ge=0)]
    role: Annotated[Role, doc("who speaks last")]
    preview: Annotated[str, doc("how its last message begins")]
    updated_at: Annotated[datetime, doc("when its last message was last written to")]


class Messages:
    """The messages of all owners' sessions. All raise StoreUnavailable, and NotFound for a session that is not there."""

    def __init__(self, database: Store) -> None:
        self._database = database

    async def history(
        self, owner: str, id_: str, leaf: int | UnsetType = UNSET, limit: int = MESSAGES_MOST
    ) -> list[Message]:
        """The last messages of the branch that ends with ``leaf`` (else of the one that is shown), oldest first. Raises BadRequest."""
        async with self._database.reading() as connection:
            rows = await self._branch(connection, owner, id_, leaf, limit)
        return await messages_of(rows)

    async def told(self, owner: str, id_: str, leaf: int | UnsetType = UNSET, limit: int = MESSAGES_MOST) -> History:
        """The same, with what else stands in each one's place."""
        async with self._database.reading() as connection:
            rows = await self._branch(connection, owner, id_, leaf, limit)
            siblings = await self._siblings(connection, id_, [row.parent for row in rows])
        return History(
            messages=[
                Branched(**msgspec.structs.asdict(message), siblings=siblings[message.parent])
                for message in await messages_of(rows)
            ],
            leaf=rows[-1].seq if rows else None,
            earlier=rows[0].parent if rows else None,
        )

    async def branches(self, owner: str, id_: str) -> list[Branch]:
        """Every branch, newest first; BRANCHES_MOST of them."""
        async with self._database.reading() as connection:
            leaf = (await found(connection, owner, id_)).leaf
            tree = await connection.execute(
                select(messages.c.seq, messages.c.parent).where(messages.c.session_id == id_)
            )
            parents: dict[int, int | None] = {row.seq: row.parent for row in tree}
            last = ends(parents)[:BRANCHES_MOST]
            rows = await connection.execute(
                select(
                    messages.c.seq,
                    messages.c.role,
                    func.substr(messages.c.content, 1, PREVIEW).label("preview"),
                    messages.c.updated_us,
                ).where(messages.c.session_id == id_, messages.c.seq.in_(last))
            )
            ending = {row.seq: row for row in rows}
        shown = frozenset() if leaf is None else frozenset(path(parents, leaf))
        return [
            Branch(
                leaf=seq,
                shown=seq == leaf,
                forks_at=fork(parents, seq, shown),
                messages=len(path(parents, seq)),
                role=Role(ending[seq].role),
                preview=ending[seq].preview,
                updated_at=moment(ending[seq].updated_us),
            )
            for seq in last
        ]

    async def _branch(
        self, connection: AsyncConnection, owner: str, id_: str, leaf: int | UnsetType, limit: int
    ) -> Sequence[Row[Any]]:
        """From the leaf up, by number alone; then what they say."""
        session = await found(connection, owner, id_)
        end = session.leaf if leaf is UNSET else leaf
        if end is None:
            return []
        here = (messages.c.session_id == id_,)
        top = (
            select(messages.c.seq, messages.c.parent, literal(1).label("depth"))
            .where(*here, messages.c.seq == end)
            .cte("branch", recursive=True)
        )
        above = select(messages.c.seq, messages.c.parent, top.c.depth + 1).where(
            *here, messages.c.seq == top.c.parent, top.c.depth < limit
        )
        branch = top.union_all(above)
        wanted = select(messages).where(*here).join(branch, branch.c.seq == messages.c.seq).order_by(messages.c.seq)
        rows = (await connection.execute(wanted)).all()
        if not rows:
            raise BadRequest(f"leaf: there is no message {end} in this session")
        return rows

    async def _siblings(
        self, connection: AsyncConnection, id_: str, parents: list[int | None]
    ) -> dict[int | None, list[int]]:
        known = [parent for parent in parents if parent is not None]
        rows = await connection.execute(
            select(messages.c.seq, messages.c.parent)
            .where(
                messages.c.session_id == id_,
                or_(messages.c.parent.in_(known), messages.c.parent.is_(None)),
            )
            .order_by(messages.c.seq)
        )
        siblings: dict[int | None, list[int]] = {}
        for row in rows:
            siblings.setdefault(row.parent, []).append(row.seq)
        return siblings
