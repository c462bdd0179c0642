"""Who takes their time, and who comes in numbers: each has an end, which the configuration names."""

import asyncio
import json

import pytest

from tests.builders import call, simulated
from tests.conftest import Corral
from tests.contract.raw import Answer, ask
from tests.hostile.siege import PATHS, Attack, Dialect, Siege, body_for, judged, named, post, undisturbed
from tests.stage import Client

HEAD_SECONDS, BODY_SECONDS = 0.4, 0.6
SECTIONS = {"connections": {"head_seconds": HEAD_SECONDS, "body_seconds": BODY_SECONDS}}
BODY = body_for()
CHUNKED = b"Transfer-Encoding: chunked"


def late(*pieces: bytes, dialect: Dialect = "ollama") -> Attack:
    """What is told that it was too slow."""
    return Attack(pieces, (408,), error=dialect, code="too_slow")


HEADS = {
    f"a head that stops at {stop!r}": late(said)
    for stop, said in {
        "its first letter": b"P",
        "its method": b"POST ",
        "its path": b"POST /api/gen",
        "its version": b"POST /api/generate HTTP/1.1",
        "its first line": b"POST /api/generate HTTP/1.1\r\n",
        "a name": b"POST /api/generate HTTP/1.1\r\nHost",
        "a value": b"POST /api/generate HTTP/1.1\r\nHost: local",
        "its last line": b"POST /api/generate HTTP/1.1\r\nHost: localhost\r\n",
        "a return": b"POST /api/generate HTTP/1.1\r\nHost: localhost\r\n\r",
        "blank lines": b"\r\n\r\n\r\n",
    }.items()
}
DRIPPED = {
    "a head in letters": late(*(bytes([letter]) for letter in b"POST /api/generate HTTP/1.1\r\nHost: ")),
    "a head of many lines": late(*[b"GET / HTTP/1.1\r\n"], *(b"X%d: y\r\n" % at for at in range(20))),
}
SECOND = {
    "half a head behind a request": Attack(
        (post("/api/generate", BODY), b"POST /api/gen"), (200, 408), seen=1, error="ollama", code="too_slow"
    ),
}
BODIES = {
    f"a body that {name} at {path}": late(*pieces, dialect=dialect)
    for path, dialect in {
        **PATHS,
        "/api/show": "ollama",
        "/api/route/explain": "ollama",
        "/api/sessions": "ollama",
    }.items()
    for name, pieces in {
        "never begins": (post(path, b"", b"Content-Length: 10", sized=False),),
        "stops": (post(path, b'{"model":', b"Content-Length: 1000", sized=False),),
        "stops later": (post(path, b"", b"Content-Length: 1000", sized=False), b'{"model"'),
        "drips": (post(path, b"", b"Content-Length: 1000", sized=False), *(b" " for _ in range(20))),
        "comes in no chunk": (post(path, b"", CHUNKED, sized=False),),
        "stops in a chunk's size": (post(path, b"ff", CHUNKED, sized=False),),
        "stops in a chunk": (post(path, b"ff\r\n{", CHUNKED, sized=False),),
        "has all that 64 bits hold in a chunk": (post(path, b"ffffffffffffffff\r\n{", CHUNKED, sized=False),),
        "says much in extensions": (post(path, b"5;", CHUNKED, sized=False), *(b"x" * 8000 for _ in range(10))),
        "has no end of chunks": (post(path, b"2\r\n{}\r\n", CHUNKED, sized=False),),
        "stops in a trailer": (post(path, b"2\r\n{}\r\n0\r\nX: ", CHUNKED, sized=False),),
    }.items()
    if path in ("/api/chat", "/v1/messages") or name in ("stops", "stops in a chunk")
}
UPLOADS = {
    "an upload that stops": late(post(f"/api/blobs/sha256:{'0' * 64}", b"x", b"Content-Length: 5000", sized=False)),
}
ATTACKS = named(HEADS, DRIPPED, SECOND, BODIES, UPLOADS)


@pytest.mark.parametrize("name", ATTACKS)
def test_slow(siege: Siege, name: str) -> None:
    """Told so, not before its time and soon after it; and no host hears of it."""
    attack, struck = ATTACKS[name], siege.struck[name]
    judged(attack, struck)
    assert struck.seconds > min(HEAD_SECONDS, BODY_SECONDS) / 2


