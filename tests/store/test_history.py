"""Pages of rows: nothing twice, nothing missing, in either direction."""

import pytest

from gateway.record import Outcome
from gateway.store import history
from gateway.store.engine import Database
from gateway.store.entries import Row
from gateway.store.history import FAILED, Filter, Position, one, page, pages
from tests.store.recorded import NOW, numbered
from tests.store.test_retention import write

EVER = Filter(0, NOW * 2)


@pytest.fixture
async def filled(database: Database) -> Database:
    """Fifty rows of five moments."""
    await write(
        database,
        [
            *[record for number in range(5) for record in numbered(8, received_at=NOW + number, session=f"s{number}")],
            *numbered(10, received_at=NOW + 2, outcome=Outcome.NO_HOST, host=None, model="b", priority="background"),
        ],
    )
    return database


async def found(database: Database, wanted: Filter, after: Position | None = None, limit: int = 100) -> list[Row]:
    """A page, newest first."""
    async with database.reading() as connection:
        query = page(wanted, newest_first=True, after=after, limit=limit)
        return [Row(*row) for row in await connection.execute(query)]


async def test_pages_newest_first(filled: Database) -> None:
    """Each begins where the last one ended, also between rows of one moment."""
    everything = await found(filled, EVER)
    assert len(everything) == 50
    assert everything == sorted(everything, key=lambda row: (row.ts_us, row.id), reverse=True)
    together: list[Row] = []
    while len(rows := await found(filled, EVER, Position(*together[-1][:2]) if together else None, 7)) == 7:
        together += rows
    assert [*together, *rows] == everything


@pytest.mark.parametrize("size", [7, 10, 50, 51])
async def test_pages_oldest_first(filled: Database, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until there is no more."""
    monkeypatch.setattr(history, "PAGE", size)
    got = [row async for rows in pages(filled, EVER) for row in rows]
    assert got == (await found(filled, EVER))[::-1]


@pytest.mark.parametrize(
    ("wanted", "count"),
    [
        (EVER._replace(since=NOW + 1, until=NOW + 3), 26),
        (EVER._replace(model="b"), 10),
        (EVER._replace(host="gpu1"), 40),
        (EVER._replace(session="s3"), 8),
        (EVER._replace(principal=""), 50),
        (EVER._replace(outcome=FAILED), 10),
        (EVER._replace(outcome="ok", session="s2"), 8),
        (EVER._replace(outcome="rejected"), 0),
        (EVER._replace(priority="background"), 10),
        (EVER._replace(priority="normal", session="s2"), 8),
    ],
)
async def test_filters(filled: Database, wanted: Filter, count: int) -> None:
    """Each alone, and together."""
    assert len(await found(filled, wanted)) == count


async def test_one(database: Database) -> None:
    """By its id alone, which says when it was."""
    id_ = f"{int(NOW * 1000):011x}{7:013x}"
    await write(database, [*numbered(3), *numbered(1, id=id_, received_at=NOW + 0.5)])
    async with database.reading() as connection:
        rows = (await connection.execute(one(id_))).all()
        assert [row.id for row in rows] == [id_]
        for other in ("", "x" * 24, "f" * 24, id_[:-1] + "8"):
            assert (await connection.execute(one(other))).all() == []
