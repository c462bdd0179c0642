"""Unloading, copying and deleting mean the whole fleet: every host that has the model, and one answer for all."""

import asyncio
import contextlib
import json
import random
from collections.abc import AsyncIterator, Collection

import pytest

from gateway.dialects.endpoints import ENDPOINTS
from gateway.dialects.managing import Operation, read_management
from gateway.dialects.read import read
from gateway.dialects.request import InferenceRequest, Kind
from gateway.errors import HostsFailed, ModelNotFound, NoHost
from gateway.fleet.client import HostClient
from gateway.fleet.health import Event
from gateway.fleet.host import Host, Observation
from gateway.fleet.jobs import Jobs
from gateway.fleet.manage import Changer, Unloader
from gateway.fleet.registry import Fleet
from gateway.fleet.targets import Targets, holders
from simulator.host import SimulatedHost
from tests.builders import OTHER, TEXT, simulated
from tests.sockets import http, listening, nobody, saying


class Managed:
    """A fleet that was polled once, and its unloader."""

    def __init__(self, hosts: list[Host], client: HostClient) -> None:
        self.fleet = Fleet(hosts)
        self._client = client
        self._unloader = Unloader(self.fleet, client, lambda: 0.0)
        self.refreshed: list[str] = []
        self._changer = Changer(self.fleet, client, self._refresh, name_hosts=lambda: len(hosts) > 1)

    async def look(self) -> None:
        """Poll every host that answers."""
        for host in self.fleet.hosts:
            with contextlib.suppress(Exception):
                loaded, available = await self._client.loaded(host), await self._client.available(host)
                self.fleet.observe(host.name, Observation(0.0, "0.33.0", 0.0, loaded, available))

    async def _refresh(self, hosts: Collection[str], _seconds: float) -> None:
        self.refreshed += hosts

    async def change(
        self, operation: Operation, left_out: dict[str, str] | None = None, **body: str
    ) -> tuple[int, str]:
        """Status and error of what the caller is told about a copy or a delete."""
        request = read_management(operation, json.dumps(body).encode())
        targets = holders(request.name, self.fleet.snapshot(0.0).hosts)
        jobs = Jobs(lambda: 0.0, lambda: 0.0, random.Random(1))
        with jobs.track(operation, request.model, Targets(targets.hosts, left_out or targets.left_out)) as job:
            answer = await self._changer.change(job, request)
        return answer.status, answer.error if answer.body else ""

    async def unload(self, model: str = TEXT, path: str = "/api/generate") -> tuple[int, object]:
        """Status and body of what the caller is told."""
        answer, _ = await self._unloader.unload(unloading(model, path))
        return answer.status, json.loads(answer.body)


def unloading(model: str, path: str = "/api/generate") -> InferenceRequest:
    """A request that asks to unload a model."""
    request = read(ENDPOINTS[path], json.dumps({"model": model, "keep_alive": 0}).encode(), "g1")
    assert request.kind is Kind.UNLOAD
    return request


@contextlib.asynccontextmanager
async def managed(*hosts: SimulatedHost | Host) -> AsyncIterator[Managed]:
    """These hosts as a fleet."""
    client = HostClient(2.0, 1.0)
    made = Managed([host if isinstance(host, Host) else Host(host.name, host.url) for host in hosts], client)
    await made.look()
    try:
        yield made
    finally:
        await client.close()


def inferences(host: SimulatedHost) -> int:
    """How many requests a host got that were no polls."""
    return len([entry for entry in host.ledger.entries if entry.endpoint.startswith("/api")])


async def test_every_host_that_has_it_in_memory() -> None:
    """The caller knows one server and means all of it; who does not hold the model is not asked."""
    async with simulated("a") as a, simulated("b") as b, simulated("c") as c:
        await asyncio.gather(a.load(TEXT), b.load(TEXT), c.load(OTHER))
        async with managed(a, b, c) as fleet:
            status, body = await fleet.unload()
            assert status == 200
            assert isinstance(body, dict)
            assert (body["model"], body["done_reason"]) == (TEXT, "unload")
            assert (a.loaded, b.loaded, c.loaded) == ((), (), (OTHER,))
            assert inferences(c) == 0
            assert [list(fleet.fleet.view(name, 0.0).loaded) for name in "ab"] == [[], []]


async def test_a_chat_unloads_too() -> None:
    """In the words of the path that was called."""
    async with simulated("a") as a:
        await a.load(TEXT)
        async with managed(a) as fleet:
            status, body = await fleet.unload(path="/api/chat")
    assert status == 200
    assert isinstance(body, dict)
    assert (body["done_reason"], body["message"]["content"]) == ("unload", "")


async def test_what_is_not_loaded() -> None:
    """One host says 200, as Ollama does."""
    async with simulated("a") as a, simulated("b") as b, managed(a, b) as fleet:
        assert (await fleet.unload())[0] == 200
        assert inferences(a) + inferences(b) == 1


async def test_what_is_being_loaded() -> None:
    """A model on its way into memory is unloaded as well."""
    async with simulated("a") as a, simulated("b") as b, managed(a, b) as fleet:
        fleet.fleet.lease("b", TEXT, (), 0.0, cold=True)
        assert (await fleet.unload())[0] == 200
        assert (inferences(a), inferences(b)) == (0, 1)


@pytest.mark.parametrize(
    ("path", "message"), [("/api/generate", "model 'nope' not found"), ("/api/chat", "model 'nope' not found")]
)
async def test_an_unknown_model(path: str, message: str) -> None:
    """A model that no host has is named as it was sent."""
    async with simulated("a") as a, managed(a) as fleet:
        with pytest.raises(ModelNotFound, match=message):
            await fleet.unload("nope", path)
        assert inferences(a) == 0


