"""Many rows at once: COPY on PostgreSQL, one statement for many rows of values on SQLite."""

import asyncio
from collections.abc import Sequence
from functools import cache
from typing import Any

from sqlalchemy import Table
from sqlalchemy.dialects.postgresql import asyncpg
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import aiosqlite
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.ext.asyncio import AsyncConnection

Rows = Sequence[tuple[Any, ...]]
CELLS = 2000  # about half a millisecond
_DIALECTS: dict[str, Any] = {"sqlite": aiosqlite.dialect(), "postgresql": asyncpg.dialect()}  # type: ignore[no-untyped-call]
INSERTS: dict[str, Any] = {"sqlite": sqlite_insert, "postgresql": postgresql_insert}


async def insert(connection: AsyncConnection, table: Table, rows: Rows) -> None:
    """``rows`` are tuples of all the table's columns, in their order."""
    if connection.dialect.name == "sqlite":
        await _in_pieces(connection, _insert(table, "sqlite"), rows)
        return
    driver: Any = (await connection.get_raw_connection()).driver_connection
    try:
        await driver.copy_records_to_table(table.name, records=rows, columns=table.columns.keys())
    except (asyncio.CancelledError, TimeoutError):
        await connection.invalidate()  # SQLAlchemy, which has not seen it, would wait for a server that says nothing
        raise


async def add(connection: AsyncConnection, table: Table, rows: Rows) -> None:
    """Insert, or add to what is there under the same key; key columns come first, the rest are numbers."""
    await _in_pieces(connection, _add(table, connection.dialect.name), rows)


async def _in_pieces(connection: AsyncConnection, statement: str, rows: Rows) -> None:
    """SQLite's thread holds on to the interpreter's lock for as long as one call takes: so no call takes long."""
    size = max(1, CELLS // len(rows[0])) if rows else 1
    for start in range(0, len(rows), size):
        await connection.exec_driver_sql(statement, list(rows[start : start + size]))


@cache
def _insert(table: Table, kind: str) -> str:
    return str(INSERTS[kind](table).compile(dialect=_DIALECTS[kind]))


@cache
def _add(table: Table, kind: str) -> str:
    statement = INSERTS[kind](table)
    summed = {
        column.name: column + statement.excluded[column.name] for column in table.columns if not column.primary_key
    }
    adding = statement.on_conflict_do_update(index_elements=list(table.primary_key.columns), set_=summed)
    return str(adding.compile(dialect=_DIALECTS[kind]))
