"""Who may come in, over real sockets: keys made by the API and by hand, what they are good for, and what is written down."""

import asyncio
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from dashboard.gateway import Gateway as App
from dashboard.gateway import GatewayError
from gateway.access.keys import PREFIX, digest, make
from gateway.keyconfig import AccessConfig, KeyConfig
from gateway.loader import api_key
from gateway.reload import LIVE
from gateway.top.asking import Unreachable, looked
from tests.builders import EMBEDDING, ONE_EACH, OTHER, TEXT, call, simulated
from tests.conftest import Corral
from tests.contract.raw import Answer, Connection, ask
from tests.stage import Stage

ROOT, ANN, BOB = (make(lambda size, byte=byte: bytes([byte]) * size) for byte in range(3))  # type: ignore[misc]
KEYS = (
    KeyConfig("root", digest(ROOT), "admin"),
    KeyConfig("ann", digest(ANN)),
    KeyConfig("op", digest(BOB), "operator"),
)


def kept(file_url: str) -> dict[str, Any]:
    """A configuration with a database."""
    return {"database": {"url": file_url}}


async def by(stage: Stage, key: str, method: str, path: str, body: Any = None) -> Answer:
    """What a caller with that key is answered."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return await ask(stage.url, method, path, b"" if body is None else json.dumps(body).encode(), headers)


async def test_from_the_first_key_on(corral: Corral, file_url: str, database_file: Path) -> None:
    """Nobody needs one until there is one; a revoked one is no good at once; all of it is written down, and no key is."""
    stage = await corral(simulated(), **kept(file_url))
    assert stage.gateway.access.gate.open
    made = await by(stage, "", "POST", "/api/keys", {"name": "root", "role": "admin"})
    root = stage.key = json.loads(made.body)["key"]
    assert (made.status, root.startswith(PREFIX)) == (201, True)
    turned_away = await by(stage, "", "GET", "/api/keys")
    assert (turned_away.status, turned_away.get("X-Corral-Error")) == (401, "unauthorized")
    assert turned_away.get("WWW-Authenticate") == 'Bearer realm="corral"'
    ann = json.loads((await by(stage, root, "POST", "/api/keys", {"name": "ann", "expires": "2099-12-31"})).body)
    assert (ann["facts"]["role"], ann["facts"]["expires_at"]) == ("user", "2100-01-01T00:00:00+00:00")
    assert (await by(stage, ann["key"], "POST", "/api/keys", {"name": "eve"})).status == 403
    for name in ("ann", "Ann", "Root", "anonymous"):
        assert (await by(stage, root, "POST", "/api/keys", {"name": name})).status == 409
    limited = await by(stage, root, "POST", "/api/keys", {"name": "op", "role": "operator", "models": ["llama3*"]})
    assert (limited.status, "only a user's key" in limited.body.decode()) == (409, True)
    turned = json.loads((await by(stage, root, "POST", "/api/keys/ann/rotate")).body)["key"]
    assert (await by(stage, ann["key"], "GET", "/api/tags")).status == 401
    assert (await by(stage, turned, "GET", "/api/tags")).status == 200
    listed = json.loads((await by(stage, root, "GET", "/api/keys")).body)["keys"]
    assert [(one["name"], one["role"]) for one in listed] == [("ann", "user"), ("root", "admin")]
    assert (await by(stage, root, "DELETE", "/api/keys/ann")).status == 200
    assert (await by(stage, root, "DELETE", "/api/keys/ann")).status == 404
    assert (await by(stage, turned, "GET", "/api/tags")).status == 401
    await stage.gateway.access.audit.write()
    deeds = json.loads((await by(stage, root, "GET", "/api/audit?limit=100")).body)["deeds"]
    assert [(one["principal"], one["role"], one["operation"], one["target"], one["status"]) for one in deeds[::-1]] == [
        ("", "", "POST /api/keys", "root", 201),
        ("root", "admin", "POST /api/keys", "ann", 201),
        ("ann", "user", "POST /api/keys", "", 403),
        *(("root", "admin", "POST /api/keys", name, 409) for name in ("ann", "Ann", "Root", "anonymous", "op")),
        ("root", "admin", "POST /api/keys/{name}/rotate", "ann", 200),
        ("root", "admin", "DELETE /api/keys/{name}", "ann", 200),
        ("root", "admin", "DELETE /api/keys/{name}", "ann", 404),
    ]
    await stage.finish()
    log = stage.log.read_text(encoding="utf-8")
    assert "ann (user) from 127.0.0.1: POST /api/keys: 403" in log
    assert root not in log
    assert root not in database_file.read_bytes().decode("latin-1")  # noqa: ASYNC240 - the gateway has ended


async def test_many_at_once(corral: Corral, file_url: str) -> None:
    """One key of a name is made, one is good after all turned it, and one revokes it."""
    stage = await corral(simulated(), **kept(file_url))
    root = stage.key = json.loads((await by(stage, "", "POST", "/api/keys", {"name": "root", "role": "admin"})).body)[
        "key"
    ]

    async def all_at_once(method: str, path: str, body: Any = None) -> list[Answer]:
        return await asyncio.gather(*(by(stage, root, method, path, body) for _ in range(10)))

    made = await all_at_once("POST", "/api/keys", {"name": "ann"})
    assert sorted(answer.status for answer in made) == [201] + [409] * 9
    turned = [json.loads(answer.body)["key"] for answer in await all_at_once("POST", "/api/keys/ann/rotate")]
    assert sorted([(await by(stage, key, "GET", "/api/tags")).status for key in turned]) == [200] + [401] * 9
    gone = await all_at_once("DELETE", "/api/keys/ann")
    assert sorted(answer.status for answer in gone) == [200] + [404] * 9


async def test_a_key_that_is_revoked_in_a_stream(corral: Corral, file_url: str) -> None:
    """What runs goes on to its end, whole; the next request of the same connection is refused."""
    host = simulated()
    stage = await corral(host, **kept(file_url))
    root = stage.key = json.loads((await by(stage, "", "POST", "/api/keys", {"name": "root", "role": "admin"})).body)[
        "key"
    ]
    ann = json.loads((await by(stage, root, "POST", "/api/keys", {"name": "ann"})).body)["key"]
    host.faults.set("hang_mid_stream", after_chunks=2, times=1)
    sent = call("/api/generate", tokens=20, headers={"x-api-key": ann})
    async with Connection.to(stage.url) as client:
        await client.send("POST", sent.path, sent.body, sent.headers)
        await client.head()
        assert (await by(stage, root, "POST", "/api/keys/ann/rotate")).status == 200
        assert (await by(stage, root, "DELETE", "/api/keys/ann")).status == 200
        host.faults.clear()
        body = b""
        while (chunk := await client.chunk()) is not None:
            body += chunk
        assert len(body.splitlines()) == 21
        await client.send("POST", sent.path, sent.body, sent.headers)
        assert (await client.answer()).status == 401
    assert (await stage.records.until(1))[0].principal == "ann"


OTHERS = [
    *(OTHER.upper(), f"{OTHER} ", f" {OTHER}", f"library/{OTHER}", f"http://registry.ollama.ai/library/{OTHER}"),
    *(f"{OTHER}@gpu2", f"smollm2:135m@{OTHER}", f"smollm2:135m/../{OTHER}", f"smollm2:\n{OTHER}", "smollm2:*"),
    *(f"//{OTHER}", OTHER.replace(":", "%3A"), OTHER.replace("l", "\u017f")),
]


@pytest.mark.parametrize("path", ["/api/generate", "/v1/chat/completions", "/v1/messages", "/api/show"])
async def test_spellings_of_another_model(corral: Corral, path: str) -> None:
    """None of them gets a limited key to it, with names at hosts and without."""
    limited = KeyConfig("ann", digest(ANN), models=("smollm2:*",), hosts=("gpu2",))
    for at_host in (False, True):
        hosts = simulated("gpu1"), simulated("gpu2")
        stage = await corral(*hosts, keys=(limited,), relay={"model_at_host": at_host})
        stage.key = ANN
        body = (
            b'{"model":%b}' if path == "/api/show" else call(path, TEXT).body.replace(json.dumps(TEXT).encode(), b"%b")
        )
        answers = {
            name: (
                await ask(stage.url, "POST", path, body.replace(b"%b", json.dumps(name).encode()), {"x-api-key": ANN})
            ).status
            for name in OTHERS
        }
        assert {name: status for name, status in answers.items() if status not in (400, 403, 404)} == {}
        assert [host.ledger.tokens_generated for host in hosts] == [0, 0]


async def test_the_last_key_is_revoked(corral: Corral, file_url: str) -> None:
    """Which lets nobody in, not even on loopback: not its holder, not who has none, not who invents one."""
    stage = await corral(simulated(), **kept(file_url))
    root = stage.key = json.loads((await by(stage, "", "POST", "/api/keys", {"name": "root", "role": "admin"})).body)[
        "key"
    ]
    assert (await by(stage, root, "DELETE", "/api/keys/root")).status == 200
    for key in (root, "", PREFIX + "A" * 43):
        assert (await by(stage, key, "POST", "/api/keys", {"name": "evil", "role": "admin"})).status == 401
        assert (await by(stage, key, "GET", "/api/tags")).status == 401
    stage.gateway.access.configure(dataclasses.replace(stage.gateway.config, access=AccessConfig(anonymous="full")))
    assert (await by(stage, "", "GET", "/api/tags")).status == 200
    assert (await by(stage, root, "GET", "/api/tags")).status == 401


async def test_what_was_managed(corral: Corral, file_url: str) -> None:
    """By whom, what and with what result; also an unload, and what a key was not good for."""
    stage = await corral(simulated(), **kept(file_url), keys=KEYS, access={"anonymous": "inference"})
    for key, method, path, body, status in (
        (BOB, "POST", "/api/hosts/gpu1/drain", None, 200),
        (BOB, "POST", "/api/hosts/gpu1/resume", None, 200),
        (BOB, "POST", "/api/hosts/gpu9/drain", None, 404),
        (ANN, "DELETE", "/api/delete", {"model": TEXT}, 403),
        ("", "DELETE", "/api/delete", {"model": TEXT}, 401),
        (BOB, "POST", "/api/copy", {"source": TEXT, "destination": "mine"}, 200),
        (ANN, "POST", "/api/generate", {"model": TEXT, "keep_alive": 0}, 403),
        (BOB, "POST", "/api/generate", {"model": TEXT, "keep_alive": 0}, 200),
    ):
        answer = await by(stage, key, method, path, body)
        assert answer.status == status, (path, answer)
    await stage.gateway.access.audit.write()
    deeds = json.loads((await by(stage, ROOT, "GET", "/api/audit")).body)["deeds"]
    assert [(one["principal"], one["operation"], one["target"], one["status"]) for one in deeds[::-1]] == [
        ("op", "POST /api/hosts/{name}/drain", "gpu1", 200),
        ("op", "POST /api/hosts/{name}/resume", "gpu1", 200),
        ("op", "POST /api/hosts/{name}/drain", "gpu9", 404),
        ("ann", "DELETE /api/delete", "", 403),
        ("op", "POST /api/copy", TEXT, 200),
        ("op", "POST /api/generate (unload)", TEXT, 200),
    ]


@pytest.mark.parametrize("path", ONE_EACH)
async def test_models_and_hosts_of_a_key(corral: Corral, path: str) -> None:
    """Others are refused in the caller's dialect, before anything is sent; what is allowed goes to those hosts alone."""
    limited = KeyConfig("ann", digest(ANN), models=("smollm2:*",), hosts=("gpu2",))
    stage = await corral(simulated("gpu1"), simulated("gpu2"), keys=(limited,), access={"anonymous": "inference"})
    key = {"x-api-key": ANN}
    for _ in range(3):
        answer = await stage.ask(call(path, TEXT, headers=key))
        assert (answer.status, answer.get("X-Corral-Host")) == (200, "gpu2")
    for asked in (call(path, OTHER, headers=key), call(path, TEXT, headers=key | {"X-Corral-Host": "gpu1"})):
        answer = await stage.ask(asked)
        assert (answer.status, answer.get("X-Corral-Error")) == (403, "not_allowed")
        assert "not good for the" in answer.body.decode()
    assert (await stage.ask(call(path, OTHER))).status == 200  # nobody's key limits nobody
    assert {record.principal for record in await stage.records.until(4)} == {"ann", ""}


