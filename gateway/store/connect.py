"""How connections are made: what SQLite and PostgreSQL each need to be told."""

import logging
import os
import secrets
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

from sqlalchemy import URL, AsyncAdaptedQueuePool, Connection, NullPool, event, make_url, text
from sqlalchemy.exc import ArgumentError, DisconnectionError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from gateway.errors import ConfigError

CONNECT_SECONDS = 5.0
COMMAND_SECONDS = 30.0
BUSY_SECONDS = 5.0
MIGRATE_SECONDS = 60.0  # for the lock of another starter who migrates
WAL_LIMIT_BYTES = 64 * 1024 * 1024
CACHE_KIB = 64 * 1024
READERS = 3
CONNECTIONS = 5
log = logging.getLogger(__name__)
_STEPS = 10_000  # of SQLite's machine between looks at the clock

_DRIVERS = {
    "sqlite": "sqlite+aiosqlite",
    "sqlite+aiosqlite": "sqlite+aiosqlite",
    "postgres": "postgresql+asyncpg",
    "postgresql": "postgresql+asyncpg",
    "postgresql+asyncpg": "postgresql+asyncpg",
}


def parsed(url: str) -> URL:
    """A url with the driver that is used. Raises ConfigError."""
    try:
        made = make_url(url)
        return made.set(drivername=_DRIVERS[made.drivername])
    except (ArgumentError, KeyError, ValueError):
        scheme = url.partition("://")[0] if "://" in url else ""
        raise ConfigError(
            f"database.url of {scheme or 'this'} kind is not known: write sqlite:////var/lib/corral/corral.db,"
            " postgresql://user:password@host/name, or none"
        ) from None


def without_password(url: URL | str) -> str:
    """For people's eyes."""
    url = parsed(url) if isinstance(url, str) else url
    return url.set(drivername=url.get_backend_name()).render_as_string(hide_password=True)


def sqlite_engine(url: URL, *, reads: bool = False, migrates: bool = False) -> AsyncEngine:
    """Of a file: connections that write (one), only read, or migrate."""
    engine = create_async_engine(
        url,
        hide_parameters=True,
        connect_args={"timeout": MIGRATE_SECONDS if migrates else BUSY_SECONDS},
        **(
            {"poolclass": NullPool}
            if migrates
            else {
                "poolclass": AsyncAdaptedQueuePool,
                "pool_size": READERS if reads else 1,
                "max_overflow": 0,
                "pool_timeout": CONNECT_SECONDS,
            }
        ),
    )
    _as_sqlite_should(engine, reads=reads, foreign_keys=not migrates)
    return engine


def postgresql_engine(url: URL, *, pooler: bool = False, migrates: bool = False) -> AsyncEngine:
    """Of a server. ``pooler``: one like PgBouncer stands before it."""
    seconds = MIGRATE_SECONDS if migrates else COMMAND_SECONDS
    asyncpg: dict[str, Any] = {
        "timeout": CONNECT_SECONDS,
        "command_timeout": seconds,
        "server_settings": {"application_name": "corral"},
    }
    if migrates:
        return create_async_engine(url, hide_parameters=True, poolclass=NullPool, connect_args=asyncpg)
    if pooler:  # statements that were prepared on one of a pooler's connections are not there on another
        asyncpg |= {"statement_cache_size": 0, "prepared_statement_cache_size": 0}
    return create_async_engine(
        url,
        hide_parameters=True,
        pool_size=CONNECTIONS,
        max_overflow=0,
        pool_timeout=CONNECT_SECONDS,  # nobody waits for it: who comes here has a turn already
        pool_pre_ping=True,
        connect_args=asyncpg,
    )


@asynccontextmanager
async def limited(connection: AsyncConnection, seconds: float) -> AsyncIterator[None]:
    """Statements that take longer altogether (PostgreSQL: each) are stopped by the database itself."""
    if connection.dialect.name == "postgresql":
        await connection.execute(text(f"SET LOCAL statement_timeout = {int(seconds * 1000)}"))
        yield
        return
    until = time.monotonic() + seconds
    driver: Any = (await connection.get_raw_connection()).driver_connection
    await driver.set_progress_handler(lambda: time.monotonic() > until, _STEPS)
    try:
        yield
    finally:
        await driver.set_progress_handler(None, _STEPS)


def make_room(path: Path) -> None:
    """The folder and the file, for nobody else's eyes. The file appears whole: two that turn one into a WAL at once do not wait for each other."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.exists():
        return
    made = path.with_name(f"{path.name}.{os.getpid()}-{secrets.token_hex(4)}.new")
    os.close(os.open(made, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    try:
        with closing(sqlite3.connect(made)) as connection:
            connection.execute("PRAGMA auto_vacuum=INCREMENTAL")
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("VACUUM")
        try:
            os.link(made, path)
        except FileExistsError:
            log.debug("another starter has made %s", path)
        except OSError:  # a file system without links
            made.rename(path)
    finally:
        made.unlink(missing_ok=True)


def _as_sqlite_should(engine: AsyncEngine, *, reads: bool, foreign_keys: bool) -> None:
    """What every connection to a file needs to be told; and that we begin transactions ourselves. One whose file was removed or replaced is opened
    anew: what it took, nobody would find again.
    """
    file = Path(str(engine.url.database))
    pragmas = [
        "journal_mode=WAL",
        "synchronous=NORMAL",
        f"foreign_keys={'ON' if foreign_keys else 'OFF'}",
        f"journal_size_limit={WAL_LIMIT_BYTES}",
        f"cache_size=-{CACHE_KIB}",
        "secure_delete=ON",  # a chat that is deleted is gone
    ]
    begin = "BEGIN" if reads else "BEGIN IMMEDIATE"

    def connected(connection: Any, record: Any) -> None:
        connection.isolation_level = None
        cursor = connection.cursor()
        try:
            for pragma in [*pragmas, "query_only=ON"] if reads else pragmas:
                cursor.execute(f"PRAGMA {pragma}")
        except BaseException:
            connection.close()  # nobody else would: its thread would outlive the process's end
            raise
        cursor.close()
        record.info["file"] = _identity(file)

    def taken(_connection: object, record: Any, _proxy: object) -> None:
        if record.info["file"] != _identity(file):
            raise DisconnectionError("its file was replaced")

    def begun(connection: Connection) -> None:
        if connection.get_execution_options().get("isolation_level") != "AUTOCOMMIT":
            connection.exec_driver_sql(begin)

    event.listen(engine.sync_engine, "connect", connected)
    event.listen(engine.sync_engine, "checkout", taken)
    event.listen(engine.sync_engine, "begin", begun)


def _identity(file: Path) -> tuple[int, int]:
    """Of the file that has this name now. Raises OSError where there is none."""
    found = file.stat()
    return found.st_dev, found.st_ino
