"""What is deleted when: rows by age and number, sums by age, sessions that nobody restored. A little at a time, so that writers get between."""

from collections import Counter
from typing import Any

from sqlalchemy import Column, ColumnElement, delete, func, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.config import DatabaseConfig
from gateway.store import partitions
from gateway.store.engine import Database
from gateway.store.schema import audit, ingest_batches, requests, rollup_1h, rollup_1m, sessions
from gateway.tasks import pause

CHUNK = 2000
SESSIONS_CHUNK = 20  # each may have thousands of messages
BREATH_SECONDS = 0.05
LEDGER_DAYS = 1
AUDIT_DAYS = 400
SECOND_US = 1_000_000
HOUR_US = 3600 * SECOND_US
DAY_US = 24 * HOUR_US
_LOCK = 0x434F5252414D  # any number but the migrations'


async def alone(connection: AsyncConnection) -> bool:
    """Whether no other gateway keeps house until this transaction ends. An SQLite file has one gateway."""
    if connection.dialect.name == "sqlite":
        return True
    held = await connection.execute(text("SELECT pg_try_advisory_xact_lock(:key)"), {"key": _LOCK})
    return bool(held.scalar_one())


async def prune(database: Database, config: DatabaseConfig, now: float) -> Counter[str]:
    """Delete what is over its time or its number at ``now`` (Unix seconds) → rows by table. Raises StoreUnavailable.

    Ends early where another gateway is at it.
    """
    now_us = int(now * SECOND_US)
    oldest = now_us - config.requests_days * DAY_US
    async with database.writing() as connection:
        oldest = max(oldest, await _by_number(connection, config.requests_rows))
        dropped = 0
        if not database.sqlite and await alone(connection):
            dropped = await _drop(connection, oldest)
    deleted = Counter({requests.name: dropped})
    limits: list[tuple[Column[Any], int]] = [
        (requests.c.ts_us, oldest),
        (rollup_1m.c.bucket, (now_us - config.minutes_days * DAY_US) // (60 * SECOND_US)),
        (rollup_1h.c.bucket, (now_us - config.hours_days * DAY_US) // HOUR_US),
        (audit.c.at_us, now_us - AUDIT_DAYS * DAY_US),
        (ingest_batches.c.at_us, now_us - LEDGER_DAYS * DAY_US),
    ]
    for column, cut in limits:
        deleted[column.table.name] += await _trim(database, column, cut)
    return +deleted


async def erase(database: Database, now: float) -> int:
    """Erase the sessions that were deleted and whose time is over at ``now`` (Unix seconds); how many. Raises StoreUnavailable.

    Ends early where another gateway is at it.
    """
    due = select(sessions.c.id).where(sessions.c.erase_us <= int(now * SECOND_US)).order_by(sessions.c.erase_us)
    erased, more = 0, True
    while more:
        async with database.writing() as connection:
            if not await alone(connection):
                return erased
            ids = (await connection.execute(due.limit(SESSIONS_CHUNK).with_for_update())).scalars().all()
            await connection.execute(delete(sessions).where(sessions.c.id.in_(ids)))
        erased, more = erased + len(ids), len(ids) == SESSIONS_CHUNK
        if more:
            await pause(BREATH_SECONDS)
    return erased


async def _by_number(connection: AsyncConnection, most: int) -> int:
    """From where on there are about ``most`` rows, in microseconds: the sums know, and counting the rows would read them all."""
    hour = rollup_1h.c.bucket
    total = 0
    for bucket, n in await connection.execute(
        select(hour, func.sum(rollup_1h.c.n)).group_by(hour).order_by(hour.desc())
    ):
        total += int(n)
        if total > most:
            return int(bucket) * HOUR_US
    return 0


async def _drop(connection: AsyncConnection, oldest: int) -> int:
    """Whole days, at once; how many rows those had."""
    rows = 0
    for since, until in await partitions.drop(connection, oldest):
        hour = rollup_1h.c.bucket
        had = select(func.sum(rollup_1h.c.n)).where(hour >= since // HOUR_US, hour < until // HOUR_US)
        rows += int((await connection.execute(had)).scalar() or 0)
    return rows


async def _trim(database: Database, column: Column[Any], cut: int) -> int:
    deleted, more = 0, True
    while more:
        async with database.writing() as connection:
            if not await alone(connection):
                return deleted
            end = select(column).where(column < cut).order_by(column).offset(CHUNK - 1).limit(1)
            last = (await connection.execute(end)).scalar()
            more = last is not None
            upto: ColumnElement[bool] = column <= last if more else column < cut
            deleted += (await connection.execute(delete(column.table).where(upto))).rowcount
        if more:
            await pause(BREATH_SECONDS)
    return deleted