async def test_readiness_for_who_has_no_key(corral: Corral) -> None:
    """Says which hosts are not well, as ever, but not why: hosts' words are for who may look at them."""
    host = simulated("gone")
    stage = await corral(host, keys=KEYS)
    stage.key = BOB
    await host.kill()
    await stage.polled("gone")
    for key, known in (("", False), (ANN, True)):
        gone = json.loads((await by(stage, key, "GET", "/readyz")).body)["hosts"]["gone"]
        assert (gone["health"], bool(gone["why"])) == ("ejected", known)


async def test_what_no_key_can_be(corral: Corral, file_url: str) -> None:
    """Mistakes that would make a key good for all, or for ever; and no redirect repeats a key."""
    stage = await corral(simulated(), **kept(file_url))
    for wish, status in (
        ({"name": "ann\n"}, 400),
        ({"name": "ann", "expires": "1969-12-31"}, 409),
        ({"name": "ann", "expires": "2026-01-01"}, 409),
        ({"name": "ann", "budgets": ["0/day"]}, 409),
        ({"name": "ann", "models": [""]}, 400),
    ):
        assert (await by(stage, "", "POST", "/api/keys", wish)).status == status, wish
    answer = await ask(stage.url, "GET", f"//k/{ANN}/api/tags", b"", {})
    assert (answer.status, ANN in repr(answer)) == (404, False)


