"""Turns over real sockets, on both kinds of database: what callers get, and what is kept however it ends."""

import asyncio
import json
from collections.abc import Awaitable, Callable

import pytest

from gateway.messages import Ending, MessageState, NewMessage
from simulator.host import SimulatedHost
from tests.builders import TEXT, simulated
from tests.conftest import Corral
from tests.flows.detaching import read, rest_of
from tests.scripted import Asked, ScriptedHost
from tests.sockets import until
from tests.stage import Client
from tests.turns.talking import Talk, text_of

LONG = {"options": {"num_predict": 1000}}


async def talking(corral: Corral, url: str, host: SimulatedHost | None = None, **session: object) -> Talk:
    """A session at a gateway with one host, gpu1."""
    return await Talk.new(await corral(host or simulated(), database={"url": url}), **session)


async def test_a_turn(corral: Corral, url: str) -> None:
    """The caller gets what Ollama would say; question and answer are kept, with all that is known of them."""
    talk = await talking(corral, url, system="Be short.", options={"seed": 1})
    answer = await talk.say("Why is the sky blue?", options={"num_predict": 5})
    assert (answer.status, answer.get("Content-Type")) == (200, "application/x-ndjson")
    lines = [json.loads(line) for line in answer.body.splitlines()]
    assert (lines[-1]["done"], lines[-1]["done_reason"]) == (True, "length")
    question, kept = await talk.free()
    assert (question["role"], question["content"], question["state"]) == ("user", "Why is the sky blue?", "done")
    assert (kept["seq"], kept["parent"], kept["role"], kept["state"]) == (1, 0, "assistant", "done")
    assert (kept["model"], kept["host"], kept["error"]) == (TEXT, "gpu1", None)
    assert kept["content"] == text_of(answer.body) != ""
    assert kept["generation"] == answer.get("X-Corral-Generation")
    assert answer.get("X-Corral-Message") == "1"
    assert kept["usage"] == {"input_tokens": lines[-1]["prompt_eval_count"], "output_tokens": 5}
    assert kept["timings"]["total_seconds"] > 0
    (record,) = await talk.stage.records.until(1)
    assert (record.session, record.detached, record.endpoint, record.client) == (
        talk.id,
        True,
        "/api/chat",
        "127.0.0.1",
    )
    assert answer.all("X-Request-Id") == [record.request_id] != [""]


async def test_at_once(corral: Corral, url: str) -> None:
    """Without a stream it is one object, as Ollama writes it."""
    talk = await talking(corral, url)
    answer = await talk.say("Why?", stream=False, options={"num_predict": 5})
    told = json.loads(answer.body)
    assert (answer.status, told["done"], told["eval_count"], told["message"]["role"]) == (200, True, 5, "assistant")
    assert answer.get("Content-Type") == "application/json; charset=utf-8"
    assert (await talk.free())[1]["content"] == told["message"]["content"] != ""
    assert (answer.get("X-Corral-Host"), answer.get("X-Corral-Message")) == ("gpu1", "1")


CALL = {"function": {"name": "clock", "arguments": {"zone": "utc"}}}
LINES = (
    b'{"model":"m","message":{"role":"assistant","content":"","thinking":"hm"},"done":false}\n',
    b'{"model":"m","message":{"role":"assistant","content":"It","tool_calls":[%b]},"done":false}\n'
    % json.dumps(CALL).encode(),
    b'{"model":"m","message":{"role":"assistant","content":" is"},"done":true,"done_reason":"stop","eval_count":2}\n',
)


