"""What is no generation and yet worth telling: inference that is refused before it is read, and polls of hosts that fail, or work again."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.builders import ONE_EACH, Call, call, simulated
from tests.collector import Collector, Got
from tests.conftest import Corral
from tests.flows.test_tracing import CALLER, SPAN, TRACE, sent, traced, tracing
from tests.stage import SECONDS, Client, Stage


@pytest.fixture
async def collector() -> AsyncIterator[Collector]:
    """A collector that takes what comes."""
    async with Collector() as running:
        yield running


def access(log: Path) -> list[dict[str, Any]]:
    """The lines of callers whose requests were no generations."""
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    return [line for line in lines if line["event"] == "access" and line["method"] == "POST"]


async def polls(stage: Stage, collector: Collector, number: int) -> list[Got]:
    """The first spans of polls, once there are so many."""
    stage.gateway.tracer.flush()  # type: ignore[union-attr]
    await collector.until(lambda: len(collector.spans) >= number)
    return [span for span in collector.spans if span.name == "poll"]


# -- inference that is refused ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ONE_EACH)
async def test_no_json(collector: Collector, corral: Corral, tmp_path: Path, path: str) -> None:
    """The caller's mistake: its span in the caller's trace is no error, its line has the error's code; and nothing of the body is told."""
    log = {"access": True, "path": str(tmp_path / "corral0.log")}
    stage = await corral(simulated(), tracing=tracing(collector), log=log)
    answer = await stage.ask(traced(Call(path, b"{secret")))
    (server,) = await sent(stage, collector)
    assert (answer.status, server.name, server.kind) == (400, f"POST {path}", "server")
    assert (server.parent_id, server.error, server.events) == (SPAN, None, [])
    wanted = {
        "http.request.method": "POST",
        "http.route": path,
        "url.path": path,
        "http.response.status_code": 400,
        "corral.request.id": answer.get("X-Request-Id"),
        "corral.generation.id": answer.get("X-Corral-Generation"),
        "corral.refused": "bad_request",
        "corral.kept": "sampled",
        "client.address": "127.0.0.1",
    }
    assert {name: server.attributes[name] for name in wanted} == wanted
    assert set(server.attributes) - wanted.keys() == {"corral.api"}
    await stage.finish()
    (line,) = access(stage.log)
    told = (line["path"], line["route"], line["status"], line["error"], line["level"])
    assert told == (path, path, 400, "bad_request", "info")
    assert (line["trace_id"], line["span_id"]) == (TRACE, server.span_id)
    assert "secret" not in stage.log.read_text(encoding="utf-8") + str(collector.spans)


@pytest.mark.parametrize(
    ("body", "headers", "status", "code"),
    [
        pytest.param(b"x" * 300, {}, 413, "too_large", id="too large"),
        pytest.param(call("/api/chat").body, {"X-Corral-Host": "gpu9"}, 400, "bad_request", id="no such host"),
        pytest.param(b"[]", {"Origin": "http://localhost"}, 400, "bad_request", id="from a page"),
    ],
)
async def test_refused(
    collector: Collector, corral: Corral, body: bytes, headers: dict[str, str], status: int, code: str
) -> None:
    """Whatever for, one span."""
    stage = await corral(simulated(), tracing=tracing(collector), relay={"body_limit_bytes": 250})
    assert (await stage.ask(traced(Call("/api/chat", body, headers)))).status == status
    (server,) = await sent(stage, collector)
    assert (server.attributes["corral.refused"], server.attributes["http.response.status_code"]) == (code, status)


async def test_refused_at_a_stop(collector: Collector, corral: Corral, tmp_path: Path) -> None:
    """That is ours: an error, kept where only errors are, and a warning."""
    log = {"access": True, "path": str(tmp_path / "corral0.log")}
    stage = await corral(simulated(), tracing=tracing(collector, mode="errors"), log=log)
    stage.gateway.inference.draining = True
    assert (await stage.ask(traced(call("/api/chat")))).status == 503
    (server,) = await sent(stage, collector)
    assert (server.error, server.attributes["error.type"]) == ("shutting_down", "shutting_down")
    await stage.finish()
    assert [(line["status"], line["error"], line["level"]) for line in access(stage.log)] == [
        (503, "shutting_down", "warning")
    ]


