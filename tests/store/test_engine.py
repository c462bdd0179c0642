"""Connections: urls and their errors, what SQLite is told, and a database that comes and goes."""

import asyncio
import contextlib
import logging
import sqlite3
import stat
import time
from pathlib import Path

import pytest
from sqlalchemy import insert, select, text
from sqlalchemy.exc import DataError, IntegrityError

from gateway.config import DatabaseConfig
from gateway.errors import ConfigError, StoreSlow, StoreUnavailable
from gateway.store import engine as module
from gateway.store.connect import CONNECTIONS, parsed, without_password
from gateway.store.engine import Database, State
from gateway.store.schema import messages, meta, sessions
from gateway.tasks import pause
from tests.sockets import until
from tests.store.postgres import Postgres

SESSION = {
    "id": "s1",
    "owner": "",
    "kind": "chat",
    "title": "",
    "title_words": " ",
    "options": "{}",
    "pinned": False,
    "archived": False,
    "next_seq": 1,
    "size": 0,
    "created_us": 1,
    "updated_us": 1,
}
MESSAGE = {"session_id": "s1", "seq": 0, "role": "user", "state": "done", "created_us": 1, "updated_us": 1}


@pytest.mark.parametrize(
    ("url", "driver"),
    [
        ("sqlite:////var/lib/corral.db", "sqlite+aiosqlite"),
        ("sqlite+aiosqlite:///corral.db", "sqlite+aiosqlite"),
        ("postgres://u:p@h/d", "postgresql+asyncpg"),
        ("postgresql://u:p@h:5433/d", "postgresql+asyncpg"),
        ("postgresql+asyncpg://u:p@h/d", "postgresql+asyncpg"),
    ],
)
def test_urls(url: str, driver: str) -> None:
    """As people write them; the driver is ours to choose."""
    assert parsed(url).drivername == driver


@pytest.mark.parametrize("url", ["mysql://u:secret@h/d", "corral.db", "://", "postgresql+psycopg://u:secret@h/d"])
def test_urls_that_cannot_be(url: str) -> None:
    """The words say how to write one, and never the password."""
    with pytest.raises(ConfigError, match="postgresql://user:password@host/name") as caught:
        Database(DatabaseConfig(url), time.monotonic)
    assert "secret" not in caught.value.message


def test_passwords_are_not_shown() -> None:
    """Nowhere that a url is told."""
    url = "postgresql://u:secret@h/d"
    assert without_password(url) == "postgresql://u:***@h/d"
    assert "secret" not in repr(Database(DatabaseConfig(url), time.monotonic))


def test_a_file_cannot_be_shared() -> None:
    """Gateways that each have a file of their own would look fine and share nothing."""
    with pytest.raises(ConfigError, match="replicas = 2 needs PostgreSQL"):
        Database(DatabaseConfig("sqlite:///x.db", replicas=2), time.monotonic)


async def write(database: Database, *rows: dict[str, object]) -> None:
    """Messages, one statement each, in one transaction."""
    async with database.writing() as connection:
        for row in rows:
            await connection.execute(insert(messages), [row])


async def test_writing_and_reading(database: Database) -> None:
    """What is written is read; what failed half-way is not there."""
    async with database.writing() as connection:
        await connection.execute(insert(sessions), [SESSION])
        await connection.execute(insert(messages), [MESSAGE | {"content": "hello"}])
    with pytest.raises(IntegrityError):
        await write(database, MESSAGE | {"seq": 1, "content": "lost"}, MESSAGE | {"content": "there already"})
    async with database.reading() as connection:
        assert (await connection.execute(select(messages.c.content))).scalars().all() == ["hello"]


async def test_messages_go_with_their_session(database: Database) -> None:
    """Deleting erases."""
    async with database.writing() as connection:
        await connection.execute(insert(sessions), [SESSION])
        await connection.execute(insert(messages), [MESSAGE | {"content": "hello"}])
        await connection.execute(sessions.delete())
        assert (await connection.execute(select(messages.c.id))).all() == []


async def test_a_reader_sees_one_moment(database: Database) -> None:
    """What is written between two of its questions is not there yet, nor afterwards gone."""
    count = text("SELECT count(*) FROM meta")
    async with database.reading() as reader:
        before = (await reader.execute(count)).scalar_one()
        async with database.writing() as writer:
            await writer.execute(text("INSERT INTO meta (key, value) VALUES ('a', 'b')"))
        assert (await reader.execute(count)).scalar_one() == before
    async with database.writing() as writer:
        assert (await writer.execute(count)).scalar_one() == before + 1


@pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
async def test_readers_cannot_write(database: Database) -> None:
    """On SQLite a reader that writes would wait for the writer inside a transaction that began too early."""
    with pytest.raises(StoreUnavailable):
        async with database.reading() as connection:
            await connection.execute(insert(meta), [{"key": "a", "value": "b"}])


