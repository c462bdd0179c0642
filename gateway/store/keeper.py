"""What a gateway does with its database beside asking it: bring it back, write what requests leave behind
and what hosts were measured to be, keep house."""

import asyncio
from collections.abc import Callable
from pathlib import Path

from gateway.config import DatabaseConfig
from gateway.record import GenerationRecord
from gateway.store.alone import Claim
from gateway.store.engine import Database
from gateway.store.janitor import Janitor
from gateway.store.measured import Measurements
from gateway.store.records import Fate, Records
from gateway.tasks import Tasks

CLOSE_SECONDS = 5.0


class Keeper:
    """Owns the tasks around one database. ``put`` is a sink of records: it never waits."""

    def __init__(
        self,
        database: Database,
        config: DatabaseConfig,
        replica: str,
        clock: Callable[[], float],
        wall: Callable[[], float],
        *,
        label: Callable[[str], str],
        counted: Callable[[Fate, int], None],
        flushed: Callable[[float], None],
        deleted: Callable[[str, int], None],
        measurements: Measurements,
    ) -> None:
        self.database = database
        self.measurements = measurements
        self.records = Records(database, replica, clock, wall, label=label, counted=counted, flushed=flushed)
        self.janitor = Janitor(database, config, self.records, clock, wall, deleted)
        self._claim = Claim(Path(str(database.url.database))) if database.sqlite else None
        self._tasks = Tasks()

    def __repr__(self) -> str:
        return f"<Keeper of {self.database!r}>"

    def put(self, record: GenerationRecord) -> None:
        """Keep the record of a request that ended."""
        self.records.put(record)

    async def start(self, seconds: float) -> None:
        """Wait for the database, but not for longer than this; the rest happens in tasks."""
        await self.database.start(seconds)
        if self._claim is not None:
            await asyncio.to_thread(self._claim.take)
        self._tasks.spawn("database", self.database.run())
        self.records.start()
        self._tasks.spawn("janitor", self.janitor.run())
        self._tasks.spawn("measurements", self.measurements.run())

    async def close(self) -> None:
        """Write what waits, then leave nothing behind."""
        await self.records.close(CLOSE_SECONDS)
        await self._tasks.close()
        await self.measurements.close()
        await self.database.close()
        if self._claim is not None:
            self._claim.close()
