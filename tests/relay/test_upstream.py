"""Connections to hosts: every way to frame an answer, every way to break it, and what goes back into the pool."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.fleet.host import Host
from gateway.fleet.tls import Contexts
from gateway.record import AttemptOutcome
from gateway.relay.connections import Connections, Origin
from gateway.relay.upstream import HEAD_LIMIT_BYTES, ONE_WRITE_BYTES, Connection, UpstreamError
from tests.dialects.streams import cuts
from tests.profiles import PROPERTY
from tests.relay.receivers import REQUEST, Heard, Wire, answered
from tests.sockets import Serving, asked, deaf, listening, nobody, saying, until

SECONDS = 5.0
OK = b"HTTP/1.1 200 OK\r\n"
SIZED = OK + b"Content-Length: 5\r\n\r\nhello"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
OTHER = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nbad"


class Clock:
    """A hand-made clock."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        """Monotonic seconds."""
        return self.now


@pytest.fixture
def clock() -> Clock:
    """A clock that stands still."""
    return Clock()


Made = Callable[..., Connections]


@pytest.fixture
async def pool(clock: Clock) -> AsyncIterator[Made]:
    """Makes pools for the one host ``gpu1``; they are closed at the end."""
    made: list[Connections] = []

    def make(url: str, connect_timeout: float = 1.0, idle_seconds: float = 60.0) -> Connections:
        made.append(Connections([Host("gpu1", url)], connect_timeout, idle_seconds, clock, Contexts()))
        return made[-1]

    yield make
    for connections in made:
        await connections.close()


async def ask(connections: Connections, heard: Heard | None = None, body: bytes = b"{}") -> Heard:
    """Send one request, on a pooled connection if there is one, and wait for the end of its answer."""
    heard = heard or Heard()
    connection = connections.idle("gpu1") or await connections.dial("gpu1")
    heard.send(connection, REQUEST.replace(b"2", b"%d" % len(body), 1), body)
    async with asyncio.timeout(SECONDS):
        await heard.over.wait()
    return heard


# -- whole answers --------------------------------------------------------------------------------------------------------------------

WHOLE: dict[str, tuple[bytes, int, bytes, bool]] = {
    "with a length": (SIZED, 200, b"hello", True),
    "with a length of nothing": (OK + b"Content-Length: 0\r\n\r\n", 200, b"", True),
    "no content": (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b"", True),
    "not modified": (b"HTTP/1.1 304 Not Modified\r\n\r\n", 304, b"", True),
    "an error": (b"HTTP/1.1 503 X\r\nContent-Length: 2\r\n\r\nno", 503, b"no", True),
    "without a reason": (b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok", 200, b"ok", True),
    "in chunks": (CHUNKED + b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n", 200, b"hello", True),
    "in no chunks": (CHUNKED + b"0\r\n\r\n", 200, b"", True),
    "in chunks that look like chunks": (CHUNKED + b"5\r\n1\r\na\r\r\n0\r\n\r\n", 200, b"1\r\na\r", True),
    "in chunks with sizes in capitals": (CHUNKED + b"00A\r\n0123456789\r\n0\r\n\r\n", 200, b"0123456789", True),
    "in chunks with extensions": (CHUNKED + b'5;a=1;b="x y"\r\nhello\r\n0;c\r\n\r\n', 200, b"hello", True),
    "in chunks with trailers": (CHUNKED + b"5\r\nhello\r\n0\r\nX-Checksum: 9\r\nX: y\r\n\r\n", 200, b"hello", True),
    "after 100": (b"HTTP/1.1 100 Continue\r\n\r\n" + SIZED, 200, b"hello", True),
    "after 103": (b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n" + SIZED, 200, b"hello", True),
    "after several of them": (b"HTTP/1.1 100 Continue\r\n\r\n" * 3 + SIZED, 200, b"hello", True),
    "kept alive by HTTP/1.0": (SIZED.replace(b"1.1", b"1.0").replace(b"\r\n\r\n", b"\r\nConnection: keep-alive\r\n\r\n"), 200, b"hello", True),
    "by HTTP/1.0": (SIZED.replace(b"1.1", b"1.0"), 200, b"hello", False),
    "and then closing": (SIZED.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"), 200, b"hello", False),
    "in chunks and then closing": (
        OK + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        200,
        b"hello",
        False,
    ),
    "with many headers": (OK + b"X: y\r\n" * 200 + b"Content-Length: 5\r\n\r\nhello", 200, b"hello", False),
}  # fmt: skip
KEPT = {name: row for name, row in WHOLE.items() if row[3]}


@pytest.mark.parametrize(("answer", "status", "body", "kept"), WHOLE.values(), ids=WHOLE)
async def test_whole_answers(pool: Made, answer: bytes, status: int, body: bytes, kept: bool) -> None:
    """An answer is heard with its status and body; the connection serves again only if it may."""
    served: list[int] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        served.append(0)
        while await asked(reader):
            served[-1] += 1
            writer.write(answer)

    async with listening(serve) as url:
        connections = pool(url)
        for _ in range(2):
            heard = await ask(connections)
            assert (heard.status, heard.body, heard.complete, heard.error) == (status, body, True, None)
    assert served == ([2] if kept else [1, 1])


async def test_headers_are_heard_as_they_are(pool: Made) -> None:
    """Names in their spelling, values in their order, none of an interim answer, none of a trailer."""
    answer = (
        b"HTTP/1.1 103 X\r\nX-Early: 1\r\n\r\n"
        + OK
        + b"x-A: 1\r\nX-a: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-Late: 1\r\n\r\n"
    )
    async with listening(saying(answer)) as url:
        heard = await ask(pool(url))
    assert heard.headers == [(b"x-A", b"1"), (b"X-a", b"2"), (b"Transfer-Encoding", b"chunked")]


@pytest.mark.parametrize("answer", [OK + b"\r\nhello", OK + b"Content-Type: text/plain\r\n\r\nhello"])
async def test_a_body_until_the_end_of_the_connection(pool: Made, answer: bytes) -> None:
    """Without a length the close says that it is whole."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asked(reader)
        writer.write(answer)

    async with listening(serve) as url:
        connections = pool(url)
        heard = await ask(connections)
        assert (heard.status, heard.body, heard.complete) == (200, b"hello", True)
        assert connections.idle("gpu1") is None


