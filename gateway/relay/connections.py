"""The pool of connections to hosts: kept alive, reused, dialled, and closed when idle too long."""

import asyncio
import os
import socket
import ssl
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, cast
from urllib.parse import urlsplit

from gateway.errors import ConfigError
from gateway.fleet.host import Host
from gateway.fleet.tls import Contexts, in_words
from gateway.record import AttemptOutcome
from gateway.relay.headers import OfHost
from gateway.relay.upstream import Connection, UpstreamError
from gateway.tasks import Tasks

RESOLVE_SECONDS: Final = 30.0
SWEEP_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a host's URL points. ``server_name``: what its certificate must name; ``headers`` of its own, if there are any."""

    address: str
    port: int
    tls: bool
    authority: str
    base_path: str
    server_name: str
    headers: OfHost | None

    @classmethod
    def of(cls, host: Host) -> "Origin":
        """Parse a configured URL (already checked)."""
        parts, link = urlsplit(host.url), host.link
        tls, address = parts.scheme == "https", parts.hostname or ""
        headers = OfHost(link.headers) if link.headers else None
        port, path, named = parts.port or (443 if tls else 80), parts.path.rstrip("/"), link.server_name or address
        return cls(address, port, tls, parts.netloc, path, named, headers)


class _Pool:
    """The idle connections to one host. Once ``retired`` (the host was removed, or moved) nothing comes back to it."""

    def __init__(self, host: Host, clock: Callable[[], float], put: Callable[[], None]) -> None:
        self.url = host.url
        self.link = host.link
        self.origin = Origin.of(host)
        self.idle: list[Connection] = []
        self.retired = False
        self._clock = clock
        self._put = put

    def made(self) -> Connection:
        """A connection that comes back here."""
        return Connection(self._free)

    def _free(self, connection: Connection) -> None:
        if self.retired:
            connection.abort()
            return
        connection.idle_since = self._clock()
        self.idle.append(connection)
        self._put()

    def drop(self) -> None:
        """Close what is idle."""
        idle, self.idle = self.idle, []
        for connection in idle:
            connection.abort()


class Connections:
    """The pool, over all hosts. Idle connections are reused last in, first out; names are resolved beside the request's path."""

    def __init__(
        self,
        hosts: Iterable[Host],
        connect_timeout_seconds: float,
        idle_seconds: float,
        clock: Callable[[], float],
        contexts: Contexts,
    ) -> None:
        self._pools: dict[str, _Pool] = {}
        self._connect_timeout = connect_timeout_seconds
        self._idle_seconds = idle_seconds
        self._clock = clock
        self._resolved: dict[str, tuple[float, list[str]]] = {}
        self._contexts = contexts
        self._tasks = Tasks()
        self._sweeper: asyncio.TimerHandle | None = None
        self.configure(hosts)

    def __repr__(self) -> str:
        return f"<Connections [{sum(len(pool.idle) for pool in self._pools.values())} idle]>"

    def configure(self, hosts: Iterable[Host]) -> None:
        """These are the hosts from now on. Connections to others, or to where a host was before, are closed when they are idle."""
        before, self._pools = self._pools, {}
        for host in hosts:
            known = before.pop(host.name, None)
            if known is not None and (known.url, known.link) != (host.url, host.link):
                before[host.name], known = known, None
            self._pools[host.name] = known or _Pool(host, self._clock, self._sweep_later)
        for pool in before.values():
            pool.retired = True
            pool.drop()

    def origin(self, host: str) -> Origin:
        """Where a host is. Raises UpstreamError if it was removed."""
        return self._pool(host).origin

    def idle(self, host: str) -> Connection | None:
        """A pooled connection, if there is a live one. Raises UpstreamError if the host was removed."""
        idle = self._pool(host).idle
        while idle:
            connection = idle.pop()
            if connection.open:
                connection.reused = True
                return connection
        return None

    async def dial(self, host: str) -> Connection:
        """A new connection. Raises UpstreamError."""
        pool = self._pool(host)
        origin = pool.origin
        loop = asyncio.get_running_loop()
        last: OSError | None = None
        made: Callable[[], Any] = pool.made  # an asyncio.Protocol in all but name
        try:
            tls = await self._contexts.of(pool.link) if origin.tls else None
            async with asyncio.timeout(self._connect_timeout):
                for address in await self._addresses(origin):
                    try:
                        _, connection = await loop.create_connection(
                            made,
                            address,
                            origin.port,
                            ssl=tls,
                            server_hostname=origin.server_name if tls else None,
                        )
                    except OSError as error:
                        last = error
                    else:
                        return cast("Connection", connection)
        except TimeoutError:
            why = f"no connection within {self._connect_timeout:g} s"
        except ConfigError as error:
            why = f"cannot connect: {error.message}"
        except (OSError, UnicodeError) as error:
            why = f"cannot resolve {origin.address}: {getattr(error, 'strerror', None) or error}"
        else:
            why = f"cannot connect: {_words(last)}"
        self._resolved.pop(origin.address, None)
        raise UpstreamError(AttemptOutcome.CONNECT_ERROR, why, unreachable=True) from None

    def drop(self, host: str) -> None:
        """Close what is pooled for a host: it is gone."""
        if host in self._pools:
            self._pools[host].drop()

    async def close(self) -> None:
        """Close every pooled connection."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        for pool in self._pools.values():
            pool.drop()
        await self._tasks.close()

    def _pool(self, host: str) -> _Pool:
        pool = self._pools.get(host)
        if pool is None:
            raise UpstreamError(AttemptOutcome.CONNECT_ERROR, "was removed from the configuration", unreachable=True)
        return pool

    def _sweep_later(self) -> None:
        if self._sweeper is None:
            self._sweeper = asyncio.get_running_loop().call_later(SWEEP_SECONDS, self._sweep)

    def _sweep(self) -> None:
        """Close what has been idle too long: the oldest stand first."""
        self._sweeper = None
        oldest = self._clock() - self._idle_seconds
        for pool in self._pools.values():
            idle = pool.idle
            while idle and idle[0].idle_since < oldest:
                idle.pop(0).abort()
        if any(pool.idle for pool in self._pools.values()):
            self._sweep_later()

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
    if isinstance(error, ssl.SSLError):
        return in_words(error)
    return os.strerror(error.errno) if error.errno else str(error)
