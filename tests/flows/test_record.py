"""One record for each generation, and everything that is derived from it: the log line, the metrics."""

import asyncio
import json
from collections import Counter

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families

from tests.builders import OTHER, PATHS, STREAMING, TEXT, call, simulated
from tests.conftest import Corral
from tests.contract.raw import ask
from tests.scripted import Asked, ScriptedHost

SILENT = ("/api/embeddings", "/v1/audio/transcriptions")
"""Paths whose answers never tell the tokens."""

FAMILIES = """
requests_total http_responses_total request_duration_seconds time_to_first_token_seconds
time_per_output_token_seconds max_chunk_gap_seconds gateway_overhead_seconds tokens_total wasted_tokens_total
requests_in_flight queue_depth queue_limit queue_oldest_seconds queue_wait_seconds requests_rejected_total
routing_decisions_total routing_failures_total host_excluded_total upstream_attempts_total
upstream_attempt_duration_seconds retries_total retries_exhausted_total cancellations_total
cancel_propagation_seconds host_up host_state host_leases host_concurrency_limit host_vram_used_bytes host_info
host_poll_duration_seconds host_poll_errors_total model_loaded model_loads_total model_load_duration_seconds
event_loop_lag_seconds gc_pause_seconds build_info
"""


@pytest.mark.parametrize(
    ("path", "stream"),
    [(path, stream) for path in PATHS for stream in ((True, False) if path in STREAMING else (False,))],
)
async def test_usage(corral: Corral, path: str, stream: bool) -> None:
    """Tokens are those that the host counted: as it reports them, or as they passed where it reports none."""
    host = simulated()
    stage = await corral(host)
    more = {"stream": stream, "tokens": 9} if path in STREAMING else {}
    if stream and path in ("/v1/chat/completions", "/v1/completions"):
        more["stream_options"] = {"include_usage": True}
    assert (await stage.ask(call(path, **more))).status == 200
    usage, entry = (await stage.records.until(1))[0].usage, host.ledger.entries[0]
    if path in SILENT:
        assert (usage.accounting, usage.input_tokens, usage.output_tokens) == ("counted", 0, 0)
        return
    assert usage.accounting == "reported"
    assert (usage.input_tokens, usage.output_tokens) == (entry.prompt_tokens, entry.output_tokens)
    assert usage.input_tokens > 0
    if path in STREAMING:
        assert usage.output_tokens == 9


