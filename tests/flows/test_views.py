"""The fleet as one Ollama beyond inference: lists, one model's description, and what one host's account answers for all."""

import asyncio
import json
from typing import Any

import pytest

from gateway.access.keys import digest, make
from gateway.keyconfig import KeyConfig
from tests.builders import OTHER, TEXT, simulated
from tests.conftest import Corral
from tests.contract.cases import CASES, Case, answer_differences, recorded_host, send
from tests.contract.raw import Answer, ask
from tests.scripted import Asked, ScriptedHost
from tests.sockets import http
from tests.stage import Client, Stage

RECORDED = ("show", "show_404", "v1_model_get", "v1_model_404", "v1_models", "status_get", "me", "web_search_401")
ACCOUNT = {
    "/api/status": "GET",
    "/api/me": "POST",
    "/api/signout": "POST",
    "/api/user/keys/AAAAC3Nz%2Fa%3D": "DELETE",
    "/api/experimental/web_search": "POST",
    "/api/experimental/web_fetch": "POST",
    "/api/experimental/model-recommendations": "GET",
}
ROOT, ANN, BOB = (make(lambda size, byte=byte: bytes([byte + 60]) * size) for byte in range(3))  # type: ignore[misc]
KEYS = (
    KeyConfig("root", digest(ROOT), "admin"),
    KeyConfig("ann", digest(ANN), models=("llama3*",), hosts=("gpu1",)),
    KeyConfig("bob", digest(BOB), hosts=("gpu2",)),
)
PINNED = {"X-Corral-Host": "gpu2"}
SECRETS = {"Authorization": "Bearer secret", "X-API-Key": "secret", "Cookie": "secret", "Origin": "http://localhost"}


async def show(stage: Stage, body: bytes, headers: dict[str, str] | None = None) -> Answer:
    """What is told of a model."""
    return await ask(stage.url, "POST", "/api/show", body, headers)


async def down(stage: Stage, name: str) -> None:
    """Kill a host, and wait until the gateway knows."""
    await stage[name].kill()
    stage.gateway.poller.poke(name)
    async with asyncio.timeout(5):
        while (await stage.totals("corral_host_up", "host"))[name]:
            pass


def shows(host: Any) -> int:
    """How often a simulated host was asked for a model."""
    return len([received for received in host.ledger.received if received.path == "/api/show"])


@pytest.mark.parametrize("name", RECORDED)
async def test_recorded_answers(corral: Corral, name: str) -> None:
    """A real Ollama's recorded answer is also Corral's."""
    case: Case = CASES[name]
    stage = await corral(recorded_host())
    assert answer_differences(case, await send(case, stage.url)) == []


@pytest.mark.parametrize(("version", "framing"), [("1.0", "length"), ("1.1", "chunked")])
async def test_a_long_answer(corral: Corral, version: str, framing: str) -> None:
    """It is sent chunked, as Ollama's are, where the client knows chunks."""
    stage = await corral(simulated())
    async with Client.to(stage.url) as client:
        body = json.dumps({"model": TEXT}).encode()
        head = f"POST /api/show HTTP/{version}\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
        await client.write(head.encode() + body)
        answer = await client.answer()
    assert (answer.status, answer.framing, "model_info" in json.loads(answer.body)) == (200, framing, True)


# -- show -----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [b'{"model":"smollm2:135m"}', b' {"NAME" : "SmolLM2:135M", "verbose":true}x'])
async def test_show(corral: Corral, body: bytes) -> None:
    """The bytes of a host that has the model, for the bytes of the caller; tens of kilobytes of them."""
    host = simulated("gpu2", TEXT)
    stage = await corral(simulated("gpu1", OTHER), host)
    answer, straight = await show(stage, body), await ask(host.url, "POST", "/api/show", body)
    assert (answer.status, answer.get("Content-Type")) == (200, straight.get("Content-Type"))
    assert (answer.body, answer.framing) == (straight.body, straight.framing)
    assert len(answer.body) > 10_000
    assert answer.get("X-Corral-Host") == "gpu2"
    assert shows(stage["gpu1"]) == 0


