"""Where connections come in: how many, and how long one may take to say what it wants.

Theory: a connection that is served costs next to nothing here. What arrives and completes no request (half a head, a piece of a body)
puts its connection on a list, which is looked through as long as anybody is on it. Who says nothing at all is idle, and aiohttp's own timer
closes it. It leans on what aiohttp's ``RequestHandler`` keeps of a connection (docs/decisions/0001).
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from typing import Any, cast

from aiohttp import HttpVersion11, StreamReader, web
from aiohttp.http import RawRequestMessage
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong
from aiohttp.web_protocol import RequestHandler

from gateway.api.answers import rendered
from gateway.api.framing import HEAD_LIMIT_BYTES
from gateway.api.manners import bare
from gateway.config import ConnectionsConfig
from gateway.dialects.endpoints import ENDPOINTS
from gateway.errors import CorralError, HeadTooLarge, NotHttp, TooManyConnections, TooSlow
from gateway.proxies import Proxies

log = logging.getLogger(__name__)
BODY_LEAST_BYTES = 1024  # of a body that must come in each ``body_seconds``
TOLD_EVERY_SECONDS = 60.0
_LOOKS = 4  # so often a deadline is looked at before it is over
_MESSAGE_MOST = 200


class Door:
    """All connections of a gateway. ``turned_away`` is told the code of each error that ends one here; of ``proxies`` any number may come."""

    def __init__(
        self,
        config: ConnectionsConfig,
        proxies: Proxies,
        clock: Callable[[], float],
        turned_away: Callable[[str], None],
    ) -> None:
        self.config = config
        self.proxies = proxies
        self.clock = clock
        self._turned_away = turned_away
        self._inside: Counter[str] = Counter()
        self._total = 0
        self._slow: set[Visitor] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._told_at = float("-inf")
        self._untold = 0
        self._look_seconds = min(config.head_seconds, config.body_seconds, float(_LOOKS)) / _LOOKS

    def __len__(self) -> int:
        return self._total

    def enter(self, address: str) -> None:
        """Count one. Raises TooManyConnections."""
        config = self.config
        if self._total >= config.total:
            raise TooManyConnections(f"{config.total} connections are open: no more are let in", retry_after=1.0)
        if address and self._inside[address] >= config.per_address and not self.proxies.trusts(address):
            raise TooManyConnections(f"{config.per_address} connections of {address} are open", retry_after=1.0)
        self._inside[address] += 1
        self._total += 1

    def leave(self, address: str) -> None:
        """Count one less."""
        self._total -= 1
        self._inside[address] -= 1
        if not self._inside[address]:
            del self._inside[address]

    def turn_away(self, error: CorralError, address: str) -> None:
        """Count what ends here, and say so once a minute."""
        self._turned_away(error.code)
        now = self.clock()
        if isinstance(error, NotHttp):
            log.debug("not HTTP: %s", error.message)
        elif now - self._told_at < TOLD_EVERY_SECONDS:
            self._untold += 1
        else:
            more = f" (and {self._untold} more since it was said last)" if self._untold else ""
            self._told_at, self._untold = now, 0
            log.warning("turned away %s: %s%s", address, error.message, more)

    def watch(self, visitor: "Visitor") -> None:
        """Look at it until what it says is whole."""
        self._slow.add(visitor)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._look_seconds, self._look)

    def _look(self) -> None:
        now = self.clock()
        self._timer = None
        self._slow = {visitor for visitor in self._slow if visitor.hurries(now)}
        if self._slow:
            self._timer = asyncio.get_running_loop().call_later(self._look_seconds, self._look)

    def close(self) -> None:
        """Look at nobody any more."""
        self._slow.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class Visitor(RequestHandler):
    """One connection. ``bulky``: its head may be a large one."""

    __slots__ = ("_address", "_body", "_door", "_partial_bytes", "_seen_bytes", "_since", "bulky")

    def __init__(self, manager: web.Server, *, door: Door, **more: Any) -> None:
        super().__init__(manager, **more)
        self._door = door
        self._address: str | None = None  # once it is counted
        self._partial_bytes = self._seen_bytes = 0
        self._since = 0.0
        self._body: StreamReader | None = None  # that is not whole
        self.bulky = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Let it in, or not."""
        address = self.comes_from(transport)
        try:
            self._door.enter(address)
        except TooManyConnections as error:
            self._manager = None  # it was never one of the server's
            self._door.turn_away(error, address)
            self._close = True
            cast("asyncio.Transport", transport).write(written(error))
            transport.close()
            return
        self._address = address
        super().connection_made(transport)

    def comes_from(self, transport: asyncio.BaseTransport) -> str:
        """The address that it counts for; empty: of a Unix socket, where there is none."""
        peer = transport.get_extra_info("peername")
        return str(peer[0]) if isinstance(peer, tuple) else ""

    def connection_lost(self, exc: BaseException | None) -> None:
        """Forget it."""
        if self._address is not None:
            self._door.leave(self._address)
            self._address = None
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """As aiohttp's; what completes no request is watched."""
        RequestHandler.data_received(self, data)
        messages = self._messages
        if messages:
            message, body = messages[-1]
            self._partial_bytes = 0
            self.bulky = self.bulky or len(data) > HEAD_LIMIT_BYTES
            if not body.is_eof():
                self._watched(body)
            elif self._body is not None and not isinstance(message, RawRequestMessage):
                self._break_off(NotHttp("the body is not framed as its head says"))  # its reader would wait for ever
        elif data and self.transport is not None:
            waiter = self._waiter
            if self._request_count and (waiter is None or waiter.done()):
                return  # a request is served, and this belongs to its body, which is watched, or to what comes after it
            if not self._partial_bytes:
                self._watched(None)
            self.bulky = True
            self._partial_bytes += len(data)
            if self._partial_bytes > HEAD_LIMIT_BYTES:
                self._end(HeadTooLarge(f"the request's head is over {HEAD_LIMIT_BYTES} bytes"))

    def _watched(self, body: StreamReader | None) -> None:
        self._since = self._door.clock()
        self._seen_bytes = 0
        self._body = body
        self._door.watch(self)

    def _break_off(self, error: CorralError) -> None:
        """Tell who reads the body that there will be no more of it."""
        body, self._body = self._body, None
        if body is not None and not body.is_eof():
            body.set_exception(error)

    def hurries(self, now: float) -> bool:
        """Whether to look again; who is too slow has been told so."""
        if self.transport is None or self._force_close:
            return False
        config, body = self._door.config, self._body
        if body is None:
            if not self._partial_bytes:
                return False
            if now - self._since < config.head_seconds:
                return True
            self._end(TooSlow(f"the request's head took over {config.head_seconds:g} s"))
            return False
        if body.is_eof():
            self._body = None
            return bool(self._partial_bytes)
        if (
            self._reading_paused or body.total_bytes - self._seen_bytes >= BODY_LEAST_BYTES
        ):  # its reader is slower; or it comes
            self._since, self._seen_bytes = now, body.total_bytes
        elif now - self._since >= config.body_seconds:
            error = TooSlow(
                f"of the request's body came less than {BODY_LEAST_BYTES} bytes in {config.body_seconds:g} s"
            )
            self._door.turn_away(error, self._address or "")
            self._break_off(error)
            return False
        return True

    def _end(self, error: CorralError) -> None:
        """Say so, and close."""
        self._door.turn_away(error, self._address or "")
        if self.transport is not None:
            self.transport.write(written(error))
        self.force_close()

    async def refused(self, request: web.BaseRequest, error: CorralError, prefix: str) -> web.StreamResponse:
        """The answer to a request that nobody serves, in the dialect of its path; of a head that is too large there may be none."""
        self._door.turn_away(error, self._address or "")
        request._version = HttpVersion11  # whatever it was: that is what we speak
        endpoint = None if isinstance(error, HeadTooLarge) else ENDPOINTS.get(bare(request.path, prefix))
        return rendered(error, endpoint)

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """What the parser refuses, in words and in our shape; it repeats what was sent, and we do not."""
        if not isinstance(exc, HttpProcessingError) or request.writer.output_size > 0:
            return super().handle_error(request, status, exc, message)
        error: CorralError = NotHttp(f"this is not HTTP as it is spoken here: {_in_short(exc.message)}")
        if isinstance(exc, LineTooLong):
            error = HeadTooLarge("a line of the request's head is over 8190 bytes")
        self._door.turn_away(error, self._address or "")
        return rendered(error)


class Doorway(web.Server):
    """aiohttp's server, with visitors. The runner makes one, as ``door`` says."""

    def __init__(self, made: web.Server, door: Door) -> None:
        super().__init__(
            made.request_handler,
            request_factory=made.request_factory,
            handler_cancellation=made.handler_cancellation,
            loop=made._loop,
            **made._kwargs,
        )
        self.door = door

    def __call__(self) -> RequestHandler:
        """A protocol for a new connection."""
        return Visitor(self, door=self.door, loop=self._loop, **self._kwargs)


def written(error: CorralError) -> bytes:
    """A whole answer, for who is not served at all."""
    answer = rendered(error)
    head = "".join(f"{name}: {value}\r\n" for name, value in answer.headers.items() if name != "Connection")
    body = answer.body if isinstance(answer.body, bytes) else b""
    status = f"HTTP/1.1 {answer.status} {answer.reason}\r\n"
    return f"{status}{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body


def _in_short(message: str) -> str:
    """A parser's message without the bytes that it shows."""
    return " ".join(message.partition("\n\n")[0].split()).rstrip(":")[:_MESSAGE_MOST]
