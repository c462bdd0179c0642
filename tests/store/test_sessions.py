"""Sessions on both kinds of database: made, listed, changed, erased, and always their owner's alone."""

import random
from pathlib import Path
from typing import Any

import pytest
from msgspec import UNSET
from sqlalchemy import func, select

from gateway.errors import BadRequest, NotFound, StoreUnavailable
from gateway.messages import NewSession, SessionChanges
from gateway.store.engine import Database
from gateway.store.retention import SESSIONS_CHUNK, erase
from gateway.store.schema import messages
from gateway.store.session_store import SessionStore
from gateway.store.sessions import Listed, Place
from tests.store.builders import ME, begun, contents, new_session, store_of, turn


async def test_a_session(database: Database) -> None:
    """What it was made with; the id sorts by time."""
    store = store_of(database)
    new = NewSession(
        title="Sky", model="llama3.2:1b", host="gpu1", system="Be brief.", options={"temperature": 0.5, "stop": ["x"]}
    )
    made = await store.sessions.create(ME, new)
    assert made == await store.sessions.get(ME, made.id)
    assert (made.title, made.model, made.host, made.system) == ("Sky", "llama3.2:1b", "gpu1", "Be brief.")
    assert (made.options, made.kind, made.settings) == ({"temperature": 0.5, "stop": ["x"]}, "chat", None)
    assert (made.pinned, made.archived, made.leaf, made.messages, made.running) == (False, False, None, 0, None)
    later = await store.sessions.create(ME, NewSession(), kind="conversation", settings={"mode": "debate"})
    assert (later.kind, later.settings) == ("conversation", {"mode": "debate"})
    assert made.id < later.id
    assert len(made.id) == 24


async def test_somebody_elses(database: Database) -> None:
    """Is not there: not to look at, change, delete, list or find."""
    store = store_of(database)
    theirs = await new_session(store, "Sky", owner="them")
    for asked in (
        store.sessions.get(ME, theirs.id),
        store.sessions.change(ME, theirs.id, SessionChanges(title="Mine")),
        store.sessions.delete(ME, theirs.id),
        store.messages.history(ME, theirs.id),
        store.messages.branches(ME, theirs.id),
        store.transcripts.export(ME, theirs.id),
    ):
        with pytest.raises(NotFound, match=f"no session '{theirs.id}'"):
            await asked
    assert await store.sessions.page(ME) == ([], None)
    assert await store.search.titles(ME, "sky", 10) == []
    assert await store.sessions.get("them", theirs.id) == theirs


async def pages(store: SessionStore, limit: int, **which: Any) -> list[list[str]]:
    """Titles, page by page."""
    found: list[list[str]] = []
    after: Place | None = None
    while True:
        sessions, after = await store.sessions.page(ME, Listed(**which), after=after, limit=limit)
        found.append([session.title for session in sessions])
        if after is None:
            return found


async def test_paging(database: Database) -> None:
    """Pinned ones first, then what was written to last; each comes once, on pages of any size."""
    store = store_of(database)
    made = [await new_session(store, f"s{number}") for number in range(5)]
    await store.sessions.change(ME, made[1].id, SessionChanges(pinned=True))
    await store.sessions.change(ME, made[4].id, SessionChanges(archived=True))
    await turn(store, made[0].id, "q", "a")
    order = ["s1", "s0", "s3", "s2"]
    assert await pages(store, 4) == [order]
    assert await pages(store, 3) == [order[:3], order[3:]]
    assert await pages(store, 1) == [[title] for title in order]
    assert await pages(store, 9, archived=True) == [["s4"]]
    await store.sessions.create(ME, NewSession(title="talk"), kind="conversation")
    assert await pages(store, 9, kind="conversation") == [["talk"]]
    assert await pages(store, 2, kind="chat") == [order[:2], order[2:]]


async def test_paging_at_one_moment(database: Database) -> None:
    """Where many have the same time, none is left out."""
    store = SessionStore(database, lambda: 1.76e9, random.Random(1))
    for number in range(7):
        await store.sessions.create(ME, NewSession(title=f"s{number}"))
    found = [title for page in await pages(store, 2) for title in page]
    assert sorted(found) == [f"s{number}" for number in range(7)]


