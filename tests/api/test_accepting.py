"""Connections that begin with a PROXY header: whose they are then, with TLS behind it and without, and who may not send one."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.api import accepting
from tests.builders import call, simulated
from tests.conftest import Corral
from tests.contract.raw import Answer, Connection
from tests.stage import SECONDS, Stage
from tests.tls import Authority

LINE = b"PROXY TCP4 203.0.113.5 10.0.0.1 4711 443\r\n"
UNKNOWN = b"PROXY UNKNOWN\r\n"
TRUSTED = {"proxy_protocol": True, "trusted_proxies": ("127.0.0.0/8", "unix")}
NEAR = "127.0.0.1:0"


@asynccontextmanager
async def through(stage: Stage, header: bytes) -> AsyncIterator[Connection]:
    """A connection that begins so, and then with TLS if that is spoken there."""
    async with Connection.to(stage.url.replace("https", "http")) as client:
        client._writer.write(header)
        if stage.tls is not None:
            await client._writer.start_tls(stage.tls, server_hostname="127.0.0.1")
        yield client


async def asked(stage: Stage, header: bytes, method: str = "GET", path: str = "/", body: bytes | None = None) -> Answer:
    """The answer on such a connection."""
    async with through(stage, header) as client:
        await client.send(method, path, body)
        return await client.answer()


@pytest.mark.every_loop
@pytest.mark.parametrize("spoken", ["TLS", "no TLS"])
@pytest.mark.parametrize("where", ["address", "socket"])
async def test_whose_it_is(corral: Corral, tmp_path: Path, spoken: str, where: str) -> None:
    """Records have the address that the proxy told, or the proxy's own; every request of the connection is theirs; and nobody is on this machine."""
    authority = Authority(tmp_path)
    pair = authority.pair("own")
    sections = {"tls": {"cert": pair.cert, "key": pair.key}} if spoken == "TLS" and where == "address" else {}
    listen = NEAR if where == "address" else f"unix:{tmp_path}/a.sock"
    stage = await corral(simulated(), listen=listen, admin={"listen": NEAR}, http=TRUSTED, **sections)
    stage.tls = authority.client() if sections else None
    sent = call("/api/generate", tokens=20)
    async with through(stage, LINE) as client:
        for _ in range(2):
            await client.send("POST", sent.path, sent.body)
            assert len((await client.answer()).body.splitlines()) == 21
    assert (await asked(stage, UNKNOWN, "POST", sent.path, sent.body)).status == 200
    own = "127.0.0.1" if where == "address" else "unix"
    assert [record.client for record in await stage.records.until(3)] == ["203.0.113.5"] * 2 + [own]
    for header in (LINE, UNKNOWN, b"PROXY TCP4 127.0.0.1 127.0.0.1 1 2\r\n"):
        assert (await asked(stage, header, "GET", "/api/tags")).status == 200
        assert (await asked(stage, header, "GET", "/api/sessions")).status == 401


async def test_who_leaves(corral: Corral) -> None:
    """As from any other connection."""
    stage = await corral(simulated(tokens_per_second=20.0), admin={"listen": NEAR}, http=TRUSTED)
    sent = call("/api/generate", tokens=1000)
    async with through(stage, LINE) as client:
        await client.send("POST", sent.path, sent.body, {"X-Corral-Session": "gone"})
        await stage.row("gone", "streaming")
        client.reset()
        record = await stage.records.of("gone")
    assert (record.cancelled_by, record.client) == ("client_disconnect", "203.0.113.5")


async def test_a_proxy_before_the_proxy(corral: Corral) -> None:
    """Whom a trusted one tells that is trusted as well: then X-Forwarded-For counts."""
    stage = await corral(
        simulated(), admin={"listen": NEAR}, http=TRUSTED | {"trusted_proxies": ("127.0.0.1", "203.0.113.5")}
    )
    sent = call("/api/generate", tokens=2)
    async with through(stage, LINE) as client:
        await client.send("POST", sent.path, sent.body, {"X-Forwarded-For": "198.51.100.7"})
        assert (await client.answer()).status == 200
    assert (await stage.records.until(1))[0].client == "198.51.100.7"


@pytest.mark.parametrize(
    ("trusted", "said", "why"),
    [
        pytest.param("10.0.0.0/8", b"", "it is none of http.trusted_proxies", id="who is not trusted"),
        pytest.param("127.0.0.1", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "does not begin with a PROXY", id="HTTP"),
        pytest.param("127.0.0.1", LINE[:20], "it ended before its PROXY header did", id="cut"),
    ],
)
async def test_who_is_sent_away(
    corral: Corral, caplog: pytest.LogCaptureFixture, trusted: str, said: bytes, why: str
) -> None:
    """Without an answer; the log tells of each address once."""
    stage = await corral(
        simulated(), admin={"listen": NEAR}, http={"proxy_protocol": True, "trusted_proxies": (trusted,)}
    )
    for _ in range(3):
        async with Connection.to(stage.url) as client:
            if said:  # else it is closed whatever comes
                client._writer.write(said)
                client._writer.write_eof()
            await client.ended()
    told = [record.getMessage() for record in caplog.records if "is closed" in record.getMessage()]
    assert len(told) == 1
    assert told[0].startswith("a connection from 127.0.0.1 is closed, and told this once: ")
    assert why in told[0]


