"""Gateways that share a PostgreSQL: each knows who else is there and what they hold, and can stop what runs at another one."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from sqlalchemy import text

from gateway.config import DatabaseConfig
from gateway.errors import StoreUnavailable
from gateway.store import replicas as module
from gateway.store.engine import Database, State
from gateway.store.replicas import Replicas
from gateway.tasks import Tasks
from tests.sockets import until
from tests.store.postgres import Postgres

pytestmark = pytest.mark.parametrize("kind", ["postgresql"], indirect=True)


class Replica:
    """One of them: what runs there (id → since when), what it holds, and what it was told of the others."""

    def __init__(self, database: Database, name: str) -> None:
        self.database = database
        self.running: dict[str, float] = {}
        self.leases: dict[str, int] = {}
        self.elsewhere: dict[str, int] = {}
        self.tasks = Tasks()
        self.erased: list[str] = []
        self.whose: list[str | None] = []
        self.of = Replicas(database, name, self._stop, lambda: self.leases, self._told, self.tasks)

    def _stop(self, target: str, seconds: float, erased: bool, whose: str | None) -> int:
        self.whose.append(whose)
        if erased:
            self.erased.append(target)
        since = self.running.get(target)
        if since is None or time.monotonic() - since < seconds:
            return 0
        del self.running[target]
        return 1

    def _told(self, sums: object) -> None:
        self.elsewhere = dict(sums)  # type: ignore[call-overload]

    def run(self, target: str) -> None:
        """Something runs here."""
        self.running[target] = time.monotonic()


@asynccontextmanager
async def gateways(url: str, *names: str) -> AsyncIterator[list[Replica]]:
    """Each with its own connections; all know each other."""
    made = []
    for name in names:
        database = Database(DatabaseConfig(url, replicas=len(names)), time.monotonic)
        await database.start(30.0)
        assert database.state is State.UP
        made.append(Replica(database, name))
    for one in made:
        one.tasks.spawn("database", one.database.run())
        one.tasks.spawn("bus", one.of.bus.run())
    try:
        for one in made * 2:
            await one.of.beat()
        for one in made:
            await until(lambda one=one: one.of.bus.up, 20.0)  # type: ignore[misc]
            assert one.of.others == set(names) - {one.of.name}
        yield made
    finally:
        for one in made:
            await one.tasks.close()
            await one.database.close()


async def test_leases_of_the_others(url: str) -> None:
    """Summed by host; one's own are not in it; what was given back is gone with the next beat."""
    async with gateways(url, "a", "b", "c") as (a, b, c):
        a.leases, b.leases = {"gpu1": 1}, {"gpu1": 2, "gpu2": 1}
        for one in (a, b, c):
            await one.of.beat()
        await a.of.beat()
        assert (a.elsewhere, c.elsewhere) == ({"gpu1": 2, "gpu2": 1}, {"gpu1": 3, "gpu2": 1})
        b.leases = {"gpu2": 0}
        await b.of.beat()
        await c.of.beat()
        assert c.elsewhere == {"gpu1": 1}


async def test_who_left_and_who_fell_silent(url: str, postgres: Postgres) -> None:
    """The one at once, the other when what it said is stale; neither counts any more."""
    async with gateways(url, "a", "b", "c") as (a, b, c):
        b.leases = c.leases = {"gpu1": 1}
        for one in (b, c, a):
            await one.of.beat()
        assert a.elsewhere == {"gpu1": 2}
        await b.of.leave()
        await a.of.beat()
        assert (a.of.others, a.elsewhere) == ({"c"}, {"gpu1": 1})
        async with a.database.writing() as connection:
            for table in ("replicas", "replica_leases"):
                await connection.execute(text(f"UPDATE {table} SET seen_us = seen_us - 6000000"))
        await a.of.beat()
        assert (a.of.others, a.elsewhere) == (frozenset(), {})


async def test_stopping_elsewhere(url: str) -> None:
    """Whoever has it stops it; how many there were comes back, none included."""
    async with gateways(url, "a", "b", "c") as (a, b, c):
        a.run("g1")
        b.run("s1")
        c.run("s1")
        assert await b.of.cancel("g1") == 1
        assert a.running == {}
        assert await a.of.cancel("s1") == 2
        assert await a.of.cancel("nothing") == 0


async def test_whose_are_stopped(url: str) -> None:
    """Of one principal, or of all; also by who reads it later."""
    async with gateways(url, "a", "b") as (a, b):
        b.run("s1")
        assert await a.of.cancel("s1", whose="ann") == 1
        await a.of.cancel("s2")
        assert b.whose == ["ann", None]
        b.of._done.clear()
        b.of.bus._lost.set()
        await until(lambda: not b.of.bus.up)
        await until(lambda: b.of.bus.up and b.whose == ["ann", None, "ann", None], 20.0)


