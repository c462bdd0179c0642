"""Everything that can befall a database, at a thousand records a second: what was taken in is written once, or counted as dropped."""

import asyncio
import re
import signal
import sqlite3
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import text

from gateway.store import records as records_module
from gateway.store.engine import State
from gateway.tasks import pause
from tests.conftest import Corral
from tests.processes import ROOT
from tests.sockets import until
from tests.store.postgres import Postgres
from tests.store.recorded import file_of, hold, kept, numbered
from tests.store.storm import PER_SECOND, storm

on_sqlite = pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
on_postgresql = pytest.mark.parametrize("kind", ["postgresql"], indirect=True)


@on_sqlite
async def test_locked_by_another_process(corral: Corral, url: str) -> None:
    """What comes meanwhile waits."""
    async with storm(corral, url) as wind:
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
async def test_a_queue_that_cannot_hold_it_all(corral: Corral, url: str) -> None:
    """What does not fit is dropped and counted, the rest is there."""
    async with storm(corral, url, capacity=300) as wind:
        await wind.written()
        with closing(await hold(file_of(url))) as other:
            await until(lambda: wind.fates["dropped_full"] > 100, 10.0)
            other.execute("ROLLBACK")
        await wind.written()
    assert set(wind.fates) == {"written", "dropped_full"}


@on_sqlite
async def test_a_full_disk(corral: Corral, url: str) -> None:
    """Found again and again, until there is space; what is there stays readable."""
    async with storm(corral, url) as wind:
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


async def test_records_that_are_refused(corral: Corral, url: str) -> None:
    """Each costs itself, not those that came with it: here some that are there already."""
    twice = numbered(3, received_at=time.time())
    async with storm(corral, url) as wind:
        for one in twice:
            wind.give(one)
        await wind.written(PER_SECOND // 4)
        for one in twice:
            wind.give(one)
            await wind.written(PER_SECOND // 4)
        await until(lambda: wind.fates["dropped_poison"] == 3, 10.0)
    assert set(wind.fates) == {"written", "dropped_poison"}


@on_sqlite
async def test_the_measure_itself(corral: Corral, url: str) -> None:
    """A writer that held up the loop for 30 ms, four times a second, would be noticed; a busy machine is not what is measured."""
    with pytest.raises(AssertionError, match="ms late"):  # noqa: PT012 - the end of the storm is what raises
        async with storm(corral, url):
            for _ in range(4):
                await pause(0.2)
                time.sleep(0.03)  # noqa: ASYNC251 - the loop is held up


@on_postgresql
async def test_down_at_the_start_and_restarted_in_between(corral: Corral, url: str, postgres: Postgres) -> None:
    """Nothing is lost: tables are made once it is there, and a batch of which nobody knows counts once."""
    postgres.stop()
    async with storm(corral, url) as wind:
        assert wind.database.state is State.DOWN
        await wind.blow(0.3)
        postgres.start()
        wind.lag.excuse()
        await wind.written(PER_SECOND)
        # In a crash the server of the tests, which does not sync, forgets what it confirmed.
        postgres.stop(signal.SIGINT)
        postgres.start()
        wind.lag.excuse()
        await wind.written(PER_SECOND)
    assert set(wind.fates) == {"written"}
    assert wind.database.failures >= 1


@on_postgresql
async def test_a_server_that_freezes(
    corral: Corral, url: str, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says nothing and breaks no connection: given up after a while, and nothing is there twice."""
    monkeypatch.setattr(records_module, "ATTEMPT_SECONDS", 0.5)
    async with storm(corral, url) as wind:
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
async def test_a_server_whose_disk_is_full(corral: Corral, url: str) -> None:
    """As it says it itself, in the midst of a COPY."""
    full = "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE disk_full; END'"
    async with storm(corral, url) as wind:
        await wind.written()
        async with wind.database.writing() as connection:
            await connection.execute(text(full))
            every = "CREATE TRIGGER t BEFORE INSERT ON requests FOR EACH ROW EXECUTE FUNCTION f()"
            await connection.execute(text(every))
        await until(lambda: wind.database.failures >= 2, 20.0)
        await wind.database.until_up()
        async with wind.database.writing() as connection:
            await connection.execute(text("DROP TRIGGER t ON requests"))
        await wind.written()
    assert set(wind.fates) == {"written"}


WRITES = """
import asyncio, sys
from gateway.app import running
from tests.builders import config
from tests.store.storm import Storm

async def main():
    async with running(config([], database={"url": sys.argv[1]}, log={"path": sys.argv[2]})) as gateway:
        wind = Storm(gateway)
        wind.start()
        while True:
            await wind.written()
            print("written", wind.fates["written"], flush=True)

asyncio.run(main())
"""


@on_sqlite
async def test_a_writer_that_is_killed(url: str, database: object, tmp_path: Path) -> None:
    """What it had written is there, whole: the batch it was at is there or is not, never by half."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", WRITES, url, str(tmp_path / "log"), cwd=ROOT, stdout=asyncio.subprocess.PIPE
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
