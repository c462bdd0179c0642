"""Requests go where they cost the least: what is loaded, what is free, who holds the conversation; and wait where that is best."""

import asyncio
import contextlib
import json
from collections import Counter

import pytest

from simulator.host import SimulatedHost
from tests.builders import EMBEDDING, ONE_EACH, OTHER, PATHS, TEXT, Call, call, simulated
from tests.conftest import Corral
from tests.contract.raw import Answer, ask
from tests.stage import Stage

HANG = call("/api/generate", tokens=3)


def hang(*hosts: SimulatedHost) -> None:
    """From now on these hosts take requests and say nothing."""
    for host in hosts:
        host.faults.set("hang_before_headers")


def most_at_once(host: SimulatedHost) -> int:
    """How many inferences a host had at the same time, at most."""
    moments = [(entry.started, 1) for entry in host.ledger.entries]
    moments += [(entry.ended, -1) for entry in host.ledger.entries if entry.ended is not None]
    now = most = 0
    for _, change in sorted(moments):
        now += change
        most = max(most, now)
    return most


async def explained(stage: Stage, request: Call) -> dict:
    """What /api/route/explain says of a request."""
    headers = {"Content-Type": request.headers.get("Content-Type", "")}
    answer = await ask(stage.url, "POST", f"/api/route/explain?path={request.path}", request.body, headers)
    assert answer.status == 200
    return json.loads(answer.body)


# -- choosing -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ONE_EACH)
async def test_a_loaded_model_is_preferred(corral: Corral, path: str) -> None:
    """Requests go to the host that has the model in memory, and nobody else loads it."""
    hosts = [simulated(f"gpu{number}") for number in (1, 2, 3)]
    await hosts[1].load(TEXT)
    stage = await corral(*hosts)
    answers = [await stage.ask(call(path)) for _ in range(6)]
    assert [answer.get("X-Corral-Host") for answer in answers] == ["gpu2"] * 6
    assert [host.ledger.loads for host in hosts] == [0, 1, 0]
    assert {record.route.reason for record in await stage.records.until(6) if record.route} == {"loaded"}


async def test_what_an_answer_loaded_is_known_at_once(corral: Corral) -> None:
    """The first answer proves the model loaded: the next request follows it before any poll."""
    stage = await corral(*(simulated(f"gpu{number}") for number in (1, 2, 3)))
    first = await stage.ask(call("/api/chat"))
    others = [await stage.ask(call("/api/generate")) for _ in range(5)]
    assert {answer.get("X-Corral-Host") for answer in others} == {first.get("X-Corral-Host")}
    assert sum(host.ledger.loads for host in stage.hosts) == 1
    assert sum(host.ledger.polls.get("/api/ps", 0) for host in stage.hosts) == 3


async def test_runner_options_belong_to_the_key(corral: Corral) -> None:
    """Two context lengths live on two hosts, and neither makes the other reload."""
    one, two = (simulated(f"gpu{number}", load_bytes_per_second=4e8) for number in (1, 2))
    stage = await corral(one, two)
    longer = call("/api/generate", options={"num_ctx": 2048})
    await stage.ask(HANG)
    first = (await stage.records.until(1))[0].host
    hang(stage[first or ""])
    async with stage.begun(HANG) as held:
        await stage.until(lambda rows: [row for row in rows if row["phase"] == "prefill"])
        await stage.ask(longer)
        stage[first or ""].faults.clear()
        await held.answer()
    places = {
        call_: [(await stage.ask(each)).get("X-Corral-Host") for _ in range(4)]
        for call_, each in (("a", HANG), ("b", longer))
    }
    assert places["a"] == [first] * 4
    assert set(places["b"]) == {"gpu1", "gpu2"} - {first}
    assert one.ledger.reloads == two.ledger.reloads == Counter()


async def test_a_model_that_one_host_has(corral: Corral) -> None:
    """Its requests all go there, also when that means waiting; the record says why the other host was left out."""
    one, two = simulated("gpu1", TEXT), simulated("gpu2", TEXT, OTHER)
    stage = await corral(one, two)
    answers = await asyncio.gather(*(stage.ask(call("/api/chat", OTHER)) for _ in range(6)))
    assert {answer.get("X-Corral-Host") for answer in answers} == {"gpu2"}
    assert not one.ledger.entries
    for record in await stage.records.until(6):
        assert record.route is not None
        assert [(left.host, left.code) for left in record.route.rejected] == [("gpu1", "model_missing")]
    assert await stage.totals("corral_host_excluded_total", "host", "reason") == {("gpu1", "model_missing"): 6}