async def test_usage_with_spaces(corral: Corral) -> None:
    """A server that spells its JSON with spaces has ended its answer all the same, and told the tokens."""

    async def answering(_asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n")
        last = {"response": "", "done": True, "done_reason": "stop", "prompt_eval_count": 5, "eval_count": 7}
        for fields in ({"response": "a", "done": False}, last):
            line = json.dumps(fields).encode() + b"\n"
            writer.write(b"%x\r\n%b\r\n" % (len(line), line))
        writer.write(b"0\r\n\r\n")

    stage = await corral(ScriptedHost("gpu1", answering))
    await stage.ask(call("/api/generate", stream=True))
    record = (await stage.records.until(1))[0]
    assert (record.outcome, record.attempts[0].outcome) == ("ok", "ok")
    assert (record.usage.accounting, record.usage.input_tokens, record.usage.output_tokens) == ("reported", 5, 7)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
@pytest.mark.parametrize("tokens", [1, 7, 500])
async def test_tokens_without_usage(corral: Corral, path: str, tokens: int) -> None:
    """A stream whose client asked for no usage is counted as it passes."""
    host = simulated(tokens_per_second=1e9)
    stage = await corral(host)
    await stage.ask(call(path, stream=True, tokens=tokens))
    usage = (await stage.records.until(1))[0].usage
    assert (usage.accounting, usage.output_tokens) == ("counted", tokens)


@pytest.mark.parametrize("path", PATHS)
async def test_facts(corral: Corral, path: str) -> None:
    """Who asked what of whom, how it went, and how long each part took."""
    host = simulated()
    stage = await corral(host)
    request = call(path)
    host.faults.set("slow_first_byte", seconds=0.05)
    async with stage.begun(request, "s1") as client:
        answer = await client.answer()
    record = await stage.records.of("s1")
    assert (record.endpoint, record.host, record.status, record.outcome) == (path, "gpu1", 200, "ok")
    assert record.phase == "done"
    assert record.dialect == (
        "anthropic" if path == "/v1/messages" else "openai" if path.startswith("/v1") else "ollama"
    )
    assert record.id == answer.get("X-Corral-Generation")
    assert record.stream is (path in ("/api/generate", "/api/chat"))
    assert record.client == "127.0.0.1"
    assert (record.bytes_in, record.bytes_out) == (len(request.body), len(answer.body))
    assert record.cold
    assert record.ttft_seconds is not None
    assert record.duration_seconds >= record.ttft_seconds > (0 if "embed" in path else 0.05)
    assert 0 <= record.overhead_seconds < record.duration_seconds
    assert record.route is not None
    assert record.route.reason == "only_candidate"
    assert await stage.totals("corral_model_loads_total", "host") == {"gpu1": 1}


async def test_the_log(corral: Corral) -> None:
    """Each generation has one JSON line with the record's facts, and nothing that anybody said or a credential."""
    host = simulated()
    stage = await corral(host)
    private = {"Authorization": "Bearer hunter2", "Cookie": "hunter2", "x-api-key": "hunter2"}
    answers = [
        await stage.ask(
            call(path, prompt="my secret", headers=private, **({"stream": False} if path in STREAMING else {}))
        )
        for path in PATHS
        if "audio" not in path
    ]
    host.faults.set("hang_before_headers")
    async with stage.begun(call("/api/chat", prompt="my secret"), "gone") as client:
        await stage.row("gone", "prefill")
        await client.leave("reset")
        await stage.records.of("gone")
    host.faults.clear()
    await stage.stop()
    text = stage.log.read_text(encoding="utf-8")
    lines = [json.loads(line) for line in text.splitlines()]
    lines = [line for line in lines if line["event"] == "generation"]
    assert [line["id"] for line in lines[:-1]] == [answer.get("X-Corral-Generation") for answer in answers]
    assert {line["ts"] is not None and line["outcome"] for line in lines[:-1]} == {"ok"}
    assert (lines[-1]["outcome"], lines[-1]["cancelled_by"]) == ("cancelled", "client_disconnect")
    assert lines[0]["attempts"][0]["host"] == "gpu1"
    assert lines[0]["model"] == TEXT
    said = json.loads(answers[1].body)["message"]["content"]
    for secret in ("my secret", "hunter2", said):
        assert secret not in text


async def test_metrics_can_be_scraped(corral: Corral) -> None:
    """Every family is there from the beginning, in the format that Prometheus reads, and names what the fleet is."""
    stage = await corral(simulated(), simulated("gpu2"), slots={"gpu1": 3})
    answer = await ask(stage.url, "GET", "/metrics")
    assert (answer.get("Content-Type") or "").startswith("text/plain; version=0.0.4")
    families = {family.name: family for family in text_string_to_metric_families(answer.body.decode())}
    typed = {f"{name}_total" if family.type == "counter" else name for name, family in families.items()}
    assert {f"corral_{name}" for name in FAMILIES.split()} - typed == set()
    assert all(family.documentation for family in families.values())
    assert "process_resident_memory_bytes" in typed
    assert await stage.totals("corral_host_up", "host") == {"gpu1": 1, "gpu2": 1}
    assert await stage.totals("corral_host_concurrency_limit", "host") == {"gpu1": 3, "gpu2": 1}
    assert await stage.totals("corral_host_info", "host", "ollama_version") == {
        ("gpu1", "0.33.0"): 1,
        ("gpu2", "0.33.0"): 1,
    }
    await stage.ask(call("/api/chat"))
    for name in (
        "request_duration",
        "time_to_first_token",
        "queue_wait",
        "upstream_attempt_duration",
        "gateway_overhead",
    ):
        assert (await stage.totals(f"corral_{name}_seconds_count")).total() == 1


async def test_openmetrics_can_be_scraped(corral: Corral) -> None:
    """By who asks for it, as Prometheus does; who asks for anything else gets text."""
    stage = await corral(simulated())
    await stage.ask(call("/api/chat"))
    await stage.records.until(1)
    asked = (
        "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,*/*;q=0.1"
    )
    answer = await ask(stage.url, "GET", "/metrics", headers={"Accept": asked})
    assert answer.get("Content-Type") == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    families = {family.name: family for family in openmetrics_families(answer.body.decode())}
    assert families["corral_tokens"].unit == "tokens"
    assert {f"corral_{name}".removesuffix("_total") for name in FAMILIES.split()} - families.keys() == set()
    for other in ("*/*", "text/plain", "application/openmetrics-text;q=0.0", ""):
        answer = await ask(stage.url, "GET", "/metrics", headers={"Accept": other})
        assert (answer.get("Content-Type") or "").startswith("text/plain; version=0.0.4")


async def test_models_come_and_go(corral: Corral) -> None:
    """What was loaded by a request, what went on our word, and what others did is told apart, and adds up to what the host did."""
    host = simulated()
    stage = await corral(host)
    for path, tokens in (("/api/chat", 3), ("/api/generate", 2)):
        await stage.ask(call(path, tokens=tokens))
    await stage.ask(call("/api/generate", prompt="", keep_alive=0))
    await stage.ask(call("/api/generate", prompt=""))
    await stage.ask(call("/api/chat", OTHER, options={"num_ctx": 2048}))
    await stage.ask(call("/api/chat", OTHER, options={"num_ctx": 1024}))
    await stage.polled("gpu1")
    loads = await stage.totals("corral_model_loads_total", "model", "trigger")
    assert loads == {(TEXT, "request"): 1, (TEXT, "preload"): 1, (OTHER, "request"): 2}
    await ask(host.url, "POST", "/api/generate", json.dumps({"model": TEXT, "keep_alive": 0}).encode())
    await ask(host.url, "POST", "/api/generate", json.dumps({"model": OTHER, "keep_alive": 0}).encode())
    await ask(host.url, "POST", "/api/generate", json.dumps({"model": OTHER}).encode())
    await stage.polled("gpu1")
    assert (await stage.totals("corral_model_loads_total")).total() == host.ledger.loads
    unloads = await stage.totals("corral_model_unloads_total", "reason")
    assert unloads == {"requested": 1, "reloaded": 2, "evicted": 1}
    assert unloads.total() == host.ledger.unloads


async def test_labels_are_bounded(corral: Corral) -> None:
    """However many models are asked for that nobody has, they are one label; those that exist have their names, however spelt."""
    stage = await corral(simulated())
    for number in range(30):
        await stage.ask(call("/api/chat", f'nobody{number}"\\n}}'))
    for name in (TEXT, TEXT.upper(), f"library/{TEXT}", OTHER):
        assert (await stage.ask(call("/api/chat", name))).status == 200
    await stage.records.until(34)
    assert await stage.totals("corral_requests_total", "model") == {"_unknown": 30, TEXT: 3, OTHER: 1}


async def test_live_gauges(corral: Corral) -> None:
    """What runs and what waits is in the gauges while it does."""
    host = simulated()
    stage = await corral(host)
    host.faults.set("hang_before_headers")
    async with stage.begun(call("/api/chat"), "a") as one, stage.begun(call("/api/chat", OTHER), "b") as two:
        await stage.row("a", "prefill")
        await stage.row("b", "queued")
        assert await stage.totals("corral_requests_in_flight", "host", "model") == {("gpu1", TEXT): 1}
        assert await stage.totals("corral_queue_depth", "model") == {OTHER: 1}
        assert await stage.totals("corral_host_leases", "host") == {"gpu1": 1}
        oldest = [sample.value for sample in await stage.metrics() if sample.name == "corral_queue_oldest_seconds"]
        assert oldest[0] > 0
        host.faults.clear()
        assert Counter([(await client.answer()).status for client in (one, two)]) == {200: 2}


async def test_every_answer_is_counted(corral: Corral) -> None:
    """HTTP answers are counted once each, by route and status, those of clients that left as 499."""
    host = simulated()
    stage = await corral(host)
    await stage.ask(call("/api/chat"))
    await stage.ask(call("/api/chat", "nobody"))
    await ask(stage.url, "GET", "/api/tags")
    await ask(stage.url, "GET", "/no/such/path")
    host.faults.set("hang_before_headers")
    async with stage.begun(call("/api/chat"), "gone") as client:
        await stage.row("gone", "prefill")
        await client.leave("reset")
        await stage.records.of("gone")
    host.faults.clear()
    async with asyncio.timeout(5):
        while not (counted := await stage.totals("corral_http_responses_total", "route", "code"))["/api/chat", "499"]:
            pass
    for key, count in {
        ("/api/chat", "200"): 1,
        ("/api/chat", "404"): 1,
        ("/api/chat", "499"): 1,
        ("/api/tags", "200"): 1,
        ("_unmatched", "404"): 1,
    }.items():
        assert counted[key] == count
