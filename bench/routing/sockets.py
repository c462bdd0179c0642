"""A trace over real sockets, as long as it says: a gateway of its own process, hosts and clients here. The hosts are those of virtual time (host.py) with
a real clock for an agenda, and speak just enough of Ollama's API; so what differs from virtual time is the gateway's own time, the sockets', and the relay.
"""

import asyncio
import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import aiohttp
from aiohttp import web

from bench.routing.agenda import Agenda
from bench.routing.figures import quantile
from bench.routing.gateway import First
from bench.routing.host import Job, VirtualHost
from bench.routing.replay import Replay
from bench.routing.trace import Ask, Scenario
from bench.routing.world import CONTEXT, Model
from gateway.dialects.request import BYTES_PER_TOKEN
from gateway.routing.ranks import Policy

SECONDS = 300.0  # that all of it may take
LEAD_SECONDS = 1.0  # before the first request, for polls
NANO = 1e9
QUOTES = 32  # bytes of JSON around a prompt


class Took(NamedTuple):
    """What one replay comes to: seconds to the first token, until the last answer's end, and output tokens per second until then."""

    p50: float
    p95: float
    makespan: float
    tokens_per_second: float


class Clock(Agenda):
    """The same agenda in real time: what is due is called then."""

    def __init__(self) -> None:
        super().__init__()
        self._loop = asyncio.get_running_loop()
        self._began = self._loop.time()

    def at(self, time: float, call: Callable[[], None]) -> None:
        """Have ``call`` made at ``time``, seconds since the beginning."""
        self._loop.call_at(self._began + time, self._called, call)

    def _called(self, call: Callable[[], None]) -> None:
        self.now = self._loop.time() - self._began
        call()

    def look(self) -> float:
        """The time now, which is that of what happens until somebody looks again."""
        self.now = self._loop.time() - self._began
        return self.now


class SocketHost:
    """One host's HTTP: what a poll asks, and /api/chat. A request names its ask by ``options.seed``."""

    def __init__(self, host: VirtualHost, clock: Clock, asks: Sequence[Ask]) -> None:
        self._host, self._clock, self._asks = host, clock, asks
        models = {ask.model.name: ask.model for ask in asks}
        self._has = [model for model in models.values() if host.place.fits(model)]
        self.app = web.Application(client_max_size=1 << 24)
        self.app.add_routes(
            [
                web.get("/api/version", self._version),
                web.get("/api/tags", self._tags),
                web.get("/api/ps", self._ps),
                web.post("/api/chat", self._chat),
            ]
        )

    async def _version(self, _: web.Request) -> web.Response:
        return web.json_response({"version": "0.33.0"})

    async def _tags(self, _: web.Request) -> web.Response:
        return web.json_response({"models": [_row(model) for model in self._has]})

    async def _ps(self, _: web.Request) -> web.Response:
        runners = self._host.runners.values()
        rows = [
            _row(one.model) | {"size": one.memory, "size_vram": one.memory, "context_length": one.context}
            for one in runners
        ]
        return web.json_response({"models": rows})

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        ask = self._asks[json.loads(await request.read())["options"]["seed"]]
        began: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        ended: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        job = Job(ask, lambda _: began.set_result(None), lambda _, whole: ended.set_result(whole))
        self._clock.look()
        self._host.take(job)
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        await began
        await response.prepare(request)
        await response.write(_line(ask.model, done=False))
        await ended
        told = {
            "total_duration": self._clock.look() - job.came,
            "load_duration": job.load_seconds,
            "prompt_eval_duration": job.prefill_seconds,
            "eval_duration": job.decode_seconds,
        }
        counts = {"prompt_eval_count": ask.prompt_tokens, "eval_count": ask.output_tokens}
        nanoseconds = {name: int(seconds * NANO) for name, seconds in told.items()}
        await response.write(_line(ask.model, done=True, done_reason="stop", **nanoseconds, **counts))
        await response.write_eof()
        return response


def _row(model: Model) -> dict[str, Any]:
    return {"name": model.name, "model": model.name, "digest": f"digest-{model.name}", "size": int(model.size)}


def _line(model: Model, **rest: Any) -> bytes:
    message = {"role": "assistant", "content": "" if rest["done"] else "so"}
    return json.dumps({"model": model.name, "message": message} | rest, separators=(",", ":")).encode() + b"\n"


