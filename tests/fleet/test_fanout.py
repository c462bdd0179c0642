"""One operation on several hosts: events from real sockets, merged into one answer."""

import contextlib
import json
import random
from collections.abc import AsyncIterator, Collection

import pytest

from gateway.dialects.managing import Operation, read_management
from gateway.errors import HostsFailed
from gateway.fleet.client import HostAnswer, HostClient
from gateway.fleet.fanout import FanOut
from gateway.fleet.host import Host
from gateway.fleet.jobs import Job, Jobs
from gateway.fleet.progress import Line
from gateway.fleet.targets import Targets
from simulator.host import SimulatedHost
from tests.builders import TEXT, simulated
from tests.sockets import http, listening, nobody, saying

NEW = "qwen2.5:0.5b"
SUCCESS = {"status": "success"}


class Fanned:
    """A fan-out to some hosts, what it says, and whose inventories it has asked for."""

    def __init__(self, hosts: list[Host], client: HostClient) -> None:
        self.jobs = Jobs(lambda: 0.0, lambda: 0.0, random.Random(1))
        self.said: list[Line] = []
        self.refreshed: list[str] = []
        self.job: Job | None = None
        self._hosts = hosts
        self._fanout = FanOut(client, lambda: 0.0, self._refresh, name_hosts=lambda: True)

    async def _refresh(self, hosts: Collection[str], _seconds: float) -> None:
        self.refreshed += hosts

    async def say(self, line: Line) -> None:
        """What the caller sees."""
        self.said.append(line)

    async def run(self, operation: Operation = Operation.PULL, **body: object) -> Line | HostAnswer:
        """The last line, or the hosts' own answer."""
        request = read_management(operation, json.dumps(body).encode())
        with self.jobs.track(operation, request.model, Targets(tuple(self._hosts), {})) as self.job:
            return await self._fanout.run(self.job, request, self.say)


@contextlib.asynccontextmanager
async def fanned(*hosts: SimulatedHost | str) -> AsyncIterator[Fanned]:
    """These hosts; a text is a URL."""
    client = HostClient(2.0, 1.0)
    named = [
        Host(f"host{number}", host) if isinstance(host, str) else Host(host.name, host.url)
        for number, host in enumerate(hosts)
    ]
    try:
        yield Fanned(named, client)
    finally:
        await client.close()


async def test_progress_and_success() -> None:
    """The last line is handed back when the hosts' inventories are known; the hosts were asked to stream."""
    async with simulated("a") as a, simulated("b") as b, fanned(a, b) as fan:
        assert await fan.run(model=NEW, stream=False, insecure=True) == SUCCESS
        assert fan.said[0] == {"status": "pulling manifest"}
        assert SUCCESS not in fan.said
        assert fan.refreshed == ["a", "b"]
        assert json.loads(a.ledger.last_body) == {"model": NEW, "stream": True, "insecure": True}


async def test_a_push_changes_no_host() -> None:
    """No inventory is asked for."""
    async with simulated("a") as a, fanned(a) as fan:
        assert await fan.run(Operation.PUSH, model=TEXT) == SUCCESS
        assert fan.refreshed == []


async def test_a_part_that_fails() -> None:
    """A dead host, one that refuses and one that stops talking; the inventory of who succeeded is asked for."""
    half = http(b'{"status":"pulling manifest"}\n', content_type="application/x-ndjson")
    refusal = http(b'{"error":"no"}', 403)
    with nobody() as dead:
        async with (
            listening(saying(half)) as mute,
            listening(saying(refusal)) as grim,
            simulated("a") as a,
            fanned(dead, mute, grim, a) as fan,
        ):
            last = await fan.run(model=NEW)
    assert isinstance(last, dict)
    assert last["error"].startswith("host0: cannot connect")
    assert last["error"].endswith("; host1: it ended without a last word; host2: no (succeeded on a)")
    assert fan.refreshed == ["a"]


async def test_all_refuse() -> None:
    """With one status: the first's answer. With several, or when one is not there: an error that names them."""
    no, never = http(b'{"error":"no"}', 400), http(b'{"error":"never"}', 404)
    async with listening(saying(no)) as one, listening(saying(no)) as two, listening(saying(never)) as other:
        async with fanned(one, two) as fan:
            assert await fan.run(model="a b") == HostAnswer(400, "application/json", b'{"error":"no"}')
        async with fanned(one, other) as fan:
            with pytest.raises(HostsFailed, match=r"^host0: no; host1: never$"):
                await fan.run(model="a b")
        with nobody() as dead:
            async with fanned(dead, one) as fan:
                with pytest.raises(HostsFailed, match=r"^host0: cannot connect.*; host1: no$"):
                    await fan.run(model="a b")


@pytest.mark.parametrize("status", [202, 204, 302, 999])
async def test_an_odd_status(status: int) -> None:
    """It is never the caller's."""
    async with listening(saying(http(b"", status))) as url, fanned(url) as fan:
        with pytest.raises(HostsFailed, match=rf"^host0: it answered {status}$"):
            await fan.run(model=NEW)


async def test_many_lines_and_a_slow_caller() -> None:
    """Hosts wait for the caller; nothing is lost."""
    lines = b"".join(b'{"status":"%d"}\n' % number for number in range(500)) + b'{"status":"success"}\n'
    async with listening(saying(http(lines))) as url, fanned(url) as fan:
        assert await fan.run(model=NEW) == SUCCESS
        assert [line["status"] for line in fan.said] == [str(number) for number in range(500)]


async def test_a_caller_who_cannot_be_told() -> None:
    """The hosts' calls end."""
    async with simulated("a", pull_bytes_per_second=1e6) as a, fanned(a) as fan:

        async def gone(_line: Line) -> None:
            raise ConnectionResetError

        fan.say = gone  # type: ignore[method-assign]
        with pytest.raises(ConnectionResetError):
            await fan.run(model=NEW)
        await a.wait_until(lambda: a.ledger.abandoned["/api/pull"] == 1)
        assert fan.job is not None
        assert fan.job.outcome == "cancelled"


async def test_stopping() -> None:
    """The hosts' calls end, and the last line says why."""
    async with simulated("a", pull_bytes_per_second=1e6) as a, fanned(a) as fan:

        async def stop(_line: Line) -> None:
            assert fan.job is not None
            fan.job.stop("enough")

        fan.say = stop  # type: ignore[method-assign]
        assert await fan.run(model=NEW) == {"error": "a: enough"}
        await a.wait_until(lambda: a.ledger.abandoned["/api/pull"] == 1)
