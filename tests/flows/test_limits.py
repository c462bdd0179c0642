"""Limits and budgets of keys from outside: who has had enough is told so in their dialect, and nobody else notices."""

import asyncio
import dataclasses
import json
from pathlib import Path
from typing import Any

import anthropic
import ollama
import openai
import pytest

from gateway.access.keys import digest, make
from gateway.keyconfig import KeyConfig
from tests.builders import EMBEDDING, ONE_EACH, PATHS, STREAMING, TEXT, Call, call, simulated
from tests.conftest import Corral
from tests.contract.raw import Answer, ask
from tests.sockets import until
from tests.stage import Stage
from tests.store.postgres import Postgres

ROOT, ANN, BOB = (make(lambda size, byte=byte: bytes([byte + 40]) * size) for byte in range(3))  # type: ignore[misc]
ADMIN, OTHER_KEY = KeyConfig("root", digest(ROOT), "admin"), KeyConfig("bob", digest(BOB))
MINE, THEIRS = {"x-api-key": ANN}, {"x-api-key": BOB}


def ann(**limits: Any) -> dict[str, Any]:
    """A configuration with her key, and others that are not limited."""
    return {"keys": (KeyConfig("ann", digest(ANN), **limits), OTHER_KEY, ADMIN)}


async def limited(corral: Corral, database: Path | None = None, **limits: Any) -> Stage:
    """A gateway at which ann's key has these limits."""
    url = f"sqlite:///{database}" if database else "none"
    stage = await corral(simulated(), slots=4, database={"url": url}, **ann(**limits))
    stage.key = ROOT
    return stage


async def told(stage: Stage, method: str, path: str, body: Any = None) -> Any:
    """What an admin is answered."""
    answer = await ask(stage.url, method, path, json.dumps(body).encode() if body else b"", {"x-api-key": ROOT})
    assert answer.status < 300, answer
    return json.loads(answer.body)


def error_of(path: str, answer: Answer) -> dict[str, Any]:
    """An error's parts, of any dialect."""
    body: dict[str, Any] = json.loads(answer.body)
    return {"message": body["error"]} if path.startswith("/api/") else body["error"]


@pytest.mark.parametrize("path", PATHS)
async def test_requests_a_minute(corral: Corral, path: str) -> None:
    """As many as may; then a 429 in the caller's dialect that says when to come again; others go on."""
    stage = await limited(corral, rpm=2)
    for left in (1, 0):
        answer = await stage.ask(call(path, headers=MINE))
        assert answer.status == 200
        assert answer.get("RateLimit-Policy") == '"rpm";q=2;w=60'
        assert str(answer.get("RateLimit")).startswith(f'"rpm";r={left};t=')
    answer = await stage.ask(call(path, headers=MINE))
    assert (answer.status, answer.get("X-Corral-Error")) == (429, "rate_limit_exceeded")
    assert 50 <= int(str(answer.get("Retry-After"))) <= 61
    assert str(answer.get("RateLimit")).startswith('"rpm";r=0;t=6')
    error = error_of(path, answer)
    assert "the key 'ann' may send 2 requests a minute" in error["message"]
    assert error.get("type", "rate_limit_error") == "rate_limit_error"
    assert error.get("code", "rate_limit_exceeded") == "rate_limit_exceeded"
    theirs = await stage.ask(call(path, headers=THEIRS))
    assert (theirs.status, theirs.get("RateLimit")) == (200, None)
    assert await stage.totals("corral_requests_limited_total", "limit") == {"rpm": 1}
    assert len(await stage.records.until(3)) == 3  # what is refused is no generation


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("/api/chat", ()),
        ("/v1/chat/completions", ("x-ratelimit-limit-requests", "x-ratelimit-remaining-tokens")),
        ("/v1/messages", ("anthropic-ratelimit-requests-limit", "anthropic-ratelimit-tokens-remaining")),
    ],
)
async def test_headers_that_clients_know(corral: Corral, path: str, names: tuple[str, ...]) -> None:
    """Of their own dialect, on answers and refusals; a page of another site may read them."""
    stage = await limited(corral, rpm=1, tpm=1000)
    for status in (200, 429):
        answer = await stage.ask(call(path, headers=MINE | {"Origin": "http://localhost:3000"}))
        assert answer.status == status
        said = {name.lower() for name, _ in answer.headers if "ratelimit-" in name.lower()}
        assert {name for name in said if not name.startswith("ratelimit")} >= set(names)
        assert names or said == {"ratelimit-policy"}
        assert "RateLimit" in str(answer.get("Access-Control-Expose-Headers"))