def test_the_others(siege: Siege) -> None:
    """Nobody else notices."""
    undisturbed(siege)


async def test_a_slow_body_that_comes(corral: Corral) -> None:
    """Who sends a kilobyte in time may take as long as it takes: here three times as long."""
    stage = await corral(simulated(), connections={"body_seconds": 0.3})
    sent = call("/api/generate", tokens=1, padding="x" * 20_000)
    loop = asyncio.get_running_loop()
    async with Client.to(stage.url) as client:
        await client.write(post(sent.path, b"", b"Content-Length: %d" % len(sent.body), sized=False))
        began, at = loop.time(), 0
        while at < len(sent.body):
            if loop.time() - began > 0.9 * at / len(sent.body):
                await client.write(sent.body[at : at + 512])
                at += 512
            else:
                await ask(stage.url, "GET", "/healthz")
        assert (await client.answer()).status == 200
        assert loop.time() - began > 0.8


async def test_a_slow_host_is_not_the_callers_fault(corral: Corral) -> None:
    """Who waits for an answer, however long, is not slow; nor is one that has asked nothing."""
    stage = await corral(simulated(tokens_per_second=8.0), connections={"head_seconds": 0.1, "body_seconds": 0.1})
    async with Client.to(stage.url) as idle:
        assert (await stage.ask(call("/api/generate", tokens=5, stream=False))).status == 200
        await idle.send("GET", "/healthz")
        assert (await idle.answer()).status == 200


async def test_idle_connections_end(corral: Corral) -> None:
    """After their time, without a word; new ones as well as such that have been served."""
    stage = await corral(simulated(), connections={"idle_seconds": 0.2})
    async with Client.to(stage.url) as fresh, Client.to(stage.url) as served:
        await served.send("GET", "/healthz")
        assert (await served.answer()).status == 200
        assert [await fresh.ended(), await served.ended()] == [False, False]


# -- in numbers -----------------------------------------------------------------------------------------------------------------


async def told(client: Client) -> Answer:
    """What is said at once, unasked."""
    client._method = "GET"
    return await client.answer()


@pytest.mark.parametrize(
    ("key", "words"), [("total", "3 connections are open"), ("per_address", "3 connections of 127.0.0.1")]
)
async def test_too_many(corral: Corral, key: str, words: str) -> None:
    """One more is told 503 and closed, however often; those that are there go on, and once one leaves another may come."""
    stage = await corral(simulated(), connections={key: 3})
    async with Client.to(stage.url) as first, Client.to(stage.url) as second:
        async with Client.to(stage.url) as third:
            for client in (first, second, third):
                await client.send("GET", "/healthz")
                assert (await client.answer()).status == 200
            for _ in range(20):
                async with Client.to(stage.url) as fourth:
                    answer = await told(fourth)
                    assert (answer.status, answer.get("Connection"), answer.get("Retry-After")) == (503, "close", "1")
                    assert answer.get("X-Corral-Error") == "too_many_connections"
                    assert words in json.loads(answer.body)["error"]
                    assert await fourth.ended() is False
            await second.send("GET", "/healthz")
            assert (await second.answer()).status == 200
            assert stage.gateway.metrics.at_the_door.labels("too_many_connections").value == 20
        await first.send("GET", "/healthz")
        assert (await first.answer()).status == 200
        async with Client.to(stage.url) as fifth:
            await fifth.send("GET", "/metrics")
            assert b'corral_http_turned_away_total{reason="too_many_connections"} 20' in (await fifth.answer()).body
    await stage.stop()
    logged = [line for line in stage.log.read_text().splitlines() if "turned away" in line]
    assert len(logged) == 1, "once a minute"


async def test_a_trusted_proxy_may_have_many(corral: Corral) -> None:
    """All callers come through it: it is one address."""
    stage = await corral(simulated(), connections={"per_address": 1}, http={"trusted_proxies": ("127.0.0.1",)})
    async with Client.to(stage.url) as first, Client.to(stage.url) as second:
        for client in (first, second):
            await client.send("GET", "/healthz")
            assert (await client.answer()).status == 200
