"""One connection to a host: our own, because aiohttp's client is the costliest part of a Python proxy (docs/decisions/0001).

Theory: llhttp (through httptools) parses what a host sends, inside ``data_received``; what it finds is handed to the receiver in
the same step, so a chunk reaches the client without any task being woken. One connection serves one request at a time. It goes
back to the pool only after a whole, clean answer; in every other case it is closed, and closing is what makes Ollama stop.
"""

import asyncio
import socket
from collections.abc import Callable
from typing import Final, Protocol, cast

import httptools

from gateway.record import AttemptOutcome

HEAD_LIMIT_BYTES: Final = 64 * 1024
HEADERS_LIMIT: Final = 128
ONE_WRITE_BYTES: Final = 64 * 1024
_EARLY: Final = "a body before its answer"
_CHUNK_SIZES: Final = {b"%x\r\n" % size: size for size in range(1, 4096)}  # size lines as everybody writes them
# A host that lost its power says nothing any more, and is noticed all the same: in a silence by the kernel's questions, while something
# is on its way to it by what its kernel does not acknowledge. Both take as long. A kernel that lives answers both, whatever its Ollama
# does, as long as it has room: a body that may fill it waits longer for the host to read on.
KEEPALIVE_IDLE_SECONDS, KEEPALIVE_INTERVAL_SECONDS, KEEPALIVE_PROBES = 15, 5, 3
UNHEARD_SECONDS, UNREAD_SECONDS = 30, 300


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


class Connection:
    """One connection to one host, and the parser on it. An asyncio.Protocol in all but the base class, which would keep mypyc from
    compiling its attributes (docs/decisions/0007)."""

    __slots__ = (
        "_aligned", "_barren", "_bearing", "_between", "_complete", "_free", "_head_ready", "_headers", "_informational", "_keep", "_line_end", "_nonsense", "_parser", "_pieces", "_poisoned", "_receiver",
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
        self._barren = self._wanted = self._bearing = 0
        self._head_ready = self._complete = self._keep = self._informational = self._poisoned = self._until_close = (
            False
        )
        self._nonsense = ""  # what llhttp lets pass and nobody can mean
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
            self._bear(UNHEARD_SECONDS)
            self._transport.write(head + body)
        else:
            self._bear(UNREAD_SECONDS)
            self._transport.write(head)
            self._transport.write(body)

    def _bear(self, seconds: int) -> None:
        """Give the host so long to acknowledge what is sent."""
        if seconds == self._bearing:
            return
        self._bearing = seconds
        assert self._transport is not None
        sock: socket.socket | None = self._transport.get_extra_info("socket")
        if sock is not None and hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, seconds * 1000)

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
            if hasattr(socket, "TCP_KEEPIDLE"):
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
        if self._nonsense or (self._pieces and not self._status):
            why = f"sent something that is not HTTP: {self._nonsense or _EARLY}"
            self._fail(AttemptOutcome.PROTOCOL_ERROR, why)
            return
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

    def eof_received(self) -> None:
        """Let the transport close."""

    def pause_writing(self) -> None:
        """A request is whole in memory anyway: the transport may as well hold it."""

    def resume_writing(self) -> None:
        """See pause_writing."""

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
        if (
            self._complete or self._receiver is None
        ) and not self._poisoned:  # the answer is over: what follows was never asked for
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
        if status < 100 or self._pieces:
            self._nonsense = _EARLY if self._pieces else f"status {status}"
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