async def test_the_clients_that_people_use(corral: Corral) -> None:
    """Raise what they raise for a rate limit; what is over a budget OpenAI's and Anthropic's do not ask for again."""
    stage = await limited(corral, rpm=1, budgets=("1/month",))
    message = {"role": "user", "content": "hi"}
    budget, rate = "used up its 1 tokens of this month", "may send 1 requests a minute"
    async with (
        openai.AsyncOpenAI(base_url=f"{stage.url}/v1", api_key=ANN) as theirs,
        anthropic.AsyncAnthropic(base_url=stage.url, api_key=ANN) as others,
    ):
        await theirs.chat.completions.create(model=TEXT, messages=[message], max_tokens=3)  # type: ignore[list-item]
        await stage.records.until(1)
        with pytest.raises(openai.RateLimitError, match=budget) as refused:
            await theirs.chat.completions.create(model=TEXT, messages=[message], max_tokens=3)  # type: ignore[list-item]
        assert (refused.value.code, refused.value.type) == ("insufficient_quota", "rate_limit_error")
        with pytest.raises(anthropic.RateLimitError, match=budget):
            await others.messages.create(model=TEXT, messages=[message], max_tokens=3)  # type: ignore[list-item]
        assert await stage.totals("corral_requests_limited_total", "limit") == {"month": 2}
        stage.gateway._reconfigure(dataclasses.replace(stage.gateway.config, **ann(rpm=1)))
        with pytest.raises(openai.RateLimitError, match=rate) as limited_:
            await theirs.with_options(max_retries=0).embeddings.create(model=EMBEDDING, input="hi")
        assert limited_.value.code == "rate_limit_exceeded"
        assert limited_.value.response.headers["x-ratelimit-remaining-requests"] == "0"
    client = ollama.AsyncClient(stage.url, headers={"Authorization": f"Bearer {ANN}"})
    try:
        with pytest.raises(ollama.ResponseError, match=rate) as native:
            await client.chat(TEXT, [message])
        assert native.value.status_code == 429
    finally:
        await client._client.aclose()


async def test_tokens_a_minute(corral: Corral) -> None:
    """Counted as they stream: who comes while one is over it is refused, and the one that is over it is not cut."""
    stage = await limited(corral, tpm=50)
    async with stage.begun(call("/api/generate", tokens=3000, headers=MINE)) as client:
        await stage.until(lambda rows: next((True for row in rows if row["tokens"] > 50), None))
        refused = await stage.ask(call("/api/generate", headers=MINE))
        assert (refused.status, refused.get("X-Corral-Error")) == (429, "rate_limit_exceeded")
        assert "may use 50 tokens a minute" in refused.body.decode()
        whole = await client.answer()
    assert whole.status == 200
    (record,) = await stage.records.until(1)
    tally = stage.gateway.access.tallies.of("ann")
    assert tally.day == (1, record.usage.input_tokens, record.usage.output_tokens)
    assert record.usage.output_tokens == 3000


async def test_at_a_time(corral: Corral) -> None:
    """Those that wait count as those that run; an end makes room at once."""
    stage = await limited(corral, concurrency=2)
    stage["gpu1"].faults.set("hang_before_headers")
    async with (
        stage.begun(call("/api/chat", headers=MINE), "1") as one,
        stage.begun(call("/api/chat", headers=MINE), "2") as two,
    ):
        for session in ("1", "2"):
            await stage.row(session, "prefill")
        refused = await stage.ask(call("/api/chat", headers=MINE))
        assert (refused.status, refused.get("Retry-After")) == (429, "1")
        assert refused.get("RateLimit") == '"concurrency";r=0'
        stage["gpu1"].faults.clear()
        assert [(await client.answer()).status for client in (one, two)] == [200, 200]
    assert (await stage.ask(call("/api/chat", headers=MINE))).status == 200