AFTER = {
    "another answer": OTHER,
    "two more answers": OTHER * 2,
    "another answer and half a one": OTHER + b"HTTP/1.1 200",
    "half an answer": OTHER[:-1],
    "another in chunks": CHUNKED + b"3\r\nbad\r\n0\r\n\r\n",
    "an interim answer": b"HTTP/1.1 100 Continue\r\n\r\n",
    "something that is not HTTP": b"nonsense\r\n\r\n",
    "a byte": b"x",
}
BEFORE = {
    "a length": (SIZED, b"hello"),
    "a length of nothing": (OK + b"Content-Length: 0\r\n\r\n", b""),
    "chunks": (CHUNKED + b"5\r\nhello\r\n0\r\n\r\n", b"hello"),
    "no content": (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
}


@pytest.mark.parametrize("more", AFTER.values(), ids=AFTER)
@pytest.mark.parametrize(("answer", "body"), BEFORE.values(), ids=BEFORE)
async def test_bytes_after_the_end(pool: Made, answer: bytes, body: bytes, more: bytes) -> None:
    """What was never asked for is no part of the answer, and the connection is not used again."""
    served: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while request := await asked(reader):
            served.append(request)
            writer.write(answer + more)

    async with listening(serve) as url:
        connections = pool(url)
        for _ in range(2):
            heard = await ask(connections)
            assert (heard.body, heard.complete, heard.error) == (body, True, None)
        assert connections.idle("gpu1") is None
    assert len(served) == 2


@pytest.mark.parametrize("more", AFTER.values(), ids=AFTER)
def test_bytes_after_the_end_of_a_stream(more: bytes) -> None:
    """Even if they come in one read with nothing but the stream's end."""
    heard, pooled = answered([CHUNKED + b"5\r\nhello\r\n", b"0\r\n\r\n" + more])
    assert (heard.body, heard.complete, pooled) == (b"hello", True, False)


async def test_an_answer_before_the_request_was_read(pool: Made) -> None:
    """The rest of the request would be taken for the next one: the connection is closed."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(SIZED)
        await reader.read()

    async with listening(serve) as url:
        connections = pool(url)
        heard = await ask(connections, body=bytes(32 * 1024 * 1024))
        assert (heard.body, heard.complete) == (b"hello", True)
        assert connections.idle("gpu1") is None


async def test_a_large_request_arrives_whole(pool: Made) -> None:
    """Head and body are sent as they are."""
    body = bytes(range(256)) * 8192
    requests: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.append(await asked(reader))
        writer.write(SIZED)

    async with listening(serve) as url:
        await ask(pool(url), body=body)
    assert requests[0].endswith(b"\r\n\r\n" + body)


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="only Linux has it")
async def test_a_dead_host_is_noticed(pool: Made) -> None:
    """The kernel asks in a silence, and waits as long for what it sent; longer where a body may fill a host that is busy."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await asked(reader):
            writer.write(SIZED)

    async with listening(serve) as url:
        connections = pool(url)
        found = []
        for body in (b"{}", bytes(ONE_WRITE_BYTES + 1), b"{}"):
            await ask(connections, body=body)
            connection = connections.idle("gpu1")
            assert connection is not None
            assert connection._transport is not None
            connection._free(connection)
            sock = connection._transport.get_extra_info("socket")
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            names = ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT", "TCP_USER_TIMEOUT")
            found.append([sock.getsockopt(socket.IPPROTO_TCP, getattr(socket, name)) for name in names])
    assert found == [[15, 5, 3, 30_000], [15, 5, 3, 300_000], [15, 5, 3, 30_000]]


# -- broken answers -------------------------------------------------------------------------------------------------------------------

NOT_HTTP = {
    "garbage": b"\x00\x01\x02 nonsense\r\n\r\n",
    "another protocol": b"SSH-2.0-OpenSSH_9.6\r\n",
    "a request": b"GET / HTTP/1.1\r\n\r\n",
    "an unknown version": b"HTTP/7.9 200 OK\r\n\r\n",
    "no status": b"HTTP/1.1 OK\r\n\r\n",
    "a header without a colon": OK + b"nonsense\r\n\r\n",
    "a length that is none": OK + b"Content-Length: five\r\n\r\nhello",
    "two lengths": OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    "a length and chunks": OK + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "chunks and a length": OK + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "a chunk size that is none": CHUNKED + b"hello\r\nhello\r\n",
    "an endless chunk size": CHUNKED + b"f" * 40 + b"\r\n",
    "a chunk that is longer than it says": CHUNKED + b"4\r\nhello\r\n0\r\n\r\n",
    "a status that is none": b"HTTP/1.1 000 OK\r\n\r\n",
    "a status below any": b"HTTP/1.1 099 OK\r\nContent-Length: 2\r\n\r\n{}",
    "a body before the answer": b"HTTP/1.1 199 Wait\r\nTransfer-Encoding: chunks\r\n\r\nhello",
    "a body, then the answer": b"HTTP/1.1 199 Wait\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
    + SIZED,
    "another protocol's turn": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nhello",
}


@pytest.mark.parametrize("answer", NOT_HTTP.values(), ids=NOT_HTTP)
async def test_what_is_not_http(pool: Made, answer: bytes) -> None:
    """It is the host's fault, said in words, and the connection is closed."""
    ended = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asked(reader)
        writer.write(answer)
        await reader.read()
        ended.set()

    async with listening(serve) as url:
        connections = pool(url)
        heard = await ask(connections)
        assert not heard.complete
        assert heard.error is not None
        assert (heard.error.outcome, heard.error.unreachable, heard.error.stale) == (
            AttemptOutcome.PROTOCOL_ERROR,
            False,
            False,
        )
        assert "not HTTP" in heard.error.why
        assert len(heard.error.why) <= 200
        assert connections.idle("gpu1") is None
        async with asyncio.timeout(SECONDS):
            await ended.wait()


async def test_what_came_before_the_garbage_is_heard(pool: Made) -> None:
    """Whole chunks count, also if the garbage comes in the same read."""
    async with listening(saying(CHUNKED + b"5\r\nhello\r\nnonsense\r\n")) as url:
        heard = await ask(pool(url))
    assert (heard.status, heard.body, heard.complete) == (200, b"hello", False)


ENDLESS = {
    "a head": (OK + b"X: ", b"y" * 1024),
    "a head of many lines": (OK, b"X: y\r\n" * 100),
    "a reason": (b"HTTP/1.1 200 ", b"O" * 1024),
    "interim answers": (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 40),
    "a chunk's extension": (CHUNKED + b"5;x=", b"y" * 1024),
    "trailers": (CHUNKED + b"0\r\n", b"X: y\r\n" * 100),
}


@pytest.mark.parametrize(("start", "more"), ENDLESS.values(), ids=ENDLESS)
def test_framing_without_end(start: bytes, more: bytes) -> None:
    """What is no body and does not end is given up, a little after the limit."""
    sent: list[bytes] = []

    def reads() -> Iterator[bytes]:
        yield start
        for _ in range(2000):
            sent.append(more)
            yield more

    heard, pooled = answered(filter(None, reads()))
    assert heard.error is not None
    assert (heard.error.outcome, pooled) == (AttemptOutcome.PROTOCOL_ERROR, False)
    assert sum(map(len, sent)) < HEAD_LIMIT_BYTES + 8 * 1024


def test_a_large_head_is_no_endless_one() -> None:
    """Below the limit it is read."""
    heard, _ = answered([OK, *[b"X: %b\r\n" % (b"y" * 1024)] * 60, b"Content-Length: 0\r\n\r\n"])
    assert heard.complete


@pytest.mark.parametrize("whole_lines", [b"", b"\n"])
def test_a_long_stream_is_not_endless_framing(whole_lines: bytes) -> None:
    """However many tokens come, and however their framing is cut: it is not added up."""
    reads = [CHUNKED, *[b"3\r\n", b"hi\n", b"\r\n"] * (HEAD_LIMIT_BYTES // 4), b"0\r\n\r\n"]
    heard, pooled = answered(reads, whole_lines=whole_lines)
    assert (len(heard.body), heard.complete, pooled) == (3 * (HEAD_LIMIT_BYTES // 4), True, True)


BROKEN: dict[str, tuple[bytes, str]] = {
    "before its answer": (b"", "before its answer"),
    "in the head": (OK + b"Content-", "before its answer"),
    "after an interim answer": (b"HTTP/1.1 100 Continue\r\n\r\n", "before its answer"),
    "after the head": (CHUNKED, "in the middle of its answer"),
    "in a chunk": (CHUNKED + b"5\r\nhel", "in the middle of its answer"),
    "between chunks": (CHUNKED + b"5\r\nhello\r\n", "in the middle of its answer"),
    "in a body with a length": (SIZED[:-1], "in the middle of its answer"),
}


@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
@pytest.mark.parametrize(("answer", "words"), BROKEN.values(), ids=BROKEN)
async def test_broken_off(pool: Made, answer: bytes, words: str, reset: bool) -> None:
    """A connection that ends too early is told from a whole answer, and where it ended is said."""
    come = asyncio.Event()
    heard = Heard(then=come.set)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asked(reader)
        writer.write(answer)
        await writer.drain()
        if reset:
            if words != "before its answer":
                await come.wait()
            linger = b"\x01\x00\x00\x00\x00\x00\x00\x00"
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.transport.abort()

    async with listening(serve) as url:
        await ask(pool(url), heard)
    assert not heard.complete
    assert heard.error is not None
    assert heard.error.outcome is AttemptOutcome.RESET
    assert heard.error.why.endswith(words)
    assert ("broke the connection" in heard.error.why) is reset


# -- however it is cut ----------------------------------------------------------------------------------------------------------------

EVERYTHING = {
    **{f"whole {name}": row[0] for name, row in WHOLE.items()},
    **{f"not HTTP: {name}": answer for name, answer in NOT_HTTP.items()},
    **{f"broken {name}": row[0] for name, row in BROKEN.items()},
    "until the end": OK + b"\r\nhello",
    "in lines": CHUNKED + b"".join(b"%x\r\n%b\r\n" % (len(line), line) for line in [b'{"a":1}\n', b"half", b" a line\n", b"\n"] * 3) + b"0\r\n\r\n",
}  # fmt: skip


@given(data=st.data(), name=st.sampled_from(sorted(EVERYTHING)), whole_lines=st.sampled_from([b"", b"\n", b"\n\n"]))
@PROPERTY
def test_cutting_changes_nothing(data: st.DataObject, name: str, whole_lines: bytes) -> None:
    """The same bytes in any reads, and with whole chunks passed on unparsed or not: the same answer, the same end."""
    answer = EVERYTHING[name]
    whole, pooled = answered([answer], closed=True)
    cut, pooled_too = answered(filter(None, data.draw(cuts(answer))), whole_lines=whole_lines, closed=True)
    assert cut.outcome == whole.outcome
    assert pooled_too == pooled


@given(
    data=st.data(),
    lines=st.lists(
        st.sampled_from([b"{}\n", b"\n", b"0\r\n\r\n", b"a\n\n", b"\r\n", b"x" * 5000 + b"\n"]), max_size=12
    ),
)
@PROPERTY
def test_whole_chunks_unparsed(data: st.DataObject, lines: list[bytes]) -> None:
    """A stream of chunks, each in a read of its own or not, with unusual size lines or not, is heard byte for byte."""
    spelled = [data.draw(st.sampled_from([b"%x", b"%X", b"0%x", b"%x;a"])) % len(line) for line in lines]
    framed = [b"%b\r\n%b\r\n" % pair for pair in zip(spelled, lines, strict=True)]
    joins = [data.draw(st.booleans()) for _ in framed]
    reads = [CHUNKED + b"1\r\n\n\r\n"]
    for chunk, join in zip(framed, joins, strict=True):
        if join:
            reads[-1] += chunk
        else:
            reads.append(chunk)
    heard, pooled = answered([*reads, b"0\r\n\r\n"], whole_lines=data.draw(st.sampled_from([b"\n", b"\n\n"])))
    assert (heard.body, heard.complete, pooled) == (b"\n" + b"".join(lines), True, True)


def test_a_steady_stream_is_not_parsed() -> None:
    """Reads that are one whole chunk and end a line are handed on as they stand."""
    heard, _ = answered([CHUNKED + b"2\r\n1\n\r\n", *[b"2\r\n2\n\r\n"] * 10, b"0\r\n\r\n"], whole_lines=b"\n")
    assert (heard.chunks, heard.body, heard.complete) == (10, b"1\n" + b"2\n" * 10, True)


# -- while it runs --------------------------------------------------------------------------------------------------------------------


async def test_abort_while_streaming(pool: Made) -> None:
    """The host notices at once, and nothing more is heard."""
    ended = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asked(reader)
        writer.write(CHUNKED + b"5\r\nhello\r\n")
        await reader.read()
        ended.set()

    async with listening(serve) as url:
        connections = pool(url)
        heard = Heard(then=lambda: heard.body and connection.abort())
        connection = await connections.dial("gpu1")
        heard.send(connection)
        async with asyncio.timeout(SECONDS):
            await ended.wait()
        assert (heard.body, heard.over.is_set(), connection.open) == (b"hello", False, False)
        assert connections.idle("gpu1") is None


@pytest.mark.parametrize("more", [b"", b"5\r\nhello\r\n", b"5\r\nhello\r\n0\r\n\r\n", b"nonsense\r\n"])
def test_abort_at_the_head(more: bytes) -> None:
    """Who has heard enough hears nothing more, whatever else came in the same read."""
    heard = Heard(then=lambda: heard.connection and heard.connection.abort())
    connection, wire = Connection(lambda _: None), Wire()
    connection.connection_made(wire)
    heard.send(connection)
    connection.data_received(CHUNKED + more)
    assert wire.aborted
    assert (heard.status, heard.pieces, heard.over.is_set()) == (200, [], False)


async def test_pausing_stops_reading(pool: Made) -> None:
    """While the client is slow the host is slowed down too; afterwards all arrives."""
    block, count = bytes(256 * 1024), 64
    stuck, sent = asyncio.Event(), 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await asked(reader)
        writer.write(OK + b"Content-Length: %d\r\n\r\n" % (len(block) * count))
        for _ in range(count):
            writer.write(block)
            sent += 1
            try:
                async with asyncio.timeout(0.3):
                    await writer.drain()
            except TimeoutError:
                stuck.set()
                await writer.drain()

    async with listening(serve) as url:
        connection = await pool(url).dial("gpu1")
        heard = Heard(then=lambda: heard.body and not stuck.is_set() and connection.pause())
        heard.send(connection)
        async with asyncio.timeout(SECONDS):
            await stuck.wait()
        assert len(heard.pieces) == 1
        assert sent < count
        connection.resume()
        async with asyncio.timeout(SECONDS):
            await heard.over.wait()
    assert (len(heard.body), heard.complete) == (len(block) * count, True)


async def test_pausing_what_is_closed_is_nothing(pool: Made) -> None:
    """The relay need not know who was first."""
    async with listening(saying(SIZED)) as url:
        connection = await pool(url).dial("gpu1")
        connection.abort()
        connection.pause()
        connection.resume()
        connection.abort()
        assert not connection.open


# -- the pool -------------------------------------------------------------------------------------------------------------------------


async def test_the_last_in_is_the_first_out(pool: Made) -> None:
    """So that what is not needed grows old."""
    async with listening(saying(SIZED)) as url:
        connections = pool(url)
        first, second = await connections.dial("gpu1"), await connections.dial("gpu1")
        for connection in (first, second):
            heard = Heard()
            heard.send(connection)
            async with asyncio.timeout(SECONDS):
                await heard.over.wait()
        assert [connections.idle("gpu1"), connections.idle("gpu1"), connections.idle("gpu1")] == [second, first, None]
        assert (first.reused, second.reused) == (True, True)


def closing_after(answer: bytes, told: asyncio.Event) -> Serving:
    """A server that answers once and closes when it is told to."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asked(reader)
        writer.write(answer)
        await told.wait()

    return serve


async def test_a_pooled_connection_that_died_is_not_given_out(pool: Made) -> None:
    """If its end was noticed."""
    told = asyncio.Event()
    async with listening(closing_after(SIZED, told)) as url:
        connections = pool(url)
        connection = (await ask(connections)).connection
        assert connection is not None
        told.set()
        await until(lambda: not connection.open)
        assert connections.idle("gpu1") is None


async def test_a_pooled_connection_that_died_unnoticed_is_stale(pool: Made) -> None:
    """The host closed it just when the request was sent: that says nothing about the host."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asked(reader)
        writer.write(SIZED)
        await reader.readexactly(1)

    async with listening(serve) as url:
        connections = pool(url)
        assert (await ask(connections)).complete
        heard = await ask(connections)
        assert heard.error is not None
        assert (heard.error.stale, heard.error.outcome) == (True, AttemptOutcome.RESET)


async def test_a_fresh_connection_is_never_stale(pool: Made) -> None:
    """Nor is a pooled one that has begun to answer."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asked(reader)
        writer.write(SIZED)
        await asked(reader)
        writer.write(OK)

    async with listening(serve) as url:
        connections = pool(url)
        await ask(connections)
        heard = await ask(connections)
        assert heard.error is not None
        assert not heard.error.stale
    async with listening(closing_after(b"", told := asyncio.Event())) as url:
        told.set()
        heard = await ask(pool(url))
        assert heard.error is not None
        assert not heard.error.stale


@pytest.mark.parametrize("more", [OTHER, b"x"])
async def test_unsolicited_bytes_on_an_idle_connection(pool: Made, more: bytes) -> None:
    """They close it, whatever they are."""
    told, ended = asyncio.Event(), asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asked(reader)
        writer.write(SIZED)
        await told.wait()
        writer.write(more)
        await reader.read()
        ended.set()

    async with listening(serve) as url:
        connections = pool(url)
        assert (await ask(connections)).complete
        told.set()
        async with asyncio.timeout(SECONDS):
            await ended.wait()
        assert connections.idle("gpu1") is None


async def test_dropping_a_host(pool: Made) -> None:
    """All that is pooled for it is closed."""
    async with listening(saying(SIZED)) as url:
        connections = pool(url)
        connection = (await ask(connections)).connection
        assert connection is not None
        connections.drop("gpu1")
        assert (connection.open, connections.idle("gpu1")) == (False, None)


async def test_what_is_idle_too_long_is_closed(pool: Made, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sweeper goes by the clock: the old are closed, the young stay."""
    monkeypatch.setattr("gateway.relay.connections.SWEEP_SECONDS", 0.001)
    async with listening(saying(SIZED)) as url:
        connections = pool(url, idle_seconds=60.0)
        old, young = await connections.dial("gpu1"), await connections.dial("gpu1")
        for connection in (old, young):
            heard = Heard()
            heard.send(connection)
            async with asyncio.timeout(SECONDS):
                await heard.over.wait()
            clock.now += 40.0
        assert (old.open, young.open) == (True, True)
        clock.now += 10.0
        await until(lambda: not old.open)
        assert young.open
        assert [connections.idle("gpu1"), connections.idle("gpu1")] == [young, None]


# -- dialling -------------------------------------------------------------------------------------------------------------------------


async def refused(connections: Connections) -> UpstreamError:
    """The error of a dial."""
    with pytest.raises(UpstreamError) as caught:
        await connections.dial("gpu1")
    assert (caught.value.outcome, caught.value.unreachable) == (AttemptOutcome.CONNECT_ERROR, True)
    return caught.value


async def test_nobody_listens(pool: Made) -> None:
    """The host cannot be reached."""
    with nobody() as url:
        assert (await refused(pool(url))).why.startswith("cannot connect: ")


async def test_no_connection_in_time(pool: Made) -> None:
    """The host does not take the connection in."""
    with deaf() as url:
        assert (await refused(pool(url, 0.1))).why == "no connection within 0.1 s"


@pytest.mark.parametrize(
    "name", ["nobody.invalid", pytest.param("x" * 64 + ".invalid", id="a label too long"), "no..body.invalid"]
)
async def test_a_name_that_cannot_be_resolved(pool: Made, name: str) -> None:
    """The message names it."""
    assert name in (await refused(pool(f"http://{name}:11434", 5.0))).why


async def test_no_tls_there(pool: Made) -> None:
    """A host that was configured with https and speaks http cannot be reached."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await reader.read()

    async with listening(serve) as url:
        why = (await refused(pool(url.replace("http:", "https:")))).why
    assert why == "cannot connect: it does not speak TLS (its url begins with https)"


async def test_a_host_that_comes_back(pool: Made) -> None:
    """A dial that failed says nothing about the next."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        connections = pool(f"http://127.0.0.1:{sock.getsockname()[1]}")
        await refused(connections)
        sock.listen()
        (await connections.dial("gpu1")).abort()


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
async def test_addresses(pool: Made, address: str) -> None:
    """IPv4 and IPv6."""
    if ":" in address and not _has_ipv6():
        pytest.skip("no IPv6 on loopback")
    async with listening(saying(SIZED), address) as url:
        assert (await ask(pool(url))).complete


async def test_a_name_with_several_addresses(pool: Made, clock: Clock) -> None:
    """Each is tried in turn; and the name is looked up again now and then, beside the request's path."""
    async with listening(saying(SIZED)) as url:
        connections = pool(url.replace("127.0.0.1", "localhost"))
        for _ in range(3):
            (await connections.dial("gpu1")).abort()
            clock.now += 31.0


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("http://10.0.0.5:11434", Origin("10.0.0.5", 11434, False, "10.0.0.5:11434", "", "10.0.0.5", None)),
        ("http://gpu1", Origin("gpu1", 80, False, "gpu1", "", "gpu1", None)),
        ("https://gpu1/", Origin("gpu1", 443, True, "gpu1", "", "gpu1", None)),
        ("https://gpu1:8443/ollama/", Origin("gpu1", 8443, True, "gpu1:8443", "/ollama", "gpu1", None)),
        ("http://[::1]:11434/a/b", Origin("::1", 11434, False, "[::1]:11434", "/a/b", "::1", None)),
    ],
)
def test_origins(url: str, origin: Origin) -> None:
    """Where a URL points, what the host reads as its own address, and under which path it lives."""
    assert Origin.of(Host("gpu1", url)) == origin
