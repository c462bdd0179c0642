"""Everything arrives, of either kind in either kind, and half of it never does."""

import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import func, insert, select, text

from gateway.config import DatabaseConfig
from gateway.errors import StoreUnavailable
from gateway.record import GenerationRecord
from gateway.store import bulk
from gateway.store.copy import copy
from gateway.store.engine import Database
from gateway.store.entries import Entry, Row, hours, minutes, ordered, row
from gateway.store.partitions import DAY_US
from gateway.store.schema import measured, messages, metadata, requests, rollup_1h, rollup_1m, sessions
from tests.store.recorded import kept, numbered
from tests.store.test_engine import MESSAGE, SESSION
from tests.store.test_retention import write

MEASURED = {"host": "gpu1", "digest": "d", "url": "http://gpu1:11434", "value": 2.5, "weight": 3.0, "measured_us": 1}


@pytest.fixture
async def source(tmp_path: Path) -> AsyncIterator[Database]:
    """An SQLite file with a little of everything."""
    database = Database(DatabaseConfig(f"sqlite:///{tmp_path}/source.db"), time.monotonic)
    await database.start(30.0)
    async with database.writing() as connection:
        await connection.execute(insert(sessions), [SESSION])
        await connection.execute(insert(messages), [MESSAGE | {"seq": n, "content": f"said {n} é"} for n in range(3)])
        await connection.execute(
            insert(measured), [MEASURED | {"what": what} for what in ("load_seconds", "load_rate")]
        )
    yield database
    await database.close()


async def fill(database: Database, records: list[GenerationRecord]) -> None:
    """As the writer would, in one transaction."""
    entries = [Entry(row(one, "r"), one.model) for one in records]
    sums = minutes(entries)
    async with database.writing() as connection:
        await bulk.insert(connection, requests, [entry.row for entry in entries])
        await bulk.add(connection, rollup_1m, ordered(sums))
        await bulk.add(connection, rollup_1h, ordered(hours(sums)))


async def test_a_hundred_thousand_requests(source: Database, database: Database) -> None:
    """Row by row the same, and the same sums; on PostgreSQL each in its day. What is written next gets a number of its own."""
    await fill(source, numbered(5_000, cold=True))
    others = ", ".join(column for column in Row._fields if column not in ("ts_us", "id"))
    async with source.writing() as connection:
        await connection.execute(
            text(
                "WITH RECURSIVE part(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM part WHERE n < 19)"
                f" INSERT INTO requests (ts_us, id, {others})"
                f" SELECT ts_us - n % 3 * {DAY_US}, id || n, {others} FROM requests, part"
            )
        )
    copied = await copy(source, database)
    assert (copied["requests"], copied["messages"], copied["sessions"], copied["measured"]) == (100_000, 3, 1, 2)
    assert set(copied) == {table.name for table in metadata.sorted_tables}
    assert await kept(database) == await kept(source)
    newest = select(requests).order_by(requests.c.ts_us.desc(), requests.c.id.desc()).limit(3)
    async with source.reading() as one, database.writing() as other:
        assert (await one.execute(newest)).all() == (await other.execute(newest)).all()
        await other.execute(insert(messages), [MESSAGE | {"seq": 3, "content": "said later"}])
        assert (await other.execute(select(func.max(messages.c.id)))).scalar_one() == 4
        if not database.sqlite:
            assert (await other.execute(text("SELECT count(*) FROM requests_other"))).scalar_one() == 0


async def test_into_an_empty_one_only(source: Database, database: Database) -> None:
    """What is there already is somebody's."""
    await write(database, numbered(1))
    with pytest.raises(StoreUnavailable, match=r"has rows in \w+ already"):
        await copy(source, database)
    async with database.reading() as connection:
        assert (await connection.execute(select(func.count()).select_from(sessions))).scalar_one() == 0


LOSES = {
    "sqlite": ["CREATE TRIGGER lose BEFORE INSERT ON messages WHEN new.seq = 1 BEGIN SELECT RAISE(IGNORE); END"],
    "postgresql": [
        "CREATE FUNCTION lose() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
        "CREATE TRIGGER lose BEFORE INSERT ON messages FOR EACH ROW WHEN (new.seq = 1) EXECUTE FUNCTION lose()",
    ],
}
"""A database that loses a row without a word."""


async def test_what_differs_is_not_kept(source: Database, database: Database, kind: str) -> None:
    """All is compared before it counts."""
    async with database.writing() as connection:
        for statement in LOSES[kind]:
            await connection.execute(text(statement))
    with pytest.raises(StoreUnavailable, match=r"messages.rows came out different, 3 and 2"):
        await copy(source, database)
    async with database.reading() as connection:
        assert (await connection.execute(select(func.count()).select_from(sessions))).scalar_one() == 0
