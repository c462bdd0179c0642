"""Plain chats that name a session: recorded into it, and relayed as ever."""

import json
import signal
from typing import Any

import pytest

from gateway.turns import recording as module
from tests.builders import Call, call, simulated
from tests.conftest import Corral
from tests.flows.detaching import detach, read, rest_of
from tests.sockets import until
from tests.stage import Stage
from tests.store.postgres import Postgres
from tests.streams import events, text_of
from tests.turns.talking import Talk

PATHS = ("/api/chat", "/v1/chat/completions")


def with_session(request: Call, session: str) -> Call:
    """The same in a session."""
    return Call(request.path, request.body, request.headers | {"X-Corral-Session": session})


def chat(path: str, *said: str, **more: Any) -> Call:
    """A question with all that was said before."""
    roles = ("user", "assistant")
    return call(path, messages=[{"role": roles[n % 2], "content": text} for n, text in enumerate(said)], **more)


def said_by(request: Call, body: bytes) -> str:
    """What an answer says, in whatever framing."""
    if b'"stream": true' in request.body:
        return text_of(request.path, events(request.path, body))
    told = json.loads(body)
    return str((told["choices"][0] if "choices" in told else told)["message"]["content"])


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("path", PATHS)
async def test_recorded(corral: Corral, url: str, path: str, stream: bool) -> None:
    """The caller gets what they would have got; question and answer are kept. What is asked again or anew is another branch."""
    talk = await Talk.new(await corral(simulated(), database={"url": url}))
    plain = await talk.stage.ask(chat(path, "Why?", stream=stream))

    async def asked(*said: str) -> list[dict[str, Any]]:
        request = with_session(chat(path, *said, stream=stream), talk.id)
        answer = await talk.stage.ask(request)
        assert (answer.status, answer.get("Content-Type")) == (200, plain.get("Content-Type"))
        rows = await talk.free()
        assert rows[-1]["content"] == said_by(request, answer.body) != ""
        assert (rows[-1]["state"], rows[-1]["generation"]) == ("done", answer.get("X-Corral-Generation"))
        return rows

    first = await asked("Why?")
    assert [(row["seq"], row["role"], row["content"]) for row in first] == [
        (0, "user", "Why?"),
        (1, "assistant", first[1]["content"]),
    ]
    assert (first[1]["host"], first[1]["usage"]["output_tokens"]) == ("gpu1", 5)
    rows = await asked("Why?", f"{first[1]['content']} ", "And at night?")
    assert [row["seq"] for row in rows] == [0, 1, 2, 3]
    assert [row["seq"] for row in await asked("Why?")] == [0, 4]
    assert [row["seq"] for row in await asked("Why?", "Because!", "And at noon?")] == [0, 5, 6, 7]
    (record, *_) = [record for record in talk.stage.records if record.session == talk.id]
    assert not record.detached


@pytest.mark.parametrize("path", PATHS)
async def test_detached(corral: Corral, url: str, path: str) -> None:
    """What runs on without its caller is recorded too."""
    talk = await Talk.new(await corral(simulated(), database={"url": url}))
    request = chat(path, "Why?", stream=True)
    body = (await read(talk.stage, await detach(talk.stage, request, talk.id))).body
    body = b"\n".join(line for line in body.split(b"\n") if not line.startswith(b"id: "))
    assert (await talk.free())[1]["content"] == text_of(path, events(path, body)) != ""


@pytest.mark.parametrize("path", PATHS)
async def test_a_client_that_leaves(corral: Corral, url: str, path: str) -> None:
    """What there was is kept as stopped."""
    talk = await Talk.new(await corral(simulated(tokens_per_second=50.0), database={"url": url}))
    async with talk.stage.begun(chat(path, "Why?", stream=True, tokens=1000), talk.id) as client:
        await client.head()
        await client.chunk()
        await client.leave("reset")
        await talk.stage.records.of(talk.id)
    answer = (await talk.free())[-1]
    assert (answer["role"], answer["state"], bool(answer["content"])) == ("assistant", "stopped", True)


