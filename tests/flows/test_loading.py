"""One load at a time: while a host loads, who wants what must make room for it waits here, and is told the truth about it."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator

import pytest

from simulator.host import SimulatedHost
from tests.builders import call, simulated
from tests.conftest import Corral
from tests.contract.raw import Answer, ask
from tests.stage import SECONDS, Client, Stage

LLAMA, QWEN, SMALL = "llama3.1:8b", "qwen2.5:7b", "gemma3:1b"
VRAM = 8 * 1024**3
TOLD = {"gpu1": {"vram_bytes": VRAM}}


async def staged(corral: Corral, *loaded: str, told: bool = True) -> tuple[Stage, SimulatedHost]:
    """A gateway before a host that holds these, has memory for one large model, and takes half a second to load it. ``told``: the memory is configured."""
    host = simulated("gpu1", LLAMA, QWEN, SMALL, vram_bytes=VRAM, load_bytes_per_second=1e10)
    for model in loaded:
        await host.load(model)
    stage = await corral(host, slots=3, links=TOLD if told else {})
    host.ledger.entries.clear()
    return stage, host


@contextlib.asynccontextmanager
async def loading(stage: Stage, host: SimulatedHost, model: str) -> AsyncIterator[Client]:
    """Somebody's request, for which the other large model must go; it has gone, unless it is in use."""
    busy = host.ledger.in_flight
    async with stage.begun(call("/api/generate", model), "loads") as client:
        await host.ledger.wait_until(lambda: host.ledger.loading + host.ledger.queued > 0, 5.0)
        assert host.ledger.in_flight == busy + 1
        yield client


async def hurried(stage: Stage, model: str) -> Answer:
    """What somebody hears who has no time for a load."""
    return await stage.ask(call("/api/generate", model, headers={"X-Corral-Deadline": "0.2"}))


@pytest.mark.parametrize("told", [True, False], ids=["told", "seen"])
async def test_what_must_make_room_is_not_loaded(corral: Corral, told: bool) -> None:
    """From the moment the load begins: its requests wait here, for this load and their own, and say so. Only one is ever at the host."""
    stage, host = await staged(corral, LLAMA, told=told)
    async with loading(stage, host, QWEN) as first, stage.begun(call("/api/generate", LLAMA), "wants") as second:
        await stage.row("wants", "queued")
        (row,) = (await stage.get("/api/queue"))["waiting"]
        assert row["waits_for"] == "load"
        late = await hurried(stage, LLAMA)
        assert (late.status, late.get("X-Corral-Error")) == (503, "deadline_unmet")
        assert len(host.ledger.entries) == 1
        assert [(await client.answer()).status for client in (first, second)] == [200, 200]
    record = await stage.records.of("wants")
    assert record.cold
    assert record.route is not None
    assert record.route.costs[0].load_time > 0
    assert (host.ledger.loads, host.ledger.unloads) == (3, 2)


async def test_what_is_in_use_must_go_too(corral: Corral) -> None:
    """Though the host lists it until it is idle: who asks for it meanwhile would hold the load up."""
    stage, host = await staged(corral, LLAMA)
    host.faults.set("hang_before_headers")
    async with stage.begun(call("/api/generate", LLAMA), "uses") as first:
        await stage.row("uses", "prefill")
        async with loading(stage, host, QWEN) as second, stage.begun(call("/api/generate", LLAMA), "wants") as third:
            await stage.polled()
            assert host.loaded == (LLAMA,)
            await stage.row("wants", "queued")
            assert len(host.ledger.entries) == 2
            host.faults.clear()
            assert [(await client.answer()).status for client in (first, second, third)] == [200] * 3
    assert host.ledger.loads == 3


async def test_a_poll_tells_who_stays(corral: Corral) -> None:
    """Of two that might have had to go, the one that the host still lists when there is room is served beside the load."""
    stage, host = await staged(corral, QWEN, SMALL)
    async with loading(stage, host, LLAMA) as first:
        async with stage.begun(call("/api/generate", SMALL), "small") as second:
            await stage.row("small", "queued")
            assert host.loaded == (SMALL,)
            await stage.polled()
            assert (await second.answer()).status == 200
        assert host.ledger.loading == 1
        assert (await hurried(stage, QWEN)).status == 503
        assert (await first.answer()).status == 200


async def test_a_load_that_was_given_up(corral: Corral) -> None:
    """What made room for it is gone all the same, as the next poll sees."""
    stage, host = await staged(corral, QWEN, SMALL)
    async with loading(stage, host, LLAMA):
        pass
    await stage.quiet()
    await stage.polled()
    assert (await hurried(stage, QWEN)).status == 503
    assert (await stage.ask(call("/api/generate", SMALL))).status == 200
    assert host.ledger.loads == 2


async def test_room_that_nobody_knew_of(corral: Corral) -> None:
    """Where a load turns out to have pushed nothing out, the host is looked at as soon as it is loaded, and both are used."""
    host = simulated("gpu1", LLAMA, QWEN, load_bytes_per_second=1e12)
    await host.load(LLAMA)
    stage = await corral(host, slots=3)
    assert (await stage.ask(call("/api/generate", QWEN))).status == 200
    await host.ledger.wait_until(lambda: host.ledger.polls["/api/ps"] == 2, 5.0)
    async with asyncio.timeout(SECONDS):
        while stage.gateway.fleet.view("gpu1", 0.0).leaving:
            await stage.in_flight()
    assert (await stage.ask(call("/api/generate", LLAMA))).status == 200
    assert host.ledger.loads == 2
    assert not any([record.cold for record in await stage.records.until(2)][1:])


async def test_a_host_that_keeps_one_model(corral: Corral) -> None:
    """Is found out by the first that has to leave though there is memory for both. From then on that is a price, and known as soon as a load begins."""
    host = simulated("gpu1", QWEN, SMALL, max_loaded=1, load_bytes_per_second=1e10)
    stage = await corral(host, slots=3, links={"gpu1": {"vram_bytes": 24 * 1024**3}})
    for model in (QWEN, SMALL):
        assert (await stage.ask(call("/api/generate", model))).status == 200
        await stage.polled()
    body = json.dumps({"model": QWEN, "prompt": "Hello"}).encode()
    explained = json.loads((await ask(stage.url, "POST", "/api/route/explain", body)).body)
    assert explained["costs"][0]["harm"] > 0
    async with loading(stage, host, QWEN) as first, stage.begun(call("/api/generate", SMALL), "small") as second:
        await stage.row("small", "queued")
        assert [(await client.answer()).status for client in (first, second)] == [200, 200]
