"""A host that fails before its first byte is replaced; one that fails after it is explained, in well-formed last words."""

import asyncio
import json
from collections import Counter
from typing import Any

import pytest

from simulator.host import SimulatedHost
from tests.builders import EMBEDDING, NATIVE, ONE_EACH, OTHER, PATHS, STREAMING, TEXT, call, simulated
from tests.conftest import Corral
from tests.contract.raw import Answer, Cut, ask
from tests.scripted import Asked, ScriptedHost
from tests.stage import Client, Stage
from tests.streams import complete, events, last_error, text_of

BEFORE = {
    "refuse": "reset",
    "listening_off": "connect_error",
    "reset_before_headers": "reset",
    "close_before_headers": "reset",
    "garbage": "protocol_error",
    "busy": "http_5xx",
    "load_error": "http_5xx",
    "ghost_model": "http_4xx",
}
"""Faults before the first byte, and what the attempt is then called."""

WORDS = {
    "refuse": "closed the connection before its answer",
    "listening_off": "cannot connect",
    "reset_before_headers": "before its answer",
    "close_before_headers": "closed the connection before its answer",
    "garbage": "not HTTP",
    "busy": "server busy, please try again",
    "load_error": "llama-server process has terminated",
    "ghost_model": "not found",
}
MANY = 30


def fault(host: SimulatedHost, name: str, **more: Any) -> None:
    """Switch a fault on; a ghost is the model that everybody asks for."""
    host.faults.set(name, **({"model": TEXT} if name == "ghost_model" else {}), **more)


async def two(corral: Corral, **sections: Any) -> tuple[Stage, SimulatedHost, SimulatedHost]:
    """A gateway that sends the first request to the first host, for only that one has the model in memory."""
    bad, good = simulated("bad"), simulated("good")
    for model in (TEXT, EMBEDDING, "gemma3n:e4b"):
        await bad.load(model)
    bad.ledger.entries.clear()
    return await corral(bad, good, **sections), bad, good


def error_text(answer: Answer) -> str:
    """The message of an error in any dialect."""
    error = json.loads(answer.body)["error"]
    return str(error if isinstance(error, str) else error["message"])


# -- before the first byte ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize("name", BEFORE)
async def test_another_host_answers(corral: Corral, name: str, stream: bool) -> None:
    """The client sees one good answer, the record both attempts, and why there were two."""
    stage, bad, good = await two(corral)
    fault(bad, name)
    answer = await stage.ask(call("/api/generate", stream=stream))
    assert (answer.status, answer.get("X-Corral-Host")) == (200, "good")
    assert json.loads(answer.body.splitlines()[-1])["done"]
    record = (await stage.records.until(1))[0]
    assert [(attempt.host, attempt.outcome) for attempt in record.attempts] == [("bad", BEFORE[name]), ("good", "ok")]
    assert WORDS[name] in record.attempts[0].why
    assert (record.outcome, record.host, record.status) == ("ok", "good", 200)
    assert good.ledger.completed == 1
    assert await stage.totals("corral_retries_total", "host", "reason") == {("bad", BEFORE[name]): 1}
    bad.faults.clear()


@pytest.mark.parametrize("path", PATHS)
async def test_every_path_fails_over(corral: Corral, path: str) -> None:
    """The body is sent again unchanged, whatever the dialect."""
    stage, bad, good = await two(corral)
    bad.faults.set("reset_before_headers")
    request = call(path)
    answer = await stage.ask(request)
    assert (answer.status, answer.get("X-Corral-Host")) == (200, "good")
    assert bad.ledger.last_body == good.ledger.last_body == request.body


@pytest.mark.parametrize("path", ONE_EACH)
@pytest.mark.parametrize("name", BEFORE)
async def test_all_hosts_fail(corral: Corral, name: str, path: str) -> None:
    """One error in the dialect names each host that was tried, and why it failed."""
    stage, bad, good = await two(corral)
    fault(bad, name)
    fault(good, name)
    answer = await stage.ask(call(path))
    text = error_text(answer)
    assert "bad: " in text
    assert "good: " in text
    assert text.count(WORDS[name]) == 2
    assert answer.status == {"busy": 503, "load_error": 500, "ghost_model": 404}.get(name, 502)
    assert (answer.get("Retry-After") is not None) is (name == "busy")
    assert answer.get("X-Corral-Generation")
    record = (await stage.records.until(1))[0]
    assert record.outcome == "upstream_error"
    assert [attempt.outcome for attempt in record.attempts] == [BEFORE[name]] * 2
    assert record.status == answer.status
    bad.faults.clear()
    good.faults.clear()