async def test_a_model_pulled_a_moment_ago(corral: Corral) -> None:
    """A model that no poll has seen is looked for before 404 is said, and found."""
    stage = await corral(simulated("gpu1", TEXT), simulated("gpu2", TEXT))
    await ask(stage["gpu2"].url, "POST", "/api/pull", json.dumps({"model": EMBEDDING, "stream": False}).encode())
    assert (await stage.ask(call("/api/embed", EMBEDDING))).get("X-Corral-Host") == "gpu2"
    assert (await stage.ask(call("/api/embed", "nobody"))).status == 404


async def test_unknown_models_do_not_flood_hosts(corral: Corral) -> None:
    """However many ask for models that nobody has, hosts are asked for their lists once in a while."""
    stage = await corral(simulated("gpu1"))
    answers = await asyncio.gather(*(stage.ask(call("/api/chat", f"nobody{number}")) for number in range(30)))
    assert {answer.status for answer in answers} == {404}
    assert stage["gpu1"].ledger.polls["/api/tags"] <= 3


# -- many at once -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("warm", [False, True], ids=["cold", "warm"])
async def test_a_burst_spreads(corral: Corral, warm: bool) -> None:
    """Requests that come between two polls go to different hosts: a lease counts from the moment it is given."""
    hosts = [simulated(f"gpu{number}") for number in (1, 2, 3)]
    for host in hosts:
        if warm:
            await host.load(TEXT)
    stage = await corral(*hosts)
    hang(*hosts)
    async with asyncio.TaskGroup() as tasks:
        asked = [tasks.create_task(stage.ask(HANG)) for _ in hosts]
        rows = await stage.until(lambda rows: rows if [row["phase"] for row in rows] == ["prefill"] * 3 else None)
        assert sorted(row["host"] for row in rows) == ["gpu1", "gpu2", "gpu3"]
        for host in hosts:
            host.faults.clear()
    assert [task.result().status for task in asked] == [200] * 3


@pytest.mark.parametrize("slots", [1, 3])
async def test_slots_are_never_exceeded(corral: Corral, slots: int) -> None:
    """No host ever has more requests at once than it has slots, however many come."""
    hosts = [simulated(f"gpu{number}", parallel=slots, tokens_per_second=1000.0) for number in (1, 2)]
    for host in hosts:
        await host.load(TEXT)
        host.ledger.entries.clear()
    stage = await corral(*hosts, slots=slots)
    answers = await asyncio.gather(*(stage.ask(call("/api/generate", tokens=10)) for _ in range(40)))
    assert [answer.status for answer in answers] == [200] * 40
    assert [most_at_once(host) for host in hosts] == [slots, slots]


async def test_waiting_for_a_warm_host_can_be_cheaper(corral: Corral) -> None:
    """When loading elsewhere would take longer than waiting, a request waits."""
    one, two = simulated("gpu1"), simulated("gpu2")
    await one.load(TEXT)
    stage = await corral(one, two)
    await stage.ask(HANG)
    hang(one)
    async with stage.begun(HANG, "first") as first, stage.begun(HANG, "second") as second:
        await stage.row("first", "prefill")
        await stage.row("second", "queued")
        one.faults.clear()
        assert [(await client.answer()).get("X-Corral-Host") for client in (first, second)] == ["gpu1", "gpu1"]
    assert two.ledger.loads == 0
    assert (await stage.records.of("second")).queue_seconds > 0


# -- the waiting room ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PATHS)
async def test_the_waiting_room_is_bounded(corral: Corral, path: str) -> None:
    """One request too many gets 503 with Retry-After in its dialect, at once; those who wait are served."""
    host = simulated()
    stage = await corral(host, queue={"limit": 2})
    hang(host)
    waiting = call(path)
    async with stage.begun(HANG, "0") as running, stage.begun(waiting, "1") as one, stage.begun(waiting, "2") as two:
        for session, phase in (("0", "prefill"), ("1", "queued"), ("2", "queued")):
            await stage.row(session, phase)
        answer = await stage.ask(waiting)
        assert answer.status == 503
        assert int(answer.get("Retry-After") or "") >= 1
        assert_busy(path, answer)
        assert (await stage.totals("corral_queue_depth")).total() == 2
        assert len(host.ledger.entries) == 1
        host.faults.clear()
        assert [(await client.answer()).status for client in (running, one, two)] == [200] * 3
    assert Counter(record.outcome for record in await stage.records.until(4)) == {"ok": 3, "rejected": 1}
    assert await stage.totals("corral_requests_rejected_total", "reason") == {"queue_full": 1}


