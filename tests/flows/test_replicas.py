"""Two gateways before the same hosts, on one PostgreSQL: each minds what the other has under way, and can stop it."""

import asyncio
import contextlib
import itertools
import json
import time
from collections.abc import Callable

import pytest

from tests.builders import TEXT, Call, call, simulated
from tests.conftest import Corral
from tests.contract.raw import ask
from tests.conversation.conversing import ANN, BOB, holding, of
from tests.flows.detaching import detach, lines, read, rest_of
from tests.sockets import until
from tests.stage import Stage
from tests.store.postgres import Postgres
from tests.turns.talking import Talk

_numbers = itertools.count()
ROUNDS = 5
SLOW = {"tokens_per_second": 5.0}


@pytest.fixture
def shared(postgres: Postgres, migrated_name: str) -> Callable[[], dict[str, object]]:
    """The section of a configuration that leads to one fresh database."""
    postgres.drop()
    url = postgres.create(migrated_name)
    return lambda: {"url": url, "replicas": 2}


async def acquainted(*stages: Stage) -> None:
    """Wait until all know of each other."""
    for stage in stages:
        replicas = stage.gateway.replicas
        assert replicas is not None
        await until(lambda replicas=replicas: replicas.bus.up and len(replicas.others) == len(stages) - 1, 20.0)  # type: ignore[misc]


async def test_what_runs_at_the_other_one_counts(corral: Corral, shared: Callable[[], dict[str, object]]) -> None:
    """A host that the other gateway keeps busy looks busy here, and is free again when it is."""
    hosts = simulated("gpu1", tokens_per_second=5.0), simulated("gpu2", tokens_per_second=5.0)
    one = await corral(*hosts, database=shared())
    two = await corral(*hosts, database=shared())
    await acquainted(one, two)
    for host in hosts:
        await host.load(TEXT)
    for stage in (one, two):
        await stage.gateway.poller.first_round(5.0)
    held = call("/api/generate", tokens=1000)
    async with one.begun(held) as client:
        await client.head()
        busy = next(iter(one.gateway.generations)).host
        await until(lambda: elsewhere(two)[busy] == 1, 10.0)
        route = json.loads((await ask(two.url, "POST", "/api/route/explain", call("/api/generate").body)).body)
        assert route["host"] != busy
        assert next(row for row in route["costs"] if row["host"] == busy)["queue_wait"] > 0
    await until(lambda: elsewhere(two)[busy] == 0, 10.0)


async def test_a_host_that_drains(corral: Corral, shared: Callable[[], dict[str, object]]) -> None:
    """Asked of one gateway, the other sends nothing there either, a moment later; who waits there is served when it resumes."""
    hosts = simulated("gpu1"), simulated("gpu2")
    one = await corral(*hosts, database=shared())
    two = await corral(*hosts, database=shared())
    await acquainted(one, two)
    for host in ("gpu1", "gpu2"):
        assert json.loads((await one.operate("POST", f"/api/hosts/{host}/drain")).body)["kept"] is True
    await until(lambda: two.gateway.draining.hosts == {"gpu1", "gpu2"})
    assert (await two.ask(call("/api/generate"))).status == 503
    assert json.loads((await two.operate("POST", "/api/hosts/gpu2/resume")).body)["draining"] is False
    await until(lambda: one.gateway.draining.hosts == {"gpu1"})
    for stage in (one, two):
        assert (await stage.ask(call("/api/generate"))).get("X-Corral-Host") == "gpu2"


async def test_a_turn_at_the_other_one(corral: Corral, shared: Callable[[], dict[str, object]]) -> None:
    """Nobody answers a second time in a session, wherever they ask; the turn is stopped from anywhere, and all see what was said."""
    host = simulated("gpu1", **SLOW)
    one = await corral(host, database=shared())
    two = await corral(host, database=shared())
    await acquainted(one, two)
    here = await Talk.new(one)
    there = Talk(two, await here.session())
    async with here.saying("Why?", options={"num_predict": 1000}) as client:
        id_ = str((await client.head()).get("X-Corral-Generation"))
        await client.chunk()
        refused = await there.say("And?")
        assert (refused.status, refused.get("X-Corral-Generation")) == (409, id_)
        told = json.loads((await two.operate("POST", f"{there.path}/cancel")).body)
        assert told == {"id": here.id, "cancelled": 1, "already": False, "generations": [], "elsewhere": 1}
        assert b'"done_reason":"cancelled"' in await rest_of(client)
    await here.free()
    assert [(row["content"] != "", row["state"]) for row in await there.messages()] == [
        (True, "done"),
        (True, "stopped"),
    ]
    assert (await there.say("And?", options={"num_predict": 2})).status == 200
    await there.free()