async def test_a_file_for_nobody_else(tmp_path: Path) -> None:
    """Chats are private: 0600 in a folder of 0700, WAL, and deleted pages are overwritten."""
    path = tmp_path / "deep" / "corral.db"
    database = Database(DatabaseConfig(f"sqlite:///{path}"), time.monotonic)
    await database.start(30.0)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    async with database.reading() as connection:
        wanted = {"journal_mode": "wal", "foreign_keys": 1, "secure_delete": 1, "auto_vacuum": 2, "query_only": 1}
        told = {name: (await connection.execute(text(f"PRAGMA {name}"))).scalar() for name in wanted}
    assert told == wanted
    await database.close()


async def test_many_writers_at_once(database: Database) -> None:
    """All get their turn, none fails."""
    async with database.writing() as connection:
        await connection.execute(insert(meta), [{"key": "n", "value": "0"}])

    async def add() -> None:
        async with database.writing() as connection:
            lock = "" if database.sqlite else " FOR UPDATE"
            value = (await connection.execute(text(f"SELECT value FROM meta WHERE key = 'n'{lock}"))).scalar_one()
            await connection.execute(meta.update().values(value=str(int(value) + 1)))

    await asyncio.gather(*(add() for _ in range(50)))
    async with database.reading() as connection:
        assert (await connection.execute(select(meta.c.value))).scalar_one() == "50"


async def test_a_database_that_is_not_there_yet(tmp_path: Path) -> None:
    """It is tried again; meanwhile whoever needs it is told so at once."""
    blocked = tmp_path / "folder"
    blocked.write_text("a file where the folder should be")
    database = Database(DatabaseConfig(f"sqlite:///{blocked}/corral.db"), time.monotonic)
    await database.start(5.0)
    assert database.state is State.DOWN
    with pytest.raises(StoreUnavailable, match="not available") as caught:
        async with database.writing():
            pass
    assert caught.value.retry_after == 2.0
    running = asyncio.get_running_loop().create_task(database.run())
    blocked.unlink()
    await until(lambda: database.state is State.UP, 20.0)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await database.close()


@pytest.mark.parametrize("kind", ["postgresql"], indirect=True)
async def test_a_server_that_restarts(database: Database, postgres: Postgres) -> None:
    """The loss is noticed by who uses it, and it is back by itself."""
    running = asyncio.get_running_loop().create_task(database.run())
    postgres.stop()
    with pytest.raises(StoreUnavailable):
        async with database.reading() as connection:
            await connection.execute(text("SELECT 1"))
    assert database.state is State.DOWN
    postgres.start()
    await until(lambda: database.state is State.UP, 20.0)
    async with database.reading() as connection:
        assert (await connection.execute(text("SELECT 1"))).scalar() == 1
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


