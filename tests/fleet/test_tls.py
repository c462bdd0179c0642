"""Hosts behind proxies of their own: TLS, a CA, a certificate of ours and headers, for requests and for polls alike."""

import asyncio
import json
import ssl
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import ConfigError
from gateway.fleet.host import Link
from gateway.fleet.tls import Contexts
from tests.builders import TEXT, call, simulated
from tests.conftest import Corral
from tests.contract.raw import ask
from tests.fleet.mount import Hanging
from tests.stage import SECONDS, Stage
from tests.tls import Authority, Front

SECRET = "Bearer of-the-host"


async def generated(stage: Stage, **headers: str) -> int:
    """The status of a generation."""
    return (await stage.ask(call("/api/generate", tokens=3, headers=headers))).status


async def why(stage: Stage) -> tuple[str, str]:
    """The health of the only host, and the reason."""
    (row,) = (await stage.get("/api/models/servers"))["servers"]
    return row["health"], row["why"]


@pytest.mark.every_loop
async def test_a_host_by_tls(corral: Corral, tmp_path: Path) -> None:
    """It is polled, relayed to and managed over connections that its CA vouches for, with our certificate."""
    authority = Authority(tmp_path)
    ours = authority.pair("ours")
    front = Front(simulated(), authority.pair("host"), wants=authority.ca)
    link = {"ca": authority.ca, "cert": ours.cert, "key": ours.key}
    stage = await corral(front, links={"gpu1": link})
    assert await why(stage) == ("healthy", "")
    assert await generated(stage) == 200
    pulled = await ask(stage.url, "POST", "/api/pull", json.dumps({"model": TEXT, "stream": False}).encode())
    assert pulled.status == 200


async def test_who_leaves_a_host_by_tls(corral: Corral, tmp_path: Path) -> None:
    """The host stops, as without TLS."""
    authority = Authority(tmp_path)
    front = Front(simulated(tokens_per_second=20.0), authority.pair("host"))
    stage = await corral(front, links={"gpu1": {"ca": authority.ca}})
    async with stage.begun(call("/api/generate", tokens=1000), session="gone") as client:
        await stage.row("gone", "streaming")
        await client.close()
        record = await stage.records.of("gone")
    assert record.cancelled_by == "client_disconnect"
    await front.ledger.wait_until(lambda: front.ledger.in_flight == 0, SECONDS)


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "unknown CA": ({}, "its certificate is not trusted: unable to get local issuer certificate"),
    "another name": (
        {"ca": True, "server_name": "gpu1.example"},
        "its certificate is not trusted: Hostname mismatch, certificate is not valid for 'gpu1.example'.",
    ),
    "no certificate of ours": ({"ca": True}, "closed the connection"),
}


@pytest.mark.parametrize(("link", "words"), BAD.values(), ids=BAD)
async def test_a_certificate_that_is_not_good(corral: Corral, tmp_path: Path, link: dict[str, Any], words: str) -> None:
    """Is told as such where the host's health is; requests are refused and say it too."""
    authority = Authority(tmp_path)
    wants = authority.ca if link == {"ca": True} else ""
    front = Front(simulated(), authority.pair("host"), wants)
    stage = await corral(front, links={"gpu1": link | ({"ca": authority.ca} if "ca" in link else {})})
    health, reason = await why(stage)
    assert health in ("ejected", "suspect")
    assert words in reason
    answer = await stage.ask(call("/api/generate"))
    assert answer.status in (502, 503)
    assert words in answer.body.decode()


