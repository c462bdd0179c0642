"""Traces, from a caller's header to a real collector: which spans there are, what they say, and that a bad collector costs nothing."""

import asyncio
import contextlib
import itertools
import json
import re
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway.record import GenerationRecord
from tests.builders import ONE_EACH, PATHS, PROMPT, STREAMING, TEXT, Call, call, simulated
from tests.collector import Collector, Got
from tests.conftest import Corral
from tests.contract.raw import ask
from tests.stage import Stage

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
CALLER = {"traceparent": f"00-{TRACE}-{SPAN}-01", "tracestate": "vendor=1"}
OURS = re.compile(rf"00-{TRACE}-([0-9a-f]{{16}})-01")


@pytest.fixture
async def collector() -> AsyncIterator[Collector]:
    """A collector that takes what comes."""
    async with Collector() as running:
        yield running


def tracing(collector: Collector, **changes: Any) -> dict[str, Any]:
    """Everything is traced, but for what is given."""
    return {"endpoint": collector.url, "mode": "all"} | changes


def traced(one: Call) -> Call:
    """The same, in a caller's trace."""
    return Call(one.path, one.body, one.headers | CALLER)


def parents(stage: Stage, host: str = "gpu1") -> list[str]:
    """The span ids that a host's generations were sent with."""
    found = []
    for received in stage[host].ledger.received:
        header = {name.lower(): value for name, value in received.headers}.get("traceparent")
        if header is not None:
            match = OURS.fullmatch(header)
            assert match is not None, header
            found.append(match[1])
    return found


async def ended(stage: Stage, number: int = 0) -> GenerationRecord:
    """The record with this number, once it is told."""
    return (await stage.records.until(number + 1))[number]


async def sent(stage: Stage, collector: Collector, trace_id: str = TRACE) -> list[Got]:
    """The spans of the trace, without waiting for the timer."""
    stage.gateway.tracer.flush()  # type: ignore[union-attr]
    return await collector.trace(trace_id)


# -- an ordinary trace ------------------------------------------------------------------------------------------------------------


SERVER_NAMES = {
    "http.request.method", "http.route", "url.path", "http.response.status_code", "client.address",
    "corral.request.id", "corral.generation.id", "corral.api", "corral.outcome", "corral.phase", "corral.queue.wait", "corral.overhead",
    "corral.attempts", "corral.kept", "corral.host", "corral.time_to_first_byte", "corral.priority",
}  # fmt: skip
CLIENT_NAMES = {
    "gen_ai.operation.name", "gen_ai.provider.name", "gen_ai.request.model", "gen_ai.request.stream", "gen_ai.request.max_tokens", "gen_ai.response.model",
    "gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens", "gen_ai.response.time_to_first_chunk", "gen_ai.response.finish_reasons",
    "server.address", "server.port", "http.response.status_code",
    "ollama.prompt_eval_duration", "ollama.eval_duration", "ollama.load_duration",
    "corral.host", "corral.attempt.outcome", "corral.usage.accounting", "corral.chunks", "corral.chunk_gap.max", "corral.cold",
}  # fmt: skip


async def test_an_ordinary_trace(collector: Collector, corral: Corral) -> None:
    """The request's span below the caller's, the attempt's below that; the host is sent the attempt's; and all names are those of the conventions."""
    stage = await corral(simulated(), tracing=tracing(collector))
    answer = await stage.ask(traced(call("/api/chat", tokens=5)))
    server, client = await sent(stage, collector)
    record = await ended(stage)
    assert (server.name, server.kind, server.parent_id, server.error) == ("POST /api/chat", "server", SPAN, None)
    assert (client.name, client.kind, client.parent_id, client.error) == (
        f"chat {TEXT}",
        "client",
        server.span_id,
        None,
    )
    assert parents(stage) == [client.span_id]
    assert {server.state, client.state} == {"vendor=1"}
    assert answer.get("traceresponse") == f"00-{TRACE}-{server.span_id}-01"
    assert (record.trace_id, record.span_id, record.trace_kept) == (TRACE, server.span_id, True)
    assert set(server.attributes) == SERVER_NAMES
    assert set(client.attributes) == CLIENT_NAMES
    assert server.attributes["corral.generation.id"] == answer.get("X-Corral-Generation")
    assert server.attributes["corral.request.id"] == answer.get("X-Request-Id")
    wanted = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "ollama",
        "gen_ai.request.model": TEXT,
        "gen_ai.usage.output_tokens": record.usage.output_tokens,
        "gen_ai.response.finish_reasons": ["length"],
        "server.address": "127.0.0.1",
        "server.port": stage["gpu1"].port,
        "ollama.eval_duration": record.usage.decode_seconds,
    }
    assert {name: client.attributes[name] for name in wanted} == wanted
    ((event, _, decided),) = server.events
    assert event == "corral.route"
    assert record.route is not None
    chosen = record.route.costs[0]
    assert decided["corral.route.predicted"] == chosen.first_token
    for name in ("total", "queue_wait", "load_time", "prefill", "affinity", "penalty", "harm", "decode"):
        assert decided[f"corral.route.{name}"] == getattr(chosen, name)
    assert [name for name, _, _ in client.events] == ["gen_ai.first_chunk"]
    assert server.start <= client.start <= client.events[0][1] <= client.end <= server.end
    assert server.resource["service.name"] == "corral"
    assert collector.requests[0][0] == "/v1/traces"


