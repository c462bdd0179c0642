"""Many rows at once, on both kinds of database."""

import pytest
from sqlalchemy import select

from gateway.store import bulk
from gateway.store.engine import REFUSED, Database
from gateway.store.entries import Entry, minutes, ordered, row
from gateway.store.schema import requests, rollup_1m
from tests.store.recorded import numbered


async def test_what_is_written_is_read(database: Database) -> None:
    """Every column, as it was."""
    rows = [row(one, "r") for one in numbered(3, session=None, ttft_seconds=None)]
    async with database.writing() as connection:
        await bulk.insert(connection, requests, rows)
    async with database.reading() as connection:
        assert [tuple(found) for found in await connection.execute(select(requests).order_by(requests.c.id))] == rows


async def test_a_row_that_is_there_refuses_them_all(database: Database) -> None:
    """None of the others is left behind."""
    first, second = (row(one, "r") for one in numbered(2))

    async def write(*rows: tuple[object, ...]) -> None:
        async with database.writing() as connection:
            await bulk.insert(connection, requests, rows)

    await write(first)
    with pytest.raises(REFUSED):
        await write(second, first)
    async with database.reading() as connection:
        assert len((await connection.execute(select(requests.c.id))).all()) == 1


async def test_sums_are_added(database: Database) -> None:
    """To what is there under the same key."""
    sums = ordered(minutes(Entry(row(one, "r"), "m") for one in numbered(3)))
    async with database.writing() as connection:
        await bulk.add(connection, rollup_1m, sums)
        await bulk.add(connection, rollup_1m, sums)
        await bulk.add(connection, rollup_1m, [])
    async with database.reading() as connection:
        found = tuple((await connection.execute(select(rollup_1m))).one())
    assert found == (*sums[0][:5], *(2 * number for number in sums[0][5:]))