async def test_show_sends_what_the_caller_said(corral: Corral) -> None:
    """Body and headers pass as they are, credentials do not; Ollama answers some clients by their User-Agent."""

    async def answering(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(http(b'{"model_info":{}}', 200, "application/json; charset=utf-8"))

    host = ScriptedHost("gpu1", answering)
    stage = await corral(host)
    body = b'\n{"system":"\xe4", "model":"smollm2:135m"}\t'
    said = {"User-Agent": "GitHubCopilotChat/0.26", "Content-Type": "text/odd", "X-Odd": "1", "Content-Encoding": "odd"}
    answer = await show(stage, body, said | SECRETS)
    assert (answer.status, answer.body) == (200, b'{"model_info":{}}')
    (asked,) = host.asked
    assert asked.body == body
    head = asked.head.decode().lower()
    assert all(f"{name}: {value}\r\n".lower() in head for name, value in said.items())
    assert "secret" not in head
    assert "origin" not in head
    assert head.count("user-agent") == head.count("content-type") == head.count("host:") == 1


async def test_show_where_it_is_loaded(corral: Corral) -> None:
    """The host that routing would choose: one that has the model in memory."""
    first, second = simulated("gpu1", TEXT), simulated("gpu2", TEXT)
    await second.load(TEXT)
    stage = await corral(first, second)
    for _ in range(5):
        assert (await show(stage, b'{"model":"smollm2:135m"}')).get("X-Corral-Host") == "gpu2"


async def test_show_from_the_next_host(corral: Corral) -> None:
    """A host that is gone and one that has lost the model are passed over."""
    gone, lost, there = simulated("gpu1", TEXT), simulated("gpu2", TEXT), simulated("gpu3", TEXT)
    await gone.load(TEXT)
    await lost.load(TEXT)
    stage = await corral(gone, lost, there)
    await gone.kill()
    lost.store.delete(lost.store.find(TEXT))
    answer = await show(stage, b'{"model":"smollm2:135m"}')
    assert (answer.status, answer.get("X-Corral-Host")) == (200, "gpu3")
    assert shows(lost) == 1
    assert (await show(stage, b'{"model":"smollm2:135m"}')).status == 200
    assert shows(lost) == 1, "it said that it has the model no more"


async def test_show_from_the_host_that_is_named(corral: Corral) -> None:
    """Whatever routing would choose; without the model there it is a 404 that says where, and no other host is asked."""
    first, second = simulated("gpu1", TEXT, OTHER), simulated("gpu2", TEXT)
    await first.load(TEXT)
    stage = await corral(first, second)
    answer = await show(stage, json.dumps({"model": TEXT}).encode(), PINNED)
    assert (answer.status, answer.get("X-Corral-Host")) == (200, "gpu2")
    missing = await show(stage, json.dumps({"model": OTHER}).encode(), PINNED)
    assert (missing.status, json.loads(missing.body)) == (404, {"error": f"model '{OTHER}' not found on host gpu2"})
    await second.kill()
    down = await show(stage, json.dumps({"model": TEXT}).encode(), PINNED)
    assert (down.status, down.get("X-Corral-Error")) == (503, "no_host")
    assert "gpu2: cannot connect" in json.loads(down.body)["error"]
    assert shows(first) == 0


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/api/show"), ("POST", "/api/route/explain"), ("POST", "/api/me"), ("GET", "/api/status")],
)
async def test_a_name_that_no_host_has(corral: Corral, method: str, path: str) -> None:
    """400 with the names that there are, as for inference; no host is asked."""
    host = simulated("gpu1", TEXT)
    stage = await corral(host)
    before = host.ledger.requests.copy()
    body = json.dumps({"model": TEXT, "prompt": "x"}).encode() if method == "POST" else None
    answer = await ask(stage.url, method, path, body, PINNED)
    assert (answer.status, json.loads(answer.body)["error"]) == (400, "no host is named 'gpu2'; there are: gpu1")
    assert host.ledger.requests == before


async def test_show_when_the_host_is_draining(corral: Corral) -> None:
    """503 that says so: a 404 would make the CLI pull it."""
    stage = await corral(simulated("gpu1", TEXT), simulated("gpu2", OTHER))
    assert (await stage.operate("POST", "/api/hosts/gpu1/drain")).status == 200
    answer = await show(stage, json.dumps({"model": TEXT}).encode())
    assert (answer.status, answer.get("X-Corral-Error")) == (503, "no_host")
    assert "can be asked: gpu1: is draining" in json.loads(answer.body)["error"]


@pytest.mark.parametrize("known", [False, True])
async def test_show_when_those_that_have_it_are_down(corral: Corral, known: bool) -> None:
    """503 in words that name them, not a 404 that would make the CLI pull it; whether or not a poll has noticed."""
    stage = await corral(simulated("gpu1", TEXT), simulated("gpu2", OTHER))
    if known:
        await down(stage, "gpu1")
    else:
        await stage["gpu1"].kill()
    answer = await show(stage, b'{"model":"smollm2:135m"}')
    assert (answer.status, answer.get("X-Corral-Error")) == (503, "no_host")
    assert json.loads(answer.body)["error"].startswith("no host that has 'smollm2:135m' can be asked: gpu1: ")
    assert int(answer.get("Retry-After") or 0) > 0


async def test_show_when_nobody_has_told(corral: Corral) -> None:
    """Without any inventory it is not known whether the model exists."""
    host = simulated("gpu1", TEXT)
    host.faults.set("listening_off")
    stage = await corral(host)
    assert (await show(stage, b'{"model":"smollm2:135m"}')).status == 503