@pytest.mark.parametrize("path", PATHS)
async def test_every_path(collector: Collector, corral: Corral, path: str) -> None:
    """Has its spans, named for what it does."""
    stage = await corral(simulated(), tracing=tracing(collector))
    await stage.ask(traced(call(path)))
    server, client = await sent(stage, collector)
    operation = (await ended(stage)).operation
    assert (server.name, client.name.split()[0]) == (f"POST {path}", operation)
    assert client.attributes["gen_ai.operation.name"] == operation
    assert server.attributes["corral.outcome"] == "ok"


async def test_what_was_asked_for(collector: Collector, corral: Corral) -> None:
    """Parameters are in the attempt's span, of both places where a body has them; odd ones are left out, and words are never told."""
    stage = await corral(simulated(), tracing=tracing(collector))
    options = {"temperature": 0.5, "top_k": 40, "seed": 7, "num_predict": 5, "stop": ["secret"], "top_p": "odd"}
    body = json.dumps({"model": TEXT, "messages": [], "options": options, "format": "json"}).encode()
    await stage.ask(traced(Call("/api/chat", body)))
    _, client = await sent(stage, collector)
    asked = {
        name: value for name, value in client.attributes.items() if name.startswith(("gen_ai.request", "gen_ai.output"))
    }
    assert asked == {
        "gen_ai.request.model": TEXT,
        "gen_ai.request.stream": True,
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.top_k": 40.0,
        "gen_ai.request.seed": 7,
        "gen_ai.request.max_tokens": 5,
        "gen_ai.output.type": "json",
    }


# -- failover, errors, cancelling -----------------------------------------------------------------------------------------------------


async def test_failover(collector: Collector, corral: Corral) -> None:
    """Each attempt has a span of its own, which its host was told of; ids, parents and the record agree."""
    stage = await corral(simulated("gpu1"), simulated("gpu2"), tracing=tracing(collector))
    for host in stage.hosts:
        host.faults.set("reset_before_headers", times=1)  # type: ignore[union-attr]
    await stage.ask(traced(call("/api/chat", tokens=2)))
    record = await ended(stage)
    server, *clients = await sent(stage, collector)
    told = {host.name: parents(stage, host.name) for host in stage.hosts}
    assert len(clients) == len(record.attempts) == 2
    assert [span.attributes["corral.host"] for span in clients] == [attempt.host for attempt in record.attempts]
    assert {span.parent_id for span in clients} == {server.span_id}
    assert len({span.span_id for span in (server, *clients)}) == 3
    for span in clients:
        assert told[span.attributes["corral.host"]] == [span.span_id]
        assert (span.error is not None, span.attributes["error.type"]) == (True, "reset")
    assert [span.attributes.get("http.request.resend_count") for span in clients] == [None, 1]
    assert (server.attributes["corral.outcome"], server.attributes["error.type"]) == (
        "upstream_error",
        "upstream_error",
    )
    assert server.error
    assert server.attributes["corral.kept"] == "error"


@pytest.mark.parametrize("path", ONE_EACH)
@pytest.mark.parametrize("fault", ["reset_mid_stream", "close_mid_stream", "end_without_done", "error_mid_stream"])
async def test_broken_streams(collector: Collector, corral: Corral, path: str, fault: str) -> None:
    """Are errors, though the status said 200; both spans say so."""
    stage = await corral(simulated(), tracing=tracing(collector, mode="errors"))
    stage["gpu1"].faults.set(fault, after_chunks=2)
    await stage.ask(traced(call(path, tokens=9, stream=True)))
    server, client = await sent(stage, collector)
    assert server.attributes["http.response.status_code"] == 200
    assert server.error
    assert client.error
    assert client.attributes["error.type"] == client.attributes["corral.attempt.outcome"] == "midstream_error"
    assert [name for name, _, _ in client.events] == ["gen_ai.first_chunk"]