def assert_busy(path: str, answer: Answer) -> None:
    """The error says that the queue is full, as clients of that path read errors."""
    error = json.loads(answer.body)["error"]
    if path.startswith("/api/"):
        assert "queue is full" in error
        return
    assert "queue is full" in error["message"]
    kind = ("overloaded_error", None) if path == "/v1/messages" else ("api_error", "queue_full")
    assert (error["type"], error.get("code")) == kind


@pytest.mark.parametrize("models", [(TEXT,), (TEXT, OTHER)], ids=["one model", "two models"])
async def test_first_come_first_served(corral: Corral, models: tuple[str, ...]) -> None:
    """Those who wait are served in the order in which they came; those who want what is loaded before those who need a load."""
    host = simulated()
    stage = await corral(host)
    hang(host)
    sessions = [str(number) for number in range(8)]
    async with contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(stage.begun(HANG, "holder"))]
        await stage.row("holder", "prefill")
        for name in sessions:
            request = call("/api/chat", models[int(name) % len(models)])
            clients.append(await stack.enter_async_context(stage.begun(request, name)))
            await stage.row(name, "queued")
        host.faults.clear()
        assert [(await client.answer()).status for client in clients] == [200] * 9
    came = {record.id: record.session for record in await stage.records.until(9)}
    assert [came[entry.request_id or ""] for entry in host.ledger.entries] == [
        "holder",
        *sorted(sessions, key=lambda name: int(name) % len(models)),
    ]


async def test_a_waiter_takes_whichever_host_is_free_first(corral: Corral) -> None:
    """A waiter is bound to a host only when it is granted one."""
    one, two = simulated("gpu1"), simulated("gpu2")
    await one.load(TEXT)
    await two.load(TEXT)
    stage = await corral(one, two)
    hang(one, two)
    async with stage.begun(HANG, "a") as a, stage.begun(HANG, "b") as b, stage.begun(HANG, "c") as c:
        await stage.until(lambda rows: [row["phase"] for row in rows] == ["prefill", "prefill", "queued"])
        free = (await stage.row("b", "prefill"))["host"]
        stage[free].faults.clear()
        assert (await b.answer()).status == 200
        assert (await c.answer()).get("X-Corral-Host") == free
        one.faults.clear()
        two.faults.clear()
        assert (await a.answer()).status == 200


# -- affinity -----------------------------------------------------------------------------------------------------------------


async def talked(corral: Corral, *names: str, turns: int) -> tuple[Stage, list[set[str | None]]]:
    """Long conversations that take turns, on three hosts with one slot each; with the hosts that each conversation saw."""
    hosts = [simulated(f"gpu{number}", prefill_tokens_per_second=10_000.0) for number in (1, 2, 3)]
    for host in hosts:
        await host.load(TEXT)
        host.ledger.entries.clear()
    stage = await corral(*hosts)
    talks = [[{"role": "user", "content": f"{name} " * 1500}] for name in names]
    places: list[set[str | None]] = [set() for _ in names]
    for turn in range(turns):
        for talk, seen in zip(talks, places, strict=True):
            answer = await stage.ask(call("/api/chat", messages=talk, stream=False))
            seen.add(answer.get("X-Corral-Host"))
            talk += [json.loads(answer.body)["message"], {"role": "user", "content": f"And turn {turn}?"}]
    await stage.records.until(len(names) * turns)
    return stage, places


async def test_a_conversation_stays_where_its_prompt_is_cached(corral: Corral) -> None:
    """Each turn of a long conversation goes to the host that holds it, which reads only what is new."""
    stage, places = await talked(corral, "river", turns=6)
    assert len(places[0]) == 1
    assert [record.route.reason for record in stage.records if record.route][1:] == ["affinity"] * 5
    entries = [entry for host in stage.hosts for entry in host.ledger.entries]
    assert [entry.cached_tokens > 1000 for entry in entries] == [False] + [True] * 5


