"""A host whose answers a test writes byte by byte; polls it answers like a quiet Ollama that has one model, unless told otherwise."""

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from simulator.ledger import Ledger
from tests.builders import TEXT

_POLLS = {
    b"/api/version": {"version": "0.33.0"},
    b"/api/ps": {"models": []},
    b"/api/tags": {"models": [{"name": TEXT, "model": TEXT, "digest": "a" * 64, "size": 1, "modified_at": ""}]},
}


@dataclass(frozen=True, slots=True)
class Asked:
    """One request as it came in."""

    head: bytes
    body: bytes


Answering = Callable[[Asked, asyncio.StreamWriter], Awaitable[None]]


class ScriptedHost:
    """``answering`` writes the answer to each POST. ``asked`` holds them; ``ledger`` counts connections only.

    ``polls``: what it answers to a GET, by path, where that is not the usual; bytes stand for a whole answer.
    """

    def __init__(self, name: str, answering: Answering, polls: Mapping[str, Any] | None = None) -> None:
        self.name = name
        self.ledger = Ledger()
        self.asked: list[Asked] = []
        self.url = ""
        self._answering = answering
        self._polls = _POLLS | {path.encode(): value for path, value in (polls or {}).items()}
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.ledger.connection(1)
        try:
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, RuntimeError):
                while not writer.is_closing():
                    await self._one(reader, writer)
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
            self.ledger.connection(-1)

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:-2])
        body = await reader.readexactly(int(fields.get(b"content-length", b"0")))
        if head.startswith(b"GET "):
            said = self._polls[head.split(b" ")[1]]
            if isinstance(said, bytes):
                writer.write(said)
                await writer.drain()
                return
            text = json.dumps(said).encode()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(text))
            writer.write(text)
        else:
            self.asked.append(Asked(head, body))
            self.ledger.changed()
            await self._answering(self.asked[-1], writer)
        await writer.drain()