async def test_a_stream_that_is_left_makes_room(corral: Corral) -> None:
    """However a generation ends, its place is free, and what it had said is counted."""
    stage = await limited(corral, concurrency=1)
    async with stage.begun(call("/api/generate", tokens=100_000, headers=MINE), "left") as client:
        await stage.until(lambda rows: next((True for row in rows if row["tokens"]), None))
        assert (await stage.ask(call("/api/generate", headers=MINE))).status == 429
        await client.leave("reset")
    (record,) = await stage.records.until(1)
    assert (await stage.ask(call("/api/generate", tokens=2, headers=MINE))).status == 200
    later = (await stage.records.until(2))[1]
    spent = stage.gateway.access.tallies.of("ann").day
    assert spent.output_tokens == record.usage.output_tokens + later.usage.output_tokens > 2


@pytest.mark.parametrize("path", STREAMING)
async def test_a_prompt_is_not_free_for_who_leaves(corral: Corral, path: str) -> None:
    """Once the answer has begun it has been read, so it counts as estimated; the record keeps to what the host told."""
    stage = await limited(corral, tpm=2000)
    asked = call(path, stream=True, tokens=100_000, prompt="word " * 3000, headers=MINE)
    async with stage.begun(asked) as client:
        await client.head()
        await client.chunk()
        await client.leave("reset")
    (record,) = await stage.records.until(1)
    assert (record.outcome, record.usage.input_tokens) == ("cancelled", 0)
    spent = stage.gateway.access.tallies.of("ann").day
    assert 3700 <= spent.input_tokens <= 3800
    assert spent.output_tokens == record.usage.output_tokens
    refused = await stage.ask(call(path, headers=MINE))
    assert (refused.status, refused.get("X-Corral-Error")) == (429, "rate_limit_exceeded")
    usage = await told(stage, "GET", "/api/usage")
    row = next(row for row in usage["keys"] if row["name"] == "ann")
    assert row["day"]["input_tokens"] == spent.input_tokens


async def test_a_prompt_that_its_host_does_not_tell(corral: Corral) -> None:
    """Counts as estimated as well: else it would be free for whoever asks for no usage. What the host tells counts as it tells it."""
    stage = await limited(corral, tpm=100_000)
    spent = []
    for more in ({}, {"stream_options": {"include_usage": True}}):
        before = stage.gateway.access.tallies.of("ann").day.input_tokens
        asked = call("/v1/chat/completions", stream=True, prompt="word " * 3000, headers=MINE, **more)  # type: ignore[arg-type]
        assert (await stage.ask(asked)).status == 200
        await stage.records.until(len(spent) + 1)
        spent.append(stage.gateway.access.tallies.of("ann").day.input_tokens - before)
    assert 3700 <= spent[0] <= 3800
    assert [record.usage.input_tokens for record in stage.records] == [0, spent[1]]
    assert spent[1] == stage["gpu1"].ledger.entries[1].prompt_tokens


async def test_a_prompt_that_nobody_read(corral: Corral) -> None:
    """Costs nothing: who leaves before the first byte, and what is refused by the host."""
    stage = await limited(corral, tpm=2000)
    stage["gpu1"].faults.set("hang_before_headers")
    async with stage.begun(call("/api/chat", prompt="word " * 3000, headers=MINE), "1") as client:
        await stage.row("1", "prefill")
        await client.leave("reset")
    await stage.records.until(1)
    stage["gpu1"].faults.clear()
    wrong = call("/api/chat", EMBEDDING, prompt="word " * 3000, headers=MINE)
    assert (await stage.ask(wrong)).status == 400
    assert stage.gateway.access.tallies.of("ann").day == (2, 0, 0)


