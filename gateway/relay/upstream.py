"""Connections to hosts: our own keep-alive pool, because aiohttp's client is the costliest part of a Python proxy.

Theory: llhttp (through httptools) parses what a host sends, inside ``data_received``; what it finds is handed to the receiver in
the same step, so a chunk reaches the client without any task being woken. One connection serves one request at a time. It goes
back to the pool only after a whole, clean answer; in every other case it is closed, and closing is what makes Ollama stop.
"""

import asyncio
import os
import socket
import ssl
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Protocol, cast
from urllib.parse import urlsplit

import httptools

from gateway.fleet.host import Host
from gateway.record import AttemptOutcome
from gateway.tasks import Tasks

HEAD_LIMIT_BYTES = 64 * 1024
HEADERS_LIMIT = 128
ONE_WRITE_BYTES = 64 * 1024
RESOLVE_SECONDS = 30.0
SWEEP_SECONDS = 30.0
_CHUNK_SIZES = {b"%x\r\n" % size: size for size in range(1, 4096)}  # size lines as everybody writes them
KEEPALIVE_IDLE_SECONDS, KEEPALIVE_INTERVAL_SECONDS, KEEPALIVE_PROBES = 15, 5, 3


class UpstreamError(Exception):
    """A host failed an attempt. ``unreachable``: no connection came about; ``stale``: a pooled connection had died unnoticed."""

    def __init__(self, outcome: AttemptOutcome, why: str, *, unreachable: bool = False, stale: bool = False) -> None:
        super().__init__(why)
        self.outcome = outcome
        self.why = why
        self.unreachable = unreachable
        self.stale = stale


