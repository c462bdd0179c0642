"""What was sent to break it: by clients that misspell and do not read, and by hosts that answer anything at all."""

import asyncio
import contextlib
import json
import math
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest
import zstandard

from tests.builders import EMBEDDING, TEXT, Call, call, simulated
from tests.conftest import Corral
from tests.contract.raw import Answer, Cut, ask
from tests.scripted import Answering, Asked, ScriptedHost
from tests.sockets import http
from tests.stage import SAMPLE, SECONDS, STILL, Client, Stage, nobody_listens
from tests.streams import events, last_error

DEEP = b"[" * 1000 + b"]" * 1000
FINE = b'{"model":"m","response":"hi","done":true,"eval_count":1}\n'
NDJSON = "application/x-ndjson"
HALF = 60_000
"""Less than what makes a transport say stop, and twice as much more than that, whatever the kernel takes of it."""


def stream(*lines: bytes, content_type: str = NDJSON) -> bytes:
    """A whole chunked answer."""
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    return head + b"".join(b"%x\r\n%b\r\n" % (len(line), line) for line in (*lines, b""))


def saying(*answers: bytes) -> Answering:
    """Answers, one to each request in turn, and the last one to all others."""
    left = list(answers)

    async def answering(_asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(left.pop(0) if len(left) > 1 else left[0])

    return answering


def plain(sent: Call, version: str = "1.1", *headers: str) -> bytes:
    """A request as it stands on the wire."""
    lines = (
        f"POST {sent.path} HTTP/{version}",
        "Host: localhost",
        f"Content-Length: {len(sent.body)}",
        *headers,
        "",
        "",
    )
    return "\r\n".join(lines).encode() + sent.body


async def findings(stage: Stage) -> set[str]:
    """What is amiss in the fleet."""
    return {row["kind"] for row in (await stage.get("/api/fleet"))["findings"]}


# -- names --------------------------------------------------------------------------------------------------------------------


async def test_a_name_in_another_case(corral: Corral) -> None:
    """A path that takes names as they are written answers the caller 404, and takes the model from nobody else."""
    hosts = simulated("gpu1"), simulated("gpu2")
    stage = await corral(*hosts)
    for host in hosts:
        host.faults.set("tags_error")  # what is forgotten now stays so
    wrong = call("/api/embeddings", EMBEDDING.upper())
    answer = await stage.ask(wrong)
    straight = await ask(hosts[0].url, "POST", wrong.path, wrong.body)
    assert (answer.status, answer.body) == (straight.status, straight.body)
    assert answer.status == 404
    assert "ghost_model" not in await findings(stage)
    for host in hosts:
        right = await stage.ask(call("/api/embeddings", headers={"X-Corral-Host": host.name}))
        assert (right.status, right.get("X-Corral-Host")) == (200, host.name)
    records = await stage.records.until(3)
    assert [(record.outcome, len(record.attempts)) for record in records] == [("client_error", 1), ("ok", 1), ("ok", 1)]


@pytest.mark.parametrize("spelt", [EMBEDDING, EMBEDDING.removesuffix(":latest")])
async def test_a_name_as_it_is_listed(corral: Corral, spelt: str) -> None:
    """A 404 for it contradicts the host's own list: it is a ghost there, and the other host answers."""
    bad, good = simulated("bad"), simulated("good")
    await bad.load(EMBEDDING)
    stage = await corral(bad, good)
    for host in (bad, good):
        host.faults.set("tags_error")
    bad.faults.set("ghost_model", model=EMBEDDING)
    answer = await stage.ask(call("/api/embeddings", spelt))
    assert (answer.status, answer.get("X-Corral-Host")) == (200, "good")
    pinned = await stage.ask(call("/api/embeddings", spelt, headers={"X-Corral-Host": "bad"}))
    assert (pinned.status, "on host bad" in pinned.body.decode()) == (404, True)
    assert len((await stage.records.until(2))[0].attempts) == 2


# -- answers that cannot be believed ------------------------------------------------------------------------------------------

ODD = {
    "a deep answer": ("/api/generate", http(b'{"a":' + DEEP + b"}"), 200),
    "a deep line of a stream": ("/api/chat", stream(b'{"message":{},"done":false}\n', b'{"a":' + DEEP + b"}\n"), 200),
    "a deep error in a stream": (
        "/api/chat",
        stream(b'{"message":{},"done":false}\n', b'{"error":' + DEEP + b"}\n"),
        200,
    ),
    "a deep error in events": (
        "/v1/chat/completions",
        stream(b'data: {"error":' + DEEP + b"}\n\n", content_type="text/event-stream"),
        200,
    ),
    "a deep 500": ("/api/generate", http(b'{"error":' + DEEP + b"}", 500), 500),
    "a deep 404": ("/v1/messages", http(b'{"error":' + DEEP + b"}", 404), 404),
    "400 digits": ("/api/generate", stream(b'{"done":true,"eval_count":' + b"9" * 400 + b"}\n"), 200),
    "400 digits of time": ("/api/generate", http(b'{"done":true,"eval_duration":' + b"9" * 400 + b"}"), 200),
    "19 digits": ("/api/generate", http(b'{"done":true,"eval_count":' + b"9" * 19 + b"}"), 200),
    "less than nothing": ("/api/generate", stream(b'{"done":true,"eval_count":-50,"prompt_eval_count":-7}\n'), 200),
    "less than nothing at once": ("/v1/completions", http(b'{"usage":{"prompt_tokens":-5}}'), 200),
}


@pytest.mark.parametrize(("path", "said", "status"), ODD.values(), ids=ODD)
async def test_an_odd_answer(corral: Corral, path: str, said: bytes, status: int) -> None:
    """Is one response on the client's connection, which serves the next; it takes no record with it, and no counter goes down."""
    turn, all_there = iter((FINE, FINE, said, FINE, FINE)), asyncio.Event()

    async def answering(_asked: Asked, writer: asyncio.StreamWriter) -> None:
        answer, number = next(turn, FINE), len(host.asked)
        if number == 5:
            all_there.set()
        if number > 1:  # the first one loads the model: nothing is sent behind it
            await all_there.wait()  # so that all end together
        writer.write(stream(answer) if answer is FINE else answer)

    host = ScriptedHost("gpu1", answering)
    stage = await corral(host, slots=4)
    fine = call("/api/generate")
    assert (await stage.ask(fine)).status == 200
    async with contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(Client.to(stage.url)) for _ in range(4)]
        for number, client in enumerate(clients, 1):
            sent = call(path) if number == 2 else fine
            await client.send("POST", sent.path, sent.body)
            await host.ledger.wait_until(lambda number=number: len(host.asked) > number, SECONDS)  # type: ignore[misc]
        answers = [await client.answer() for client in clients]
        before = await stage.totals("corral_tokens_total", "type")
        assert [answer.status for answer in answers] == [200, status, 200, 200]
        assert DEEP not in said or DEEP in answers[1].body
        for client in clients:
            await client.send("POST", fine.path, fine.body)
            assert (await client.answer()).body == FINE
    records = await stage.records.until(9)
    assert len({record.id for record in records}) == 9
    assert min(min(record.usage.input_tokens, record.usage.output_tokens) for record in records) >= 0
    after = await stage.totals("corral_tokens_total", "type")
    assert all(after[kind] >= before[kind] >= 0 for kind in ("input", "output"))
    assert max(after.values()) < 100


