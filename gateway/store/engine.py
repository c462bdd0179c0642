"""Connections to the database: SQLite in a file, or PostgreSQL. Whether it is there is the database's own business; others get
StoreUnavailable, and ``run`` keeps trying until it is back.

SQLite has one connection that writes, in transactions that are IMMEDIATE from the start (a deferred one that turns into a writer fails at
once where another has written), and a few that only read. PostgreSQL has one pool for both, and takes migrations by ``direct_url``.
"""

import asyncio
import logging
import os
import secrets
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from enum import StrEnum
from pathlib import Path
from typing import Any

from sqlalchemy import URL, AsyncAdaptedQueuePool, Connection, NullPool, event, make_url, text
from sqlalchemy.exc import ArgumentError, DataError, DBAPIError, IntegrityError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from gateway.config import DatabaseConfig
from gateway.errors import ConfigError, StoreNewer, StoreUnavailable
from gateway.store.migrate import HEAD, back_up, migrate, revision
from gateway.tasks import pause

CONNECT_SECONDS = 5.0
COMMAND_SECONDS = 30.0
BUSY_SECONDS = 5.0
MIGRATE_SECONDS = 60.0  # for the lock of another starter who migrates
WAL_LIMIT_BYTES = 64 * 1024 * 1024
CACHE_KIB = 64 * 1024
READERS = 3
CONNECTIONS = 5
RETRY_SECONDS, RETRY_MOST_SECONDS = 0.25, 10.0
TELL_AGAIN_SECONDS = 30.0
AGAIN_SECONDS = 2.0  # when a caller may ask again

log = logging.getLogger(__name__)
_DRIVERS = {
    "sqlite": "sqlite+aiosqlite",
    "sqlite+aiosqlite": "sqlite+aiosqlite",
    "postgres": "postgresql+asyncpg",
    "postgresql": "postgresql+asyncpg",
    "postgresql+asyncpg": "postgresql+asyncpg",
}
_LOST = (DBAPIError, PoolTimeout, TimeoutError, OSError)
_NOT_LOST = (IntegrityError, DataError, ProgrammingError)


class State(StrEnum):
    """How the database is."""

    UP = "up"
    DOWN = "down"
    NEWER = "newer"  # made by a newer version: left alone


