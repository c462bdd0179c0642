"""A long run of everything that can happen, at random, and every counter is what hosts and clients say, to the last token and byte.

2,000 generations; ``CORRAL_TEST_TRUTH=20000`` for as many as that.
"""

import asyncio
import contextlib
import itertools
import json
import os
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from gateway.record import Phase
from simulator.host import SimulatedHost
from simulator.ledger import Entry
from tests.builders import STREAMING, Call, call
from tests.conftest import Corral
from tests.contract.raw import Cut, ask
from tests.flows.truth import PREAMBLE, Asked, Books, Lane, Seen, attempt_of
from tests.stage import SECONDS, Client, Stage, totals
from tests.streams import complete, events

COUNT = int(os.environ.get("CORRAL_TEST_TRUTH", "2000"))
LANES = 6
SHORT = 0.003

EMBEDDINGS = ("/api/embed", "/api/embeddings", "/v1/embeddings")
BEFORE = ("reset_before_headers", "close_before_headers", "garbage", "busy", "load_error", "ghost_model")
CUTS = ("reset_mid_stream", "close_mid_stream", "garbage_mid_stream", "error_mid_stream", "end_without_done")
SLOW = ("hang_before_headers", "slow_first_byte", "hang_mid_stream", "slow_load")
POLLS = ("slow_ps", "ps_error", "tags_error", "version_error")
KINDS = {*BEFORE, *CUTS, *SLOW, *POLLS}
"""And hosts that are killed, at rest and at work."""

PIN = "X-Corral-Host"
Entries = Callable[[], Awaitable[list[tuple[str, Entry]]]]
"""What the hosts wrote down of a request, once they have done with it: (host, entry) of each attempt that reached one, in order."""

FAILED = {"ps_error": "ps", "tags_error": "tags", "version_error": "version"}