async def test_who_says_nothing(corral: Corral, monkeypatch: pytest.MonkeyPatch) -> None:
    """Is waited for only so long, holds up nobody, and is sent away at the stop."""
    monkeypatch.setattr(accepting, "BEGIN_SECONDS", 0.05)
    monkeypatch.setattr(accepting, "BEGINNING_MOST", 3)
    stage = await corral(simulated(), admin={"listen": NEAR}, http=TRUSTED)
    clients = [Connection.to(stage.url) for _ in range(5)]
    opened = [await client.__aenter__() for client in clients]
    assert (await asked(stage, LINE)).status == 200
    async with asyncio.timeout(SECONDS):
        for one in opened:
            await one.ended()
    monkeypatch.setattr(accepting, "BEGIN_SECONDS", 60.0)
    async with Connection.to(stage.url) as client:
        await stage.stop()
        await client.ended()
    for client in clients:
        await client.__aexit__(None, None, None)


@asynccontextmanager
async def silent(stage: Stage, *addresses: str) -> AsyncIterator[list[Connection]]:
    """Connections from these addresses that say nothing."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(come(stage, address)) for address in addresses]


@asynccontextmanager
async def come(stage: Stage, address: str, tls: ssl.SSLContext | None = None) -> AsyncIterator[Connection]:
    """A connection from this address of our own machine."""
    host, port = stage.gateway.listeners.address
    client = Connection(*await asyncio.open_connection(host, port, ssl=tls, local_addr=(address, 0)))
    try:
        yield client
    finally:
        await client.close()


async def served(stage: Stage, address: str) -> None:
    """Whoever comes from there now is let in at once."""
    async with asyncio.timeout(SECONDS), come(stage, address, stage.tls) as client:
        await client.send("GET", "/healthz")
        assert (await client.answer()).status == 200


def turned_away(stage: Stage, code: str) -> float:
    """How many, so far."""
    return float(stage.gateway.metrics.at_the_door.labels(code).value)


async def speaking_tls(corral: Corral, tmp_path: Path, **sections: dict[str, Any]) -> Stage:
    """A gateway that does."""
    authority = Authority(tmp_path)
    pair = authority.pair("own")
    stage = await corral(simulated(), tls={"cert": pair.cert, "key": pair.key}, **sections)
    stage.tls = authority.client()
    return stage


@pytest.mark.every_loop
@pytest.mark.parametrize(("per_address", "most"), [(2048, 4), (3, 3)])
async def test_one_address_that_says_nothing(
    corral: Corral, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, per_address: int, most: int
) -> None:
    """It gets an eighth of the room, or what is configured; others are served, and so is it once it has begun with one."""
    monkeypatch.setattr(accepting, "BEGINNING_MOST", 32)
    monkeypatch.setattr(accepting, "BEGIN_SECONDS", 60.0)
    stage = await speaking_tls(corral, tmp_path, connections={"per_address": per_address})
    async with silent(stage, *["127.0.0.1"] * (most + 20)) as clients:
        async with asyncio.timeout(SECONDS):
            for client in clients[most:]:
                await client.ended()
        assert turned_away(stage, "too_many_connections") == 20
        await served(stage, "127.0.0.2")
        await clients[0].close()
        await served(stage, "127.0.0.1")
        await stage.stop()
        async with asyncio.timeout(SECONDS):
            for client in clients[1:most]:
                await client.ended()
    logged = [line for line in stage.log.read_text().splitlines() if "turned away" in line]
    assert len(logged) == 1, "once a minute"
    assert f"{most} connections of 127.0.0.1 have not begun yet" in logged[0]


@pytest.mark.every_loop
async def test_many_addresses_that_say_nothing(corral: Corral, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest of those make room, and whoever comes is served at once."""
    monkeypatch.setattr(accepting, "BEGINNING_MOST", 16)
    monkeypatch.setattr(accepting, "BEGIN_SECONDS", 60.0)
    stage = await speaking_tls(corral, tmp_path)
    async with silent(stage, *(f"127.0.1.{number // 2}" for number in range(20))) as clients:
        await served(stage, "127.0.0.1")
        async with asyncio.timeout(SECONDS):
            for client in clients[:5]:
                await client.ended()
        assert turned_away(stage, "too_many_connections") == 5
        await served(stage, "127.0.0.1")
        assert turned_away(stage, "too_many_connections") == 5


@pytest.mark.every_loop
async def test_tls_that_does_not_come(corral: Corral, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Is waited for only so long, and counted."""
    monkeypatch.setattr(accepting, "BEGIN_SECONDS", 0.05)
    stage = await speaking_tls(corral, tmp_path)
    async with silent(stage, "127.0.0.1") as (client,), asyncio.timeout(SECONDS):
        await client.ended()
        assert turned_away(stage, "too_slow") == 1
