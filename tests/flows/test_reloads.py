"""Runner options that would make a host load a model anew: told apart, counted as the host counts them, and avoided where another host holds it so."""

import json
from collections import Counter
from typing import Any

import pytest

from gateway.config import ReloadsConfig
from simulator.host import SimulatedHost
from tests.builders import TEXT, call, simulated
from tests.conftest import Corral
from tests.contract.raw import ask
from tests.stage import Client

SLOW = 1e9  # bytes per second: a load is worth avoiding


def reloads(*hosts: SimulatedHost) -> Counter[str]:
    """What the hosts say they loaded anew, and why."""
    return sum((host.ledger.reloads for host in hosts), Counter())


@pytest.mark.parametrize(
    ("rules", "expected", "hosts"),
    [
        pytest.param((), {}, 2, id="group"),
        pytest.param((ReloadsConfig(("smollm2*",), "leave"),), {"num_ctx": 3}, 1, id="leave"),
        pytest.param((ReloadsConfig(("llama*",), "leave"),), {}, 2, id="a rule for others"),
    ],
)
async def test_those_who_ask_alike_go_together(
    corral: Corral, rules: Any, expected: dict[str, int], hosts: int
) -> None:
    """Two clients that want different contexts get a host each. Where that is left to Ollama, both go where the model is, and each change loads."""
    one, two = simulated("gpu1", load_bytes_per_second=SLOW), simulated("gpu2", load_bytes_per_second=SLOW)
    stage = await corral(one, two, reloads=rules)
    for number in range(8):
        context = (2048, 2048, 4096, 4096)[number % 4]
        assert (await stage.ask(call("/api/chat", options={"num_ctx": context}))).status == 200
        await stage.quiet()
    await stage.polled()
    assert reloads(one, two) == expected
    assert await stage.totals("corral_reloads_total", "cause") == expected
    unloads = await stage.totals("corral_model_unloads_total", "reason")
    assert unloads["reloaded"] == sum(expected.values())
    assert one.ledger.loads + two.ledger.loads == hosts + sum(expected.values())


async def test_a_context_that_is_enough(corral: Corral) -> None:
    """Is sent in place of a larger one, where a rule says so: nothing is loaded anew, and header, record and row tell what was sent."""
    host = simulated()
    stage = await corral(host, reloads=(ReloadsConfig(("smollm2*",), "clamp"),))
    await stage.ask(call("/api/chat", options={"num_ctx": 4096}))
    answer = await stage.ask(call("/api/chat", tokens=5, options={"num_ctx": 8192, "seed": 7}))
    assert (answer.status, answer.get("X-Corral-Num-Ctx"), host.ledger.loads) == (200, "4096", 1)
    assert json.loads(host.ledger.last_body)["options"] == {"num_predict": 5, "num_ctx": 4096, "seed": 7}
    old = call("/api/generate", options={"num_ctx": 8192})
    async with Client.to(stage.url) as client:
        head = f"POST {old.path} HTTP/1.0\r\nHost: localhost\r\nContent-Length: {len(old.body)}\r\n\r\n"
        await client.write(head.encode() + old.body)
        assert (await client.answer()).get("X-Corral-Num-Ctx") == "4096"
    long = await stage.ask(call("/api/chat", tokens=5000, options={"num_ctx": 8192}, stream=False))
    assert (long.get("X-Corral-Num-Ctx"), host.ledger.loads) == (None, 2)
    assert [record.clamped_from for record in await stage.records.until(4)] == [0, 8192, 8192, 0]
    assert await stage.totals("corral_reloads_total", "cause") == {"num_ctx": 1}


CHANGES: tuple[dict[str, Any], ...] = (
    {"options": {"num_ctx": 2048}},
    {"options": {"num_ctx": 2048, "num_batch": 64}},
    {"options": {"num_ctx": 2048, "num_batch": 64, "num_gpu": 7}},
    {"options": {"num_ctx": 2048, "num_batch": 64, "num_gpu": -1}},
    {"options": {"num_ctx": 2048, "num_batch": 64}},
    {"options": {"num_ctx": 2048, "num_batch": 64}, "shift": True},
    {"options": {"num_ctx": 2048, "num_batch": 64}, "shift": False},
    {"options": {"num_ctx": 2048, "num_batch": 64, "use_mmap": False, "temperature": 0.1}, "shift": False},
    {"options": {"num_ctx": 2048, "num_batch": 64, "use_mmap": False, "num_thread": 3}, "shift": False},
    {"options": {"num_ctx": 2048, "num_batch": 64, "use_mmap": False, "num_thread": 3, "main_gpu": 1}, "shift": False},
)


async def test_each_cause_is_counted_as_the_host_has_it(corral: Corral) -> None:
    """One after the other, with such among them that change nothing."""
    host = simulated()
    stage = await corral(host)
    for change in CHANGES:
        assert (await stage.ask(call("/api/chat", **change))).status == 200
        await stage.polled()
    told = await stage.totals("corral_reloads_total", "cause")
    assert told == reloads(host)
    assert set(told) == {"num_batch", "num_gpu", "shift", "use_mmap", "num_thread", "main_gpu"}


async def test_several_and_somebody_else(corral: Corral) -> None:
    """A load for two reasons is one, and one that did not come through here is nobody's of ours."""
    host = simulated()
    stage = await corral(host)
    await stage.ask(call("/api/chat"))
    await stage.ask(call("/api/chat", options={"num_ctx": 2048, "num_thread": 3}))
    await stage.polled()
    theirs = {"model": TEXT, "prompt": "", "options": {"num_ctx": 1024, "num_thread": 3}}
    await ask(host.url, "POST", "/api/generate", json.dumps(theirs).encode())
    await stage.polled()
    assert await stage.totals("corral_reloads_total", "cause") == {"several": 1, "elsewhere": 1}
    assert host.ledger.loads == 3
    assert reloads(host) == {"num_ctx": 2, "num_thread": 1}


async def test_a_request_that_would_load_anew_says_so(corral: Corral) -> None:
    """It is priced as a load."""
    stage = await corral(simulated(load_bytes_per_second=SLOW))
    await stage.ask(call("/api/chat"))
    for change, loads in (({}, False), ({"options": {"num_ctx": 2048}}, True), ({"shift": False}, True)):
        body = call("/api/chat", **change).body
        told = json.loads((await ask(stage.url, "POST", "/api/route/explain?path=/api/chat", body)).body)
        assert (told["costs"][0]["load_time"] > 0) is loads