async def test_nobody_could_serve_it(collector: Collector, corral: Corral) -> None:
    """Then there is the request's span alone."""
    stage = await corral(simulated(), tracing=tracing(collector))
    await stage.operate("POST", "/api/hosts/gpu1/drain")
    await stage.ask(traced(call("/api/chat")))
    (server,) = await sent(stage, collector)
    assert (server.attributes["corral.outcome"], server.attributes["http.response.status_code"]) == ("no_host", 503)
    assert server.error


async def test_what_the_caller_did_wrong(collector: Collector, corral: Corral) -> None:
    """Is no error of ours."""
    stage = await corral(simulated(), tracing=tracing(collector))
    await stage.ask(traced(call("/api/chat", "nobody:1b")))
    (server,) = await sent(stage, collector)
    assert (server.attributes["corral.outcome"], server.error) == ("client_error", None)
    assert server.attributes["http.response.status_code"] == 404


@pytest.mark.parametrize(
    ("who", "phase"),
    [
        *itertools.product(("client", "operator"), ("queued", "prefill", "streaming")),
        ("deadline", "prefill"),  # one that waits would have to outlast another that is older
        ("deadline", "streaming"),
    ],
)
async def test_cancelling(collector: Collector, corral: Corral, phase: str, who: str) -> None:
    """In every phase, by whom and where; a client that leaves is nobody's error, a deadline is."""
    deadline = {"relay": {"deadline_seconds": 0.4}} if who == "deadline" else {}
    stage = await corral(simulated(tokens_per_second=50.0), tracing=tracing(collector), **deadline)
    if phase == "prefill":
        stage["gpu1"].faults.set("hang_before_headers")
    async with contextlib.AsyncExitStack() as stack:
        if phase == "queued":
            await stack.enter_async_context(stage.begun(call("/api/chat", tokens=1000), session="first"))
            await stage.row("first", "streaming")
        client = await stack.enter_async_context(stage.begun(traced(call("/api/chat", tokens=1000)), session="it"))
        row = await stage.row("it", phase)
        if who == "client":
            await client.leave("reset")
        elif who == "operator":
            await stage.operate("DELETE", f"/api/generations/{row['id']}")
        record = await stage.records.of("it")
        if phase == "queued":
            await stage.operate("DELETE", "/api/generations/first")
    stage["gpu1"].faults.clear()
    server, *clients = await sent(stage, collector)
    assert record.trace_id == TRACE
    assert (server.attributes["corral.phase"], len(clients)) == (phase, 0 if phase == "queued" else 1)
    outcome, by = {
        "client": ("cancelled", "client_disconnect"),
        "operator": ("cancelled", "api"),
        "deadline": ("timeout", "timeout"),
    }[who]
    assert (server.attributes["corral.outcome"], server.attributes["corral.cancelled_by"]) == (outcome, by)
    assert (server.error is not None) is (who == "deadline")
    assert server.attributes["gen_ai.conversation.id"] == "it"
    if phase == "queued":
        assert "corral.queued" in [name for name, _, _ in server.events]
    else:
        name, _, attributes = clients[0].events[-1]
        assert (name, attributes) == ("corral.cancelled", {"corral.source": by, "corral.phase": phase})
        assert clients[0].error is None


async def test_what_a_shutdown_cuts(collector: Collector, corral: Corral) -> None:
    """Is the gateway's failure, in the trace and in the log."""
    shutdown = {"grace_seconds": 0.0}
    stage = await corral(
        simulated(tokens_per_second=50.0), tracing=tracing(collector, mode="errors"), shutdown=shutdown
    )
    async with stage.begun(traced(call("/api/chat", tokens=1000)), session="it"):
        await stage.row("it", "streaming")
        await stage.stop()
    await collector.until(lambda: len(collector.spans) == 2)
    (server,) = [span for span in collector.spans if span.kind == "server"]
    assert server.error
    told = (server.attributes["corral.outcome"], server.attributes["corral.cancelled_by"])
    assert told == ("gateway_error", "shutdown")
    lines = [json.loads(line) for line in stage.log.read_text(encoding="utf-8").splitlines()]
    assert [line["level"] for line in lines if line["event"] == "generation"] == ["warning"]


