"""The waiting room from outside: whose turn it is, how long it will take, and who is not let in."""

import contextlib
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from gateway.dialects.urgency import PROMPTS
from simulator.host import SimulatedHost
from tests.builders import EMBEDDING, ONE_EACH, OTHER, PATHS, TEXT, Call, call, simulated
from tests.conftest import Corral
from tests.contract.raw import Answer, ask
from tests.sockets import until
from tests.stage import Client, Stage

HANG = call("/api/generate", tokens=3)
BACKGROUND = {"X-Corral-Priority": "background"}


@contextlib.asynccontextmanager
async def waiting(stage: Stage, *requests: Call) -> AsyncIterator[list[Client]]:
    """The one slot is taken, and these wait, in the sessions 0, 1, …; they are served when this is left."""
    host: SimulatedHost = stage["gpu1"]
    host.faults.set("hang_before_headers")
    async with contextlib.AsyncExitStack() as stack:
        holder = await stack.enter_async_context(stage.begun(HANG, "holder"))
        await stage.row("holder", "prefill")
        clients = []
        for number, request in enumerate(requests):
            clients.append(await stack.enter_async_context(stage.begun(request, str(number))))
            await stage.row(str(number), "queued")
        yield clients
        host.faults.clear()
        assert (await holder.answer()).status == 200
        for client in clients:
            assert (await client.answer()).status == 200


async def served(stage: Stage, count: int) -> list[str]:
    """The sessions of those that waited, in the order in which the host got them."""
    came = {record.id: record.session or "" for record in await stage.records.until(count + 1)}
    return [came[entry.request_id or ""] for entry in stage["gpu1"].ledger.entries][1:]


def message_of(path: str, answer: Answer) -> str:
    """What an error says, as clients of that path read errors."""
    error = json.loads(answer.body)["error"]
    return error if path.startswith("/api/") else error["message"]


# -- priorities ---------------------------------------------------------------------------------------------------------------


async def test_priorities_are_the_callers(corral: Corral) -> None:
    """Who says so waits behind all others, or before them."""
    stage = await corral(simulated())
    said = ("background", "", "interactive", "Background", "normal")
    async with waiting(stage, *(call("/api/chat", headers={"X-Corral-Priority": word}) for word in said)):
        pass
    assert await served(stage, 5) == ["2", "1", "4", "0", "3"]
    told = ("background", "normal", "interactive", "background", "normal")
    kept = {record.session: record.priority for record in stage.records}
    assert [kept[session] for session in "01234"] == list(told)


@pytest.mark.parametrize("path", PATHS)
async def test_a_priority_that_is_none(corral: Corral, path: str) -> None:
    """Is refused in the caller's dialect, with the three that there are."""
    stage = await corral(simulated())
    answer = await stage.ask(call(path, headers={"X-Corral-Priority": "urgent"}))
    assert answer.status == 400
    assert "interactive, normal or background" in message_of(path, answer)
    assert not stage["gpu1"].ledger.entries


@pytest.mark.parametrize("background", [True, False], ids=["known", "not looked for"])
@pytest.mark.parametrize("path", ONE_EACH)
async def test_what_a_chat_ui_asks_by_itself(corral: Corral, path: str, background: bool) -> None:
    """Waits until nobody else does, unless its caller says otherwise, or nobody is to look."""
    stage = await corral(simulated(), queue={"background": background})
    title = call(path, prompt=PROMPTS[0] + " title")
    urgent = call(path, prompt=PROMPTS[0] + " title", headers={"X-Corral-Priority": "normal"})
    async with waiting(stage, title, call(path), urgent):
        pass
    assert await served(stage, 3) == (["1", "2", "0"] if background else ["0", "1", "2"])


async def test_the_explanation_names_the_priority(corral: Corral) -> None:
    """As it was read: of the body, or of the header."""
    stage = await corral(simulated(), queue={"background_prompts": ("Name this chat",)})
    sent = call("/api/chat", prompt="Name this chat: …")
    for headers, priority in (({}, "background"), ({"X-Corral-Priority": "interactive"}, "interactive")):
        answer = await ask(stage.url, "POST", "/api/route/explain", sent.body, headers)
        assert json.loads(answer.body)["request"]["priority"] == priority


