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
from tests.contract.raw import ask
from tests.stage import Stage

KEY = make(lambda size: b"\x07" * size)
KEYS = (KeyConfig("ann", digest(KEY)),)
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
