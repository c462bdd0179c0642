"""Hosts that lie: whatever one answers, its caller gets an honest end within a bounded time and memory, and nobody is led elsewhere."""

import asyncio
import contextlib
import gzip
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from gateway.fleet.client import MODELS_MOST
from gateway.loop import LOOP
from tests.builders import TEXT, call, simulated
from tests.conftest import Corral, corrals
from tests.contract.raw import Answer, Cut, ask
from tests.hostile.siege import FINE, HEAD, chunked
from tests.scripted import Asked, ScriptedHost
from tests.stage import Client, Stage

MUCH = 40_000
ENDLESS = 4_000_000
"""Bytes that are as good as no end: far over every limit."""


@dataclass(frozen=True, slots=True)
class Lie:
    """What a host says; ``status`` and ``whole``: what its caller makes of it; ``words`` stand in the answer. ``closes``: the host does, after it."""

    said: bytes
    status: int = 502
    whole: bool = True
    words: bytes = b""
    closes: bool = False


def status(line: bytes) -> Lie:
    """An answer with this first line."""
    return Lie(line + b"\r\nContent-Length: 2\r\n\r\n{}")


def headed(*fields: bytes, body: bytes = b"{}") -> bytes:
    """A 200 with these headers."""
    return b"\r\n".join((b"HTTP/1.1 200 OK", b"Content-Type: application/json", *fields, b"", b"")) + body


def redirect(code: int, where: bytes) -> Lie:
    """An answer that leads elsewhere."""
    return Lie(b"HTTP/1.1 %d Moved\r\nLocation: %b\r\nContent-Length: 2\r\n\r\n{}" % (code, where), words=b"redirect")