async def test_conversations_do_not_push_each_other_out(corral: Corral) -> None:
    """A host with one slot holds one prompt: a second conversation finds another host, and both stay cached."""
    stage, places = await talked(corral, "river", "mountain", turns=4)
    assert [len(seen) for seen in places] == [1, 1]
    entries = [entry for host in stage.hosts for entry in host.ledger.entries]
    assert sum(entry.cached_tokens > 1000 for entry in entries) == 6


async def test_affinity_is_no_chain(corral: Corral) -> None:
    """A conversation leaves its host when that one is busy for longer than reading the prompt again takes."""
    hosts = [simulated(f"gpu{number}", prefill_tokens_per_second=10_000.0, tokens_per_second=10.0) for number in (1, 2)]
    for host in hosts:
        await host.load(TEXT)
    stage = await corral(*hosts)
    talk = call("/api/chat", prompt="river " * 1500)
    home = (await stage.ask(talk)).get("X-Corral-Host")
    hang(stage[home or ""])
    async with stage.begun(talk, "holder") as holder:
        assert (await stage.row("holder", "prefill"))["host"] == home
        assert (await stage.ask(talk)).get("X-Corral-Host") != home
        stage[home or ""].faults.clear()
        await holder.answer()


async def test_every_conversation_is_remembered(corral: Corral) -> None:
    """Two conversations that begin in the same instant are both remembered, each where it was."""
    hosts = [simulated("gpu1", parallel=20), simulated("gpu2", parallel=20)]
    await hosts[0].load(TEXT)
    stage = await corral(*hosts, slots=20)
    talks = [call("/api/chat", prompt=f"talk{number} " * 500) for number in range(20)]
    answers = await asyncio.gather(*(stage.ask(talk) for talk in talks))
    await stage.records.until(20)
    assert {answer.get("X-Corral-Host") for answer in answers} == {"gpu1"}
    said = [await explained(stage, talk) for talk in talks]
    assert [(row["host"], row["reason"]) for row in said] == [("gpu1", "affinity")] * 20


# -- explaining ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PATHS)
async def test_what_is_explained_is_what_happens(corral: Corral, path: str) -> None:
    """The host that the explanation names is where the request then goes, at the cost that the record has."""
    request = call(path)
    hosts = [simulated("gpu1", OTHER), *(simulated(f"gpu{number}") for number in (2, 3, 4))]
    for model in (TEXT, EMBEDDING, "gemma3n:e4b"):
        await hosts[2].load(model)
    stage = await corral(*hosts)
    said = await explained(stage, request)
    assert len(stage.records) == sum(host.ledger.requests[path] for host in hosts) == 0
    assert said["host"] == "gpu3"
    assert said["costs"][0]["host"] == "gpu3"
    assert said["runner_up"] == said["costs"][1]["host"]
    assert said["rejected"] == [{"host": "gpu1", "code": "model_missing", "why": "does not have the model"}]
    parts = ("queue_wait", "load_time", "prefill", "affinity", "penalty", "harm", "decode")
    for row in said["costs"]:
        assert sum(row[part] for part in parts) == pytest.approx(row["total"], abs=0.001)
    totals = [row["total"] for row in said["costs"]]
    assert totals == sorted(totals)
    answer = await stage.ask(request)
    assert answer.get("X-Corral-Host") == said["host"]
    route = (await stage.records.until(1))[0].route
    assert route is not None
    assert route.reason == said["reason"]
    assert route.predicted_seconds == pytest.approx(said["predicted_seconds"], abs=0.001)


async def test_explained_under_load(corral: Corral) -> None:
    """The explanation counts leases: where a burst's next request goes is foretold each time."""
    hosts = [simulated(f"gpu{number}", TEXT if number < 3 else OTHER) for number in (1, 2, 3)]
    await hosts[0].load(TEXT)
    stage = await corral(*hosts)
    hang(*hosts)
    foretold = []
    async with asyncio.TaskGroup() as tasks:
        for count in (1, 2):
            foretold.append((await explained(stage, HANG))["host"])
            tasks.create_task(stage.ask(HANG))
            await stage.until(lambda rows, count=count: [row["phase"] for row in rows] == ["prefill"] * count)
        full = await explained(stage, HANG)
        assert min(row["queue_wait"] for row in full["costs"]) > 0
        assert [row["leases"] for row in full["costs"]] == [1, 1]
        went = [row["host"] for row in await stage.in_flight()]
        for host in hosts:
            host.faults.clear()
    assert went == foretold == ["gpu1", "gpu2"]