@pytest.mark.parametrize("path", ["/api/sessions/{session}/cancel", "/api/chat/cancel/{id}"])
async def test_a_conversation_at_the_other_one(
    corral: Corral, shared: Callable[[], dict[str, object]], path: str
) -> None:
    """It hears what the user says anywhere, and is stopped from anywhere, by its session or its id."""
    host = simulated("gpu1", **SLOW)
    one = await corral(host, database=shared())
    two = await corral(host, database=shared())
    await acquainted(one, two)
    long = {"options": {"num_predict": 1000}}
    async with holding(one, ANN | long, BOB | long) as client:
        await client.head()
        start = json.loads((await client.chunk()).splitlines()[0])
        row = await one.row(start["session"], "streaming")
        said = await ask(two.url, "POST", f"/api/sessions/{start['session']}/messages", b'{"content": "Enough."}')
        assert said.status == 201
        assert (await one.operate("DELETE", f"/api/generations/{row['id']}")).status == 200
        await one.until(lambda rows: rows and rows[0]["id"] != row["id"])
        stopped = json.loads((await two.operate("POST", path.format(**start))).body)
        assert stopped["elsewhere"] >= 1
        events = lines(await rest_of(client))
    assert of(events, "said")[-1]["content"] == "Enough."
    assert (events[-1]["reason"], events[-1]["turns"]) == ("cancelled", 2)
    kept = await Talk(one, {"id": start["session"]}).free()
    assert [row["name"] for row in kept] == [None, "Ann", None, "Bob"]


async def test_a_session_that_is_deleted_at_the_other_one(
    corral: Corral, shared: Callable[[], dict[str, object]]
) -> None:
    """Its answer ends where it is written, and neither it nor what was answered before can be read there."""
    host = simulated("gpu1", **SLOW)
    one = await corral(host, database=shared())
    two = await corral(host, database=shared())
    await acquainted(one, two)
    here = await Talk.new(one)
    before = str((await here.say("Who?", options={"num_predict": 1})).get("X-Corral-Generation"))
    await here.free()
    async with here.saying("Why?", options={"num_predict": 1000}) as client:
        id_ = str((await client.head()).get("X-Corral-Generation"))
        await client.chunk()
        told = json.loads((await two.operate("DELETE", here.path)).body)
        assert told == {"id": here.id, "deleted": True, "cancelled": 1, "elsewhere": 1}
        assert b'"done_reason":"cancelled"' in await rest_of(client)
    assert [record.reason for record in await one.records.until(2)] == ["", "its session was deleted"]
    for each in (before, id_):
        assert (await read(one, each)).status == 404
    await one.gateway.talking.chats.busy.idle()


@pytest.mark.parametrize("path", ["/api/chat/cancel/{}", "/api/sessions/{}/cancel"])
async def test_a_session_that_runs_at_the_other_one(
    corral: Corral, shared: Callable[[], dict[str, object]], path: str
) -> None:
    """All of it is stopped: what is queued, what streams, here and there; another session is left alone."""
    host = simulated("gpu1", parallel=2, **SLOW)
    one = await corral(host, slots=2, database=shared())
    two = await corral(host, slots=2, database=shared())
    await acquainted(one, two)
    long = call("/api/chat", tokens=1000)
    async with contextlib.AsyncExitStack() as clients:
        here = await clients.enter_async_context(one.begun(long, "talk"))
        await here.head()
        queued = [await detach(one, long, "talk") for _ in range(2)]
        other = await detach(one, long, "another")
        mine = await detach(two, long, "talk")
        told = json.loads((await two.operate("POST", path.format("talk"))).body)
        assert told == {"id": "talk", "cancelled": 4, "already": False, "generations": [mine], "elsewhere": 3}
        await one.records.until(3)
    assert [row["id"] for row in await one.in_flight()] == [other]
    assert {record.cancelled_by for record in (*one.records, *two.records)} == {"api"}
    assert {record.reason for record in one.records} == {"stopped by an operator at another gateway"}
    assert (await read(one, queued[-1])).status == 499
    assert (await two.operate("POST", path.format("talk"))).status == 404
    stopped = await two.operate("DELETE", f"/api/generations/{other}")
    assert json.loads(stopped.body)["elsewhere"] == 1
    assert (await two.operate("DELETE", f"/api/generations/{other}")).status == 404