async def test_a_caller_who_leaves_while_sending(collector: Collector, corral: Corral, tmp_path: Path) -> None:
    """Has a line and a span, as one has who leaves later."""
    log = {"access": True, "path": str(tmp_path / "corral0.log")}
    stage = await corral(simulated(), tracing=tracing(collector), log=log)
    head = "POST /api/chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n"
    head += "".join(f"{name}: {value}\r\n" for name, value in CALLER.items())
    async with Client.to(stage.url) as client:
        await client.write(head.encode() + b"\r\n{")
        await client.leave("reset")
    async with asyncio.timeout(SECONDS):
        while not (await stage.totals("corral_http_responses_total", "code"))["499"]:
            pass
    (server,) = await sent(stage, collector)
    assert (server.attributes["http.response.status_code"], server.error) == (499, None)
    await stage.finish()
    assert [(line["status"], line["error"]) for line in access(stage.log)] == [(499, "cancelled")]


async def test_what_is_a_generation_is_told_once(collector: Collector, corral: Corral, tmp_path: Path) -> None:
    """By its record: an unknown model, a host that fails, a full queue, a detached one that is refused."""
    log = {"access": True, "path": str(tmp_path / "corral0.log")}
    stage = await corral(simulated(), tracing=tracing(collector), log=log, relay={"attempts": 1})
    stage["gpu1"].faults.set("reset_before_headers")
    await stage.ask(call("/api/chat"))
    await stage.ask(call("/api/chat", "nobody:1b"))
    await stage.ask(Call("/api/chat?detach=1", call("/api/chat", "nobody:1b").body))
    await stage.records.until(3)
    await stage.finish()
    assert access(stage.log) == []
    assert not [span for span in collector.spans if "corral.refused" in span.attributes]


# -- polls ------------------------------------------------------------------------------------------------------------------------------


async def test_a_host_that_dies_and_returns(collector: Collector, corral: Corral) -> None:
    """Two spans, however many polls there were: that it failed, as an error, and that it is well again; each a trace of its own."""
    stage = await corral(simulated(), tracing=tracing(collector, mode="sampled", ratio=0.0))
    await stage.polled()
    await stage["gpu1"].kill()
    for _ in range(3):
        await stage.polled()
    await stage["gpu1"].start()
    for _ in range(3):
        await stage.polled()
    down, up = await polls(stage, collector, 2)
    wanted = {
        "http.request.method": "GET",
        "corral.host": "gpu1",
        "server.address": "127.0.0.1",
        "server.port": stage["gpu1"].port,
    }
    for span in (down, up):
        assert {name: span.attributes[name] for name in wanted} == wanted
        assert (span.kind, span.parent_id) == ("client", "")
        assert span.start <= span.end
    told = [
        (span.attributes["url.path"], span.attributes["corral.health"], span.attributes["corral.kept"])
        for span in (down, up)
    ]
    assert told == [("/api/version", "ejected", "error"), ("/api/tags", "healthy", "recovered")]
    assert "cannot connect" in str(down.error)
    assert (down.attributes["error.type"], up.error) == ("connect_error", None)
    assert down.trace_id != up.trace_id
    await stage.finish()
    assert len(collector.spans) == 2


async def test_errors_only(collector: Collector, corral: Corral) -> None:
    """Are no recoveries."""
    stage = await corral(simulated(), tracing=tracing(collector, mode="errors"))
    stage["gpu1"].faults.set("ps_error")
    await stage.polled()
    stage["gpu1"].faults.clear()
    await stage.polled()
    await stage.finish()
    assert [(span.name, span.attributes["corral.health"]) for span in collector.spans] == [("poll", "healthy")]