@pytest.mark.parametrize("kind", ["postgresql"], indirect=True)
async def test_a_server_that_falls_silent(
    database: Database, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who wants to begin finds it out soon, and tells those who wait for a statement; nobody waits until that is given up."""
    monkeypatch.setattr(module, "SILENT_SECONDS", 0.5)
    begun = asyncio.Event()

    async def look() -> None:
        async with database.reading() as connection:
            await connection.execute(text("SELECT 1"))

    async def look_twice() -> None:
        async with database.reading() as connection:
            begun.set()
            await connection.execute(text("SELECT pg_sleep(20)"))

    await asyncio.gather(look(), look(), look())  # so that there are connections that worked
    loop = asyncio.get_running_loop()
    under_way = loop.create_task(look_twice())
    await begun.wait()
    postgres.freeze()
    try:
        async with asyncio.timeout(10.0):  # a statement has 30 s
            found = await asyncio.gather(under_way, look(), look(), look(), write(database), return_exceptions=True)
        assert [type(one) for one in found] == [StoreUnavailable] * 5
        assert database.state is State.DOWN
    finally:
        postgres.freeze(frozen=False)


@pytest.mark.parametrize("kind", ["postgresql"], indirect=True)
async def test_a_server_with_much_to_do(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who gets no connection in time is told to come again: the server is not lost."""
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(CONNECTIONS):
            await stack.enter_async_context(database.reading())
        monkeypatch.setattr(module, "TURN_SECONDS", 0.1)
        with pytest.raises(StoreUnavailable, match="too much to do"):
            await write(database)
    assert database.state is State.UP


@pytest.mark.parametrize("kind", ["postgresql"], indirect=True)
async def test_a_burst_waits_for_its_turn(database: Database) -> None:
    """However many begin at once: a connection is waited for, and nobody is turned away."""
    loop = asyncio.get_running_loop()
    async with database.writing() as connection:
        await connection.execute(insert(sessions), [SESSION])
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(CONNECTIONS):
            await stack.enter_async_context(database.reading())
        burst = [loop.create_task(write(database, MESSAGE | {"seq": n, "content": "hello"})) for n in range(100)]
        await pause(0)
        assert not any(one.done() for one in burst)
    await asyncio.gather(*burst)
    assert database.state is State.UP


@pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
async def test_a_file_with_much_to_write(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose turn does not come in time is told to come again, and nobody else is told that the file is lost: others write to it."""
    await write(database)
    monkeypatch.setattr(database._write.sync_engine.pool, "_timeout", 0.5)
    his_turn, go_on = asyncio.Event(), asyncio.Event()

    async def slowly() -> None:
        async with database.writing():
            his_turn.set()
            await go_on.wait()

    loop = asyncio.get_running_loop()
    async with database.writing():
        first, second = loop.create_task(slowly()), loop.create_task(write(database))
        await pause(0)
    await his_turn.wait()
    with pytest.raises(StoreUnavailable, match="too much to do"):
        await second
    assert database.state is State.UP
    go_on.set()
    await first


async def test_a_value_that_cannot_be_written(database: Database) -> None:
    """Is its writer's fault: the database is no more lost than before."""
    with pytest.raises((DataError, UnicodeEncodeError)):
        await write(database, MESSAGE | {"content": "half \ud800"})
    assert database.state is State.UP


async def test_a_question_that_takes_too_long(database: Database) -> None:
    """Is stopped, and the next one answered."""
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    with pytest.raises(StoreSlow, match=r"longer than 0\.1 s"):
        async with database.reading(0.1) as connection:
            await connection.execute(text(endless))
    assert database.state is State.UP
    for _ in range(4):
        async with database.reading(5.0) as connection:
            assert (await connection.execute(text("SELECT 1"))).scalar() == 1


@pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
async def test_a_file_shrinks(database: Database) -> None:
    """A little at a time, whoever reads meanwhile."""
    async with database.writing() as connection:
        await connection.execute(insert(meta), [{"key": str(n), "value": "x" * 10_000} for n in range(500)])
        await connection.execute(meta.delete())

    async def pages() -> int:
        async with database.reading() as connection:
            return int((await connection.execute(text("PRAGMA page_count"))).scalar_one())

    before = await pages()
    async with database.reading() as connection:
        await connection.execute(select(meta.c.key))
        await database.tidy()
    await database.tidy()
    assert await pages() < before - 500


def take_away(file: Path, other: Path | None, *, log: bool) -> None:
    """As people do it: the file, with its ``log`` or without; or put another one in its place."""
    for suffix in ("-wal", "-shm") if log else ():
        file.with_name(f"{file.name}{suffix}").unlink(missing_ok=True)
    if other is None:
        file.unlink()
    else:
        other.rename(file)


def mode_of(file: Path) -> int:
    """Its mode."""
    return stat.S_IMODE(file.stat().st_mode)


@pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
@pytest.mark.parametrize("how", ["removed", "removed without its log", "replaced"])
async def test_a_file_that_is_not_there_any_more(database: Database, how: str) -> None:
    """What is written from then on is in the file of that name."""
    running = asyncio.get_running_loop().create_task(database.run())
    async with database.writing() as connection:
        await connection.execute(insert(sessions), [SESSION])
    async with database.reading() as connection:
        assert (await connection.execute(select(sessions.c.id))).scalars().all() == ["s1"]
    file = Path(str(database.url.database))
    other = file.with_name("other.db")
    if how == "replaced":
        made = Database(DatabaseConfig(f"sqlite:///{other}"), time.monotonic)
        await made.start(30.0)
        await made.close()
    take_away(file, other if how == "replaced" else None, log=how != "removed without its log")
    if how != "replaced":
        with pytest.raises(StoreUnavailable, match="No such file"):
            await write(database)
        await until(lambda: database.state is State.UP, 20.0)
    async with database.writing() as connection:
        await connection.execute(insert(sessions), [SESSION | {"id": "s2"}])
    async with database.reading() as connection:
        assert (await connection.execute(select(sessions.c.id))).scalars().all() == ["s2"]
    with contextlib.closing(sqlite3.connect(file)) as found:
        assert found.execute("SELECT id FROM sessions").fetchall() == [("s2",)]
        assert found.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert mode_of(file) == 0o600
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


@pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
async def test_a_full_disk_is_told_once(database: Database, caplog: pytest.LogCaptureFixture) -> None:
    """It takes every question and no answer: lost and back again and again, but not in the log."""
    caplog.set_level(logging.INFO)
    running = asyncio.get_running_loop().create_task(database.run())
    async with database.writing() as connection:
        pages = (await connection.execute(text("PRAGMA page_count"))).scalar_one()
        await connection.execute(text(f"PRAGMA max_page_count = {pages}"))
    for _ in range(3):
        await until(lambda: database.state is State.UP)
        with pytest.raises(StoreUnavailable, match="full"):
            async with database.writing() as connection:
                await connection.execute(insert(meta), [{"key": "big", "value": "x" * 100_000}])
        assert database.state is State.DOWN
    await until(lambda: database.state is State.UP)
    assert len([message for message in caplog.messages if "lost" in message]) == 1
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