async def test_stopped_in_a_moment(corral: Corral, shared: Callable[[], dict[str, object]], postgres: Postgres) -> None:
    """Of a hundred sessions at the one that are stopped through the other 99 end within a tenth of a second, also after PostgreSQL restarts."""
    host = simulated("gpu1", **SLOW)
    one = await corral(host, database=shared())
    two = await corral(host, database=shared())
    await acquainted(one, two)
    await a_hundred(one, two)
    postgres.stop()
    await until(lambda: not up(one) and not up(two), 20.0)
    postgres.start()
    await until(lambda: up(one) and up(two), 30.0)
    await acquainted(one, two)
    await a_hundred(one, two)


async def a_hundred(one: Stage, two: Stage) -> None:
    """Stop so many, one after the other. Where others use the machine too, one round of several has to do."""
    request = call("/api/chat", tokens=1000)
    for _ in range(ROUNDS):
        took = sorted([await stopping(one, two, request, f"s{next(_numbers)}") for _ in range(100)])
        if took[98] < 0.1:
            return
    raise AssertionError(f"the slowest of the last round took {took[-5:]} s")


async def stopping(one: Stage, two: Stage, request: Call, session: str) -> float:
    """Seconds from asking the other gateway until the host sees its connection to the one close."""
    (host,) = one.hosts
    id_ = await detach(one, request, session)
    await host.ledger.wait_until(lambda: host.ledger.in_flight == 1, 10.0)
    asked = time.monotonic()
    freed = asyncio.ensure_future(host.ledger.wait_until(lambda: host.ledger.in_flight == 0, 10.0))  # noqa: TID251 - both at once
    answer = await two.operate("POST", f"/api/sessions/{session}/cancel")
    assert json.loads(answer.body)["elsewhere"] == 1, (answer.body, id_)
    await freed
    return time.monotonic() - asked


async def test_when_the_others_cannot_be_asked(
    corral: Corral, shared: Callable[[], dict[str, object]], postgres: Postgres
) -> None:
    """What runs here is stopped all the same; what does not is a 503, as nobody knows."""
    host = simulated("gpu1", **SLOW)
    one = await corral(host, database=shared())
    two = await corral(host, database=shared())
    await acquainted(one, two)
    mine = await detach(one, call("/api/chat", tokens=1000), "talk")
    postgres.stop()
    await until(lambda: not up(one) and not up(two), 20.0)
    nobody = await two.operate("POST", "/api/sessions/talk/cancel")
    assert (nobody.status, nobody.get("X-Corral-Error")) == (503, "store_unavailable")
    told = json.loads((await one.operate("POST", "/api/sessions/talk/cancel")).body)
    assert told == {"id": "talk", "cancelled": 1, "already": False, "generations": [mine], "elsewhere": None}
    await one.records.of("talk")
    postgres.start()
    await until(lambda: up(one) and up(two), 30.0)


def up(stage: Stage) -> bool:
    """Whether a gateway has its database, and hears the others."""
    database, replicas = stage.gateway.database, stage.gateway.replicas
    assert database is not None
    assert replicas is not None
    return database.up and replicas.bus.up


def elsewhere(stage: Stage) -> dict[str | None, int]:
    """What a gateway thinks that others hold, by host."""
    return {view.name: view.elsewhere for view in stage.gateway.fleet.snapshot(0.0).hosts}
