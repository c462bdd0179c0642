"""Conversations over real sockets, on both kinds of database: what is told, what each model is asked, what is kept however it ends."""

import asyncio
import json
import re
import signal
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from gateway.messages import NewMessage
from tests.builders import OTHER, TEXT, call, simulated
from tests.conftest import Corral
from tests.contract.raw import ask
from tests.conversation.conversing import (
    ANN,
    BOB,
    CID,
    LONG,
    PATH,
    SHORT,
    hold,
    holding,
    of,
    talk_of,
    text,
    told,
    wish,
)
from tests.flows.detaching import lines, read, rest_of
from tests.scripted import Asked, ScriptedHost
from tests.sockets import until
from tests.stage import Client, Stage
from tests.store.postgres import Postgres
from tests.turns.talking import Talk


class Speakers:
    """A host whose models say what ``words`` makes of the question. ``asked`` holds the bodies."""

    def __init__(self, words: Callable[[dict[str, Any]], str]) -> None:
        self.words = words
        self.asked: list[dict[str, Any]] = []
        self.host = ScriptedHost("gpu1", self._answer)

    async def _answer(self, asked: Asked, writer: asyncio.StreamWriter) -> None:
        body = json.loads(asked.body)
        self.asked.append(body)
        content = self.words(body)
        said = {"model": body["model"], "message": {"role": "assistant", "content": content}, "done": False}
        last = {"model": body["model"], "message": {"role": "assistant", "content": ""}, "done": True, "eval_count": 5}
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n"
        chunks = [
            json.dumps(line, separators=(",", ":")).encode() + b"\n" for line in (said, last | {"done_reason": "stop"})
        ]
        writer.write(head + b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n")


async def stage_of(corral: Corral, url: str, *hosts: Any, **more: Any) -> Stage:
    """A gateway with a database."""
    return await corral(*(hosts or (simulated(),)), database={"url": url}, **more)


async def counted(stage: Stage) -> tuple[Counter[Any], Counter[Any], Counter[Any]]:
    """What /metrics says of conversations: that began, that ended, and their turns."""
    names = {
        "conversations_started": ("mode",),
        "conversations": ("mode", "outcome"),
        "conversation_turns": ("mode", "outcome"),
    }
    began, ended, turns = [await stage.totals(f"corral_{name}_total", *labels) for name, labels in names.items()]
    return began, ended, turns


def numbered(body: dict[str, Any]) -> str:
    """Which answer of its own it is."""
    own = sum(message["role"] == "assistant" for message in body["messages"])
    return f"word {own + 1}"


async def test_a_dialogue(corral: Corral, url: str) -> None:
    """One after the other, each told as it comes and kept as any answer is; the end sums it up."""
    stage = await stage_of(corral, url)
    events = told(await hold(stage, turns=3))
    assert events[0] == {
        "event": "start",
        "id": events[0]["id"],
        "session": events[0]["session"],
        "mode": "dialogue",
        "participants": [{"name": name, "model": TEXT, "host": None} for name in ("Ann", "Bob")],
    }
    assert events[1] == {"event": "said", "message": 0, "content": "Cheese?"}
    began = of(events, "turn_start")
    assert [(one["turn"], one["participant"], one["message"]) for one in began] == [
        (1, "Ann", 1),
        (2, "Bob", 2),
        (3, "Ann", 3),
    ]
    ends = of(events, "turn_end")
    assert [(one["state"], one["error"], one["host"], one["usage"]["output_tokens"]) for one in ends] == [
        ("done", None, "gpu1", 4)
    ] * 3
    assert all(one["tokens_per_second"] > 0 and one["timings"]["ttft_seconds"] > 0 for one in ends)
    usage = {kind: sum(one["usage"][kind] for one in ends) for kind in ("input_tokens", "output_tokens")}
    last = {"event": "end", "reason": "turns", "error": None, "turns": 3, "usage": usage, "winner": None}
    assert events[-1] == last
    talk = talk_of(stage, events)
    kept = await talk.free()
    assert [row["name"] for row in kept] == [None, "Ann", "Bob", "Ann"]
    assert [row["content"] for row in kept[1:]] == [text(events, turn) for turn in (1, 2, 3)]
    assert all(row["content"] and row["state"] == "done" and row["host"] == "gpu1" for row in kept[1:])
    assert [row["generation"] for row in kept[1:]] == [one["generation"] for one in began]
    session = await talk.session()
    assert (session["kind"], session["title"], session["settings"]["mode"]) == ("conversation", "Cheese?", "dialogue")
    records = await stage.records.until(3)
    assert {(record.session, record.client, record.outcome) for record in records} == {(talk.id, "127.0.0.1", "ok")}


async def test_what_the_speakers_see(corral: Corral, url: str) -> None:
    """Their own turns as answers, the others' as a user's words with names, and who they are; what else was asked for goes along."""
    speakers = Speakers(numbered)
    stage = await stage_of(corral, url, speakers.host)
    bob = BOB | {"system": "Be rude.", "options": {"seed": 1}, "think": False}
    told(await hold(stage, ANN, bob, turns=4))
    asked = speakers.asked
    assert [[message["role"] for message in body["messages"]] for body in asked] == [
        ["system", "user"],
        ["system", "user"],
        ["system", "user", "assistant", "user"],
        ["system", "user", "assistant", "user"],
    ]
    assert asked[1]["messages"][1]["content"] == "Cheese?\n\nAnn: word 1"
    assert [message["content"] for message in asked[3]["messages"][1:]] == [
        "Cheese?\n\nAnn: word 1",
        "word 1",
        "Ann: word 2",
    ]
    assert asked[3]["messages"][0]["content"].endswith("Be rude.")
    assert {key: asked[3][key] for key in ("options", "think", "stream")} == {
        "options": {"seed": 1},
        "think": False,
        "stream": True,
    }
    assert "think" not in asked[0]


async def test_a_panel(corral: Corral, url: str) -> None:
    """All at once, on different hosts; then each has seen what the others said."""
    speakers = Speakers(numbered)
    stage = await stage_of(corral, url, speakers.host, slots=4)
    events = told(await hold(stage, ANN, BOB, CID, mode="panel", turns=5))
    kinds = [event["event"] for event in events if event["event"] != "delta"]
    assert kinds[2:5] == ["turn_start"] * 3
    first, second = speakers.asked[:3], speakers.asked[3:]
    assert {body["messages"][-1]["content"] for body in first} == {"Cheese?"}
    assert sorted(body["messages"][-1]["content"] for body in second) == [
        "Ann: word 1\n\nCid: word 1",
        "Bob: word 1\n\nCid: word 1",
    ]
    kept = await talk_of(stage, events).free()
    assert [(row["name"], row["content"]) for row in kept[1:]] == [
        ("Ann", "word 1"),
        ("Bob", "word 1"),
        ("Cid", "word 1"),
        ("Ann", "word 2"),
        ("Bob", "word 2"),
    ]


async def test_side_by_side_on_different_hosts(corral: Corral, url: str) -> None:
    """Each host takes one, though each could take both."""
    hosts = simulated("gpu1"), simulated("gpu2")
    stage = await stage_of(corral, url, *hosts, slots=4)
    for host in hosts:  # the first still loads when it is asked where the second shall go
        host.faults.set("slow_load", seconds=0.3)
    for _ in range(2):
        events = told(await hold(stage, ANN | SHORT, BOB | SHORT | {"model": OTHER}, mode="compare"))
        assert {one["host"] for one in of(events, "turn_end")} == {"gpu1", "gpu2"}
        assert events[-1]["turns"] == 2


async def test_a_judge(corral: Corral, url: str) -> None:
    """Sees the question and all answers, and decides; going on needs another question."""
    speakers = Speakers(lambda body: "It is Bob.\nWinner: Bob" if "judge" in body["messages"][0]["content"] else "mine")
    stage = await stage_of(corral, url, speakers.host, slots=4)
    events = told(await hold(stage, ANN, BOB, mode="judge", judge={"model": OTHER, "name": "Judy"} | {"model": TEXT}))
    assert [one["participant"] for one in of(events, "turn_start")] == ["Ann", "Bob", "Judy"]
    assert [len(body["messages"]) for body in speakers.asked] == [1, 1, 2]
    assert "The answer of Bob:\nmine" in speakers.asked[2]["messages"][1]["content"]
    assert (events[-1]["winner"], events[-1]["turns"], events[-1]["reason"]) == ("Bob", 3, "turns")
    session = events[0]["session"]
    refused = await ask(stage.url, "POST", PATH, json.dumps({"session": session}).encode())
    assert (refused.status, "topic: say what" in json.loads(refused.body)["error"]) == (400, True)
    body = json.dumps({"session": session, "topic": "And wine?"}).encode()
    again = told(await ask(stage.url, "POST", PATH, body))
    assert (again[-1]["winner"], again[1]["content"]) == ("Bob", "And wine?")
    own = ["Cheese?", "mine", "And wine?"]
    assert [[message["content"] for message in body["messages"]] for body in speakers.asked[3:5]] == [own, own]
    assert "The question:\nAnd wine?" in speakers.asked[5]["messages"][1]["content"]


async def test_at_once(corral: Corral, url: str) -> None:
    """Without a stream it is one object."""
    stage = await stage_of(corral, url)
    answer = await hold(stage, stream=False, turns=2)
    body = json.loads(answer.body)
    assert (answer.status, body["end"]["reason"], body["id"]) == (200, "turns", answer.get("X-Corral-Generation"))
    kept = await Talk(stage, {"id": body["session"]}).free()
    assert [(one["participant"], one["content"], one["message"]) for one in body["turns"]] == [
        (row["name"], row["content"], row["seq"]) for row in kept[1:]
    ]
    assert body["turns"][0]["end"]["host"] == "gpu1"


async def test_more_than_is_held(corral: Corral, url: str) -> None:
    """Each event reaches who keeps up, however little may be held. Who wants it at once is told where it is; it is not stopped for that."""
    stage = await stage_of(corral, url, generations={"answer_bytes": 100})
    events = lines((await hold(stage, turns=2)).body)
    assert (events[0]["event"], events[-1]["event"]) == ("start", "end")
    answer = await hold(stage, mode="panel", turns=2, stream=False)
    assert (answer.status, answer.get("X-Corral-Error")) == (410, "gone")
    session = re.findall(r"session (\w+) has all of it", answer.body.decode())[0]
    talk = Talk(stage, {"id": session})
    assert [message["state"] for message in await talk.free()] == ["done"] * 3


async def test_more_than_is_held_was_said_before(corral: Corral, url: str) -> None:
    """What only the user said is not what is asked for."""
    stage = await stage_of(corral, url, generations={"answer_bytes": 3_000})
    talk = await Talk.new(stage)
    for _ in range(3):
        body = json.dumps({"content": "?" * 1_500}).encode()
        assert (await ask(stage.url, "POST", f"{talk.path}/messages", body)).status == 201
    answer = await hold(stage, session=talk.id, turns=1, stream=False)
    assert (answer.status, len(json.loads(answer.body)["turns"])) == (200, 1)


async def test_detached(corral: Corral, url: str) -> None:
    """202 tells where it is; it runs on, and whoever comes reads all of it, as lines or events, also when it is over."""
    stage = await stage_of(corral, url)
    answer = await hold(stage, detach=True, turns=2)
    body = json.loads(answer.body)
    assert (answer.status, answer.get("Location")) == (202, body["stream"])
    assert body["cancel"] == f"/api/generations/{body['id']}"
    events = told(await read(stage, body["id"]))
    assert (events[-1]["reason"], events[-1]["turns"]) == ("turns", 2)
    assert lines((await read(stage, body["id"], "?from=2")).body) == events[2:]
    streamed = await read(stage, body["id"], headers={"Accept": "text/event-stream"})
    assert streamed.body.count(b"\nid: ") + 1 == len(events)
    await Talk(stage, {"id": body["session"]}).free()
    assert stage.gateway.detached.shelf.running == 0


async def test_it_goes_on(corral: Corral, url: str) -> None:
    """With more turns after whoever spoke last, with what the user says in between, with others, and as a chat with one."""
    speakers = Speakers(numbered)
    stage = await stage_of(corral, url, speakers.host)
    events = told(await hold(stage, ANN, BOB, turns=1))
    talk = talk_of(stage, events)
    more = told(await ask(stage.url, "POST", PATH, json.dumps({"session": talk.id, "turns": 1}).encode()))
    assert [one["participant"] for one in of(more, "turn_start")] == ["Bob"]
    said = await ask(stage.url, "POST", f"{talk.path}/messages", b'{"content": "Wait."}')
    assert (said.status, json.loads(said.body)["seq"]) == (201, 3)
    body = {"session": talk.id, "turns": 3, "participants": [ANN, CID], "mode": "dialogue"}
    more = told(await ask(stage.url, "POST", PATH, json.dumps(body).encode()))
    assert [one["participant"] for one in of(more, "turn_start")] == ["Ann", "Cid", "Ann"]
    assert [one["content"] for one in of(more, "said")] == ["Wait."]
    assert speakers.asked[2]["messages"][-1]["content"] == "Bob: word 1\n\nWait."
    assert (await talk.say("And you?", model=TEXT)).status == 200
    kept = await talk.free()
    assert [row["content"] for row in kept if row["role"] == "user"] == ["Cheese?", "Wait.", "And you?"]
    names = [one["name"] for one in (await talk.session())["settings"]["participants"]]
    assert names == ["Ann", "Cid"]


async def test_a_chat_becomes_a_conversation(corral: Corral, url: str) -> None:
    """Whatever was said in it is seen."""
    speakers = Speakers(numbered)
    stage = await stage_of(corral, url, speakers.host)
    talk = await Talk.new(stage)
    assert (await talk.say("Why?")).status == 200
    await talk.free()
    events = told(await ask(stage.url, "POST", PATH, wish(ANN, BOB, session=talk.id, topic="Well?", turns=1)))
    assert events[0]["session"] == talk.id
    assert speakers.asked[-1]["messages"][-1]["content"] == f"Why?\n\n{TEXT}: word 1\n\nWell?"
    assert (await talk.session())["kind"] == "conversation"


async def test_the_user_interjects(corral: Corral, url: str) -> None:
    """While somebody speaks: whoever is next sees it, and it is told."""
    host = simulated(tokens_per_second=200.0)
    stage = await stage_of(corral, url, host)
    async with holding(stage, ANN | SHORT, BOB | LONG, CID | SHORT, turns=3) as client:
        await client.head()
        start = json.loads((await client.chunk()).splitlines()[0])
        talk = Talk(stage, {"id": start["session"]})
        await stage.until(lambda rows: [row for row in rows if row["tokens"] > 10])
        busy = await talk.say("Me, too", model=TEXT)
        assert (busy.status, busy.get("X-Corral-Generation")) == (409, start["id"])
        assert "by conversation" in json.loads(busy.body)["error"]
        said = await ask(stage.url, "POST", f"{talk.path}/messages", b'{"content": "Stop it, Bob."}')
        assert said.status == 201
        bob = (await stage.until(lambda rows: rows))[0]["id"]
        assert (await stage.operate("DELETE", f"/api/generations/{bob}")).status == 200
        events = lines(await rest_of(client))
    told_of = of(events, "said")[-1]
    assert (told_of["content"], told_of["message"]) == ("Stop it, Bob.", 3)
    assert [one["state"] for one in of(events, "turn_end")] == ["done", "stopped", "done"]
    assert [row["name"] for row in await talk.free()] == [None, "Ann", "Bob", None, "Cid"]


@pytest.mark.parametrize(
    ("more", "reason", "turns"),
    [
        ({"stop": ["nobody says this", "word 2"]}, "stop_phrase", 3),
        ({"token_budget": 15}, "token_budget", 3),
        ({"token_budget": 1000, "turns": 4}, "turns", 4),
    ],
)
async def test_bounds(corral: Corral, url: str, more: dict[str, Any], reason: str, turns: int) -> None:
    """A phrase, or tokens: five each."""
    speakers = Speakers(numbered)
    stage = await stage_of(corral, url, speakers.host)
    events = told(await hold(stage, ANN, BOB | {"options": {"num_predict": 7}}, **more))
    assert (events[-1]["reason"], events[-1]["turns"], events[-1]["usage"]["output_tokens"]) == (
        reason,
        turns,
        5 * turns,
    )
    if more.get("token_budget") == 15:
        assert [body["options"]["num_predict"] for body in speakers.asked] == [15, 7, 5]
    await talk_of(stage, events).free()
    assert await counted(stage) == ({"dialogue": 1}, {("dialogue", reason): 1}, {("dialogue", "done"): turns})


async def test_one_who_fails(corral: Corral, url: str) -> None:
    """Is told and kept, and the others go on, or not; where nobody can answer it ends."""
    stage = await stage_of(corral, url)
    gone = {"model": "gone", "name": "Gil"}
    events = told(await hold(stage, ANN | SHORT, gone, turns=3))
    ends = of(events, "turn_end")
    assert [one["state"] for one in ends] == ["done", "error", "done"]
    assert "gone" in ends[1]["error"]
    assert events[-1]["reason"] == "turns"
    kept = await talk_of(stage, events).free()
    assert (kept[2]["name"], kept[2]["state"], kept[2]["error"]) == ("Gil", "error", ends[1]["error"])
    events = told(await hold(stage, ANN | SHORT, gone, turns=3, on_error="stop"))
    assert (events[-1]["reason"], events[-1]["turns"]) == ("error", 2)
    assert events[-1]["error"].startswith("Gil: ")
    events = told(await hold(stage, gone, gone | {"name": "Gus"}, turns=6))
    assert (events[-1]["reason"], events[-1]["turns"]) == ("error", 2)
    assert events[-1]["error"].startswith("nobody could answer")
    stage["gpu1"].faults.set("reset_mid_stream", after_chunks=3)
    events = told(await hold(stage, mode="compare"))
    assert [(one["state"], bool(one["error"])) for one in of(events, "turn_end")] == [("error", True)] * 2
    assert [(row["state"], bool(row["content"])) for row in (await talk_of(stage, events).free())[1:]] == [
        ("error", True)
    ] * 2
    began, ended, turns = await counted(stage)
    assert (began, ended[("dialogue", "turns")], ended[("dialogue", "error")]) == ({"dialogue": 3, "compare": 1}, 1, 2)
    assert turns == {("dialogue", "done"): 3, ("dialogue", "error"): 4, ("compare", "error"): 2}


async def _leaves(_stage: Stage, _start: dict[str, Any], client: Client) -> None:
    client.reset()


async def _by_id(stage: Stage, start: dict[str, Any], _client: Client) -> None:
    answer = await stage.operate("DELETE", f"/api/generations/{start['id']}")
    assert (answer.status, json.loads(answer.body)["cancelled"]) == (200, 1)


async def _by_chat_cancel(stage: Stage, start: dict[str, Any], _client: Client) -> None:
    assert (await stage.operate("POST", f"/api/chat/cancel/{start['id']}")).status == 200


async def _by_session(stage: Stage, start: dict[str, Any], _client: Client) -> None:
    assert (await stage.operate("POST", f"/api/sessions/{start['session']}/cancel")).status == 200


@pytest.mark.parametrize("when", ["queued", "prefill", "streaming"])
@pytest.mark.parametrize("how", [_leaves, _by_id, _by_chat_cancel, _by_session])
async def test_stopped(
    corral: Corral, url: str, when: str, how: Callable[[Stage, dict[str, Any], Client], Awaitable[None]]
) -> None:
    """Whoever stops it and wherever it is: all that runs ends, no turn begins any more, the session is free."""
    host = simulated(tokens_per_second=50.0)
    stage = await stage_of(corral, url, host)
    holder = await Talk.new(stage)
    if when == "queued":
        assert (await holder.say("hold", detach=True, **LONG)).status == 202
    elif when == "prefill":
        host.faults.set("hang_before_headers")
    async with holding(stage, ANN | LONG, BOB | LONG, mode="panel", turns=8) as client:
        await client.head()
        start = json.loads((await client.chunk()).splitlines()[0])
        talk = Talk(stage, {"id": start["session"]})
        await stage.row(talk.id, when)
        await how(stage, start, client)
        if how is not _leaves:
            events = lines(await rest_of(client))
            assert (events[-1]["reason"], events[-1]["turns"]) == ("cancelled", 2)
            assert [one["state"] for one in of(events, "turn_end")] == ["stopped", "stopped"]
    if when == "queued":
        await stage.operate("POST", f"{holder.path}/cancel")
    host.faults.clear()
    kept = await talk.free()
    assert [(row["name"], row["state"]) for row in kept] == [(None, "done"), ("Ann", "stopped"), ("Bob", "stopped")]
    again = told(
        await ask(stage.url, "POST", PATH, wish(ANN | SHORT, BOB | SHORT, session=talk.id, turns=1, mode="dialogue"))
    )
    assert again[-1]["reason"] == "turns"
    assert await counted(stage) == (
        {"panel": 1, "dialogue": 1},
        {("panel", "cancelled"): 1, ("dialogue", "turns"): 1},
        {("panel", "stopped"): 2, ("dialogue", "done"): 1},
    )


async def test_what_is_refused(corral: Corral, url: str) -> None:
    """In words, before anything is kept."""
    stage = await stage_of(corral, url)

    async def refused(body: dict[str, Any], status: int = 400) -> str:
        answer = await ask(stage.url, "POST", PATH, json.dumps(body).encode())
        assert answer.status == status, answer.body
        return str(json.loads(answer.body)["error"])

    both = [ANN, BOB]
    assert "name 2 to 8 models" in await refused({"topic": "x"})
    assert "topic: say what" in await refused({"participants": both})
    assert "must have at least 2 entries" in await refused({"participants": [ANN], "topic": "x"})
    assert "must have at most 8 entries" in await refused({"participants": [{"model": "m"}] * 9, "topic": "x"})
    assert "two are named" in await refused({"participants": [ANN, ANN], "topic": "x"})
    assert "participants[1].host: none is named 'gpu9'" in await refused(
        {"participants": [ANN, BOB | {"host": "gpu9"}], "topic": "x"}
    )
    assert "judge.host" in await refused(
        {"participants": both, "topic": "x", "mode": "judge", "judge": {"model": "m", "host": "gpu9"}}
    )
    assert "judge: name" in await refused({"participants": both, "topic": "x", "mode": "judge"})
    assert "everybody answers once" in await refused(
        {"participants": both, "topic": "x", "mode": "compare", "turns": 2}
    )
    assert "mode cannot be 'quarrel'" in await refused({"participants": both, "topic": "x", "mode": "quarrel"})
    assert "not base64" in await refused({"participants": both, "topic": "x", "images": ["*"]})
    assert "nothing said" in await refused({"participants": both, "topic": " "})
    assert "at least 1 char" in await refused({"participants": both, "topic": "x", "session": ""})
    assert "title: only" in await refused({"participants": both, "topic": "x", "session": "s", "title": "t"})
    for name in ("", " ", "a\0", "a\n"):
        assert "no control characters" in await refused({"participants": [ANN, {"model": name}], "topic": "x"})
    assert "come with a topic" in await refused({"participants": both, "images": ["QQ=="]})
    assert "there is no field turn" in await refused({"participants": both, "topic": "x", "turn": 2})
    assert "no session 'nobody'" in await refused({"participants": both, "topic": "x", "session": "nobody"}, 404)
    assert not (await stage.get("/api/sessions"))["sessions"]
    talk = await Talk.new(stage)
    assert "name 2 to 8 models" in await refused({"session": talk.id, "topic": "x"})
    assert (
        "only the user"
        in json.loads(
            (await ask(stage.url, "POST", f"{talk.path}/messages", b'{"role": "tool", "content": "x"}')).body
        )["error"]
    )


async def test_only_one_at_a_time(corral: Corral, url: str) -> None:
    """Whoever comes while a turn is answered is told so, and nothing changes."""
    stage = await stage_of(corral, url, simulated(tokens_per_second=50.0))
    talk = await Talk.new(stage)
    async with talk.saying("first", **LONG) as client:
        id_ = (await client.head()).get("X-Corral-Generation")
        refused = await ask(stage.url, "POST", PATH, wish(session=talk.id))
        assert (refused.status, refused.get("X-Corral-Generation")) == (409, id_)
        said = await ask(stage.url, "POST", f"{talk.path}/messages", b'{"content": "x"}')
        assert said.status == 409
        assert (await talk.session())["kind"] == "chat"
        await stage.operate("POST", f"{talk.path}/cancel")
        await rest_of(client)
    assert len(await talk.free()) == 2


async def test_without_a_database(corral: Corral) -> None:
    """It is clear why not."""
    stage = await corral(simulated())
    answer = await hold(stage)
    assert (answer.status, "database" in json.loads(answer.body)["error"]) == (503, True)


async def test_a_session_deleted_meanwhile(corral: Corral, url: str) -> None:
    """It ends with what runs in it, no turn begins any more, and what was said can be read nowhere."""
    stage = await stage_of(corral, url, simulated(tokens_per_second=50.0))
    async with holding(stage, ANN | LONG, BOB | LONG) as client:
        await client.head()
        start = json.loads((await client.chunk()).splitlines()[0])
        await stage.row(start["session"], "streaming")
        deleted = json.loads((await stage.operate("DELETE", f"/api/sessions/{start['session']}")).body)
        assert deleted["cancelled"] == 2  # the conversation and its turn
        events = lines(await rest_of(client))
    assert (events[-1]["turns"], events[-1]["reason"]) == (1, "cancelled")
    await stage.gateway.talking.chats.busy.idle()
    assert (await read(stage, start["id"])).status == 404
    assert (stage.gateway.detached.shelf.size, len(stage.gateway.detached.shelf)) == (0, 0)
    assert not (await stage.get("/api/sessions"))["sessions"]


@pytest.mark.parametrize("kind", ["postgresql"], indirect=True)
async def test_the_database_goes_away(corral: Corral, url: str, postgres: Postgres) -> None:
    """What is being said is told to its end and kept once that is possible; nobody else is asked, and the session is free then."""
    host = simulated()
    stage = await stage_of(corral, url, host)
    host.faults.set("hang_mid_stream", after_chunks=3)
    async with holding(stage, ANN | SHORT, BOB | SHORT) as client:
        await client.head()
        start = json.loads((await client.chunk()).splitlines()[0])
        await stage.until(lambda rows: [row for row in rows if row["tokens"] > 1])
        postgres.stop(signal.SIGINT)
        host.faults.clear()
        events = lines(await rest_of(client))
    assert of(events, "turn_end")[0]["state"] == "done"
    assert (events[-1]["reason"], events[-1]["turns"]) == ("error", 1)
    assert "database" in events[-1]["error"]
    await stage.gateway.talking.chats.busy.idle()
    postgres.start()
    database, writer = stage.gateway.database, stage.gateway.talking.chats.writer
    await until(lambda: database and database.up and not writer._waiting, 30.0)
    kept = await Talk(stage, {"id": start["session"]}).free()
    assert [(row["name"], row["state"], bool(row["content"])) for row in kept] == [
        (None, "done", True),
        ("Ann", "done", True),
    ]


async def test_the_gateway_shuts_down(corral: Corral, url: str) -> None:
    """Who speaks may finish, nobody else begins, and all of it is kept."""
    host = simulated()
    stage = await stage_of(corral, url, host)
    host.faults.set("hang_mid_stream", after_chunks=3)
    async with holding(stage, ANN | SHORT, BOB | SHORT) as client:
        await client.head()
        start = json.loads((await client.chunk()).splitlines()[0])
        await stage.until(lambda rows: [row for row in rows if row["tokens"] > 1])
        stopping = asyncio.get_running_loop().create_task(stage.stop(), name="stop")
        await until(lambda: stage.gateway.detached.draining)
        host.faults.clear()
        events = lines(await rest_of(client))
        await stopping
    assert (events[-1]["reason"], events[-1]["error"], events[-1]["turns"]) == (
        "error",
        "the gateway is shutting down",
        1,
    )
    again = await corral(host, database={"url": url})
    kept = await Talk(again, {"id": start["session"]}).free()
    assert [(row["name"], row["state"]) for row in kept] == [(None, "done"), ("Ann", "done")]


async def test_nobody_reads_it(corral: Corral, url: str) -> None:
    """A detached one can be told to stop then."""
    host = simulated()
    stage = await stage_of(corral, url, host, generations={"orphan_seconds": 0.2})
    host.faults.set("hang_mid_stream", after_chunks=3)
    body = json.loads((await hold(stage, ANN | SHORT, BOB | SHORT, detach=True)).body)
    await stage.records.until(1)
    host.faults.clear()
    kept = await Talk(stage, {"id": body["session"]}).free()
    assert [(row["name"], row["state"]) for row in kept] == [(None, "done"), ("Ann", "stopped")]
    events = told(await read(stage, body["id"]))
    assert events[-1]["reason"] == "cancelled"


async def test_what_was_imported(corral: Corral, url: str) -> None:
    """An exported conversation goes on as the one that it was, in its colours; settings that are none are refused."""
    stage = await stage_of(corral, url)
    events = told(await hold(stage, ANN | SHORT | {"color": "violet"}, BOB | SHORT, turns=1))
    talk = talk_of(stage, events)
    colors = [one["color"] for one in (await talk.session())["settings"]["participants"]]
    assert colors == ["violet", None]
    exported = await stage.get(f"{talk.path}/export")
    brought = await ask(stage.url, "POST", "/api/import", json.dumps(exported).encode())
    assert brought.status == 201, brought.body
    (copy,) = json.loads(brought.body)["sessions"]
    assert copy["settings"] == (await talk.session())["settings"]
    more = told(await ask(stage.url, "POST", PATH, json.dumps({"session": copy["id"], "turns": 1}).encode()))
    assert [one["participant"] for one in of(more, "turn_start")] == ["Bob"]
    exported["session"]["settings"]["participants"] = [{"model": 1}] * 2
    refused = await ask(stage.url, "POST", "/api/import", json.dumps(exported).encode())
    assert (refused.status, "settings.participants" in json.loads(refused.body)["error"]) == (400, True)


async def test_a_conversation_in_the_lists(corral: Corral, url: str) -> None:
    """While it runs and, asked for, as long as it can be read; its turns take nobody's place there."""
    stage = await stage_of(corral, url, generations={"keep_count": 2})
    kept = json.loads((await ask(stage.url, "POST", "/api/chat?detach=true", call("/api/chat").body)).body)["id"]
    body = json.loads((await hold(stage, detach=True, turns=4)).body)
    (row,) = (await stage.get(f"/api/generations?session={body['session']}"))["conversations"]
    assert (row["id"], row["running"], row["first_chunk"]) == (body["id"], True, 0)
    events = told(await read(stage, body["id"]))
    await stage.gateway.talking.chats.busy.idle()
    assert (await stage.get("/api/generations"))["conversations"] == []
    (row,) = (await stage.get("/api/generations?kept=true"))["conversations"]
    assert (row["running"], row["chunks"]) == (False, len(events))
    assert (await read(stage, kept)).status == 200


async def test_a_user_who_says_much(corral: Corral, url: str) -> None:
    """Before it goes on and between the rounds: all of it is told, and whose turn it is does not change."""
    speakers = Speakers(numbered)
    stage = await stage_of(corral, url, speakers.host)
    talk = talk_of(stage, told(await hold(stage, ANN, BOB, turns=1)))
    for number in range(70):
        await stage.gateway.sessions.turns.say("", talk.id, NewMessage(content=f"w{number}"))
    more = told(
        await ask(stage.url, "POST", PATH, json.dumps({"session": talk.id, "turns": 1, "topic": "so?"}).encode())
    )
    assert [one["participant"] for one in of(more, "turn_start")] == ["Bob"]
    assert [one["content"] for one in of(more, "said")] == [*(f"w{number}" for number in range(70)), "so?"]


async def test_the_judge_gets_the_question(corral: Corral, url: str) -> None:
    """Whatever the user says while they answer; and nothing that nobody answered."""
    words = {"n": 0}

    def said(body: dict[str, Any]) -> str:
        return "Winner: Ann" if "judge" in body["messages"][0]["content"] else "mine"

    speakers = Speakers(said)
    stage = await stage_of(corral, url, speakers.host)
    waiting = asyncio.Event()
    plain = speakers.host._answering

    async def held(asked: Asked, writer: asyncio.StreamWriter) -> None:
        words["n"] += 1
        if words["n"] == 1:
            await waiting.wait()
        await plain(asked, writer)

    speakers.host._answering = held
    async with holding(stage, ANN, BOB, mode="judge", judge={"model": TEXT, "name": "Judy"}) as client:
        await client.head()
        start = json.loads((await client.chunk()).splitlines()[0])
        await stage.row(start["session"], "prefill")
        path = f"/api/sessions/{start['session']}/messages"
        assert (await ask(stage.url, "POST", path, b'{"content": "hurry"}')).status == 201
        waiting.set()
        events = lines(await rest_of(client))
    assert events[-1]["winner"] == "Ann"
    assert "The question:\nCheese?\n" in speakers.asked[-1]["messages"][1]["content"]
    gone = [{"model": "gone", "name": name} for name in ("Gil", "Gus")]
    events = told(await hold(stage, *gone, mode="judge", judge={"model": TEXT}))
    assert (events[-1]["reason"], events[-1]["turns"]) == ("error", 2)
    events = told(await hold(stage, ANN, BOB, mode="judge", judge={"model": "gone", "name": "Judy"}))
    assert (events[-1]["reason"], events[-1]["error"][:6]) == ("error", "Judy: ")


async def test_a_budget_is_shared_with_the_judge(corral: Corral, url: str) -> None:
    """Who has no token does not speak."""
    stage = await stage_of(corral, url, slots=4)
    judge = {"model": TEXT, "name": "Judy"}
    events = told(await hold(stage, ANN | LONG, BOB | LONG, mode="judge", judge=judge, token_budget=9))
    assert [one["usage"]["output_tokens"] for one in of(events, "turn_end")] == [3, 3, 3]
    events = told(await hold(stage, ANN, BOB, CID, mode="panel", token_budget=2))
    assert (events[-1]["turns"], events[-1]["usage"]["output_tokens"], events[-1]["reason"]) == (2, 2, "token_budget")


HALF = "\ud800"


@pytest.mark.parametrize("where", ["system", "option", "think", "topic", "images", "tool_calls", "content"])
async def test_what_no_text_can_be(corral: Corral, url: str, where: str) -> None:
    """Halves of characters that an import brings are mended as it is kept: a conversation, and a chat, go on with them."""
    stage = await stage_of(corral, url)
    first: dict[str, Any] = {"model": TEXT, "name": "Ann", "options": {"num_predict": 2}}
    message: dict[str, Any] = {"seq": 0, "parent": None, "role": "user", "content": "hi"}
    if where in ("images", "tool_calls", "content"):
        message[where] = {"images": [HALF], "tool_calls": [{"function": {"name": HALF}}], "content": HALF}[where]
    settings = {"mode": "dialogue", "participants": [first, BOB | SHORT]}
    if where == "option":
        first["options"][HALF] = HALF
    elif where == "topic":
        settings["topic"] = HALF
    elif where in ("system", "think"):
        first[where] = HALF
    at = {"created_at": "2024-01-01T00:00:00Z", "updated_at": "2024-01-01T00:00:00Z"}
    session = {"title": "x", "kind": "conversation", "settings": settings, "options": {HALF: HALF}} | at
    given = {"format": "corral.session", "version": 1, "session": session, "messages": [message | at]}
    brought = await ask(stage.url, "POST", "/api/import", json.dumps(given).encode())
    assert brought.status == 201, brought.body
    (copy,) = json.loads(brought.body)["sessions"]
    events = told(await ask(stage.url, "POST", PATH, json.dumps({"session": copy["id"], "turns": 2}).encode()))
    assert events[-1]["turns"] == 2
    talk = Talk(stage, copy)
    await talk.free()
    assert (await talk.say("And?", model=TEXT, options={"num_predict": 2})).status in (200, 400)
    assert (await talk.free())[-1]["state"] != "streaming"


async def test_what_nobody_has_thought_of(corral: Corral, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The caller is told, the events end, the session is free, and the log has it."""
    stage = await stage_of(corral, url)

    def broken(*_: Any) -> None:
        raise ArithmeticError("what nobody has thought of")

    monkeypatch.setattr("gateway.conversation.rounds.framing", broken)
    monkeypatch.setattr("gateway.turns.chats.context_of", broken)
    stage.exceptions = 2
    events = told(await hold(stage))
    assert (events[-1]["reason"], events[-1]["error"]) == ("error", "internal error; the log has the details")
    talk = talk_of(stage, events)
    await until(lambda: stage.gateway.tasks.failures == 1)
    await _freed(talk)
    assert [row["state"] for row in await talk.messages()] == ["done", "error"]
    answer = await talk.say("And?", model=TEXT)
    assert (answer.status, "internal error" in json.loads(answer.body)["error"]) == (500, True)
    await _freed(talk)
    await until(lambda: stage.gateway.tasks.failures == 2)
    assert stage.gateway.detached.shelf.running == 0


async def _freed(talk: Talk) -> None:
    for _ in range(100):
        if (await talk.session())["running"] is None:
            return
    raise AssertionError("it is still claimed")
