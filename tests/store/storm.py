"""A thousand records a second into a database that fares ill, and the account at the end."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any

from gateway.config import DatabaseConfig
from gateway.store.engine import Database, State
from gateway.store.records import Records
from gateway.tasks import Tasks, pause
from tests.sockets import until
from tests.store.recorded import Fates, kept, numbered

PER_SECOND = 1000
TICK_SECONDS = 0.01


class Storm:
    """Puts records from its start to its end. ``lags`` are how late each tick was, in seconds."""

    def __init__(self, url: str, **options: Any) -> None:
        self.database = Database(DatabaseConfig(url), time.monotonic)
        self.fates = Fates()
        self.records = Records(self.database, "r", time.monotonic, time.time, counted=self.fates, **options)
        self.put = 0
        self.lags: list[float] = []
        self._tasks = Tasks()

    async def start(self) -> None:
        """The database's own start as well, whatever comes of it."""
        await self.database.start(5.0)
        self._tasks.spawn("database", self.database.run())
        self.records.start()
        self._tasks.spawn("storm", self._blow())

    async def _blow(self) -> None:
        began = time.monotonic()
        while True:
            due = time.monotonic() + TICK_SECONDS
            await pause(TICK_SECONDS)
            now = time.monotonic()
            self.lags.append(now - due)
            for one in numbered(int((now - began) * PER_SECOND) - self.put):
                self.records.put(one)
                self.put += 1

    async def blow(self, seconds: float) -> None:
        """For so long."""
        await pause(seconds)

    async def written(self, more: int = 1) -> None:
        """Until so many more are."""
        enough = self.fates["written"] + more
        await until(lambda: self.fates["written"] >= enough, 30.0)

    async def end(self) -> None:
        """Once the database is there again. What was put in is all accounted for, and what was written is there, once."""
        await until(lambda: self.database.state is State.UP, 30.0)
        await self._stop("storm")
        await self.records.close(30.0)
        assert self.fates.total() == self.put
        assert self._tasks.failures == 0
        found = await kept(self.database)
        assert found["rows"] == found["minutes"] == found["hours"] == self.fates["written"]

    async def close(self) -> None:
        """Leave nothing behind, however it went."""
        await self._tasks.close()
        await self.records.close(0.0)
        await self.database.close()

    async def _stop(self, name: str) -> None:
        for task in asyncio.all_tasks():
            if task.get_name() == name:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task


@contextlib.asynccontextmanager
async def storm(url: str, **options: Any) -> AsyncIterator[Storm]:
    """A storm that has begun."""
    made = Storm(url, **options)
    await made.start()
    try:
        yield made
        await made.end()
    finally:
        await made.close()