async def test_changing(database: Database) -> None:
    """What is named and nothing else; it is no reason to stand first in the list."""
    store = store_of(database)
    before = await store.sessions.create(ME, NewSession(title="Sky", model="a", system="b", options={"seed": 1}))
    changes = SessionChanges(title="Небо", model=None, pinned=True, options={"seed": 2})
    after = await store.sessions.change(ME, before.id, changes)
    assert after == await store.sessions.get(ME, before.id)
    assert (after.title, after.model, after.system, after.pinned, after.options) == (
        "Небо",
        None,
        "b",
        True,
        {"seed": 2},
    )
    assert after.updated_at == before.updated_at
    assert await store.sessions.change(ME, before.id, SessionChanges()) == after
    assert changes.system is UNSET


async def test_options_are_bounded(database: Database) -> None:
    """As JSON."""
    with pytest.raises(BadRequest, match="options are over 16384 bytes"):
        await store_of(database).sessions.create(ME, NewSession(options={"stop": ["x" * 20_000]}))


async def test_showing_another_branch(database: Database) -> None:
    """Any message of it will do; the newest end below it is shown."""
    store = store_of(database)
    id_ = (await new_session(store)).id
    await turn(store, id_, "q", "a")  # 0 1
    await turn(store, id_, "more", "of it")  # 2 3
    await turn(store, id_, None, "b", parent=0)  # 4
    assert await contents(store, id_) == ["q", "b"]
    changed = await store.sessions.change(ME, id_, SessionChanges(leaf=1))
    assert changed.leaf == 3
    assert await contents(store, id_) == ["q", "a", "more", "of it"]
    with pytest.raises(BadRequest, match="leaf: there is no message 9"):
        await store.sessions.change(ME, id_, SessionChanges(leaf=9))


async def test_deleting_erases(database: Database) -> None:
    """All of it, even while it is answered; a second time there is nothing to delete."""
    store = store_of(database)
    id_, other = (await new_session(store)).id, (await new_session(store)).id
    await turn(store, id_, "xylophone", "zither")
    await begun(store, id_, "q")
    await turn(store, other, "stays", "here")
    await store.sessions.delete(ME, id_)
    with pytest.raises(NotFound):
        await store.sessions.delete(ME, id_)
    async with database.reading() as connection:
        assert len((await connection.execute(messages.select())).all()) == 2
    assert await store.search.messages(ME, "xylophone", None, 9) == ([], None)
    assert await contents(store, other) == ["stays", "here"]


@pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
async def test_nothing_is_left_in_the_file(database: Database) -> None:
    """After a vacuum not even the search's index knows the words."""
    store = store_of(database)
    for number in range(30):
        id_ = (await new_session(store, f"Zebra{number}")).id
        await turn(store, id_, "xylophone", "zither")
        await store.sessions.delete(ME, id_)
    await turn(store, (await new_session(store)).id, "marimba", "stays")
    await database.vacuum()
    file = Path(str(database.url.database))
    kept = b"".join(path.read_bytes() for path in file.parent.glob(f"{file.name}*"))
    assert b"marimba" in kept
    assert [word for word in (b"xyloph", b"zither", b"Zebra", b"zebra") if word in kept] == []


async def test_without_a_database() -> None:
    """Whatever is asked, the words say what is missing."""
    store = SessionStore(None, lambda: 0.0, random.Random(1))
    for asked in (
        store.sessions.page(ME),
        store.sessions.create(ME, NewSession()),
        store.messages.history(ME, "s"),
        store.search.titles(ME, "q", 1),
        begun(store, "s", "q"),
    ):
        with pytest.raises(StoreUnavailable, match=r"nothing is kept here: database\.url is none") as caught:
            await asked
        assert caught.value.retry_after is None