async def test_explained_refusals(corral: Corral) -> None:
    """A model that nobody has, an unknown endpoint and a body that is none are explained as such; dialects are guessed."""
    stage = await corral(simulated())
    unknown = await explained(stage, call("/api/chat", "nobody"))
    assert (unknown["host"], unknown["reason"]) == (None, "model_not_found")
    assert set(unknown) == set(await explained(stage, call("/api/chat")))
    assert (unknown["predicted_seconds"], unknown["queue_place"], unknown["policies"]) == (None, None, {})
    assert [(left["host"], left["code"]) for left in unknown["rejected"]] == [("gpu1", "model_missing")]
    for body, path in (
        (call("/api/chat").body, "/api/chat"),
        (call("/api/generate").body, "/api/generate"),
        (call("/api/embed").body, "/api/embed"),
    ):
        answer = await ask(stage.url, "POST", "/api/route/explain", body)
        assert json.loads(answer.body)["request"]["endpoint"] == path
    assert (await ask(stage.url, "POST", "/api/route/explain", b"nonsense")).status == 400
    assert (await ask(stage.url, "POST", "/api/route/explain", b"{}")).status == 400
    assert (await ask(stage.url, "POST", "/api/route/explain?path=/no", call("/api/chat").body)).status == 404
    assert list(stage.records) == []


# -- how many at once ---------------------------------------------------------------------------------------------------------

LONG = 0.35
"""Seconds of an answer that tells whether others ran beside it."""


async def crowd(stage: Stage, count: int) -> None:
    """So many requests at once, to their ends."""
    answers = await asyncio.gather(*[stage.ask(call("/api/chat", tokens=35, prompt=f"{n}")) for n in range(count)])
    assert {answer.status for answer in answers} == {200}


@pytest.mark.parametrize(("slots", "real"), [(2, 1), (3, 2), (4, 4)])
async def test_more_slots_are_configured_than_there_are(corral: Corral, slots: int, real: int) -> None:
    """Answers tell that they waited: then no more are sent than the host runs at once, for that model; the rest waits here."""
    host = simulated(parallel=real, tokens_per_second=35 / LONG)
    await host.load(TEXT)
    stage = await corral(host, slots=slots)
    await crowd(stage, 8)
    (row,) = (await stage.get("/api/models/servers"))["servers"]
    assert (row["slots"], row["slots_configured"], row["parallel"]) == (
        *(slots, slots),
        {} if real == slots else {TEXT: real},
    )
    host.ledger.entries.clear()
    await crowd(stage, 4)
    assert most_at_once(host) == real
    told = await explained(stage, call("/api/chat"))
    assert (told["costs"][0]["slots"], told["costs"][0]["parallel"]) == (slots, real)


@pytest.mark.parametrize("real", [1, 2])
async def test_slots_that_are_not_configured(corral: Corral, real: int) -> None:
    """Are found out: one more is tried while answers tell that they did not wait, and left again when one did."""
    host = simulated(parallel=real, tokens_per_second=35 / LONG)
    await host.load(TEXT)
    stage = await corral(host, slots=0)
    seen = []
    for _ in range(3 * real):
        await crowd(stage, real + 1)
        (row,) = (await stage.get("/api/models/servers"))["servers"]
        seen.append(row["slots"])
    assert (seen[0], seen[-1], row["slots_configured"], row["parallel"]) == (1, real, 0, {TEXT: real})
    assert (await stage.totals("corral_host_concurrency_limit", "host")) == {"gpu1": real}


async def test_a_model_of_which_fewer_run_at_once(corral: Corral) -> None:
    """Leaves the host's other slots to others."""
    host = simulated(parallel=1, tokens_per_second=35 / LONG)
    for model in (TEXT, OTHER):
        await host.load(model)
    stage = await corral(host, slots=2)
    await crowd(stage, 5)
    hang(host)
    async with stage.begun(HANG, "one"), stage.begun(HANG, "two"):
        await stage.row("one", "prefill")
        assert (await stage.row("two", "queued"))["waits_for"] == "slot"
        async with stage.begun(call("/api/generate", OTHER), "other"):
            await stage.row("other", "prefill")
            host.faults.clear()