async def test_lists_of_a_limited_key(corral: Corral) -> None:
    """They have what it is good for, on hosts that it is good for; a model beyond is refused by name."""
    limited = (
        KeyConfig("ann", digest(ANN), models=("smollm2:*", "all-minilm*"), hosts=("gpu2",)),
        KeyConfig("op", digest(BOB), "operator"),
    )
    stage = await corral(simulated("gpu1", TEXT, OTHER, EMBEDDING), simulated("gpu2", TEXT, OTHER), keys=limited)
    stage.key = BOB
    for model in (TEXT, OTHER):
        assert (await stage.ask(call("/api/chat", model, headers={"x-api-key": BOB}))).status == 200
    await stage.polled("gpu1", "gpu2")

    async def listed(key: str, path: str) -> set[str]:
        told = json.loads((await by(stage, key, "GET", path)).body)
        return {row.get("name") or row["id"] for row in told.get("models") or told.get("data") or ()}

    for path in ("/api/tags", "/v1/models"):
        assert await listed(BOB, path) == {TEXT, OTHER, EMBEDDING}
        assert await listed(ANN, path) == {TEXT}
    assert await listed(BOB, "/api/ps") > await listed(ANN, "/api/ps")
    for model, there in ((TEXT, 200), (OTHER, 404)):
        assert (await by(stage, ANN, "GET", f"/v1/models/{model}")).status == there
    for model, status, where in ((TEXT, 200, "gpu2"), (OTHER, 403, None), (EMBEDDING, 404, None)):
        shown = await by(stage, ANN, "POST", "/api/show", {"model": model})
        assert (shown.status, shown.get("X-Corral-Host")) == (status, where), shown