NO_ANSWERS = {
    "nothing": Lie(b"", closes=True),
    "half a line": Lie(b"HTTP/1.1 2", closes=True),
    "half a head": Lie(b"HTTP/1.1 200 OK\r\nX: y\r\n", closes=True),
    "a head, then nothing": Lie(HEAD, closes=True),
    "a first line without end": Lie(b"HTTP/1.1 200 " + b"O" * ENDLESS),
    "a name without end": Lie(b"HTTP/1.1 200 OK\r\n" + b"X" * ENDLESS),
    "a value without end": Lie(b"HTTP/1.1 200 OK\r\nX: " + b"y" * ENDLESS),
    "headers without end": Lie(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * (ENDLESS // 6)),
    "blank lines without end": Lie(b"\r\n" * (ENDLESS // 2)),
    "patience without end": Lie(b"HTTP/1.1 100 Continue\r\n\r\n" * (ENDLESS // 25)),
    "hints without end": Lie(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" * (ENDLESS // 40)),
    "an interim body": Lie(b"HTTP/1.1 199 Wait\r\nTransfer-Encoding: chunks\r\n\r\n" + b"x" * ENDLESS),
    "a chunk's size without end": Lie(HEAD + b"0" * ENDLESS),
    "an extension without end": Lie(HEAD + b"5;" + b"x" * ENDLESS),
    "trailers without end": Lie(HEAD + b"0\r\n" + b"X: y\r\n" * (ENDLESS // 6)),
}
NONSENSE = {
    f"line {line!r}": status(line)
    for line in (
        *(
            b"HTTP/1.1 000 OK",
            b"HTTP/1.1 099 OK",
            b"HTTP/1.1 20 OK",
            b"HTTP/1.1 2000 OK",
            b"HTTP/1.1 -20 OK",
            b"HTTP/1.1 2e2 OK",
            b"HTTP/1.1 OK",
            b"HTTP/1.1  200 OK",
        ),
        *(
            b"HTTP/2 200",
            b"HTTP/1.12 200 OK",
            b"http/1.1 200 OK",
            b"HTTPS/1.1 200 OK",
            b"ICY 200 OK",
            b"+OK",
            b"220 ftp",
        ),
        *(
            b"\x15\x03\x03\x00\x02\x02\x0a",
            b"\0\0\0\0",
            b"GET / HTTP/1.1",
            b"SSH-2.0-x",
            b"{}",
            b"<html>",
            b"\xff\xfe\xfd",
        ),
        b"HTTP/1.1 101 Switching",
    )
}
FRAMES = {
    f"framing {name}": Lie(said)
    for name, said in {
        "a length below nothing": headed(b"Content-Length: -2"),
        "a length in hexadecimal": headed(b"Content-Length: 0x2"),
        "a length in words": headed(b"Content-Length: two"),
        "two lengths": headed(b"Content-Length: 2", b"Content-Length: 3"),
        "two lengths alike": headed(b"Content-Length: 2", b"Content-Length: 2"),
        "lengths in a list": headed(b"Content-Length: 2, 2"),
        "more than 64 bits": headed(b"Content-Length: 99999999999999999999"),
        "a length that is empty": headed(b"Content-Length:"),
        "a NUL in a value": headed(b"X: a\0b", b"Content-Length: 2"),
        "a bare return": headed(b"X: a\rY: b", b"Content-Length: 2"),
        "no colon": headed(b"Xyz", b"Content-Length: 2"),
        "a blank before the colon": headed(b"Content-Length : 2"),
        "chunks and a length": headed(
            b"Content-Length: 2", b"Transfer-Encoding: chunked", body=b"2\r\n{}\r\n0\r\n\r\n"
        ),
        "a chunk below nothing": headed(b"Transfer-Encoding: chunked", body=b"-2\r\n{}\r\n0\r\n\r\n"),
        "a chunk of no number": headed(b"Transfer-Encoding: chunked", body=b"zz\r\n{}\r\n0\r\n\r\n"),
        "a chunk over 64 bits": headed(b"Transfer-Encoding: chunked", body=b"fffffffffffffffff\r\n{}"),
    }.items()
}
LATER = {
    f"in a stream: {name}": Lie(
        HEAD + chunked(b'{"response":"a","done":false}\n') + said, 200, words=b'{"error":"', closes=closes
    )
    for name, (said, closes) in {
        "the end of the connection": (b"", True),
        "half a chunk": (b"ff\r\n{", True),
        "no chunk": (b"zz\r\n", False),
        "a chunk below nothing": (b"-1\r\n", False),
        "a chunk over 64 bits": (b"fffffffffffffffff\r\n", False),
        "more than the chunk's size": (b"2\r\n{}}}\r\n", False),
        "another answer": (HEAD, False),
        "an extension without end": (b"5;" + b"x" * ENDLESS, False),
        "a size without end": (b"0" * ENDLESS, False),
        "no JSON, then the end": (chunked(b"half a line"), True),
    }.items()
}
REDIRECTS = {
    f"{code} to {where.decode()}": redirect(code, where)
    for code in (300, 301, 302, 303, 305, 307, 308)
    for where in (b"http://169.254.169.254/latest/meta-data/", b"//evil.example/", b"/api/delete")
}
GIANT = b'{"response":"' + b"x" * 3_000_000
ODD = {
    "no JSON at all": Lie(HEAD + chunked(b"no JSON\n" * 3, b""), 200, words=b"no JSON\n"),
    "no line at all": Lie(HEAD + chunked(b""), 200),
    "a line without end": Lie(HEAD + chunked(GIANT, b""), 200, words=b"xxx"),
    "a line without end, cut": Lie(HEAD + chunked(GIANT), 200, whole=False, closes=True),
    "blank lines": Lie(HEAD + chunked(b"\n" * MUCH, b""), 200),
    "chunks of one byte": Lie(HEAD + chunked(*(b"x",) * MUCH, b"\n", b""), 200),
    "bad bytes": Lie(HEAD + chunked(b"\xff\xfe\n", FINE, b""), 200, words=b"\xff\xfe"),
    "NULs": Lie(HEAD + chunked(b"\0" * MUCH + b"\n", b""), 200, words=b"\0\0"),
    "less than its length": Lie(headed(b"Content-Length: 5"), 200, whole=False, closes=True),
    "more than its length": Lie(headed(b"Content-Length: 2") + b"x" * 1000, 200, words=b"{}"),
    "an answer and two others": Lie(headed(b"Content-Length: 2") * 3, 200, words=b"{}"),
    "an answer and another": Lie(headed(b"Content-Length: 2") * 2, 200, words=b"{}"),
    "a terabyte, by its length": Lie(headed(b"Content-Length: 1099511627776"), 200, whole=False, closes=True),
    "an error without end": Lie(b"HTTP/1.1 400 Bad\r\n\r\n" + b"x" * ENDLESS, 400, closes=True, words=b"xxx"),
    "a compressed answer that is none": Lie(headed(b"Content-Encoding: gzip", b"Content-Length: 2"), 200, words=b"{}"),
    "our own headers": Lie(
        headed(b"X-Corral-Host: other", b"X-Corral-Error: x", b"Content-Length: 2"), 200, words=b"{}"
    ),
    "a header to split": Lie(headed(b"X: a%0d%0aSet-Cookie: b", b"Content-Length: 2"), 200, words=b"{}"),
    "a status of no name": Lie(b"HTTP/1.1 299 \r\nContent-Length: 2\r\n\r\n{}", 299, words=b"{}"),
    "a status over 599": Lie(b"HTTP/1.1 999 \r\nContent-Length: 2\r\n\r\n{}", 999, words=b"{}"),
    "a 204 with a body": Lie(b"HTTP/1.1 204 No\r\nContent-Length: 2\r\n\r\n{}", 204),
    "a 304 that nobody asked for": Lie(b"HTTP/1.1 304 No\r\n\r\n", 304),
}
LIES: dict[str, Lie] = NO_ANSWERS | NONSENSE | FRAMES | LATER | REDIRECTS | ODD


@dataclass(slots=True)
class Heard:
    """What its caller makes of a lie, and when."""

    answer: Answer | None
    whole: bool
    seconds: float


async def _lying(path: Path) -> tuple[dict[str, Heard], list[int]]:
    """All lies, one after the other from one host, while another says the truth."""
    names = list(LIES)

    async def lie(asked: Asked, writer: asyncio.StreamWriter) -> None:
        told = LIES[names[json.loads(asked.body)["number"]]]
        with contextlib.suppress(ConnectionError, RuntimeError):
            writer.write(told.said)
            await writer.drain()
        if told.closes:
            writer.close()

    async with corrals(path) as corral:
        stage = await corral(ScriptedHost("liar", lie), simulated("good", tokens_per_second=200.0), slots=100)
        truth = call("/api/generate", tokens=10_000, headers={"X-Corral-Host": "good"})
        async with stage.begun(truth) as canary:
            await canary.head()
            heard = {name: await _hear(stage, at) for at, name in enumerate(names)}
            seen = [len(json.loads(await _line(canary))["response"]) for _ in range(50)]
        return heard, seen


async def _line(client: Client) -> bytes:
    chunk = await client.chunk()
    assert chunk
    return chunk.splitlines()[0]


async def _hear(stage: Stage, number: int) -> Heard:
    loop = asyncio.get_running_loop()
    body = json.dumps({"model": TEXT, "prompt": "x", "number": number}).encode()
    answer, whole, began = None, False, loop.time()
    async with Client.to(stage.url) as client:
        await client.send("POST", "/api/generate", body, {"X-Corral-Host": "liar"})
        with contextlib.suppress(Cut):
            head = await client.head()
            answer = Answer(head.status, head.reason, head.headers, client._framing)
            while (chunk := await client.chunk()) is not None:
                answer.chunks.append(chunk)
            whole = True
    return Heard(answer, whole, loop.time() - began)


@pytest.fixture(scope="module")
def lying(tmp_path_factory: pytest.TempPathFactory) -> tuple[Mapping[str, Heard], list[int]]:
    """What was heard of each lie, and of the truth meanwhile."""
    with asyncio.Runner(loop_factory=LOOP) as runner:
        return runner.run(_lying(tmp_path_factory.mktemp("lying")))


@pytest.mark.parametrize("name", LIES)
def test_a_lie(lying: tuple[Mapping[str, Heard], list[int]], name: str) -> None:
    """It has an honest end, soon; where nothing was sent yet, an error that names the host."""
    lie, heard = LIES[name], lying[0][name]
    assert heard.answer is not None
    assert (heard.answer.status, heard.whole) == (lie.status, lie.whole)
    assert lie.words in heard.answer.body
    assert heard.seconds < 5
    assert heard.answer.get("Location") is None
    assert (heard.answer.get("X-Corral-Host") or "liar") == "liar"
    if lie.status == 502:
        assert "liar" in json.loads(heard.answer.body)["error"]
        assert heard.answer.get("X-Corral-Error") == "hosts_failed"


def test_the_truth(lying: tuple[Mapping[str, Heard], list[int]]) -> None:
    """Goes on meanwhile."""
    assert len(lying[1]) == 50


# -- of themselves --------------------------------------------------------------------------------------------------------------


def packed(encoding: bytes, body: bytes) -> bytes:
    """A poll's answer that has to be unpacked."""
    return headed(b"Content-Encoding: " + encoding, b"Content-Length: %d" % len(body), body=body)


def rows(count: int, **more: object) -> list[dict[str, object]]:
    """So many models, each with a digest of its own."""
    return [
        {"name": f"m{at}:1", "model": f"m{at}:1", "digest": f"{at:064x}", "size": 1, "modified_at": ""} | more
        for at in range(count)
    ]


BOMB = gzip.compress(b" " * 200_000_000, 9)
SELVES: dict[str, tuple[str, object]] = {
    "nothing but a head": ("/api/version", b"HTTP/1.1 200 OK\r\n\r\n"),
    "a redirect": ("/api/version", b"HTTP/1.1 301 M\r\nLocation: /api/tags\r\nContent-Length: 2\r\n\r\n{}"),
    "a redirect to elsewhere": (
        "/api/tags",
        b"HTTP/1.1 302 M\r\nLocation: http://169.254.169.254/\r\nContent-Length: 2\r\n\r\n{}",
    ),
    "a head without end": ("/api/version", b"HTTP/1.1 200 OK\r\nX: " + b"y" * ENDLESS),
    "headers without end": ("/api/ps", b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * MUCH),
    "a list without end": ("/api/tags", headed(body=b'{"models":[' + b"{}," * 8_000_000)),
    "an unfolding list": ("/api/tags", packed(b"gzip", BOMB)),
    "an unfolding version": ("/api/version", packed(b"gzip", BOMB)),
    "what cannot be unpacked": ("/api/tags", packed(b"gzip", b"no gzip")),
    "another encoding": ("/api/tags", packed(b"br", b"no br")),
    "a deep list": ("/api/tags", headed(b"Content-Length: 2000000", body=b"[" * 1_000_000 + b"]" * 1_000_000)),
    "a list that is none": ("/api/tags", headed(b"Content-Length: 2", body=b"[]")),
    "rows that are none": ("/api/tags", {"models": [1, None, [], "x", {}, {"name": 1}, {"name": "x"}]}),
    "more models than anybody has": ("/api/tags", {"models": rows(20_000)}),
    "more models in memory than fit": ("/api/ps", {"models": rows(20_000, size_vram=1, context_length=1)}),
    "one model in many rows": ("/api/tags", {"models": rows(1) * 20_000}),
    "one digest of many names": ("/api/tags", {"models": rows(20_000, digest="a" * 64)}),
    "a name without end": ("/api/tags", {"models": [{"name": "x" * 1_000_000, "digest": "a" * 64}]}),
    "a digest without end": ("/api/ps", {"models": [{"name": "x", "model": "x", "digest": "a" * 1_000_000}]}),
    "another protocol": ("/api/version", b"\x15\x03\x03\x00\x02\x02\x0a"),
    "its own words": ("/api/version", {"version": "\r\nX: y\x1b[31m"}),
}
PAGES = ("/api/tags", "/api/ps", "/v1/models", "/api/fleet", "/api/models/servers", "/metrics", "/api/version")


@pytest.mark.parametrize("name", SELVES)
async def test_a_lie_of_itself(corral: Corral, name: str) -> None:
    """What a host says of itself keeps neither the start nor a page nor a request waiting, and leads nowhere else."""
    path, said = SELVES[name]
    elsewhere = ScriptedHost("liar", _never, {path: said})
    loop = asyncio.get_running_loop()
    began = loop.time()
    stage = await corral(elsewhere, simulated("good"), poll={"timeout_seconds": 1.0})
    for page in PAGES:
        assert (page, (await ask(stage.url, "GET", page)).status) == (page, 200)
    answer = await stage.ask(call("/api/generate", tokens=2, headers={"X-Corral-Host": "good"}))
    assert answer.status == 200
    assert len((await stage.get("/api/tags"))["models"]) <= MODELS_MOST + 4
    assert loop.time() - began < 8


async def _never(_asked: Asked, writer: asyncio.StreamWriter) -> None:
    writer.close()
