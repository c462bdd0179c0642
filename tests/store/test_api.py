"""Sessions over real sockets, on both kinds of database: what a client sends and gets."""

import json
import signal
from datetime import datetime
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from gateway.messages import Ending, MessageState, NewMessage
from gateway.store.engine import State
from tests.builders import simulated
from tests.conftest import Corral
from tests.contract.raw import ask
from tests.sockets import until
from tests.stage import Stage
from tests.store.postgres import Postgres

OTHERS = {
    "system": None,
    "options": {},
    "settings": None,
    "pinned": False,
    "archived": False,
    "running": None,
    "begins": None,
    "erased_at": None,
}


def url_of(path: str) -> str:
    """Below /api/sessions, but for what is about all of them."""
    return f"/api{path}" if path.startswith(("/search", "/import")) else f"/api/sessions{path}"


class Desk:
    """A client of the sessions of one gateway."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage

    async def call(self, method: str, path: str = "", body: Any = None, *, status: int = 200) -> Any:
        """What ``/api/sessions…`` answers, which must have this status."""
        raw = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        answer = await ask(self.stage.url, method, url_of(path), raw)
        assert answer.status == status, answer.body
        kind = str(answer.get("Content-Type"))
        return json.loads(answer.body) if kind.startswith("application/json") else answer

    async def new(self, **body: Any) -> Any:
        """A new session."""
        return await self.call("POST", "", body, status=201)

    async def refused(self, method: str, path: str = "", body: Any = None, *, status: int = 400) -> str:
        """The words of an error."""
        error = await self.call(method, path, body, status=status)
        assert list(error) == ["error"]
        return str(error["error"])


@pytest.fixture
async def desk(corral: Corral, url: str) -> Desk:
    """At a gateway with a database and one host, gpu1."""
    return Desk(await corral(simulated(), database={"url": url}))


async def said(desk: Desk, id_: str, question: str | None, answer: str, **rest: Any) -> None:
    """A turn, as the gateway keeps it."""
    turns = desk.stage.gateway.sessions.turns
    asked = [] if question is None else [NewMessage(content=question)]
    made = await turns.begin_turn("", id_, generation="g1", replica="r1", said=asked, model="llama3.2:1b", **rest)
    assert await turns.finish_turn("", id_, made.answer, "g1", Ending(state=MessageState.DONE, content=answer))


async def test_make_look_change_delete(desk: Desk) -> None:
    """The life of a session."""
    made = await desk.new(title="Sky", model="llama3.2:1b", host="gpu1", options={"seed": 1})
    fixed = {"id": made["id"], "kind": "chat", "title": "Sky", "model": "llama3.2:1b", "host": "gpu1"}
    times = {"created_at": made["created_at"], "updated_at": made["created_at"]}
    assert made == OTHERS | fixed | {"options": {"seed": 1}, "leaf": None, "messages": 0} | times
    assert made["created_at"].endswith("+00:00")
    assert await desk.call("GET", f"/{made['id']}") == made
    changed = await desk.call("PATCH", f"/{made['id']}", {"title": "Небо", "host": None, "pinned": True})
    assert changed == made | {"title": "Небо", "host": None, "pinned": True}
    assert await desk.call("GET") == {"sessions": [changed], "next": None}
    assert await desk.call("DELETE", f"/{made['id']}") == {
        "id": made["id"],
        "deleted": True,
        "cancelled": 0,
        "elsewhere": 0,
    }
    for method, body in (("GET", None), ("PATCH", {}), ("DELETE", None)):
        assert "there is no session" in await desk.refused(method, f"/{made['id']}", body, status=404)
    assert await desk.call("GET") == {"sessions": [], "next": None}


async def test_what_is_refused(desk: Desk) -> None:
    """The words name what does not fit."""
    id_ = (await desk.new())["id"]
    assert "there is no field titel" in await desk.refused("POST", "", {"titel": "x"})
    assert "title must have at most 300 characters" in await desk.refused("PATCH", f"/{id_}", {"title": "x" * 301})
    assert "body: title must be a text, not null" in await desk.refused("PATCH", f"/{id_}", {"title": None})
    assert ": options must be" in await desk.refused("POST", "", {"options": [1]})
    assert "options are over 16384 bytes" in await desk.refused("POST", "", {"options": {"a": "x" * 20_000}})
    assert "none is named 'gpu9'; there are: gpu1" in await desk.refused("POST", "", {"host": "gpu9"})
    assert "none is named 'gpu9'; there are: gpu1" in await desk.refused("PATCH", f"/{id_}", {"host": "gpu9"})
    assert "no message 3" in await desk.refused("PATCH", f"/{id_}", {"leaf": 3})
    assert "body: " in await desk.refused("POST", "", b"{")
    assert "body: " in await desk.refused("POST", "", b"[]")
    assert "body: " in await desk.refused("POST", "", b'"\xff"')
    assert ": limit must be" in await desk.refused("GET", "?limit=0")
    assert ": limit must be" in await desk.refused("GET", "?limit=201")
    assert ": archived must be" in await desk.refused("GET", "?archived=perhaps")
    assert ": kind cannot be" in await desk.refused("GET", "?kind=talk")
    assert "at least one word" in await desk.refused("GET", "?q=%22")
    assert ": restorable_seconds must be" in await desk.refused("DELETE", f"/{id_}?restorable_seconds=-1")
    for place in ("x", "1-2", "2-1-a", "0-99999999999999999999-a", "0-+1-a"):
        assert "after is not what `next`" in await desk.refused("GET", f"?after={place}")
    assert "no message 7" in await desk.refused("GET", f"/{id_}/messages?leaf=7")
    assert ": leaf must be" in await desk.refused("GET", f"/{id_}/messages?leaf=99999999999")
    assert ": limit must be" in await desk.refused("GET", f"/{id_}/messages?limit=1001")
    assert "q is missing" in await desk.refused("GET", "/search")
    assert "at least one word" in await desk.refused("GET", "/search?q=%22")
    assert "q must have at most 500 characters" in await desk.refused("GET", f"/search?q={'x' * 501}")
    for path in ("/nobody", "/nobody/messages", "/nobody/branches", "/nobody/export"):
        assert "there is no session 'nobody'" in await desk.refused("GET", path, status=404)


async def test_page_by_page(desk: Desk) -> None:
    """``next`` leads on; archived ones are elsewhere."""
    titles = [f"s{number}" for number in range(5)]
    made = [await desk.new(title=title, pinned=title == "s1", archived=title == "s4") for title in titles]
    first = await desk.call("GET", "?limit=3")
    second = await desk.call("GET", f"?limit=3&after={first['next']}")
    assert [[row["title"] for row in page["sessions"]] for page in (first, second)] == [["s1", "s3", "s2"], ["s0"]]
    assert second["next"] is None
    assert (await desk.call("GET", "?archived=true"))["sessions"] == [made[4]]


async def test_deleted_for_a_while(desk: Desk) -> None:
    """It is among what is deleted, with the time at which it goes, and comes back as it was."""
    made = await desk.new(title="Sky", model="llama3.2:1b")
    path = f"/{made['id']}"
    await desk.call("DELETE", f"{path}?restorable_seconds=600")
    assert await desk.call("GET") == {"sessions": [], "next": None}
    (row,) = (await desk.call("GET", "?deleted=true"))["sessions"]
    assert row == made | {"erased_at": row["erased_at"]}
    left = datetime.fromisoformat(row["erased_at"]) - datetime.fromisoformat(made["created_at"])
    assert 600 <= left.total_seconds() < 660
    for method, below in (("GET", ""), ("PATCH", ""), ("GET", "/messages"), ("GET", "/export"), ("POST", "/cancel")):
        await desk.refused(method, f"{path}{below}", {} if method == "PATCH" else None, status=404)
    assert await desk.call("POST", f"{path}/restore") == made
    assert await desk.call("GET", "?q=sk&pinned=false&kind=chat&model=llama3.2:1b") == {
        "sessions": [made],
        "next": None,
    }
    assert (await desk.call("GET", "?pinned=true"))["sessions"] == []
    await desk.call("DELETE", path)
    assert "there is no session" in await desk.refused("POST", f"{path}/restore", status=404)


async def test_messages_and_branches(desk: Desk) -> None:
    """Oldest first, part by part; another branch is shown by naming one of its messages."""
    id_ = (await desk.new())["id"]
    await said(desk, id_, "q0", "a0")
    await said(desk, id_, "q1", "a1")
    await said(desk, id_, None, "b1", parent=2)
    told = await desk.call("GET", f"/{id_}/messages?limit=3")
    assert [(row["seq"], row["content"], row["siblings"]) for row in told["messages"]] == [
        (1, "a0", [1]),
        (2, "q1", [2]),
        (4, "b1", [3, 4]),
    ]
    assert (told["leaf"], told["earlier"]) == (4, 0)
    assert set(told["messages"][0]) == {
        *("seq", "parent", "role", "name", "content", "thinking", "images", "tool_calls", "model", "host", "state"),
        *("error", "generation", "usage", "timings", "created_at", "updated_at", "siblings"),
    }
    branches = (await desk.call("GET", f"/{id_}/branches"))["branches"]
    assert [(row["leaf"], row["shown"], row["forks_at"], row["preview"]) for row in branches] == [
        (4, True, 4, "b1"),
        (3, False, 2, "a1"),
    ]
    assert (await desk.call("PATCH", f"/{id_}", {"leaf": 3}))["leaf"] == 3
    told = await desk.call("GET", f"/{id_}/messages")
    assert [row["content"] for row in told["messages"]] == ["q0", "a0", "q1", "a1"]


async def test_search(desk: Desk) -> None:
    """Titles and messages."""
    id_ = (await desk.new(title="Цвет неба"))["id"]
    await said(desk, id_, "Why is the sky blue?", "Небо голубое.")
    found = await desk.call("GET", "/search?q=%D0%9D%D0%95%D0%91")  # НЕБ
    assert [row["title"] for row in found["sessions"]] == ["Цвет неба"]
    (hit,) = found["messages"]
    assert hit == {
        "session": id_,
        "title": "Цвет неба",
        "seq": 1,
        "role": "assistant",
        "kind": "chat",
        "excerpt": {"before": "", "hit": "Небо", "after": " голубое."},
        "created_at": hit["created_at"],
    }
    await said(desk, id_, "sky, sky", "-")
    first = await desk.call("GET", "/search?q=sky&limit=1")
    assert ([row["seq"] for row in first["messages"]], first["sessions"]) == ([2], [])
    rest = await desk.call("GET", f"/search?q=sky&limit=1&before={first['next']}")
    assert ([row["seq"] for row in rest["messages"]], rest["next"]) == ([0], None)


async def test_there_and_back(desk: Desk) -> None:
    """What was exported comes in as a session of its own; Markdown is for readers."""
    id_ = (await desk.new(title="Sky"))["id"]
    await said(desk, id_, "Why?", "So.")
    await said(desk, id_, None, "Thus.", parent=0)
    answer = await ask(desk.stage.url, "GET", f"/api/sessions/{id_}/export")
    (made,) = (await desk.call("POST", "/import", answer.body, status=201))["sessions"]
    assert made["id"] != id_
    old, new = [(await desk.call("GET", f"/{one}/messages"))["messages"] for one in (id_, made["id"])]
    assert old == new
    exports = b"[" + answer.body + b"," + answer.body + b"]"
    assert len((await desk.call("POST", "/import", exports, status=201))["sessions"]) == 2
    text = await desk.call("GET", f"/{id_}/export.md")
    assert text.get("Content-Type") == "text/markdown; charset=utf-8"
    assert text.body.decode().startswith("# Sky\n")
    assert "## User\n\nWhy?\n\n## Assistant · llama3.2:1b\n\nThus.\n" in text.body.decode()


async def test_from_open_webui(desk: Desk) -> None:
    """A list of chats, with all that no database would take."""
    history = {"messages": {"a": {"role": "user", "content": "\x00q\ud800"}}, "currentId": "a"}
    body = json.dumps([{"title": "Sky", "chat": {"history": history}}]).encode()
    (made,) = (await desk.call("POST", "/import", body, status=201))["sessions"]
    (message,) = (await desk.call("GET", f"/{made['id']}/messages"))["messages"]
    assert (made["title"], message["content"]) == ("Sky", "\ufffdq\ufffd")


async def test_the_body_of_an_import(desk: Desk) -> None:
    """What is exported is what the description of an import takes, whole, in a list, and beside a chat of Open WebUI's."""
    made = await desk.new(title="mine")
    told = await desk.call("GET", f"/{made['id']}/export")
    document = await desk.stage.get("/openapi.json")
    body = document["paths"]["/api/import"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    schema = Draft202012Validator(body | {"components": document["components"]})
    for good in (told, [told], [told, {"chat": {"history": {"messages": {}}}}], []):
        assert schema.is_valid(good)
        await desk.call("POST", "/import", good, status=201)
    for bad in ({"format": "corral.session"}, [{"chat": 5}], 7):
        assert not schema.is_valid(bad)
        await desk.refused("POST", "/import", bad)


async def test_imports_that_are_refused(desk: Desk) -> None:
    """The words say which session and why, and nothing of it is kept."""
    good = {"chat": {"history": {"messages": {}}}}
    assert "the import is no JSON" in await desk.refused("POST", "/import", b"{")
    assert "session 1 is neither an export of Corral" in await desk.refused("POST", "/import", [good, {"a": 1}])
    assert "session 0 is neither" in await desk.refused("POST", "/import", b"3")
    assert "session 1: chat.history is missing" in await desk.refused("POST", "/import", [good, {"chat": {}}])
    other = {"format": "other.session"}
    assert "format cannot be 'other.session'" in await desk.refused("POST", "/import", other)
    many = {"chat": {"history": {"messages": {str(n): {"role": "user"} for n in range(7_000)}}}}
    words = await desk.refused("POST", "/import", [many] * 3, status=413)
    assert "over 10000 messages, 14000 up to session 1" in words
    assert (await desk.call("GET"))["sessions"] == []


async def test_a_body_that_is_too_large(corral: Corral, file_url: str) -> None:
    """The same limit as everywhere."""
    database = {"url": file_url}
    desk = Desk(await corral(simulated(), database=database, relay={"body_limit_bytes": 2_000}))
    assert "over 2000 bytes" in await desk.refused("POST", "/import", b" " * 2_001, status=413)


async def test_no_database(corral: Corral) -> None:
    """503, and no word of trying again."""
    desk = Desk(await corral(simulated()))
    for method, path, body in (
        ("GET", "", None),
        ("POST", "", {}),
        ("GET", "/x/messages", None),
        ("GET", "/search?q=a", None),
    ):
        answer = await ask(desk.stage.url, method, url_of(path), None if body is None else json.dumps(body).encode())
        assert (answer.status, answer.get("Retry-After"), answer.get("X-Corral-Error")) == (
            503,
            None,
            "store_unavailable",
        )
        assert "nothing is kept here: database.url is none" in json.loads(answer.body)["error"]


@pytest.mark.parametrize("kind", ["postgresql"], indirect=True)
async def test_a_database_that_goes_and_comes(desk: Desk, postgres: Postgres) -> None:
    """503 with Retry-After meanwhile; nothing that was kept is lost."""
    made = await desk.new(title="Sky")
    postgres.stop(signal.SIGINT)
    answer = await ask(desk.stage.url, "GET", "/api/sessions")
    assert (answer.status, answer.get("Retry-After")) == (503, "2")
    postgres.start()
    database = desk.stage.gateway.database
    assert database is not None
    await until(lambda: database.state is State.UP, 20.0)
    assert await desk.call("GET", f"/{made['id']}") == made


@pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
async def test_what_a_gateway_left_behind(corral: Corral, url: str) -> None:
    """One that died in the middle of an answer: the next one ends it, and says so."""
    first = Desk(await corral(simulated(), database={"url": url}))
    id_ = (await first.new())["id"]
    turns = first.stage.gateway.sessions.turns
    await turns.begin_turn("", id_, generation="g1", replica="r1", said=[NewMessage(content="q")])
    await turns.checkpoint("", id_, 1, "g1", content="half")
    await first.stage.stop()
    second = Desk(await corral(simulated("gpu2"), database={"url": url}))
    while (await second.call("GET", f"/{id_}"))["running"]:
        pass
    answer = (await second.call("GET", f"/{id_}/messages"))["messages"][-1]
    assert (answer["content"], answer["state"]) == ("half", "error")
    assert answer["error"].startswith("broken off")


async def test_nothing_runs_in_a_session(desk: Desk) -> None:
    """It can be cancelled all the same; only one that is not there is a 404."""
    made = await desk.new(title="Quiet")
    stopped = await desk.call("POST", f"/{made['id']}/cancel")
    assert stopped == {"id": made["id"], "cancelled": 0, "already": True, "generations": [], "elsewhere": 0}
    assert "no session" in await desk.refused("POST", "/nothing/cancel", status=404)


@pytest.mark.parametrize("value", ["12345678901234567890123", "[" * 98 + "]" * 98], ids=["huge", "deep"])
async def test_odd_options_do_not_spoil_the_list(desk: Desk, value: str) -> None:
    """What orjson cannot write is written all the same, beside times."""
    made = await desk.call("POST", "", b'{"options":{"a":%b}}' % value.encode(), status=201)
    assert made["options"] == {"a": json.loads(value)}
    assert made["created_at"].endswith("+00:00")
    assert await desk.call("GET") == {"sessions": [made], "next": None}


@pytest.mark.parametrize("levels", [99, 950, 5000])
async def test_what_is_nested_too_deeply(desk: Desk, levels: int) -> None:
    """Is refused before it is kept: no list that holds it could be told."""
    made = await desk.new(options={"a": 1})
    path = f"/{made['id']}"
    text = b'{"options":{"a":' + b"[" * levels + b"]" * levels + b"}}"
    for method, where in (("POST", ""), ("PATCH", path), ("POST", f"{path}/chat")):
        assert await desk.refused(method, where, text) == "body: nested more than 100 deep"
    calls = b'{"message":{"role":"tool","content":"x","tool_calls":[{"a":' + b"[" * levels + b"]" * levels + b"}]}}"
    assert await desk.refused("POST", f"{path}/chat", calls) == "body: nested more than 100 deep"
    brought = b'{"format":"corral.session","session":' + text + b"}"
    words = await desk.refused("POST", "/import", brought)
    assert words == "session 0 is nested more than 100 deep" or "the import is no JSON" in words
    assert await desk.call("GET") == {"sessions": [made], "next": None}


async def test_half_a_character_in_a_tool_call(desk: Desk) -> None:
    """It can be read and exported."""
    at = "2026-01-01T00:00:00Z"
    times = {"created_at": at, "updated_at": at}
    message = {"seq": 0, "parent": None, "role": "assistant", "content": "hi", "tool_calls": [{"a": "\ud800"}], **times}
    body = {"format": "corral.session", "version": 1, "session": times, "messages": [message]}
    (kept,) = (await desk.call("POST", "/import", body, status=201))["sessions"]
    (told,) = (await desk.call("GET", f"/{kept['id']}/messages"))["messages"]
    assert told["tool_calls"] == [{"a": "\ufffd"}]
    assert b"\xef\xbf\xbd" in (await desk.call("GET", f"/{kept['id']}/export.md")).body
    for edge in ("9999-12-31T23:59:59-01:00", "0001-01-01T00:00:00+01:00"):
        text = await desk.refused("POST", "/import", body | {"messages": [message | {"updated_at": edge}]})
        assert "a time is before the year 1 or after 9999" in text


async def test_what_no_database_takes(desk: Desk) -> None:
    """A NUL in a name, a step without an end."""
    for path in ("/a%00b", "/a%00b/messages"):
        assert "there is no session" in await desk.refused("GET", path, status=404)
    assert "after is not what `next`" in await desk.refused("GET", "?after=0-1-%00")
    answer = await ask(desk.stage.url, "GET", "/api/stats/timeseries?range=9999999w&step=9999999w")
    assert (answer.status, json.loads(answer.body)["error"]) == (400, "step=9999999w is too long")