@pytest.mark.parametrize("path", ONE_EACH)
async def test_budgets_outlive_a_restart(corral: Corral, database_file: Path, path: str) -> None:
    """What was used is used up; SDKs are told not to try again by themselves."""
    budgets = ("30/day", "100000/month")
    stage = await limited(corral, database_file, budgets=budgets)
    assert (await stage.ask(call(path, tokens=40, headers=MINE))).status == 200
    await stage.records.until(1)
    await stage.finish()
    await stage.stop()
    again = await limited(corral, database_file, budgets=budgets)
    answer = await again.ask(call(path, headers=MINE))
    assert (answer.status, answer.get("X-Corral-Error")) == (429, "insufficient_quota")
    assert answer.get("x-should-retry") == "false"
    assert 0 < int(str(answer.get("Retry-After"))) <= 86400
    assert '"day";r=0;t=' in str(answer.get("RateLimit"))
    assert "has used up its 30 tokens of this day" in error_of(path, answer)["message"]
    before = sum(record.usage.input_tokens + record.usage.output_tokens for record in stage.records)
    assert again.gateway.access.tallies.of("ann").all_month.tokens == before


async def test_what_is_not_limited(corral: Corral, database_file: Path) -> None:
    """Lists, sums, one's own sessions: whoever has had enough of models may look."""
    stage = await limited(corral, database_file, rpm=1, budgets=("1/month",))
    assert (await stage.ask(call("/api/generate", headers=MINE))).status == 200
    assert (await stage.ask(call("/api/generate", headers=MINE))).status == 429
    for path in ("/api/tags", "/v1/models", "/api/fleet", "/api/sessions", "/api/stats/summary", "/api/generations"):
        assert (await ask(stage.url, "GET", path, headers=MINE)).status == 200


async def test_sessions_count_too(corral: Corral, database_file: Path) -> None:
    """A turn is a request of whoever owns the session, refused as any other."""
    stage = await limited(corral, database_file, rpm=1)
    made = json.loads((await ask(stage.url, "POST", "/api/sessions", b'{"model":"%b"}' % TEXT.encode(), MINE)).body)
    chat = Call(f"/api/sessions/{made['id']}/chat", b'{"message":{"role":"user","content":"hi"}}', MINE)
    answers = [await stage.ask(chat), await stage.ask(chat)]
    assert [answer.status for answer in answers] == [200, 429], answers
    assert answers[1].get("X-Corral-Error") == "rate_limit_exceeded"
    assert str(answers[1].get("RateLimit")).startswith('"rpm";r=0')


async def test_limits_can_be_others_without_another_key(corral: Corral, database_file: Path) -> None:
    """By the API; from then on they count, and rotating keeps them."""
    stage = await limited(corral, database_file)
    made = await told(stage, "POST", "/api/keys", {"name": "eve", "rpm": 1, "budgets": ["9/day"], "priority": "normal"})
    assert [made["facts"][name] for name in ("rpm", "tpm", "budgets", "priority", "share")] == [
        1,
        0,
        ["9/day"],
        "normal",
        1,
    ]
    mine = {"x-api-key": made["key"]}
    assert [(await stage.ask(call("/api/generate", headers=mine))).status for _ in range(2)] == [200, 429]
    row = await told(stage, "PATCH", "/api/keys/eve", {"rpm": 3, "budgets": [], "share": 2.5})
    assert [row[name] for name in ("rpm", "budgets", "priority", "share")] == [3, [], "normal", 2.5]
    assert [(await stage.ask(call("/api/generate", headers=mine))).status for _ in range(3)] == [200, 200, 429]
    await stage.gateway.access.audit.write()
    deed = (await told(stage, "GET", "/api/audit?limit=1"))["deeds"][0]
    assert (deed["principal"], deed["operation"], deed["target"]) == ("root", "PATCH /api/keys/{name}", "eve")
    turned = await told(stage, "POST", "/api/keys/eve/rotate")
    assert turned["facts"] == row
    assert (await stage.ask(call("/api/generate", headers={"x-api-key": turned["key"]}))).status == 429
    for body in ({"rpm": -1}, {"budgets": ["9/week"]}, {"priority": "urgent"}, {"share": 0}, {"rmp": 3}):
        answer = await ask(stage.url, "PATCH", "/api/keys/eve", json.dumps(body).encode(), {"x-api-key": ROOT})
        assert answer.status == 400, body
    answer = await ask(stage.url, "PATCH", "/api/keys/ann", b"{}", {"x-api-key": ROOT})
    assert (answer.status, "those of the configuration" in answer.body.decode()) == (404, True)