class Receiver(Protocol):
    """Who takes an answer, step by step. All calls come from the event loop, none after ``lost`` or a complete ``received``."""

    def head(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        """The final response head."""

    def received(self, data: bytes, complete: bool) -> None:
        """What one read brought of the body."""

    def chunk(self, framed: bytes, start: int) -> None:
        """One whole chunk as it stood on the wire, its data from ``start`` to two bytes before its end (see ``pass_whole``)."""

    def lost(self, error: UpstreamError) -> None:
        """The answer broke off."""


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


class Connection(asyncio.Protocol):
    """One connection to one host, and the parser on it."""

    __slots__ = (
        "_aligned", "_barren", "_between", "_complete", "_free", "_head_ready", "_headers", "_informational", "_keep", "_line_end", "_parser", "_pieces", "_poisoned", "_receiver",
        "_status", "_transport", "_until_close", "_wanted", "answered", "idle_since", "on_body", "reused",
    )  # fmt: skip

    def __init__(self, free: Callable[["Connection"], None]) -> None:
        self._free = free
        self._pieces: list[bytes] = []
        self.on_body = self._pieces.append  # called by the parser for each piece: no Python frame of ours a chunk
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._receiver: Receiver | None = None
        self._headers: list[tuple[bytes, bytes]] = []
        self._status = 0
        self._barren = self._wanted = 0
        self._head_ready = self._complete = self._keep = self._informational = self._poisoned = self._until_close = (
            False
        )
        self.answered = False
        self.reused = False
        self.idle_since = 0.0

    # -- used by the relay -----------------------------------------------------------------------------------------------------

    @property
    def open(self) -> bool:
        """Whether the transport is there and not closing."""
        return self._transport is not None and not self._transport.is_closing()

    def send(self, receiver: Receiver, head: bytes, body: bytes) -> None:
        """Send one request; its answer goes to ``receiver``."""
        assert self._transport is not None
        assert self._receiver is None
        self._receiver = receiver
        self._headers = []
        self._status = self._barren = 0
        self._head_ready = self._complete = self._until_close = self._aligned = self._between = self.answered = False
        self._line_end = b""
        if len(body) <= ONE_WRITE_BYTES:
            self._transport.write(head + body)
        else:
            self._transport.write(head)
            self._transport.write(body)

    def pause(self) -> None:
        """Stop reading: the client is slower than the host."""
        if self.open:
            cast("asyncio.Transport", self._transport).pause_reading()

    def resume(self) -> None:
        """Read on."""
        if self.open:
            cast("asyncio.Transport", self._transport).resume_reading()

    def pass_whole(self, line_end: bytes) -> None:
        """From now on hand chunks that end in ``line_end`` to ``receiver.chunk`` as they stand; nothing: no more."""
        self._line_end = line_end + b"\r\n" if line_end else b""
        self._aligned = False

    def abort(self) -> None:
        """Close at once, whatever is under way: the host stops generating. The receiver hears nothing more."""
        self._receiver = None
        if self._transport is not None:
            self._transport.abort()

    # -- asyncio ---------------------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        sock: socket.socket | None = transport.get_extra_info("socket")
        if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            if hasattr(socket, "TCP_KEEPIDLE"):  # a host that lost its power is noticed in the middle of a long silence
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE_SECONDS)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_INTERVAL_SECONDS)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_PROBES)

    def data_received(self, data: bytes) -> None:
        receiver = self._receiver
        if receiver is None:  # nothing was asked: whatever this is, the connection can't be trusted
            self.abort()
            return
        if self._aligned:
            # The steady state of a stream: a read that is exactly one chunk and ends a line. The parser, which stands between two
            # chunks, need not see it. Anything else (also a size line written unusually) goes the careful way below.
            start = data.find(b"\r\n", 0, 5) + 2
            if _CHUNK_SIZES.get(data[:start]) == len(data) - start - 2 and data.endswith(self._line_end, start):
                receiver.chunk(data, start)
                return
        self.answered = True
        broken = ""
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            broken = f"sent something that is not HTTP: {error}"[:200]
        self._taken(receiver, len(data), broken)
        self._aligned = (
            bool(self._line_end) and self._between and not self._complete and not broken and data.endswith(b"\r\n")
        )

    def _taken(self, receiver: Receiver, size: int, broken: str) -> None:
        if self._head_ready:
            self._head_ready = False
            receiver.head(self._status, self._headers)
            if self._receiver is None:  # it was aborted there
                self._pieces.clear()
                return
        body = b"".join(self._pieces[: self._wanted] if self._poisoned else self._pieces)
        self._pieces.clear()
        self._barren = 0 if body else self._barren + size
        if self._complete:
            self._finish()
            receiver.received(body, True)
            return
        if body:
            receiver.received(body, False)  # also what came whole before the garbage
        if broken:
            self._fail(AttemptOutcome.PROTOCOL_ERROR, broken)
        elif self._barren > HEAD_LIMIT_BYTES:
            self._fail(AttemptOutcome.PROTOCOL_ERROR, f"sent over {HEAD_LIMIT_BYTES} bytes of head or framing")

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        receiver = self._receiver
        if receiver is None:
            return
        if self._until_close and exc is None:
            self._receiver = None
            receiver.received(b"", True)
            return
        why = f"broke the connection ({exc})" if exc else "closed the connection"
        self._fail(
            AttemptOutcome.RESET, f"{why} {'in the middle of its answer' if self._status else 'before its answer'}"
        )

    # -- httptools (no exception may leave these) --------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self._complete or self._receiver is None:  # the answer is over: what follows was never asked for
            self._poisoned = True
            self._wanted = len(self._pieces)

    def on_header(self, name: bytes, value: bytes) -> None:
        if len(self._headers) < HEADERS_LIMIT and not self._status:
            self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        if self._complete:
            return
        status = self._parser.get_status_code()
        if 100 <= status < 200:
            self._informational = True
            self._headers = []
            return
        self._status = status
        names = [name.lower() for name, _ in self._headers]
        sized = b"content-length" in names
        chunked = b"transfer-encoding" in names
        self._poisoned = self._poisoned or (sized and chunked)
        self._until_close = not sized and not chunked and status not in (204, 304)
        self._head_ready = True

    def on_chunk_header(self) -> None:
        self._between = False

    def on_chunk_complete(self) -> None:
        self._between = True

    def on_message_complete(self) -> None:
        if self._informational:
            self._informational = False
        else:
            self._complete = True
            self._keep = self._parser.should_keep_alive()  # llhttp knows only now

    # -- ends ------------------------------------------------------------------------------------------------------------------

    def _finish(self) -> None:
        self._receiver = None
        assert self._transport is not None
        unsent = self._transport.get_write_buffer_size()  # answered before it had read the request
        if self._poisoned or unsent or self._until_close or not self._keep:
            self._transport.abort()
        else:
            self._free(self)

    def _fail(self, outcome: AttemptOutcome, why: str) -> None:
        receiver, self._receiver = self._receiver, None
        if self._transport is not None:
            self._transport.abort()
        if receiver is not None:
            receiver.lost(UpstreamError(outcome, why, stale=self.reused and not self.answered))


class Connections:
    """The pool, over all hosts. Idle connections are reused last in, first out; names are resolved beside the request's path."""

    def __init__(
        self, hosts: Iterable[Host], connect_timeout_seconds: float, idle_seconds: float, clock: Callable[[], float]
    ) -> None:
        self.origins = {host.name: Origin.of(host.url) for host in hosts}
        self._idle: dict[str, list[Connection]] = {name: [] for name in self.origins}
        self._factories = {name: partial(Connection, partial(self._put, name)) for name in self.origins}
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
                        return connection
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
