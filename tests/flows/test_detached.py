"""Detached generations: they run on without their caller, and whoever comes reads what the caller would have got."""

import asyncio
import contextlib
import gc
import json
from collections.abc import Callable
from typing import Any

import pytest

from gateway.record import CancelSource
from gateway.relay.generations import Generation
from gateway.tasks import pause
from tests.builders import PATHS, STREAMING, TEXT, Call, call, simulated
from tests.conftest import Corral
from tests.contract.raw import Cut, ask
from tests.flows.detaching import EVENTS, detach, lines, parsed, read, reading, rest_of, try_to_detach
from tests.scripted import Asked, ScriptedHost
from tests.sockets import LOOK_SECONDS, until
from tests.stage import PADDING, Client, Stage
from tests.streams import complete, events, last_error, text_of

LINES = [b'{"response":"%d","done":false}\n' % number for number in range(5)] + [b'{"done":true,"eval_count":5}\n']
CHAT = "/v1/chat/completions"
SSE = [b'data: {"choices":[{"delta":{"content":"%d"}}]}\n\n' % number for number in range(5)] + [b"data: [DONE]\n\n"]


def scripted(pieces: list[bytes], kind: str = "application/x-ndjson", status: int = 200) -> ScriptedHost:
    """A host that answers these pieces, each in a chunk of its own."""

    async def answering(_asked: Asked, writer: asyncio.StreamWriter) -> None:
        head = f"HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nTransfer-Encoding: chunked\r\n\r\n"
        writer.write(head.encode() + b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n")

    return ScriptedHost("gpu1", answering)


async def ended(stage: Stage, id_: str) -> None:
    """Return once it has its record."""
    async with asyncio.timeout(10.0):
        while (await stage.get(f"/api/generations/{id_}"))["outcome"] is None:
            await pause(LOOK_SECONDS)


# -- what readers get ---------------------------------------------------------------------------------------------------------


@pytest.mark.every_loop
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("path", PATHS)
async def test_every_path(corral: Corral, path: str, stream: bool) -> None:
    """A reader gets the whole answer with its status and type, now and again later; the record says that it was detached."""
    stage = await corral(simulated())
    asked = call(path) if "embed" in path or "audio" in path else call(path, stream=stream)
    attached = await stage.ask(asked)
    id_ = await detach(stage, asked, "mine")
    first, again = await read(stage, id_), await read(stage, id_)
    assert first.body == again.body
    assert (first.status, first.get("Content-Type")) == (200, attached.get("Content-Type"))
    assert (first.get("X-Corral-Generation"), first.get("X-Corral-Host")) == (id_, "gpu1")
    if stream and path in STREAMING:
        body = b"\n".join(line for line in first.body.split(b"\n") if not line.startswith(b"id: "))
        assert complete(path, events(path, body))
        assert text_of(path, events(path, body)) == text_of(path, events(path, attached.body))
    else:
        assert json.loads(first.body).keys() == json.loads(attached.body).keys()
    record = await stage.records.of("mine")
    assert (record.detached, record.outcome, record.cancelled_by) == (True, "ok", None)
    assert [one.detached for one in stage.records if one.session is None] == [False]


@pytest.mark.parametrize("start", [0, 1, 3, 5, 6, 9])
@pytest.mark.parametrize("cut", ["as lines", "in one", "in the middle"])
async def test_from_a_chunk_on(corral: Corral, cut: str, start: int) -> None:
    """A chunk is a line, however the host cut its bytes; beyond the end there is nothing."""
    whole = b"".join(LINES)
    pieces = {"as lines": LINES, "in one": [whole], "in the middle": [whole[:40], whole[40:75], whole[75:]]}[cut]
    stage = await corral(scripted(pieces))
    id_ = await detach(stage, call("/api/generate"))
    answer = await read(stage, id_, f"?from={start}")
    assert (answer.status, answer.body) == (200, b"".join(LINES[start:]))
    assert answer.get("Content-Type") == "application/x-ndjson"
    assert (await stage.get(f"/api/generations/{id_}"))["chunks"] == 6


async def test_lines_as_events(corral: Corral) -> None:
    """Who wants events gets each line as one, with its number; who comes back goes on behind the last; at the end, 204."""
    stage = await corral(scripted(LINES))
    id_ = await detach(stage, call("/api/generate"))
    answer = await read(stage, id_, "", EVENTS)
    assert answer.get("Content-Type") == "text/event-stream"
    assert parsed(answer.body) == [{"id": str(n), "data": line.decode().strip()} for n, line in enumerate(LINES)]
    rest = await read(stage, id_, "?from=1", EVENTS | {"Last-Event-ID": "3"})
    assert [event["id"] for event in parsed(rest.body)] == ["4", "5"]
    assert (await read(stage, id_, "", EVENTS | {"Last-Event-ID": "5"})).status == 204


@pytest.mark.parametrize("headers", [{}, EVENTS])
async def test_events_have_numbers(corral: Corral, headers: dict[str, str]) -> None:
    """An answer of events stays one, with an id for each."""
    stage = await corral(scripted(SSE, "text/event-stream"))
    id_ = await detach(stage, call(CHAT, stream=True))
    answer = await read(stage, id_, "?from=2", headers)
    assert answer.body == b"".join(b"id: %d\n%b" % (n, event) for n, event in enumerate(SSE) if n >= 2)


async def test_one_piece_as_an_event(corral: Corral) -> None:
    """It is one chunk, with a line of data for each of its own."""
    stage = await corral(scripted([b'{"a":\n', b"1}"], "application/json"))
    id_ = await detach(stage, call("/api/generate", stream=False))
    assert (await read(stage, id_)).body == b'{"a":\n1}'
    assert parsed((await read(stage, id_, "", EVENTS)).body) == [{"id": "0", "data": '{"a":\n1}'}]
    assert (await read(stage, id_, "?from=1")).body == b""


async def test_the_host_hears_nothing_of_it(corral: Corral) -> None:
    """Neither the query's word nor the header; either is enough, and what else is in the query passes."""
    host = scripted(LINES)
    stage = await corral(host)
    asked = call("/api/generate")
    header = await stage.ask(Call(asked.path, asked.body, asked.headers | {"X-Corral-Detach": "1"}))
    query = await stage.ask(Call("/api/generate?a=b&detach=1", asked.body, asked.headers))
    bare = await stage.ask(Call("/api/generate?detach", asked.body, asked.headers))
    assert [header.status, query.status, bare.status] == [202, 202, 202]
    no = await stage.ask(Call("/api/generate?detach=false", asked.body, asked.headers))
    assert no.body == b"".join(LINES)
    await stage.quiet()
    assert not any(b"detach" in one.head.lower() for one in host.asked)
    assert sum(one.head.startswith(b"POST /api/generate?a=b HTTP/1.1\r\n") for one in host.asked) == 1


async def test_below_the_prefix(corral: Corral) -> None:
    """The way to the stream is below it as well."""
    stage = await corral(simulated(), http={"prefix": "/corral"})
    asked = call("/api/generate")
    told = json.loads((await stage.ask(Call("/corral/api/generate?detach=true", asked.body))).body)
    assert told["stream"].startswith("/corral/api/generations/")
    assert (await ask(stage.url, "GET", told["stream"])).status == 200


# -- readers ------------------------------------------------------------------------------------------------------------------


async def test_readers_come_and_go(corral: Corral) -> None:
    """Each follows at its own pace, from where it wants; leaving ends nothing; all is there for who comes last."""
    host = simulated()
    stage = await corral(host)
    host.faults.set("hang_mid_stream", after_chunks=4)
    id_ = await detach(stage, call("/api/generate", tokens=8))
    await stage.until(lambda rows: rows[0]["chunks"] == 4)
    for how in ("close", "reset"):
        async with reading(stage, id_) as client:
            assert (await client.head()).status == 200
            assert await client.chunk()
            await stage.until(lambda rows: rows[0]["readers"] == 1)
            await client.leave(how)
            await stage.until(lambda rows: rows[0]["readers"] == 0)
    async with contextlib.AsyncExitStack() as stack:
        readers = [await stack.enter_async_context(reading(stage, id_, f"?from={n % 6}")) for n in range(30)]
        await stage.until(lambda rows: rows[0]["readers"] == 30)
        host.faults.clear("hang_mid_stream")
        heads = [await one.head() for one in readers]
        bodies = [await rest_of(one) for one in readers]
    assert {head.status for head in heads} == {200}
    whole = (await read(stage, id_)).body.splitlines(keepends=True)
    assert len(whole) == 9
    assert bodies == [b"".join(whole[n % 6 :]) for n in range(30)]
    (record,) = await stage.records.until(1)
    assert (record.outcome, record.cancelled_by) == ("ok", None)


async def test_a_slow_reader_holds_nobody_up(corral: Corral) -> None:
    """The generation ends and a quick reader has it all, while a slow one has read nothing; then it reads the whole."""
    stage = await corral(simulated(tokens_per_second=1e9))
    stage.narrow(4096)
    id_ = await detach(stage, call("/api/generate", TEXT + PADDING, tokens=2_000))
    async with reading(stage, id_, receive_bytes=4096) as slow:
        await slow.head()
        quick = (await read(stage, id_)).body
        assert (await stage.records.until(1))[0].outcome == "ok"
        assert len(quick) > 2_000 * len(PADDING)
        assert await rest_of(slow) == quick


async def test_what_is_gone(corral: Corral) -> None:
    """Over the bound the oldest chunks go, and a reader is told in its own framing which."""
    stage = await corral(simulated(tokens_per_second=1e9), generations={"answer_bytes": 20_000})
    ids = [await detach(stage, call(path, tokens=500, stream=True)) for path in ("/api/generate", CHAT)]
    await stage.quiet()
    rows = [await stage.get(f"/api/generations/{id_}") for id_ in ids]
    firsts = [row["first_chunk"] for row in rows]
    assert all(200 < first < row["chunks"] for first, row in zip(firsts, rows, strict=True))
    native = lines((await read(stage, ids[0], "?from=7")).body)
    assert native[0] == {"gone": {"from": 7, "to": firsts[0] - 1}}
    assert len(native) == 1 + rows[0]["chunks"] - firsts[0]
    assert native[-1]["done"] is True
    for id_, first, row in zip(ids, firsts, rows, strict=True):
        got = parsed((await read(stage, id_, "", EVENTS)).body)
        assert (got[0]["event"], json.loads(got[0]["data"])) == ("gone", {"from": 0, "to": first - 1})
        assert [int(event["id"]) for event in got] == [first - 1, *range(first, row["chunks"])]
    assert stage.gateway.detached.shelf.size < 2 * 20_000
    metrics = {sample.name: sample.value for sample in await stage.metrics() if "detached" in sample.name}
    assert metrics == {
        "corral_detached_generations": 2,
        "corral_detached_held_bytes": stage.gateway.detached.shelf.size,
        "corral_detached_chunks_dropped_total": sum(firsts),
    }


async def test_one_piece_that_is_too_large(corral: Corral) -> None:
    """There is no half of it: 410."""
    stage = await corral(
        scripted([b"[" + b"1," * 3_000, b"1]"], "application/json"), generations={"answer_bytes": 5_000}
    )
    id_ = await detach(stage, call("/api/generate", stream=False))
    answer = await read(stage, id_)
    assert (answer.status, answer.get("X-Corral-Error")) == (410, "gone")
    assert "too large to be kept" in json.loads(answer.body)["error"]
    assert (await stage.records.until(1))[0].outcome == "ok"


async def test_all_together_are_bounded(corral: Corral) -> None:
    """The oldest answers that nobody reads make room."""
    stage = await corral(simulated(tokens_per_second=1e9), generations={"held_bytes": 200_000})
    ids = [await detach(stage, call("/api/generate", tokens=300)) for _ in range(12)]
    await stage.quiet()
    assert stage.gateway.detached.shelf.size <= 200_000
    left = [row["id"] for row in (await stage.get("/api/generations?kept=true"))["generations"]]
    assert left == ids[-len(left) :]
    assert 1 < len(left) < 12
    assert (await read(stage, ids[0])).status == 404
    assert (await read(stage, ids[-1])).status == 200


async def test_heartbeats(corral: Corral) -> None:
    """Who waits for events has its head at once, and comments; who reads lines waits for the first."""
    host = simulated()
    stage = await corral(host, generations={"heartbeat_seconds": 0.02})
    host.faults.set("hang_before_headers")
    holder, id_ = [await detach(stage, call("/api/generate")) for _ in range(2)]
    async with reading(stage, id_, "", EVENTS) as client, reading(stage, id_) as plain:
        head = await client.head()
        assert (head.status, head.get("Content-Type")) == (200, "text/event-stream")
        assert (await client.chunk(), await client.chunk()) == (b": queued\n\n", b": queued\n\n")
        await stage.operate("DELETE", f"/api/generations/{holder}")
        while b": prefill\n\n" not in (await client.chunk() or b""):
            pass
        host.faults.clear("hang_before_headers")
        await plain.head()
        assert len(lines(await rest_of(plain))) == 6
        got = [event for event in parsed(await rest_of(client)) if "id" in event]
    assert [event["id"] for event in got] == ["0", "1", "2", "3", "4", "5"]


# -- when it fails ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/api/generate", CHAT, "/v1/messages"])
async def test_failed_before_the_first_byte(corral: Corral, path: str) -> None:
    """A reader gets status and body as the caller would have; one that has its head already, the body as an event."""
    host = simulated()
    stage = await corral(host, relay={"attempts": 1})
    host.faults.set("hang_before_headers")
    id_ = await detach(stage, call(path, stream=True))
    async with reading(stage, id_, "", EVENTS) as waiting, reading(stage, id_) as plain:
        await waiting.head()
        await stage.until(lambda rows: rows[0]["readers"] == 2 and rows[0]["phase"] == "prefill")
        await stage.operate("DELETE", f"/api/generations/{id_}")
        (event,) = parsed(await rest_of(waiting))
        told = await plain.answer()
    late, late_events = await read(stage, id_), await read(stage, id_, "", EVENTS)
    assert told.status == late.status == late_events.status == 499
    assert told.body == late.body == late_events.body
    assert (event["event"], json.loads(event["data"])) == ("error", json.loads(told.body))
    assert told.get("X-Corral-Error") == "cancelled"
    assert "stopped by an operator" in told.body.decode()


async def test_what_the_host_refuses(corral: Corral) -> None:
    """Its status and words pass unchanged."""
    stage = await corral(scripted([b'{"error":"no tools"}'], "application/json", 400))
    id_ = await detach(stage, call("/api/chat"))
    async with reading(stage, id_, "", EVENTS) as client:
        head = await client.head()
        body = await rest_of(client)
    if head.status == 200:  # it was there before the host answered
        assert parsed(body) == [{"event": "error", "data": '{"error":"no tools"}'}]
    for headers in ({}, EVENTS):
        late = await read(stage, id_, "", headers)
        assert (late.status, late.body) == (400, b'{"error":"no tools"}')


@pytest.mark.parametrize("path", STREAMING)
async def test_the_host_dies_in_the_middle(corral: Corral, path: str) -> None:
    """A stream ends in its dialect's last words; an answer in one piece is a 502."""
    host = simulated()
    stage = await corral(host)
    host.faults.set("reset_mid_stream", after_chunks=4)
    streamed, whole = [await detach(stage, call(path, stream=stream, tokens=20)) for stream in (True, False)]
    body = (await read(stage, streamed)).body
    body = b"\n".join(line for line in body.split(b"\n") if not line.startswith(b"id: "))
    assert "host gpu1" in (last_error(path, events(path, body)) or "")
    assert not complete(path, events(path, body))
    answer = await read(stage, whole)
    assert (answer.status, answer.get("X-Corral-Error")) == (502, "hosts_failed")
    assert {record.outcome for record in await stage.records.until(2)} == {"upstream_error"}


async def test_broken_off_without_words(corral: Corral) -> None:
    """Where a line was so long that it had begun to pass, nothing can be said: the reader's connection breaks, as the caller's would."""
    piece = b'{"response":"' + b"x" * 1_200_000

    async def answering(_asked: Asked, writer: asyncio.StreamWriter) -> None:
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n"
        writer.write(head + b"%x\r\n%b\r\n" % (len(LINES[0]), LINES[0]) + b"%x\r\n%b\r\n" % (len(piece), piece))
        await writer.drain()
        writer.transport.abort()

    stage = await corral(ScriptedHost("gpu1", answering))
    id_ = await detach(stage, call("/api/generate"))
    await ended(stage, id_)
    for headers in ({}, EVENTS):
        with pytest.raises(Cut):
            await read(stage, id_, "", headers)


# -- at the door --------------------------------------------------------------------------------------------------------------


async def test_refused_at_once(corral: Corral) -> None:
    """What cannot be is said to the caller, in their dialect, and nothing is kept of it."""
    host = simulated()
    stage = await corral(host, queue={"limit": 1})
    host.faults.set("hang_before_headers")
    for _ in range(2):
        await detach(stage, call("/api/generate"))
    full = [await try_to_detach(stage, call(path)) for path in ("/api/chat", CHAT, "/v1/messages")]
    assert {(one.status, one.get("X-Corral-Error")) for one in full} == {(503, "queue_full")}
    errors = [json.loads(one.body)["error"] for one in full]
    assert "the queue is full" in errors[0]
    assert all("the queue is full" in error["message"] for error in errors[1:])
    assert full[0].get("Retry-After")
    assert len(stage.gateway.detached.shelf) == 2
    assert (await stage.totals("corral_requests_rejected_total", "reason"))["queue_full"] == 3
    host.faults.clear("hang_before_headers")


async def test_an_unknown_model(corral: Corral) -> None:
    """The hosts are asked first, so the caller has gone on; the reader is told."""
    stage = await corral(simulated())
    id_ = await detach(stage, call("/api/generate", "nobody:1b"))
    answer = await read(stage, id_)
    assert (answer.status, json.loads(answer.body)["error"]) == (404, "model 'nobody:1b' not found")


@pytest.mark.parametrize(
    ("path", "headers", "status", "words"),
    [
        pytest.param("/api/generate?detach=perhaps", {}, 400, "detach is true or false, not 'perhaps'", id="query"),
        pytest.param("/api/generate", {"X-Corral-Detach": "x"}, 400, "not 'x'", id="header"),
        pytest.param("/api/generate?detach=1", {"X-Corral-Host": "gpu9"}, 400, "no host is named", id="host"),
    ],
)
async def test_bad_requests(corral: Corral, path: str, headers: dict[str, str], status: int, words: str) -> None:
    """In words."""
    stage = await corral(simulated())
    asked = call("/api/generate")
    answer = await stage.ask(Call(path, asked.body, asked.headers | headers))
    assert answer.status == status
    assert words in json.loads(answer.body)["error"]


@pytest.mark.parametrize("query", ["?from=-1", "?from=x", "?from=1.5", "?from=" + "9" * 30, "?from=٣"])
async def test_bad_numbers(corral: Corral, query: str) -> None:
    """A number of a chunk is one."""
    stage = await corral(scripted(LINES))
    id_ = await detach(stage, call("/api/generate"))
    answer = await read(stage, id_, query.replace("٣", "%D9%A3"))
    assert answer.status == 400
    assert "query: " in json.loads(answer.body)["error"]
    assert "from must be" in json.loads(answer.body)["error"]
    assert (await read(stage, id_, "", {"Last-Event-ID": "abc"})).status == 400


async def test_who_cannot_be_read(corral: Corral) -> None:
    """One that is attached says so; one that is not known is not found."""
    host = simulated()
    stage = await corral(host)
    host.faults.set("hang_before_headers")
    async with stage.begun(call("/api/generate"), "attached"):
        row = await stage.row("attached", "prefill")
        assert row["detached"] is False
        answer = await read(stage, row["id"])
        assert (answer.status, answer.get("X-Corral-Error")) == (409, "conflict")
        assert "?detach=true" in json.loads(answer.body)["error"]
    assert (await read(stage, "nobody")).status == 404


async def test_a_page_of_another_origin(corral: Corral) -> None:
    """It may read a stream if it may call at all."""
    stage = await corral(scripted(LINES))
    id_ = await detach(stage, call("/api/generate"))
    for headers in ({}, EVENTS):
        answer = await read(stage, id_, "", headers | {"Origin": "http://localhost:3000"})
        assert answer.get("Access-Control-Allow-Origin") == "http://localhost:3000"
        assert "X-Corral-Generation" in (answer.get("Access-Control-Expose-Headers") or "")


# -- finding it again ---------------------------------------------------------------------------------------------------------


async def test_found_again(corral: Corral) -> None:
    """A page that was reloaded finds its generations by its session: those that run, and those that ended."""
    host = simulated(parallel=2)
    stage = await corral(host, slots=2)
    over = await detach(stage, call("/api/generate"), "mine")
    await ended(stage, over)
    host.faults.set("hang_mid_stream", after_chunks=3)
    runs, other = [await detach(stage, call("/api/chat", tokens=9), session) for session in ("mine", "other")]
    await stage.until(lambda rows: sum(row["chunks"] == 3 for row in rows) == 2)
    assert [row["id"] for row in await stage.in_flight()] == [runs, other]
    mine = (await stage.get("/api/generations?session=mine&kept=true"))["generations"]
    assert [(row["id"], row["phase"], row["outcome"], row["chunks"]) for row in mine] == [
        (over, "done", "ok", 6),
        (runs, "streaming", None, 3),
    ]
    assert all(row["detached"] and row["first_chunk"] == 0 for row in mine)
    assert mine[0].keys() == mine[1].keys()
    assert (await stage.get(f"/api/generations/{over}")).items() >= mine[0].items()
    bad = await ask(stage.url, "GET", "/api/generations?kept=x")
    assert bad.status == 400
    host.faults.clear("hang_mid_stream")


async def test_kept_for_a_number(corral: Corral) -> None:
    """The last ended ones can be read; one that is being read is not taken away."""
    stage = await corral(simulated(tokens_per_second=1e9), generations={"keep_count": 2})
    stage.narrow(4096)
    read_on = await detach(stage, call("/api/generate", TEXT + PADDING, tokens=500))
    async with reading(stage, read_on, receive_bytes=4096) as slow:
        await slow.head()
        await ended(stage, read_on)
        ids = []
        for _ in range(4):
            ids.append(await detach(stage, call("/api/generate")))
            await stage.records.until(1 + len(ids))
        kept = [row["id"] for row in (await stage.get("/api/generations?kept=true"))["generations"]]
        assert kept == [read_on, *ids[-1:]]
        assert len(lines(await rest_of(slow))) == 501
    assert len(stage.gateway.detached.shelf) <= 2


@pytest.mark.parametrize("fault", ["", "hang_before_headers", "reset_mid_stream"])
async def test_only_the_answer_is_kept(corral: Corral, fault: str) -> None:
    """Not the request with its body, however it ended."""
    host = simulated()
    stage = await corral(host)
    if fault:
        host.faults.set(fault)
    id_ = await detach(stage, call("/api/generate", stream=False))
    if fault == "hang_before_headers":
        await stage.operate("DELETE", f"/api/generations/{id_}")
    await ended(stage, id_)
    assert stage.gateway.detached.shelf.get(id_) is not None
    gc.collect()
    assert [one for one in gc.get_objects() if isinstance(one, Generation)] == []


async def test_an_old_reader(corral: Corral) -> None:
    """HTTP/1.0 has no chunks: the end of the answer is that of the connection."""
    stage = await corral(scripted(LINES))
    id_ = await detach(stage, call("/api/generate"))
    async with Client.to(stage.url) as client:
        await client.write(
            f"GET /api/generations/{id_}/stream?from=4 HTTP/1.0\r\nHost: localhost\r\n\r\n".encode(), "GET"
        )
        answer = await client.answer()
    assert (answer.framing, answer.body) == ("close", b"".join(LINES[4:]))


async def test_kept_for_a_time(corral: Corral) -> None:
    """Then it is gone, without anybody asking."""
    stage = await corral(simulated(), generations={"keep_seconds": 0.05})
    id_ = await detach(stage, call("/api/generate"))
    async with asyncio.timeout(5.0):
        while (await read(stage, id_)).status != 404:
            pass
    assert (len(stage.gateway.detached.shelf), stage.gateway.detached.shelf.size) == (0, 0)


# -- many, and the end --------------------------------------------------------------------------------------------------------


async def test_two_hundred_at_once(corral: Corral) -> None:
    """Each with two readers who get the whole."""
    hosts = [simulated(f"gpu{n}", seed=n) for n in range(4)]
    stage = await corral(*hosts, slots=8)
    ids = await asyncio.gather(*(detach(stage, call("/api/generate"), f"s{n}") for n in range(200)))
    answers = await asyncio.gather(*(read(stage, id_, "", headers) for id_ in ids for headers in ({}, EVENTS)))
    assert {answer.status for answer in answers} == {200}
    assert [len(lines(answer.body)) for answer in answers[::2]] == [6] * 200
    assert [len(parsed(answer.body)) for answer in answers[1::2]] == [6] * 200
    assert {record.outcome for record in await stage.records.until(200)} == {"ok"}


async def test_a_graceful_end(corral: Corral) -> None:
    """A detached generation may finish as streams may, and who reads it gets it all; new ones are refused."""
    host = simulated()
    stage = await corral(host)
    host.faults.set("hang_mid_stream", after_chunks=3)
    id_ = await detach(stage, call("/api/generate", tokens=6))
    async with reading(stage, id_) as client:
        await client.head()
        stopping = asyncio.get_running_loop().create_task(stage.stop(), name="stop")
        await until(lambda: stage.gateway.detached.draining)
        host.faults.clear("hang_mid_stream")
        assert len(lines(await rest_of(client))) == 7
        await stopping
    assert (await stage.records.until(1))[0].outcome == "ok"


async def test_cut_at_the_end(corral: Corral) -> None:
    """One that outlasts the grace ends in last words; nobody has to read it for that."""
    host = simulated()
    stage = await corral(host, shutdown={"grace_seconds": 0.0})
    host.faults.set("hang_mid_stream", after_chunks=3)
    read_by, unread = [await detach(stage, call("/api/generate", tokens=6), name) for name in ("read", "unread")]
    async with reading(stage, read_by) as client:
        await client.head()
        await stage.stop()
        assert "shutting down" in lines(await rest_of(client))[-1]["error"]
    records = await stage.records.until(2)
    assert {record.cancelled_by for record in records} == {CancelSource.SHUTDOWN}
    assert unread in {record.id for record in records}


# -- Corral's own -------------------------------------------------------------------------------------------------------------


async def test_asked_by_corral_itself(corral: Corral) -> None:
    """A generation without a caller: followed chunk by chunk, with its record at the end; it is in the live view like any other."""
    host = simulated()
    stage = await corral(host)
    detached = stage.gateway.detached
    asked = call("/api/chat", tokens=4)
    host.faults.set("hang_before_headers")
    answer = await detached.ask(asked.path, asked.body, session="titles", pin="gpu1")
    assert (await stage.row("titles", "prefill"))["detached"] is True
    host.faults.clear("hang_before_headers")
    said = b""
    with answer.reader(counted=False) as reader:
        head = await reader.begun()
        assert head is not None
        assert (head.status, head.host, answer.readers) == (200, "gpu1", 0)
        async for batch in reader:
            said += b"".join(batch.chunks)
    assert complete("/api/chat", events("/api/chat", said))
    assert answer.record is await stage.records.of("titles")
    assert answer.record.usage.output_tokens == 4


async def test_stopped_before_its_task_began(corral: Corral) -> None:
    """Not a host hears of it."""
    stage = await corral(simulated())
    asked, loop = call("/api/chat"), asyncio.get_running_loop()
    starting = loop.create_task(stage.gateway.detached.ask(asked.path, asked.body), name="start")
    stop: Callable[..., int] = stage.gateway.generations.stop_all
    loop.call_soon(stop, CancelSource.OPERATOR, "at once")
    with pytest.raises(Exception, match="at once") as caught:
        await starting
    assert getattr(caught.value, "status", 0) == 499
    (record,) = await stage.records.until(1)
    assert (record.outcome, record.phase, record.cancelled_by, record.attempts) == ("cancelled", "queued", "api", ())
    assert not stage["gpu1"].ledger.entries


async def test_loading_and_unloading(corral: Corral) -> None:
    """A load can be detached; an unload is answered at once."""
    stage = await corral(simulated())
    body = json.dumps({"model": TEXT, "prompt": "", "stream": False}).encode()
    id_ = await detach(stage, Call("/api/generate", body))
    assert json.loads((await read(stage, id_)).body)["done_reason"] == "load"
    unload = json.dumps({"model": TEXT, "prompt": "", "keep_alive": 0}).encode()
    answer = await try_to_detach(stage, Call("/api/generate", unload))
    assert (answer.status, json.loads(answer.body)["done_reason"]) == (200, "unload")


async def test_what_it_waits_for(corral: Corral, file_url: str) -> None:
    """Its place while it waits; then what routing thought that it would take, which is kept with what every host would have cost."""
    database = {"url": file_url}
    stage = await corral(simulated(parallel=1, tokens_per_second=1.0), slots=1, database=database)
    holder = await detach(stage, call("/api/generate", tokens=1000), "holder")
    await stage.row("holder", "streaming")
    ids = [await detach(stage, call("/api/generate", tokens=1), name) for name in ("first", "second")]
    rows = [await stage.get(f"/api/generations/{id_}") for id_ in (holder, *ids)]
    assert [row["queue_place"] for row in rows] == [None, 1, 2]
    assert [row["predicted_seconds"] is None for row in rows] == [False, True, True]
    assert rows[0]["predicted_load_seconds"] >= 0
    await stage.operate("DELETE", f"/api/generations/{holder}")
    await ended(stage, ids[1])
    (row,) = [row for row in (await stage.get("/api/generations?kept=true"))["generations"] if row["id"] == ids[1]]
    assert (row["queue_place"], row["predicted_load_seconds"]) == (None, 0)
    told: dict[str, Any] = {}
    while not told:  # it is written a moment later
        told = next((one for one in (await stage.get("/api/requests"))["requests"] if one["id"] == ids[1]), {})
    assert [cost["host"] for cost in told["detail"]["costs"]] == ["gpu1"]
    costs = told["detail"]["costs"][0]
    first_token = costs["queue_wait"] + costs["load_time"] + costs["prefill"] + costs["affinity"]
    assert first_token == pytest.approx(row["predicted_seconds"], abs=0.001)
