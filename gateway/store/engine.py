"""Connections to the database: SQLite in a file, or PostgreSQL. Whether it is there is the database's own business; others get
StoreUnavailable, and ``run`` keeps trying until it is back.

SQLite has one connection that writes, in transactions that are IMMEDIATE from the start (a deferred one that turns into a writer fails at
once where another has written), and a few that only read. PostgreSQL has one pool for both, and takes migrations by ``direct_url``.
"""

import asyncio
import logging
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from enum import StrEnum
from pathlib import Path
from typing import Any

from asyncpg import DataError as PostgresDataError
from asyncpg import IntegrityConstraintViolationError, InterfaceError, PostgresError
from sqlalchemy import text
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from gateway.config import DatabaseConfig
from gateway.errors import ConfigError, StoreNewer, StoreSlow, StoreUnavailable
from gateway.store.connect import (
    BUSY_SECONDS,
    CONNECT_SECONDS,
    CONNECTIONS,
    limited,
    make_room,
    parsed,
    postgresql_engine,
    sqlite_engine,
    without_password,
)
from gateway.store.migrate import HEAD, back_up, migrate, revision
from gateway.tasks import pause

RETRY_SECONDS, RETRY_MOST_SECONDS = 0.25, 10.0
TELL_AGAIN_SECONDS = 30.0
AGAIN_SECONDS = 2.0  # when a caller may ask again
TURN_SECONDS = 15.0  # for one of a server's connections: a burst is served, one after the other
SILENT_SECONDS = 3.0  # a server that says nothing for so long is lost
VACUUM_PAGES = 1000

log = logging.getLogger(__name__)
REFUSED = (IntegrityError, DataError, PostgresDataError, IntegrityConstraintViolationError)
"""What was written cannot be; the last two come from COPY, which SQLAlchemy does not see."""
_LOST = (DBAPIError, PoolTimeout, TimeoutError, OSError, PostgresError, InterfaceError)
_NOT_LOST = (*REFUSED, ProgrammingError)
_CANCELLED = "57014"  # PostgreSQL's code for a statement that took too long


class State(StrEnum):
    """How the database is."""

    UP = "up"
    DOWN = "down"
    NEWER = "newer"  # made by a newer version: left alone


