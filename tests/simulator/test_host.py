"""A host as a process on the network: it starts, stops, dies and comes back, and remembers what it received."""

import asyncio
import json
import os
import signal
import sys

import pytest

from simulator.fleet import SimulatedFleet
from simulator.host import HostProfile, SimulatedHost
from tests.contract.raw import Cut, ask
from tests.simulator.hosts import LARGE, SLOW, SMALL, begun, generate, get, post, quick


@pytest.mark.parametrize(("end", "how"), [("kill", "killed"), ("stop", "stopped")])
async def test_the_end_cuts_every_connection(end: str, how: str) -> None:
    """Streams are cut without a last chunk, whatever phase they are in, and nothing is left of them."""
    host = quick(tokens_per_second=SLOW)
    await host.start()
    async with begun(host, "/api/generate", generate(tokens=100)) as running:
        await running.head()
        await host.wait_until(lambda: host.ledger.generating == 1)
        async with begun(host, "/api/generate", generate()) as waiting:
            await host.wait_until(lambda: host.ledger.queued == 1)
            await getattr(host, end)()
            for connection in (running, waiting):
                assert await connection.ended() is (end == "kill")
    assert [entry.how for entry in host.ledger.entries] == [how, how]
    assert (host.ledger.in_flight, host.ledger.connections_open) == (0, 0)
    with pytest.raises(ConnectionRefusedError):
        await ask(host.url, "GET", "/")


async def test_a_killed_host_comes_back_empty() -> None:
    """On the same port, with its disk and nothing in memory."""
    host = quick()
    await host.start()
    url = host.url
    await host.load(SMALL)
    await host.kill()
    await host.start(port=host.port)
    assert (host.url, host.loaded) == (url, ())
    assert (await post(host, "/api/generate", generate())).status == 200
    assert host.ledger.loads == 2
    await host.stop()
    await host.stop()


async def test_a_port_that_is_taken() -> None:
    """Starting on another host's port is an error, and the host can start elsewhere."""
    async with quick() as one:
        other = quick()
        with pytest.raises(OSError, match="in use"):
            await other.start(one.port)
        async with other:
            assert other.port != one.port


async def test_what_was_received_is_kept() -> None:
    """The heads of the last requests and the last body are there to look at, as they came in."""
    async with quick() as host:
        headers = {"X-Corral-Generation": "g1", "X-odd-CASE": "Yes", "Content-Type": "text/weird"}
        body = json.dumps(generate()).encode()
        await ask(host.url, "POST", "/api/generate?x=1", body, headers)
        received = host.ledger.received[-1]
        assert (received.method, received.path) == ("POST", "/api/generate?x=1")
        assert set(headers.items()) < set(received.headers)
        assert (host.ledger.last_body, host.ledger.body_bytes) == (body, len(body))
        for _ in range(40):
            await ask(host.url, "GET", "/")
        assert len(host.ledger.received) == 32


async def test_the_ledger_counts() -> None:
    """Requests, polls, connections, tokens and the entry of an inference."""
    async with quick() as host:
        await get(host, "/api/ps")
        await get(host, "/api/tags")
        await ask(host.url, "GET", "/nowhere")
        await ask(host.url, "POST", "/api/generate", json.dumps(generate()).encode(), {"X-Request-Id": "r7"})
        await host.wait_until(lambda: host.ledger.connections_open == 0)
        ledger = (await get(host, "/_sim/ledger")) | {"started": None}
        assert ledger["requests"] == {"/api/generate": 1, "/api/ps": 1, "/api/tags": 1, "unknown": 1}
        assert ledger["polls"] == {"/api/ps": 1, "/api/tags": 1}
        assert (ledger["connections_opened"], ledger["tokens_generated"], ledger["completed"]) == (5, 5, 1)
        entry = ledger["entries"][0]
        assert entry["ended"] >= entry["started"]
        facts = ("request_id", "endpoint", "model", "phase", "how", "prompt_tokens", "output_tokens")
        assert [entry[key] for key in facts] == ["r7", "/api/generate", SMALL, "done", "completed", 15, 5]


async def test_waiting_for_what_does_not_happen() -> None:
    """wait_until says what the host did instead."""
    async with quick() as host:
        await host.load(SMALL)
        with pytest.raises(TimeoutError, match="'loads': 1"):
            await host.wait_until(lambda: False, timeout=0.01)


