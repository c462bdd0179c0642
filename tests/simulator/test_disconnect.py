"""A client that leaves frees what it held at once, wherever its request was."""

from typing import Any

import pytest

from simulator import clock
from simulator.host import SimulatedHost
from tests.contract.raw import Connection
from tests.simulator.hosts import LARGE, SLOW, SMALL, begun, generate, post, quick

WAITING_LONG = generate(prompt="word " * 40, tokens=100)


async def leave(connection: Connection, how: str) -> None:
    """Go away politely or not."""
    if how == "reset":
        connection.reset()
    else:
        await connection.close()


async def check(host: SimulatedHost, phase: str, before: float) -> None:
    """The host has noticed, in that phase, and nothing is left of the request."""
    await host.wait_until(lambda: host.ledger.disconnected[phase] == 1)
    entry = next(entry for entry in host.ledger.entries if entry.how == "disconnected")
    assert entry.phase == phase
    noticed = host.ledger.last_disconnect_noticed
    assert noticed is not None
    assert before <= noticed <= clock.now()


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("phase", "profile"),
    [
        ("loading", {"load_bytes_per_second": 1e6}),
        ("prefill", {"prefill_tokens_per_second": 0.1}),
        ("generating", {"tokens_per_second": SLOW}),
    ],
)
async def test_leaving_frees_the_host(phase: str, profile: dict[str, float], stream: bool, how: str) -> None:
    """While its model loads, in the prefill and while generating, streaming or not."""
    async with quick(**profile) as host:
        async with begun(host, "/api/generate", {**WAITING_LONG, "stream": stream}) as connection:
            await host.wait_until(lambda: getattr(host.ledger, phase) == 1)
            before = clock.now()
            await leave(connection, how)
            await check(host, phase, before)
        assert host.ledger.in_flight == 0
        async with begun(host, "/api/generate", WAITING_LONG):
            await host.wait_until(lambda: getattr(host.ledger, phase) == 1)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/v1/responses", "/api/chat"])
async def test_leaving_is_noticed_in_every_dialect(path: str) -> None:
    """The other dialects stop as well."""
    body: dict[str, Any] = {"model": SMALL, "messages": [{"role": "user", "content": "hi"}], "input": "hi"}
    async with (
        quick(tokens_per_second=SLOW) as host,
        begun(host, path, {**body, "max_tokens": 100, "stream": True}) as connection,
    ):
        await host.wait_until(lambda: host.ledger.generating == 1)
        before = clock.now()
        await connection.close()
        await check(host, "generating", before)


@pytest.mark.parametrize("how", ["close", "reset"])
async def test_leaving_the_line_for_a_slot(how: str) -> None:
    """A request that waits for a slot leaves the line, and the next one gets the slot."""
    async with quick(tokens_per_second=SLOW) as host, begun(host, "/api/generate", WAITING_LONG) as running:
        await host.wait_until(lambda: host.ledger.generating == 1)
        async with begun(host, "/api/generate", WAITING_LONG) as waiting:
            await host.wait_until(lambda: host.ledger.queued == 1)
            async with begun(host, "/api/generate", {**WAITING_LONG, "options": {"num_predict": 1}}) as last:
                await host.wait_until(lambda: host.ledger.queued == 2)
                before = clock.now()
                await leave(waiting, how)
                await check(host, "queued", before)
                await running.close()
                assert (await last.answer()).status == 200


@pytest.mark.parametrize("how", ["close", "reset"])
async def test_leaving_the_line_for_a_load(how: str) -> None:
    """A request that waits for its turn to load leaves that line, and the load before it goes on."""
    async with quick(load_bytes_per_second=3e9) as host:
        async with begun(host, "/api/generate", generate(LARGE, tokens=1)) as loading:
            await host.wait_until(lambda: host.ledger.loading == 1)
            async with begun(host, "/api/generate", generate(SMALL)) as waiting:
                await host.wait_until(lambda: host.ledger.queued == 1)
                before = clock.now()
                await leave(waiting, how)
                await check(host, "queued", before)
            assert (await loading.answer()).status == 200
        assert host.loaded == (LARGE,)


async def test_leaving_aborts_the_load() -> None:
    """The model is not loaded for nobody, and the next request loads it from the start."""
    async with quick(load_bytes_per_second=2.5e8) as host:
        async with begun(host, "/api/generate", generate()) as connection:
            await host.wait_until(lambda: host.ledger.loading == 1)
            await connection.close()
            await host.wait_until(lambda: host.ledger.in_flight == 0)
        assert host.loaded == ()
        assert host.ledger.loads == 0
        assert (await post(host, "/api/generate", generate())).status == 200
        assert host.ledger.loads == 1


async def test_leaving_while_the_host_hangs() -> None:
    """A client that leaves a silent host frees its slot too."""
    async with quick() as host:
        host.faults.set("hang_before_headers", times=1)
        async with begun(host, "/api/generate", generate()) as connection:
            await host.wait_until(lambda: host.ledger.faults["hang_before_headers"] == 1)
            before = clock.now()
            await connection.close()
            await check(host, "prefill", before)
        assert (await post(host, "/api/generate", generate())).status == 200


@pytest.mark.parametrize("stream", [True, False])
async def test_leaving_a_host_that_is_as_fast_as_it_can(stream: bool) -> None:
    """A host that never waits for a timer, or for a socket, notices as well."""
    async with quick(tokens_per_second=1e9) as host:
        async with begun(host, "/api/generate", generate(tokens=40_000, stream=stream)) as connection:
            await host.wait_until(lambda: host.ledger.tokens_generated > 0)
            before = clock.now()
            connection.reset()
            await check(host, "generating", before)
        assert host.ledger.tokens_generated < 40_000