async def test_show_when_one_has_never_told(corral: Corral) -> None:
    """A host that never came up does not keep the CLI from pulling what the others lack."""
    absent = simulated("gpu2", TEXT)
    absent.faults.set("listening_off")
    stage = await corral(simulated("gpu1", OTHER), absent)
    answer = await show(stage, b'{"model":"Nope"}')
    assert (answer.status, answer.body) == (404, b'{"error":"model \'Nope:latest\' not found"}')


async def test_show_what_is_new(corral: Corral) -> None:
    """A model that nobody knew is looked for once more before it is denied."""
    host = simulated("gpu1", OTHER)
    stage = await corral(host)
    host.store.add(simulated("x", TEXT).store.find(TEXT))
    assert (await show(stage, b'{"model":"smollm2:135m"}')).status == 200


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "missing request body"),
        (b"{}", "model is required"),
        (b'{"model":""}', "model is required"),
        (b'{"model":1}', ""),
        (b'{"model":"a b"}', "invalid model name"),
        (b"null", "model is required"),
    ],
)
async def test_show_nothing(corral: Corral, body: bytes, message: str) -> None:
    """A body that names no model is refused in Ollama's words."""
    stage = await corral(simulated())
    answer = await show(stage, body)
    assert answer.status == 400
    assert message in json.loads(answer.body)["error"]
    assert shows(stage["gpu1"]) == 0


async def test_a_host_refuses_to_show(corral: Corral) -> None:
    """An error that is no 404 is the answer."""

    async def answering(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(http(b'{"error":"disk"}', 500, "application/json; charset=utf-8"))

    stage = await corral(ScriptedHost("gpu1", answering), ScriptedHost("gpu2", answering))
    answer = await show(stage, json.dumps({"model": TEXT}).encode())
    assert (answer.status, answer.body) == (500, b'{"error":"disk"}')


# -- account --------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("path", "method"), ACCOUNT.items(), ids=ACCOUNT)
async def test_the_account_host_answers(corral: Corral, path: str, method: str) -> None:
    """The host that is configured, and no other, with its own status, type and bytes; below a prefix too."""
    first, second = simulated("gpu1"), simulated("gpu2")
    stage = await corral(first, second, account_host="gpu2", http={"prefix": "/corral"})  # type: ignore[arg-type]
    body = b'{"query":"x"}' if method == "POST" else None
    straight = await ask(second.url, method, path, body)
    for prefix in ("", "/corral"):
        answer = await ask(stage.url, method, f"{prefix}{path}?a=%20", body, SECRETS)
        assert (answer.status, answer.get("Content-Type")) == (straight.status, straight.get("Content-Type"))
        assert (answer.body, answer.get("X-Corral-Host")) == (straight.body, "gpu2")
        received = second.ledger.received[-1]
        assert (received.method, received.path) == (method, f"{path}?a=%20")
        headers = {name.lower(): value for name, value in received.headers}
        assert "secret" not in " ".join(headers.values())
        assert "origin" not in headers
    assert not [received for received in first.ledger.received if received.path.startswith(path)]


async def test_a_host_that_is_named_answers_for_its_own_account(corral: Corral) -> None:
    """In place of the account host; when it is down, it is what does not answer."""
    stage = await corral(simulated("gpu1"), simulated("gpu2"))
    answer = await ask(stage.url, "GET", "/api/status", None, PINNED)
    assert (answer.status, answer.get("X-Corral-Host")) == (200, "gpu2")
    await stage["gpu2"].kill()
    down = await ask(stage.url, "GET", "/api/status", None, PINNED)
    assert down.status == 503
    assert json.loads(down.body)["error"].startswith("host gpu2 does not answer: cannot connect: ")


async def test_an_account_of_another_host_than_the_key_is_good_for(corral: Corral) -> None:
    """Is not answered from, named or not; one's own is, for whoever names it. Models' patterns say nothing of it."""
    stage = await corral(simulated("gpu1"), simulated("gpu2"), keys=KEYS)
    stage.key = ROOT
    users = [
        (path, method) for path, method in ACCOUNT.items() if path.startswith(("/api/status", "/api/experimental"))
    ]
    for path, method in users:
        body = b"{}" if method == "POST" else None
        for hers, others, pins in ((ANN, "gpu2", PINNED), (BOB, "gpu1", {})):
            refused = await ask(stage.url, method, path, body, {"x-api-key": hers} | pins)
            assert (refused.status, refused.get("X-Corral-Error"), refused.get("X-Corral-Host")) == (
                403,
                "not_allowed",
                None,
            )
            assert f"is not good for the host '{others}'" in refused.body.decode()
        for hers, host, pins in ((ANN, "gpu1", {}), (BOB, "gpu2", PINNED), (ROOT, "gpu2", PINNED)):
            answer = await ask(stage.url, method, path, body, {"x-api-key": hers} | pins)
            assert (answer.get("X-Corral-Error"), answer.get("X-Corral-Host")) == (None, host)


@pytest.mark.parametrize(
    "answer", [http(b"null"), http(b"", 200, "text/plain"), http(b'{"a":1}', 401, "application/json")]
)
async def test_the_first_host_is_the_account_host(corral: Corral, answer: bytes) -> None:
    """Unless another is named; what it is sent and says passes as it is."""

    async def answering(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)

    host = ScriptedHost("gpu1", answering)
    stage = await corral(host, simulated("gpu2"))
    body = b" \xff{"
    found = await ask(stage.url, "POST", "/api/signout", body)
    head, _, said = answer.partition(b"\r\n\r\n")
    assert (f"HTTP/1.1 {found.status} X".encode(), found.body) == (head.split(b"\r\n")[0], said)
    assert f"Content-Type: {found.get('Content-Type')}".encode() in head
    assert host.asked[-1].body == body


@pytest.mark.parametrize(("path", "method"), ACCOUNT.items(), ids=ACCOUNT)
async def test_the_account_host_is_down(corral: Corral, path: str, method: str) -> None:
    """503 in Ollama's shape that names it; nobody else is asked."""
    stage = await corral(simulated("gpu1"), simulated("gpu2"))
    await stage["gpu1"].kill()
    answer = await ask(stage.url, method, path, b"{}" if method == "POST" else None)
    assert (answer.status, answer.get("X-Corral-Error")) == (503, "no_host")
    assert answer.get("Content-Type") == "application/json; charset=utf-8"
    assert json.loads(answer.body)["error"].startswith("the account host gpu1 does not answer: cannot connect: ")


async def test_the_account_host_is_not_there(corral: Corral) -> None:
    """A host that comes and goes may be named; while it is gone, nobody answers in its place."""
    stage = await corral(simulated("gpu1"), account_host="gpu9")  # type: ignore[arg-type]
    answer = await ask(stage.url, "GET", "/api/status")
    assert (answer.status, answer.body) == (503, b'{"error":"the account host gpu9 is not there"}')


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("HEAD", "/api/status"),
        ("GET", "/api/me"),
        ("HEAD", "/api/experimental/model-recommendations"),
        ("GET", "/api/show"),
    ],
)
async def test_wrong_methods(corral: Corral, method: str, path: str) -> None:
    """405 where Ollama says so."""
    stage = await corral(simulated())
    assert (await ask(stage.url, method, path)).status == 405


