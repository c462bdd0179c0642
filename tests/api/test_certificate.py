"""TLS of our own: streams, cancelling, other certificates while it runs, and callers who must show theirs."""

import asyncio
import os
import ssl
import threading
from pathlib import Path
from typing import Any

import pytest

from gateway.app import Gateway
from gateway.errors import ConfigError
from tests.builders import call, config, simulated
from tests.conftest import Corral
from tests.contract.raw import Connection, ask
from tests.stage import SECONDS, Stage
from tests.tls import Authority, Pair


def tls(pair: Pair, **more: str) -> dict[str, str]:
    """Its section."""
    return {"cert": pair.cert, "key": pair.key} | more


async def serial(stage: Stage) -> str:
    """Of the certificate that the next caller is shown."""
    async with Connection.to(stage.url, tls=stage.tls) as client:
        return str(client._writer.get_extra_info("peercert")["serialNumber"])


def looked(stage: Stage) -> None:
    """The files have been looked at now."""
    certificate = stage.gateway.listeners.certificate
    for _ in range(2):  # one may have been under way
        certificate.look()
        assert certificate._looking is not None
        certificate._looking.join(SECONDS)


@pytest.mark.every_loop
async def test_a_stream(corral: Corral, tmp_path: Path) -> None:
    """It is relayed chunk by chunk, as without TLS, and the connection serves the next request; versions older than 1.2 are refused."""
    authority = Authority(tmp_path)
    stage = await corral(simulated(tokens_per_second=200.0), tls=tls(authority.pair("own")))
    stage.tls = authority.client()
    assert stage.url.startswith("https://127.0.0.1:")
    sent = call("/api/generate", tokens=30)
    async with Connection.to(stage.url, tls=stage.tls) as client:
        for _ in range(2):
            await client.send("POST", sent.path, sent.body)
            answer = await client.answer()
            assert answer.status == 200
            assert len(answer.body.splitlines()) == 31
            assert len(answer.chunks) > 5
        assert client._writer.get_extra_info("ssl_object").version() == "TLSv1.3"
    assert [record.client for record in await stage.records.until(2)] == ["127.0.0.1"] * 2
    assert (await stage.get("/api/fleet"))["hosts"]
    old = authority.client()
    old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_2
    assert (await ask(stage.url, "GET", "/", tls=old)).status == 200


@pytest.mark.every_loop
@pytest.mark.parametrize("how", ["reset", "close"])
@pytest.mark.parametrize(("phase", "speed"), [("prefill", 0.01), ("streaming", 1e7)])
async def test_who_leaves(corral: Corral, tmp_path: Path, how: str, phase: str, speed: float) -> None:
    """The host stops at once, in the middle of a stream as well as before the first byte."""
    authority = Authority(tmp_path)
    host = simulated(tokens_per_second=20.0, prefill_tokens_per_second=speed)
    stage = await corral(host, tls=tls(authority.pair("own")))
    stage.tls = authority.client()
    async with stage.begun(call("/api/generate", tokens=1000), session="gone") as client:
        await stage.row("gone", phase)
        await client.leave(how)
        record = await stage.records.of("gone")
    assert (record.cancelled_by, record.phase) == ("client_disconnect", phase)
    await host.ledger.wait_until(lambda: host.ledger.in_flight == 0, SECONDS)


async def test_a_slow_reader(corral: Corral, tmp_path: Path) -> None:
    """The host is held up, and everything arrives."""
    authority = Authority(tmp_path)
    host = simulated(tokens_per_second=1e6)
    stage = await corral(host, tls=tls(authority.pair("own")))
    stage.tls = authority.client()
    sent = call("/api/generate", tokens=20_000)
    async with stage.begun(sent, receive_bytes=16_384) as client:
        await stage.until(lambda rows: rows and rows[0]["phase"] == "streaming")
        await stage.held_up(lambda: host.ledger.tokens_generated)
        answer = await client.answer()
    assert len(answer.body.splitlines()) == 20_001


