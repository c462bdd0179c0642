"""Keeps house: watches the disk, erases sessions that are due, and every hour deletes what is over its time, makes the days to come and lets the file shrink."""

import asyncio
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

from sqlalchemy import func, select

from gateway.config import DatabaseConfig
from gateway.errors import StoreUnavailable
from gateway.store import partitions
from gateway.store.engine import Database
from gateway.store.records import Records
from gateway.store.retention import SECOND_US, alone, erase, prune
from gateway.store.schema import requests, sessions
from gateway.store.space import GIB, Room, Space, Usage
from gateway.tasks import pause, supervise

LOOK_SECONDS = 10.0
ROUND_SECONDS = 3600.0
log = logging.getLogger(__name__)


def _disk(folder: Path) -> Usage:
    return Usage(*shutil.disk_usage(folder))


class Janitor:
    """``run`` is its task. ``deleted``: told of each table and how many rows; ``usage``: of the disk that a folder is on."""

    def __init__(
        self,
        database: Database,
        config: DatabaseConfig,
        records: Records,
        clock: Callable[[], float],
        wall: Callable[[], float],
        deleted: Callable[[str, int], None],
        usage: Callable[[Path], Usage] = _disk,
    ) -> None:
        self._database, self._config, self._records = database, config, records
        self._clock, self._wall, self._deleted = clock, wall, deleted
        self.space = Space(Path(str(database.url.database)), usage) if database.sqlite else None
        self.oldest_at: float | None = None  # Unix seconds of the oldest row, at the last round
        self._due = 0.0

    async def run(self) -> None:
        """For ever."""
        await supervise("the database's janitor", self.step, self._rest)

    async def _rest(self) -> None:
        await pause(LOOK_SECONDS)

    async def step(self) -> None:
        """Look at the disk, erase what is due, and go round if it is time."""
        if self.space is not None:
            await self._look(self.space)
        await self._database.until_up()
        try:
            if erased := await erase(self._database, self._wall()):
                self._deleted(sessions.name, erased)
            if self._clock() >= self._due:
                await self.round()
                self._due = self._clock() + ROUND_SECONDS
        except StoreUnavailable as error:
            log.debug("keeping house waits: %s", error.message)

    async def _look(self, space: Space) -> None:
        before = space.room
        try:
            now = await asyncio.to_thread(space.look)
        except OSError as error:  # the folder is not there, or nothing can be set aside: the database says the rest
            log.debug("the disk of the database: %s", error)
            return
        if self._records.sums_only and now is Room.LOW:
            return  # rows are kept again once there is ample room: the edge must not be crossed back and forth
        self._records.sums_only = now is Room.SCARCE
        if now is before:
            return
        if now is Room.SCARCE:
            log.error("the database's disk is nearly full, %.1f GiB free: requests leave only sums", space.free / GIB)
            self._due = 0.0
        elif now is Room.LOW:
            log.warning("the database's disk fills up: %.1f GiB free", space.free / GIB)
        else:
            log.info("the database's disk has room again: %.1f GiB free", space.free / GIB)

    async def round(self) -> None:
        """Everything that is due by the hour. Raises StoreUnavailable."""
        if not self._database.sqlite:
            async with self._database.writing() as connection:
                if await alone(connection):
                    await partitions.make(connection, partitions.ahead(self._wall()))
        deleted = await prune(self._database, self._config, self._wall())
        for table, rows in deleted.items():
            self._deleted(table, rows)
        if deleted:
            log.info(
                "deleted for their age: %s", ", ".join(f"{rows} rows of {table}" for table, rows in deleted.items())
            )
        await self._database.tidy()
        async with self._database.reading() as connection:
            oldest = (await connection.execute(select(func.min(requests.c.ts_us)))).scalar()
        self.oldest_at = None if oldest is None else oldest / SECOND_US
