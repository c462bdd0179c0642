"""Short words between the gateways that share a PostgreSQL: LISTEN and NOTIFY on one connection that nothing else uses.

A word is lost while the connection is. So nothing may depend on one alone: what it says stands in a table too, and ``again`` is called
whenever the connection is new, to read that table. A server that has fallen silent is found by asking it something: nothing else would
tell. What a pooler (PgBouncer in transaction mode) makes of LISTEN is nothing, without an error: so we say a word to ourselves first.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable

import asyncpg
from sqlalchemy import URL

from gateway.errors import StoreUnavailable
from gateway.tasks import pause

CHANNEL = "corral"
CONNECT_SECONDS = 5.0
BEAT_SECONDS = 5.0
ANSWER_SECONDS = 3.0
ECHO_SECONDS = 2.0
RETRY_SECONDS, RETRY_MOST_SECONDS = 0.1, 5.0
AGAIN_SECONDS = 2.0  # when a caller may ask again
WORD_BYTES = 7_999  # PostgreSQL takes no longer one

log = logging.getLogger(__name__)
_LOST = (asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError, OSError)


class Bus:
    """``run`` as a task; ``heard`` is called with every word that another one, or this one, has said."""

    def __init__(
        self,
        url: URL,
        name: str,
        heard: Callable[[str], None],
        again: Callable[[], Awaitable[None]],
        beat_seconds: float = BEAT_SECONDS,
    ) -> None:
        self._dsn = url.set(drivername="postgresql").render_as_string(hide_password=False)
        self._name = name
        self._heard = heard
        self._again = again
        self._beat_seconds = beat_seconds
        self._connection: asyncpg.Connection | None = None
        self._busy = asyncio.Lock()  # a connection does one thing at a time
        self._lost = asyncio.Event()
        self._echo = asyncio.Event()
        self.reconnects = 0
        self.up = False

    async def say(self, word: str) -> None:
        """Tell all who listen, oneself included. Raises StoreUnavailable; ValueError over WORD_BYTES."""
        if len(word.encode()) > WORD_BYTES:
            raise ValueError(f"a word of {len(word.encode())} bytes: send an id instead")
        await self.write("SELECT pg_notify($1, $2)", CHANNEL, word)

    async def write(self, statement: str, *values: object) -> None:
        """Run a statement that says a word itself (on CHANNEL), with the row that it writes: both or neither, in one go. Raises StoreUnavailable."""
        connection = self._connection
        if connection is None or not self.up:
            raise StoreUnavailable("the other gateways cannot be reached now", retry_after=AGAIN_SECONDS)
        try:
            await self._run(connection, statement, *values)
        except _LOST as error:
            self._lost.set()
            raise StoreUnavailable("the other gateways cannot be reached now", retry_after=AGAIN_SECONDS) from error

    async def run(self) -> None:
        """Listen for ever; connect again whenever the connection is lost."""
        wait = RETRY_SECONDS
        while True:
            try:
                await self._listen()
                wait = RETRY_SECONDS
            except _LOST as error:
                if self.up:
                    log.warning("the other gateways are out of reach: %s", error or type(error).__name__)
            finally:
                self.up = False
                self._close()
            await pause(wait)
            wait = min(RETRY_MOST_SECONDS, 2 * wait)

    async def _listen(self) -> None:
        connection = self._connection = await asyncpg.connect(
            self._dsn,
            timeout=CONNECT_SECONDS,
            command_timeout=ANSWER_SECONDS,
            server_settings={"application_name": "corral bus"},
        )
        self._lost.clear()
        connection.add_termination_listener(lambda _connection: self._lost.set())
        await connection.add_listener(CHANNEL, self._word)
        await self._hear_oneself(connection)
        self.up = True
        self.reconnects += 1
        await self._again()
        while not await pause(self._beat_seconds, self._lost):
            async with self._busy:
                await connection.execute("SELECT 1")

    async def _hear_oneself(self, connection: asyncpg.Connection) -> None:
        self._echo.clear()
        await self._run(connection, "SELECT pg_notify($1, $2)", CHANNEL, f"echo {self._name}")
        if not await pause(ECHO_SECONDS, self._echo):
            raise TimeoutError(
                "a word said to oneself did not come back: is there a pooler in between? Set database.direct_url"
            )

    async def _run(self, connection: asyncpg.Connection, statement: str, *values: object) -> None:
        async with self._busy:
            await connection.execute(statement, *values)

    def _word(self, _connection: object, _pid: int, _channel: str, word: str) -> None:
        if word == f"echo {self._name}":
            self._echo.set()
        elif not word.startswith("echo "):
            self._heard(word)

    def _close(self) -> None:
        """At once: a goodbye to a server that has fallen silent would wait for its answer."""
        connection, self._connection = self._connection, None
        if connection is not None and not connection.is_closed():
            connection.terminate()