class Player:
    """Does one thing after the other in its lane, and writes down what must come of it."""

    def __init__(self, stage: Stage, lane: Lane, books: Books) -> None:
        self.stage, self.lane, self.books, self.rng = stage, lane, books, lane.rng
        self.sessions = (f"{lane.text} {number}" for number in itertools.count())

    async def step(self) -> None:
        """Something."""
        steps: tuple[Callable[[], Awaitable[None]], ...] = (
            *(self.plain, self.failing, self.slow, self.cancelled, self.queued),
            *(self.killed_at_work, self.killed_at_rest, self.polls, self.managed, self.refused),
        )
        (step,) = self.rng.choices(steps, (60, 12, 6, 8, 3, 1, 1, 2, 4, 2))
        before = self._moves()
        await step()
        if step not in (self.plain, self.slow) or self._moves() != before:
            await self.stage.polled(*(host.name for host in self.lane.hosts))

    def _moves(self) -> list[tuple[int, int]]:
        return [(host.ledger.loads, host.ledger.unloads) for host in self.lane.hosts]

    # -- requests ---------------------------------------------------------------------------------------------------------------

    def asked(self, tokens: int = 0, pin: str = "", path: str = "", stream: bool | None = None, **more: Any) -> Asked:
        """Anything, of that many tokens."""
        path = path or self.rng.choice((*STREAMING, *STREAMING, *EMBEDDINGS))
        headers = {PIN: pin} if pin else {}
        if path in EMBEDDINGS:
            made = call(path, self.lane.embedding, headers=headers, **more)
            return Asked(made, self.lane.embedding, False, path != "/api/embeddings")
        streams = self.rng.random() < 0.7 if stream is None else stream
        told = True
        if streams and path in ("/v1/chat/completions", "/v1/completions"):
            told = self.rng.random() < 0.5
            more["stream_options"] = {"include_usage": told}
        count = tokens or self.rng.randint(1, 8)
        prompt = "Why is the sky blue? " * self.rng.randint(1, 5)
        made = call(path, self.lane.text, stream=streams, tokens=count, prompt=prompt, headers=headers, **more)
        return Asked(made, self.lane.text, streams, told)

    async def whole(self, asked: Asked, *unheard: tuple[str, str]) -> Seen:
        """A request whose client stays to the end. ``unheard``: attempts that no host knows of."""
        async with self._begun(asked) as (client, entries):
            seen = await read(client, asked)
            self._wrote(asked, seen, await entries(), *unheard)
        return seen

    @contextlib.asynccontextmanager
    async def _begun(self, asked: Asked) -> AsyncIterator[tuple[Client, Entries]]:
        marks = self.lane.marks()

        async def entries() -> list[tuple[str, Entry]]:
            found = self.lane.since(marks)
            for host, entry in found:
                await self.stage[host].wait_until(lambda entry=entry: entry.ended is not None, SECONDS)
            return found

        self.session = next(self.sessions)
        async with self.stage.begun(asked.call, self.session) as client:
            yield client, entries

    def _wrote(self, asked: Asked, seen: Seen, entries: list[tuple[str, Entry]], *unheard: tuple[str, str]) -> None:
        """Into the books."""
        tried = [(host, attempt_of(entry, stream=asked.streams)) for host, entry in entries]
        self.books.generation(asked, seen, [*unheard, *tried], entries[-1][1] if entries else None)

    def _host(self) -> SimulatedHost:
        return self.rng.choice(self.lane.hosts)

    # -- what can happen --------------------------------------------------------------------------------------------------------

    async def plain(self) -> None:
        """A whole answer."""
        pin = self._host().name if self.rng.random() < 0.3 else ""
        assert (await self.whole(self.asked(pin=pin))).how == "whole"

    async def failing(self) -> None:
        """One of the hosts fails, perhaps the other answers."""
        host, name = self._host(), self.rng.choice((*BEFORE, *CUTS))
        chunks = self.rng.randint(1, 4)
        path = self.rng.choice(STREAMING)
        host.faults.set(name, times=1, after_chunks=chunks, model=self.lane.text if name == "ghost_model" else None)
        pin = host.name if self.rng.random() < 0.5 else ""
        await self.whole(self.asked(chunks + self.rng.randint(1, 3), pin, path))
        host.faults.clear()

    async def slow(self) -> None:
        """A host takes its time, and answers."""
        host, name = self._host(), self.rng.choice(SLOW)
        host.faults.set(name, times=1, seconds=SHORT, factor=1.0)
        assert (await self.whole(self.asked(4, host.name))).how == "whole"
        host.faults.clear()

    async def cancelled(self) -> None:
        """Somebody ends it while the host holds still: the client, or an operator."""
        host, source = self._host(), self.rng.choice(("client_disconnect", "api"))
        chunks, streaming = self.rng.randint(1, 4), self.rng.random() < 0.6
        asked = self.asked(6, host.name, self.rng.choice(STREAMING), stream=streaming or None)
        async with self._held(host, asked, chunks, streaming=streaming) as (client, entries, body):
            phase = "streaming" if streaming else "prefill"
            seen = await self._end(client, asked, source, phase, body)
            self._wrote(asked, seen, await entries())

    async def queued(self) -> None:
        """Somebody ends it while it waits for a slot."""
        host, source = self._host(), self.rng.choice(("client_disconnect", "api"))
        first, asked = self.asked(3, host.name, "/api/chat"), self.asked(3, host.name, "/api/chat")
        async with self._held(host, first, 0, streaming=False) as (holder, entries, _):
            async with self._begun(asked) as (client, _):
                await self._seen(Phase.QUEUED)
                seen = await self._end(client, asked, source, "queued", b"")
                await self._gone()
            self._wrote(asked, seen, [])
            host.faults.clear()
            self._wrote(first, await read(holder, first), await entries())

    @contextlib.asynccontextmanager
    async def _held(
        self, host: SimulatedHost, asked: Asked, chunks: int, *, streaming: bool
    ) -> AsyncIterator[tuple[Client, Entries, bytes]]:
        """A request that its host holds, before its first token or after so many, which the client has read."""
        name = "hang_mid_stream" if streaming else "hang_before_headers"
        struck = host.ledger.faults[name]
        host.faults.set(name, times=1, after_chunks=chunks)
        async with self._begun(asked) as (client, entries):
            await host.wait_until(lambda: host.ledger.faults[name] > struck, SECONDS)
            body = b""
            if streaming:
                await client.head()
                while len(asked.upto(chunks, body)) < len(body) or not self._has(asked, chunks, body):
                    body += await client.chunk() or b""
            yield client, entries, body
        host.faults.clear()

    def _has(self, asked: Asked, chunks: int, body: bytes) -> bool:
        end = b"\n" if asked.call.path.startswith("/api") else b"\n\n"
        return body.count(end) >= chunks + PREAMBLE.get(asked.call.path, 0)

    async def _end(self, client: Client, asked: Asked, source: str, phase: str, body: bytes) -> Seen:
        """A client that leaves, or one that reads what an operator made of it."""
        if source == "client_disconnect":
            await client.leave(self.rng.choice(("reset", "close")))
            return Seen(source, 200 if body else 0, body, phase=phase)
        (id_,) = [one.id for one in self.stage.gateway.generations if one.request.session == self.session]
        assert (await ask(self.stage.url, "DELETE", f"/api/generations/{id_}")).status == 200
        if phase != "streaming":
            seen = await read(client, asked)
            assert (seen.status, seen.code) == (499, "cancelled")
            return Seen(source, 499, b"", seen.code, phase)
        return Seen(source, 200, body + await rest(client), phase=phase)

    async def _seen(self, phase: Phase) -> None:
        async with asyncio.timeout(SECONDS):
            while not any(
                one.request.session == self.session and one.phase is phase for one in self.stage.gateway.generations
            ):
                await ask(self.stage.url, "GET", "/healthz")

    async def _gone(self) -> None:
        async with asyncio.timeout(SECONDS):
            while any(one.request.session == self.session for one in self.stage.gateway.generations):
                await ask(self.stage.url, "GET", "/healthz")

    async def killed_at_work(self) -> None:
        """A host dies in the middle of an answer, and comes back with nothing loaded."""
        host, chunks = self._host(), self.rng.randint(1, 4)
        asked = self.asked(6, host.name, self.rng.choice(STREAMING), stream=True)
        async with self._held(host, asked, chunks, streaming=True) as (client, entries, body):
            await self._kill(host)
            self._wrote(asked, Seen("failed", 200, body + await rest(client)), await entries())
        await host.start()

    async def killed_at_rest(self) -> None:
        """A host dies, and the next request finds nobody."""
        host = self._host()
        await self._kill(host)
        for _ in range(2):  # the pool hears of it
            await ask(self.stage.url, "GET", "/healthz")
        seen = await self.whole(self.asked(pin=host.name), (host.name, "connect_error"))
        assert seen.status == 502
        await host.start()

    async def _kill(self, host: SimulatedHost) -> None:
        self.lane.lost[host.name] += self.lane.kept(host)
        await host.kill()

    async def polls(self) -> None:
        """A poll fails, or is slow."""
        host, name = self._host(), self.rng.choice(POLLS)
        host.faults.set(name, times=1, seconds=SHORT)
        await self.stage.polled(host.name)
        host.faults.clear()

    async def managed(self) -> None:
        """A model is unloaded, loaded, or loaded with other options."""
        pin = self._host().name
        what = self.rng.choice(("unload", "load", "options"))
        if what == "unload":
            made = call("/api/generate", self.lane.text, prompt="", keep_alive=0, headers={PIN: pin})
            assert (await self.stage.ask(made)).status == 200
            self.books.add("http_responses_total", "/api/generate", "200")
        elif what == "load":
            made = call("/api/generate", self.lane.text, prompt="", headers={PIN: pin})
            await self.whole(Asked(made, self.lane.text, False, True))
        else:
            context = {"num_ctx": self.rng.choice((1024, 2048))}
            await self.whole(self.asked(2, pin, self.rng.choice(("/api/generate", "/api/chat")), options=context))

    async def refused(self) -> None:
        """What no host is asked for: a model that nobody has, a body that is none."""
        path = self.rng.choice(STREAMING)
        if self.rng.random() < 0.5:
            made = Asked(call(path, f"nobody{self.rng.random()}", stream=True), "_unknown", True, False)
            assert (await self.whole(made)).status == 404
            self.books.add("routing_failures_total", "unknown_model")
        else:
            assert (await self.stage.ask(Call(path, b"{"))).status == 400
            self.books.add("http_responses_total", path, "400")
            self.books.add("requests_rejected_total", "bad_request")

    async def shut_down(self, stop: asyncio.Event, ready: asyncio.Semaphore) -> None:
        """The end: one is held before its first token, one after some, one waits; then everything is stopped."""
        one, other = self.lane.hosts
        held, queued = self.asked(3, one.name, "/api/chat"), self.asked(3, one.name, "/api/chat")
        streaming = self.asked(6, other.name, self.rng.choice(STREAMING), stream=True)
        async with contextlib.AsyncExitStack() as stack:
            moments = []
            for host, asked, chunks in ((one, held, 0), (other, streaming, 2)):
                what = self._held(host, asked, chunks, streaming=chunks > 0)
                moments.append((asked, *await stack.enter_async_context(what)))
            waiting, _ = await stack.enter_async_context(self._begun(queued))
            await self._seen(Phase.QUEUED)
            ready.release()
            await stop.wait()
            for asked, client, entries, body in moments:
                if asked is streaming:
                    seen = Seen("shutdown", 200, body + await rest(client), phase="streaming")
                else:
                    seen = await self._refusal(client, asked, "prefill")
                self._wrote(asked, seen, [one for one in await entries() if one[0] == asked.call.headers[PIN]])
            self._wrote(queued, await self._refusal(waiting, queued, "queued"), [])

    async def _refusal(self, client: Client, asked: Asked, phase: str) -> Seen:
        seen = await read(client, asked)
        assert (seen.status, seen.code) == (503, "shutting_down")
        return Seen("shutdown", 503, b"", seen.code, phase)


