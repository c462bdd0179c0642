"""A key before the path: for tools that can send one no other way. Nothing else hears of it."""

import base64
import json
from pathlib import Path

import ollama
import pytest

from gateway.access.keys import digest, make
from gateway.api.caller import keyless
from gateway.keyconfig import KeyConfig
from tests.builders import ONE_EACH, TEXT, call, simulated
from tests.conftest import Corral
from tests.contract.raw import Answer, ask
from tests.stage import Client, Stage

KEY, OTHER = make(lambda size: b"\x07" * size), make(lambda size: b"\x08" * size)
KEYS = (KeyConfig("ann", digest(KEY)), KeyConfig("bob", digest(OTHER)))
WAYS = {
    "bearer": ("", {"Authorization": f"Bearer {KEY}"}),
    "x-api-key": ("", {"x-api-key": KEY}),
    "basic": ("", {"Authorization": "Basic " + base64.b64encode(f"me:{KEY}".encode()).decode()}),
    "path": (f"/k/{KEY}", {}),
    "path and a word": (f"/k/{KEY}", {"Authorization": "Bearer ollama", "x-api-key": "none"}),
}


async def staged(corral: Corral, *, enabled: bool = True, prefix: str = "") -> Stage:
    """A gateway where nobody may do anything without a key."""
    stage = await corral(simulated(), keys=KEYS, access={"key_in_path": enabled}, http={"prefix": prefix})
    stage.key = KEY
    return stage


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("path", ONE_EACH)
async def test_every_way(corral: Corral, path: str, way: str) -> None:
    """To send a key; streamed or not, and for what is no inference."""
    stage = await staged(corral)
    before, headers = WAYS[way]
    for stream in (True, False):
        asked = call(path, stream=stream, headers=headers)
        answer = await ask(stage.url, "POST", before + path, asked.body, asked.headers)
        assert (answer.status, answer.get("X-Corral-Host")) == (200, "gpu1")
    assert (await ask(stage.url, "GET", f"{before}/api/tags", b"", headers)).status == 200
    assert (await ask(stage.url, "GET", f"{before}/", b"", headers)).status == 200
    assert [record.principal for record in await stage.records.until(2)] == ["ann", "ann"]


TWICE = {
    "bearer and x-api-key": ("", (f"Authorization: Bearer {KEY}", f"x-api-key: {OTHER}")),
    "two bearers": ("", (f"Authorization: Bearer {KEY}", f"Authorization: Bearer {OTHER}")),
    "one that is not known": ("", (f"Authorization: Bearer {KEY}", f"x-api-key: {KEY}x")),
    "before the path and bearer": (f"/k/{KEY}", (f"Authorization: Bearer {OTHER}",)),
}


async def written(stage: Stage, method: str, path: str, lines: tuple[str, ...], body: bytes = b"") -> Answer:
    """The answer to a request with these lines in its head, a header twice if they say so."""
    head = (f"{method} {path} HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}", *lines, "", "")
    async with Client.to(stage.url) as client:
        await client.write("\r\n".join(head).encode() + body, method)
        return await client.answer()


@pytest.mark.parametrize("way", TWICE)
async def test_two_different_keys(corral: Corral, way: str) -> None:
    """Are refused in the caller's dialect, whose ever they are: nobody guesses who asks. Whether this is alive is told all the same."""
    stage = await staged(corral)
    before, lines = TWICE[way]
    for path in ONE_EACH:
        answer = await written(stage, "POST", before + path, lines, call(path).body)
        assert (answer.status, answer.get("X-Corral-Error")) == (400, "bad_request")
        error = json.loads(answer.body)["error"]
        assert (error if path.startswith("/api") else error["message"]) == "two different keys in one request: send one"
    for path, status in (("/api/tags", 400), ("/v1/models", 400), ("/healthz", 200)):
        assert (await written(stage, "GET", before + path, lines)).status == status
    assert not stage["gpu1"].ledger.entries


