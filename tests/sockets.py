"""Servers on loopback that do what a test says, byte by byte, and addresses where nobody answers."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

from gateway.tasks import pause

TURNS = 200
LOOK_SECONDS = 0.005
"""Between two looks at what takes longer than so many turns of the event loop."""

Serving = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def listening(serve: Serving, address: str = "127.0.0.1") -> AsyncIterator[str]:
    """The URL of a server that gives each connection to ``serve`` and closes it afterwards."""
    serving: set[asyncio.Task[object]] = set()

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        serving.add(task)
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await serve(reader, writer)
        finally:
            serving.discard(task)
            writer.transport.abort() if writer.transport.is_closing() else writer.close()

    server = await asyncio.start_server(one, address, 0)
    host, port = server.sockets[0].getsockname()[:2]
    try:
        yield f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    finally:
        server.close()
        for task in tuple(serving):
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)


def saying(*answers: bytes) -> Serving:
    """A server that says one answer to each request of a connection, in turn, and the last one to all others."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        left = list(answers)
        while await asked(reader):
            writer.write(left.pop(0) if len(left) > 1 else left[0])
            await writer.drain()

    return serve


async def asked(reader: asyncio.StreamReader) -> bytes:
    """The next request of a connection, head and body; nothing at its end."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        return b""
    fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:-2])
    return head + await reader.readexactly(int(fields.get(b"content-length", b"0")))


def http(body: bytes = b"", status: int = 200, content_type: str = "application/json", *more: str) -> bytes:
    """A whole answer with its length."""
    lines = (f"HTTP/1.1 {status} X", f"Content-Type: {content_type}", f"Content-Length: {len(body)}", *more, "", "")
    return "\r\n".join(lines).encode() + body


@contextlib.contextmanager
def nobody() -> Iterator[str]:
    """The URL of a port that is taken and refuses every connection."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{sock.getsockname()[1]}"


@contextlib.contextmanager
def deaf() -> Iterator[str]:
    """The URL of a port whose connections are never made: its backlog is full and the kernel drops what comes."""
    with contextlib.ExitStack() as stack:
        sock = stack.enter_context(socket.socket())
        sock.bind(("127.0.0.1", 0))
        sock.listen(0)
        for _ in range(2):
            caller = stack.enter_context(socket.socket())
            caller.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                caller.connect(sock.getsockname())
        yield f"http://127.0.0.1:{sock.getsockname()[1]}"


async def until(true: Callable[[], object], seconds: float = 5.0) -> None:
    """Return once this is so, looking at each turn of the event loop for a moment, then every LOOK_SECONDS: whoever goes on takes the processor from what is waited for."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(seconds):
        for _ in range(TURNS):
            if true():
                return
            turn = loop.create_future()
            loop.call_soon(turn.set_result, None)
            await turn
        while not true():
            await pause(LOOK_SECONDS)
