"""Everything that can befall a database, at a thousand records a second: what was taken in is written once, or counted as dropped."""

import asyncio
import re
import signal
import sqlite3
import sys
from contextlib import closing

import pytest
from sqlalchemy import text

from gateway.store import records as records_module
from gateway.store.engine import State
from tests.processes import ROOT
from tests.sockets import until
from tests.store.postgres import Postgres
from tests.store.recorded import file_of, hold, kept
from tests.store.storm import PER_SECOND, storm

on_sqlite = pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
on_postgresql = pytest.mark.parametrize("kind", ["postgresql"], indirect=True)


@on_sqlite
async def test_locked_by_another_process(url: str) -> None:
    """What comes meanwhile waits."""
    async with storm(url) as wind:
        await wind.written()
        with closing(await hold(file_of(url))) as other:
            before = wind.fates["written"]
            await wind.blow(1.2)
            assert wind.records.depth >= PER_SECOND / 2
            assert wind.fates["written"] <= before + records_module.BATCH
            other.execute("ROLLBACK")
        await wind.written()
    assert set(wind.fates) == {"written"}


@on_sqlite
async def test_a_queue_that_cannot_hold_it_all(url: str) -> None:
    """What does not fit is dropped and counted, the rest is there."""
    async with storm(url, capacity=300) as wind:
        await wind.written()
        with closing(await hold(file_of(url))) as other:
            await until(lambda: wind.fates["dropped_full"] > 100, 10.0)
            other.execute("ROLLBACK")
        await wind.written()
    assert set(wind.fates) == {"written", "dropped_full"}


@on_sqlite
async def test_a_full_disk(url: str) -> None:
    """Found again and again, until there is space; what is there stays readable."""
    async with storm(url) as wind:
        await wind.written()
        async with wind.database.writing() as connection:
            pages = (await connection.execute(text("PRAGMA page_count"))).scalar_one()
            await connection.execute(text(f"PRAGMA max_page_count = {pages}"))
        await until(lambda: wind.database.failures >= 2, 20.0)
        assert "full" in wind.database.why or wind.database.state is State.UP
        with closing(sqlite3.connect(f"file:{file_of(url)}?mode=ro", uri=True)) as other:
            assert other.execute("SELECT count(*) FROM requests").fetchone()[0] >= wind.fates["written"]
        await wind.database.until_up()
        async with wind.database.writing() as connection:
            await connection.execute(text("PRAGMA max_page_count = 1073741823"))
        await wind.written()
    assert set(wind.fates) == {"written"}
    with closing(sqlite3.connect(file_of(url))) as other:
        assert other.execute("PRAGMA integrity_check").fetchone() == ("ok",)


@on_postgresql
async def test_down_at_the_start_and_restarted_in_between(url: str, postgres: Postgres) -> None:
    """Nothing is lost: tables are made once it is there, and a batch of which nobody knows counts once."""
    postgres.stop()
    async with storm(url) as wind:
        assert wind.database.state is State.DOWN
        await wind.blow(0.3)
        postgres.start()
        await wind.written(PER_SECOND)
        postgres.stop(
            signal.SIGINT
        )  # in a crash the server of the tests, which does not sync, forgets what it confirmed
        postgres.start()
        await wind.written(PER_SECOND)
    assert set(wind.fates) == {"written"}
    assert wind.database.failures >= 1


@on_postgresql
async def test_a_server_that_freezes(url: str, postgres: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says nothing and breaks no connection: given up after a while, and nothing is there twice."""
    monkeypatch.setattr(records_module, "ATTEMPT_SECONDS", 0.5)
    async with storm(url) as wind:
        await wind.written()
        postgres.freeze()
        try:
            await until(lambda: wind.database.state is State.DOWN, 10.0)
            await wind.blow(0.5)
        finally:
            postgres.freeze(frozen=False)
        await wind.written(PER_SECOND)
    assert set(wind.fates) == {"written"}


@on_postgresql
async def test_a_server_whose_disk_is_full(url: str) -> None:
    """As it says it itself, in the midst of a COPY."""
    full = "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE disk_full; END'"
    async with storm(url) as wind:
        await wind.written()
        async with wind.database.writing() as connection:
            await connection.execute(text(full))
            every = "CREATE TRIGGER t BEFORE INSERT ON requests_other FOR EACH ROW EXECUTE FUNCTION f()"
            await connection.execute(text(every))
        await until(lambda: wind.database.failures >= 2, 20.0)
        await wind.database.until_up()
        async with wind.database.writing() as connection:
            await connection.execute(text("DROP TRIGGER t ON requests_other"))
        await wind.written()
    assert set(wind.fates) == {"written"}


WRITES = """
import asyncio, sys
from tests.store.storm import storm

async def main():
    async with storm(sys.argv[1]) as wind:
        while True:
            await wind.written()
            print("written", wind.fates["written"], flush=True)

asyncio.run(main())
"""


@on_sqlite
async def test_a_writer_that_is_killed(url: str, database: object) -> None:
    """What it had written is there, whole: the batch it was at is there or is not, never by half."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", WRITES, url, cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    written = 0
    while written < PER_SECOND:
        found = re.match(rb"written (\d+)", await asyncio.wait_for(process.stdout.readline(), 20.0))
        assert found is not None
        written = int(found[1])
    process.send_signal(signal.SIGKILL)
    await process.communicate()
    counts = await kept(database)  # type: ignore[arg-type]
    assert counts["rows"] >= written
    assert counts["rows"] == counts["minutes"] == counts["hours"]
    with closing(sqlite3.connect(file_of(url))) as other:
        assert other.execute("PRAGMA quick_check").fetchone() == ("ok",)