async def test_no_more_urgent_than_the_key(corral: Corral) -> None:
    """A caller can be less urgent than the key lets them be, not more; shares go by key."""
    stage = await limited(corral, priority="normal", share=3.0)
    for said, is_ in (("interactive", "normal"), ("normal", "normal"), ("background", "background"), ("", "normal")):
        body = call("/api/chat").body
        headers = MINE | ({"X-Corral-Priority": said} if said else {})
        explained = json.loads((await ask(stage.url, "POST", "/api/route/explain", body, headers)).body)
        assert explained["request"]["priority"] == is_


async def test_what_is_refused_is_in_the_log(corral: Corral, tmp_path: Path) -> None:
    """Of requests each, with its code; of the gateway whose key it is, once a minute."""
    stage = await corral(simulated(), log={"path": str(tmp_path / "corral0.log"), "access": True}, **ann(rpm=1))
    stage.key = ROOT
    for status in (200, 429, 429):
        assert (await stage.ask(call("/v1/messages", headers=MINE))).status == status
    await stage.finish()
    await stage.stop()
    lines = [json.loads(line) for line in stage.log.read_text(encoding="utf-8").splitlines()]
    refused = [line for line in lines if line.get("status") == 429]
    assert [(line["route"], line["error"]) for line in refused] == [("/v1/messages", "rate_limit_exceeded")] * 2
    told = [line["message"] for line in lines if "at its limit" in line.get("message", "")]
    assert told == ["the key 'ann' is at its limit (rpm): it is refused, which is said once a minute"]


async def test_a_burst_at_once(corral: Corral) -> None:
    """Nobody slips in between: of many at the same time as many are let in as may."""
    stage = await limited(corral, rpm=7)
    answers = await asyncio.gather(*(stage.ask(call("/api/generate", headers=MINE)) for _ in range(20)))
    assert sorted(answer.status for answer in answers) == [200] * 7 + [429] * 13


async def test_two_gateways_on_one_database(corral: Corral, postgres: Postgres, migrated_name: str) -> None:
    """Each knows of the other's within a second: what was let in there counts here, what runs there runs, what was used up is used up."""
    postgres.drop()
    database = {"url": postgres.create(migrated_name), "replicas": 2}
    limits = ann(rpm=6, concurrency=2, budgets=("1000000/month",))
    host = simulated()
    one, two = [await corral(host, slots=4, database=database, **limits) for _ in range(2)]
    for stage in (one, two):
        stage.key = ROOT
    hers = two.gateway.access.tallies.of("ann")
    host.faults.set("hang_before_headers")
    async with (
        one.begun(call("/api/chat", headers=MINE), "1") as a,
        one.begun(call("/api/chat", headers=MINE), "2") as b,
    ):
        for session in ("1", "2"):
            await one.row(session, "prefill")
        await until(lambda: hers.all_running == 2, 10.0)
        refused = await two.ask(call("/api/chat", headers=MINE))
        assert (refused.status, "under way at a time" in refused.body.decode()) == (429, True)
        host.faults.clear()
        assert [(await client.answer()).status for client in (a, b)] == [200, 200]
    await until(lambda: hers.all_running == 0, 10.0)
    for _ in range(4):
        assert (await one.ask(call("/api/generate", headers=MINE))).status == 200
    await until(lambda: hers.minute_requests.elsewhere == 6, 10.0)
    assert (await two.ask(call("/api/generate", headers=MINE))).status == 429
    assert (await two.ask(call("/api/generate", headers=THEIRS))).status == 200
    used = sum(record.usage.input_tokens + record.usage.output_tokens for record in await one.records.until(6))
    await until(lambda: hers.all_month.tokens == used, 10.0)


