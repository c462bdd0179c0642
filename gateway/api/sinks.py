"""Where answers go: straight into the client's transport, or, for clients that this does not suit, through aiohttp's response.

TransportSink is the fast path: one ``transport.write`` for each read from the host, no task switch, no framework between. It leans
on three things of aiohttp's server (docs/decisions/0001): ``request.transport``, ``request.protocol.writing_paused``, and that a
returned response is only asked for ``prepare``, ``write_eof`` and ``keep_alive``.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Final, NoReturn

from aiohttp import web

from gateway.api.answers import Streamed
from gateway.api.manners import Headers, exposing
from gateway.dialects.lines import Framing
from gateway.record import Trace
from gateway.relay.exchange import ClientGone
from gateway.relay.headers import RawHeaders, passing, response_head, value_of

_SINGLE: Final = Framing.SINGLE

_OURS: Final = ("X-Corral-Generation", "X-Corral-Host", "X-Request-Id")
_CHUNKED: Final = b"Transfer-Encoding: chunked\r\n"
_LAST_CHUNK: Final = b"0\r\n\r\n"
_SIZES: Final = [b"%x\r\n" % size for size in range(4096)]  # a chunk's first line; tokens are short


def _named(trace: Trace) -> tuple[str, ...]:
    """Which headers of ours the answer has."""
    return (*_OURS, "traceresponse") if trace.sampled else _OURS


def _to_pages(cors: Headers, trace: Trace, told: Headers) -> Headers:
    """What lets a page of another site read the answer, and those of its headers that are ours."""
    return (*cors, *exposing((*_named(trace), *[name for name, _ in told]))) if cors else ()


class Relayed(web.StreamResponse):
    """Stands for an answer that has been written already: aiohttp has nothing left to do but to keep the connection, or not."""

    def __init__(self, status: int, *, keep_alive: bool) -> None:  # on purpose without super: nothing of it is used
        self._relayed_status = status
        self._relayed_keep_alive = keep_alive

    @property
    def status(self) -> int:
        """The status that was sent."""
        return self._relayed_status

    @property
    def prepared(self) -> bool:
        """Its head has gone."""
        return True

    @property
    def keep_alive(self) -> bool | None:
        """Whether the client's connection may serve another request."""
        return self._relayed_keep_alive

    async def prepare(self, request: web.BaseRequest) -> None:
        """Nothing to prepare."""

    async def write_eof(self, data: bytes = b"") -> None:
        """Nothing left to write."""


class TransportSink:
    """Writes HTTP/1.1 into the client's transport. For requests that keep ``suits``. ``told``: more headers, for whoever asks."""

    __slots__ = (
        "_chunked",
        "_cors",
        "_empty",
        "_head",
        "_id",
        "_keep_alive",
        "_protocol",
        "_request",
        "_told",
        "_trace",
        "_transport",
        "aborted",
        "finished",
        "started",
        "status",
    )

    def __init__(self, request: web.Request, generation: str, trace: Trace, cors: Headers, told: Headers = ()) -> None:
        self._request = request
        self._trace = trace
        self._cors = cors
        self._told = told
        plain: Any = request  # what request.keep_alive and request.transport say, by an interpreted property each
        self._keep_alive: bool = not plain._message.should_close
        self._protocol: Any = plain._protocol
        self._transport: Any = self._protocol.transport
        self._id = generation
        self._head = b""
        self._chunked = True
        self._empty = False  # an answer that has no body by its status
        self.status = 0
        self.started = False
        self.finished = False
        self.aborted = False

    @staticmethod
    def suits(request: web.Request) -> bool:
        """HTTP/1.1 and a transport that is still there."""
        plain: Any = request
        protocol = plain._protocol
        return bool(plain._message.version == (1, 1) and protocol is not None and protocol.transport is not None)

    def begin(self, status: int, headers: RawHeaders, framing: Framing, host: str) -> None:
        self.status = status
        self._empty = status in (204, 304)
        length = value_of(headers, b"content-length") if framing is _SINGLE else b""
        self._chunked = not length and not self._empty
        trace = self._trace
        ours = (
            f"X-Corral-Generation: {self._id}\r\nX-Corral-Host: {host}\r\nX-Request-Id: {trace.request_id}\r\n".encode()
        )
        if trace.sampled:
            ours += b"traceresponse: %b\r\n" % trace.traceparent(trace.span_id).encode()
        if self._cors or self._told:
            more = (*self._told, *_to_pages(self._cors, trace, self._told))
            ours += "".join([f"{name}: {value}\r\n" for name, value in more]).encode()
        if not self._keep_alive:
            ours += b"Connection: close\r\n"
        self._head = response_head(status, headers, self._framing(length), ours)

    def _framing(self, length: bytes) -> bytes:
        if self._empty:
            return b""
        return b"Content-Length: %b\r\n" % length if length else _CHUNKED

    @property
    def raw(self) -> tuple[Callable[[bytes], None], Callable[[], int]] | None:
        """The transport's own, where the answer is chunked."""
        return (self._transport.write, self._transport.get_write_buffer_size) if self._chunked else None

    def write(self, data: bytes, last: bool = False) -> bool:
        if self._chunked:
            size = len(data)
            if size:
                data = b"".join((_SIZES[size] if size < 4096 else b"%x\r\n" % size, data, b"\r\n"))
            if last:
                data += _LAST_CHUNK
        elif self._empty:
            data = b""
        if not self.started:
            data = self._head + data
            self.started = True
        if last:
            self.finished = True
        try:
            self._transport.write(data)
        except (
            RuntimeError
        ):  # uvloop's word for a transport that closed a moment ago; asyncio only drops what is written
            raise ClientGone from None
        return not self._protocol.writing_paused

    async def drain(self) -> None:
        await self._request.writer.drain()

    @property
    def buffered(self) -> bool:
        """Never: all is in the transport already."""
        return False

    async def flush(self) -> None:
        """Nothing to do."""

    def abort(self) -> None:
        self.aborted = True
        self._transport.abort()

    def response(self) -> web.StreamResponse:
        """What the handler returns."""
        return Relayed(self.status, keep_alive=self.finished and not self.aborted and self._keep_alive)


