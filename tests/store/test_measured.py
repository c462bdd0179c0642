"""What was measured is there at the next start, faded by then; and of several gateways whoever has measured more is right."""

import math
import time
from collections.abc import Iterable

import pytest
from sqlalchemy import func, select, text

from gateway.remembered import Measured, What
from gateway.store import measured as module
from gateway.store.engine import Database
from gateway.store.measured import KEPT_SECONDS, Measurements
from gateway.store.schema import measured as table
from gateway.tasks import Tasks
from tests.sockets import until

NOW = time.monotonic()
DAY = 86_400.0
URL = "http://gpu1.test:11434"


def row(value: float = 2.0, *, weight: float = 1.0, at: float = NOW, **changes: object) -> Measured:
    """How long a model takes to load on gpu1."""
    usual = {"host": "gpu1", "digest": "d1", "what": What.LOAD_SECONDS, "url": URL}
    return Measured(**(usual | changes), value=value, weight=weight, at=at)  # type: ignore[arg-type]


class Gateway:
    """One gateway's part of it: what it has measured, and what it was told."""

    def __init__(self, database: Database) -> None:
        self.new: list[Measured] = []
        self.told: list[Measured] = []
        self.measurements = Measurements(
            database, time.monotonic, lambda: list(self.new), self._written, self.told.extend
        )

    def _written(self, rows: Iterable[Measured]) -> None:
        self.new = [one for one in self.new if one not in list(rows)]

    async def writes(self, *rows: Measured) -> None:
        """Measure these, and write them."""
        self.new.extend(rows)
        await self.measurements.write()
        assert self.new == []

    async def reads(self) -> list[Measured]:
        """What a start would be told."""
        self.told.clear()
        await self.measurements.read()
        return list(self.told)


@pytest.fixture
def gateway(database: Database) -> Gateway:
    """On an empty database."""
    return Gateway(database)


async def test_all_of_it_comes_back(gateway: Gateway) -> None:
    """The oldest first, with its time; also what needs many statements."""
    rows = [row(1.0 + number, digest=f"d{number}", at=NOW - number) for number in range(600)]
    await gateway.writes(*rows, row(5e9, weight=5e9, digest="", what=What.VRAM_BYTES, at=NOW + 1))
    found = await gateway.reads()
    assert [one._replace(weight=0.0, at=0.0) for one in found[:-1]] == [
        one._replace(weight=0.0, at=0.0) for one in reversed(rows)
    ]
    assert (found[-1].what, found[-1].value, found[-1].digest) == (What.VRAM_BYTES, 5e9, "")
    assert found[0].at == pytest.approx(NOW - 599, abs=30.0)
    assert found[0].weight == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize(
    ("weight", "days", "left"),
    [
        pytest.param(10.0, 0, 10.0, id="just measured"),
        pytest.param(10.0, 15, 5.0, id="half of it after half of the time"),
        pytest.param(1.0, 14, 0.533, id="one sample"),
        pytest.param(1.0, 16, None, id="one sample, forgotten"),
        pytest.param(20.0, 29, 0.667, id="many samples"),
        pytest.param(20.0, 31, None, id="many samples, forgotten"),
    ],
)
async def test_it_fades(gateway: Gateway, database: Database, weight: float, days: int, left: float | None) -> None:
    """The more samples a value rests on, the longer it is known; what is forgotten is deleted."""
    await gateway.writes(row(weight=weight, at=NOW - days * DAY))
    found = await gateway.reads()
    assert [one.weight for one in found] == ([] if left is None else [pytest.approx(left, abs=0.01)])
    await gateway.measurements.prune()
    async with database.reading() as connection:
        assert (await connection.execute(select(func.count()).select_from(table))).scalar_one() == len(found)


