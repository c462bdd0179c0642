"""From one database into another, of whatever kind: everything or nothing, and compared before it counts."""

from math import isclose
from typing import Any

from sqlalchemy import (
    Boolean,
    Column,
    ColumnElement,
    Double,
    Integer,
    SmallInteger,
    Table,
    case,
    func,
    select,
    text,
    tuple_,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.errors import StoreUnavailable
from gateway.store import bulk, partitions
from gateway.store.engine import Database
from gateway.store.schema import metadata, requests

PAGE = 2000
_PRIME = 1_000_003  # sums of times would be too large


async def copy(source: Database, target: Database) -> dict[str, int]:
    """All tables; rows by table. The target must be empty. Raises StoreUnavailable, and then nothing was copied."""
    async with source.reading() as reader, target.writing() as writer:
        for table in metadata.sorted_tables:
            if (await writer.execute(select(*table.primary_key.columns).limit(1))).first() is not None:
                raise StoreUnavailable(f"{target.name} has rows in {table.name} already: copy into an empty database")
        if not target.sqlite:
            await _make_days(reader, writer)
        copied = {table.name: await _copy(reader, writer, table) for table in metadata.sorted_tables}
        for table in metadata.sorted_tables:
            await _compare(reader, writer, table)
        if not target.sqlite:
            await _count_on(writer)
    return copied


async def _make_days(reader: AsyncConnection, writer: AsyncConnection) -> None:
    ends = select(func.min(requests.c.ts_us), func.max(requests.c.ts_us))
    first, last = (await reader.execute(ends)).one()
    if first is not None:
        await partitions.make(writer, partitions.between(first, last))


async def _copy(reader: AsyncConnection, writer: AsyncConnection, table: Table) -> int:
    keys = list(table.primary_key.columns)
    query = select(table).order_by(*keys).limit(PAGE)
    places = [table.columns.keys().index(key.name) for key in keys]
    copied, page = 0, query
    while rows := [tuple(row) for row in await reader.execute(page)]:
        await bulk.insert(writer, table, rows)
        copied += len(rows)
        page = query.where(tuple_(*keys) > tuple_(*(rows[-1][place] for place in places)))
    return copied


async def _compare(reader: AsyncConnection, writer: AsyncConnection, table: Table) -> None:
    sums = [func.count(), *(func.coalesce(func.sum(_told(column)), 0) for column in table.columns)]
    query = select(*sums).select_from(table)
    ours, theirs = (await reader.execute(query)).one(), (await writer.execute(query)).one()
    for column, a, b in zip(("rows", *table.columns.keys()), ours, theirs, strict=True):
        if not isclose(float(a), float(b), rel_tol=1e-9):
            raise StoreUnavailable(f"{table.name}.{column} came out different, {a} and {b}: nothing was copied")


def _told(column: Column[Any]) -> ColumnElement[Any]:
    """A number that says whether a column is the same."""
    if isinstance(column.type, Boolean):
        return case((column, 1), else_=0)
    if isinstance(column.type, Double | SmallInteger):
        return column
    return column % _PRIME if isinstance(column.type, Integer) else func.length(column)


async def _count_on(writer: AsyncConnection) -> None:
    """Numbers that PostgreSQL gives out itself begin behind those that were copied."""
    for table in metadata.sorted_tables:
        key = next(iter(table.primary_key.columns))
        name = {"table": table.name, "column": key.name}
        sequence = (await writer.execute(text("SELECT pg_get_serial_sequence(:table, :column)"), name)).scalar()
        last = (await writer.execute(select(func.max(key)))).scalar() if sequence else None
        if last is not None:
            await writer.execute(text("SELECT setval(:sequence, :last)"), {"sequence": sequence, "last": last})