async def test_a_burst_at_two_gateways(corral: Corral, postgres: Postgres, migrated_name: str) -> None:
    """The slack: until they have told each other, each lets in as many as may, and no more; from then on nobody lets in any."""
    postgres.drop()
    database = {"url": postgres.create(migrated_name), "replicas": 2}
    host = simulated()
    stages = [await corral(host, slots=4, database=database, **ann(rpm=5)) for _ in range(2)]
    tallies = []
    for stage in stages:
        stage.key = ROOT
        tallies.append(stage.gateway.access.tallies.of("ann"))
    let_in = 0
    for stage in stages:
        answers = await asyncio.gather(*(stage.ask(call("/api/generate", headers=MINE)) for _ in range(8)))
        let_in += sum(answer.status == 200 for answer in answers)
    assert 5 <= let_in <= 10
    await until(
        lambda: all(tally.minute_requests.here + tally.minute_requests.elsewhere == let_in for tally in tallies), 10.0
    )
    for stage in stages:
        assert (await stage.ask(call("/api/generate", headers=MINE))).status == 429


async def test_usage(corral: Corral, database_file: Path) -> None:
    """What was used, what is left and when it is there again; one's own, or everybody's for operators."""
    limits = {"rpm": 10, "tpm": 5000, "concurrency": 3, "budgets": ("20000/day", "90000/month"), "priority": "normal"}
    stage = await limited(corral, database_file, **limits)
    for headers in (MINE, MINE, THEIRS):
        assert (await stage.ask(call("/api/generate", tokens=7, headers=headers))).status == 200
    records = await stage.records.until(3)
    spent = sum(record.usage.input_tokens + record.usage.output_tokens for record in records[:2])
    everybody = await told(stage, "GET", "/api/usage")
    assert [row["name"] for row in everybody["keys"]] == ["ann", "bob", "root"]
    row = everybody["keys"][0]
    mine = json.loads((await ask(stage.url, "GET", "/api/usage", headers=MINE)).body)["keys"]
    assert [{**one, "limits": []} for one in mine] == [{**row, "limits": []}]
    assert (row["role"], row["priority"], row["share"], row["running"]) == ("user", "normal", 1, 0)
    assert (row["minute_requests"], row["minute_tokens"]) == (2, spent)
    prompts = sum(record.usage.input_tokens for record in records[:2])
    assert row["day"] == row["month"] == {"requests": 2, "input_tokens": prompts, "output_tokens": 14}
    left = {one["limit"]: (one["quota"], one["used"], one["left"]) for one in row["limits"]}
    assert left == {
        "month": (90000, spent, 90000 - spent),
        "day": (20000, spent, 20000 - spent),
        "tpm": (5000, spent, 5000 - spent),
        "rpm": (10, 2, 8),
        "concurrency": (3, 0, 3),
    }
    renews = {one["limit"]: one["renews_at"] for one in row["limits"]}
    assert renews.pop("concurrency") is None
    assert list(renews.values()) == sorted(renews.values(), reverse=True)
    assert renews["day"].endswith("T00:00:00+00:00")
    assert everybody["keys"][1]["limits"] == []


async def test_sums_by_key(corral: Corral, database_file: Path) -> None:
    """Everybody's for operators, one's own for others; over time as well."""
    stage = await limited(corral, database_file)
    for headers in (MINE, MINE, THEIRS):
        await stage.ask(call("/api/generate", tokens=7, headers=headers))
    await stage.records.until(3)
    keeper = stage.gateway.keeper
    assert keeper is not None
    await until(lambda: keeper.records.depth == 0)
    rows = (await told(stage, "GET", "/api/stats/principals"))["principals"]
    assert [(row["principal"], row["requests"], row["output_tokens"]) for row in rows] == [
        ("ann", 2, 14),
        ("bob", 1, 7),
    ]
    mine = json.loads((await ask(stage.url, "GET", "/api/stats/principals", headers=MINE)).body)["principals"]
    assert mine == rows[:1]
    parts = (await told(stage, "GET", "/api/stats/breakdown?by=principal&range=1h"))["parts"]
    assert [(part["name"], sum(part["requests"])) for part in parts] == [("ann", 2), ("bob", 1)]
