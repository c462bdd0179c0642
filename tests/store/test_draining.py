"""Which hosts drain: written when it can be, read again, and the last who asked is right."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from sqlalchemy import text

from gateway.config import DatabaseConfig
from gateway.store import draining as module
from gateway.store.draining import Draining
from gateway.store.engine import Database, State
from gateway.store.none import NoDatabase
from gateway.tasks import Tasks
from tests.sockets import until
from tests.store.postgres import Postgres
from tests.store.recorded import file_of, hold

on_sqlite = pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
on_postgresql = pytest.mark.parametrize("kind", ["postgresql"], indirect=True)


class Told(list[frozenset[str]]):
    """What the fleet was told, in order."""

    def __call__(self, hosts: frozenset[str]) -> None:
        self.append(hosts)


@asynccontextmanager
async def operator(url: str, clock: Callable[[], float] = time.monotonic) -> AsyncIterator[Draining]:
    """One gateway's part of it, on connections of its own; the database may be away."""
    database, tasks = Database(DatabaseConfig(url), time.monotonic), Tasks()
    await database.start(30.0)
    made = Draining(database, clock, Told())
    tasks.spawn("database", database.run())
    await made.start(5.0)
    tasks.spawn("draining", made.run())
    try:
        yield made
    finally:
        await tasks.close()
        await database.close()


async def test_it_outlives_the_gateway(url: str) -> None:
    """What was asked last is there at the next start, before anything else happens."""
    async with operator(url) as here:
        assert here.hosts == frozenset()
        assert await here.drain("gpu1", draining=True)
        assert await here.drain("gpu2", draining=True)
        assert await here.drain("gpu2", draining=False)
        assert here._tell == [{"gpu1"}, {"gpu1", "gpu2"}, {"gpu1"}]
    async with operator(url) as again:
        assert again._tell == [{"gpu1"}]
        assert await again.drain("gpu1", draining=False)
    async with operator(url) as at_last:
        assert (at_last.hosts, at_last._tell) == (frozenset(), [])


async def test_asked_in_one_breath(url: str) -> None:
    """Many operators at once: all are answered, and the last one's word stands."""
    async with operator(url) as here:
        asked = [here.drain("gpu1", draining=bool(number % 2)) for number in range(20)]
        assert all(await asyncio.gather(*asked))
        assert here.hosts == {"gpu1"}
        await here.look()
        assert here.hosts == {"gpu1"}


@on_postgresql
async def test_the_others_follow(url: str) -> None:
    """Within a second or so, both ways."""
    async with operator(url) as here, operator(url) as there:
        assert await here.drain("gpu1", draining=True)
        await until(lambda: there.hosts == {"gpu1"}, 5.0)
        assert await there.drain("gpu1", draining=False)
        await until(lambda: here.hosts == frozenset(), 5.0)


@on_postgresql
async def test_the_last_who_asked_is_right(url: str) -> None:
    """Though what was asked first is written last, as it could not be written then; and whatever the gateways' own clocks say."""
    async with operator(url) as here, operator(url, clock=lambda: time.monotonic() + 1e6) as there:
        here._database._become(State.DOWN, "a test")  # type: ignore[union-attr]
        assert not await here.drain("gpu1", draining=True)
        assert not await here.drain("gpu2", draining=True)
        assert await there.drain("gpu1", draining=True)
        assert await there.drain("gpu1", draining=False)
        here._database._become(State.UP, "")  # type: ignore[union-attr]
        await until(lambda: here.hosts == there.hosts == {"gpu2"}, 10.0)


async def test_a_clock_that_was_set_back(url: str) -> None:
    """A row from the future does not forbid what is asked now."""
    async with operator(url) as here:
        await here.drain("gpu1", draining=True)
        async with here._database.writing() as connection:
            await connection.execute(text("UPDATE host_states SET updated_us = updated_us + 86400000000"))
        assert await here.drain("gpu1", draining=False)
        assert here.hosts == frozenset()


@on_sqlite
async def test_a_file_that_another_process_holds(url: str) -> None:
    """It counts at once, the answer does not wait for it, and it is written afterwards."""
    async with operator(url) as here:
        other = await hold(file_of(url))
        asked = time.monotonic()
        assert not await here.drain("gpu1", draining=True)
        assert time.monotonic() - asked < 4.0
        assert here.hosts == {"gpu1"}
        other.execute("ROLLBACK")
        other.close()
        await until(lambda: not here._asks, 20.0)
    async with operator(url) as again:
        assert again.hosts == {"gpu1"}


@on_postgresql
async def test_a_server_that_is_away(url: str, postgres: Postgres) -> None:
    """At the start nobody knows; what is asked meanwhile counts, and what was known is there again with the server."""
    async with operator(url) as before:
        await before.drain("gpu1", draining=True)
        await before.drain("gpu2", draining=True)
    postgres.stop(signal.SIGINT)  # in a crash the server of the tests, which does not sync, forgets what it confirmed
    async with operator(url) as here:
        assert here.hosts == frozenset()
        assert not await here.drain("gpu2", draining=False)
        assert not await here.drain("gpu3", draining=True)
        assert here.hosts == {"gpu3"}
        postgres.start()
        await until(lambda: here.hosts == {"gpu1", "gpu3"} and not here._asks, 20.0)
    async with operator(url) as again:
        assert again.hosts == {"gpu1", "gpu3"}


async def test_names_that_come_and_go(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not add up: the oldest is forgotten, whether it is written or waits."""
    monkeypatch.setattr(module, "HOSTS_LIMIT", 3)
    async with operator(url) as here:
        for number in range(5):
            assert await here.drain(f"gpu{number}", draining=True)
        assert here.hosts == {"gpu2", "gpu3", "gpu4"}
    nowhere = Draining(NoDatabase(), time.monotonic, Told())
    for number in range(5):
        await nowhere.drain(f"gpu{number}", draining=True)
    assert nowhere.hosts == {"gpu2", "gpu3", "gpu4"}


async def test_no_database() -> None:
    """Then it counts as long as the gateway runs."""
    here = Draining(NoDatabase(), time.monotonic, Told())
    assert not await here.drain("gpu1", draining=True)
    assert here.hosts == {"gpu1"}
