"""Pinned and warm models, on real sockets: loaded when they should be, brought back when they are gone, and never in anybody's way."""

import asyncio
import json
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from gateway.config import WarmConfig
from gateway.fleet import keeps
from simulator.host import SimulatedHost
from simulator.models import model_named
from tests.builders import EMBEDDING, OTHER, TEXT, call, simulated
from tests.conftest import Corral
from tests.contract.raw import ask
from tests.stage import SECONDS, Stage

OFTEN = {"interval_seconds": 0.05, "inventory_seconds": 0.05}
ROOM = model_named(OTHER).runner_bytes(4096) + 2**20
"""For either model, but not for both."""


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is tried again is tried soon."""
    monkeypatch.setattr(keeps, "AGAIN_SECONDS", 0.05)
    monkeypatch.setattr(keeps, "RENEW_SECONDS", 0.05)


async def kept(stage: Stage, host: str = "gpu1") -> list[tuple[str, str, str]]:
    """(model, kind, state) of what is to be in a host's memory, as its row says."""
    servers = json.loads((await stage.operate("GET", "/api/models/servers")).body)["servers"]
    row = next(server for server in servers if server["name"] == host)
    return [(one["model"], one["kind"], one["state"]) for one in row["models_kept"]]


async def why(stage: Stage) -> str:
    """Of the first of gpu1, in words."""
    servers = json.loads((await stage.operate("GET", "/api/models/servers")).body)["servers"]
    return str(servers[0]["models_kept"][0]["why"])


async def until_kept(stage: Stage, *states: str, host: str = "gpu1") -> None:
    """Wait until what is to be in a host's memory stands so."""
    async with asyncio.timeout(SECONDS):
        while [state for _, _, state in await kept(stage, host)] != list(states):
            pass


async def until_told(stage: Stage, true: Callable[[], Any]) -> None:
    """Wait until something holds, a request of an operator's at a time."""
    async with asyncio.timeout(SECONDS):
        while not true():
            await stage.operate("GET", "/healthz")


async def settled(stage: Stage) -> None:
    """No load of the gateway's own is under way."""
    await until_told(stage, lambda: stage.gateway.fleet.lease_count == 0)


async def unload(host: SimulatedHost, model: str) -> None:
    """Somebody does so on the host itself."""
    await ask(host.url, "POST", "/api/generate", json.dumps({"model": model, "keep_alive": 0}).encode())


# -- pinned ---------------------------------------------------------------------------------------------------------------------------


async def test_how_long_it_took_is_learned(corral: Corral) -> None:
    """As of any other load; that the slot was held so long says nothing of requests, and a quick answer nothing of loads."""
    one, two = simulated("gpu1", load_bytes_per_second=2.5e8), simulated("gpu2")
    stage = await corral(one, two, pin=(f"{TEXT}@gpu1", f"{TEXT}@gpu2"), poll=OFTEN)
    await until_kept(stage, "loaded")
    await until_kept(stage, "loaded", host="gpu2")
    await settled(stage)
    view = stage.gateway.fleet.view("gpu1", stage.gateway.clock())
    took = view.estimates[view.digest_of(TEXT) or ""].load_seconds
    assert took is not None
    assert took > 0.38
    assert view.load_rate == pytest.approx(model_named(TEXT).size / took, rel=0.01)
    assert view.service_seconds is None
    assert stage.gateway.fleet.view("gpu2", stage.gateway.clock()).estimates == {}


@pytest.mark.parametrize("model", [TEXT, EMBEDDING])
async def test_a_pinned_model(corral: Corral, model: str) -> None:
    """Is loaded at the start, for ever, with no request of anybody's; one that only embeds as well. It is back when it was unloaded."""
    host = simulated()
    stage = await corral(host, simulated("gpu2"), pin=(f"{model.upper()}@gpu1",), poll=OFTEN)
    await until_kept(stage, "loaded")
    assert await kept(stage) == [(model, "pin", "loaded")]
    assert host.loaded == (model,)
    assert host.scheduler.runners[0].keep_seconds > 1e9
    assert stage["gpu2"].loaded == ()
    assert stage.gateway.fleet.learned.demand == {}
    assert await stage.totals("corral_preloads_total", "host", "kind", "outcome") == {("gpu1", "pin", "loaded"): 1}
    assert await stage.totals("corral_model_loads_total", "trigger") == {"preload": 1}

    await unload(host, model)
    await until_told(stage, lambda: host.ledger.loads == 2)
    await until_kept(stage, "loaded")
    await settled(stage)
    assert await stage.totals("corral_model_unloads_total", "reason") == {"evicted": 1}
    assert await stage.totals("corral_model_kept", "host", "kind") == {("gpu1", "pin"): 1}


