"""What a client sends reaches a host as it is, and what the host answers reaches the client as it is."""

import asyncio
import dataclasses
import json
import re

import pytest
import zstandard

from tests.builders import (
    EMBEDDING,
    NATIVE,
    OTHER,
    PATHS,
    STREAMING,
    TEXT,
    Call,
    call,
    simulated,
)
from tests.conftest import Corral
from tests.contract.cases import CASES, Case, answer_differences, prepare, recorded_host, send
from tests.contract.conformance import aside, events_of
from tests.contract.raw import Answer, Connection, ask
from tests.scripted import Asked, ScriptedHost
from tests.stage import Client, Stage

OURS = ("x-corral-generation", "x-corral-host", "x-corral-error", "x-request-id")
FRAMING = ("content-length", "transfer-encoding")


def passed(answer: Answer, *less: str) -> list[tuple[str, str]]:
    """The headers of an answer less Date, what Corral adds, and ``less``."""
    return [(name, value) for name, value in answer.headers if name.lower() not in ("date", *OURS, *less)]


def event_by_event(case: Case) -> Case:
    """A case as a gateway can be held to it: one event a chunk, and without the one header that is for one hop."""
    chunks = [part for chunk in case.chunks for part in ([chunk] if isinstance(chunk, str) else events_of([chunk]))]
    headers = [pair for pair in case.answer_headers if pair[0].lower() != "connection"]
    return dataclasses.replace(case, chunks=chunks, answer_headers=headers)


def error_text(answer: Answer) -> str:
    """The message of an error in any dialect."""
    error = json.loads(answer.body)["error"]
    return str(error if isinstance(error, str) else error["message"])


def streams(path: str) -> list[bool | None]:
    """What a request to ``path`` may say of streaming."""
    return [None, True, False] if path in STREAMING else [None]


# -- answers ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("path", "stream"), [(path, stream) for path in PATHS for stream in streams(path)])
async def test_the_answer_is_the_hosts(corral: Corral, path: str, stream: bool | None) -> None:
    """An answer through Corral equals one straight from the host, in status, headers, framing and every byte but times."""
    stage = await corral(simulated())
    request = call(path, stream=stream, tokens=20)
    async with simulated("direct") as direct:
        straight = await ask(direct.url, "POST", path, request.body, request.headers)
    relayed = await stage.ask(request)
    assert (relayed.status, relayed.reason) == (200, "OK")
    assert passed(relayed, "content-length") == passed(straight, "content-length", "connection")
    assert relayed.framing == straight.framing
    assert aside(relayed.body) == aside(straight.body)
    assert len(relayed.body) > 15


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=name)
        for name, case in CASES.items()
        if case.path in (*PATHS, "/", "/api/version", "/api/tags", "/api/ps", "/api/chat/", "/nope", "/v1/models")
        and name not in ("ps_after_num_ctx", "ps_after_unload", "ps_loaded")
    ],
)
async def test_recorded_answers(corral: Corral, case: Case) -> None:
    """A real Ollama's recorded answer is also Corral's, errors word for word but for what is wrong with JSON."""
    host = recorded_host()
    stage = await corral(host)
    await prepare(case, host, stage.url)
    answer = await send(case, stage.url)
    if case.name in ("generate_bad_json", "generate_gzip_body_400"):
        assert (answer.status, list(json.loads(answer.body))) == (400, ["error"])
        return
    answer.headers = [pair for pair in answer.headers if pair[0] != "Server"]  # test_no_server_header is about it
    assert answer_differences(event_by_event(case), dataclasses.replace(answer, chunks=events_of(answer.chunks))) == []


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/"), ("GET", "/api/tags"), ("GET", "/nothing"), ("POST", "/api/chat"), ("GET", "/metrics")],
)
async def test_no_server_header(corral: Corral, method: str, path: str) -> None:
    """Like Ollama, Corral does not tell what it is made of."""
    stage = await corral(simulated())
    assert (await ask(stage.url, method, path, b"{}" if method == "POST" else None)).get("Server") is None


@pytest.mark.parametrize("path", STREAMING)
async def test_the_first_token_does_not_wait(corral: Corral, path: str) -> None:
    """A token reaches the client while the host still generates."""
    stage = await corral(simulated())
    host = stage["gpu1"]
    host.faults.set("hang_mid_stream", after_chunks=1, times=1)
    async with stage.begun(call(path, stream=True, tokens=3)) as client:
        head = await client.head()
        first = await client.chunk()
        assert host.ledger.generating == 1
        assert head.status == 200
        assert first
        host.faults.clear()
        while await client.chunk() is not None:
            pass
    assert host.ledger.completed == 1