@pytest.mark.parametrize("hosts", [1, 2])
async def test_hosts_that_want_no_more(corral: Corral, hosts: int) -> None:
    """429 of each is theirs: an attempt that CorralHostErrors counts, and a request that the objective does."""

    async def answering(_asked: Asked, writer: asyncio.StreamWriter) -> None:
        said = b'{"error":"too many requests"}'
        writer.write(b"HTTP/1.1 429 Too Many Requests\r\nContent-Type: application/json\r\n")
        writer.write(b"Content-Length: %d\r\n\r\n%b" % (len(said), said))

    stage = await corral(*(ScriptedHost(f"gpu{number}", answering) for number in range(hosts)))
    answer = await stage.ask(call("/api/chat"))
    assert answer.status == 429
    record = (await stage.records.until(1))[0]
    assert (record.outcome, record.status) == ("upstream_error", 429)
    assert [attempt.outcome for attempt in record.attempts] == ["http_429"] * hosts


@pytest.mark.parametrize("path", ONE_EACH)
@pytest.mark.parametrize("name", ["busy", "load_error", "ghost_model"])
async def test_the_only_host_speaks_for_itself(corral: Corral, name: str, path: str) -> None:
    """When there was but one host to ask, its own error passes unchanged."""
    host = simulated()
    stage = await corral(host)
    fault(host, name)
    answer = await stage.ask(call(path))
    straight = await ask(host.url, "POST", path, call(path).body)
    assert answer.status == straight.status
    assert error_text(answer) == error_text(straight)
    assert answer.get("Content-Type") == straight.get("Content-Type")
    assert len((await stage.records.until(1))[0].attempts) == 1


async def test_a_used_connection_that_breaks_late(corral: Corral) -> None:
    """A host that breaks off after it has worked on a request for a while is not asked for the same again, but the other one."""
    stage, bad, _ = await two(corral)
    assert (await stage.ask(call("/api/chat"))).get("X-Corral-Host") == "bad"
    bad.faults.set("slow_first_byte", seconds=0.5)
    bad.faults.set("close_mid_stream", after_chunks=3)
    answer = await stage.ask(call("/api/chat", stream=False, tokens=MANY))
    assert (answer.status, answer.get("X-Corral-Host")) == (200, "good")
    record = (await stage.records.until(2))[1]
    assert [(attempt.host, attempt.outcome) for attempt in record.attempts] == [("bad", "reset"), ("good", "ok")]
    assert len(bad.ledger.entries) == 2


@pytest.mark.parametrize(("path", "more", "status"), [
    ("/api/generate", {"options": {"num_ctx": "many"}}, 500),
    ("/api/chat", {"think": True}, 400),
    ("/v1/chat/completions", {"messages": []}, 400),
    ("/v1/messages", {"max_tokens": 0}, 400),
    ("/api/embed", {"model": TEXT}, 501),
])  # fmt: skip
async def test_the_clients_own_fault_is_not_tried_again(corral: Corral, path: str, more: dict, status: int) -> None:
    """An error that every host would give is passed on from the first, and held against none."""
    stage, bad, good = await two(corral)
    request = call(path, **more)
    answer = await stage.ask(request)
    straight = await ask(good.url, "POST", path, request.body, request.headers)
    assert (answer.status, error_text(answer)) == (straight.status, error_text(straight))
    assert answer.status == status
    assert len(bad.ledger.entries) == 1
    record = (await stage.records.until(1))[0]
    assert record.outcome == ("client_error" if status < 500 or status == 501 else "upstream_error")
    assert (await stage.totals("corral_host_state", "state")) == {"healthy": 2}


async def test_at_most_so_many_attempts(corral: Corral) -> None:
    """No more hosts are asked than the configuration says, each at most once."""
    hosts = [simulated(f"gpu{number}") for number in range(1, 6)]
    stage = await corral(*hosts, relay={"attempts": 3})
    for host in hosts:
        host.faults.set("close_before_headers")
    answer = await stage.ask(call("/api/chat"))
    assert (answer.status, "3 hosts were tried" in error_text(answer)) == (502, True)
    assert sorted(len(host.ledger.entries) for host in hosts) == [0, 0, 1, 1, 1]