async def test_a_load_that_fails(corral: Corral) -> None:
    """Is tried again, later each time, and the row says why it is not there."""
    host = simulated()
    host.faults.set("load_error")
    stage = await corral(host, pin=(f"{TEXT}@gpu1",), poll=OFTEN)
    await until_kept(stage, "failed")
    await until_told(stage, lambda: host.ledger.faults["load_error"] >= 3)
    async with asyncio.timeout(SECONDS):
        while not re.fullmatch(
            r"llama-server process has terminated: .*; tried \d+ times, again in \d+ s", await why(stage)
        ):
            pass
    failed = (await stage.totals("corral_preloads_total", "outcome"))["failed"]
    assert failed >= 3
    host.faults.clear()
    await until_kept(stage, "loaded")
    await settled(stage)


async def test_a_host_that_drains_is_left_alone(corral: Corral) -> None:
    """Until it takes requests again."""
    host = simulated()
    host.faults.set("load_error", times=1)
    stage = await corral(host, pin=(f"{TEXT}@gpu1",), poll=OFTEN)
    await stage.operate("POST", "/api/hosts/gpu1/drain")
    await until_kept(stage, "left")
    await settled(stage)
    before = host.ledger.requests["/api/generate"]
    await stage.polled()
    await stage.polled()
    assert host.ledger.requests["/api/generate"] == before
    await stage.operate("POST", "/api/hosts/gpu1/resume")
    await until_kept(stage, "loaded")
    await settled(stage)


async def test_what_a_host_has_not_got(corral: Corral) -> None:
    """Is not asked of it; once it is pulled there, it is loaded."""
    host = simulated("gpu1", TEXT)
    stage = await corral(host, pin=(f"{OTHER}@gpu1",), poll=OFTEN)
    await until_kept(stage, "left")
    pull = json.dumps({"model": OTHER, "stream": False}).encode()
    assert (await ask(stage.url, "POST", "/api/pull", pull)).status == 200
    await until_kept(stage, "loaded")
    await settled(stage)
    assert host.loaded == (OTHER,)


async def test_while_somebody_waits_nothing_is_loaded(corral: Corral) -> None:
    """The host is theirs; when they are done, the pinned model comes."""
    host = simulated("gpu1", vram_bytes=ROOM)
    stage = await corral(host, poll=OFTEN)
    async with stage.begun(call("/api/chat", OTHER, tokens=10**6, headers={"X-Corral-Client": "a"}), "runs") as first:
        await stage.row("runs", "streaming")
        async with stage.begun(call("/api/chat", OTHER, tokens=3), "waits") as second:
            await stage.row("waits", "queued")
            stage.gateway.config = replace(stage.gateway.config, pin=(f"{TEXT}@gpu1",))
            await until_kept(stage, "waiting")
            await stage.polled()
            assert host.ledger.loads == 1
            first.reset()
            assert (await second.answer()).status == 200
    await until_kept(stage, "loaded")
    await settled(stage)
    assert host.loaded == (TEXT,)


async def test_others_go_elsewhere(corral: Corral) -> None:
    """A request whose load would push a pinned model out goes to another host, though that one is far slower: once it is known that it would, as
    one did that named the host."""
    one = simulated("gpu1", vram_bytes=ROOM)
    two = simulated("gpu2", vram_bytes=ROOM, load_bytes_per_second=8e9, tokens_per_second=500.0)
    stage = await corral(one, two, pin=(f"{TEXT}@gpu1",), poll=OFTEN)
    await until_kept(stage, "loaded")
    assert (await stage.ask(call("/api/chat", OTHER, headers={"X-Corral-Host": "gpu1"}))).status == 200
    await until_told(stage, lambda: one.ledger.loads == 3 and one.loaded == (TEXT,))
    await until_kept(stage, "loaded")
    await settled(stage)
    await stage.polled()  # who had to leave for it, only a poll tells
    for _ in range(4):
        assert (await stage.ask(call("/api/chat", OTHER))).get("X-Corral-Host") == "gpu2"
        await stage.quiet()
    body = call("/api/chat", OTHER).body
    costs = json.loads((await ask(stage.url, "POST", "/api/route/explain?path=/api/chat", body)).body)["costs"]
    assert {cost["host"]: cost["harm"] > 100 for cost in costs} == {"gpu1": True, "gpu2": False}
    assert one.loaded == (TEXT,)
    assert await kept(stage) == [(TEXT, "pin", "loaded")]