# -- bounds -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ONE_EACH)
async def test_a_caller_is_bounded(corral: Corral, path: str) -> None:
    """Who has as many waiting as may is told so at once, and what its place would have been."""
    stage = await corral(simulated(), queue={"per_principal": 2})
    async with waiting(stage, call(path), call(path)):
        answer = await stage.ask(call(path))
        assert (answer.status, answer.get("X-Corral-Error")) == (503, "queue_full")
        assert "2 requests of yours wait" in message_of(path, answer)
        assert answer.get("X-Corral-Queue-Place") == "3"
        assert float(answer.get("X-Corral-Queue-Seconds") or "") > 0
    assert await stage.totals("corral_requests_rejected_total", "reason") == {"queue_full": 1}


# -- deadlines ----------------------------------------------------------------------------------------------------------------


def hurried(path: str, seconds: object, **more: object) -> Call:
    """Who waits so long for the first byte."""
    return call(path, headers={"X-Corral-Deadline": str(seconds)}, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("said", ["soon", "0", "-1", "nan", "inf", "1_0", "86401"])
async def test_a_deadline_that_is_none(corral: Corral, said: str) -> None:
    """Is refused, with what could be said."""
    stage = await corral(simulated())
    answer = await stage.ask(hurried("/api/chat", said))
    assert answer.status == 400
    assert "more than 0 and at most 86400" in message_of("/api/chat", answer)


@pytest.mark.parametrize("path", PATHS)
async def test_who_would_be_late_is_told_so_at_once(corral: Corral, path: str) -> None:
    """503 in the caller's dialect, with when to come again and what it would have been; no host hears of it."""
    stage = await corral(simulated())
    async with waiting(stage, call("/api/generate"), call("/api/generate")):
        answer = await stage.ask(hurried(path, 0.5))
        told = message_of(path, answer)
        assert (answer.status, answer.get("X-Corral-Error"), answer.get("X-Corral-Queue-Place")) == (
            *(503, "deadline_unmet"),
            "3",
        )
        assert "the deadline is in 0.5 s" in told
        wait = float(answer.get("X-Corral-Queue-Seconds") or "")
        assert wait > 1.0
        if (again := answer.get("Retry-After")) is not None:  # else its model has to be loaded first
            assert 1 <= int(again) <= wait + 1
        assert answer.get("x-should-retry") == (None if again else "false")
    records = await stage.records.until(4)
    late = [(record.outcome, record.cancelled_by, record.status) for record in records if record.outcome != "ok"]
    assert late == [("cancelled", "timeout", 503)]  # by its own word: the objectives do not count it
    assert await stage.totals("corral_requests_rejected_total", "reason") == {"deadline_unmet": 1}


async def test_a_deadline_passes_in_the_queue(corral: Corral) -> None:
    """Who could have made it and did not is told at the deadline: 504, not to be tried again. The next is served."""
    host = simulated()
    await host.load(TEXT)
    stage = await corral(host)
    for _ in range(3):  # what is learned makes the wait look short
        assert (await stage.ask(HANG)).status == 200
    async with waiting(stage, call("/api/generate")):
        answer = await stage.ask(hurried("/v1/chat/completions", 0.4))
        assert (answer.status, answer.get("x-should-retry")) == (504, "false")
        assert "no first byte within 0.4 s" in message_of("/v1/chat/completions", answer)
    records = {record.outcome: record for record in await stage.records.until(6)}
    late = records["cancelled"]
    assert (late.cancelled_by, late.phase, late.host) == ("timeout", "queued", None)


async def test_a_deadline_passes_at_the_host(corral: Corral) -> None:
    """Who has a slot and hears nothing is let go as well, and the slot is free."""
    host = simulated()
    await host.load(TEXT)
    stage = await corral(host)
    assert (await stage.ask(HANG)).status == 200
    host.faults.set("hang_before_headers")
    answer = await stage.ask(hurried("/api/chat", 0.3))
    assert (answer.status, answer.get("X-Corral-Error")) == (504, "deadline")
    await host.ledger.wait_until(lambda: host.ledger.in_flight == 0, 5.0)
    host.faults.clear()
    records = await stage.records.until(2)
    assert (records[-1].outcome, records[-1].phase, records[-1].cancelled_by) == ("cancelled", "prefill", "timeout")


async def test_an_answer_that_began_in_time_goes_on(corral: Corral) -> None:
    """However long it takes: the deadline is the first byte's."""
    host = simulated(tokens_per_second=20.0)
    await host.load(TEXT)
    stage = await corral(host)
    assert (await stage.ask(HANG)).status == 200
    answer = await stage.ask(hurried("/api/chat", 0.3, tokens=10))
    assert answer.status == 200
    assert (await stage.records.until(2))[-1].duration_seconds > 0.3


async def test_a_deadline_for_all(corral: Corral) -> None:
    """`queue.deadline_seconds` is that of who says nothing, and ours to keep; who only loads a model has none."""
    stage = await corral(simulated(), queue={"deadline_seconds": 0.5})
    refused = await stage.ask(HANG)
    assert (refused.status, refused.get("X-Corral-Error"), refused.get("Retry-After")) == (503, "deadline_unmet", None)
    assert (await stage.records.until(1))[0].outcome == "rejected"
    loaded = await stage.ask(call("/api/generate", prompt=""))
    assert loaded.status == 200
    assert (await stage.ask(HANG)).status == 200
    assert (await stage.ask(hurried("/api/generate", 30, model=OTHER))).status == 200
    stage["gpu1"].faults.set("hang_before_headers")
    assert (await stage.ask(HANG)).status == 504
    record = (await stage.records.until(5))[-1]
    assert (record.outcome, record.cancelled_by) == ("timeout", "timeout")
    stage["gpu1"].faults.clear()


# -- what is told -------------------------------------------------------------------------------------------------------------


async def test_the_queue_is_told(corral: Corral) -> None:
    """Who waits, in the order of their turns, with what is known of them; the sums by model; and the same of each generation."""
    host = simulated()
    await host.load(TEXT)
    stage = await corral(host, queue={"limit": 9, "per_principal": 7})
    empty = await stage.get("/api/queue")
    assert empty == {"limit": 9, "per_principal": 7, "waiting": [], "models": []}
    asked = (
        call("/api/generate", OTHER, headers=BACKGROUND),
        hurried("/api/chat", 3600),
        call("/v1/chat/completions", headers={"X-Corral-Priority": "interactive"}),
    )
    async with waiting(stage, *asked):
        told = await stage.get("/api/queue")
        rows = told["waiting"]
        flat = [(row["queue_place"], row["session"], row["priority"], row["model"], row["waits_for"]) for row in rows]
        assert flat == [
            (1, "2", "interactive", TEXT, "slot"),
            (2, "1", "normal", TEXT, "slot"),
            (3, "0", "background", OTHER, "slot"),
        ]
        waits = [row["queue_seconds"] for row in rows]
        assert waits == sorted(waits)
        assert waits[0] > 0
        for row in rows:
            assert row["principal"] == "127.0.0.1"
            assert row["host"] == "gpu1"
            assert row["first_token_seconds"] >= row["queue_seconds"]
            assert datetime.now(UTC) - datetime.fromisoformat(row["since"]) < timedelta(seconds=60)
            assert 0 <= row["waited_seconds"] < 60
        assert [row["deadline_seconds"] is None for row in rows] == [True, False, True]
        assert 3500 < rows[1]["deadline_seconds"] <= 3600
        assert [(row["model"], row["waiting"]) for row in told["models"]] == [(TEXT, 2), (OTHER, 1)]
        assert told["models"][0]["queue_seconds"] == pytest.approx(waits[1], abs=0.5)
        flying = {row["session"]: row for row in await stage.in_flight()}
        for row in rows:
            same = flying[row["session"]]
            assert (same["id"], same["queue_place"], same["waits_for"]) == (row["id"], row["queue_place"], "slot")
            assert same["queue_seconds"] == pytest.approx(row["queue_seconds"], abs=0.5)
        holder = flying["holder"]
        assert (holder["queue_place"], holder["queue_seconds"], holder["waits_for"]) == (None, None, None)


async def test_what_would_wait_is_explained(corral: Corral) -> None:
    """Where it would stand if it came now, and for how long; and nothing of it has waited."""
    host = simulated()
    await host.load(TEXT)
    stage = await corral(host)
    sent = call("/api/chat")

    async def explained(priority: str) -> dict[str, Any]:
        headers = {"X-Corral-Priority": priority}
        return json.loads((await ask(stage.url, "POST", "/api/route/explain", sent.body, headers)).body)

    free = await explained("normal")
    assert (free["queue_place"], free["queue_seconds"], free["waits_for"]) == (None, None, None)
    async with waiting(stage, call("/api/chat"), call("/api/chat", headers=BACKGROUND)):
        before = await stage.get("/api/queue")
        told = {priority: await explained(priority) for priority in ("interactive", "normal", "background")}
        assert [row["queue_place"] for row in told.values()] == [1, 2, 3]
        waits = [row["queue_seconds"] for row in told.values()]
        assert 0 < waits[0] < waits[1] < waits[2]
        for row in told.values():
            assert row["waits_for"] == "slot"
            assert set(row["policies"].values()) == {"gpu1"}
            assert len(row["policies"]) == 5
        after = await stage.get("/api/queue")
        assert [row["id"] for row in after["waiting"]] == [row["id"] for row in before["waiting"]]


async def test_why_it_went_there_is_told_after_its_end(corral: Corral, file_url: str) -> None:
    """What each host would have cost, as it was explained before; of old ones as far as the database keeps it."""
    hosts = [simulated("gpu1", OTHER), simulated("gpu2"), simulated("gpu3")]
    await hosts[1].load(TEXT)
    stage = await corral(*hosts, database={"url": file_url})
    sent = call("/api/chat")
    before = json.loads((await ask(stage.url, "POST", "/api/route/explain", sent.body)).body)
    id_ = (await stage.ask(sent)).get("X-Corral-Generation")
    told = await stage.get(f"/api/generations/{id_}")
    assert (told["phase"], told["outcome"], told["detached"], told["runner_up"]) == (
        *("done", "ok", False),
        before["runner_up"],
    )
    assert told["rejected"] == before["rejected"]
    names = {"host", "total", "queue_wait", "load_time", "prefill", "affinity", "penalty", "harm", "decode", "held"}
    assert [set(cost) for cost in told["costs"]] == [names] * 2
    for cost, foretold in zip(told["costs"], before["costs"], strict=True):
        assert cost == {name: pytest.approx(foretold[name], abs=0.01) for name in names - {"host"}} | {
            "host": foretold["host"]
        }
    stage["gpu2"].faults.set("close_before_headers")
    stage["gpu3"].faults.set("close_before_headers")
    failed = (await stage.ask(sent)).get("X-Corral-Generation")
    await until(lambda: stage.gateway.keeper and stage.gateway.keeper.records.depth == 0)
    fresh = {one: await stage.get(f"/api/generations/{one}") for one in (id_, failed)}
    stage.gateway.generations._past.clear()
    old = {one: await stage.get(f"/api/generations/{one}") for one in (id_, failed)}
    gone = {"costs": [], "rejected": [], "predicted_load_seconds": None}
    assert old[id_] == fresh[id_] | gone
    assert len(fresh[failed]["costs"]) >= 1
    assert old[failed] == fresh[failed]
    nobody = await ask(stage.url, "GET", "/api/generations/nobody")
    assert (nobody.status, json.loads(nobody.body)["error"]) == (404, "no generation 'nobody' is in flight, or kept")


async def test_what_ended_is_told_without_a_database(corral: Corral) -> None:
    """The last of them; and of what never was, nothing."""
    stage = await corral(simulated(), database={"url": "none"})
    id_ = (await stage.ask(HANG)).get("X-Corral-Generation")
    assert (await stage.get(f"/api/generations/{id_}"))["costs"][0]["host"] == "gpu1"
    assert (await ask(stage.url, "GET", "/api/generations/nobody")).status == 404


async def test_embeddings_wait_for_each_other_as_long_as_they_take(corral: Corral) -> None:
    """Nobody waits for words that an embedding does not write: who has a second for it is not refused behind others, as each takes far less."""
    host = simulated(prefill_tokens_per_second=10_000)
    await host.load(EMBEDDING)
    stage = await corral(host)
    usual = call("/api/embed", prompt="word " * 100)
    for _ in range(5):
        assert (await stage.ask(usual)).status == 200
    explained = json.loads((await ask(stage.url, "POST", "/api/route/explain?path=/api/embed", usual.body)).body)
    assert explained["costs"][0]["held"] == explained["costs"][0]["prefill"] < 0.1
    hurried = call("/api/embed", prompt="word " * 100, headers={"X-Corral-Deadline": "1"})
    host.faults.set("hang_before_headers")
    async with stage.begun(usual, "first") as first:
        await stage.row("first", "prefill")
        async with stage.begun(hurried, "second") as second:
            await stage.row("second", "queued")
            host.faults.clear()
            assert (await second.answer()).status == 200
        assert (await first.answer()).status == 200