async def test_a_ghost_is_forgotten(corral: Corral) -> None:
    """A host that lists a model it does not know is not asked for it again; its list is read anew at once."""
    stage, bad, _ = await two(corral)
    bad.faults.set("ghost_model", model=TEXT)
    bad.faults.set("tags_error")  # so that only what it said itself can tell that it has not the model
    before = bad.ledger.polls["/api/tags"]
    for _ in range(3):
        assert (await stage.ask(call("/api/chat"))).get("X-Corral-Host") == "good"
    assert len(bad.ledger.entries) == 1
    await bad.wait_until(lambda: bad.ledger.polls["/api/tags"] > before)
    assert (await stage.totals("corral_host_state", "host", "state"))["bad", "healthy"] == 1
    good = await stage.ask(call("/api/chat", OTHER))
    assert good.status == 200


async def test_the_breaker(corral: Corral) -> None:
    """A host that keeps failing is left alone, tried again by one request after a while, and trusted again when that goes well."""
    stage, bad, good = await two(corral, slots=3, health={"failures": 1, "eject_seconds": 1.0})
    bad.faults.set("close_before_headers", times=1)
    assert (await stage.ask(call("/api/chat"))).get("X-Corral-Host") == "good"
    assert (await stage.totals("corral_host_state", "host", "state"))["bad", "ejected"] == 1
    assert (await ask(stage.url, "GET", "/readyz")).status == 200
    explained = json.loads(
        (await ask(stage.url, "POST", "/api/route/explain?path=/api/chat", call("/api/chat").body)).body
    )
    assert [(left["host"], left["code"]) for left in explained["rejected"]] == [("bad", "circuit_open")]
    assert "closed the connection" in explained["rejected"][0]["why"]
    async with asyncio.timeout(5):
        while not (await stage.totals("corral_host_state", "host", "state"))["bad", "trial"]:
            pass
    good.faults.set("ghost_model", model=TEXT)  # now only the other one is left
    assert (await stage.ask(call("/api/chat"))).get("X-Corral-Host") == "bad"
    assert (await stage.totals("corral_host_state", "state")) == {"healthy": 2}


async def test_when_every_host_is_ejected(corral: Corral) -> None:
    """The best of them is used all the same, and the record says so."""
    host = simulated()
    stage = await corral(host, health={"failures": 1, "eject_seconds": 60.0})
    host.faults.set("close_before_headers", times=1)
    assert (await stage.ask(call("/api/chat"))).status == 502
    assert (await stage.totals("corral_host_state", "state")) == {"ejected": 1}
    assert (await stage.ask(call("/api/chat"))).status == 200
    records = await stage.records.until(2)
    assert records[1].route is not None
    assert records[1].route.reason == "fallback"


async def test_a_host_that_is_down_delays_nothing(corral: Corral) -> None:
    """Requests go past a host that does not listen, and return to it once it is back."""
    one, two = simulated("gpu1"), simulated("gpu2")
    stage = await corral(one, two, poll={"interval_seconds": 0.05, "backoff_seconds": 0.05})
    await one.kill()
    answers = [await stage.ask(call("/api/chat")) for _ in range(5)]
    assert {answer.get("X-Corral-Host") for answer in answers} == {"gpu2"}
    attempts = [attempt.host for record in await stage.records.until(5) for attempt in record.attempts]
    assert attempts.count("gpu1") <= 1
    await one.start()
    two.store.delete(two.store.find(TEXT))
    async with asyncio.timeout(5):
        while not (await stage.totals("corral_host_up", "host"))["gpu1"]:
            pass
    assert (await stage.ask(call("/api/chat"))).get("X-Corral-Host") == "gpu1"