async def test_a_deep_error_in_a_stream_is_a_failure(corral: Corral) -> None:
    """The record says so, as of any error that a host puts into a 200."""
    stage = await corral(ScriptedHost("gpu1", saying(stream(b'{"error":' + DEEP + b"}\n"))))
    await stage.ask(call("/api/generate"))
    (record,) = await stage.records.until(1)
    assert (record.outcome, bool(record.reason)) == ("upstream_error", True)


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize("status", [204, 304])
async def test_no_body_by_status(corral: Corral, status: int, version: str) -> None:
    """Such an answer has no framing and no body, and the connection serves the next request."""
    empty = f"HTTP/1.1 {status} X\r\nX-Why: nothing\r\n\r\n".encode()
    stage = await corral(ScriptedHost("gpu1", saying(empty, stream(FINE))))
    sent = call("/api/generate")
    async with Client.to(stage.url) as client:
        await client.write(plain(sent, version))
        head = await client.head()
        assert (head.status, head.get("X-Why")) == (status, "nothing")
        assert (head.get("Transfer-Encoding"), head.get("Content-Length")) == (None, None)
        if version == "1.0":
            assert await client._reader.read() == b""
        else:
            await client.write(plain(sent))
            assert (await client.answer()).body == FINE


async def test_a_busy_host_without_words(corral: Corral) -> None:
    """The only host's 503 goes out as it is, though it has no body."""
    said = http(b"", 503, "text/plain", "Retry-After: 7", "X-Why: full")
    stage = await corral(ScriptedHost("gpu1", saying(said)))
    answer = await stage.ask(call("/api/chat"))
    assert (answer.status, answer.body, answer.framing) == (503, b"", "length")
    assert [answer.get(name) for name in ("Content-Type", "Retry-After", "X-Why")] == ["text/plain", "7", "full"]