async def thinking(_asked: Asked, writer: asyncio.StreamWriter) -> None:
    """A host's answer that thinks and calls a tool."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n"
    writer.write(head + b"".join(b"%x\r\n%b\r\n" % (len(line), line) for line in LINES) + b"0\r\n\r\n")


async def test_what_the_host_is_asked(corral: Corral, url: str) -> None:
    """The system prompt, all that was said and still fits, however many pages of it, what is said now, both's options, and what else is asked for."""
    host = ScriptedHost("gpu1", thinking)
    stage = await corral(host, database={"url": url})
    talk = await Talk.new(stage, system="Be short.", host="gpu1", options={"seed": 1, "num_ctx": 2000})
    turns = stage.gateway.sessions.turns
    for number in range(45):
        said = [NewMessage(content=f"q{number}")]
        turn = await turns.begin_turn("", talk.id, generation="g", replica="r", said=said, model=TEXT)
        assert await turns.finish_turn("", talk.id, turn.answer, "g", Ending(state=MessageState.DONE, content="a"))
    tool = {"type": "function", "function": {"name": "clock"}}
    more = {"options": {"seed": 2}, "think": True, "tools": [tool], "keep_alive": "5m", "format": "json"}
    answer = await talk.say("now", stream=False, **more)
    told = json.loads(answer.body)
    assert told == {
        "model": "m",
        "message": {"role": "assistant", "content": "It is", "thinking": "hm", "tool_calls": [CALL]},
        "done": True,
        "done_reason": "stop",
        "eval_count": 2,
    }
    sent = json.loads(host.asked[-1].body)
    history = [text for number in range(45) for text in (f"q{number}", "a")]
    assert [message["content"] for message in sent.pop("messages")] == ["Be short.", *history, "now"]
    assert sent == {"model": TEXT, "stream": True, **more, "options": {"seed": 2, "num_ctx": 2000}}
    kept = (await talk.free())[-1]
    assert (kept["content"], kept["thinking"], kept["tool_calls"]) == ("It is", "hm", [CALL])
    assert (await talk.say("short", options={"num_ctx": 64})).status == 200
    await talk.free()
    few = [message["content"] for message in json.loads(host.asked[-1].body)["messages"]]
    assert few[0] == "Be short."
    assert few[1].startswith("q")
    assert few[-1] == "short"
    assert len(few) < 15


async def test_the_next_turn_sees_what_was_said(corral: Corral, url: str) -> None:
    """All of it, in order; an answer made again stands beside the first, an edited question begins a branch."""
    talk = await talking(corral, url, options={"num_predict": 3})
    for number in range(3):
        assert (await talk.say(f"q{number}")).status == 200
        await talk.free()
    usage = [row["usage"]["input_tokens"] for row in await talk.messages() if row["usage"]]
    assert usage == sorted(usage)
    assert usage[0] < usage[2]
    assert (await talk.say()).status == 200
    shown = await talk.free()
    assert [row["seq"] for row in shown] == [0, 1, 2, 3, 4, 6]
    assert shown[-1]["siblings"] == [5, 6]
    assert (await talk.say(parent=0)).status == 200
    assert [row["seq"] for row in await talk.free()] == [0, 7]
    assert (await talk.say("another", parent=1)).status == 200
    assert [(row["seq"], row["content"]) for row in (await talk.free())[:3:2]] == [(0, "q0"), (8, "another")]
    assert (await talk.say("first", parent=None)).status == 200
    assert [row["seq"] for row in await talk.free()] == [10, 11]


async def test_detached(corral: Corral, url: str) -> None:
    """202 tells where it is; whoever comes reads it, and it is kept."""
    talk = await talking(corral, url)
    answer = await talk.say("Why?", detach=True, options={"num_predict": 5})
    told = json.loads(answer.body)
    place = f"/api/generations/{told['id']}"
    assert told == {"id": told["id"], "session": talk.id, "message": 1, "stream": f"{place}/stream", "cancel": place}
    assert (answer.status, answer.get("Location"), answer.get("X-Corral-Message")) == (202, told["stream"], "1")
    body = (await read(talk.stage, told["id"])).body
    assert (await talk.free())[1]["content"] == text_of(body)


async def test_two_writers(corral: Corral, url: str) -> None:
    """The second is told who is there before it, and leaves nothing behind."""
    talk = await talking(corral, url, simulated(tokens_per_second=5.0))
    async with talk.saying("first", **LONG) as client:
        head = await client.head()
        refused = await talk.say("second")
        id_ = str(head.get("X-Corral-Generation"))
        assert (refused.status, refused.get("X-Corral-Generation")) == (409, id_)
        assert id_ in json.loads(refused.body)["error"]
        assert (await talk.session())["running"] == id_
        assert (await talk.stage.operate("POST", f"{talk.path}/cancel")).status == 200
        assert json.loads((await rest_of(client)).splitlines()[-1])["done_reason"] == "cancelled"
    assert [(row["content"], row["state"]) for row in (await talk.free())[:1]] == [("first", "done")]
    assert (await talk.session())["messages"] == 2


async def _leaves(talk: Talk, client: Client) -> None:
    client.reset()


async def _by_session(talk: Talk, _client: Client) -> None:
    assert (await talk.stage.operate("POST", f"/api/chat/cancel/{talk.id}")).status == 200


async def _by_id(talk: Talk, _client: Client) -> None:
    id_ = (await talk.session())["running"]
    assert (await talk.stage.operate("DELETE", f"/api/generations/{id_}")).status == 200