async def test_every_chunk_is_flushed(corral: Corral) -> None:
    """Each chunk reaches the client before the host writes the next one."""
    arrived = asyncio.Event()

    async def one_by_one(_asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n")
        for number in range(20):
            line = b'{"response":"%d","done":%b}\n' % (number, b"true" if number == 19 else b"false")
            arrived.clear()
            writer.write(b"%x\r\n%b\r\n" % (len(line), line))
            await arrived.wait()
        writer.write(b"0\r\n\r\n")

    stage = await corral(ScriptedHost("gpu1", one_by_one))
    async with stage.begun(call("/api/generate")) as client:
        await client.head()
        for number in range(20):
            chunk = await client.chunk()
            assert chunk is not None
            assert json.loads(chunk)["response"] == str(number)
            arrived.set()
        assert await client.chunk() is None


LINE = b'{"response":"a","done":false}\n'
WHOLE = b"1e\r\n" + LINE + b"\r\n"
ODD: dict[str, tuple[list[bytes], bytes]] = {
    "an extension": ([b"1e;ext=1\r\n" + LINE + b"\r\n"], LINE),
    "leading zeros": ([b"001e\r\n" + LINE + b"\r\n"], LINE),
    "upper case": ([b"1E\r\n" + LINE + b"\r\n"], LINE),
    "two in one read": ([WHOLE * 2], LINE * 2),
    "one and a half": ([WHOLE + WHOLE[:9], WHOLE[9:]], LINE * 2),
    "no end of a line": ([b"1d\r\n" + LINE[:-1] + b"\r\n"], LINE[:-1]),
    "only an end of a line": ([b"1\r\n\n\r\n"], b"\n"),
    "a line that looks like a chunk": ([b"b\r\n5\r\nabcd\n\r\n\n\r\n"], b"5\r\nabcd\n\r\n\n"),
    "a read that looks like a chunk": ([b"29\r\nx\r\n", WHOLE, b"y\n\r\n"], b"x\r\n" + WHOLE + b"y\n"),
    "a size alone": ([WHOLE[:4], WHOLE[4:]], LINE),
    "half a size": ([WHOLE[:1], WHOLE[1:]], LINE),
    "half a chunk": ([WHOLE[:14], WHOLE[14:]], LINE),
    "all but the last byte": ([WHOLE[:-1], WHOLE[-1:]], LINE),
    "a large one": ([b"1388\r\n" + b"x" * 4999 + b"\n\r\n"], b"x" * 4999 + b"\n"),
}
"""What can come between chunks that come one by one: the reads, and what of them is the body."""


@pytest.mark.parametrize("end", [b"0\r\n\r\n", b"0;last\r\nX-Trailer: 1\r\n\r\n"], ids=["plain", "trailers"])
@pytest.mark.parametrize("name", ODD)
async def test_the_steady_state(corral: Corral, name: str, end: bytes) -> None:
    """However a chunk is written and cut into reads between others that are whole, the body arrives byte for byte."""
    go_on = asyncio.Event()
    reads, body = ODD[name]

    async def answering(_asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n")
        for data in (WHOLE, WHOLE, WHOLE, *reads, WHOLE, WHOLE, end):
            go_on.clear()
            writer.write(data)
            await go_on.wait()

    stage = await corral(ScriptedHost("gpu1", answering))
    request = call("/api/generate")
    async with Client.to(stage.url) as client:
        for _ in range(2):  # both connections are as good as new after the first
            await client.send("POST", request.path, request.body)
            for _ in range(6 + len(reads)):
                await stage.operate("GET", "/healthz")  # while it is answered, the gateway reads what the host wrote
                await stage.operate("GET", "/healthz")
                go_on.set()
            assert (await client.answer()).body == LINE * 3 + body + LINE * 2
    assert stage["gpu1"].ledger.connections_opened == 2, "one for the polls, one for the requests"


async def test_a_slow_reader_slows_the_host(corral: Corral) -> None:
    """Chunk by chunk, no more is taken from the host than the client reads; when it reads again, it gets all."""
    line = b"x" * 4000 + b"\n"
    chunk, many, sent = b"fa1\r\n" + line + b"\r\n", 4000, 0

    async def answering(_asked: Asked, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        turn = asyncio.Event()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(many):
            writer.write(chunk)
            await writer.drain()
            sent += 1
            turn.clear()
            asyncio.get_running_loop().call_soon(turn.set)  # so that each is a read of its own
            await turn.wait()
        writer.write(b"0\r\n\r\n")

    stage = await corral(ScriptedHost("gpu1", answering))
    async with stage.begun(call("/api/generate"), receive_bytes=4096) as client:
        assert 0 < await stage.held_up(lambda: sent) < many
        await client.head()
        size = 0
        while (part := await client.chunk()) is not None:
            size += len(part)
            assert part.strip(b"x\n") == b""
    assert size == many * len(line)


LINES = '{"response":"\u2028 \u0085 snow ☃","done":false} \n{ "response" : "b" , "n": 1.50e3, "done":false}\n'
BODY = LINES.encode() + b'{"done":true,"eval_count":2}\n'


def in_pieces(body: bytes, size: int) -> bytes:
    """A body in chunks of at most ``size`` bytes, with the last one."""
    parts = [body[start : start + size] for start in range(0, len(body), size)]
    return b"".join(b"%X;ext=1\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


@pytest.mark.parametrize("size", [1, 3, 7, 64, 1000])
@pytest.mark.parametrize("media_type", ["application/x-ndjson", "text/event-stream", "application/json", "text/plain"])
async def test_bytes_are_not_touched(corral: Corral, media_type: str, size: int) -> None:
    """Odd spaces, line separators, cut characters and chunk extensions: the body arrives byte for byte."""

    async def answering(_asked: Asked, writer: asyncio.StreamWriter) -> None:
        head = f"HTTP/1.1 200 OK\r\nContent-Type: {media_type}\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
        for byte in head:
            writer.write(bytes((byte,)))
        for byte in in_pieces(BODY, size):
            writer.write(bytes((byte,)))
            await writer.drain()

    stage = await corral(ScriptedHost("gpu1", answering))
    answer = await stage.ask(call("/api/generate"))
    assert answer.body == BODY
    assert answer.get("Content-Type") == media_type


@pytest.mark.parametrize(
    ("head", "framing"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 29\r\n", "length"),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 29\r\n", "length"),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\n", "chunked"),
        (b"HTTP/1.0 200 OK\r\n", "chunked"),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 29\r\n", "length"),
    ],
)
async def test_every_framing_of_a_host(corral: Corral, head: bytes, framing: str) -> None:
    """A length, none, an interim answer, HTTP/1.0: the client gets a well-framed answer and can ask again."""

    async def answering(_asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(head + b'Content-Type: application/json\r\n\r\n{"response":"a","done":true}\n')
        if b"close" in head or b"1.0" in head:
            writer.close()

    stage = await corral(ScriptedHost("gpu1", answering))
    async with Connection.to(stage.url) as client:
        for _ in range(2):
            request = call("/api/generate", stream=False)
            await client.send("POST", request.path, request.body)
            answer = await client.answer()
            assert answer.body == b'{"response":"a","done":true}\n'
            assert answer.framing == framing


async def test_headers_of_the_answer(corral: Corral) -> None:
    """What belongs to the hop or to the host's own CORS ends here; everything else passes, in its own spelling."""

    async def answering(_asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nX-ODD-Name: \xe4 b\r\nSet-Cookie: a\r\nSet-Cookie: b\r\n"
            b"Keep-Alive: timeout=5\r\nAccess-Control-Allow-Origin: *\r\nVary: Origin\r\nX-Corral-Host: liar\r\n"
            b"Content-Length: 2\r\n\r\n{}"
        )

    stage = await corral(ScriptedHost("gpu1", answering))
    answer = await stage.ask(call("/api/generate", stream=False))
    assert passed(answer) == [
        ("Content-Type", "application/json"),
        ("X-ODD-Name", "\xe4 b"),
        ("Set-Cookie", "a"),
        ("Set-Cookie", "b"),
        ("Vary", "Origin"),
        ("Content-Length", "2"),
    ]
    assert answer.all("X-Corral-Host") == ["gpu1"]


@pytest.mark.parametrize("path", PATHS)
async def test_every_answer_says_who(corral: Corral, path: str) -> None:
    """Answers and errors carry the generation's id, and the host's name where a host gave them."""
    stage = await corral(simulated())
    host = stage["gpu1"]
    answer = await stage.ask(call(path))
    assert answer.get("X-Corral-Host") == "gpu1"
    assert re.fullmatch("[0-9a-f]{24}", answer.get("X-Corral-Generation") or "")
    unknown = await stage.ask(call(path, "nobody:1b"))
    assert unknown.get("X-Corral-Generation")
    host.faults.set("busy", times=1)
    refused = await stage.ask(call(path))
    assert (refused.status, refused.get("X-Corral-Host")) == (503, "gpu1")
    records = await stage.records.until(3)
    ids = [found.get("X-Corral-Generation") for found in (answer, unknown, refused)]
    assert [record.id for record in records] == ids
    assert host.ledger.entries[0].request_id == ids[0]


# -- requests -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PATHS)
async def test_the_request_is_the_clients(corral: Corral, path: str) -> None:
    """The host gets the body byte for byte with its length, its own address as Host, and no credential or origin."""
    host = simulated()
    stage = await corral(host)
    request = call(path)
    if path != "/v1/audio/transcriptions":
        odd = b" \n {\t" + request.body[1:].replace(b": ", b" :\t ").replace(b"?", b"? \xe2\x80\xa8 \\u2603 ")
        request = Call(path, odd, request.headers)
    private = {
        "Host": "corral.internal",
        "Origin": "http://corral.internal",
        "Authorization": "Bearer secret",
        "Proxy-Authorization": "secret",
        "X-API-Key": "secret",
        "Cookie": "secret",
        "Accept-Encoding": "gzip, br",
        "X-Forwarded-Prefix": "/x",
        "X-Corral-Session": "s1",
        "X-Hop": "secret",
        "TE": "trailers",
        "Connection": "keep-alive, X-Hop",
    }
    kept = {"User-Agent": "a/1 (b)", "Accept": "*/*", "anthropic-version": "2023-06-01", "X-Odd": "\xe4 \t b"}
    answer = await ask(stage.url, "POST", f"{path}?beta=true&x=%20", request.body, request.headers | private | kept)
    assert answer.status == 200
    received = host.ledger.received[-1]
    headers = {name.lower(): value for name, value in received.headers}
    assert (received.method, received.path) == ("POST", f"{path}?beta=true&x=%20")
    assert host.ledger.last_body == request.body
    assert headers.pop("host") == host.url.removeprefix("http://")
    assert headers.pop("content-length") == str(len(request.body))
    assert headers.pop("x-corral-generation") == answer.get("X-Corral-Generation")
    assert headers == {name.lower(): value for name, value in (request.headers | kept).items()}


async def test_a_chunked_body_gets_a_length(corral: Corral) -> None:
    """A body that comes in chunks goes on whole: Ollama sees a client leave only then."""
    host = simulated()
    stage = await corral(host)
    request = call("/api/generate")
    async with Client.to(stage.url) as client:
        await client.send("POST", request.path, None, {"Transfer-Encoding": "chunked"})
        await client.write(in_pieces(request.body, 10))
        assert (await client.answer()).status == 200
    headers = {name.lower(): value for name, value in host.ledger.received[-1].headers}
    assert host.ledger.last_body == request.body
    assert headers["content-length"] == str(len(request.body))
    assert "transfer-encoding" not in headers


@pytest.mark.parametrize("path", [path for path in PATHS if path.startswith("/v1/") and "audio" not in path])
async def test_zstd(corral: Corral, path: str) -> None:
    """A body compressed with zstd is routed by what is in it, and sent on compressed."""
    elsewhere = simulated("gpu2", OTHER)
    host = simulated()
    stage = await corral(elsewhere, host)
    request = call(path, stream=False)
    packed = zstandard.compress(request.body)
    answer = await ask(stage.url, "POST", path, packed, {"Content-Encoding": "zstd"})
    assert answer.status == 200
    assert host.ledger.last_body == packed
    assert dict(host.ledger.received[-1].headers)["Content-Encoding"] == "zstd"


@pytest.mark.parametrize("packed", [b"no zstd at all", zstandard.compress(b"{" + b" " * 21 * 2**20 + b"}")])
async def test_zstd_that_is_none(corral: Corral, packed: bytes) -> None:
    """What does not decompress, or to more than Ollama would take, is the client's fault."""
    stage = await corral(simulated())
    answer = await ask(stage.url, "POST", "/v1/chat/completions", packed, {"Content-Encoding": "zstd"})
    assert (answer.status, json.loads(answer.body)["error"]["type"]) == (400, "invalid_request_error")
    assert not stage["gpu1"].ledger.entries


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
@pytest.mark.parametrize("path", PATHS)
async def test_a_body_over_the_limit(corral: Corral, path: str, chunked: bool) -> None:
    """413 in the dialect, at once where the length is told; one byte less passes."""
    request = call(path)
    stage = await corral(simulated(), relay={"body_limit_bytes": len(request.body)})
    assert (await stage.ask(request)).status == 200
    large = request.body + b" "
    async with Client.to(stage.url) as client:
        if chunked:
            await client.send("POST", path, None, request.headers | {"Transfer-Encoding": "chunked"})
            await client.write(in_pieces(large, 50))
        else:
            await client.send("POST", path, None, request.headers | {"Content-Length": str(len(large))})
            await client.write(large)
        answer = await client.answer()
    assert answer.status == 413
    assert f"over {len(request.body)} bytes" in error_text(answer)
    assert len(stage["gpu1"].ledger.entries) == 1
    assert await stage.totals("corral_requests_rejected_total", "reason") == {"too_large": 1}


async def test_a_large_body(corral: Corral) -> None:
    """A body of several megabytes, read in a thread, arrives whole."""
    stage = await corral(simulated())
    request = call("/api/generate", images=["A" * 5_000_000])
    assert (await stage.ask(request)).status == 200
    assert stage["gpu1"].ledger.last_body == request.body


@pytest.mark.parametrize("piece", [0, 1, 4000], ids=["by length", "byte by byte", "chunked"])
async def test_bodies_of_many_sizes_on_one_connection(corral: Corral, piece: int) -> None:
    """Each arrives whole, and the next request is read, also where the one before had paused the connection."""
    stage = await corral(simulated())
    async with Client.to(stage.url) as client:
        for size in (0, 20_000) if piece == 1 else (0, 1, 65_000, 66_000, 140_000, 600_000, 2_000_000, 100):
            request = call("/api/generate", stream=False, prompt="x" * size)
            if piece:
                await client.send("POST", request.path, None, {"Transfer-Encoding": "chunked"})
                await client.write(in_pieces(request.body, piece))
            else:
                await client.send("POST", request.path, request.body)
            assert (await client.answer()).status == 200
            assert stage["gpu1"].ledger.last_body == request.body


UNKNOWN = {
    "/api/generate": "model 'nobody:1b' not found",
    "/api/chat": "model 'nobody:1b' not found",
    "/api/embed": 'model "nobody:1b" not found, try pulling it first',
    "/api/embeddings": 'model "nobody:1b" not found, try pulling it first',
}


@pytest.mark.parametrize("path", PATHS)
async def test_unknown_model(corral: Corral, path: str) -> None:
    """404 as the host itself would say it, and no host is asked."""
    stage = await corral(simulated())
    request = call(path, "nobody:1b")
    answer = await stage.ask(request)
    assert (await stage.records.until(1))[0].outcome == "client_error"
    assert await stage.totals("corral_requests_rejected_total", "reason") == {}
    assert await stage.totals("corral_routing_failures_total", "reason") == {"unknown_model": 1}
    assert not stage["gpu1"].ledger.entries
    straight = await ask(stage["gpu1"].url, "POST", path, request.body, request.headers)
    assert (answer.status, error_text(answer)) == (404, UNKNOWN.get(path, error_text(straight)))
    assert answer.get("Content-Type") == straight.get("Content-Type")
    assert aside(answer.body) == aside(straight.body)


BAD = [b"", b"{}", b'{"model":""}', b'{"model":null}', b'{"model":7}', b"[]", b"nonsense", b"{"]


@pytest.mark.parametrize("path", [path for path in PATHS if "audio" not in path])
async def test_bad_requests(corral: Corral, path: str) -> None:
    """What names no model or is no JSON object gets the host's own status, in the shape of the dialect."""
    stage = await corral(simulated())
    for body in BAD:
        answer = await ask(stage.url, "POST", path, body, {"Content-Type": "application/json"})
        straight = await ask(stage["gpu1"].url, "POST", path, body, {"Content-Type": "application/json"})
        assert answer.status == straight.status, body
        said, wanted = json.loads(answer.body), json.loads(straight.body)
        assert said.keys() == wanted.keys(), body
        assert type(said["error"]) is type(wanted["error"]), body
        if body in (b"{}", b'{"model":""}') and path in NATIVE:
            assert answer.body == straight.body
    assert (await stage.totals("corral_http_responses_total", "route")) == {path: len(BAD)}


@pytest.mark.parametrize(
    "body", [b"", b"--x--", b'--x\r\nContent-Disposition: form-data; name="file"\r\n\r\nA\r\n--x--\r\n']
)
async def test_bad_forms(corral: Corral, body: bytes) -> None:
    """A form without a model is refused as the host refuses it."""
    stage = await corral(simulated())
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    answer = await ask(stage.url, "POST", "/v1/audio/transcriptions", body, headers)
    assert answer.status == 400
    assert json.loads(answer.body)["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize("path", PATHS)
async def test_wrong_method(corral: Corral, path: str) -> None:
    """405 with Allow, as Ollama says it."""
    stage = await corral(simulated())
    for method in ("GET", "HEAD", "PUT", "DELETE", "PATCH"):
        answer = await ask(stage.url, method, path)
        assert (answer.status, answer.get("Allow"), answer.get("Content-Type")) == (405, "POST", "text/plain"), method
        assert answer.body == (b"" if method == "HEAD" else b"405 method not allowed")


async def test_unknown_path(corral: Corral) -> None:
    """404 in plain text, as Ollama says it."""
    stage = await corral(simulated())
    for path in ("/nothing", "/api", "/v1/images/generations", "/v1/messages/count_tokens", "/api/chatter"):
        answer = await ask(stage.url, "POST", path, b"{}")
        assert (answer.status, answer.body) == (404, b"404 page not found"), path
        assert answer.get("Content-Type") == "text/plain"


@pytest.mark.parametrize(
    "body",
    [
        b'{"MODEL":"smollm2:135m","Prompt":"hi","oPTIONS":{"num_predict":2}}',
        b'{"model":"llama3.2:1b","prompt":"hi","model":"smollm2:135m"}',
        b'{"model":"smollm2:135m","prompt":"hi"}{"model":"llama3.2:1b"}',
        b'{"model":"smollm2:135m","prompt":"hi"}\n\x00 trailing \xff',
        b' \r\n\t{"model":"smollm2:135m","prompt":"hi"}',
        b'{"model":"smollm2:135m","prompt":"\xff"}',
        b'{"mod\\u0065l":"smollm2:135m","prompt":"hi"}',
        b'{"model":" SmolLM2:135M ","prompt":"hi"}',
        b'{"model":"library/smollm2:135m","prompt":"hi"}',
        b'{"model":"registry.ollama.ai/library/smollm2:135m","prompt":"hi"}',
    ],
)
async def test_bodies_as_ollama_reads_them(corral: Corral, body: bytes) -> None:
    """Keys in any case, the last of several, bytes after the value, other spellings of a name: routed right, sent as they are."""
    elsewhere = simulated("gpu2", OTHER)
    host = simulated("gpu1", TEXT)
    stage = await corral(elsewhere, host)
    answer = await ask(stage.url, "POST", "/api/generate", body)
    assert (answer.status, answer.get("X-Corral-Host")) == (200, "gpu1")
    assert host.ledger.last_body == body
    model = json.loads(answer.chunks[0].splitlines()[0])["model"]
    assert model.encode() in body


async def test_two_spellings_of_a_key(corral: Corral) -> None:
    """A body that could be read in two ways is refused."""
    stage = await corral(simulated())
    for path in PATHS:
        if "audio" not in path:
            answer = await ask(stage.url, "POST", path, call(path).body[:-1] + b',"Model":"other:1b"}')
            assert (answer.status, "two spellings" in error_text(answer)) == (400, True), path


# -- connections --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("path", STREAMING)
async def test_http_1_0(corral: Corral, path: str, stream: bool) -> None:
    """A client of HTTP/1.0 gets the plain bytes, without chunks, and the connection closed after them."""
    stage = await corral(simulated())
    request = call(path, stream=stream, tokens=50)
    async with simulated("direct") as direct:
        straight = await ask(direct.url, "POST", path, request.body)
    async with Client.to(stage.url) as client:
        length = len(request.body)
        await client.write(b"POST %b HTTP/1.0\r\nContent-Length: %d\r\n\r\n%b" % (path.encode(), length, request.body))
        answer = await client.answer()
        assert answer.get("Transfer-Encoding") is None
        assert (answer.status, answer.get("X-Corral-Host")) == (200, "gpu1")
        assert aside(answer.body) == aside(straight.body)
        assert await client.ended() is False


async def test_http_1_0_errors(corral: Corral) -> None:
    """An unknown model and an unknown path are told to a client of HTTP/1.0 too."""
    stage = await corral(simulated())
    for path, body, status in (
        ("/api/chat", b'{"model":"no"}', 404),
        ("/nothing", b"{}", 404),
        ("/api/chat", b"", 400),
    ):
        async with Client.to(stage.url) as client:
            await client.write(b"POST %b HTTP/1.0\r\nContent-Length: %d\r\n\r\n%b" % (path.encode(), len(body), body))
            assert (await client.answer()).status == status
            assert await client.ended() is False


@pytest.mark.parametrize("path", PATHS)
async def test_the_connection_is_kept(corral: Corral, path: str) -> None:
    """One connection serves any number of requests, until the client says close."""
    stage = await corral(simulated())
    request = call(path)
    async with Client.to(stage.url) as client:
        for _ in range(3):
            await client.send("POST", path, request.body, request.headers)
            answer = await client.answer()
            assert (answer.status, answer.get("Connection")) == (200, None)
        await client.send("POST", path, request.body, request.headers | {"Connection": "close"})
        answer = await client.answer()
        assert (answer.status, answer.get("Connection")) == (200, "close")
        assert await client.ended() is False


async def test_pipelining(corral: Corral) -> None:
    """Requests sent before the first is answered are answered in order."""
    stage = await corral(simulated())
    calls = [call("/api/generate", tokens=count) for count in (30, 1, 20)]
    calls.insert(1, call("/api/chat", "nobody:1b"))
    head = "POST {} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n"
    async with Client.to(stage.url) as client:
        await client.write(b"".join(head.format(one.path, len(one.body)).encode() + one.body for one in calls))
        answers = [await client.answer() for _ in calls]
    assert [answer.status for answer in answers] == [200, 404, 200, 200]
    assert [answer.body.count(b'"response":') for answer in answers] == [31, 0, 2, 21]


@pytest.mark.parametrize("path", PATHS)
async def test_expect_100_continue(corral: Corral, path: str) -> None:
    """A client that waits for a word before its body gets it; the host is not asked to say it."""
    stage = await corral(simulated())
    request = call(path)
    async with Client.to(stage.url) as client:
        lengths = {"Content-Length": str(len(request.body)), "Expect": "100-continue"}
        await client.send("POST", path, None, request.headers | lengths)
        assert (await client.head()).status == 100
        await client.write(request.body)
        answer = await client.answer()
    assert answer.status == 200
    assert (await stage.totals("corral_http_responses_total", "route"))[path] == 1
    assert "expect" not in {name.lower() for name, _ in stage["gpu1"].ledger.received[-1].headers}


@pytest.mark.parametrize(
    "nonsense",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a client that tries TLS\r\n\r\n",
        b"POST /api/chat HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}",
        b"POST /api/chat HTTP/1.1\r\nHost: x\r\nContent-Length: many\r\n\r\n",
        b"POST /api/chat HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}",
        b"POST /api/chat HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n{}\r\n0\r\n\r\n",
        b"GET /api/tags HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 20_000 + b"\r\n\r\n",
    ],
    ids=["tls", "no host", "bad length", "two framings", "bad chunk", "long header"],
)
async def test_a_client_that_speaks_nonsense(corral: Corral, nonsense: bytes) -> None:
    """What is no HTTP gets 400 (431 where it is too long) and the door, touches no host, and is no error of Corral's to be logged as one."""
    stage = await corral(simulated())
    async with Client.to(stage.url) as client:
        await client.write(nonsense)
        assert (await client.answer()).status == (431 if len(nonsense) > 8190 else 400)
        assert await client.ended() is False
    assert not stage["gpu1"].ledger.entries
    assert list(stage.records) == []


async def test_hosts_keep_their_connection(corral: Corral) -> None:
    """Requests one after the other reach a host on one connection, whatever the dialect."""
    stage = await corral(simulated())
    host = stage["gpu1"]
    before = host.ledger.connections_opened
    for number in range(20):
        assert (await stage.ask(call(PATHS[number % len(PATHS)]))).status == 200
    assert host.ledger.connections_opened - before == 1


async def test_a_connection_that_the_host_closed(corral: Corral) -> None:
    """A pooled connection that died meanwhile costs the client nothing, and the host no trust."""
    host = simulated()
    stage = await corral(host)
    assert (await stage.ask(call("/api/generate"))).status == 200
    await host.kill()
    await host.start()
    assert (await stage.ask(call("/api/generate"))).status == 200
    record = (await stage.records.until(2))[1]
    assert [(attempt.host, attempt.outcome) for attempt in record.attempts] == [("gpu1", "ok")]


# -- load and unload ----------------------------------------------------------------------------------------------------------


LOADS = {"/api/generate": {"prompt": ""}, "/api/chat": {"messages": []}}


@pytest.mark.parametrize("path", LOADS)
async def test_load(corral: Corral, path: str) -> None:
    """A request without a prompt loads the model on one host and is answered with its one object."""
    stage = await corral(simulated("gpu1"), simulated("gpu2"))
    answer = await stage.ask(call(path, **LOADS[path], stream=True))
    assert json.loads(answer.body)["done_reason"] == "load"
    assert sorted(host.loaded for host in stage.hosts) == [(), (TEXT,)]
    assert stage[answer.get("X-Corral-Host") or ""].loaded == (TEXT,)
    assert (await stage.records.until(1))[0].outcome == "ok"


@pytest.mark.parametrize("keep_alive", [0, "0", "0s", 0.0])
@pytest.mark.parametrize("path", LOADS)
async def test_unload(corral: Corral, path: str, keep_alive: float | str) -> None:
    """An unload goes to every host that has the model in memory, and to no other."""
    stage = await corral(*(simulated(f"gpu{number}") for number in (1, 2, 3)))
    for host in stage.hosts[:2]:
        await ask(host.url, "POST", path, call(path).body)
        stage.gateway.poller.poke(host.name)
    await stage.hosts[2].load(OTHER)
    await until_loaded(stage, 2)
    answer = await stage.ask(call(path, **LOADS[path], keep_alive=keep_alive))
    assert (answer.status, json.loads(answer.body)["done_reason"]) == (200, "unload")
    assert answer.get("X-Corral-Generation")
    assert [host.loaded for host in stage.hosts] == [(), (), (OTHER,)]
    assert stage["gpu3"].ledger.requests[path] == 0
    assert await stage.get("/api/ps") == {"models": []}


async def until_loaded(stage: Stage, count: int) -> None:
    """Wait until so many hosts are known to have something in memory."""
    async with asyncio.timeout(5):
        while len(await stage.totals("corral_model_loaded", "host")) < count:
            pass


async def test_unload_what_is_not_loaded(corral: Corral) -> None:
    """It is a success, as with one Ollama; an unknown model is not."""
    stage = await corral(simulated("gpu1"), simulated("gpu2"))
    answer = await stage.ask(call("/api/generate", **LOADS["/api/generate"], keep_alive=0))
    assert json.loads(answer.body)["done_reason"] == "unload"
    assert (await stage.ask(call("/api/generate", "nobody", prompt="", keep_alive=0))).status == 404


# -- merged lists -------------------------------------------------------------------------------------------------------------


def names(value: dict[str, list[dict[str, str]]]) -> list[str]:
    """The names in a list of models."""
    return sorted(row["name"] for row in value["models"])


async def test_merged_lists(corral: Corral) -> None:
    """The fleet looks like one Ollama that has every model once, in rows of the hosts themselves."""
    one, two = simulated("gpu1", TEXT, OTHER, version="0.33.0"), simulated("gpu2", TEXT, EMBEDDING, version="0.9.9")
    await one.load(TEXT)
    await two.load(TEXT)
    await two.load(EMBEDDING)
    stage = await corral(one, two)
    assert (await ask(stage.url, "GET", "/")).body == b"Ollama is running"
    assert await stage.get("/api/version") == {"version": "0.9.9"}
    tags = await stage.get("/api/tags")
    rows = [row for host in (one, two) for row in json.loads((await ask(host.url, "GET", "/api/tags")).body)["models"]]
    assert names(tags) == sorted([TEXT, OTHER, EMBEDDING])
    assert all(row in rows for row in tags["models"])
    assert [row["modified_at"] for row in tags["models"]] == sorted(
        (row["modified_at"] for row in tags["models"]), reverse=True
    )
    assert names(await stage.get("/api/ps")) == sorted([TEXT, EMBEDDING])
    listed = await stage.get("/v1/models")
    assert sorted(row["id"] for row in listed["data"]) == sorted([TEXT, OTHER, EMBEDDING])
    straight = json.loads((await ask(one.url, "GET", f"/v1/models/{OTHER}")).body)
    assert await stage.get(f"/v1/models/{OTHER}") == straight
    assert straight in listed["data"]
    unknown, own = [await ask(url, "GET", "/v1/models/nobody") for url in (stage.url, one.url)]
    assert (unknown.status, json.loads(unknown.body)["error"]["type"]) == (own.status, "not_found_error")


async def test_no_models_at_all(corral: Corral) -> None:
    """Empty lists are empty as Ollama has them."""
    host = simulated()
    for model in host.store.newest_first():
        host.store.delete(model)
    stage = await corral(host)
    assert await stage.get("/api/tags") == {"models": []}
    assert await stage.get("/api/ps") == {"models": []}
    assert await stage.get("/v1/models") == {"object": "list", "data": None}


@pytest.mark.parametrize("path", ["/", "/api/version", "/api/tags"])
async def test_head(corral: Corral, path: str) -> None:
    """HEAD has the headers of GET and no body."""
    stage = await corral(simulated())
    got, head = [await ask(stage.url, method, path) for method in ("GET", "HEAD")]
    assert (head.status, head.body) == (200, b"")
    assert passed(head) == passed(got)
    assert head.get("Content-Length") == str(len(got.body))


@pytest.mark.parametrize("path", ["/api/ps", "/v1/models"])
async def test_no_head(corral: Corral, path: str) -> None:
    """HEAD is refused where Ollama refuses it."""
    stage = await corral(simulated())
    assert (await ask(stage.url, "HEAD", path)).status == 405


@pytest.mark.parametrize("how", ["never there", "gone since"])
async def test_lists_with_a_dead_host(corral: Corral, how: str) -> None:
    """A host that is down delays no list; what it had stays listed, what it had in memory does not."""
    alive, dead = simulated("gpu1", TEXT), simulated("gpu2", OTHER)
    await dead.load(OTHER)
    if how == "never there":
        dead.faults.set("listening_off")
    stage = await corral(alive, dead)
    if how == "gone since":
        assert names(await stage.get("/api/ps")) == [OTHER]
        await dead.kill()
        stage.gateway.poller.poke("gpu2")
        async with asyncio.timeout(5):
            while (await stage.totals("corral_host_up", "host"))["gpu2"]:
                pass
    assert names(await stage.get("/api/tags")) == ([TEXT] if how == "never there" else sorted([TEXT, OTHER]))
    assert names(await stage.get("/api/ps")) == []
    assert await stage.get("/api/version") == {"version": "0.33.0"}
    assert (await stage.ask(call("/api/chat", TEXT))).status == 200
    answer = await stage.ask(call("/api/chat", OTHER))
    assert answer.status in (502, 503, 404)


async def test_ready_and_alive(corral: Corral) -> None:
    """/healthz answers as long as the process does, /readyz while a host can take requests."""
    host = simulated()
    stage = await corral(host)
    assert (await ask(stage.url, "GET", "/healthz")).status == 200
    ready = await ask(stage.url, "GET", "/readyz")
    assert (ready.status, json.loads(ready.body)["ready"]) == (200, True)
    await host.kill()
    stage.gateway.poller.poke("gpu1")
    async with asyncio.timeout(5):
        while (answer := await ask(stage.url, "GET", "/readyz")).status == 200:
            pass
    assert json.loads(answer.body)["hosts"]["gpu1"]["health"] == "ejected"
    assert (await ask(stage.url, "GET", "/healthz")).status == 200
