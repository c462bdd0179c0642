"""Takes connections where something comes before aiohttp's server has them: what a proxy tells of them, and TLS.

aiohttp's own way settles certificates once, when it begins to listen. Here each connection is begun with those that are in force, and a
PROXY header is read before TLS begins.
"""

import asyncio
import logging
import socket
import ssl
from collections import Counter
from collections.abc import Callable, Iterable

from aiohttp.web_protocol import RequestHandler

from gateway.api.door import Doorway, Visitor
from gateway.api.told import Client, Untold, told
from gateway.errors import TooManyConnections, TooSlow
from gateway.proxies import UNIX, Proxies
from gateway.tasks import Tasks, pause

log = logging.getLogger(__name__)
BEGIN_SECONDS = 10.0  # for a PROXY header, and again for TLS to come about
BEGINNING_MOST = 1024  # connections that may be about to; for one more the oldest of them is closed
_SHARES = 8  # of these, for one address that is no trusted proxy
FAREWELL_SECONDS = 1.0  # for the other side to agree that TLS ends
AGAIN_SECONDS = 1.0  # after there was no room for a connection
COMPLAINTS_MOST = 100
"""Proxies of which the log tells that they begin wrongly, each once."""


class Told(Visitor):
    """A connection that a proxy told about: ``peername`` is its client."""

    __slots__ = ("client",)
    client: Client | None

    @property
    def peername(self) -> Client | None:
        """Who is at the other end, as the proxy says."""
        return self.client

    def comes_from(self, transport: asyncio.BaseTransport) -> str:
        """The client, not the proxy."""
        return self.client[0] if self.client is not None else super().comes_from(transport)


class Acceptor:
    """Listens on bound sockets for a ``server``. ``tls`` gives the context for the next connection; with ``proxies`` each connection must be from one
    that is trusted, and begin with a PROXY header."""

    def __init__(
        self,
        socks: Iterable[socket.socket],
        server: Doorway,
        tls: Callable[[], ssl.SSLContext | None],
        proxies: Callable[[], Proxies] | None,
    ) -> None:
        self.sockets = tuple(socks)
        self._server = server
        self._tls = tls
        self._proxies = proxies
        self._beginning: dict[asyncio.Task[None], str] = {}  # the oldest first, and whose it is
        self._of: Counter[str] = Counter()
        self._tasks = Tasks()
        self._complained: set[str] = set()

    def start(self, backlog: int) -> None:
        """Listen. Raises OSError."""
        for sock in self.sockets:
            sock.listen(backlog)
            self._tasks.spawn("connections", self._accept(sock))

    async def stop(self) -> None:
        """Let nobody else in; who has not begun is sent away."""
        await self._tasks.close()
        for sock in self.sockets:
            sock.close()

    async def _accept(self, sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, address = await loop.sock_accept(sock)
            except OSError as error:  # too many open files, most likely
                log.error("cannot take a connection: %s", error)  # noqa: TRY400 - nothing of ours failed
                await pause(AGAIN_SECONDS)
                continue
            peer = str(address[0]) if sock.family != socket.AF_UNIX else UNIX
            try:
                self._make_room(peer)
            except TooManyConnections as error:
                connection.close()
                self._server.door.turn_away(error, peer)
            else:
                task = self._tasks.spawn("a connection that begins", self._begin(connection, peer))
                self._beginning[task] = peer
                self._of[peer] += 1
                task.add_done_callback(self._forget)
            await pause(0.0)  # asyncio would take all that wait at once, and those that begin would have no turn

    def _make_room(self, peer: str) -> None:
        """For one more of this address. Raises TooManyConnections."""
        door = self._server.door
        most = min(door.config.per_address, max(1, BEGINNING_MOST // _SHARES))
        if self._of[peer] >= most and not door.proxies.trusts(peer):
            raise TooManyConnections(f"{most} connections of {peer} have not begun yet")
        if len(self._beginning) >= BEGINNING_MOST:
            oldest, address = next(iter(self._beginning.items()))
            self._forget(oldest)
            if oldest.cancel():
                error = TooManyConnections(f"{BEGINNING_MOST} connections have not begun yet, and it was the oldest")
                door.turn_away(error, address)

    def _forget(self, task: asyncio.Task[None]) -> None:
        peer = self._beginning.pop(task, None)
        if peer is not None:  # else it made room
            self._of[peer] -= 1
            if not self._of[peer]:
                del self._of[peer]

    async def _begin(self, connection: socket.socket, peer: str) -> None:
        try:
            client = await self._client(connection, peer) if self._proxies is not None else None
            if connection.family != socket.AF_UNIX:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except (Untold, OSError) as error:
            connection.close()
            self._complain(peer, str(error))
        except TooSlow as error:
            connection.close()
            self._server.door.turn_away(error, peer)
        except BaseException:
            connection.close()
            raise
        else:
            await self._serve(connection, client, peer)

    async def _client(self, connection: socket.socket, peer: str) -> Client:
        """Raises Untold, TooSlow and OSError."""
        assert self._proxies is not None
        if not self._proxies().trusts(peer):
            raise Untold("it is none of http.trusted_proxies")
        try:
            async with asyncio.timeout(BEGIN_SECONDS):
                return await told(connection) or (peer, 0)
        except TimeoutError:
            raise TooSlow(f"no PROXY header came within {BEGIN_SECONDS:g} s") from None

    async def _serve(self, connection: socket.socket, client: Client | None, peer: str) -> None:
        tls = self._tls()
        seconds = {"ssl_handshake_timeout": BEGIN_SECONDS, "ssl_shutdown_timeout": FAREWELL_SECONDS} if tls else {}
        loop = asyncio.get_running_loop()
        try:
            await loop.connect_accepted_socket(lambda: self._handler(client), connection, ssl=tls, **seconds)
        except ConnectionAbortedError:
            self._server.door.turn_away(TooSlow(f"TLS did not come about within {BEGIN_SECONDS:g} s"), peer)
        except OSError as error:  # anybody can begin TLS wrongly, or leave
            log.debug("no connection with %s: %s", peer, error)

    def _handler(self, client: Client | None) -> RequestHandler:
        if client is None:
            return self._server()
        handler = Told(self._server, door=self._server.door, loop=asyncio.get_running_loop(), **self._server._kwargs)
        handler.client = client
        return handler

    def _complain(self, peer: str, why: str) -> None:
        if peer not in self._complained and len(self._complained) < COMPLAINTS_MOST:
            self._complained.add(peer)
            log.warning("a connection from %s is closed, and told this once: %s", peer, why)


async def bound(address: str, port: int) -> list[socket.socket]:
    """Sockets bound to all that ``address`` means. Raises OSError."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(address, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    socks: list[socket.socket] = []
    try:
        for family, kind, protocol, _, where in dict.fromkeys(found):
            sock = socket.socket(family, kind, protocol)
            socks.append(sock)
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind(where)
    except BaseException:
        for sock in socks:
            sock.close()
        raise
    return socks