async def test_nobody_has_told_anything() -> None:
    """Before the first inventory it is not known whether the model exists."""
    with nobody() as url:
        async with managed(Host("a", url)) as fleet:
            with pytest.raises(NoHost) as caught:
                await fleet.unload()
    assert caught.value.retry_after is not None


async def test_one_host_fails() -> None:
    """As long as one host did it, it is done; the other is not believed to have."""
    async with simulated("a") as a, simulated("b") as b:
        await asyncio.gather(a.load(TEXT), b.load(TEXT))
        async with managed(a, b) as fleet:
            await a.kill()
            assert (await fleet.unload())[0] == 200
            assert b.loaded == ()
            assert list(fleet.fleet.view("a", 0.0).loaded) != []
            assert list(fleet.fleet.view("b", 0.0).loaded) == []


async def test_every_host_fails() -> None:
    """Who failed and why is said."""
    async with simulated("a") as a, simulated("b") as b:
        await asyncio.gather(a.load(TEXT), b.load(TEXT))
        async with managed(a, b) as fleet:
            await a.kill()
            await b.kill()
            with pytest.raises(HostsFailed, match=r"a, b: .*refused"):
                await fleet.unload()


async def test_every_host_refuses() -> None:
    """A host's own error goes to the caller unchanged."""
    async with simulated("a") as a:
        await a.load(TEXT)
        async with managed(a) as fleet:
            a.faults.set("busy")
            status, body = await fleet.unload()
    assert (status, body) == (503, {"error": "server busy, please try again.  maximum pending requests exceeded"})


async def test_an_ejected_host_is_left_alone() -> None:
    """Unless there is no other."""
    async with simulated("a") as a, simulated("b") as b:
        await asyncio.gather(a.load(TEXT), b.load(TEXT))
        async with managed(a, b) as fleet:
            for _ in range(3):
                fleet.fleet.note("a", Event.ATTEMPT_FAILED, 0.0, "500")
            await fleet.unload()
            assert (a.loaded, b.loaded) == ((TEXT,), ())
        async with managed(a) as fleet:
            for _ in range(3):
                fleet.fleet.note("a", Event.ATTEMPT_FAILED, 0.0, "500")
            await fleet.unload()
            assert a.loaded == ()


# -- copy and delete ----------------------------------------------------------------------------------------------------------------


async def test_a_copy_and_a_delete() -> None:
    """On every host that has the model; then these are asked for their models, and a deleted one is forgotten at once."""
    async with (
        simulated("a", TEXT) as a,
        simulated("b", TEXT) as b,
        simulated("c", OTHER) as c,
        managed(a, b, c) as fleet,
    ):
        assert await fleet.change(Operation.COPY, source=TEXT, destination="mine") == (200, "")
        assert fleet.refreshed == ["a", "b"]
        assert [host.store.find("mine") is not None for host in (a, b, c)] == [True, True, False]
        assert await fleet.change(Operation.DELETE, model=TEXT) == (200, "")
        assert fleet.fleet.view("a", 0.0).available == fleet.fleet.view("b", 0.0).available == {}


async def test_a_model_that_some_have_lost() -> None:
    """A 404 beside a 200 is no failure."""
    async with simulated("a", TEXT) as a, simulated("b", TEXT) as b, managed(a, b) as fleet:
        model = a.store.find(TEXT)
        assert model is not None
        a.store.delete(model)
        assert await fleet.change(Operation.DELETE, model=TEXT) == (200, "")
        assert fleet.refreshed == ["b"]


async def test_an_odd_status() -> None:
    """It is never the caller's."""
    async with listening(saying(http(b"", 302))) as url, managed(Host("a", url)) as fleet:
        with pytest.raises(HostsFailed, match=r"^it answered 302$"):
            await fleet.change(Operation.DELETE, model=TEXT)


@pytest.mark.parametrize("model", ["nope", TEXT])
async def test_what_nobody_has(model: str) -> None:
    """One host says so in Ollama's words."""
    async with simulated("a", OTHER) as a, simulated("b", OTHER) as b, managed(a, b) as fleet:
        assert await fleet.change(Operation.COPY, source=model, destination="x") == (404, f'model "{model}" not found')
        assert await fleet.change(Operation.DELETE, model=model) == (404, f"model '{model}' not found")
        assert inferences(b) == 0


async def test_a_change_that_fails_somewhere() -> None:
    """Who failed is said, and where it worked; with one host, or when all say the same, it is the host's own answer."""
    async with simulated("a", TEXT) as a, simulated("b", TEXT) as b:
        async with managed(a, b) as fleet:
            a.faults.set("copy_error")
            with pytest.raises(HostsFailed, match=r"^a: no space left on device \(succeeded on b\)$"):
                await fleet.change(Operation.COPY, source=TEXT, destination="mine")
            b.faults.set("copy_error")
            assert (await fleet.change(Operation.COPY, source=TEXT, destination="mine"))[0] == 500
            await b.kill()
            with pytest.raises(HostsFailed, match=r"^a: no space left on device; b: cannot connect"):
                await fleet.change(Operation.COPY, source=TEXT, destination="mine")
        async with managed(a) as fleet:
            assert await fleet.change(Operation.COPY, source=TEXT, destination="m") == (500, "no space left on device")
            with pytest.raises(HostsFailed, match=r"b: ejected: gone \(succeeded on a\)|^ejected: gone$"):
                await fleet.change(Operation.DELETE, {"b": "ejected: gone"}, model=TEXT)
