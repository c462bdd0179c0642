"""Several people behind one key: what each asks and says is their own, and nobody says who they are whose word does not count."""

import json
from pathlib import Path
from typing import Any

import pytest

from gateway.access.keys import digest, make
from gateway.errors import ConfigError
from gateway.keyconfig import AccessConfig, KeyConfig, check_access
from tests.builders import TEXT, call, simulated
from tests.conftest import Corral
from tests.contract.raw import Answer, ask
from tests.stage import Client, Stage

APP, CI, OP = (make(lambda size, byte=byte: bytes([byte]) * size) for byte in range(3))  # type: ignore[misc]
KEYS = (
    KeyConfig("app", digest(APP), rpm=4),
    KeyConfig("ci", digest(CI)),
    KeyConfig("op", digest(OP), "operator"),
)
ANN, BOB = "ann@example.org", "Борис"
TALK = {"message": {"content": "Why are aardvarks?"}, "options": {"num_predict": 3}}
QUESTION = TALK | {"stream": False}


async def staged(corral: Corral, tmp_path: Path, **access: Any) -> Stage:
    """A gateway that believes the app, and nobody else."""
    database = {"url": f"sqlite:///{tmp_path}/corral.db"}
    stage = await corral(simulated(), keys=KEYS, access={"user_keys": ("app",)} | access, database=database, slots=4)
    stage.key = OP
    return stage


def head(key: str, user: str | None = None) -> dict[str, str]:
    """The headers of who asks with a key, for somebody."""
    return {"Authorization": f"Bearer {key}"} | ({} if user is None else {"X-Corral-User": _bytes(user)})


def _bytes(text: str) -> str:
    """UTF-8 as the tests' client writes it, which knows Latin-1."""
    return text.encode().decode("latin-1")


async def by(stage: Stage, key: str, user: str | None, method: str, path: str, body: Any = None) -> Answer:
    """What somebody is answered behind a key."""
    return await ask(stage.url, method, path, b"" if body is None else json.dumps(body).encode(), head(key, user))


async def titles(stage: Stage, user: str | None) -> list[str]:
    """The sessions that somebody has behind the app."""
    answer = await by(stage, APP, user, "GET", "/api/sessions")
    return [one["title"] for one in json.loads(answer.body)["sessions"]]


async def test_each_has_their_own(corral: Corral, tmp_path: Path) -> None:
    """Sessions, what runs, what ran and the sums of it; others behind the same key, and the key itself, do not see them."""
    stage = await staged(corral, tmp_path)
    made = await by(stage, APP, ANN, "POST", "/api/sessions", {"title": "aardvarks", "model": TEXT})
    path = f"/api/sessions/{json.loads(made.body)['id']}"
    assert (await by(stage, APP, ANN, "POST", f"{path}/chat", QUESTION)).status == 200
    for other in (BOB, None):
        for method, part, body in (
            ("GET", "", None),
            ("GET", "/messages", None),
            ("POST", "/chat", QUESTION),
            ("DELETE", "", None),
        ):
            assert (await by(stage, APP, other, method, path + part, body)).status == 404, (other, method, part)
        assert await titles(stage, other) == []
    assert await titles(stage, ANN) == ["aardvarks"]
    (record,) = await stage.records.until(1)
    assert record.principal == f"app/{ANN}"
    assert json.loads((await by(stage, APP, BOB, "GET", "/api/generations?kept=true")).body)["generations"] == []
    assert (await by(stage, APP, BOB, "GET", f"/api/generations/{record.id}")).status == 404
    assert (await by(stage, APP, ANN, "GET", f"/api/generations/{record.id}")).status == 200


async def test_what_goes_on_by_itself(corral: Corral, tmp_path: Path) -> None:
    """A detached turn, its stream and a conversation of several models are the person's too."""
    stage = await staged(corral, tmp_path)
    made = await by(stage, APP, BOB, "POST", "/api/sessions", {"model": TEXT})
    path = f"/api/sessions/{json.loads(made.body)['id']}/chat"
    begun = json.loads((await by(stage, APP, BOB, "POST", path, {"detach": True} | TALK)).body)
    stream = begun["stream"]
    assert (await by(stage, APP, ANN, "GET", stream)).status == 404
    assert (await by(stage, APP, BOB, "GET", stream)).status == 200
    wish = {"topic": "hello", "participants": [{"model": TEXT}] * 2, "turns": 2, "stream": False}
    assert (await by(stage, APP, BOB, "POST", "/api/chat/multi-model", wish)).status == 200
    assert {record.principal for record in await stage.records.until(3)} == {f"app/{BOB}"}


