"""One simulated Ollama host: its profile, its HTTP server, how it starts, stops and dies."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from functools import partial
from types import TracebackType
from typing import Self, cast

from aiohttp import web

from simulator import endpoints, replies
from simulator.dialects import anthropic, audio, ollama, openai, responses
from simulator.dialects.fields import decode, encode
from simulator.dialects.inference import Body, Dialect
from simulator.endpoints import Table
from simulator.faults import Faults
from simulator.inference import Inferences
from simulator.ledger import Ledger, Received
from simulator.managing import Managing
from simulator.profile import HostProfile
from simulator.reading import Reading
from simulator.refusal import Refusal
from simulator.scheduler import RunnerOptions, Scheduler
from simulator.store import Store

__all__ = ["HostProfile", "SimulatedHost"]

_INFERENCE: dict[str, Dialect] = {
    "/api/generate": ollama.GENERATE,
    "/api/chat": ollama.CHAT,
    "/api/embed": ollama.EMBED,
    "/api/embeddings": ollama.EMBEDDINGS,
    "/v1/chat/completions": openai.CHAT,
    "/v1/completions": openai.COMPLETION,
    "/v1/embeddings": openai.EMBEDDINGS,
    "/v1/audio/transcriptions": audio.TRANSCRIPTION,
    "/v1/responses": responses.RESPONSES,
    "/v1/messages": anthropic.MESSAGES,
}


class SimulatedHost:
    """A host that listens on a real socket. `async with` starts and stops it; its disk outlives both.

    `faults` break it on purpose, `ledger` tells what it saw and did.
    """

    def __init__(self, name: str, profile: HostProfile | None = None, *, seed: int = 0) -> None:
        self.name = name
        self.profile = profile or HostProfile()
        self.ledger = Ledger()
        self.faults = Faults(self.ledger, self._listen_as_told)
        self.store = Store(self.profile.models)
        self.scheduler = Scheduler(self.profile, self.faults, self.ledger)
        self.address = "127.0.0.1"
        self.port = 0
        self._inferences = Inferences(
            self.profile, self.store, self.scheduler, self.faults, self.ledger, seed, lambda: self._ending
        )
        managing = Managing(self.store, self.ledger, self.faults, self.profile.pull_bytes_per_second).table()
        self._managed = frozenset(managing) | {"/api/show"}
        self._table = self._endpoints(managing)
        self._runner: web.AppRunner | None = None
        self._listener: asyncio.Server | None = None
        self._opening: asyncio.Task[None] | None = None
        self._ending: str | None = None
        self._connections: set[_Connection] = set()

    @property
    def url(self) -> str:
        """`http://ADDRESS:PORT`, once it has started."""
        return f"http://[{self.address}]:{self.port}" if ":" in self.address else f"http://{self.address}:{self.port}"

    @property
    def loaded(self) -> tuple[str, ...]:
        """The names of the models in memory."""
        return tuple(runner.model.name.short for runner in self.scheduler.runners)

    async def start(self, port: int = 0, address: str = "127.0.0.1") -> None:
        """Listen. Port 0 is the port it had before, or one that is free. OSError when it is taken."""
        self._ending = None
        app = web.Application(client_max_size=0)
        app.router.add_route("*", "/{path:.*}", self._handle)
        app.on_response_prepare.append(endpoints.finish_head)
        self._runner = web.AppRunner(app, handler_cancellation=True, access_log=None, auto_decompress=False)
        await self._runner.setup()
        self.address = address
        sock = _listening(address, port or self.port)
        self.port = sock.getsockname()[1]
        await self._open(sock)

    async def stop(self) -> None:
        """End as on SIGTERM: streams are cut without their last chunk. Does nothing when it has not started."""
        await self._end("stopped", reset=False)

    async def kill(self) -> None:
        """End as a killed process: every connection is reset at once. `start` brings it back with nothing loaded."""
        await self._end("killed", reset=True)

    async def load(self, model: str) -> None:
        """Load a model as a request without a prompt would; Refusal when it cannot be."""
        found = self.store.find(model)
        if found is None:
            raise Refusal(404, f"model '{model}' not found")
        entry = self.ledger.begin("load", None)
        async with self.scheduler.runner(found, RunnerOptions(), None, entry):
            self.ledger.end(entry, "completed")

    async def wait_until(self, true: Callable[[], bool], timeout: float = 5.0) -> None:
        """Return once `true()` is, looking after each change of the ledger; TimeoutError with its content."""
        await self.ledger.wait_until(true, timeout)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    def __repr__(self) -> str:
        return f"SimulatedHost({self.name!r}, {self.url}, loaded={self.loaded}, {self.ledger!r})"

    async def _end(self, how: str, *, reset: bool) -> None:
        runner, self._runner = self._runner, None
        if runner is None:
            return
        self._ending = how
        await self._close()
        for connection in tuple(self._connections):
            connection.cut(reset=reset)
        await runner.cleanup()
        self.scheduler.forget()

    async def _open(self, sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(
            lambda: _Connection(self._connections, self._served(), self), sock=sock
        )
        self._listen_as_told()

    def _served(self) -> asyncio.Protocol | None:
        """aiohttp's protocol for a new connection, or None when it shall be refused."""
        assert self._runner is not None
        assert self._runner.server is not None
        return None if self.faults.take(("refuse",)) is not None else self._runner.server()

    async def _close(self) -> None:
        if self._opening is not None:
            await self._opening
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    def _listen_as_told(self) -> None:
        """Stop listening while the fault `listening_off` is on, and listen again on the same port when it is over."""
        if self._runner is None:
            return
        off = self.faults.active("listening_off")
        if off is not None and self._listener is not None:
            self._listener.close()
            self._listener = None
            self.ledger.faults[off.name] += 1
            if off.seconds:
                asyncio.get_running_loop().call_later(off.seconds, self.faults.clear, "listening_off")
        elif off is None and self._listener is None and (self._opening is None or self._opening.done()):
            opening = self._open(_listening(self.address, self.port))
            self._opening = asyncio.get_running_loop().create_task(opening, name=f"{self.name} listens again")

    def _endpoints(self, managing: Table) -> Table:
        reading = Reading(self.profile.version, self.store, self.scheduler, self.faults)
        return {
            **reading.table(),
            **managing,
            **{path: {"POST": partial(self._infer, dialect)} for path, dialect in _INFERENCE.items()},
            "/_sim/faults": {"GET": self._get_faults, "POST": self._set_fault, "DELETE": self._clear_faults},
            "/_sim/ledger": {"GET": self._get_ledger},
        }

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        path = request.path
        if not path.startswith("/_sim/"):
            headers = tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in request.raw_headers)
            endpoint = endpoints.pattern(self._table, path) or "unknown"
            self.ledger.request(endpoint, Received(request.method, request.path_qs, headers))
            if endpoint in self._managed and (fault := self.faults.take(("hang_managing",))) is not None:
                await fault.hold()
        loopback = self.address.startswith("127.") or self.address in ("::1", "localhost")
        try:
            return await endpoints.dispatch(self._table, request, loopback=loopback)
        except Refusal as refusal:
            body = Body(ollama.JSON, encode({"error": refusal.message}))
            if path.startswith("/v1/"):
                body = openai.error(refusal)
            return await replies.reply(request, refusal.status, body)

    def _infer(self, dialect: Dialect, request: web.Request) -> Awaitable[web.StreamResponse]:
        return self._inferences.serve(request, dialect)

    async def _get_faults(self, request: web.Request) -> web.StreamResponse:
        return await replies.reply(request, 200, Body(ollama.JSON, encode(self.faults.as_list())))

    async def _set_fault(self, request: web.Request) -> web.StreamResponse:
        given = decode(await request.read())
        try:
            fault = self.faults.set(**given)
        except (TypeError, ValueError) as error:
            raise Refusal(400, str(error)) from None
        return await replies.reply(request, 200, Body(ollama.JSON, encode(fault.as_dict())))

    async def _clear_faults(self, request: web.Request) -> web.StreamResponse:
        self.faults.clear(request.query.get("name"))
        return await replies.reply(request, 200, Body(ollama.JSON, encode(self.faults.as_list())))

    async def _get_ledger(self, request: web.Request) -> web.StreamResponse:
        return await replies.reply(request, 200, Body(ollama.JSON, encode(self.ledger.as_dict())))