async def test_waiting(collector: Collector, corral: Corral) -> None:
    """Is told by events: since when, and until when."""
    stage = await corral(simulated(), tracing=tracing(collector))
    async with stage.begun(call("/api/chat", tokens=2000), session="first"):
        await stage.row("first", "streaming")
        async with stage.begun(traced(call("/api/chat", tokens=1)), session="second") as client:
            await stage.row("second", "queued")
            await stage.operate("DELETE", "/api/generations/first")
            await client.answer()
    server, _ = await sent(stage, collector)
    events = {name: at for name, at, _ in server.events}
    assert list(events) == ["corral.queued", "corral.admitted", "corral.route"]
    assert server.start <= events["corral.queued"] < events["corral.admitted"] <= server.end
    assert server.attributes["corral.queue.wait"] == (await ended(stage, 1)).queue_seconds > 0


# -- which are kept --------------------------------------------------------------------------------------------------------------------


async def test_tail_decisions(collector: Collector, corral: Corral) -> None:
    """Of traces that nobody sampled those are kept that failed, were retried or cold; of the others nothing is sent at all."""
    stage = await corral(simulated("gpu1"), simulated("gpu2"), tracing=tracing(collector, mode="sampled", ratio=0.0))
    await stage.ask(call("/api/chat", tokens=1))  # cold
    await stage.ask(call("/api/chat", tokens=1))  # ordinary
    where = (await ended(stage, 1)).host
    assert where is not None
    stage[where].faults.set("reset_before_headers", times=1)
    await stage.ask(call("/api/chat", tokens=1))
    for host in stage.hosts:
        host.faults.set("end_without_done", times=1)  # type: ignore[union-attr]
    await stage.ask(call("/api/chat", tokens=3))
    assert [record.trace_kept for record in await stage.records.until(4)] == [True, False, True, True]
    stage.gateway.tracer.flush()  # type: ignore[union-attr]
    await collector.until(lambda: len({span.trace_id for span in collector.spans}) == 3)
    kept = {span.trace_id: span.attributes["corral.kept"] for span in collector.spans if span.kind == "server"}
    assert kept == dict(
        zip((stage.records[number].trace_id for number in (0, 2, 3)), ("cold", "retried", "error"), strict=True)
    )


async def test_not_more_than_so_many(collector: Collector, corral: Corral) -> None:
    """A storm of errors is not a storm of spans; what is left out is counted."""
    stage = await corral(simulated(), tracing=tracing(collector, mode="errors", per_second=0.001))
    stage["gpu1"].faults.set("reset_before_headers")
    for _ in range(3):
        await stage.ask(call("/api/chat"))
    assert [record.trace_kept for record in await stage.records.until(3)] == [True, False, False]
    lost = sum(1 + len(record.attempts) for record in stage.records[1:])
    assert (await stage.totals("corral_spans_dropped_total", "reason"))["over_limit"] == lost


async def test_a_caller_who_is_not_trusted(collector: Collector, corral: Corral) -> None:
    """Cannot have their traces kept; hosts are told so, and so are they."""
    stage = await corral(simulated(), tracing=tracing(collector, mode="sampled", ratio=0.0, trust_incoming=False))
    await stage.ask(call("/api/chat", tokens=1))
    answer = await stage.ask(traced(call("/api/chat", tokens=1)))
    assert (await ended(stage, 1)).trace_kept is False
    assert answer.get("traceresponse") is None
    headers = {name.lower(): value for name, value in stage["gpu1"].ledger.received[-1].headers}
    assert headers["traceparent"].endswith("-00")


# -- prompts and answers ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", STREAMING)
@pytest.mark.parametrize("stream", [True, False])
async def test_captured_content(collector: Collector, corral: Corral, path: str, stream: bool) -> None:
    """Only where that is asked for: what was asked and what was said, in every dialect."""
    stage = await corral(simulated(), tracing=tracing(collector, capture_content=True))
    plain_stage = await corral(simulated("gpu2"), tracing=tracing(collector))
    request = traced(call(path, tokens=4, stream=stream))
    answer = await stage.ask(request)
    _, client = await sent(stage, collector)
    asked = json.loads(client.attributes["gen_ai.input.messages"])
    (said,) = json.loads(client.attributes["gen_ai.output.messages"])
    assert PROMPT in asked[-1]["parts"][0]["content"]
    assert (said["role"], said["parts"][0]["type"]) == ("assistant", "text")
    words = said["parts"][0]["content"].split()
    assert words
    assert all(word in answer.body.decode() for word in words)
    collector.spans.clear()
    assert (await plain_stage.ask(request)).status == 200
    _, client = await sent(plain_stage, collector)
    assert not {"gen_ai.input.messages", "gen_ai.output.messages"} & set(client.attributes)