@pytest.mark.parametrize("path", ONE_EACH)
async def test_without_a_key(corral: Corral, path: str) -> None:
    """Where one is needed: 401 in the caller's dialect, before the body is read; with one it is as ever."""
    stage = await corral(simulated(), keys=KEYS)
    stage.key = ROOT
    for headers in ({}, {"Authorization": "Bearer ollama"}, {"x-api-key": PREFIX + "wrong"}):
        answer = await stage.ask(call(path, headers=headers))
        assert (answer.status, answer.get("X-Corral-Error")) == (401, "unauthorized")
        assert "crl_wrong" not in answer.body.decode()
    answer = await stage.ask(call(path, headers={"Authorization": f"Bearer {ANN}"}))
    assert answer.status == 200
    assert [record.principal for record in await stage.records.until(1)] == ["ann"]


@pytest.mark.parametrize(
    ("anonymous", "keys", "words"),
    [
        ("auto", (), "change nothing and keep no sessions"),
        ("full", (), "whoever does may do everything"),
        ("none", (), ""),
        ("auto", KEYS, ""),
    ],
)
async def test_the_warning(corral: Corral, anonymous: str, keys: tuple[KeyConfig, ...], words: str) -> None:
    """Where others can come in and there are no keys, the start says so, once, and how to mend it."""
    stage = await corral(simulated(), listen="0.0.0.0:0", keys=keys, access={"anonymous": anonymous})
    stage.key = ROOT
    stage.gateway.log.flush()
    await stage.stop()
    warnings = [line for line in stage.log.read_text(encoding="utf-8").splitlines() if "others can reach" in line]
    assert len(warnings) == bool(words)
    assert words in "".join(warnings)


