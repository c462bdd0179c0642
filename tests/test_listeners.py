"""Several places to listen at: Unix sockets, and one for operators and their machines."""

import json
import socket
from pathlib import Path
from typing import Any

import pytest

from gateway.access.keys import digest, make
from gateway.access.rights import NEEDS, Right, behind
from gateway.app import Gateway
from gateway.keyconfig import KeyConfig
from gateway.listeners import CannotListen
from tests.builders import call, config, simulated
from tests.conftest import Corral
from tests.contract.raw import Answer, ask
from tests.stage import Stage

ROOT = make(lambda size: b"\1" * size)
ADMIN = KeyConfig("root", digest(ROOT), "admin")
ELSEWHERE = "0.0.0.0:0"
NEAR = "127.0.0.1:0"


def urls(stage: Stage) -> list[str]:
    """Of every place, the one for operators last."""
    return [str(one) for one in stage.gateway.listeners]


async def status(url: str, endpoint: str, key: str = "") -> int:
    """Of the answer to ``METHOD /path``."""
    method, _, path = endpoint.partition(" ")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return (await ask(url, method, path, b"{}" if method == "POST" else None, headers)).status


# -- Unix sockets -----------------------------------------------------------------------------------------------------------------


@pytest.mark.every_loop
async def test_a_unix_socket(corral: Corral, tmp_path: Path) -> None:
    """Streams as any other place does, by whatever Host; its callers are on this machine; at the stop the file is gone."""
    path = tmp_path / "corral.sock"
    stage = await corral(simulated(), listen=f"unix:{path}, {NEAR}")
    unix, tcp = urls(stage)
    assert unix == f"unix:{path}" == stage.url
    sent = call("/api/generate", tokens=20)
    for url in (unix, tcp):
        answer = await ask(url, "POST", sent.path, sent.body, {"Host": "ai.example.com"} if url == unix else {})
        assert answer.status == 200
        assert len(answer.body.splitlines()) == 21
    assert await status(unix, "POST /api/hosts/gpu1/drain") == 200
    assert (await ask(unix, "OPTIONS", "/api/tags", None, {"Host": "ai.example.com"})).status != 403
    records = await stage.records.until(2)
    assert [record.client for record in records] == ["unix", "127.0.0.1"]
    await stage.stop()
    assert not path.exists()


async def test_who_leaves_a_unix_socket(corral: Corral, tmp_path: Path) -> None:
    """Their generation ends as any other."""
    stage = await corral(simulated(tokens_per_second=20.0), listen=f"unix:{tmp_path}/corral.sock")
    sent = call("/api/generate", tokens=1000)
    async with stage.begun(sent, session="gone") as client:
        await stage.row("gone", "streaming")
        await client.close()
        record = await stage.records.of("gone")
    assert (record.outcome, record.cancelled_by) == ("cancelled", "client_disconnect")


async def test_a_unix_socket_that_is_taken(corral: Corral, tmp_path: Path) -> None:
    """The second start fails and says so; the first goes on."""
    path = tmp_path / "corral.sock"
    host = simulated()
    stage = await corral(host, listen=f"unix:{path}")
    second = Gateway(config([("gpu1", host.url)], listen=f"unix:{path}"))
    with pytest.raises(CannotListen, match="another process listens there") as taken:
        await second.start()
    assert str(taken.value.place) == f"unix:{path}"
    assert await status(stage.url, "GET /healthz") == 200


# -- a place for operators --------------------------------------------------------------------------------------------------------


async def test_what_is_where(corral: Corral) -> None:
    """What the table says: metrics, hosts and management for operators alone, everything else at both; liveness, too."""
    stage = await corral(simulated(), listen=NEAR, admin={"listen": NEAR})
    public, admin = urls(stage)
    assert public == stage.url
    wrong = {}
    for endpoint, right in NEEDS.items():
        path = endpoint.replace("{name}", "nobody").replace("{digest}", f"sha256:{'0' * 64}").replace("{key}", "k")
        if "{" in path:
            continue
        hidden = behind(*endpoint.split(" "))
        assert hidden is (right not in (Right.NONE, Right.READ, Right.INFER, Right.OWN) or endpoint == "GET /readyz")
        answers = [await raw(url, path) for url in (public, admin)]
        there = [answer.body not in (b"404 page not found", b"405 method not allowed") for answer in answers]
        head = path.startswith("HEAD") and [answer.status != 404 or answer.get("X-Corral-Error") for answer in answers]
        if not head and there != [not hidden, True]:
            wrong[endpoint] = there
    assert wrong == {}
    assert await status(public, "GET /healthz") == await status(admin, "GET /healthz") == 200


async def raw(url: str, endpoint: str) -> Answer:
    """The whole answer to ``METHOD /path``."""
    method, _, path = endpoint.partition(" ")
    return await ask(url, method, path, b"{}" if method == "POST" else None)


async def test_what_each_place_says_of_itself(corral: Corral) -> None:
    """The description lists what is there, the log says where what is."""
    stage = await corral(simulated(), listen=NEAR, admin={"listen": NEAR})
    public, admin = [set(json.loads((await ask(url, "GET", "/openapi.json")).body)["paths"]) for url in urls(stage)]
    assert public < admin
    assert {"/metrics", "/api/fleet", "/api/keys"} <= admin - public
    first, second = urls(stage)
    assert str(stage.gateway.listeners) == f"{first} (admin: {second})"


@pytest.mark.parametrize(
    ("public", "admin", "keys", "expected"),
    [
        pytest.param(ELSEWHERE, NEAR, (), (200, 401, 200), id="others may infer, who is on this machine may all"),
        pytest.param(NEAR, ELSEWHERE, (), (200, 200, 401), id="the other way round"),
        pytest.param(ELSEWHERE, NEAR, (ADMIN,), (401, 401, 401), id="with keys nobody may anything without one"),
    ],
)
async def test_who_may_what_where(
    corral: Corral, file_url: str, public: str, admin: str, keys: Any, expected: tuple[int, int, int]
) -> None:
    """What callers without a key may depends on the place that they came in by, not on the first one that is configured."""
    database = {"url": file_url}
    stage = await corral(simulated(), listen=public, admin={"listen": admin}, keys=keys, database=database)
    stage.key = ROOT if keys else ""
    one, two = urls(stage)
    found = (
        await status(one, "GET /api/tags"),
        await status(one, "GET /api/sessions"),
        await status(two, "GET /api/keys"),
    )
    assert found == expected
    if keys:
        assert await status(two, "GET /api/keys", ROOT) == 200
        assert await status(one, "GET /api/sessions", ROOT) == 200
        assert await status(one, "GET /api/keys", ROOT) == 404


async def test_a_place_that_cannot_be_had(corral: Corral, tmp_path: Path) -> None:
    """It is named, and nothing stays open of those before it."""
    host = simulated()
    stage = await corral(host)
    _, _, port = stage.url.rpartition(":")
    path = tmp_path / "corral.sock"
    second = Gateway(config([("gpu1", host.url)], listen=f"unix:{path}", admin={"listen": f"127.0.0.1:{port}"}))
    with pytest.raises(CannotListen) as taken:
        await second.start()
    assert str(taken.value.place) == f"127.0.0.1:{port}"
    assert not path.exists()
    with socket.socket(socket.AF_UNIX) as sock, pytest.raises(FileNotFoundError):
        sock.connect(str(path))
