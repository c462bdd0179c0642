"""What was, as anybody asks for it: sums and single requests, after real ones; and every question that cannot be answered."""

import json
from pathlib import Path
from typing import Any, get_args

import pytest

from gateway.api.requests import Ended
from gateway.record import Outcome
from gateway.store.history import FAILED
from tests.builders import OTHER, TEXT, call, simulated
from tests.conftest import Corral
from tests.contract.raw import ask
from tests.flows.detaching import detach
from tests.sockets import until
from tests.stage import Stage


@pytest.fixture
async def stage(corral: Corral, file_url: str) -> Stage:
    """Three answers of one model, one of another, and one that nobody could give; all written down."""
    made = await corral(simulated(), database={"url": file_url})
    for model in (TEXT, TEXT, TEXT, OTHER, "made-up"):
        await made.ask(call("/api/chat", model, tokens=3, headers={"X-Corral-Session": model}))
    await made.records.until(5)
    await until(lambda: made.gateway.keeper and made.gateway.keeper.records.depth == 0)
    return made


async def test_summary(stage: Stage) -> None:
    """Everything, and of one model; names as people write them."""
    got = await stage.get("/api/stats/summary")
    assert (got["requests"], got["outcomes"]) == (5, {"client_error": 1, "ok": 4})
    assert (got["output_tokens"], got["attempts"], got["ttft"]["count"], got["duration"]["count"]) == (12, 4, 4, 4)
    assert got["duration"]["p50"] > 0
    assert got["duration"]["p99"] is None
    assert got["since"] < got["until"]
    assert (await stage.get(f"/api/stats/summary?range=1h&model={TEXT.upper()}&host=gpu1"))["requests"] == 3
    nothing = await stage.get("/api/stats/summary?host=%00%ff&principal=x")
    assert (nothing["requests"], nothing["tokens_per_second"], nothing["ttft"]["p50"]) == (0, None, None)


async def test_a_request_that_just_ended(stage: Stage) -> None:
    """It is told at once, as it is told once it is written."""
    await stage.ask(call("/api/chat", TEXT, tokens=3))
    record = (await stage.records.until(6))[-1]
    told = await stage.get(f"/api/requests/{record.id}")
    assert (told["id"], told["output_tokens"]) == (record.id, 3)
    await until(lambda: stage.gateway.keeper and stage.gateway.keeper.records.depth == 0)
    assert await stage.get(f"/api/requests/{told['id']}") == told


async def test_first_tokens(stage: Stage) -> None:
    """Are those of streams that had one, for the sums as for the metrics: not an error of the host's, and not a mere load."""
    refused = await stage.ask(call("/api/chat", TEXT, think=True))
    loaded = await stage.ask(call("/api/generate", TEXT, prompt="", stream=True))
    assert (refused.status, loaded.status) == (400, 200)
    records = await stage.records.until(7)
    assert (records[5].attempts[0].outcome, records[5].ttft_seconds) == ("http_4xx", None)
    await until(lambda: stage.gateway.keeper and stage.gateway.keeper.records.depth == 0)
    counted = await stage.totals("corral_time_to_first_token_seconds_count", "host")
    assert (await stage.get("/api/stats/summary"))["ttft"]["count"] == counted["gpu1"] == 4


async def test_the_names_of_a_request(stage: Stage) -> None:
    """Are told with it, in memory and out of the database; where the caller gave none it is the generation's id, and nobody traced."""
    trace = "0af7651916cd43dd8448eb211c80319c"
    named = {"X-Request-Id": "mine", "traceparent": f"00-{trace}-b7ad6b7169203331-01"}
    for headers in ({}, named):
        await stage.ask(call("/api/chat", TEXT, tokens=3, headers=headers))
    unnamed, record = (await stage.records.until(7))[-2:]
    await until(lambda: stage.gateway.keeper and stage.gateway.keeper.records.depth == 0)
    stage.gateway.generations._past.clear()
    for path in ("requests", "generations"):
        told = await stage.get(f"/api/{path}/{record.id}")
        assert (told["request_id"], told["trace_id"]) == ("mine", trace)
        told = await stage.get(f"/api/{path}/{unnamed.id}")
        assert (told["request_id"], told["trace_id"]) == (unnamed.id, "")
    assert (await stage.get(f"/api/requests/{record.id}"))["detail"] is None


