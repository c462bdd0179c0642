"""What is over its time goes, nothing else does, and who writes meanwhile gets between."""

import dataclasses
import time
from collections.abc import Iterable

from sqlalchemy import func, select, text

from gateway.config import DatabaseConfig
from gateway.record import GenerationRecord
from gateway.store import partitions, retention
from gateway.store.engine import Database
from gateway.store.records import Records
from gateway.store.retention import CHUNK, alone, prune
from gateway.store.schema import ingest_batches, requests, rollup_1h, rollup_1m
from tests.store.recorded import NOW, kept, numbered

CONFIG = DatabaseConfig(requests_days=7, minutes_days=14, hours_days=400)
DAY = 86400.0


async def write(database: Database, records: Iterable[GenerationRecord]) -> None:
    """All of them, in batches that were written at NOW."""
    writer = Records(database, "r", time.monotonic, lambda: NOW)
    for one in records:
        writer.put(one)
    writer.start()
    await writer.close(30.0)


def aged(days: float, count: int = 1) -> list[GenerationRecord]:
    """Records of so many days ago."""
    return numbered(count, received_at=NOW - days * DAY)


async def test_ages(database: Database) -> None:
    """Rows go first, then minutes, then hours."""
    await write(database, [one for days in (0, 6.9, 8.1, 13.9, 15.1, 399, 401) for one in aged(days)])
    deleted = await prune(database, CONFIG, NOW)
    assert deleted == {"requests": 5, "rollup_1m": 3, "rollup_1h": 1}
    assert await kept(database) == {"rows": 2, "minutes": 4, "hours": 6, "batches": 1}
    assert await prune(database, CONFIG, NOW) == {}


async def test_the_ledger(database: Database) -> None:
    """A batch is not written again after a day."""
    await write(database, numbered(1))
    assert await prune(database, CONFIG, NOW + DAY - 1) == {}
    assert await prune(database, CONFIG, NOW + DAY + 1) == {ingest_batches.name: 1}


async def test_many(database: Database) -> None:
    """In chunks; the newest stay."""
    await write(database, [*numbered(2 * CHUNK + 10, received_at=NOW - 9 * DAY), *aged(1, 5)])
    assert await prune(database, CONFIG, NOW) == {"requests": 2 * CHUNK + 10}
    assert (await kept(database))["rows"] == 5


async def test_number(database: Database) -> None:
    """Rows over the number go by whole hours, the oldest first; the sums keep them."""
    await write(database, [one for hours in range(5) for one in aged(hours / 24, 100)])
    few = dataclasses.replace(CONFIG, requests_rows=250)
    assert await prune(database, few, NOW) == {"requests": 200}
    assert await kept(database) == {"rows": 300, "minutes": 500, "hours": 500, "batches": 1}
    assert await prune(database, dataclasses.replace(CONFIG, requests_rows=1), NOW) == {"requests": 200}
    async with database.reading() as connection:
        oldest = (await connection.execute(select(func.min(requests.c.ts_us)))).scalar_one()
    assert oldest >= NOW // 3600 * 3600 * 1e6


async def test_whole_days_are_dropped_at_once(database: Database) -> None:
    """On PostgreSQL; both say how many rows went."""
    if not database.sqlite:
        async with database.writing() as connection:
            await partitions.make(connection, partitions.ahead(NOW - 10 * DAY))
    await write(database, [*aged(9, 7), *aged(0, 2)])
    assert await prune(database, CONFIG, NOW) == {"requests": 7}
    assert (await kept(database))["rows"] == 2


async def test_one_at_a_time(database: Database, url: str) -> None:
    """Of several gateways on one PostgreSQL: who comes second leaves it to the first."""
    await write(database, aged(9, 3))
    other = Database(DatabaseConfig(url), time.monotonic)
    await other.start(30.0)
    if not database.sqlite:
        async with other.writing() as connection:
            assert await alone(connection)
            assert await prune(database, CONFIG, NOW) == {}
    assert await prune(database, CONFIG, NOW) == {"requests": 3}
    await other.close()


def test_constants() -> None:
    """Two locks with one number would make a migration wait for a janitor."""
    assert retention._LOCK != 0x434F5252414C
    assert rollup_1m.c.keys() == rollup_1h.c.keys()


async def test_nothing_to_do(database: Database) -> None:
    """An empty database stays as it is."""
    assert await prune(database, CONFIG, NOW) == {}
    async with database.reading() as connection:
        assert (await connection.execute(text("SELECT count(*) FROM requests"))).scalar_one() == 0