async def test_deleted_and_restored(database: Database) -> None:
    """While it can be restored it is found nowhere but among what is deleted; restored, it is what it was."""
    store = store_of(database)
    kept, other = await new_session(store, "Sky at night"), await new_session(store, "Sea")
    await turn(store, kept.id, "Why is it dark?", "It is not.")
    before = await store.sessions.get(ME, kept.id)
    await store.sessions.delete(ME, kept.id, 1000)
    for asked in (
        store.sessions.get(ME, kept.id),
        store.sessions.change(ME, kept.id, SessionChanges(title="Mine")),
        store.messages.history(ME, kept.id),
        store.transcripts.export(ME, kept.id),
        begun(store, kept.id, "And now?"),
        store.sessions.delete("them", kept.id),
        store.sessions.restore("them", kept.id),
    ):
        with pytest.raises(NotFound):
            await asked
    assert await store.search.titles(ME, "sky", 10) == []
    assert await store.search.messages(ME, "dark", None, 10) == ([], None)
    assert await pages(store, 9) == [["Sea"]]
    ((hidden,), _) = await store.sessions.page(ME, Listed(deleted=True))
    assert hidden.id == kept.id
    assert hidden.erased_at is not None
    assert await store.sessions.restore(ME, kept.id) == before
    assert await store.sessions.restore(ME, other.id) == other
    assert await contents(store, kept.id) == ["Why is it dark?", "It is not."]


async def test_its_time_is_over(database: Database) -> None:
    """It cannot be restored, whether it is erased yet or not; the janitor's rule erases it and nothing else."""
    store = store_of(database)
    made = [await new_session(store, f"s{number}") for number in range(SESSIONS_CHUNK + 2)]
    for session in made[1:]:
        await turn(store, session.id, "q", "a")
        await store.sessions.delete(ME, session.id, 1)
    await store.sessions.delete(ME, made[-1].id, 1_000_000)
    with pytest.raises(NotFound, match="its time is over"):
        await store.sessions.restore(ME, made[1].id)
    now = made[0].created_at.timestamp() + 1000
    assert await erase(database, now + 2) == SESSIONS_CHUNK
    assert await erase(database, now + 2) == 0
    assert await pages(store, 9) == [["s0"]]
    assert (await store.sessions.restore(ME, made[-1].id)).title == made[-1].title
    async with database.reading() as connection:
        assert (await connection.execute(select(func.count()).select_from(messages))).scalar() == 2


async def test_how_it_begins(database: Database) -> None:
    """In the list, which may have nothing else to call it by."""
    store = store_of(database)
    session = await new_session(store)
    await turn(store, session.id, "Why " + 100 * "x", "Because.")
    await new_session(store)
    listed, _ = await store.sessions.page(ME)
    assert sorted(one.begins or "" for one in listed) == ["", "Why " + 96 * "x"]
    assert (await store.sessions.get(ME, session.id)).begins is None


async def test_at_once_after_all(database: Database) -> None:
    """What is hidden can be erased."""
    store = store_of(database)
    session = await new_session(store)
    await store.sessions.delete(ME, session.id, 1000)
    await store.sessions.delete(ME, session.id)
    with pytest.raises(NotFound):
        await store.sessions.restore(ME, session.id)


@pytest.mark.parametrize(
    ("which", "found"),
    [
        (Listed(), ["talk", "pinned sky", "blue sky"]),
        (Listed(pinned=True), ["pinned sky"]),
        (Listed(pinned=False), ["talk", "blue sky"]),
        (Listed(kind="conversation"), ["talk"]),
        (Listed(kind="chat", model="llama3.2:1b"), ["blue sky"]),
        (Listed(words="sky"), ["pinned sky", "blue sky"]),
        (Listed(words="SKY bl"), ["blue sky"]),
        (Listed(archived=True), ["old sky"]),
        (Listed(archived=True, words="blue"), []),
        (Listed(deleted=True), []),
    ],
)
async def test_which(database: Database, which: Listed, found: list[str]) -> None:
    """All that is asked must hold."""
    store = store_of(database)
    for new, kind in (
        (NewSession(title="old sky", archived=True), "chat"),
        (NewSession(title="blue sky", model="llama3.2:1b"), "chat"),
        (NewSession(title="pinned sky", model="qwen3:4b", pinned=True), "chat"),
        (NewSession(title="talk"), "conversation"),
    ):
        await store.sessions.create(ME, new, kind=kind)
    sessions, _ = await store.sessions.page(ME, which)
    assert sorted(session.title for session in sessions) == sorted(found)
