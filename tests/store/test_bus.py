"""Words between gateways on one PostgreSQL: they arrive, and a connection that is lost in any way is made again."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from gateway.errors import StoreUnavailable
from gateway.store.bus import WORD_BYTES, Bus
from gateway.store.engine import parsed
from gateway.tasks import Tasks
from tests.sockets import until
from tests.store.postgres import Postgres


class Listener:
    """One end of the bus, what it heard, and how often it was told to look again."""

    def __init__(self, postgres: Postgres, name: str) -> None:
        self.words: list[str] = []
        self.looked = 0
        self.bus = Bus(parsed(postgres.url), name, self.words.append, self._look, beat_seconds=0.2)

    async def _look(self) -> None:
        self.looked += 1

    async def up(self) -> None:
        """Wait until it is."""
        await until(lambda: self.bus.up, 20.0)


@asynccontextmanager
async def listeners(postgres: Postgres, *names: str) -> AsyncIterator[list[Listener]]:
    """Ends that are up."""
    tasks = Tasks()
    made = [Listener(postgres, name) for name in names]
    for listener in made:
        tasks.spawn(f"bus {listener}", listener.bus.run())
    try:
        for listener in made:
            await listener.up()
        yield made
    finally:
        await tasks.close()
    assert not any(listener.bus.up for listener in made)


async def test_words_reach_all(postgres: Postgres) -> None:
    """In order, the speaker included; nobody hears what one says to oneself to see whether it comes back."""
    async with listeners(postgres, "a", "b", "c") as (a, b, c):
        for word in ("one", "two", "three", "é" * (WORD_BYTES // 2)):
            await a.bus.say(word)
        for listener in (a, b, c):
            await until(lambda listener=listener: len(listener.words) == 4)  # type: ignore[misc]
            assert listener.words[:3] == ["one", "two", "three"]
        assert [listener.looked for listener in (a, b, c)] == [1, 1, 1]


async def test_words_that_are_too_long(postgres: Postgres) -> None:
    """Are refused here, in bytes as the server counts."""
    async with listeners(postgres, "a") as (a,):
        with pytest.raises(ValueError, match="8000 bytes"):
            await a.bus.say("é" * 4000)


async def test_many_words_at_once(postgres: Postgres) -> None:
    """One connection does one thing at a time; all arrive."""
    async with listeners(postgres, "a", "b") as (a, b):
        await asyncio.gather(*(a.bus.say(str(number)) for number in range(200)))
        await until(lambda: len(b.words) == 200)
        assert {int(word) for word in b.words} == set(range(200))


async def test_a_server_that_restarts(postgres: Postgres) -> None:
    """What was said meanwhile is lost: so who listens is told to look again."""
    async with listeners(postgres, "a", "b") as (a, b):
        postgres.stop()
        await until(lambda: not a.bus.up)
        with pytest.raises(StoreUnavailable):
            await a.bus.say("lost")
        postgres.start()
        await a.up()
        await b.up()
        assert (a.looked, b.looked) == (2, 2)
        await a.bus.say("hello again")
        await until(lambda: b.words == ["hello again"])


async def test_a_server_that_falls_silent(postgres: Postgres) -> None:
    """The connection stays open, and no event tells of it: it is asked, and left."""
    async with listeners(postgres, "a") as (a,):
        frozen = int(postgres.sql("SELECT pid FROM pg_stat_activity WHERE application_name = 'corral bus' LIMIT 1"))
        os.kill(frozen, signal.SIGSTOP)
        try:
            await until(lambda: a.looked == 2, 20.0)
            await a.up()
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(frozen, signal.SIGCONT)


async def test_a_server_that_is_not_there(postgres: Postgres) -> None:
    """Comes later, and is found."""
    postgres.stop()
    tasks, listener = Tasks(), Listener(postgres, "a")
    tasks.spawn("bus", listener.bus.run())
    with pytest.raises(StoreUnavailable):
        await listener.bus.say("nobody hears")
    postgres.start()
    await listener.up()
    await tasks.close()
