"""What the fleet has measured, kept so that the next start begins with it: read once, then what is new is written every minute, and at the end.

A row is one value, with how many samples it rests on and when the last of them was. Samples fade: over KEPT_SECONDS down to none, and a value
that has less than half a sample left is forgotten. So are hosts and models that are gone; one that is only away for a while is known when it is back.

Of gateways on one PostgreSQL whoever rests on more samples is right, as these are faded by then, and of equals whoever measured last. That the last
writer alone were right would not do: the first sample of a gateway that has just begun, and could not read what others know, would
take the place of an average over many.
"""

import asyncio
import logging
import re
import time
from collections.abc import Callable, Iterable, Sequence
from math import inf
from typing import Any

from sqlalchemy import Double, cast, delete, literal, literal_column, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.errors import StoreUnavailable
from gateway.plural import counted
from gateway.remembered import Measured, What
from gateway.store.bulk import INSERTS
from gateway.store.engine import Database
from gateway.store.entries import text as clean_text
from gateway.store.schema import measured
from gateway.tasks import pause

WRITE_SECONDS = 60.0
PRUNE_EVERY = 60  # times of writing
ATTEMPT_SECONDS = 5.0
KEPT_SECONDS = 30 * 86_400.0
LEAST = 0.5  # of a sample
ROWS_LIMIT = 100_000
PIECE = 250  # rows of one statement: SQLite's thread keeps others waiting as long as it takes
URL_LENGTH = 1000
DIGEST = re.compile(r"[\w:.-]{0,128}\Z", re.ASCII)  # hosts may say anything

log = logging.getLogger(__name__)
_NOW_US: Any = select(literal_column("(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"))


class Measurements:
    """``run`` as a task, ``close`` at the end. ``new()``: what is to be written, of which ``written`` is told what was; ``recall``: is handed what
    is kept, once. ``clock``: monotonic, that of the measurements."""

    def __init__(
        self,
        database: Database,
        clock: Callable[[], float],
        new: Callable[[], list[Measured]],
        written: Callable[[Iterable[Measured]], None],
        recall: Callable[[Iterable[Measured]], None],
    ) -> None:
        self._database = database
        self._clock = clock
        self._new, self._written, self._recall = new, written, recall
        self.recalled = asyncio.Event()

    async def run(self) -> None:
        """Read as soon as the database is there, then write, for ever."""
        while not self.recalled.is_set():
            await self._database.until_up()
            try:
                await self.read()
            except StoreUnavailable:  # the database says so itself, once
                await pause(1.0)
        rounds = 0
        while True:
            await pause(WRITE_SECONDS)
            try:
                await self.write()
                if rounds % PRUNE_EVERY == 0:
                    await self.prune()
                rounds += 1
            except StoreUnavailable as error:
                log.debug("what was measured is not written yet: %s", error.message)

    async def close(self) -> None:
        """Write what is new, if that is possible."""
        if self._database.up:
            try:
                await self.write()
            except StoreUnavailable as error:
                log.warning("what was measured last is not kept: %s", error.message)

    # -- once ------------------------------------------------------------------------------------------------------------------

    async def read(self) -> None:
        """All that is not forgotten yet, the oldest first. Raises StoreUnavailable."""
        async with self._database.reading() as connection:
            now_us = await self._now_us(connection)
            rows = await connection.execute(select(measured).order_by(measured.c.measured_us.desc()).limit(ROWS_LIMIT))
            found = [self._recalled(row, now_us) for row in rows]
        kept = [row for row in reversed(found) if row is not None]
        self._recall(kept)
        self.recalled.set()
        if kept:
            log.info("%s of hosts and models are known from before", counted(len(kept), "measurement"))

    def _recalled(self, row: Any, now_us: int) -> Measured | None:
        age = max(0.0, (now_us - row.measured_us) / 1e6)
        weight = row.weight * (1.0 - age / KEPT_SECONDS)
        sound = weight >= LEAST and 0.0 < row.value < inf  # nan is neither
        if not sound or row.what not in set(What):
            return None
        return Measured(row.host, row.digest, What(row.what), row.url, row.value, weight, self._clock() - age)

    async def write(self) -> None:
        """What is new. Raises StoreUnavailable."""
        new = self._new()
        rows = [row for row in new if DIGEST.match(row.digest) and row.value < inf]
        for start in range(0, len(rows), PIECE):
            await self._write(rows[start : start + PIECE])
        self._written(new)

    async def _write(self, rows: Sequence[Measured]) -> None:
        async with self._database.writing(ATTEMPT_SECONDS) as connection:
            now_us, now = await self._now_us(connection), self._clock()
            upsert = INSERTS[connection.dialect.name](measured)
            values = {column.name: upsert.excluded[column.name] for column in measured.columns}
            there, later = measured.c, upsert.excluded
            age = cast(later.measured_us - there.measured_us, Double) / literal(KEPT_SECONDS * 1e6, Double)
            right = or_(
                later.weight >= there.weight * (literal(1.0, Double) - age),
                there.url != later.url,  # it is another host now
                there.measured_us > now_us,  # of a clock that was set back
            )
            keys = list(measured.primary_key.columns)
            statement = upsert.on_conflict_do_update(index_elements=keys, set_=values, where=right)
            await connection.execute(statement, [_values(row, now_us, now) for row in sorted(rows)])

    async def prune(self) -> None:
        """Delete what is forgotten. Raises StoreUnavailable."""
        async with self._database.writing(ATTEMPT_SECONDS) as connection:
            now_us = await self._now_us(connection)
            age = cast(literal(now_us) - measured.c.measured_us, Double) / literal(KEPT_SECONDS * 1e6, Double)
            faded = measured.c.weight * (literal(1.0, Double) - age) < LEAST
            newest = select(measured.c.measured_us).order_by(measured.c.measured_us.desc())
            last = (await connection.execute(newest.offset(ROWS_LIMIT).limit(1))).scalar()
            await connection.execute(delete(measured).where(or_(faded, measured.c.measured_us <= (last or 0))))

    async def _now_us(self, connection: AsyncConnection) -> int:
        """The server's clock, which all gateways on it share."""
        return (
            int(time.time() * 1e6) if self._database.sqlite else int((await connection.execute(_NOW_US)).scalar_one())
        )


def _values(row: Measured, now_us: int, now: float) -> dict[str, Any]:
    at_us = now_us - int(max(0.0, now - row.at) * 1e6)
    url = clean_text(row.url, URL_LENGTH)
    return row._asdict() | {"what": str(row.what), "url": url, "measured_us": at_us}