# -- lists ----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("ttl", "shown"), [(600.0, [OTHER, TEXT]), (0.0, [OTHER])])
async def test_the_last_inventory(corral: Corral, ttl: float, shown: list[str]) -> None:
    """What a host that is down had, is listed for as long as is configured."""
    stage = await corral(simulated("gpu1", TEXT), simulated("gpu2", OTHER), poll={"inventory_ttl_seconds": ttl})
    await down(stage, "gpu1")
    assert sorted(row["name"] for row in (await stage.get("/api/tags"))["models"]) == sorted(shown)
    assert sorted(row["id"] for row in (await stage.get("/v1/models"))["data"]) == sorted(shown)
    assert (await ask(stage.url, "GET", f"/v1/models/{TEXT}")).status == (200 if TEXT in shown else 404)


@pytest.mark.parametrize("path", ["/", "/api/version", "/api/tags", "/api/ps", "/v1/models", f"/v1/models/{TEXT}"])
async def test_lists_ask_no_host(corral: Corral, path: str) -> None:
    """They are told from the snapshot: a host that is slow or dead delays none."""
    stage = await corral(simulated())
    before = len(stage["gpu1"].ledger.received)
    assert (await ask(stage.url, "GET", path)).status == 200
    assert len(stage["gpu1"].ledger.received) == before


@pytest.mark.parametrize("name", ["SmolLM2:135M", "library/smollm2:135m", "acme%2Fnone", ".none"])
async def test_one_model_by_any_name(corral: Corral, name: str) -> None:
    """The caller's spelling is echoed, and an unknown name is shown whole."""
    stage = await corral(simulated("gpu1", TEXT))
    answer = await ask(stage.url, "GET", f"/v1/models/{name.replace('/', '%2F')}")
    body = json.loads(answer.body)
    if name == ".none":
        assert (answer.status, answer.get("X-Corral-Error")) == (400, "bad_request")
    elif "none" in name:
        assert (answer.status, body["error"]["message"]) == (404, "model 'acme/none:latest' not found")
        assert answer.get("X-Corral-Error") == "model_not_found"
    else:
        assert (answer.status, body["id"], body["owned_by"]) == (200, name, "library")