async def test_a_host_that_nobody_vouches_for(corral: Corral, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Is used if one insists, whatever name its certificate has; the log warns of it."""
    front = Front(simulated(), Authority(tmp_path).pair("host", "elsewhere.example"))
    stage = await corral(front, links={"gpu1": {"insecure_skip_verify": True}})
    assert "anybody on the way can pose as gpu1: insecure_skip_verify" in caplog.messages
    assert await generated(stage) == 200


async def test_a_name_that_is_not_in_the_url(corral: Corral, tmp_path: Path) -> None:
    """The certificate is that of server_name."""
    authority = Authority(tmp_path)
    front = Front(simulated(), authority.pair("host", "gpu1.example"))
    stage = await corral(front, links={"gpu1": {"ca": authority.ca, "server_name": "gpu1.example"}})
    assert await why(stage) == ("healthy", "")
    assert await generated(stage) == 200


async def test_headers_of_a_host(corral: Corral, tmp_path: Path) -> None:
    """They are in every request to it, in place of a caller's, and nowhere else."""
    authority = Authority(tmp_path)
    front = Front(simulated(), authority.pair("host"))
    headers = {"Authorization": SECRET, "X-Team": "ml"}
    stage = await corral(front, links={"gpu1": {"ca": authority.ca, "headers": headers}})
    theirs = {"Authorization": "Bearer of-the-caller", "x-team": "another", "X-Other": "passes"}
    assert await generated(stage, **theirs) == 200
    pulled = await ask(stage.url, "POST", "/api/pull", json.dumps({"model": TEXT, "stream": False}).encode(), theirs)
    assert pulled.status == 200
    heads = [part for part in bytes(front.heard).split(b"\r\n\r\n") if b" HTTP/1.1\r\n" in part]
    assert len(heads) >= 5
    for head in heads:
        lines = head.lower().split(b"\r\n")
        assert [line for line in lines if line.startswith((b"authorization", b"x-team"))] == [
            b"authorization: bearer of-the-host",
            b"x-team: ml",
        ]
    assert any(b"X-Other: passes" in head for head in heads)
    told = [(await stage.operate("GET", path)).body for path in ("/api/models/servers", "/api/fleet", "/metrics")]
    stage.gateway.log.flush()
    told += [stage.log.read_bytes(), repr(stage.gateway.config).encode(), repr(stage.gateway.fleet.hosts).encode()]
    assert [text for text in told if b"of-the-host" in text] == []


async def test_headers_that_change_while_it_runs(corral: Corral) -> None:
    """Connections and requests are those of the new configuration from then on."""
    host = simulated()
    stage = await corral(host)
    (before,) = stage.gateway.fleet.hosts
    assert await generated(stage) == 200
    idle = stage.gateway.connections.idle("gpu1")
    assert idle is not None
    idle.abort()
    stage.gateway._configure((type(before)(before.name, before.url, link=Link(headers=(("X-Team", "ml"),))),))
    assert stage.gateway.connections.idle("gpu1") is None
    origin = stage.gateway.connections.origin("gpu1")
    assert origin.headers is not None
    assert origin.headers.among(b"X-Team: a\r\nAccept: b\r\n") == b"Accept: b\r\nX-Team: ml\r\n"
    assert await generated(stage) == 200


async def looked(contexts: Contexts, link: Link) -> ssl.SSLContext:
    """What connections are made with once the files were looked at anew."""
    for _ in range(2):  # one may have been under way
        await contexts.of(link)
        way = contexts._ways[link.ca, link.cert, link.key, link.verify]
        assert way._looking is not None
        await asyncio.wait_for(asyncio.wrap_future(way._looking), SECONDS)
    assert way.context is not None
    return way.context


async def test_files_that_change(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A new certificate counts soon; one that cannot be used is logged once, and the old one stays."""
    authority = Authority(tmp_path)
    pair = authority.pair("ours")
    link = Link(authority.ca, pair.cert, pair.key)
    contexts = Contexts()
    first = await contexts.of(link)
    assert await looked(contexts, link) is first
    authority.pair("ours")
    second = await looked(contexts, link)
    assert second is not first
    Path(pair.cert).write_text("broken", encoding="utf-8")  # noqa: ASYNC240 - a few bytes
    assert await looked(contexts, link) is second
    assert await looked(contexts, link) is second
    assert [record.getMessage() for record in caplog.records] == [
        f"certificates of a host stay as they were: cert = {pair.cert!r} and {pair.key!r}: are no certificate and its key in PEM form"
    ]
    with pytest.raises(ConfigError, match="No such file or directory"):
        await contexts.of(Link("/away.pem"))


async def test_a_mount_that_does_not_answer(corral: Corral, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Holds up nobody, not even requests to that host, which goes on with what was read before."""
    authority = Authority(tmp_path)
    front = Front(simulated(), authority.pair("host"))
    stage = await corral(front, links={"gpu1": {"ca": authority.ca}})
    mount = Hanging(monkeypatch, authority.ca)
    await stage.polled("gpu1")
    assert await asyncio.to_thread(mount.asked.acquire, timeout=SECONDS)
    async with asyncio.timeout(SECONDS / 2):
        await stage.polled("gpu1")
        assert await generated(stage) == 200
        assert await why(stage) == ("healthy", "")
    assert not mount.asked.acquire(blocking=False), "asked once at a time"
    mount.answers.set()


async def test_a_mount_that_has_never_answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Is told as what is in the way of that host."""
    ca = Authority(tmp_path).ca
    mount = Hanging(monkeypatch, ca)
    contexts = Contexts()
    with pytest.raises(ConfigError, match=r"ca\.pem: not read within 2 s"):
        await contexts.of(Link(ca))
    mount.answers.set()
    assert await contexts.of(Link(ca))