async def rest(client: Client) -> bytes:
    """What there is still to read."""
    body = b""
    with contextlib.suppress(Cut):
        while (chunk := await client.chunk()) is not None:
            body += chunk
    return body


async def read(client: Client, asked: Asked) -> Seen:
    """A whole answer, or what there is of it."""
    head = await client.head()
    body = await rest(client)
    code = head.get("X-Corral-Error") or ""
    if head.status != 200:
        return Seen("failed", head.status, body, code)
    if not asked.streams:
        json.loads(body)
        return Seen("whole", 200, body)
    return Seen("whole" if complete(asked.call.path, events(asked.call.path, body)) else "failed", 200, body)


async def test_every_counter_is_true(corral: Corral) -> None:
    """Tokens, outcomes, attempts, cancellations, loads, bytes: what Corral counts is what clients saw and hosts wrote down."""
    lanes = [Lane(number, seed=1) for number in range(LANES)]
    hosts = [host for lane in lanes for host in lane.hosts]
    stage = await corral(*hosts, health={"failures": 10**9}, relay={"attempts": 3})
    books = Books()
    players = [Player(stage, lane, books) for lane in lanes]

    async def play(player: Player) -> None:
        while books.generations < COUNT:
            await player.step()

    await asyncio.gather(*map(play, players))
    await finale(stage, players)
    await stage.records.until(books.generations)
    await stage.quiet()
    await stage.polled()
    for lane in lanes:
        for host in lane.hosts:
            books.add("model_loads_total", host.name, count=host.ledger.loads)
            books.add("model_unloads_total", host.name, count=host.ledger.unloads + lane.lost[host.name])
    samples = await stage.metrics()
    books.check(samples)
    struck = sum((host.ledger.faults for host in hosts), Counter[str]())
    assert {kind for kind, count in struck.items() if count} >= KINDS
    failed = totals(samples, "corral_host_poll_errors_total", "host", "endpoint", "reason")
    for host in hosts:
        for fault, endpoint in FAILED.items():
            assert failed[host.name, endpoint, "http_error"] == host.ledger.faults[fault]


async def finale(stage: Stage, players: list[Player]) -> None:
    """Everything is stopped at once, as at a shutdown whose patience is over."""
    stop, ready = asyncio.Event(), asyncio.Semaphore(0)

    async def stopped() -> None:
        for _ in players:
            await ready.acquire()
        stage.gateway.stop_all("in the middle")
        stop.set()

    await asyncio.gather(stopped(), *(player.shut_down(stop, ready) for player in players))