class _Connection(asyncio.Protocol):
    """One accepted connection: counts it, hands everything on to aiohttp's protocol, and can be cut."""

    def __init__(self, all_: set["_Connection"], inner: asyncio.Protocol | None, host: SimulatedHost) -> None:
        self._all = all_
        self._inner = inner
        self._ledger = host.ledger
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._all.add(self)
        self._ledger.connection(1)
        if self._inner is None:
            self._transport.abort()
        else:
            self._inner.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        if self._inner is not None:
            self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        return None if self._inner is None else self._inner.eof_received()

    def pause_writing(self) -> None:
        if self._inner is not None:
            self._inner.pause_writing()

    def resume_writing(self) -> None:
        if self._inner is not None:
            self._inner.resume_writing()

    def connection_lost(self, error: Exception | None) -> None:
        self._all.discard(self)
        self._ledger.connection(-1)
        if self._inner is not None:
            self._inner.connection_lost(error)

    def cut(self, *, reset: bool) -> None:
        """Close now, with RST or FIN, whatever is still to be sent."""
        assert self._transport is not None
        if reset:
            replies.linger_none(self._transport.get_extra_info("socket"))
        self._transport.abort()


def _listening(address: str, port: int) -> socket.socket:
    """A socket that already takes connections in."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sock = socket.create_server((address, port), family=family, backlog=1024)
    sock.setblocking(False)
    return sock
