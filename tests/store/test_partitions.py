"""A table for each day on PostgreSQL."""

from datetime import UTC, date, datetime, timedelta

import pytest
from sqlalchemy import text

from gateway.store import bulk, partitions
from gateway.store.engine import Database
from gateway.store.entries import row
from gateway.store.schema import requests
from tests.store.recorded import NOW, numbered

on_postgresql = pytest.mark.parametrize("kind", ["postgresql"], indirect=True)
TODAY = datetime.fromtimestamp(NOW, UTC).date()


async def rows_in(database: Database, table: str) -> int:
    """How many."""
    async with database.reading() as connection:
        return int((await connection.execute(text(f"SELECT count(*) FROM {table}"))).scalar_one())


@on_postgresql
async def test_days_are_made_ahead(database: Database) -> None:
    """Yesterday to a week from now, once."""
    async with database.writing() as connection:
        assert await partitions.make(connection, partitions.ahead(NOW)) == 9
        assert await partitions.make(connection, partitions.ahead(NOW)) == 0
        there = await partitions.days(connection)
    assert sorted(there) == [TODAY + timedelta(days=number) for number in range(-1, 8)]
    assert there[TODAY] == f"requests_{TODAY:%Y%m%d}"


@on_postgresql
async def test_rows_go_to_their_day(database: Database) -> None:
    """Those that came before its table are moved; others stay where all days go that have none."""
    early = [row(one, "r") for one in [*numbered(3), *numbered(1, received_at=NOW - 90 * 86400)]]
    async with database.writing() as connection:
        await bulk.insert(connection, requests, early)
    async with database.writing() as connection:
        await partitions.make(connection, partitions.ahead(NOW))
        await bulk.insert(connection, requests, [row(one, "r") for one in numbered(2)])
    assert await rows_in(database, f"requests_{TODAY:%Y%m%d}") == 5
    assert await rows_in(database, "requests_other") == 1
    assert await rows_in(database, "requests") == 6


@on_postgresql
async def test_days_that_are_over_are_dropped(database: Database) -> None:
    """Whole ones only."""
    yesterday = partitions.bounds(TODAY - timedelta(days=1))
    async with database.writing() as connection:
        await partitions.make(connection, partitions.ahead(NOW))
        assert await partitions.drop(connection, yesterday[1] - 1) == []
        assert await partitions.drop(connection, yesterday[1]) == [yesterday]
        assert min(await partitions.days(connection)) == TODAY


def test_a_day() -> None:
    """From midnight to midnight, UTC."""
    since, until = partitions.bounds(date(2026, 11, 22))
    assert datetime.fromtimestamp(since / 1e6, UTC).isoformat() == "2026-11-22T00:00:00+00:00"
    assert until - since == 86400 * 1_000_000


def test_days_between() -> None:
    """Both ends belong to them; of too many the newest."""
    today, tomorrow = partitions.bounds(TODAY)
    assert partitions.between(today, tomorrow - 1) == [TODAY]
    assert partitions.between(today, tomorrow) == [TODAY, TODAY + timedelta(days=1)]
    assert len(partitions.between(0, today)) == partitions.MOST_DAYS
    assert partitions.between(0, today)[-1] == TODAY