async def test_a_fleet() -> None:
    """Hosts by name and in order, each on a port of its own; a taken port stops them all."""
    async with SimulatedFleet({"a": HostProfile(models=(SMALL,)), "b": HostProfile(models=(LARGE,))}) as fleet:
        assert [host.name for host in fleet] == ["a", "b"]
        assert (await get(fleet["b"], "/api/tags"))["models"][0]["name"] == LARGE
        assert len({*fleet.urls}) == len(fleet) == 2
        other = SimulatedFleet.of(1)
        with pytest.raises(OSError, match="in use"):
            await other.start(fleet["a"].port)


@pytest.mark.parametrize("name", ["", "a/b/c/d", ":x", "nö"])
def test_a_name_that_is_none(name: str) -> None:
    """A profile with a model that cannot exist is an error at once."""
    with pytest.raises(ValueError, match="no model's name"):
        SimulatedHost("x", HostProfile(models=(name,)))


async def simulate(*arguments: str) -> asyncio.subprocess.Process:
    """`python -m simulator` with these arguments."""
    command = (sys.executable, "-m", "simulator", *arguments)
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(
        *command, stdout=pipe, stderr=pipe, env={**os.environ, "PYTHONUNBUFFERED": "1"}
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_the_command_line(number: signal.Signals) -> None:
    """It prints where the hosts are, serves as told, and ends with 0 on Ctrl-C and SIGTERM."""
    options = (
        f"--hosts 2 --base-port 0 --json --models {SMALL} --seed 5 --tokens-per-second 1000 --load-seconds-per-gb 0"
    )
    process = await simulate(*options.split(), "--parallel", "2", "--vram", "1", "--ollama-version", "9.9.9")
    assert process.stdout is not None
    facts = [json.loads(await process.stdout.readline()) for _ in range(2)]
    assert [fact["name"] for fact in facts] == ["sim1", "sim2"]
    assert json.loads((await ask(facts[0]["url"], "GET", "/api/version")).body) == {"version": "9.9.9"}
    tags = json.loads((await ask(facts[1]["url"], "GET", "/api/tags")).body)["models"]
    assert [row["name"] for row in tags] == [SMALL]
    process.send_signal(number)
    rest, errors = await process.communicate()
    assert (process.returncode, rest, errors) == (0, b"", b"")


async def test_the_command_line_says_what_is_wrong() -> None:
    """A taken port ends it with 1 and one line."""
    async with quick() as host:
        process = await simulate("--hosts", "1", "--base-port", str(host.port))
        _, errors = await process.communicate()
    assert process.returncode == 1
    assert errors.count(b"\n") == 1
    assert b"in use" in errors


async def test_a_client_that_sends_half_a_request() -> None:
    """A body that never comes is a disconnect, not an error."""
    async with quick() as host:
        async with begun(host, "/api/generate", "") as connection:
            await connection.answer()
            await connection.send("POST", "/api/generate", b"{", {"Content-Length": "100"})
            await host.wait_until(lambda: host.ledger.in_flight == 1)
        await host.wait_until(lambda: host.ledger.disconnected["queued"] == 1)


async def test_one_connection_serves_many_requests() -> None:
    """Connections are kept open, after errors too."""
    async with quick() as host, begun(host, "/api/generate", generate()) as connection:
        assert (await connection.answer()).status == 200
        for path in ("/nope", "/api/ps", "/api/generate"):
            await connection.send("GET", path)
            assert (await connection.answer()).status in (404, 200, 405)
        assert host.ledger.connections_opened == 1


async def test_an_old_client() -> None:
    """A client that does not know chunks gets the stream until the connection closes, or cannot tell: it is refused none."""
    async with quick() as host:
        reader, writer = await asyncio.open_connection("127.0.0.1", host.port)
        body = json.dumps(generate()).encode()
        writer.write(b"POST /api/generate HTTP/1.0\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
    head, _, lines = answer.partition(b"\r\n\r\n")
    assert b"chunked" not in head
    assert len(lines.splitlines()) == 6
    assert cut_off(lines) is None


def cut_off(lines: bytes) -> Cut | None:
    """A Cut when the last line is not whole."""
    return None if json.loads(lines.splitlines()[-1])["done"] else Cut(repr(lines[-80:]))
