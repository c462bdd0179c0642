"""Who takes an answer in tests, and a connection whose other end is a list of reads."""

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

from gateway.relay.upstream import Connection, UpstreamError

REQUEST = b"POST /api/generate HTTP/1.1\r\nHost: gpu1\r\nContent-Length: 2\r\n\r\n"


class Heard:
    """A Receiver that keeps what it hears. ``whole_lines``: how the lines end that it wants as whole chunks.

    ``then`` is called after the head and after each piece.
    """

    def __init__(self, whole_lines: bytes = b"", then: Callable[[], object] = lambda: None) -> None:
        self.connection: Connection | None = None
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.pieces: list[bytes] = []
        self.chunks = 0
        self.complete = False
        self.error: UpstreamError | None = None
        self.over = asyncio.Event()
        self._whole_lines = whole_lines
        self._then = then

    @property
    def body(self) -> bytes:
        """All that came."""
        return b"".join(self.pieces)

    def head(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        """The final head, once, before anything else."""
        assert (self.status, self.pieces, self.over.is_set()) == (0, [], False)
        self.status, self.headers = status, headers
        self._then()

    def received(self, data: bytes, complete: bool) -> None:
        """A piece of the body, perhaps the last."""
        assert self.status
        assert not self.over.is_set()
        self.pieces.append(data)
        if complete:
            self.complete = True
            self.over.set()
        elif self._whole_lines and len(self.pieces) == 1 and self.connection is not None:
            self.connection.pass_whole(self._whole_lines)
        self._then()

    def chunk(self, framed: bytes, start: int) -> None:
        """A whole chunk as it stood on the wire."""
        data = framed[start:-2]
        assert framed == b"%x\r\n%b\r\n" % (len(data), data)
        assert data.endswith(self._whole_lines)
        self.chunks += 1
        self.received(data, False)

    def lost(self, error: UpstreamError) -> None:
        """The answer broke off."""
        assert not self.over.is_set()
        self.error = error
        self.over.set()

    def send(self, connection: Connection, head: bytes = REQUEST, body: bytes = b"{}") -> None:
        """Send a request whose answer is heard here."""
        self.connection = connection
        connection.send(self, head, body)

    @property
    def outcome(self) -> tuple[Any, ...]:
        """What came, however it was cut."""
        return self.status, self.headers, self.body, self.complete, self.error.outcome if self.error else None


class Wire(asyncio.Transport):
    """The edge of the event loop: takes what is written, and is open until it is aborted."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.aborted = False

    def write(self, data: Any) -> None:
        """Keep it."""
        self.written += data

    def get_write_buffer_size(self) -> int:
        """All is sent at once."""
        return 0

    def is_closing(self) -> bool:
        """Since it was aborted."""
        return self.aborted

    def abort(self) -> None:
        """Close."""
        self.aborted = True


def answered(reads: Iterable[bytes], *, whole_lines: bytes = b"", closed: bool = False) -> tuple[Heard, bool]:
    """What is heard of an answer that comes in these reads (``closed``: and the connection then ends), and if it is pooled."""
    pooled: list[Connection] = []
    connection, wire, heard = Connection(pooled.append), Wire(), Heard(whole_lines)
    connection.connection_made(wire)
    heard.send(connection)
    for data in reads:
        if wire.aborted or heard.over.is_set():
            break
        connection.data_received(data)
    if closed and not wire.aborted:
        connection.connection_lost(None)
    assert not (pooled and wire.aborted)
    return heard, bool(pooled)