# -- patience -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["slow_load", "hang_before_headers", "slow_first_byte"])
async def test_a_silent_host_is_not_left(corral: Corral, name: str) -> None:
    """While a host loads or reads, nothing is sent elsewhere, even when its polls are slow; the answer is the first attempt's."""
    slow, idle = simulated("slow", load_bytes_per_second=1e9), simulated("idle", OTHER)
    stage = await corral(slow, idle, poll={"interval_seconds": 0.02, "timeout_seconds": 0.05}, health={"failures": 100})
    slow.faults.set(name, factor=4.0, seconds=0.4)
    slow.faults.set("slow_ps", seconds=0.1)
    idle.store.copy(slow.store.find(TEXT), slow.store.find(TEXT).name)
    async with stage.begun(call("/api/chat")) as client:
        await slow.wait_until(lambda: slow.ledger.loading + slow.ledger.prefill == 1)
        before = slow.ledger.polls["/api/version"]
        await slow.wait_until(lambda: slow.ledger.polls["/api/version"] >= before + 3)
        answer = await client.answer()
    assert (answer.status, answer.get("X-Corral-Host")) == (200, "slow")
    record = (await stage.records.until(1))[0]
    assert [(attempt.host, attempt.outcome) for attempt in record.attempts] == [("slow", "ok")]
    assert len(slow.ledger.entries) == 1
    assert len(idle.ledger.entries) == 0


# -- after the first byte -----------------------------------------------------------------------------------------------------

MID_STREAM = {
    "reset_mid_stream": "midstream_error",
    "close_mid_stream": "midstream_error",
    "garbage_mid_stream": "protocol_error",
    "error_mid_stream": "midstream_error",
    "end_without_done": "midstream_error",
}
"""Faults after the first byte, and what the attempt is then called."""
OWN = ("error_mid_stream", "end_without_done")
"""Ollama's own failures: whole answers on the wire, which are passed on as they came."""


@pytest.mark.parametrize("path", STREAMING)
@pytest.mark.parametrize("name", MID_STREAM)
async def test_a_stream_that_breaks(corral: Corral, name: str, path: str) -> None:
    """All that came is there, then the failure in words that the client understands; nothing is tried again."""
    stage, bad, good = await two(corral)
    whole = events(path, (await ask(good.url, "POST", path, call(path, stream=True, tokens=MANY).body)).body)
    good.ledger.entries.clear()
    bad.faults.set(name, after_chunks=7, times=1)
    answer = await stage.ask(call(path, stream=True, tokens=MANY))
    assert answer.status == 200
    parsed = events(path, answer.body)
    said = text_of(path, parsed)
    assert said
    assert text_of(path, whole).startswith(said)
    assert not complete(path, parsed)
    record = (await stage.records.until(1))[0]
    assert (record.outcome, record.phase, record.status) == ("upstream_error", "streaming", 200)
    assert [(attempt.host, attempt.outcome) for attempt in record.attempts] == [("bad", MID_STREAM[name])]
    assert record.reason
    assert record.cancelled_by is None
    assert record.usage.accounting == "counted"
    assert record.usage.output_tokens == 7
    assert len(good.ledger.entries) == 0
    assert record.attempts[0].why == record.reason
    assert stage.gateway.fleet.view("bad", stage.gateway.clock()).health.attempt_failures == 1
    assert +await stage.totals("corral_upstream_attempts_total", "outcome") == {MID_STREAM[name]: 1}
    if name not in OWN:
        assert record.reason in (last_error(path, parsed) or "")
        assert "bad" in (last_error(path, parsed) or "")
    elif name == "error_mid_stream" and path in NATIVE:
        assert (
            last_error(path, parsed)
            == record.reason
            == "an error was encountered while running the model: unexpected EOF"
        )


@pytest.mark.parametrize("path", [path for path in PATHS if "embed" not in path])
@pytest.mark.parametrize("name", ["reset_mid_stream", "close_mid_stream", "garbage_mid_stream", "error_mid_stream"])
async def test_an_answer_in_one_piece_is_asked_for_again(corral: Corral, name: str, path: str) -> None:
    """A host that breaks off while it collects an answer has sent nothing yet: the other one gives it."""
    stage, bad, good = await two(corral)
    bad.faults.set(name, after_chunks=3, times=1)
    answer = await stage.ask(call(path, **({} if "audio" in path else {"stream": False}), tokens=MANY))
    assert (answer.status, answer.get("X-Corral-Host")) == (200, "good")
    assert good.ledger.completed == 1
    record = (await stage.records.until(1))[0]
    assert [attempt.host for attempt in record.attempts] == ["bad", "good"]


