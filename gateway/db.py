"""``corral db``: looking after the database by hand. Each step returns what to print; StoreUnavailable says what is wrong."""

import dataclasses
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from sqlalchemy import func, select, text

from gateway.config import DatabaseConfig
from gateway.errors import ConfigError, StoreUnavailable
from gateway.store import copy as copying
from gateway.store import export as exporting
from gateway.store import retention
from gateway.store.engine import Database, State
from gateway.store.export import Sink
from gateway.store.history import Filter
from gateway.store.migrate import HEAD
from gateway.store.none import NO_DATABASE
from gateway.store.schema import metadata

PATIENCE_SECONDS = 120.0  # a migration may rewrite tables


@asynccontextmanager
async def opened(config: DatabaseConfig, *, new: bool = False) -> AsyncIterator[Database]:
    """``new``: it may be made; else a name that was mistyped would become an empty database."""
    if not config.kept:
        raise ConfigError(f"there is no database: {NO_DATABASE}")
    database = Database(config, time.monotonic)
    try:
        try:
            found = await database.revision()
        except StoreUnavailable as error:  # else a start would try again and again, and say so
            raise StoreUnavailable(f"{database.name}: {error.message}") from None
        if not new and found is None:
            raise StoreUnavailable(f"{database.name}: there is nothing; corral db migrate makes the tables")
        await database.start(PATIENCE_SECONDS)
        if database.state is not State.UP:
            raise StoreUnavailable(f"{database.name}: {database.why}")
        yield database
    finally:
        await database.close()


async def migrate(config: DatabaseConfig) -> str:
    """Make the tables, or upgrade them."""
    async with opened(config, new=True) as database:
        return f"{database.name} is at revision {HEAD}"


async def check(config: DatabaseConfig) -> str:
    """Rows of every table, the size, and what the database's own check says."""
    async with opened(config) as database, database.reading() as connection:
        size = (await connection.execute(text(_BYTES[database.sqlite]))).scalar_one()
        lines = [f"{database.name} is at revision {HEAD}"]
        for table in metadata.sorted_tables:
            rows = (await connection.execute(select(func.count()).select_from(table))).scalar_one()
            lines.append(f"  {table.name:16} {rows:>14,} rows")
        verdict = ["ok"]  # on PostgreSQL, whoever has read every table has checked what a client can
        if database.sqlite:
            verdict = list((await connection.execute(text("PRAGMA quick_check"))).scalars())
    sound = "sound" if verdict == ["ok"] else f"NOT SOUND: {'; '.join(verdict)}"
    lines.append(f"{size / 2**20:,.1f} MiB; {sound}")
    if verdict != ["ok"]:
        raise StoreUnavailable("\n".join(lines))
    return "\n".join(lines)


async def prune(config: DatabaseConfig) -> str:
    """Delete now what is over its time; a running gateway does so by the hour."""
    async with opened(config) as database:
        deleted = await retention.prune(database, config, time.time())
        await database.tidy()
    return (
        "\n".join(f"{table:16} {rows:>14,} rows deleted" for table, rows in deleted.items())
        or "nothing is over its time"
    )


async def copy(config: DatabaseConfig, to: str) -> str:
    """Everything into another database, which must be empty."""
    async with (
        opened(config) as source,
        opened(dataclasses.replace(config, url=to, direct_url=""), new=True) as target,
    ):
        if source.url == target.url:
            raise ConfigError("both databases are the same")
        began = time.monotonic()
        rows = await copying.copy(source, target)
        lines = [f"  {table:16} {number:>14,} rows" for table, number in rows.items()]
        return "\n".join([f"{source.name} -> {target.name}", *lines, f"equal, in {time.monotonic() - began:.1f} s"])


async def export(config: DatabaseConfig, wanted: Filter, sink: Callable[[], Sink]) -> str:
    """Rows of requests into a file."""
    async with opened(config) as database:
        return f"{await exporting.export(database, wanted, sink()):,} requests"


async def vacuum(config: DatabaseConfig) -> str:
    """Rewrite the tables without what was deleted. Takes as much space again meanwhile; on PostgreSQL a plain VACUUM."""
    async with opened(config) as database:
        before = await _bytes(database)
        await database.vacuum()
        return f"{before / 2**20:,.1f} MiB before, {await _bytes(database) / 2**20:,.1f} MiB now"


_BYTES = {
    True: "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()",
    False: "SELECT pg_database_size(current_database())",
}


async def _bytes(database: Database) -> int:
    async with database.reading() as connection:
        size: int = (await connection.execute(text(_BYTES[database.sqlite]))).scalar_one()
        return size
