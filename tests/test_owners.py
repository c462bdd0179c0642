"""Whose it is: sessions and answers are their owner's alone; that something runs or ran, operators know too."""

import asyncio
import json
from typing import Any

import pytest

from gateway.access.keys import digest, make
from gateway.keyconfig import KeyConfig
from tests.builders import OTHER, TEXT, Call, call, simulated
from tests.conftest import Corral
from tests.contract.raw import Answer, ask
from tests.stage import Stage

ANN, BOB, OP, ROOT, SOME = (make(lambda size, byte=byte: bytes([byte]) * size) for byte in range(5))  # type: ignore[misc]
KEYS = (
    KeyConfig("ann", digest(ANN)),
    KeyConfig("bob", digest(BOB)),
    KeyConfig("op", digest(OP), "operator"),
    KeyConfig("root", digest(ROOT), "admin"),
    KeyConfig("some", digest(SOME), models=("smollm2:*",), hosts=("gpu1",)),
)
OTHERS = (BOB, OP, ROOT, "")


async def staged(corral: Corral, file_url: str, **sections: Any) -> Stage:
    """A gateway where everybody has a key, but for those who have none and may infer."""
    database = {"url": file_url}
    stage = await corral(
        simulated(), keys=KEYS, access={"anonymous": "inference"}, database=database, slots=4, **sections
    )
    stage.key = OP
    return stage


def auth(key: str) -> dict[str, str]:
    """The header that has it."""
    return {"Authorization": f"Bearer {key}"} if key else {}


async def by(stage: Stage, key: str, method: str, path: str, body: Any = None) -> Answer:
    """What the holder of a key is answered."""
    return await ask(stage.url, method, path, b"" if body is None else json.dumps(body).encode(), auth(key))


async def told(stage: Stage, key: str, path: str) -> Any:
    """The same, of a GET that goes well."""
    answer = await by(stage, key, "GET", path)
    assert answer.status == 200, answer
    return json.loads(answer.body)


async def test_sessions(corral: Corral, file_url: str) -> None:
    """To others they are not there: not to read, not to change, not to find, not to write into."""
    stage = await staged(corral, file_url)
    made = await by(stage, ANN, "POST", "/api/sessions", {"title": "aardvarks", "model": TEXT})
    path = f"/api/sessions/{json.loads(made.body)['id']}"
    said = {"message": {"content": "Why are aardvarks?"}, "stream": False, "options": {"num_predict": 3}}
    assert (await by(stage, ANN, "POST", f"{path}/chat", said)).status == 200
    for key in OTHERS:
        missing = 404 if key else 401
        for method, part, body in (
            ("GET", "", None),
            ("PATCH", "", {"title": "mine"}),
            ("DELETE", "", None),
            ("POST", "/restore", None),
            ("POST", "/cancel", None),
            ("GET", "/messages", None),
            ("POST", "/messages", {"content": "hello"}),
            ("GET", "/branches", None),
            ("GET", "/export", None),
            ("GET", "/export.md", None),
            ("POST", "/chat", said),
            ("POST", "/title", {}),
        ):
            assert (await by(stage, key, method, path + part, body)).status == missing, (key, method, part)
        wish = {"session": path.rpartition("/")[2], "topic": "hello", "participants": [{"model": TEXT}] * 2}
        assert (await by(stage, key, "POST", "/api/chat/multi-model", wish)).status == missing
        if key:
            assert (await told(stage, key, "/api/sessions"))["sessions"] == []
            found = await told(stage, key, "/api/search?q=aardvarks")
            assert (found["sessions"], found["messages"]) == ([], [])
    assert [one["title"] for one in (await told(stage, ANN, "/api/sessions"))["sessions"]] == ["aardvarks"]
    assert len((await told(stage, ANN, "/api/search?q=aardvarks"))["messages"]) == 1
    assert len((await told(stage, ANN, f"{path}/messages"))["messages"]) == 2


async def test_plain_chats_are_recorded_for_their_owner(corral: Corral, file_url: str) -> None:
    """Who names somebody else's session says a mere word."""
    stage = await staged(corral, file_url)
    id_ = json.loads((await by(stage, ANN, "POST", "/api/sessions", {})).body)["id"]
    for key in (BOB, "", ANN):
        answer = await stage.ask(call("/api/chat", headers=auth(key) | {"X-Corral-Session": id_}, prompt=f"by {key}"))
        assert answer.status == 200
    async with asyncio.timeout(10.0):
        while len(kept := (await told(stage, ANN, f"/api/sessions/{id_}/messages"))["messages"]) < 2:
            pass
    assert kept[0]["content"] == f"by {ANN}"