async def test_keys_of_a_changed_configuration(corral: Corral) -> None:
    """Count from then on, and so does what callers without one may."""
    stage = await corral(simulated())
    stage.gateway._reconfigure(dataclasses.replace(stage.gateway.config, keys=KEYS))
    stage.key = ROOT
    assert (await by(stage, "", "GET", "/api/tags")).status == 401
    assert (await by(stage, ANN, "GET", "/api/tags")).status == 200
    stage.gateway._reconfigure(dataclasses.replace(stage.gateway.config, keys=KEYS[:1]))
    assert (await by(stage, ANN, "GET", "/api/tags")).status == 401
    assert {"keys", "access"} <= LIVE


async def test_the_app(corral: Corral, file_url: str) -> None:
    """Sends its key with all that it asks and follows; without one its pages can say what is missing."""
    stage = await corral(simulated(), **kept(file_url), keys=KEYS)
    stage.key = ROOT
    app, nobody = App(stage.url, ANN), App(stage.url)
    try:
        made = await asyncio.to_thread(app.post, "/api/sessions", {"title": "by the app"})
        assert made["title"] == "by the app"
        with pytest.raises(GatewayError, match="this takes a key of the role user") as refused:
            await asyncio.to_thread(nobody.get, "/api/sessions")
        assert refused.value.status == 401
    finally:
        await asyncio.to_thread(app.close)
        await asyncio.to_thread(nobody.close)
    assert len(json.loads((await by(stage, ANN, "GET", "/api/sessions")).body)["sessions"]) == 1
    assert json.loads((await by(stage, BOB, "GET", "/api/sessions")).body)["sessions"] == []


async def test_those_who_watch(corral: Corral) -> None:
    """`corral top` and `corral status` send the key that the environment has; without one they are told what is missing."""
    stage = await corral(simulated(), keys=KEYS)
    stage.key = ROOT
    look = await looked(stage.url, BOB)
    assert [host.name for host in look.fleet.hosts] == ["gpu1"]
    with pytest.raises(Unreachable, match="401 this takes a key of the role user"):
        await looked(stage.url)
    assert api_key({"CORRAL_API_KEY": ROOT}) == ROOT
