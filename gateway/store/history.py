"""The rows of requests, one by one: pages of them, in the order of time, each beginning where the last one ended."""

from collections.abc import AsyncIterator
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Select, select, tuple_

from gateway.record import Outcome
from gateway.store.engine import Database
from gateway.store.entries import Row
from gateway.store.schema import requests

PAGE = 2000
AROUND_US = 60_000_000
FAILED = "failed"
"""Every outcome but ok: these have an index."""


class Position(NamedTuple):
    """Of a row in time."""

    ts_us: int
    id: str


class Filter(NamedTuple):
    """Which rows: received from ``since`` until before ``until`` (Unix seconds), and of whom. ``outcome``: one of them, or FAILED."""

    since: float
    until: float
    model: str | None = None
    host: str | None = None
    principal: str | None = None
    session: str | None = None
    outcome: str | None = None
    priority: str | None = None


def page(wanted: Filter, *, newest_first: bool, after: Position | None, limit: int) -> Select[Any]:
    """Up to ``limit`` rows behind a position, all columns."""
    place = tuple_(requests.c.ts_us, requests.c.id)
    conditions: list[ColumnElement[bool]] = [
        requests.c.ts_us >= int(wanted.since * 1e6),
        requests.c.ts_us < int(wanted.until * 1e6),
    ]
    for name in ("model", "host", "principal", "session", "priority"):
        value = getattr(wanted, name)
        if value is not None:
            conditions.append(requests.c[name] == value)
    if wanted.outcome == FAILED:
        conditions.append(requests.c.outcome != Outcome.OK.value)
    elif wanted.outcome is not None:
        conditions.append(requests.c.outcome == wanted.outcome)
    if after is not None:
        conditions.append(place < tuple_(*after) if newest_first else place > tuple_(*after))
    columns = (requests.c.ts_us, requests.c.id)
    order = [column.desc() for column in columns] if newest_first else list(columns)
    return select(requests).where(*conditions).order_by(*order).limit(limit)


def one(id_: str) -> Select[Any]:
    """The row with this id. An id begins with its milliseconds: so only a minute or two are looked through."""
    try:
        at_us = int(id_[:11], 16) * 1000
    except ValueError:
        at_us = 0
    near = requests.c.ts_us.between(at_us - AROUND_US, at_us + AROUND_US)
    return select(requests).where(near, requests.c.id == id_)


async def pages(database: Database, wanted: Filter) -> AsyncIterator[list[Row]]:
    """All rows, oldest first, a page at a time: each is a transaction of its own, so that a long read holds nothing up."""
    after: Position | None = None
    while True:
        async with database.reading() as connection:
            found = await connection.execute(page(wanted, newest_first=False, after=after, limit=PAGE))
            rows = [Row(*row) for row in found]
        if rows:
            yield rows
        if len(rows) < PAGE:
            return
        after = Position(rows[-1].ts_us, rows[-1].id)
