"""``corral serve`` as a process of its own: it starts, tells where it listens, and ends well when it is told to."""

import asyncio
import contextlib
import json
import os
import re
import signal
import sys
import tempfile
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator

import pytest

from simulator.host import SimulatedHost
from tests.builders import call, simulated
from tests.contract.raw import Answer, Connection, Cut, ask
from tests.scripted import Asked, ScriptedHost
from tests.sockets import http
from tests.stage import Client, Host, nobody_listens
from tests.streams import complete, events, last_error

SECONDS = 30.0  # a bound, not a measure: a busy machine takes ten to start a process


@contextlib.asynccontextmanager
async def serving(host: Host, grace_seconds: float) -> AsyncIterator[tuple[Process, str]]:
    """The process and its URL, once it listens, with a database of its own."""
    folder = tempfile.TemporaryDirectory()
    names = {
        "CORRAL_DATABASE_URL": f"sqlite:///{folder.name}/corral.db",
        "CORRAL_SHUTDOWN_GRACE_SECONDS": str(grace_seconds),
        "CORRAL_LOG_FORMAT": "json",
        "CORRAL_POLL_INTERVAL_SECONDS": "60",
    }
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "gateway", "serve", "--listen", "127.0.0.1:0", "--host", f"gpu1={host.url}"),
        stdout=PIPE,
        env={name: value for name, value in os.environ.items() if not name.startswith("CORRAL_")} | names,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(SECONDS):
            while not (found := re.search(rb"listens on (http://\S+)", line := await process.stdout.readline())):
                assert line
        yield process, found[1].decode()
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()
        folder.cleanup()


async def ended(process: Process) -> tuple[int | None, list[dict[str, object]]]:
    """The exit code and the rest of the log, once the process has ended."""
    async with asyncio.timeout(SECONDS):
        output, _ = await process.communicate()
    return process.returncode, [json.loads(line) for line in output.splitlines()]


@contextlib.asynccontextmanager
async def streaming(host: SimulatedHost, url: str) -> AsyncIterator[Connection]:
    """A stream of which the client has the head, and which the host does not go on with."""
    host.faults.set("hang_mid_stream", after_chunks=2, times=1)
    request = call("/api/chat", tokens=5)
    async with Connection.to(url) as client:
        await client.send("POST", request.path, request.body)
        assert (await client.head()).status == 200
        await host.wait_until(lambda: host.ledger.faults["hang_mid_stream"] == 1)
        yield client


async def rest(client: Connection) -> list[dict[str, object]]:
    """What is left of a stream, parsed."""
    body = b""
    while (chunk := await client.chunk()) is not None:
        body += chunk
    return events("/api/chat", body)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_ending_when_idle(number: signal.Signals) -> None:
    """Told to stop, it stops at once with exit code 0, and has logged what it did."""
    async with simulated() as host, serving(host, 30.0) as (process, url):
        answer: Answer = await ask(url, "POST", "/api/chat", call("/api/chat").body)
        assert answer.status == 200
        process.send_signal(number)
        code, log = await ended(process)
        assert code == 0
        assert [line["id"] for line in log if line["event"] == "generation"] == [answer.get("X-Corral-Generation")]


async def test_ending_lets_streams_finish() -> None:
    """A running stream ends by itself within the grace period; nothing new is let in meanwhile."""
    async with simulated() as host, serving(host, 30.0) as (process, url), streaming(host, url) as client:
        process.send_signal(signal.SIGTERM)
        await nobody_listens(url)
        host.faults.clear()
        assert complete("/api/chat", await rest(client))
        code, log = await ended(process)
        assert (code, [line["outcome"] for line in log if line["event"] == "generation"]) == (0, ["ok"])


@pytest.mark.parametrize("how", ["grace", "second signal"])
async def test_ending_cuts_what_does_not_finish(how: str) -> None:
    """After the grace period, or at a second signal, streams get last words and the exit code is still 0."""
    async with simulated() as host, serving(host, 0.2 if how == "grace" else 60.0) as (process, url):
        async with streaming(host, url) as client:
            process.send_signal(signal.SIGTERM)
            if how == "second signal":
                await nobody_listens(url)
                process.send_signal(signal.SIGTERM)
            assert last_error("/api/chat", await rest(client)) == "the gateway is shutting down"
            code, log = await ended(process)
        assert code == 0
        assert [line["cancelled_by"] for line in log if line["event"] == "generation"] == ["shutdown"]
        await host.wait_until(lambda: host.ledger.disconnected["generating"] == 1)


LARGE = 3_000_000


async def large(_asked: Asked, writer: asyncio.StreamWriter) -> None:
    """A host's answer that is with the gateway, or with the kernel, long before a slow client has it."""
    writer.write(http(b"x" * LARGE))


async def larger(_asked: Asked, writer: asyncio.StreamWriter) -> None:
    """One that no kernel takes in whole."""
    writer.write(http(b"x" * LARGE * 10))


async def test_a_slow_client_gets_all() -> None:
    """The process does not end before what it has written for a client is with the client."""
    async with (
        ScriptedHost("gpu1", large) as host,
        serving(host, 10.0) as (process, url),
        Client.to(url, 4096) as client,
    ):
        await client.send("POST", "/api/generate", call("/api/generate").body)
        await client.head()
        process.terminate()
        await nobody_listens(url)
        assert len(await client.chunk() or b"") == LARGE
        code, _ = await ended(process)
    assert code == 0


async def test_a_client_that_is_too_slow_is_cut() -> None:
    """Once the grace period is over, the process ends, though not all is with the client."""
    async with (
        ScriptedHost("gpu1", larger) as host,
        serving(host, 0.2) as (process, url),
        Client.to(url, 4096) as client,
    ):
        await client.send("POST", "/api/generate", call("/api/generate").body)
        await client.head()
        process.terminate()
        code, log = await ended(process)
        with pytest.raises(Cut):
            await client.chunk()
    assert code == 0
    assert any("outlasted the grace period" in str(line["message"]) for line in log if line["event"] == "message")