# -- clients of another age ---------------------------------------------------------------------------------------------------


async def test_keep_alive_of_http_1_0(corral: Corral) -> None:
    """An answer without a length ends with its connection, whatever the client wished; and nobody says what server it is."""
    stage = await corral(ScriptedHost("gpu1", saying(stream(FINE))))
    async with Client.to(stage.url) as client:
        await client.write(plain(call("/api/generate"), "1.0", "Connection: keep-alive"))
        answer = await client.answer()
    assert (answer.status, answer.body, answer.framing) == (200, FINE, "close")
    assert (answer.get("Server"), (answer.get("Connection") or "close").lower()) == (None, "close")


class Stuck:
    """A client that has read the beginning of an answer, whose host is done."""

    def __init__(self, stage: Stage, client: Client) -> None:
        self.stage = stage
        self.client = client

    @classmethod
    @contextlib.asynccontextmanager
    async def with_(cls, corral: Corral, version: str, **sections: Any) -> AsyncIterator["Stuck"]:
        """One over this version of HTTP."""
        go_on = asyncio.Event()

        async def answering(_asked: Asked, writer: asyncio.StreamWriter) -> None:
            whole = http(b"x" * 2 * HALF)
            writer.write(whole[:-HALF])
            await go_on.wait()
            writer.write(whole[-HALF:])

        host = ScriptedHost("gpu1", answering)
        stage = await corral(host, **sections)
        stage.narrow(4096)
        async with Client.to(stage.url, 4096) as client:
            await client.write(plain(call("/api/generate"), version))
            await client.head()
            go_on.set()
            await stage.until(lambda _rows: stage.gateway.fleet.lease_count == 0)
            yield cls(stage, client)

    async def rest(self) -> int:
        """How much the client gets when it reads on. Raises Cut."""
        return len(await self.client.chunk() or b"")


async def test_stopping_who_does_not_read(corral: Corral) -> None:
    """Though its host is done, an answer that waits for its client is in flight, and an operator ends it."""
    async with Stuck.with_(corral, "1.0") as stuck:
        stage = stuck.stage
        (row,) = await stage.in_flight()
        assert (await stage.operate("DELETE", f"/api/generations/{row['id']}")).status == 200
        await stage.until(lambda rows: not rows)
        with pytest.raises(Cut):
            await stuck.rest()
    assert len(await stage.records.until(1)) == 1


async def test_a_deadline_of_who_does_not_read(corral: Corral) -> None:
    """A deadline ends it as well."""
    async with Stuck.with_(corral, "1.0", relay={"deadline_seconds": 0.5}) as stuck:
        await stuck.stage.until(lambda rows: not rows)
        with pytest.raises(Cut):
            await stuck.rest()
    assert len(await stuck.stage.records.until(1)) == 1


async def test_the_end_of_who_does_not_read(corral: Corral) -> None:
    """And so does the shutdown, in a bounded time."""
    async with Stuck.with_(corral, "1.0", shutdown={"grace_seconds": 0.1}) as stuck:
        async with asyncio.timeout(5):
            await stuck.stage.stop()
        with pytest.raises(Cut):
            await stuck.rest()
    assert len(stuck.stage.records) == 1


@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_who_reads_on_gets_all(corral: Corral, version: str) -> None:
    """The shutdown waits for a client that is slower than its host, as long as the grace period lasts."""
    async with Stuck.with_(corral, version, shutdown={"grace_seconds": 10.0}) as stuck, asyncio.TaskGroup() as tasks:
        stage = stuck.stage
        stopping = tasks.create_task(stage.stop())
        await nobody_listens(stage.url)
        for _ in range(STILL):
            assert (await stage.operate("GET", "/healthz")).status == 200
        assert not stopping.done()
        assert await stuck.rest() == 2 * HALF
    assert [record.outcome for record in stage.records] == ["ok"]


async def test_the_grace_period_ends_for_slow_clients_too(corral: Corral) -> None:
    """Nobody who reads nothing holds up the end."""
    async with Stuck.with_(corral, "1.1", shutdown={"grace_seconds": 0.1}) as stuck:
        async with asyncio.timeout(5):
            await stuck.stage.stop()
    assert [record.outcome for record in stuck.stage.records] == ["ok"]


# -- unloading ----------------------------------------------------------------------------------------------------------------