async def test_it_stays_though_a_request_says_otherwise(corral: Corral) -> None:
    """A client that sends keep_alive, and a context of its own: the model is told to stay, and is not loaded anew for that."""
    host = simulated()
    stage = await corral(host, pin=(f"{TEXT}@gpu1",), poll=OFTEN)
    await until_kept(stage, "loaded")
    asked = call("/api/chat", options={"num_ctx": 2048, "num_thread": 3}, shift=False, keep_alive=60)
    assert (await stage.ask(asked)).status == 200
    await until_told(stage, lambda: host.scheduler.runners[0].keep_seconds > 1e9)
    await settled(stage)
    assert (host.ledger.loads, host.scheduler.runners[0].context) == (2, 2048)
    assert (await stage.totals("corral_preloads_total", "outcome"))["renewed"] >= 1
    assert (await stage.ask(asked)).status == 200
    await stage.quiet()
    assert host.ledger.loads == 2


async def test_pins_that_do_not_fit_together(corral: Corral, monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not push each other out for ever: each is tried less and less often."""
    monkeypatch.setattr(keeps, "AGAIN_SECONDS", 30.0)
    host = simulated("gpu1", vram_bytes=ROOM)
    stage = await corral(host, pin=(f"{TEXT}@gpu1", f"{OTHER}@gpu1"), poll=OFTEN)
    await until_told(stage, lambda: host.ledger.loads == 2)
    async with asyncio.timeout(SECONDS):
        while sorted(state for _, _, state in await kept(stage)) != ["failed", "loaded"]:
            pass
    await settled(stage)
    await stage.polled()
    assert host.ledger.loads == 2


# -- warm -----------------------------------------------------------------------------------------------------------------------------


async def test_so_many_copies(corral: Corral) -> None:
    """Are there, of those hosts that have it; one that goes is made up for elsewhere. Nobody keeps it there for ever."""
    hosts = [simulated(f"gpu{number}") for number in (1, 2, 3)]
    stage = await corral(*hosts, simulated("gpu4", OTHER), warm=(WarmConfig(TEXT, 2),), poll=OFTEN)
    await until_told(stage, lambda: sum(TEXT in host.loaded for host in hosts) == 2)
    await settled(stage)
    await stage.polled()
    holding = [host for host in hosts if host.loaded]
    assert len(holding) == 2
    assert {host.scheduler.runners[0].keep_seconds for host in holding} == {300.0}
    await stage.operate("POST", f"/api/hosts/{holding[0].name}/drain")
    await until_told(stage, lambda: all(TEXT in host.loaded for host in hosts))
    await settled(stage)
    told = await stage.totals("corral_preloads_total", "kind", "outcome")
    assert told == {("warm", "loaded"): 3}


async def test_what_is_asked_for_more_stays(corral: Corral) -> None:
    """A warm model waits where another one is busier."""
    host = simulated("gpu1", vram_bytes=ROOM)
    stage = await corral(host, warm=(WarmConfig(TEXT),), poll=OFTEN)
    await until_kept(stage, "loaded")
    await settled(stage)
    for _ in range(3):
        await stage.ask(call("/api/chat", OTHER))
    await stage.quiet()
    await until_kept(stage, "waiting")
    await stage.polled()
    assert host.loaded == (OTHER,)
    assert await why(stage) == f"there is no room beside {OTHER}, which is asked for as much or more"


async def test_a_warm_model_is_told_to_stay_before_its_time_is_up(corral: Corral) -> None:
    """With what the host itself calls a usual time."""
    host = simulated(keep_alive_seconds=60.0)
    stage = await corral(host, warm=(WarmConfig(TEXT),), poll=OFTEN)
    await until_told(stage, lambda: host.ledger.requests["/api/generate"] >= 3)
    await settled(stage)
    assert host.ledger.loads == 1
    assert host.scheduler.runners[0].keep_seconds == 60.0