async def test_content_is_cut_and_redacted(collector: Collector, corral: Corral) -> None:
    """To so many characters of each message, less what the rules match."""
    rules = ("hunter[0-9]+", "(?i)secret")
    stage = await corral(simulated(), tracing=tracing(collector, capture_content=True, content_bytes=40, redact=rules))
    messages = [
        {"role": "system", "content": "the SECRET is hunter2"},
        {"role": "user", "content": "x" * 100, "images": ["aGVsbG8="]},
    ]
    await stage.ask(traced(Call("/api/chat", json.dumps({"model": TEXT, "messages": messages}).encode())))
    _, client = await sent(stage, collector)
    system, user = json.loads(client.attributes["gen_ai.input.messages"])
    assert system["parts"][0]["content"] == "the [redacted] is [redacted]"
    assert user["parts"] == [{"type": "text", "content": "x" * 40 + "…"}]
    assert "aGVsbG8" not in repr(client)


# -- collectors that are none ------------------------------------------------------------------------------------------------------------


async def test_a_dead_collector(collector: Collector, corral: Corral) -> None:
    """Costs spans, which are counted, and one line in the log; requests go on, and the stop does not wait."""
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        stage = await corral(simulated(), tracing={"endpoint": endpoint, "mode": "all"})
        assert (await stage.ask(call("/api/chat", tokens=2))).status == 200
        stage.gateway.tracer.flush()  # type: ignore[union-attr]
        assert (await stage.ask(call("/api/chat", tokens=2))).status == 200
        await stage.quiet()
        loop = asyncio.get_running_loop()
        began = loop.time()
        await stage.finish()
        assert loop.time() - began < 4.0


async def test_a_refusing_collector(collector: Collector, corral: Corral) -> None:
    """What it refuses is lost and counted; once it takes spans again, that is told, too."""
    collector.status = 400
    stage = await corral(simulated(), tracing=tracing(collector))
    await stage.ask(call("/api/chat", tokens=2))
    stage.gateway.tracer.flush()  # type: ignore[union-attr]
    async with asyncio.timeout(10.0):
        while not (await stage.totals("corral_spans_dropped_total", "reason"))["export_failed"]:
            await stage.operate("GET", "/healthz")
    collector.status = 200
    await stage.ask(traced(call("/api/chat", tokens=2)))
    await sent(stage, collector)
    await stage.finish()
    lines = [json.loads(line) for line in stage.log.read_text(encoding="utf-8").splitlines()]
    told = [line["message"] for line in lines if line.get("logger") == "gateway.telemetry.tracing"]
    assert told[0].startswith(f"spans do not arrive at {collector.url}/v1/traces: ")
    assert told[1:] == [f"spans arrive at {collector.url}/v1/traces again; 2 were lost"]
    assert not [line for line in lines if str(line.get("logger")).startswith("opentelemetry")]


async def test_a_slow_collector(collector: Collector, corral: Corral) -> None:
    """Holds up neither requests nor the stop."""
    collector.held = asyncio.Event()
    stage = await corral(simulated(), tracing=tracing(collector))
    await stage.ask(call("/api/chat", tokens=2))
    stage.gateway.tracer.flush()  # type: ignore[union-attr]
    await collector.until(lambda: collector.requests)
    for _ in range(20):
        assert (await stage.ask(call("/api/chat", tokens=2))).status == 200
    loop = asyncio.get_running_loop()
    began = loop.time()
    await stage.finish()
    assert loop.time() - began < 5.0
    await collector.release()


async def test_the_end(collector: Collector, corral: Corral) -> None:
    """What was gathered is sent before the process ends."""
    stage = await corral(simulated(), tracing=tracing(collector))
    for _ in range(3):
        await stage.ask(call("/api/chat", tokens=2))
    await stage.finish()
    assert len(collector.spans) == 6


# -- off --------------------------------------------------------------------------------------------------------------------------------


