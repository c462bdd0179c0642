"""Whole sessions, out of one database and into another."""

import json
from datetime import UTC, datetime

import msgspec
import pytest

from gateway.errors import TooLarge
from gateway.messages import SESSION_MOST, Ending, Message, MessageState, MessageUsage, Role, Timings
from gateway.store.engine import Database
from gateway.transcripts import Brought, Import, own
from tests.store.builders import ME, begun, new_session, store_of, turn

AT = datetime(2026, 11, 22, tzinfo=UTC)


def long(count: int, content: str = "x") -> Import:
    """A session that is one long branch."""
    said = [
        Message(seq=seq, parent=seq - 1 if seq else None, role=Role.USER, content=content, created_at=AT, updated_at=AT)
        for seq in range(count)
    ]
    return Import(session=Brought(created_at=AT, updated_at=AT, leaf=count - 1), messages=said)


async def test_there_and_back(database: Database) -> None:
    """Nothing is lost but the id; and it is found by a search."""
    store = store_of(database)
    id_ = (await new_session(store, "Sky")).id
    await turn(store, id_, "q", "a")
    await begun(store, id_, parent=0)
    ending = Ending(
        state=MessageState.STOPPED,
        content="violet",
        thinking="t",
        tool_calls=[{"a": 1}],
        usage=MessageUsage(input_tokens=1, output_tokens=2),
        timings=Timings(ttft_seconds=0.123456),
    )
    await store.turns.finish_turn(ME, id_, 2, "g1", ending)
    out = await store.transcripts.export(ME, id_)
    (back,) = await store.transcripts.bring_in("them", [own(json.loads(msgspec.json.encode(out)), "session 0")])
    again = await store.transcripts.export("them", back.id)
    assert again.messages == out.messages
    assert msgspec.structs.replace(again.session, id=id_) == out.session
    assert len((await store.search.messages("them", "violet", None, 9))[0]) == 1


async def test_a_long_one(database: Database) -> None:
    """Thousands of messages deep, and a turn goes on from there."""
    store = store_of(database)
    (session,) = await store.transcripts.bring_in(ME, [long(2_000)])
    assert (session.messages, session.leaf, session.updated_at) == (2_000, 1_999, AT)
    await turn(store, session.id, "q", "a")
    assert [message.seq for message in await store.messages.history(ME, session.id)] == list(range(2_002))


async def test_all_or_none(database: Database) -> None:
    """One that is too large keeps the others out, too."""
    store = store_of(database)
    big = long(SESSION_MOST // 1_000_000 + 1, "x" * 1_000_000)
    with pytest.raises(TooLarge, match="the import has over 33554432 characters: split it"):
        await store.transcripts.bring_in(ME, [long(1), big])
    assert await store.sessions.page(ME) == ([], None)


async def test_many_at_once(database: Database) -> None:
    """Each gets an id of its own."""
    store = store_of(database)
    made = await store.transcripts.bring_in(ME, [long(3) for _ in range(20)])
    assert len({session.id for session in made}) == 20
    assert len((await store.sessions.page(ME, limit=50))[0]) == 20