@pytest.mark.parametrize("when", ["queued", "prefill", "streaming"])
@pytest.mark.parametrize("how", [_leaves, _by_session, _by_id])
async def test_stopped(corral: Corral, url: str, when: str, how: Callable[[Talk, Client], Awaitable[None]]) -> None:
    """Whoever stops it and wherever it is: what there is of the answer is kept as stopped, and the session is free."""
    host = simulated(tokens_per_second=50.0)
    talk = await talking(corral, url, host)
    holder = await Talk.new(talk.stage)
    if when == "queued":
        assert (await holder.say("hold", detach=True, **LONG)).status == 202
    elif when == "prefill":
        host.faults.set("hang_before_headers")
    async with talk.saying("Why?", **LONG) as client:
        await talk.stage.row(talk.id, when)
        if when == "streaming":
            await client.head()
            await client.chunk()
        await how(talk, client)
        await talk.stage.records.of(talk.id)
    if when == "queued":
        await _by_session(holder, client)
    host.faults.clear()
    question, answer = await talk.free()
    assert (question["content"], answer["state"], answer["error"]) == ("Why?", "stopped", None)
    assert bool(answer["content"]) is (when == "streaming")
    assert (await talk.say("again", options={"num_predict": 2})).status == 200
    assert [row["state"] for row in await talk.free()] == ["done", "stopped", "done", "done"]


async def test_one_that_breaks_off(corral: Corral, url: str) -> None:
    """The caller gets last words, the session what there was, and why there is no more."""
    host = simulated()
    talk = await talking(corral, url, host)
    host.faults.set("reset_mid_stream", after_chunks=3)
    answer = await talk.say("Why?")
    assert "error" in json.loads(answer.body.splitlines()[-1])
    _, kept = await talk.free()
    assert (kept["state"], bool(kept["content"])) == ("error", True)
    assert kept["error"]
    at_once = await talk.say(stream=False)
    assert (at_once.status, "error" in json.loads(at_once.body)) == (502, True)
    await talk.free()


async def test_one_that_no_host_takes(corral: Corral, url: str) -> None:
    """The caller gets the status; the question is kept, and an answer that says why there is none."""
    talk = await talking(corral, url)
    answer = await talk.say("Why?", model="nobody")
    assert (answer.status, list(json.loads(answer.body))) == (404, ["error"])
    question, kept = await talk.free()
    assert (question["content"], kept["state"], kept["content"], kept["model"]) == ("Why?", "error", "", "nobody")
    assert kept["error"] == json.loads(answer.body)["error"]
    talk.stage["gpu1"].faults.set("load_error")
    assert (await talk.say()).status == 500
    assert [row["state"] for row in await talk.free()] == ["done", "error"]
    talk.stage["gpu1"].faults.clear()
    assert (await talk.say(options={"num_predict": 3})).status == 200
    assert [row["state"] for row in await talk.free()] == ["done", "done"]


async def test_what_is_refused(corral: Corral, url: str) -> None:
    """In words, before anything is kept."""
    talk = await talking(corral, url, model=None)

    async def refused(text: str | None, status: int = 400, **body: object) -> str:
        answer = await talk.say(text, **body)
        assert answer.status == status, answer.body
        return str(json.loads(answer.body)["error"])

    assert "name one" in await refused("Why?")
    assert "nothing to answer" in await refused(None, model=TEXT)
    assert "no message 7" in await refused("Why?", model=TEXT, parent=7)
    assert "not base64" in await refused("Why?", model=TEXT, message={"images": ["*"]})
    assert "`assistant`" in await refused("Why?", model=TEXT, message={"role": "assistant"})
    assert "there is no field modell" in await refused("Why?", modell=TEXT)
    assert (await talk.session())["messages"] == 0
    talk.path = "/api/sessions/nobody"
    assert "no session 'nobody'" in await refused("Why?", 404, model=TEXT)


async def test_leaving_at_the_very_beginning(corral: Corral, url: str) -> None:
    """Before the turn is in the database: it is stopped, or was never there; the session is free."""
    talk = await talking(corral, url)
    database = talk.stage.gateway.database
    assert database is not None
    chats = talk.stage.gateway.talking.chats
    async with database.writing() as connection, talk.saying("Why?") as client:
        await connection.exec_driver_sql(f"UPDATE sessions SET title = '' WHERE id = '{talk.id}'")
        await until(lambda: len(chats.busy) == 1)
        await client.leave("reset")
        await until(lambda: any(one.stopped for one in talk.stage.gateway.generations._intents.values()))
    rows = await talk.free()
    assert [row["state"] for row in rows] in (["done", "stopped"], [])
    assert talk.stage["gpu1"].ledger.requests["/api/chat"] == 0