async def test_another_certificate(corral: Corral, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Counts for the next connection, while a stream goes on; one that cannot be used is logged, and the old one stays."""
    authority = Authority(tmp_path)
    pair = authority.pair("own")
    stage = await corral(simulated(tokens_per_second=200.0), tls=tls(pair))
    stage.tls = authority.client()
    first = await serial(stage)
    sent = call("/api/generate", tokens=30)
    async with stage.begun(sent) as client:
        await client.head()
        authority.pair("own")
        stage.gateway.reload()
        async with asyncio.timeout(SECONDS):
            while await serial(stage) == first:
                pass
        second = await serial(stage)
        Path(pair.key).write_text("broken", encoding="utf-8")  # noqa: ASYNC240 - a few bytes
        looked(stage)
        looked(stage)
        assert await serial(stage) == second
        lines = b""
        while (chunk := await client.chunk()) is not None:
            lines += chunk
    assert len(lines.splitlines()) == 31
    told = [record.getMessage() for record in caplog.records if "certificate" in record.getMessage()]
    assert told[0] == f"certificate read again: {pair.cert}"
    assert [text for text in told if text.startswith("the certificate stays as it was: tls.cert = ")] == told[-1:]


async def test_a_pipe_in_place_of_the_key(corral: Corral, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Nobody reads it: what was before stays."""
    authority = Authority(tmp_path)
    pair = authority.pair("own")
    stage = await corral(simulated(), tls=tls(pair))
    stage.tls = authority.client()
    first = await serial(stage)
    Path(pair.key).unlink()  # noqa: ASYNC240 - at once
    os.mkfifo(pair.key)
    looked(stage)
    assert await serial(stage) == first
    told = f"the certificate stays as it was: tls.cert: {pair.key!r}: it is no regular file"
    assert caplog.messages.count(told) == 1


async def test_a_mount_that_does_not_answer(corral: Corral, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Holds up neither callers nor the stop, and is asked once at a time."""
    authority = Authority(tmp_path)
    pair = authority.pair("own")
    stage = await corral(simulated(), tls=tls(pair))
    stage.tls = authority.client()
    asked, answers, stat = threading.Semaphore(0), threading.Event(), Path.stat

    def hanging(path: Path, **more: Any) -> os.stat_result:
        if str(path) == pair.cert:
            asked.release()
            assert answers.wait(SECONDS)
        return stat(path, **more)

    monkeypatch.setattr(Path, "stat", hanging)
    certificate = stage.gateway.listeners.certificate
    certificate.look()
    assert asked.acquire(timeout=SECONDS)
    certificate.look()
    async with asyncio.timeout(SECONDS / 2):
        assert await serial(stage)
        await stage.stop()
    assert not asked.acquire(blocking=False)
    answers.set()
    assert certificate._looking is not None
    certificate._looking.join(SECONDS)


async def test_callers_who_must_show_theirs(corral: Corral, tmp_path: Path) -> None:
    """Who has none, or one of somebody else's, is not let in."""
    authority, other = Authority(tmp_path), Authority(tmp_path, "other")
    own, ann = authority.pair("own"), authority.pair("ann", "ann@example.com")
    stage = await corral(simulated(), tls=tls(own, client_ca=authority.ca))
    stage.tls = authority.client(ann)
    assert (await stage.ask(call("/api/generate", tokens=2))).status == 200
    for shown in (None, other.pair("eve", "eve@example.com")):
        with pytest.raises((ssl.SSLError, OSError, Exception), match=r"(?i)ssl|alert|closed|reset"):
            await ask(stage.url, "GET", "/", tls=authority.client(shown))
    assert (await stage.ask(call("/api/generate", tokens=2))).status == 200


async def test_what_is_no_tls(corral: Corral, tmp_path: Path) -> None:
    """Is closed, and holds up nobody; a place for operators has TLS only if it is to."""
    authority = Authority(tmp_path)
    stage = await corral(simulated(), tls=tls(authority.pair("own")), admin={"listen": "127.0.0.1:0"})
    public, admin = map(str, stage.gateway.listeners)
    for said in (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", b"\x16\x03\x01", b""):
        async with Connection.to(public.replace("https", "http")) as client:
            client._writer.write(said)
            client._writer.write_eof()
            await client.ended()
    assert (await ask(public, "GET", "/healthz", tls=authority.client())).status == 200
    assert admin.startswith("http://")
    assert (await ask(admin, "GET", "/metrics")).status == 200


async def test_a_start_with_a_pair_that_is_none(tmp_path: Path) -> None:
    """Fails, and says which."""
    authority = Authority(tmp_path)
    one, other = authority.pair("one"), authority.pair("other")
    made = config([("gpu1", "http://127.0.0.1:1")], tls={"cert": one.cert, "key": other.key})
    with pytest.raises(ConfigError, match=r"^tls\.cert = .*: the key is not that of the certificate$"):
        Gateway(made)