@pytest.mark.parametrize("path", STREAMING)
async def test_a_host_killed_in_the_middle(corral: Corral, path: str) -> None:
    """The stream ends well-formed, the record says whose fault it was, and the next request goes elsewhere."""
    stage, bad, _ = await two(corral)
    bad.faults.set("hang_mid_stream", after_chunks=3, times=1)
    async with stage.begun(call(path, stream=True, tokens=MANY)) as client:
        await client.head()
        chunks = [await client.chunk()]
        await bad.wait_until(lambda: bad.ledger.faults["hang_mid_stream"] == 1)
        await bad.kill()
        while (chunk := await client.chunk()) is not None:
            chunks.append(chunk)
        parsed = events(path, b"".join(chunk for chunk in chunks if chunk))
        assert "bad" in (last_error(path, parsed) or "")
        request = call(path, stream=True)  # the connection is as good as new
        await client.send("POST", path, request.body)
        answer = await client.answer()
        assert (answer.status, answer.get("X-Corral-Host")) == (200, "good")
    record = (await stage.records.until(2))[0]
    assert (record.outcome, record.attempts[0].outcome) == ("upstream_error", "midstream_error")
    assert len(record.attempts) == 1


@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_a_break_that_cannot_be_told_in_words(corral: Corral, version: str) -> None:
    """An answer in one large piece that breaks off is broken off: nobody may take half of it for the whole."""
    size = 300_000
    release = asyncio.Event()

    async def answering(_asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % size)
        writer.write(b"x" * (size // 2))
        await release.wait()
        writer.transport.abort()

    stage = await corral(ScriptedHost("gpu1", answering))
    body = call("/api/generate", stream=False).body
    async with Client.to(stage.url) as client:
        await client.write(
            f"POST /api/generate HTTP/{version}\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
        head = await client.head()
        assert head.get("Content-Length") == str(size)
        release.set()
        with pytest.raises(Cut):
            await client.chunk()
    record = (await stage.records.until(1))[0]
    assert (record.outcome, record.attempts[0].outcome) == ("upstream_error", "midstream_error")


@pytest.mark.parametrize(
    ("broken", "outcome"),
    [
        (b"not a chunk size\r\n", "protocol_error"),
        (b'11\r\n{"response":"b"}\nXX', "protocol_error"),
        (b'-11\r\n{"response":"b"}\n\r\n', "protocol_error"),
        (b'64\r\n{"response":"b"}\n', "midstream_error"),
        (b"64\r", "midstream_error"),
        (b'14\r\n{"response":"half a \r\n', "midstream_error"),
    ],
    ids=["garbage", "no end", "negative", "half a chunk", "half a size", "half a line"],
)
async def test_breaks_in_the_steady_state(corral: Corral, broken: bytes, outcome: str) -> None:
    """After chunks that came one by one, whatever breaks the framing ends in a line of its own."""
    go_on = asyncio.Event()

    async def answering(_asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(3):
            go_on.clear()
            writer.write(b'1e\r\n{"response":"a","done":false}\n\r\n')
            await go_on.wait()
        go_on.clear()
        writer.write(broken)
        await go_on.wait()
        writer.close()

    stage = await corral(ScriptedHost("gpu1", answering))
    async with stage.begun(call("/api/generate")) as client:
        await client.head()
        lines = []
        for _ in range(3):
            lines.append(json.loads(await client.chunk() or b""))
            go_on.set()
        await stage.operate("GET", "/healthz")
        await stage.operate("GET", "/healthz")
        go_on.set()
        rest = b""
        while (chunk := await client.chunk()) is not None:
            rest += chunk
    assert [line["response"] for line in lines] == ["a"] * 3
    parsed = events("/api/generate", rest)
    assert "gpu1" in (last_error("/api/generate", parsed) or "")
    assert all(line.get("response") in (None, "b") for line in parsed)
    record = (await stage.records.until(1))[0]
    assert (record.outcome, record.attempts[0].outcome) == ("upstream_error", outcome)


async def test_failures_are_counted(corral: Corral) -> None:
    """Retries, exhausted requests and outcomes at /metrics are those that happened."""
    stage, bad, good = await two(corral, health={"failures": 100})
    bad.faults.set("close_before_headers", times=1)
    assert (await stage.ask(call("/api/chat"))).status == 200
    for host in (bad, good):
        host.faults.set("busy", times=1)
    assert (await stage.ask(call("/api/chat"))).status == 503
    samples = await stage.metrics()
    names = Counter(
        {sample.name: sample.value for sample in samples if sample.name == "corral_retries_exhausted_total"}
    )
    assert names == {"corral_retries_exhausted_total": 1}
    assert (await stage.totals("corral_requests_total", "outcome")) == {"ok": 1, "upstream_error": 1}
    assert (await stage.totals("corral_retries_total")).total() == 2