WRITES = {
    "the same, measured later": (row(2.0, weight=3.0, at=NOW - 60), row(3.0, weight=3.0), 3.0),
    "a first sample after an average": (row(2.0, weight=20.0, at=NOW - 60), row(9.0, weight=1.0), 2.0),
    "an average after a first sample": (row(9.0, weight=1.0, at=NOW - 60), row(2.0, weight=20.0), 2.0),
    "an average that is written late": (row(9.0, weight=1.0), row(2.0, weight=20.0, at=NOW - 60), 2.0),
    "an average that is old": (row(2.0, weight=20.0, at=NOW - 29 * DAY), row(9.0, weight=1.0), 9.0),
    "of another host under the name": (row(2.0, weight=20.0), row(9.0, weight=1.0, url="http://new.test"), 9.0),
    "less memory than was ever seen": (row(8e9, weight=8e9, at=NOW - DAY), row(5e9, weight=5e9), 8e9),
    "less memory, after weeks": (row(8e9, weight=8e9, at=NOW - 20 * DAY), row(5e9, weight=5e9), 5e9),
}


@pytest.mark.parametrize("name", WRITES)
async def test_two_gateways(database: Database, name: str) -> None:
    """Do not spoil each other's values."""
    first, second, right = WRITES[name]
    await Gateway(database).writes(first)
    await Gateway(database).writes(second)
    assert [one.value for one in await Gateway(database).reads()] == [right]


async def test_a_clock_that_was_set_back(gateway: Gateway, database: Database) -> None:
    """A row from the future does not stand in the way."""
    await gateway.writes(row(2.0, weight=20.0))
    async with database.writing() as connection:
        await connection.execute(text("UPDATE measured SET measured_us = measured_us + 86400000000"))
    await gateway.writes(row(9.0, weight=1.0))
    assert [one.value for one in await gateway.reads()] == [9.0]


async def test_what_cannot_be_kept(gateway: Gateway, database: Database) -> None:
    """Digests that are none, and values without end: they keep nothing else from being written. Rows that make no sense are not believed."""
    bad = [row(digest="d" * 200), row(digest="half \ud800"), row(digest="nul \0"), row(math.inf, digest="d2")]
    await gateway.writes(*bad, row(7.0))
    assert [one.value for one in await gateway.reads()] == [7.0]
    insert = "INSERT INTO measured VALUES ('gpu1', :digest, :what, 'u', :value, 5, :us)"
    now_us = int(time.time() * 1e6)
    async with database.writing() as connection:
        for digest, what, value in (("a", "load_seconds", -1.0), ("b", "load_seconds", 0.0), ("c", "a new word", 1.0)):
            named = {"digest": digest, "what": what, "value": value, "us": now_us}
            await connection.execute(text(insert), named)
    assert [one.value for one in await gateway.reads()] == [7.0]


async def test_there_is_a_bound(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest rows go."""
    monkeypatch.setattr(module, "ROWS_LIMIT", 3)
    await gateway.writes(*(row(1.0 + number, digest=f"d{number}", at=NOW - number) for number in range(9)))
    await gateway.measurements.prune()
    monkeypatch.undo()
    assert [one.value for one in await gateway.reads()] == [3.0, 2.0, 1.0]


async def test_the_task(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reads once, then writes now and then; the end writes what is left."""
    await gateway.writes(row(2.0))
    monkeypatch.setattr(module, "WRITE_SECONDS", 0.01)
    tasks = Tasks()
    tasks.spawn("measurements", gateway.measurements.run())
    await until(lambda: [one.value for one in gateway.told] == [2.0])
    gateway.new.append(row(3.0, digest="d2"))
    await until(lambda: not gateway.new)
    monkeypatch.setattr(module, "WRITE_SECONDS", 60.0)
    await tasks.close()
    gateway.new.append(row(4.0, digest="d3"))
    await gateway.measurements.close()
    assert sorted(one.value for one in await gateway.reads()) == [2.0, 3.0, 4.0]


def test_what_is_kept_fits_its_column() -> None:
    """Every word, and the time of it."""
    assert max(map(len, What)) <= table.c.what.type.length
    assert KEPT_SECONDS * 1e6 < 2**53