async def test_models_hosts_errors(stage: Stage) -> None:
    """The busiest first."""
    models = (await stage.get("/api/stats/models"))["models"]
    assert sorted((row["model"], row["requests"]) for row in models) == sorted([(TEXT, 3), (OTHER, 1), ("_unknown", 1)])
    assert models[0]["model"] == TEXT
    hosts = (await stage.get("/api/stats/hosts?range=1h"))["hosts"]
    assert [(row["host"], row["requests"]) for row in hosts] == [("gpu1", 4), (None, 1)]
    assert (await stage.get("/api/stats/errors"))["errors"] == [
        {"outcome": "client_error", "model": "_unknown", "host": None, "requests": 1, "output_tokens": 0}
    ]


async def test_outcomes_alone(stage: Stage) -> None:
    """Every question can be about one outcome, or all that failed."""
    for path, rows in (("models", "models"), ("hosts", "hosts"), ("pairs", "pairs"), ("timeseries", "points")):
        for outcome, count in (("ok", 4), ("failed", 1), ("timeout", 0)):
            told = await stage.get(f"/api/stats/{path}?outcome={outcome}&range=1h")
            assert sum(row["requests"] for row in told[rows]) == count, (path, outcome)
    assert (await stage.get("/api/stats/summary?outcome=client_error"))["outcomes"] == {"client_error": 1}
    assert (await stage.get("/api/stats/errors?outcome=ok"))["errors"] == []
    assert [part["name"] for part in (await stage.get("/api/stats/breakdown?outcome=failed"))["parts"]] == ["_unknown"]


async def test_pairs(stage: Stage) -> None:
    """A row for each model on each host; null where none was reached."""
    pairs = (await stage.get("/api/stats/pairs"))["pairs"]
    assert [(row["model"], row["host"], row["requests"]) for row in pairs] == [
        (TEXT, "gpu1", 3),
        ("_unknown", None, 1),
        (OTHER, "gpu1", 1),
    ]
    assert pairs[0]["tokens_per_second"] > 0
    assert pairs[0]["output_tokens"] == 9


async def test_breakdown(stage: Stage) -> None:
    """As many numbers as points, the busiest first, what is left in one."""
    whole = await stage.get("/api/stats/breakdown?range=1h&step=5m")
    assert [(part["name"], sum(part["requests"]), sum(part["output_tokens"])) for part in whole["parts"]] == [
        (TEXT, 3, 9),
        (OTHER, 1, 3),
        ("_unknown", 1, 0),
    ]
    assert {len(part["input_tokens"]) for part in whole["parts"]} == {len(whole["at"])}
    assert (whole["step_seconds"], len(whole["at"]) in (12, 13), whole["at"][0]) == (300, True, whole["since"])
    few = (await stage.get("/api/stats/breakdown?range=1h&parts=1"))["parts"]
    assert [(part["name"], part["rest"], sum(part["requests"])) for part in few] == [(TEXT, False, 3), ("", True, 2)]
    hosts = (await stage.get("/api/stats/breakdown?by=host&range=7d"))["parts"]
    assert [(part["name"], sum(part["requests"])) for part in hosts] == [("gpu1", 4), (None, 1)]


async def test_timeseries(stage: Stage) -> None:
    """Every step has a point, those with nothing in them as well."""
    got = await stage.get("/api/stats/timeseries?range=1h")
    assert got["step_seconds"] == 60
    assert len(got["points"]) in (60, 61)
    assert sum(point["requests"] for point in got["points"]) == 5
    assert (got["points"][0]["at"], got["points"][0]["requests"]) == (got["since"], 0)
    assert len((await stage.get("/api/stats/timeseries?range=7d&step=1h"))["points"]) in (168, 169)