async def test_off(corral: Corral) -> None:
    """A caller's context goes through as it came, and its id is in the log all the same."""
    stage = await corral(simulated())
    answer = await stage.ask(traced(call("/api/chat", tokens=1)))
    headers = {name.lower(): value for name, value in stage["gpu1"].ledger.received[-1].headers}
    assert {name: headers[name] for name in CALLER} == CALLER
    assert answer.get("traceresponse") is None
    record = (await stage.records.until(1))[0]
    assert (record.trace_id, record.trace_kept) == (TRACE, False)


def test_nothing_is_imported() -> None:
    """A gateway without a collector has no OpenTelemetry in its memory."""
    code = "import sys, gateway.cli, gateway.app; print([n for n in sys.modules if n.startswith(('opentelemetry', 'google.protobuf'))])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# -- names of requests -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PATHS)
async def test_request_ids(corral: Corral, path: str) -> None:
    """A caller's comes back, with answers and errors; without one it is the generation's."""
    stage = await corral(simulated())
    request = call(path)
    named = Call(path, request.body, request.headers | {"X-Request-Id": "mine-1"})
    assert (await stage.ask(named)).all("X-Request-Id") == ["mine-1"]
    unnamed = await stage.ask(request)
    assert unnamed.get("X-Request-Id") == unnamed.get("X-Corral-Generation")
    bad = await stage.ask(Call(path, b"{", request.headers | {"X-Request-Id": "mine-2"}))
    assert (bad.status, bad.all("X-Request-Id")) == (400, ["mine-2"])
    odd = await stage.ask(Call(path, request.body, request.headers | {"X-Request-Id": "no id"}))
    assert odd.get("X-Request-Id") == odd.get("X-Corral-Generation")
    assert (await ended(stage)).request_id == "mine-1"


async def test_other_requests(corral: Corral, tmp_path: Path) -> None:
    """Have their lines, if that is asked for, in the trace of whoever called; inference has its own line and no second one; queries are not told."""
    log = {"access": True, "path": str(tmp_path / "corral0.log")}
    stage = await corral(simulated(), log=log)
    named = CALLER | {"X-Request-Id": "mine"}
    answer = await ask(stage.url, "GET", "/api/tags?key=secret", headers=named)
    answers = [
        answer,
        await ask(stage.url, "GET", "/no/such/thing"),
        await ask(stage.url, "DELETE", "/api/generations/nobody", headers={"X-Request-Id": "not a name"}),
        await ask(stage.url, "POST", "/api/chat", call("/api/chat").body, {"Origin": "https://evil.example"}),
        await ask(stage.url, "POST", "/api/pull", json.dumps({"model": TEXT}).encode()),
    ]
    for path in ("/api/chat", "/corral/api/chat", "/api/chat/"):
        await stage.ask(Call(path, call("/api/chat", tokens=1).body))
    await stage.finish()
    lines = [json.loads(line) for line in stage.log.read_text(encoding="utf-8").splitlines()]
    told = [
        (line["method"], line["path"], line["route"], line["status"]) for line in lines if line["event"] == "access"
    ]
    assert told[:4] == [
        ("GET", "/api/tags", "/api/tags", 200),
        ("GET", "/no/such/thing", "_unmatched", 404),
        ("DELETE", "/api/generations/nobody", "/api/generations/{id}", 404),
        ("POST", "/api/chat", "/api/chat", 403),
    ]
    assert ("POST", "/api/chat", "/api/chat", 200) not in told
    accessed = [line for line in lines if line["event"] == "access"]
    assert [one.all("X-Request-Id") for one in answers] == [[line["request_id"]] for line in accessed[:5]]
    line = accessed[0]
    assert (line["trace_id"], line["request_id"], answer.all("X-Request-Id")) == (TRACE, "mine", ["mine"])
    assert "secret" not in stage.log.read_text(encoding="utf-8")


async def test_messages_in_a_requests_course(corral: Corral) -> None:
    """Have its ids: what is logged on its behalf can be found by it."""
    stage = await corral(simulated())
    await stage.ask(call("/api/chat", tokens=1))
    await stage.ask(traced(Call("/api/chat", json.dumps({"model": TEXT, "messages": [], "keep_alive": 0}).encode())))
    await stage.finish()
    lines = [json.loads(line) for line in stage.log.read_text(encoding="utf-8").splitlines()]
    (unloaded,) = [line for line in lines if str(line.get("message")).startswith("unloaded")]
    assert unloaded["trace_id"] == TRACE
    assert all("trace_id" not in line for line in lines if str(line.get("message")).startswith("host "))
