"""Nothing that was asked or said, and no credential, is where operators look: not in logs, metrics, spans or errors of Corral's own."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest

from simulator.faults import BEFORE, LOADING, MANAGING, MID_STREAM, READING
from tests.builders import PATHS, TEXT, Call, call, simulated
from tests.collector import Collector
from tests.conftest import Corral
from tests.contract.raw import Answer, Cut, ask
from tests.scripted import Asked, ScriptedHost
from tests.stage import Stage

CANARY, SAID, KEY = "canaryprompt7f3a", "canaryanswer91bd", "canarykey55e0"
HIDDEN = {
    "Authorization": f"Bearer {KEY}",
    "X-API-Key": KEY,
    "Cookie": f"session={KEY}",
    "Proxy-Authorization": f"Basic {KEY}",
    "X-Secret": KEY,
    "baggage": f"key={KEY}",
}
FAULTS = [*BEFORE, *(name for name in MID_STREAM if name != "hang_mid_stream"), "load_error", "ghost_model"]


def secretive(path: str, **rest: Any) -> Call:
    """A request full of canaries; the query, too."""
    if path == "/v1/audio/transcriptions":
        request = call(path, language=CANARY, **rest)
    else:
        words = {
            "prompt": f"{CANARY} {'x' * 200} {CANARY}",
            "system": CANARY,
            "user": CANARY,
            "metadata": {"a": CANARY},
        }
        request = call(path, tokens=6, **(words | rest))
    return Call(f"{path}?key={KEY}", request.body, request.headers | HIDDEN)


def bad(path: str) -> Iterator[Call]:
    """Requests that cannot be read."""
    request = secretive(path)
    for body in (
        request.body[:-1],
        b'{"model": 7, "prompt": "%b"}' % CANARY.encode(),
        b'{"model": "m", "Model": "%b"}' % CANARY.encode(),
        b'"%b"' % CANARY.encode(),
        b'{"model": "%b", "messages": "%b"}' % (TEXT.encode(), CANARY.encode()),
        b"%b" % CANARY.encode(),
        b"\xff" + CANARY.encode(),
    ):
        yield Call(request.path, body, request.headers)


async def answered(stage: Stage, request: Call) -> Answer | None:
    """The answer, or None where it was cut off."""
    try:
        return await ask(stage.url, "POST", request.path, request.body, request.headers)
    except (Cut, ConnectionError, asyncio.IncompleteReadError):
        return None


async def told(stage: Stage, collector: Collector) -> str:
    """All that operators can see: metrics, views, then logs and spans."""
    seen = [
        (await ask(stage.url, "GET", path)).body.decode() for path in ("/metrics", "/api/fleet", "/api/models/servers")
    ]
    await stage.finish()
    seen.append(stage.log.read_text(encoding="utf-8"))
    seen += [body.decode("utf-8", errors="replace") for _, _, body in collector.requests]
    assert '"event":"generation"' in seen[-len(collector.requests) - 1]
    assert collector.spans
    return "\n".join(seen)


def watched(collector: Collector, tmp_path: Any) -> dict[str, Any]:
    """A gateway that tells all that it can."""
    return {
        "tracing": {"endpoint": collector.url, "mode": "all"},
        "log": {"level": "debug", "access": True, "path": str(tmp_path / "corral0.log")},
    }


@pytest.fixture
async def collector() -> Any:
    """A collector that takes what comes."""
    async with Collector() as running:
        yield running


@pytest.mark.parametrize("path", PATHS)
async def test_prompts_and_credentials(collector: Collector, corral: Corral, path: str, tmp_path: Any) -> None:
    """With every fault that a host can have, streamed or not, and with bodies that cannot be read."""
    one, two = simulated("gpu1"), simulated("gpu2")
    stage = await corral(one, two, **watched(collector, tmp_path))
    errors = []
    for fault in ("", *FAULTS):
        for host in (one, two):
            host.faults.clear()
            if fault:
                host.faults.set(fault, model=TEXT if fault == "ghost_model" else None, times=1)
        for stream in (True, False):
            rest = {} if path == "/v1/audio/transcriptions" else {"stream": stream}
            answer = await answered(stage, secretive(path, **rest))
            if answer is not None and answer.status >= 400:
                errors.append(answer)
    for request in bad(path) if path != "/v1/audio/transcriptions" else ():
        answer = await answered(stage, request)
        if answer is not None and answer.get("X-Corral-Error"):
            errors.append(answer)
    assert len(errors) > 3
    for answer in errors:
        assert CANARY not in answer.body.decode(), answer
        assert KEY not in repr(answer)
    seen = await told(stage, collector)
    assert CANARY not in seen
    assert KEY not in seen


ENDINGS = {
    "whole": b'{"response":"","done":true,"done_reason":"stop","eval_count":3}\n',
    "broken": b"",
    "an error": b'{"error":"error parsing tool call: raw=\'%b\', err=invalid character"}\n' % SAID.encode(),
    "garbage": SAID.encode() + b"\n",
}


@pytest.mark.parametrize("ending", ENDINGS)
async def test_answers(collector: Collector, corral: Corral, ending: str, tmp_path: Any) -> None:
    """However they end."""

    async def answering(_asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nConnection: close\r\nX-Odd: %b\r\n\r\n"
            % SAID.encode()
        )
        for line in (b'{"response":"%b","done":false}\n' % SAID.encode(), ENDINGS[ending]):
            writer.write(line)
        writer.close()

    stage = await corral(ScriptedHost("gpu1", answering), **watched(collector, tmp_path))
    for path in ("/api/generate", "/api/chat", "/v1/chat/completions"):
        answer = await answered(stage, call(path, stream=True))
        assert answer is None or SAID in answer.body.decode()
    assert SAID not in await told(stage, collector)


@pytest.mark.parametrize("status", [400, 404, 429, 500, 502, 503])
async def test_errors_that_quote(collector: Collector, corral: Corral, status: int, tmp_path: Any) -> None:
    """What a host quotes at length in an error goes to its caller and to nobody else."""

    async def answering(_asked: Asked, writer: asyncio.StreamWriter) -> None:
        said = f"cannot use '{CANARY} {'x' * 80}' (timed out waiting for {TEXT}): raw={SAID}"
        body = json.dumps({"error": said}).encode()
        writer.write(
            b"HTTP/1.1 %d No\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % (status, len(body))
        )
        writer.write(body)

    stage = await corral(ScriptedHost("gpu1", answering), **watched(collector, tmp_path))
    answer = await answered(stage, call("/api/chat"))
    assert answer is not None
    assert (answer.status, CANARY in answer.body.decode()) == (status, True)
    seen = await told(stage, collector)
    assert "cannot use [left out] (timed out waiting for" in seen
    assert CANARY not in seen
    assert SAID not in seen


@pytest.mark.parametrize("status", [200, 400, 404, 429, 500, 502, 503])
async def test_errors_that_echo(collector: Collector, corral: Corral, status: int, tmp_path: Any) -> None:
    """A host that says the whole request again in its error, before or in the answer."""

    async def answering(asked: Asked, writer: asyncio.StreamWriter) -> None:
        said = f"llama runner process has terminated: {asked.body.decode()}"
        body = json.dumps({"error": said}).encode() + b"\n"
        kind = b"application/x-ndjson" if status == 200 else b"application/json"
        writer.write(b"HTTP/1.1 %d No\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n" % (status, kind, len(body)))
        writer.write(body)

    stage = await corral(ScriptedHost("gpu1", answering), **watched(collector, tmp_path))
    answer = await answered(stage, call("/api/chat", prompt=f"{CANARY} it is"))
    assert answer is not None
    assert CANARY in answer.body.decode()
    health = (await ask(stage.url, "GET", "/readyz")).body.decode()
    seen = await told(stage, collector) + health
    assert "llama runner process has terminated: " in seen
    assert CANARY not in seen


async def test_sessions(collector: Collector, corral: Corral, file_url: str, tmp_path: Any) -> None:
    """What is written into a database, and looked for in it, in every detail that can be logged."""
    database = {"url": file_url}
    stage = await corral(simulated("gpu1"), database=database, **watched(collector, tmp_path))
    made = await ask(stage.url, "POST", "/api/sessions", json.dumps({"model": TEXT, "system": CANARY}).encode())
    said = {"message": {"content": CANARY}, "stream": False, "options": {"num_predict": 3}}
    path = f"/api/sessions/{json.loads(made.body)['id']}/chat"
    assert (await ask(stage.url, "POST", path, json.dumps(said).encode())).status == 200
    assert (await ask(stage.url, "GET", f"/api/search?q={CANARY}")).status == 200
    assert CANARY not in await told(stage, collector)


async def test_managing(collector: Collector, corral: Corral, tmp_path: Any) -> None:
    """Passwords of registries, templates and system prompts of models: through every path that changes models, with its faults."""
    host = simulated("gpu1")
    stage = await corral(host, **watched(collector, tmp_path))
    await stage.ask(call("/api/chat", tokens=1))
    bodies: dict[str, dict[str, Any]] = {
        "/api/pull": {"model": TEXT},
        "/api/push": {"model": TEXT},
        "/api/create": {"model": "mine", "from": TEXT, "system": CANARY, "template": CANARY},
        "/api/copy": {"source": TEXT, "destination": "mine2"},
        "/api/show": {"model": TEXT, "system": CANARY},
        "/api/nothing": {"model": CANARY},
    }
    for fault in (
        "",
        *(name for name in (*MANAGING, *READING, *LOADING) if not name.startswith(("hang", "slow", "ghost"))),
    ):
        host.faults.clear()
        if fault:
            host.faults.set(fault, times=1)
        for path, body in bodies.items():
            extra = {"username": KEY, "password": KEY, "stream": False}
            await answered(stage, Call(f"{path}?key={KEY}", json.dumps(body | extra).encode(), HIDDEN))
            await answered(stage, Call(path, CANARY.encode(), HIDDEN))
    host.faults.clear()
    seen = await told(stage, collector)
    assert '"event":"access"' in seen
    assert CANARY not in seen
    assert KEY not in seen


async def test_a_canary_can_be_seen(collector: Collector, corral: Corral, tmp_path: Any) -> None:
    """The test itself: where content is asked for, it is in the spans, credentials still are not; and nowhere else."""
    stage = await corral(
        simulated(),
        **(
            watched(collector, tmp_path)
            | {"tracing": {"endpoint": collector.url, "mode": "all", "capture_content": True}}
        ),
    )
    await answered(stage, secretive("/api/chat"))
    seen = await told(stage, collector)
    assert CANARY in repr(collector.spans)
    assert KEY not in seen
    assert CANARY not in stage.log.read_text(encoding="utf-8")