@pytest.mark.parametrize("path", PATHS)
async def test_one_that_fails(corral: Corral, url: str, path: str) -> None:
    """The caller gets what there is to say of it; so does the session."""
    host = simulated()
    talk = await Talk.new(await corral(host, database={"url": url}))
    host.faults.set("reset_mid_stream", after_chunks=3)
    await talk.stage.ask(with_session(chat(path, "Why?", stream=True), talk.id))
    rows = await talk.free()
    assert (rows[1]["state"], bool(rows[1]["content"]), bool(rows[1]["error"])) == ("error", True, True)
    nobody = await talk.stage.ask(with_session(chat(path, "Who?", model="nobody"), talk.id))
    assert nobody.status == 404
    rows = await talk.free()
    assert (rows[-1]["state"], rows[-1]["content"]) == ("error", "")
    assert "nobody" in rows[-1]["error"]


async def test_words_that_are_no_sessions(corral: Corral, url: str) -> None:
    """They stay words: nothing is kept, and nothing is logged."""
    talk = await Talk.new(await corral(simulated(), database={"url": url}))
    for word in ("talk", "0" * 24, "F" * 24):
        assert (await talk.stage.ask(with_session(chat("/api/chat", "Why?", stream=True), word))).status == 200
    for path in ("/api/generate", "/api/embed"):
        assert (await talk.stage.ask(with_session(call(path), talk.id))).status == 200
    assert (await talk.stage.ask(with_session(call("/api/chat", messages=[]), talk.id))).status == 200
    assert await talk.free() == []
    assert {record.session for record in await talk.stage.records.until(6)} == {"talk", "0" * 24, "F" * 24, talk.id}


async def test_without_a_database(corral: Corral) -> None:
    """It is relayed, and that is all."""
    stage: Stage = await corral(simulated())
    assert (await stage.ask(with_session(chat("/api/chat", "Why?"), "0" * 24))).status == 200
    await stage.gateway.talking.chats.busy.idle()


async def test_while_somebody_else_writes(corral: Corral, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is relayed at once, and recorded once the session is free."""
    monkeypatch.setattr(module, "AGAIN_SECONDS", 0.01)
    host = simulated(parallel=2)
    talk = await Talk.new(await corral(host, slots=2, database={"url": url}))
    host.faults.set("hang_mid_stream", after_chunks=3, times=1)
    async with talk.saying("first") as client:
        await client.head()
        request = with_session(chat("/api/chat", "second", stream=True), talk.id)
        answer = await talk.stage.ask(request)
        assert answer.status == 200
        host.faults.clear()
        await rest_of(client)
    rows = await talk.free()
    assert [row["content"] for row in rows[::2]] == ["first", "second"]
    assert (rows[3]["content"], rows[3]["state"]) == (said_by(request, answer.body), "done")


async def test_what_cannot_be_recorded(
    corral: Corral, url: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Roles that no session has; or nobody frees the session in time. The log says so, the caller has their answer."""
    monkeypatch.setattr(module, "AGAIN_SECONDS", 0.01)
    monkeypatch.setattr(module, "PATIENCE_SECONDS", 0.05)
    host = simulated(parallel=2)
    talk = await Talk.new(await corral(host, slots=2, database={"url": url}))
    host.faults.set("hang_mid_stream", after_chunks=3, times=1)
    async with talk.saying("first") as client:
        await client.head()
        recorder = talk.stage.gateway.talking.recorder
        assert (await talk.stage.ask(with_session(chat("/api/chat", "second"), talk.id))).status == 200
        await until(lambda: repr(recorder) == "<Recorder [0 at once]>")
        host.faults.clear()
        await rest_of(client)
    strange = call("/api/chat", messages=[{"role": "prophet", "content": "?"}])
    await talk.stage.ask(with_session(strange, talk.id))
    assert len(await talk.free()) == 2
    assert "is being answered" in caplog.text
    assert "'prophet' is not a valid Role" in caplog.text


@pytest.mark.parametrize("kind", ["postgresql"], indirect=True)
async def test_the_database_comes_back(
    corral: Corral, url: str, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was asked while it was away is recorded then."""
    monkeypatch.setattr(module, "AGAIN_SECONDS", 0.01)
    talk = await Talk.new(await corral(simulated(), database={"url": url}))
    gateway = talk.stage.gateway
    postgres.stop(signal.SIGINT)
    request = with_session(chat("/api/chat", "Why?", stream=True), talk.id)
    answer = await talk.stage.ask(request)
    assert answer.status == 200
    postgres.start()
    await until(lambda: gateway.database and gateway.database.up and not len(gateway.talking.chats.busy), 30.0)
    assert (await talk.free())[1]["content"] == said_by(request, answer.body)