async def test_a_session_that_was_deleted(url: str) -> None:
    """The others hear that it is more than stopped; who did not hear it reads it when it listens again."""
    async with gateways(url, "a", "b", "c") as (a, b, c):
        b.run("s1")
        assert await a.of.cancel("s1", erased=True) == 1
        assert await a.of.cancel("s2") == 0
        assert (a.erased, b.erased, c.erased) == ([], ["s1"], ["s1"])
        b.of._done.clear()
        b.of.bus._lost.set()
        await until(lambda: not b.of.bus.up)
        await until(lambda: b.of.bus.up and b.erased == ["s1", "s1"], 20.0)


@pytest.mark.parametrize("target", ["x" * 200, "a\0b", "a\ud800b"])
async def test_what_cannot_be_told(url: str, target: str) -> None:
    """Nobody is asked, and the bus is none the worse."""
    async with gateways(url, "a", "b") as (a, b):
        assert await a.of.cancel(target) == 0
        b.run("s 'ü\" 1")
        assert await a.of.cancel("s 'ü\" 1") == 1
        assert a.of.bus.reconnects == 1


async def test_alone(url: str) -> None:
    """Nobody is asked, and nobody waited for."""
    async with gateways(url, "a") as (a,):
        assert await a.of.cancel("g1") == 0


async def test_a_server_that_falls_silent(url: str, postgres: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    """A gateway that has nothing to keep notices it as well, and the next caller is told at once."""
    async with gateways(url, "a", "b") as (a, _):
        monkeypatch.setattr(module, "STALE_SECONDS", 0.3)
        postgres.freeze()
        try:
            with pytest.raises(StoreUnavailable):
                await a.of.beat()
            assert not a.database.up
        finally:
            postgres.freeze(frozen=False)
        await until(lambda: a.database.up, 20.0)


async def test_one_that_does_not_answer(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others' answers count; the caller does not wait for long."""
    monkeypatch.setattr(module, "ANSWER_SECONDS", 0.2)
    async with gateways(url, "a", "b", "c") as (a, b, c):
        b.run("s1")
        c.run("s1")
        await c.tasks.close()
        assert await a.of.cancel("s1") == 1
        assert list(c.running) == ["s1"]


async def test_what_was_asked_while_the_server_was_away(
    url: str, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The word was lost, the row was not; what began after it was asked is left alone."""
    monkeypatch.setattr(module, "ANSWER_SECONDS", 0.2)
    async with gateways(url, "a", "b") as (a, b):
        b.run("s1")
        b.of.bus._lost.set()  # b's connection breaks
        await until(lambda: not b.of.bus.up)
        number = asyncio.ensure_future(a.of.cancel("s1"))  # noqa: TID251 - a caller of its own
        assert await number == 0
        b.run("s2")
        await until(lambda: b.running.keys() == {"s2"}, 20.0)
        postgres.stop()
        await until(lambda: not a.of.bus.up and not b.of.bus.up)
        with pytest.raises(StoreUnavailable):
            await a.of.cancel("s2")
        postgres.start()
        await until(lambda: a.of.bus.up and b.of.bus.up, 20.0)
        await until(lambda: a.database.up and b.database.up, 20.0)
        assert list(b.running) == ["s2"]
        monkeypatch.undo()
        assert await a.of.cancel("s2") == 1


async def test_a_number_that_is_given_twice(url: str) -> None:
    """As a server does that crashed before it had written the number down: the second one counts as well."""
    async with gateways(url, "a", "b") as (a, b):
        for target in ("g1", "g2"):
            b.run(target)
            assert await a.of.cancel(target) == 1
            async with a.database.writing() as connection:
                await connection.execute(text("TRUNCATE cancellations RESTART IDENTITY"))
        assert b.running == {}


async def test_it_runs_by_itself(url: str) -> None:
    """Every second, whatever becomes of the database; old rows are forgotten."""
    async with gateways(url, "a", "b") as (a, b):
        async with a.database.writing() as connection:
            await connection.execute(
                text("INSERT INTO cancellations (target, erased, asked_by, asked_us) VALUES ('x', false, 'z', 1)")
            )
            await connection.execute(text("INSERT INTO replicas (id, started_us, seen_us) VALUES ('z', 1, 1)"))
        b.leases = {"gpu1": 1}
        for one in (a, b):
            one.tasks.spawn("replicas", one.of.run())
        await until(lambda: a.elsewhere == {"gpu1": 1}, 20.0)
        async with asyncio.timeout(20.0):  # the old rows go after the first beat
            while await counted(a, "cancellations") or await counted(a, "replicas") > 2:
                pass
        assert await counted(a, "replicas") == 2


async def counted(replica: Replica, table: str) -> int:
    """Rows of a table."""
    async with replica.database.reading() as connection:
        return int((await connection.execute(text(f"SELECT count(*) FROM {table}"))).scalar_one())
