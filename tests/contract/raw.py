"""A bare HTTP/1.1 client: shows what is on the wire — status, headers in order, each chunk — and hides nothing."""

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, Self
from urllib.parse import urlsplit

Framing = Literal["chunked", "length", "close", "none"]
"""How the end of a body is told: by a last chunk, by Content-Length, by closing; or there is no body."""

_SECONDS = 10.0


class Cut(Exception):
    """The connection ended in the middle of an answer; the text says where and how."""


@dataclass(slots=True)
class Head:
    """Status line and headers, as received."""

    status: int
    reason: str
    headers: list[tuple[str, str]]

    def all(self, name: str) -> list[str]:
        """Every value of a header, whatever the case of its name."""
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def get(self, name: str) -> str | None:
        """The first value of a header."""
        return next(iter(self.all(name)), None)


@dataclass(slots=True)
class Answer(Head):
    """A whole answer. Without chunked framing the body is one chunk."""

    framing: Framing
    chunks: list[bytes] = field(default_factory=list)

    @property
    def body(self) -> bytes:
        """All chunks together."""
        return b"".join(self.chunks)


class Connection:
    """One connection, step by step: `send`, `head`, `chunk` until None; then the next request, or `close`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._method = ""
        self._framing: Framing = "none"
        self._left = 0

    @classmethod
    @contextlib.asynccontextmanager
    async def to(cls, url: str, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[Self]:
        """A connection to the host of `url`, or to the Unix socket of `unix:PATH`; closed at the end."""
        if url.startswith("unix:"):
            reader, writer = await asyncio.open_unix_connection(url.removeprefix("unix:"), limit=2**20)
        else:
            parts = urlsplit(url)
            reader, writer = await asyncio.open_connection(parts.hostname, parts.port, limit=2**20, ssl=tls)
        connection = cls(reader, writer)
        try:
            yield connection
        finally:
            await connection.close()

    async def send(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        """Send a request; Host and Content-Length are added unless given, or the body comes in chunks."""
        peer = self._writer.get_extra_info("peername")
        if peer is None:  # let in by the kernel, and reset by whoever was about to close
            raise ConnectionResetError("reset before the request")
        own = "{}:{}".format(*peer[:2]) if isinstance(peer, tuple) else "localhost"  # or a Unix socket
        given = dict(headers or {})
        sized = body is not None and "Transfer-Encoding" not in given
        every = {"Host": own} | ({"Content-Length": str(len(body or b""))} if sized else {}) | given
        lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in every.items()), "", ""]
        self._writer.write("\r\n".join(lines).encode("latin-1") + (body or b""))
        self._method = method
        await self._writer.drain()

    async def head(self) -> Head:
        """Wait for status line and headers; Cut when the connection ends before."""
        lines = (await self._until(b"\r\n\r\n", "before the head")).decode("latin-1").split("\r\n")
        version, status, *reason = lines[0].split(" ", 2)
        if not version.startswith("HTTP/1."):
            raise Cut(f"not HTTP: {lines[0]!r}")
        pairs = [line.partition(":") for line in lines[1:] if line]
        head = Head(int(status), "".join(reason), [(name, value.strip()) for name, _, value in pairs])
        self._framing, self._left = self._frame(head)
        return head

    async def chunk(self) -> bytes | None:
        """The next chunk, None at the end of the body; Cut when the connection ends before."""
        match self._framing:
            case "chunked":
                return await self._next_chunk()
            case "length" if self._left:
                data = await self._exactly(self._left, "in the body")
                self._left = 0
                return data
            case "close":
                self._framing = "none"
                return await self._within(self._reader.read(), "in the body") or None
            case _:
                return None

    async def answer(self) -> Answer:
        """The whole answer to what was sent."""
        head = await self.head()
        answer = Answer(head.status, head.reason, head.headers, self._framing)
        while (chunk := await self.chunk()) is not None:
            answer.chunks.append(chunk)
        return answer

    async def ended(self) -> bool:
        """Wait until the other side closes; whether it was a reset."""
        try:
            while await self._within(self._reader.read(65536), "waiting for the end"):
                pass
        except Cut:
            return True
        return False

    async def close(self) -> None:
        """Close with FIN."""
        self._writer.close()
        with contextlib.suppress(ConnectionError):
            await self._writer.wait_closed()

    def reset(self) -> None:
        """Close with RST."""
        sock = self._writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()

    def _frame(self, head: Head) -> tuple[Framing, int]:
        length = head.get("Content-Length")
        if self._method == "HEAD" or head.status in (204, 304):
            return "none", 0
        if (head.get("Transfer-Encoding") or "").lower() == "chunked":
            return "chunked", 0
        return ("close", 0) if length is None else ("length", int(length))

    async def _next_chunk(self) -> bytes | None:
        line = await self._until(b"\r\n", "at a chunk")
        try:
            size = int(line.split(b";")[0], 16)
        except ValueError:
            raise Cut(f"not a chunk: {line!r}") from None
        data = await self._exactly(size + 2, "in a chunk")
        if size == 0:
            self._framing = "none"
            return None
        return data[:-2]

    async def _until(self, separator: bytes, where: str) -> bytes:
        return await self._within(self._reader.readuntil(separator), where)

    async def _exactly(self, size: int, where: str) -> bytes:
        return await self._within(self._reader.readexactly(size), where)

    async def _within(self, reading: "asyncio.Future[bytes] | object", where: str) -> bytes:
        try:
            async with asyncio.timeout(_SECONDS):
                return await reading  # type: ignore[misc]
        except asyncio.IncompleteReadError as error:
            raise Cut(f"closed {where}, after {error.partial[-80:]!r}") from None
        except ConnectionError as error:
            raise Cut(f"reset {where}: {error}") from None


async def ask(
    url: str,
    method: str,
    path: str,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    tls: ssl.SSLContext | None = None,
) -> Answer:
    """One request on a connection of its own."""
    async with Connection.to(url, tls=tls) as connection:
        await connection.send(method, path, body, headers)
        return await connection.answer()
