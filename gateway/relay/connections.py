"""The pool of connections to hosts: kept alive, reused, dialled, and closed when idle too long."""

import asyncio
import os
import socket
import ssl
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, cast
from urllib.parse import urlsplit

from gateway.fleet.host import Host
from gateway.record import AttemptOutcome
from gateway.relay.upstream import Connection, UpstreamError
from gateway.tasks import Tasks

RESOLVE_SECONDS = 30.0
SWEEP_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a host's URL points."""

    address: str
    port: int
    tls: bool
    authority: str
    base_path: str

    @classmethod
    def of(cls, url: str) -> "Origin":
        """Parse a configured URL (already checked)."""
        parts = urlsplit(url)
        tls = parts.scheme == "https"
        return cls(parts.hostname or "", parts.port or (443 if tls else 80), tls, parts.netloc, parts.path.rstrip("/"))


class Connections:
    """The pool, over all hosts. Idle connections are reused last in, first out; names are resolved beside the request's path."""

    def __init__(
        self, hosts: Iterable[Host], connect_timeout_seconds: float, idle_seconds: float, clock: Callable[[], float]
    ) -> None:
        self.origins = {host.name: Origin.of(host.url) for host in hosts}
        self._idle: dict[str, list[Connection]] = {name: [] for name in self.origins}
        self._factories: dict[str, Callable[[], Any]] = {
            name: partial(Connection, partial(self._put, name)) for name in self.origins
        }
        self._connect_timeout = connect_timeout_seconds
        self._idle_seconds = idle_seconds
        self._clock = clock
        self._resolved: dict[str, tuple[float, list[str]]] = {}
        self._tls = ssl.create_default_context() if any(origin.tls for origin in self.origins.values()) else None
        self._tasks = Tasks()
        self._sweeper: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<Connections [{sum(map(len, self._idle.values()))} idle]>"

    def idle(self, host: str) -> Connection | None:
        """A pooled connection, if there is a live one."""
        idle = self._idle[host]
        while idle:
            connection = idle.pop()
            if connection.open:
                connection.reused = True
                return connection
        return None

    async def dial(self, host: str) -> Connection:
        """A new connection. Raises UpstreamError."""
        origin = self.origins[host]
        loop = asyncio.get_running_loop()
        last: OSError | None = None
        try:
            async with asyncio.timeout(self._connect_timeout):
                for address in await self._addresses(origin):
                    try:
                        _, connection = await loop.create_connection(
                            self._factories[host],
                            address,
                            origin.port,
                            ssl=self._tls if origin.tls else None,
                            server_hostname=origin.address if origin.tls else None,
                        )
                    except OSError as error:
                        last = error
                    else:
                        return cast("Connection", connection)
        except TimeoutError:
            why = f"no connection within {self._connect_timeout:g} s"
        except (OSError, UnicodeError) as error:
            why = f"cannot resolve {origin.address}: {getattr(error, 'strerror', None) or error}"
        else:
            why = f"cannot connect: {_words(last)}"
        self._resolved.pop(origin.address, None)
        raise UpstreamError(AttemptOutcome.CONNECT_ERROR, why, unreachable=True) from None

    def drop(self, host: str) -> None:
        """Close what is pooled for a host: it is gone."""
        idle, self._idle[host] = self._idle[host], []
        for connection in idle:
            connection.abort()

    async def close(self) -> None:
        """Close every pooled connection."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        for host in self._idle:
            self.drop(host)
        await self._tasks.close()

    def _put(self, host: str, connection: Connection) -> None:
        connection.idle_since = self._clock()
        self._idle[host].append(connection)
        if self._sweeper is None:
            self._sweeper = asyncio.get_running_loop().call_later(SWEEP_SECONDS, self._sweep)

    def _sweep(self) -> None:
        """Close what has been idle too long: the oldest stand first."""
        self._sweeper = None
        oldest = self._clock() - self._idle_seconds
        for idle in self._idle.values():
            while idle and idle[0].idle_since < oldest:
                idle.pop(0).abort()
        if any(self._idle.values()):
            self._sweeper = asyncio.get_running_loop().call_later(SWEEP_SECONDS, self._sweep)

    async def _addresses(self, origin: Origin) -> list[str]:
        known = self._resolved.get(origin.address)
        if known is None:
            await self._resolve(origin)
            known = self._resolved[origin.address]
        elif self._clock() - known[0] > RESOLVE_SECONDS:
            self._resolved[origin.address] = (self._clock(), known[1])
            self._tasks.spawn(f"resolve {origin.address}", self._refresh(origin))
        return known[1]

    async def _resolve(self, origin: Origin) -> None:
        found = await asyncio.get_running_loop().getaddrinfo(origin.address, origin.port, type=socket.SOCK_STREAM)
        self._resolved[origin.address] = (self._clock(), list(dict.fromkeys(str(row[4][0]) for row in found)))

    async def _refresh(self, origin: Origin) -> None:
        try:
            await self._resolve(origin)
        except OSError:
            return  # the last known addresses stay; a dial that fails resolves anew


def _words(error: OSError | None) -> str:
    """The system's own words: asyncio puts others in their place."""
    if error is None:
        return "no address"
    return os.strerror(error.errno) if error.errno and not isinstance(error, ssl.SSLError) else str(error)