async def test_requests(stage: Stage) -> None:
    """Page by page, filtered, and one alone."""
    got = await stage.get("/api/requests")
    assert [row["id"] for row in got["requests"]] == [record.id for record in reversed(stage.records)]
    assert got["next"] is None
    first, record = got["requests"][-1], stage.records[0]
    assert first == await stage.get(f"/api/requests/{record.id}")
    same = (
        "model",
        "host",
        "outcome",
        "session",
        "client",
        "endpoint",
        "status",
        "chunks",
        "bytes_out",
        "stream",
        "detached",
        "priority",
    )
    assert {name: first[name] for name in same} == {name: getattr(record, name) for name in same}
    assert first["duration_seconds"] == pytest.approx(record.duration_seconds, abs=1e-5)
    assert first["detail"] is None
    assert got["requests"][0]["detail"]["attempts"] == []
    pages: list[Any] = []
    following: str | None = ""
    while following is not None:
        got = await stage.get(f"/api/requests?limit=2{f'&before={following}' if following else ''}")
        pages.append([row["id"] for row in got["requests"]])
        following = got["next"]
    assert [len(page) for page in pages] == [2, 2, 1]
    assert [id_ for page in pages for id_ in page] == [record.id for record in reversed(stage.records)]
    failed = (await stage.get("/api/requests?outcome=failed&range=1h"))["requests"]
    assert [row["requested_model"] for row in failed] == ["made-up"]
    assert len((await stage.get(f"/api/requests?session={OTHER}&model={OTHER}&outcome=ok"))["requests"]) == 1
    counts = [len((await stage.get(f"/api/requests?priority={said}"))["requests"]) for said in ("normal", "background")]
    assert counts == [5, 0]


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("/api/stats/summary?range=1y", 400, "must be of the form"),
        ("/api/stats/summary?modle=x", 400, "unknown parameter 'modle'; did you mean 'model'?"),
        ("/api/stats/summary?step=1m", 400, "unknown parameter 'step'"),
        ("/api/stats/timeseries?range=30d&step=1m", 400, "kept for 14 days"),
        ("/api/stats/breakdown?parts=51", 400, "parts must be at most 50"),
        ("/api/stats/breakdown?by=client", 400, "by"),
        ("/api/stats/pairs?outcome=fine", 400, "outcome"),
        ("/api/stats/pairs?step=1m", 400, "unknown parameter 'step'"),
        ("/api/stats/timeseries?step=1h&from=1", 400, "points"),
        ("/api/stats/models?from=yesterday", 400, "2026-11-22T14:00:00Z"),
        ("/api/requests?limit=501", 400, "limit must be at most 500"),
        ("/api/requests?limit=-1", 400, "limit must be at least 1"),
        ("/api/requests?before=x", 400, "must be of the form"),
        ("/api/requests?before=1-%00", 400, "must be of the form"),
        ("/api/requests?outcome=bad", 400, "outcome cannot be 'bad'"),
        ("/api/requests?priority=urgent", 400, "priority cannot be 'urgent'"),
        ("/api/requests/0123456789abcdef01234567", 404, "no request '0123"),
        ("/api/requests/%00", 404, "no request"),
    ],
)
async def test_questions_that_cannot_be_answered(stage: Stage, path: str, status: int, words: str) -> None:
    """In Ollama's shape, with what would have been right."""
    answer = await ask(stage.url, "GET", path)
    assert answer.status == status
    assert words in json.loads(answer.body)["error"]


def test_every_outcome_can_be_asked_for() -> None:
    """And all but ok together."""
    assert set(get_args(Ended)) == {FAILED, *Outcome}


async def test_what_ran_detached(stage: Stage) -> None:
    """Says so where it is listed."""
    id_ = await detach(stage, call("/api/chat", tokens=1))
    await stage.records.until(6)
    await until(lambda: stage.gateway.keeper and not stage.gateway.keeper.records.depth)
    rows = (await stage.get("/api/requests"))["requests"]
    assert [row["id"] for row in rows if row["detached"]] == [id_]


async def test_nothing_is_kept(corral: Corral) -> None:
    """Where there is no database there is no past."""
    stage = await corral(simulated())
    for path in (
        "/api/stats/summary",
        "/api/stats/timeseries",
        "/api/stats/breakdown",
        "/api/requests",
        "/api/requests/1",
    ):
        answer = await ask(stage.url, "GET", path)
        assert (answer.status, "nothing is kept" in json.loads(answer.body)["error"]) == (404, True)


async def test_the_database_is_away(corral: Corral, tmp_path: Path) -> None:
    """A 503 that says when to ask again."""
    (tmp_path / "file").write_text("where a folder should be")
    stage = await corral(simulated(), database={"url": f"sqlite:///{tmp_path}/file/corral.db"})
    for path in ("/api/stats/hosts", "/api/stats/pairs", "/api/requests"):
        answer = await ask(stage.url, "GET", path)
        assert answer.status == 503
        assert answer.all("Retry-After") == ["2"]