@contextlib.asynccontextmanager
async def listening(scenario: Scenario, clock: Clock) -> AsyncIterator[list[str]]:
    """The hosts' URLs."""
    async with contextlib.AsyncExitStack() as stack:
        urls = []
        for number, place in enumerate(scenario.places):
            host = VirtualHost(place, clock)
            host.hold(scenario.held(number))
            runner = web.AppRunner(SocketHost(host, clock, scenario.asks).app, access_log=None)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            urls.append(f"http://127.0.0.1:{runner.addresses[0][1]}")
        yield urls


@contextlib.asynccontextmanager
async def gateway(scenario: Scenario, urls: Sequence[str]) -> AsyncIterator[str]:
    """The URL of a gateway of its own process for these hosts."""
    with tempfile.TemporaryDirectory() as folder:
        hosts = [
            f'[[hosts]]\nname = "{place.name}"\nurl = "{url}"\nslots = {place.slots}\n'
            for place, url in zip(scenario.places, urls, strict=True)
        ]
        log = f'[log]\nformat = "json"\npath = "{folder}/corral.log"\n'
        file = Path(folder) / "corral.toml"
        file.write_text("\n".join(['listen = "127.0.0.1:0"', '[database]\nurl = "none"', log, *hosts]), "utf-8")
        command = (sys.executable, "-m", "bench.routing.gateway", str(file))
        process = await asyncio.create_subprocess_exec(*command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield (await process.stdout.readline()).decode().strip()
        finally:
            process.stdin.close()
            await process.wait()


async def asked(session: aiohttp.ClientSession, url: str, ask: Ask, clock: Clock, begins: float) -> tuple[float, float]:
    """Seconds from when it was due to its first token, and from the beginning to its end."""
    await asyncio.sleep(max(0.0, begins + ask.at - clock.look()))  # noqa: TID251 - a trace has its times
    text = f"{ask.conversation:09d} " * (ask.prompt_tokens * BYTES_PER_TOKEN // 10 + 1)
    options: dict[str, int] = {"seed": ask.number} | ({} if ask.context == CONTEXT else {"num_ctx": ask.context})
    content = text[: ask.prompt_tokens * BYTES_PER_TOKEN - QUOTES]
    body = {"model": ask.model.name, "messages": [{"role": "user", "content": content}], "options": options}
    async with session.post(f"{url}/api/chat", json=body) as answer:
        answer.raise_for_status()
        await answer.content.readany()
        first = clock.look() - begins - ask.at
        await answer.read()
    return first, clock.look() - begins


async def replayed(scenario: Scenario) -> Took:
    """Once, over sockets. Each client has an address of its own on the loopback: they share fairly, as in virtual time."""
    clock = Clock()
    async with contextlib.AsyncExitStack() as stack:
        url = await stack.enter_async_context(
            gateway(scenario, await stack.enter_async_context(listening(scenario, clock)))
        )
        sessions = {}
        for number, who in enumerate(sorted({ask.principal for ask in scenario.asks})):
            connector = aiohttp.TCPConnector(local_addr=(f"127.0.1.{number + 1}", 0))
            sessions[who] = await stack.enter_async_context(
                aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(SECONDS))
            )
        begins = clock.look() + LEAD_SECONDS
        rows = await asyncio.gather(*[asked(sessions[ask.principal], url, ask, clock, begins) for ask in scenario.asks])
    return _took(scenario, [first for first, _ in rows], max(end for _, end in rows))


def _took(scenario: Scenario, firsts: Sequence[float], end: float) -> Took:
    ordered = sorted(firsts)
    tokens = sum(ask.output_tokens for ask in scenario.asks)
    return Took(quantile(ordered, 0.5), quantile(ordered, 0.95), end, tokens / end)


def virtual(scenario: Scenario) -> Took:
    """The same trace in virtual time."""
    run = Replay(scenario, Policy.PREDICTIVE, First()).run()
    return _took(scenario, [answer.first or 0.0 for answer in run.answers], run.end)


def compared(scenario: Scenario, rounds: int) -> tuple[Took, Took]:
    """In virtual time, and over sockets: the median of so many."""
    with asyncio.Runner() as runner:
        runs = [runner.run(replayed(scenario)) for _ in range(rounds)]
    for run in runs:
        print(f"over sockets: {_said(run)}", file=sys.stderr, flush=True)
    return virtual(scenario), Took(*[median(values) for values in zip(*runs, strict=True)])


def _said(took: Took) -> str:
    return ", ".join(f"{name} {value:.3f}" for name, value in took._asdict().items())