async def test_one_key_twice(corral: Corral) -> None:
    """Is one; and what is none of ours is not looked at, wherever it stands."""
    stage = await staged(corral)
    bearer, word = f"Authorization: Bearer {KEY}", "Authorization: Bearer ollama"
    for lines in ((bearer, f"x-api-key: {KEY}"), (bearer, bearer), (word, bearer), (word, f"x-api-key: {KEY}")):
        assert (await written(stage, "POST", "/api/chat", lines, call("/api/chat").body)).status == 200
        assert (await written(stage, "GET", "/api/tags", lines)).status == 200
    assert (await written(stage, "GET", f"/k/{KEY}/api/tags", (bearer,))).status == 200
    assert [record.principal for record in await stage.records.until(4)] == ["ann"] * 4


@pytest.mark.parametrize(
    ("path", "status"),
    [
        (f"/k/{KEY}", 200),
        (f"/k/{KEY}?x=1", 200),
        (f"/k/{KEY}/corral/api/tags", 200),
        (f"/corral/k/{KEY}/api/tags", 200),
        (f"/k/{KEY}x/api/tags", 401),
        (f"/k/{KEY}/api/nothing", 404),
        (f"/k/{KEY}/k/{KEY}/api/tags", 404),
        (f"/api/k/{KEY}/api/tags", 404),
        ("/k/crl_/api/tags", 404),
        ("/k/none/api/tags", 404),
    ],
)
async def test_how_it_is_written(corral: Corral, path: str, status: int) -> None:
    """Once, at the beginning, before or behind the prefix."""
    stage = await staged(corral, prefix="/corral")
    assert (await ask(stage.url, "GET", path)).status == status


async def test_where_it_is_not_enabled(corral: Corral) -> None:
    """There is no such path."""
    stage = await staged(corral, enabled=False)
    for method, path in (("GET", "/api/tags"), ("POST", "/api/chat")):
        answer = await ask(stage.url, method, f"/k/{KEY}{path}", call("/api/chat").body if method == "POST" else b"")
        assert (answer.status, answer.body) == (404, b"404 page not found")


async def test_detached_by_a_key_in_the_path(corral: Corral) -> None:
    """Where it can be read is told without the key."""
    stage = await staged(corral)
    answer = await ask(stage.url, "POST", f"/k/{KEY}/api/generate?detach=true", call("/api/generate").body)
    told = json.loads(answer.body)
    assert told["stream"] == f"/api/generations/{told['id']}/stream"
    read = await ask(stage.url, "GET", f"/k/{KEY}{told['stream']}")
    assert (read.status, TEXT in read.body.decode()) == (200, True)


def test_what_is_logged_has_no_key() -> None:
    """Wherever somebody wrote it."""
    assert keyless(f"//k/{KEY}/api/tags") == "//k/crl_…/api/tags"
    assert keyless(f"/k/cr%6C%5f{KEY[4:]}/api/tags") == "/k/crl_…/api/tags"
    assert keyless("/api/tags%20") == "/api/tags%20"


async def test_the_log_of_requests(corral: Corral, tmp_path: Path) -> None:
    """Has the path, and no key, however the path was written."""
    log = tmp_path / "corral0.log"
    stage = await corral(simulated(), keys=KEYS, log={"access": True, "path": str(log)}, access={"key_in_path": True})
    stage.key = KEY
    for path in (f"/k/{KEY}/api/tags", f"//k/{KEY}/api/tags", f"/api/k/{KEY}"):
        await ask(stage.url, "GET", path)
    await stage.finish()
    told = log.read_text(encoding="utf-8")
    assert '"path":"/api/tags"' in told
    assert KEY not in told


async def test_a_real_client(corral: Corral) -> None:
    """Ollama's own library, with the key in OLLAMA_HOST, and with the key that it takes from the environment."""
    stage = await corral(simulated(), keys=KEYS, access={"key_in_path": True})
    stage.key = KEY
    for client in (
        ollama.AsyncClient(f"{stage.url}/k/{KEY}"),
        ollama.AsyncClient(stage.url, headers={"Authorization": f"Bearer {KEY}"}),
    ):
        told = await client.generate(TEXT, "hello", options={"num_predict": 2})
        assert told["done"]
        assert [model.model for model in (await client.list()).models]
        await client.close()