class Database:
    """One database. ``alone``: no other gateway is meant to use it. ``start`` once, then ``run`` as a task; ``close`` at the end. Raises ConfigError for a url that cannot be one."""

    def __init__(self, config: DatabaseConfig, clock: Callable[[], float]) -> None:
        self.url = parsed(config.url)
        self.direct = parsed(config.direct_url) if config.direct_url else self.url
        self.sqlite = self.url.get_backend_name() == "sqlite"
        self.alone = config.replicas == 1
        if self.sqlite and config.replicas > 1:
            raise ConfigError(
                f"database.replicas = {config.replicas} needs PostgreSQL: gateways that each have an SQLite file share nothing."
                " Set database.url = 'postgresql://…'"
            )
        self._clock = clock
        self.state, self.why = State.DOWN, "it has not been tried yet"
        self.failures = 0
        self._since = clock()
        self._told: float | None = None  # when the log had a line of the present loss, or of the last one
        self._woken, self._is_up = asyncio.Event(), asyncio.Event()
        self._limits: set[asyncio.Timeout] = set()  # of transactions with a server
        self._turns = asyncio.Semaphore(
            CONNECTIONS
        )  # theirs; waited for here, because waiting for one says nothing of the server
        self._heard = 0.0  # when a transaction that may write last began or ended, by the loop's clock
        self._write = (
            sqlite_engine(self.url) if self.sqlite else postgresql_engine(self.url, pooler=bool(config.direct_url))
        )
        self._read = (
            sqlite_engine(self.url, reads=True)
            if self.sqlite
            else self._write.execution_options(isolation_level="REPEATABLE READ")  # all at one moment, as in SQLite
        )

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
    async def writing(self, seconds: float | None = None) -> AsyncIterator[AsyncConnection]:
        """A transaction that may write; committed at the end, rolled back by an exception. Raises StoreUnavailable.

        After ``seconds`` it is given up as lost. SQLite's own limit for a lock suffices it, and its thread cannot be stopped anyway.
        """
        async with self._begun(self._write, None if self.sqlite else seconds) as connection:
            yield connection

    @asynccontextmanager
    async def reading(self, seconds: float | None = None) -> AsyncIterator[AsyncConnection]:
        """A transaction that only reads, all of it at one moment. Raises StoreUnavailable, and StoreSlow after ``seconds``."""
        async with self._begun(self._read) as connection:
            if seconds is None:
                yield connection
                return
            try:
                async with limited(connection, seconds):
                    yield connection
            except DBAPIError as error:
                if in_words(error) == "interrupted" or getattr(error.orig, "sqlstate", "") == _CANCELLED:
                    raise StoreSlow(f"the database took longer than {seconds:g} s: ask for less") from error
                raise

    @asynccontextmanager
    async def _begun(self, engine: AsyncEngine, seconds: float | None = None) -> AsyncIterator[AsyncConnection]:
        if self.state is not State.UP:
            raise self._unavailable()
        begins, reads = self._now(), self.sqlite and engine is self._read
        try:
            async with engine.begin() if self.sqlite else self._answered(engine, seconds) as connection:
                self._heard = self._heard if reads else self._now()
                yield connection
            self._heard = self._heard if reads else self._now()
        except _NOT_LOST:
            raise
        except _LOST as error:
            if isinstance(error, PoolTimeout) and (not self.sqlite or reads or self._heard >= begins):
                raise self._busy() from error
            if isinstance(error, DBAPIError) and error.orig and isinstance(error.orig.__cause__, PostgresDataError):
                raise DataError(error.statement, None, error.orig, hide_parameters=True) from error
            self._lose(error)
            raise self._unavailable() from error

    @asynccontextmanager
    async def _answered(self, engine: AsyncEngine, seconds: float | None) -> AsyncIterator[AsyncConnection]:
        """A transaction with a server, of ``seconds`` at most. Who cannot begin it while nobody else hears anything either finds that the server is
        silent, and ends all that are under way: else each would wait for its own statement to be given up.
        """
        await self._turn()
        begins, began = self._now(), False
        try:
            async with asyncio.timeout(SILENT_SECONDS if seconds is None else min(seconds, SILENT_SECONDS)) as limit:
                self._limits.add(limit)
                try:
                    async with engine.begin() as connection:  # which asks whether it is there
                        began = True
                        limit.reschedule(None if seconds is None else begins + seconds)
                        yield connection
                finally:
                    self._limits.discard(limit)
        except TimeoutError as error:
            if not began and self._heard >= begins:
                raise self._busy() from error
            if not began and (seconds is None or seconds >= SILENT_SECONDS):
                for other in self._limits:
                    if not other.expired():
                        other.reschedule(begins)
            raise
        finally:
            self._turns.release()

    async def _turn(self) -> None:
        """Wait for one of the connections. Raises StoreUnavailable."""
        try:
            async with asyncio.timeout(TURN_SECONDS):
                await self._turns.acquire()
        except TimeoutError as error:
            raise self._busy() from error
        if self.state is not State.UP:  # lost meanwhile
            self._turns.release()
            raise self._unavailable()

    async def until_up(self) -> None:
        """Wait until it can be used."""
        await self._is_up.wait()

    def _unavailable(self) -> StoreUnavailable:
        kind = StoreNewer if self.state is State.NEWER else StoreUnavailable
        return kind(f"the database is not available: {self.why}", retry_after=AGAIN_SECONDS)

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()

    def _busy(self) -> StoreUnavailable:
        return StoreUnavailable("the database has too much to do just now", retry_after=AGAIN_SECONDS)

    def _lose(self, error: BaseException) -> None:
        self.failures += 1
        why = in_words(error)
        if self.state is State.UP:
            self._since = self._clock()
            if (
                self._may_tell()
            ):  # a disk that is full takes a SELECT, and nothing after it: that would be a line each time
                log.error("the database is lost: %s; relaying goes on", why)
        self._become(State.DOWN, why)
        self._woken.set()

    def _may_tell(self) -> bool:
        now = self._clock()
        may = self._told is None or now - self._told >= TELL_AGAIN_SECONDS
        if may:
            self._told = now
        return may

    def _become(self, state: State, why: str) -> None:
        self.state, self.why = state, why
        if state is State.UP:
            self._is_up.set()
        else:
            self._is_up.clear()

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
            self._become(State.NEWER, error.message)
        except _LOST as error:
            self._still_down(error)
        else:
            if self.state is not State.UP and self.failures and self._told is not None and self._told >= self._since:
                log.info("the database is back after %.1f s", self._clock() - self._since)
            self._become(State.UP, "")

    def _still_down(self, error: BaseException) -> None:
        self.failures += 1
        self._become(State.DOWN, in_words(error))
        if self._may_tell():
            log.warning("the database is not available: %s; trying again", self.why)

    async def _migrated(self) -> None:
        if self.sqlite:
            make_room(Path(str(self.url.database)))
        engine = self._migrating()
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

    def _migrating(self) -> AsyncEngine:
        return sqlite_engine(self.url, migrates=True) if self.sqlite else postgresql_engine(self.direct, migrates=True)

    @property
    def _absent(self) -> bool:
        return self.sqlite and not Path(str(self.url.database)).exists()

    async def revision(self) -> str | None:
        """What the database is at, None while it is empty; nothing is made or changed. Raises StoreUnavailable."""
        if self._absent:
            return None
        engine = self._migrating()
        try:
            async with asyncio.timeout(CONNECT_SECONDS), engine.connect() as connection:
                return await connection.run_sync(revision)
        except _LOST as error:
            raise StoreUnavailable(f"the database is not available: {in_words(error)}") from error
        finally:
            await engine.dispose()

    async def vacuum(self) -> None:
        """Give back the space of what was deleted. Raises StoreUnavailable."""
        engine = self._migrating()
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

    async def tidy(self) -> None:
        """Let an SQLite file and its log shrink a little; PostgreSQL does so by itself. Raises StoreUnavailable."""
        if not self.sqlite:
            return
        try:
            async with self._write.connect() as connection:
                driver: Any = (await connection.get_raw_connection()).driver_connection
                await driver.executescript(  # only so a pragma goes on to its end: a vacuum would free one page
                    "PRAGMA busy_timeout = 100;"  # nobody waits for a reader who takes long
                    f"PRAGMA incremental_vacuum({VACUUM_PAGES}); PRAGMA wal_checkpoint(TRUNCATE);"
                    f"PRAGMA busy_timeout = {int(BUSY_SECONDS * 1000)}"
                )
        except (*_LOST, sqlite3.Error) as error:
            self._lose(error)
            raise self._unavailable() from error

    async def close(self) -> None:
        """Close all connections."""
        for engine in (self._write, self._read):
            await engine.dispose()


def in_words(error: BaseException) -> str:
    """What a database's error says, without its statement and its values."""
    original = error.orig if isinstance(error, DBAPIError) and error.orig else error
    words = str(original).strip().splitlines()
    if isinstance(original, TimeoutError | PoolTimeout):
        return "it does not answer"
    return (words[0] if words else type(original).__name__)[:300]