UNLOAD = call("/api/generate", prompt="", keep_alive=0)


async def test_an_unload_names_its_hosts(corral: Corral) -> None:
    """All that were asked, or the one that would have been."""
    hosts = simulated("gpu1"), simulated("gpu2"), simulated("gpu3")
    for host in hosts[:2]:
        await host.load(TEXT)
    stage = await corral(*hosts)
    assert (await stage.ask(UNLOAD)).get("X-Corral-Host") == "gpu1, gpu2"
    assert (await stage.ask(UNLOAD)).get("X-Corral-Host") == "gpu1"


UNLOADS = {
    "another protocol": (b"HTTP/1.1 101 S\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", 502),
    "nothing": (b"HTTP/1.1 204 N\r\n\r\n", 502),
    "a type in no letters": (b"HTTP/1.1 200 OK\r\nContent-Type: a\xff\r\nContent-Length: 2\r\n\r\n{}", 200),
    "a type that controls": (b"HTTP/1.1 200 OK\r\nContent-Type: a\x01b\r\nContent-Length: 2\r\n\r\n{}", 200),
    "a type with a delete": (b"HTTP/1.1 200 OK\r\nContent-Type: a\x7fb\r\nContent-Length: 2\r\n\r\n{}", 200),
}


@pytest.mark.parametrize(("said", "status"), UNLOADS.values(), ids=UNLOADS)
async def test_an_odd_answer_to_an_unload(corral: Corral, said: bytes, status: int) -> None:
    """It reaches the client as JSON or as an error, and the connection can be used again."""

    async def answering(_asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(said)
        await writer.drain()
        writer.close()

    stage = await corral(ScriptedHost("gpu1", answering))
    async with Client.to(stage.url) as client:
        for _ in range(2):
            await client.send("POST", UNLOAD.path, UNLOAD.body)
            answer = await client.answer()
            assert (answer.status, answer.get("Content-Type")) == (status, "application/json; charset=utf-8")
            json.loads(answer.body)


# -- hosts that say odd things of themselves ----------------------------------------------------------------------------------


def row(name: str, digest: str = "b", **more: Any) -> dict[str, Any]:
    """A model in a host's list."""
    return {"name": name, "model": name, "digest": digest * 64, "size": 1, "modified_at": "2026-01-01T00:00:00Z"} | more


def models(*rows: dict[str, Any]) -> dict[str, Any]:
    """A host's list."""
    return {"models": [*rows]}


NESTED = json.loads("[" * 300 + "]" * 300)
POLLS: dict[str, dict[str, Any]] = {
    "a digit that is none": {"/api/version": {"version": "0.²"}},
    "5000 digits": {"/api/version": {"version": "1" * 5000}},
    "lists in a version": {"/api/version": {"version": {"a": [1]}}},
    "two lines of version": {"/api/version": {"version": '1\n"# x'}},
    "a deep row on disk": {"/api/tags": models(row(TEXT), row("deep:1", "c", details=NESTED))},
    "a deep row in memory": {"/api/ps": models(row(TEXT, details=NESTED))},
    "more memory than there is": {"/api/ps": models(row("a:1", size_vram=1.7e308), row("b:1", "c", size_vram=1.7e308))},
    "less memory than none": {"/api/ps": models(row("a:1", size_vram=-1.7e308, context_length=-5))},
    "names that are none": {"/api/tags": models(row(TEXT), row('\0\n"x\\', "c"), {"name": 5, "digest": "d" * 64})},
}


def no_constant(text: str) -> Any:
    """JSON has none."""
    raise AssertionError(text)


async def sound(stage: Stage) -> dict[str, Any]:
    """Every page that tells of the fleet, read as strictly as clients do."""
    pages: dict[str, Any] = {}
    for path in ("/api/version", "/api/tags", "/api/ps", "/v1/models", "/readyz", "/api/models/servers", "/api/fleet"):
        answer = await ask(stage.url, "GET", path)
        assert (path, answer.status) == (path, 200)
        pages[path] = json.loads(answer.body, parse_constant=no_constant)
    answer = await ask(stage.url, "GET", "/metrics")
    assert answer.status == 200
    for line in answer.body.decode().splitlines():
        if not line.startswith("#"):
            found = SAMPLE.fullmatch(line)
            assert found, line
            assert math.isfinite(float(found[3])), line
    return pages


@pytest.mark.parametrize(
    "name", POLLS
)  # not the rows themselves: pytest shows what fails, and some are too deep for it
async def test_one_odd_host(corral: Corral, name: str) -> None:
    """What one host says of itself breaks no page that tells of all."""
    odd, good = ScriptedHost("odd", saying(stream(FINE)), POLLS[name]), simulated("good")
    stage = await corral(odd, good)
    pages = await sound(stage)
    assert {EMBEDDING, TEXT} <= {model["name"] for model in pages["/api/tags"]["models"]}
    assert "deep:1" not in json.dumps(pages)
    assert {row["health"] for row in pages["/api/models/servers"]["servers"]} == {"healthy"}
    for host in ("odd", "good"):
        assert (await stage.ask(call("/api/generate", headers={"X-Corral-Host": host}))).status == 200


def words(answer: Answer) -> str:
    """An error's, whatever the dialect."""
    error = json.loads(answer.body)["error"]
    return str(error if isinstance(error, str) else error["message"])


@pytest.mark.parametrize("path", ["/api/chat", "/v1/chat/completions", "/v1/messages"])
async def test_half_a_character_in_an_error(corral: Corral, path: str) -> None:
    """It reaches the client, the record, the log and the pages in some way, and stops none of them."""
    said = http(b'{"error":"bad \\ud800 thing"}', 502)
    stage = await corral(ScriptedHost("gpu1", saying(said)), ScriptedHost("gpu2", saying(said)))
    answer = await stage.ask(call(path))
    assert (answer.status, "2 hosts were tried" in words(answer)) == (502, True)
    assert words(answer).count("bad ") == 2
    pages = await sound(stage)
    assert all("bad " in host["why"] for host in pages["/api/models/servers"]["servers"])
    (record,) = await stage.records.until(1)
    assert record.reason.count("bad ") == 2


async def test_half_a_character_in_a_stream(corral: Corral) -> None:
    """As the last words of a stream it goes to the client as it came."""
    said = stream(b'{"error":"bad \\ud800 thing"}\n')
    stage = await corral(ScriptedHost("gpu1", saying(said)))
    answer = await stage.ask(call("/api/chat"))
    assert (last_error("/api/chat", events("/api/chat", answer.body)) or "").startswith("bad ")
    assert (await stage.records.until(1))[0].outcome == "upstream_error"


# -- loops, and work without end ----------------------------------------------------------------------------------------------


async def test_a_host_that_leads_back(corral: Corral) -> None:
    """A request that comes back to the gateway that sent it on is refused, and leaves the one record that it is."""
    inner: list[Answer] = []

    async def answering(asked: Asked, writer: asyncio.StreamWriter) -> None:
        lines = asked.head.decode().split("\r\n")[1:-2]
        inner.append(await ask(stage.url, "POST", "/api/chat", asked.body, dict(line.split(": ", 1) for line in lines)))
        writer.write(http(inner[0].body, inner[0].status))

    stage = await corral(ScriptedHost("mirror", answering), slots=5)
    answer = await stage.ask(call("/api/chat"))
    assert (answer.status, answer.body) == (508, inner[0].body)
    assert (inner[0].status, "leads back" in words(inner[0])) == (508, True)
    assert len(inner) == 1
    (record,) = await stage.records.until(1)
    assert (record.status, len(record.attempts)) == (508, 1)


async def test_what_is_packed_is_unpacked_beside_the_loop(corral: Corral, monkeypatch: pytest.MonkeyPatch) -> None:
    """However small it came: while it unfolds, others are served."""
    unpack, begun, answered, waited = zstandard.ZstdDecompressor, threading.Event(), threading.Event(), []

    def held(*args: Any, **more: Any) -> Any:
        begun.set()
        waited.append(answered.wait(2.0))
        return unpack(*args, **more)

    stage = await corral(ScriptedHost("gpu1", saying(http(b'{"choices":[]}'))))
    body = b'{"model":"%b","messages":[],"a":[' % TEXT.encode() + b"{}," * 1_000_000 + b"{}]}"
    packed = zstandard.ZstdCompressor().compress(body)
    assert len(packed) < 10_000
    monkeypatch.setattr(zstandard, "ZstdDecompressor", held)
    for path in ("/v1/chat/completions", "/api/route/explain?path=/v1/chat/completions"):
        begun.clear()
        answered.clear()
        async with Client.to(stage.url) as client:
            await client.send("POST", path, packed, {"Content-Encoding": "zstd"})
            async with asyncio.timeout(SECONDS):
                while not begun.is_set():
                    await stage.operate("GET", "/healthz")
            assert (await stage.operate("GET", "/healthz")).status == 200
            answered.set()
            assert (await client.answer()).status == 200
    assert waited == [True, True]