class Database:
    """One database. ``start`` once, then ``run`` as a task; ``close`` at the end. Raises ConfigError for a url that cannot be one."""

    def __init__(self, config: DatabaseConfig, clock: Callable[[], float]) -> None:
        self.url = parsed(config.url)
        self.direct = parsed(config.direct_url) if config.direct_url else self.url
        self._pooled = bool(config.direct_url)
        self.sqlite = self.url.get_backend_name() == "sqlite"
        if self.sqlite and config.replicas > 1:
            raise ConfigError(
                f"database.replicas = {config.replicas} needs PostgreSQL: gateways that each have an SQLite file share nothing."
                " Set database.url = 'postgresql://…'"
            )
        self._clock = clock
        self.state, self.why = State.DOWN, "it has not been tried yet"
        self.failures = 0
        self._since = self._told = clock()
        self._woken = asyncio.Event()
        self._write = self._made()
        self._read = self._made(reads=True) if self.sqlite else self._write

    def __repr__(self) -> str:
        return f"<Database [{self.name} | {self.state}]>"

    @property
    def name(self) -> str:
        """The url as people write it, without the password."""
        return without_password(self.url)

    @property
    def up(self) -> bool:
        """Whether it can be used now."""
        return self.state is State.UP

    # -- using -----------------------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that may write; committed at the end, rolled back by an exception. Raises StoreUnavailable."""
        async with self._begun(self._write) as connection:
            yield connection

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that only reads, all of it at one moment. Raises StoreUnavailable."""
        async with self._begun(self._read) as connection:
            yield connection

    @asynccontextmanager
    async def _begun(self, engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
        if self.state is not State.UP:
            raise self._unavailable()
        try:
            async with engine.begin() as connection:
                yield connection
        except _NOT_LOST:
            raise
        except _LOST as error:
            self._lose(error)
            raise self._unavailable() from error

    def _unavailable(self) -> StoreUnavailable:
        kind = StoreNewer if self.state is State.NEWER else StoreUnavailable
        return kind(f"the database is not available: {self.why}", retry_after=AGAIN_SECONDS)

    def _lose(self, error: BaseException) -> None:
        self.failures += 1
        why = in_words(error)
        if self.state is State.UP:
            self._since = self._told = self._clock()
            log.error("the database is lost: %s; relaying goes on", why)
        self.state, self.why = State.DOWN, why
        self._woken.set()

    # -- coming and going ------------------------------------------------------------------------------------------------------

    async def start(self, seconds: float) -> None:
        """Try once, for so long at most; whatever comes of it, the gateway starts."""
        try:
            async with asyncio.timeout(seconds):
                await self._open()
        except TimeoutError as error:
            self._lose(error)

    async def run(self) -> None:
        """Bring it back whenever it is lost, for ever: after a quarter of a second, then after twice as long each time."""
        wait = RETRY_SECONDS
        while True:
            if self.state is State.UP:
                await self._woken.wait()
                wait = RETRY_SECONDS
            self._woken.clear()
            await pause(wait)
            await self._open()
            wait = min(RETRY_MOST_SECONDS, 2 * wait)

    async def _open(self) -> None:
        try:
            await self._migrated()
            async with self._write.begin() as connection:
                await connection.execute(text("SELECT 1"))
        except StoreNewer as error:
            if self.state is not State.NEWER:
                log.error("nothing is kept: %s", error.message)  # noqa: TRY400 - the message says it all
            self.state, self.why = State.NEWER, error.message
        except _LOST as error:
            self._still_down(error)
        else:
            if self.state is not State.UP and self.failures:
                log.info("the database is back after %.1f s", self._clock() - self._since)
            self.state, self.why = State.UP, ""

    def _still_down(self, error: BaseException) -> None:
        first = not self.failures
        self.failures += 1
        self.state, self.why = State.DOWN, in_words(error)
        if first or self._clock() - self._told >= TELL_AGAIN_SECONDS:
            self._told = self._clock()
            log.warning("the database is not available: %s; trying again", self.why)

    async def _migrated(self) -> None:
        if self.sqlite:
            _make_room(Path(str(self.url.database)))
        engine = self._made(migrates=True)
        try:
            async with engine.connect() as connection:
                found = await connection.run_sync(revision)
            if found == HEAD:
                return
            if self.sqlite:
                await asyncio.to_thread(back_up, Path(str(self.url.database)), found)
            async with engine.begin() as connection:
                await connection.run_sync(migrate)
        finally:
            await engine.dispose()

    @property
    def _absent(self) -> bool:
        return self.sqlite and not Path(str(self.url.database)).exists()

    async def revision(self) -> str | None:
        """What the database is at, None while it is empty; nothing is made or changed. Raises StoreUnavailable."""
        if self._absent:
            return None
        engine = self._made(migrates=True)
        try:
            async with asyncio.timeout(CONNECT_SECONDS), engine.connect() as connection:
                return await connection.run_sync(revision)
        except _LOST as error:
            raise StoreUnavailable(f"the database is not available: {in_words(error)}") from error
        finally:
            await engine.dispose()

    async def vacuum(self) -> None:
        """Give back the space of what was deleted. Raises StoreUnavailable."""
        engine = self._made(migrates=True)
        try:
            async with engine.connect() as connection:
                alone = await connection.execution_options(isolation_level="AUTOCOMMIT")
                if self.sqlite:  # words of what was deleted stay in the search's index until it is merged
                    await alone.execute(text("INSERT INTO messages_fts(messages_fts) VALUES ('optimize')"))
                await alone.execute(text("VACUUM"))
                if self.sqlite:
                    await alone.execute(text("PRAGMA wal_checkpoint(TRUNCATE)"))
        except _LOST as error:
            raise StoreUnavailable(in_words(error)) from error
        finally:
            await engine.dispose()

    async def close(self) -> None:
        """Close all connections."""
        for engine in {self._write, self._read}:
            await engine.dispose()

    # -- engines ---------------------------------------------------------------------------------------------------------------

    def _made(self, *, reads: bool = False, migrates: bool = False) -> AsyncEngine:
        if not self.sqlite:
            return self._postgresql(migrates=migrates)
        engine = create_async_engine(
            self.url,
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

    def _postgresql(self, *, migrates: bool) -> AsyncEngine:
        seconds = MIGRATE_SECONDS if migrates else COMMAND_SECONDS
        asyncpg: dict[str, Any] = {
            "timeout": CONNECT_SECONDS,
            "command_timeout": seconds,
            "server_settings": {"application_name": "corral"},
        }
        if migrates:
            return create_async_engine(self.direct, hide_parameters=True, poolclass=NullPool, connect_args=asyncpg)
        if self._pooled:  # statements that were prepared on one of a pooler's connections are not there on another
            asyncpg |= {"statement_cache_size": 0, "prepared_statement_cache_size": 0}
        return create_async_engine(
            self.url,
            hide_parameters=True,
            pool_size=CONNECTIONS,
            max_overflow=0,
            pool_timeout=CONNECT_SECONDS,
            pool_pre_ping=True,
            connect_args=asyncpg,
        )


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


def in_words(error: BaseException) -> str:
    """What a database's error says, without its statement and its values."""
    original = error.orig if isinstance(error, DBAPIError) and error.orig else error
    words = str(original).strip().splitlines()
    if isinstance(original, TimeoutError | PoolTimeout):
        return "it does not answer"
    return (words[0] if words else type(original).__name__)[:300]


def _make_room(path: Path) -> None:
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
    """What every connection to a file needs to be told; and that we begin transactions ourselves."""
    pragmas = [
        "journal_mode=WAL",
        "synchronous=NORMAL",
        f"foreign_keys={'ON' if foreign_keys else 'OFF'}",
        f"journal_size_limit={WAL_LIMIT_BYTES}",
        f"cache_size=-{CACHE_KIB}",
        "secure_delete=ON",  # a chat that is deleted is gone
    ]
    begin = "BEGIN" if reads else "BEGIN IMMEDIATE"

    def connected(connection: Any, _record: object) -> None:
        connection.isolation_level = None
        cursor = connection.cursor()
        try:
            for pragma in [*pragmas, "query_only=ON"] if reads else pragmas:
                cursor.execute(f"PRAGMA {pragma}")
        except BaseException:
            connection.close()  # nobody else would: its thread would outlive the process's end
            raise
        cursor.close()

    def begun(connection: Connection) -> None:
        if connection.get_execution_options().get("isolation_level") != "AUTOCOMMIT":
            connection.exec_driver_sql(begin)

    event.listen(engine.sync_engine, "connect", connected)
    event.listen(engine.sync_engine, "begin", begun)