async def test_the_keys_limits_are_everybodys(corral: Corral, tmp_path: Path) -> None:
    """One allowance for all who ask through it, whoever asks; each may see how it stands, and no metric has their names."""
    stage = await staged(corral, tmp_path)
    for user in (ANN, BOB, ANN, None):
        answer = await stage.ask(call("/api/chat", headers=head(APP, user), options={"num_predict": 1}))
        assert answer.status == 200
    refused = await stage.ask(call("/v1/chat/completions", headers=head(APP, BOB)))
    assert (refused.status, refused.get("X-Corral-Error")) == (429, "rate_limit_exceeded")
    assert "'app'" in refused.body.decode()
    (row,) = json.loads((await by(stage, APP, ANN, "GET", "/api/usage")).body)["keys"]
    assert (row["name"], row["minute_requests"]) == ("app", 4)
    metrics = (await by(stage, OP, None, "GET", "/metrics")).body.decode()
    assert "ann@" not in metrics


async def asked(stage: Stage, path: str, headers: dict[str, str]) -> Answer:
    """The answer to plain inference there, or to a look at the sessions."""
    if path == "/api/sessions":
        return await ask(stage.url, "GET", path, b"", headers)
    return await stage.ask(call(path, headers=headers))


REFUSED = (
    (CI, ANN, 403),
    (OP, ANN, 403),
    ("", ANN, 403),
    (APP, "", 400),
    (APP, "   ", 400),
    (APP, "a" * 65, 400),
    (APP, "tab\tbed", 400),
    (APP, "\x85", 400),
    (APP, _bytes("ann\x85"), 400),  # these are not ann, and are not to become her
    (APP, _bytes("ann\N{NO-BREAK SPACE}"), 400),
    (APP, _bytes("\N{IDEOGRAPHIC SPACE}ann"), 400),
)


async def test_whose_word_does_not_count(corral: Corral, tmp_path: Path) -> None:
    """Is told so, with and without a key: else its people would be one, and not know."""
    stage = await staged(corral, tmp_path, anonymous="full")
    for key, user, status in REFUSED:
        headers = ({"Authorization": f"Bearer {key}"} if key else {}) | {"X-Corral-User": user}
        for path in ("/api/chat", "/v1/messages", "/api/sessions"):
            answer = await asked(stage, path, headers)
            assert (answer.status, b"X-Corral-User" in answer.body) == (status, True), (key, user, path)
        assert (await ask(stage.url, "GET", "/", b"", headers)).status == 200


async def test_where_nobody_has_a_key(corral: Corral) -> None:
    """Nobody is told apart, so nobody may think so."""
    stage = await corral(simulated())
    for path in ("/api/chat", "/v1/messages", "/api/sessions"):
        for user in (ANN, "", "  "):
            answer = await asked(stage, path, {"X-Corral-User": user})
            assert (answer.status, answer.get("X-Corral-Error")) == (403, "not_allowed"), (path, user)
    assert not stage["gpu1"].ledger.entries


async def test_two_people_at_once(corral: Corral, tmp_path: Path) -> None:
    """A header that is there twice names nobody."""
    stage = await staged(corral, tmp_path)
    body = call("/api/chat").body
    lines = ("Host: localhost", f"Authorization: Bearer {APP}", f"X-Corral-User: {ANN}", "X-Corral-User: eve")
    head = ("POST /api/chat HTTP/1.1", *lines, f"Content-Length: {len(body)}", "", "")
    async with Client.to(stage.url) as client:
        await client.write("\r\n".join(head).encode() + body, "POST")
        answer = await client.answer()
    assert (answer.status, answer.get("X-Corral-Error")) == (400, "bad_request")
    assert not stage["gpu1"].ledger.entries


def test_what_can_be_no_key() -> None:
    """Is said when the configuration is read."""
    check_access(AccessConfig(user_keys=("app",)))
    with pytest.raises(ConfigError, match=r"access\.user_keys: 'no spaces' is no key's name"):
        check_access(AccessConfig(user_keys=("no spaces",)))