class ResponseSink:
    """Writes through aiohttp's StreamResponse: HTTP/1.0, and whatever else the fast path does not take."""

    __slots__ = (
        "_cors",
        "_id",
        "_pending",
        "_request",
        "_response",
        "_told",
        "_trace",
        "aborted",
        "finished",
        "started",
    )

    def __init__(self, request: web.Request, generation: str, trace: Trace, cors: Headers, told: Headers = ()) -> None:
        self._request = request
        self._trace = trace
        self._cors = cors
        self._told = told
        self._id = generation
        self._response: web.StreamResponse = Streamed()
        self._pending = b""
        self.started = False
        self.finished = False
        self.aborted = False

    def begin(self, status: int, headers: RawHeaders, framing: Framing, host: str) -> None:
        self._response = Streamed(status=status)
        for name, value in passing(headers):
            self._response.headers.add(name, value)
        self._response.headers["X-Corral-Generation"] = self._id
        self._response.headers["X-Corral-Host"] = host
        self._response.headers.extend(self._trace.answer)
        self._response.headers.extend((*self._told, *_to_pages(self._cors, self._trace, self._told)))
        if framing is _SINGLE and (length := value_of(headers, b"content-length")):
            self._response.content_length = int(length)
        elif self._request.version < (1, 1):
            self._response.force_close()  # how such a client learns where the answer ends; aiohttp only thinks of it

    @property
    def raw(self) -> None:
        """aiohttp frames the answer."""
        return None

    def write(self, data: bytes, last: bool = False) -> bool:
        if self._request.transport is None:
            raise ClientGone
        self._pending += data
        self.started = True
        self.finished = last
        return False  # drain sends it

    async def drain(self) -> None:
        data, self._pending = self._pending, b""
        try:
            if not self._response.prepared:
                await self._response.prepare(self._request)
            if data:
                await self._response.write(data)
        except ConnectionError:
            self._gone()

    def abort(self) -> None:
        self.aborted = True
        if self._request.transport is not None:
            self._request.transport.abort()

    @property
    def buffered(self) -> bool:
        """Until the connection is broken off."""
        return not self.aborted

    async def flush(self) -> None:
        """Send what is left, and the end."""
        await self.drain()
        try:
            await self._response.write_eof()
        except ConnectionError:
            self._gone()

    def _gone(self) -> NoReturn:
        """The client left: its task is about to be cancelled, and may as well be now."""
        self.aborted = True
        raise asyncio.CancelledError

    def response(self) -> web.StreamResponse:
        """What the handler returns."""
        return self._response
