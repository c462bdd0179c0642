"""What keys have used, kept and shared: each gateway writes what it has counted itself, and reads the sums of the others'.

Once a second. A row is of one day, key and gateway, and holds how much that was in all: to write it once more, after an unknown end, changes nothing.
So budgets survive a restart (a gateway that starts again has another name, and finds its own past among the others'), and gateways on one
PostgreSQL know of each other's use what was true a second ago. What is older than STALE_SECONDS tells of no minute any more, and of nothing that runs.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Any, NamedTuple

from sqlalchemy import Row, Select, case, delete, func, literal_column, select
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.access.tallies import NOWHERE, Elsewhere, Tallies, Tally
from gateway.access.windows import Calendar, Spent, calendar
from gateway.errors import StoreUnavailable
from gateway.store.bulk import INSERTS
from gateway.store.none import Store
from gateway.store.schema import key_usage
from gateway.tasks import pause

BEAT_SECONDS = 1.0
STALE_SECONDS = 5.0
ATTEMPT_SECONDS = 5.0
CLOSE_SECONDS = 2.0
_STILL = (0, 0, 0)
WHOLE_EVERY = 60  # beats after which the days before today are summed up again
KEPT_DAYS = 62

log = logging.getLogger(__name__)
_NOW_US: Any = literal_column("(extract(epoch FROM clock_timestamp()) * 1000000)::bigint")


class Written(NamedTuple):
    """One row, and whose it is."""

    tally: Tally
    day: int
    spent: Spent
    live: tuple[int, int, int]  # requests and tokens of the minute, and what waits or runs


class Spending:
    """``run`` as a task, where there is a database. ``replica``: this gateway's name; ``wall``: Unix seconds."""

    def __init__(self, database: Store, replica: str, tallies: Tallies, wall: Callable[[], float]) -> None:
        self._database = database
        self._replica = replica
        self._tallies = tallies
        self._wall = wall
        self._beats = 0
        self._day = -1
        self._before: dict[str, Spent] = {}  # elsewhere, on the days of this month before today
        self._lively: set[str] = set()  # keys of whose minute others were told last
        self._turn = asyncio.Lock()

    async def start(self, seconds: float) -> None:
        """What has been used, before anybody comes in; if the database does not tell it in this time, it counts as soon as it does."""
        try:
            async with asyncio.timeout(seconds):
                await self.look()
        except (StoreUnavailable, TimeoutError):
            log.warning("what keys have used of their budgets is not known until the database is there")

    async def run(self) -> None:
        """Write and read, every second, for ever. While the database is away nothing is known of other gateways' minutes."""
        while True:
            try:
                await self.look()
            except StoreUnavailable:  # the database says so itself, once
                self._tallies.alone()
            await pause(BEAT_SECONDS)

    async def look(self) -> None:
        """Write what was used here, then take what was used elsewhere. Raises StoreUnavailable."""
        async with self._turn:
            today = calendar(self._wall())
            rows = self._rows(today.day)
            whole = self._day != today.day or self._beats % WHOLE_EVERY == 0
            async with self._database.writing(ATTEMPT_SECONDS) if rows else self._database.reading() as connection:
                now: Any = int(self._wall() * 1e6) if connection.dialect.name == "sqlite" else _NOW_US
                await self._write(connection, rows, now)
                if whole:
                    self._before = await self._summed_before(connection, today)
                told = await connection.execute(self._today(today.day, now))
                elsewhere = {row.principal: _elsewhere(row) for row in told}
            for row in rows:
                row.tally.written(row.day, row.spent)
            self._lively = {row.tally.name for row in rows if row.live != _STILL}
            if whole and self._beats:
                await self._forget(today.day)
            self._beats += 1
            self._day = today.day
            for name, before in self._before.items():
                known = elsewhere.get(name, NOWHERE)
                elsewhere[name] = known._replace(month=known.month.plus(before))
            self._tallies.hear(elsewhere, today.day)

    async def close(self) -> None:
        """Write what was used last, if that is possible soon."""
        with contextlib.suppress(StoreUnavailable, TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await self.look()

    def _rows(self, today: int) -> list[Written]:
        """Of each key that has used something that is not kept yet, or of whose minute others have to know."""
        rows = []
        for tally in self._tallies.all():
            live = _STILL if self._database.sqlite else tally.live
            days = dict(tally.days)
            if live != _STILL or tally.name in self._lively:
                days[today] = tally.day
            rows += [Written(tally, day, days[day], live if day == today else _STILL) for day in sorted(days)]
        return rows

    async def _write(self, connection: AsyncConnection, rows: list[Written], now: Any) -> None:
        insert = INSERTS[connection.dialect.name](key_usage)
        for row in rows:
            key = {"day": row.day, "principal": row.tally.name, "replica": self._replica}
            values = {**row.spent._asdict(), **dict(zip(_LIVE_NAMES, row.live, strict=True)), "seen_us": now}
            upsert = insert.values(key | values)
            await connection.execute(upsert.on_conflict_do_update(index_elements=list(key), set_=values))

    async def _summed_before(self, connection: AsyncConnection, today: Calendar) -> dict[str, Spent]:
        sums = [func.sum(column) for column in _COUNTED]
        days = (key_usage.c.day >= today.first, key_usage.c.day < today.day, key_usage.c.replica != self._replica)
        query = select(key_usage.c.principal, *sums).where(*days).group_by(key_usage.c.principal)
        return {row[0]: Spent(*map(int, row[1:])) for row in await connection.execute(query)}

    def _today(self, day: int, now: Any) -> Select[Any]:
        there = key_usage.c.seen_us > now - int(STALE_SECONDS * 1e6)
        columns = (
            *(func.sum(column).label(column.name) for column in _COUNTED),
            *(func.sum(case((there, column), else_=0)).label(column.name) for column in _LIVE),
        )
        query = select(key_usage.c.principal, *columns).group_by(key_usage.c.principal)
        return query.where(key_usage.c.day == day, key_usage.c.replica != self._replica)

    async def _forget(self, today: int) -> None:
        async with self._database.writing() as connection:
            await connection.execute(delete(key_usage).where(key_usage.c.day < today - KEPT_DAYS))


_COUNTED = (key_usage.c.requests, key_usage.c.input_tokens, key_usage.c.output_tokens)
_LIVE = (key_usage.c.minute_requests, key_usage.c.minute_tokens, key_usage.c.running)
_LIVE_NAMES = [column.name for column in _LIVE]


def _elsewhere(row: Row[Any]) -> Elsewhere:
    today = Spent(int(row.requests), int(row.input_tokens), int(row.output_tokens))
    return Elsewhere(today, today, int(row.minute_requests), int(row.minute_tokens), int(row.running))
