"""Messages on both kinds of database: branch by branch, part by part."""

import pytest

from gateway.errors import BadRequest
from gateway.messages import Role
from gateway.store.engine import Database
from gateway.store.session_store import SessionStore
from tests.store.builders import ME, begun, new_session, store_of, turn


async def branched(store: SessionStore) -> str:
    """q0 a0 q1 a1; another answer to q1, b1 (4); another first question, x y (5 6), which is shown."""
    id_ = (await new_session(store)).id
    await turn(store, id_, "q0", "a0")
    await turn(store, id_, "q1", "a1")
    await turn(store, id_, None, "b1", parent=2)
    await turn(store, id_, "x", "y", parent=None)
    return id_


async def test_history(database: Database) -> None:
    """From the first message to the leaf, or the last few of them."""
    store = store_of(database)
    id_ = await branched(store)

    async def said(**asked: int) -> list[str]:
        return [message.content for message in await store.messages.history(ME, id_, **asked)]

    assert await said() == ["x", "y"]
    assert await said(leaf=4) == ["q0", "a0", "q1", "b1"]
    assert await said(leaf=3, limit=2) == ["q1", "a1"]
    assert await said(leaf=2) == ["q0", "a0", "q1"]
    with pytest.raises(BadRequest, match="leaf: there is no message 7"):
        await said(leaf=7)


async def test_a_session_without_messages(database: Database) -> None:
    """Has an empty history and no branches."""
    store = store_of(database)
    id_ = (await new_session(store)).id
    assert await store.messages.history(ME, id_) == []
    told = await store.messages.told(ME, id_)
    assert (told.messages, told.leaf, told.earlier) == ([], None, None)
    assert await store.messages.branches(ME, id_) == []


async def test_part_by_part(database: Database) -> None:
    """Each part says where the earlier one ends."""
    store = store_of(database)
    id_ = await branched(store)
    last = await store.messages.told(ME, id_, leaf=4, limit=3)
    assert ([message.seq for message in last.messages], last.leaf, last.earlier) == ([1, 2, 4], 4, 0)
    assert last.earlier is not None
    first = await store.messages.told(ME, id_, leaf=last.earlier, limit=3)
    assert ([message.seq for message in first.messages], first.leaf, first.earlier) == ([0], 0, None)


async def test_what_stands_in_the_same_place(database: Database) -> None:
    """Other answers to the question, other questions after the answer."""
    store = store_of(database)
    told = await store.messages.told(ME, await branched(store), leaf=4)
    assert {message.seq: message.siblings for message in told.messages} == {0: [0, 5], 1: [1], 2: [2], 4: [3, 4]}


async def test_branches(database: Database) -> None:
    """Newest first, and where each leaves the one that is shown."""
    store = store_of(database)
    id_ = await branched(store)
    found = await store.messages.branches(ME, id_)
    assert [(branch.leaf, branch.shown, branch.forks_at, branch.messages) for branch in found] == [
        (6, True, 6, 2),
        (4, False, None, 4),
        (3, False, None, 4),
    ]
    assert [(branch.role, branch.preview) for branch in found] == [(Role.ASSISTANT, word) for word in ("y", "b1", "a1")]


async def test_an_answer_that_is_being_written(database: Database) -> None:
    """Is the last message, as far as it is known."""
    store = store_of(database)
    id_ = (await new_session(store)).id
    await begun(store, id_, "q")
    await store.turns.checkpoint(ME, id_, 1, "g1", content="half")
    told = await store.messages.told(ME, id_)
    assert [(message.content, message.state) for message in told.messages] == [("q", "done"), ("half", "streaming")]