async def test_what_is_in_flight(corral: Corral, file_url: str) -> None:
    """Its owner sees and stops it, operators and admins do; to others it is not there, by its id or by its session's word."""
    stage = await staged(corral, file_url)
    stage["gpu1"].faults.set("hang_mid_stream", after_chunks=2)
    async with stage.begun(call("/api/chat", headers=auth(ANN), stream=True), "work") as client:
        row = await stage.row("work", "streaming")
        path = f"/api/generations/{row['id']}"
        assert row["principal"] == "ann"
        for key, seen in ((ANN, 1), (BOB, 0), (ROOT, 1)):
            assert len((await told(stage, key, "/api/generations"))["generations"]) == seen
            assert (await by(stage, key, "GET", path)).status == (200 if seen else 404)
        for key in (BOB, ""):
            for method, where in (
                ("DELETE", path),
                ("POST", f"/api/chat/cancel/{row['id']}"),
                ("POST", "/api/chat/cancel/work"),
                ("GET", path),
                ("GET", f"{path}/stream"),
            ):
                assert (await by(stage, key, method, where)).status == 404, (method, where)
        assert len(stage.gateway.generations) == 1
        assert (await by(stage, ANN, "POST", "/api/chat/cancel/work")).status == 200
        await client.answer()
    async with stage.begun(call("/api/chat", headers=auth(ANN), stream=True), "more") as client:
        row = await stage.row("more", "streaming")
        assert (await by(stage, OP, "DELETE", f"/api/generations/{row['id']}")).status == 200
        await client.answer()


async def test_words_of_callers_without_a_key(corral: Corral, file_url: str) -> None:
    """Anybody can say them: they stop nothing. An id does, which nobody else was told."""
    stage = await staged(corral, file_url)
    stage["gpu1"].faults.set("hang_mid_stream", after_chunks=2)
    async with stage.begun(call("/api/chat", stream=True), "work") as client:
        row = await stage.row("work", "streaming")
        for method, path in (("POST", "/api/chat/cancel/work"), ("DELETE", "/api/generations/work")):
            assert (await by(stage, "", method, path)).status == 404
        assert len(stage.gateway.generations) == 1
        assert (await by(stage, "", "POST", f"/api/chat/cancel/{row['id']}")).status == 200
        await client.answer()


async def test_detached_answers(corral: Corral, file_url: str) -> None:
    """Read by their owner alone, whatever another one's role; that they are there operators know."""
    stage = await staged(corral, file_url)
    for key, others in ((ANN, OTHERS), ("", (ANN, OP))):
        request = call("/api/chat", headers=auth(key))
        begun = await stage.ask(Call(f"{request.path}?detach=true", request.body, request.headers))
        stream = json.loads(begun.body)["stream"]
        read = await by(stage, key, "GET", stream)
        assert (read.status, b'"done":true' in read.body) == (200, True)
        assert [(await by(stage, other, "GET", stream)).status for other in others] == [404] * len(others)
    assert len((await told(stage, OP, "/api/generations?kept=true"))["generations"]) == 2
    assert len((await told(stage, ANN, "/api/generations?kept=true"))["generations"]) == 1
    assert (await told(stage, BOB, "/api/generations?kept=true"))["generations"] == []


async def test_conversations(corral: Corral, file_url: str) -> None:
    """Their events are for who began them; turns count as theirs."""
    stage = await staged(corral, file_url)
    one = {"model": TEXT, "options": {"num_predict": 2}}
    wish = {"participants": [one, one], "topic": "Is cheese a dessert?", "turns": 2, "detach": True}
    stream = json.loads((await by(stage, ANN, "POST", "/api/chat/multi-model", wish)).body)["stream"]
    assert [(await by(stage, other, "GET", stream)).status for other in OTHERS] == [404] * len(OTHERS)
    assert b'"event":"end"' in (await by(stage, ANN, "GET", stream)).body
    assert len((await told(stage, ANN, "/api/generations?kept=true"))["conversations"]) == 1
    assert (await told(stage, BOB, "/api/generations?kept=true"))["conversations"] == []
    assert {record.principal for record in await stage.records.until(2)} == {"ann"}


async def test_what_was(corral: Corral, file_url: str) -> None:
    """Users see their own requests and sums, operators and admins all; nobody is told of others by asking for them by name."""
    stage = await staged(corral, file_url)
    for key in (ANN, ANN, BOB, ""):
        assert (await stage.ask(call("/api/generate", headers=auth(key)))).status == 200
    records = await stage.records.until(4)
    async with asyncio.timeout(10.0):
        while len((await told(stage, OP, "/api/requests"))["requests"]) < 4:
            pass
    for key, count in ((ANN, 2), (BOB, 1), (OP, 4), (ROOT, 4)):
        assert len((await told(stage, key, "/api/requests"))["requests"]) == count
        for path in ("summary", "models", "hosts", "pairs"):
            numbers = await told(stage, key, f"/api/stats/{path}")
            rows = [numbers] if path == "summary" else numbers[path]
            assert sum(row["requests"] for row in rows) == count, path
        series = await told(stage, key, "/api/stats/timeseries")
        assert sum(point["requests"] for point in series["points"]) == count
        parts = (await told(stage, key, "/api/stats/breakdown"))["parts"]
        assert sum(sum(part["requests"]) for part in parts) == count
    assert len((await told(stage, OP, "/api/requests?principal=ann"))["requests"]) == 2
    assert len((await told(stage, ANN, "/api/requests?principal=ann"))["requests"]) == 2
    for path in ("requests", "stats/summary", "stats/errors", "stats/breakdown"):
        asked = await by(stage, BOB, "GET", f"/api/{path}?principal=ann")
        assert (asked.status, asked.get("X-Corral-Error")) == (403, "not_allowed")
    theirs = next(record.id for record in records if record.principal == "ann")
    for key, status in ((ANN, 200), (BOB, 404), (OP, 200), ("", 401)):
        assert (await by(stage, key, "GET", f"/api/requests/{theirs}")).status == status
        assert (await by(stage, key, "GET", f"/api/generations/{theirs}")).status == (status if key else 404)


async def test_who_waits(corral: Corral) -> None:
    """Users see their own in the queue, operators all."""
    stage = await corral(simulated(), keys=KEYS)
    stage.key = OP
    stage["gpu1"].faults.set("hang_mid_stream", after_chunks=1, times=1)
    async with stage.begun(call("/api/chat", headers=auth(ANN), stream=True), "first") as first:
        row = await stage.row("first", "streaming")
        async with stage.begun(call("/api/chat", headers=auth(BOB), stream=True), "second") as second:
            await stage.row("second", "queued")
            for key, count in ((ANN, 0), (BOB, 1), (OP, 1)):
                told_ = await told(stage, key, "/api/queue")
                assert (len(told_["waiting"]), len(told_["models"])) == (count, count)
            assert (await by(stage, "", "GET", "/api/queue")).status == 401
            assert (await by(stage, ANN, "DELETE", f"/api/generations/{row['id']}")).status == 200
            await second.answer()
        await first.answer()


async def test_a_limited_key_is_limited_in_sessions_too(corral: Corral, file_url: str) -> None:
    """By its models and its hosts: in turns, titles, conversations and when asked where a request would go."""
    stage = await staged(corral, file_url)
    path = f"/api/sessions/{json.loads((await by(stage, SOME, 'POST', '/api/sessions', {})).body)['id']}"
    said = {"message": {"content": "hello"}, "stream": False, "options": {"num_predict": 2}}
    assert (await by(stage, SOME, "POST", f"{path}/chat", said | {"model": TEXT})).status == 200
    for where, body in (
        (f"{path}/chat", said | {"model": OTHER}),
        (f"{path}/title", {"model": OTHER}),
        ("/api/route/explain", {"model": OTHER, "prompt": "hello"}),
    ):
        refused = await by(stage, SOME, "POST", where, body)
        assert (refused.status, refused.get("X-Corral-Error")) == (403, "not_allowed"), where
    wish = {"participants": [{"model": OTHER}, {"model": OTHER}], "topic": "hello", "stream": False}
    talked = json.loads((await by(stage, SOME, "POST", "/api/chat/multi-model", wish)).body)
    assert talked["end"]["reason"] == "error"
    assert "not good for the model" in talked["end"]["error"]


async def test_a_key_that_is_revoked_begins_nothing_more(corral: Corral, file_url: str) -> None:
    """What runs on its behalf goes on; no turn follows."""
    stage = await staged(corral, file_url)
    new = json.loads((await by(stage, ROOT, "POST", "/api/keys", {"name": "new"})).body)["key"]
    one = {"model": TEXT, "options": {"num_predict": 2}}
    wish = {"participants": [one, one], "topic": "hello", "turns": 8, "detach": True}
    stage["gpu1"].faults.set("hang_mid_stream", after_chunks=1, times=1)
    begun = json.loads((await by(stage, new, "POST", "/api/chat/multi-model", wish)).body)
    rows = await stage.until(lambda rows: [row for row in rows if row["phase"] == "streaming"])
    assert (await by(stage, ROOT, "DELETE", "/api/keys/new")).status == 200
    assert (await by(stage, OP, "DELETE", f"/api/generations/{rows[0]['id']}")).status == 200
    async with asyncio.timeout(10.0):
        while (await told(stage, OP, "/api/generations"))["conversations"]:
            pass
    assert len(await stage.records.until(1)) == 1
    assert begun["id"]


@pytest.mark.parametrize("key", [ANN, ""])
async def test_where_nobody_needs_a_key_nothing_is_anybodys(corral: Corral, file_url: str, key: str) -> None:
    """What was kept on loopback before there were keys is there again where `access.anonymous` is full; with or without a key that means nothing."""
    database = {"url": file_url}
    stage = await corral(simulated(), database=database)
    assert (await by(stage, "", "POST", "/api/sessions", {"title": "old"})).status == 201
    assert len((await told(stage, key, "/api/sessions"))["sessions"]) == 1
