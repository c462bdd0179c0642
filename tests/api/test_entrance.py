"""By which way requests come in: their clients' addresses, and what they may, with proxies that are trusted and with others."""

import dataclasses
import json
from pathlib import Path

import pytest

from gateway.access.keys import digest, make
from gateway.keyconfig import KeyConfig
from tests.builders import call, simulated
from tests.conftest import Corral
from tests.contract.raw import ask
from tests.stage import Stage

FORWARDED = {"X-Forwarded-For": "127.0.0.1, 203.0.113.5"}
ALICE = make(lambda size: b"\2" * size)


async def client_of(stage: Stage, url: str, **headers: str) -> str:
    """As the record of a generation has it."""
    before = len(stage.records)
    sent = call("/api/generate", tokens=2)
    assert (await ask(url, "POST", sent.path, sent.body, headers)).status == 200
    return (await stage.records.until(before + 1))[-1].client


async def may_manage(url: str, **headers: str) -> bool:
    """Whether such a caller may do what only those on this machine may without a key."""
    status = (await ask(url, "POST", "/api/hosts/gpu1/resume", None, headers)).status
    assert status in (200, 401)
    return status == 200


async def test_a_proxy_that_is_trusted(corral: Corral, tmp_path: Path) -> None:
    """Its word counts, on sockets of both kinds: for the record, for the log of visits, and for what its clients may: not what this machine's may."""
    trusted = {"trusted_proxies": ("127.0.0.0/8", "unix")}
    log = {"path": str(tmp_path / "visits.log"), "access": True}
    stage = await corral(simulated(), listen=f"127.0.0.1:0, unix:{tmp_path}/a.sock", http=trusted, log=log)
    stage.log = tmp_path / "visits.log"
    for one in stage.gateway.listeners:
        url = str(one)
        assert await client_of(stage, url, **FORWARDED) == "203.0.113.5"
        assert await client_of(stage, url) == ("unix" if url.startswith("unix") else "127.0.0.1")
        assert (await may_manage(url), await may_manage(url, **FORWARDED)) == (True, False)
    await stage.finish()  # then all is written
    visits = [json.loads(line) for line in stage.log.read_text(encoding="utf-8").splitlines()]
    clients = [line["client"] for line in visits if line["event"] == "access" and "resume" in line["path"]]
    assert clients == ["127.0.0.1", "203.0.113.5", "unix", "203.0.113.5"]


@pytest.mark.parametrize("header", ["X-Forwarded-For", "Forwarded", "X-Real-IP"])
async def test_a_proxy_that_is_not(corral: Corral, header: str) -> None:
    """Its word does not count; but that somebody came through it does: what strangers may is what others may."""
    stage = await corral(simulated())
    said = {header: "203.0.113.5"}
    assert await client_of(stage, stage.url, **said) == "127.0.0.1"
    assert (await may_manage(stage.url), await may_manage(stage.url, **said)) == (True, False)
    unload = b'{"model": "smollm2:135m", "keep_alive": 0}'
    assert (await ask(stage.url, "POST", "/api/generate", unload, said)).status == 401
    assert (await ask(stage.url, "POST", "/api/generate", unload)).status == 200


async def test_nobody_becomes_of_this_machine(corral: Corral) -> None:
    """Whatever a client, or a proxy that is trusted, writes of loopback."""
    stage = await corral(simulated(), http={"trusted_proxies": ("127.0.0.1",)})
    for said in ("127.0.0.1", "::1", "localhost", "unix", "127.0.0.1, 127.0.0.1", ""):
        assert not await may_manage(stage.url, **{"X-Forwarded-For": said})
    assert not await may_manage(stage.url, Forwarded="for=127.0.0.1")


async def test_by_the_slow_way_too(corral: Corral) -> None:
    """Through aiohttp's router (an Origin), and with a key before the path."""
    keys = (KeyConfig("alice", digest(ALICE)),)
    trusted = {"trusted_proxies": ("127.0.0.1",)}
    stage = await corral(simulated(), keys=keys, http=trusted, access={"key_in_path": True, "anonymous": "full"})
    assert await client_of(stage, stage.url, Origin="http://localhost", **FORWARDED) == "203.0.113.5"
    assert await client_of(stage, f"{stage.url}", **FORWARDED, Expect="") == "203.0.113.5"
    sent = call("/api/generate", tokens=2)
    assert (await ask(stage.url, "POST", f"/k/{ALICE}{sent.path}", sent.body, FORWARDED)).status == 200
    last = (await stage.records.until(3))[-1]
    assert (last.client, last.principal) == ("203.0.113.5", "alice")


async def test_proxies_of_a_changed_configuration(corral: Corral) -> None:
    """Count from then on."""
    stage = await corral(simulated())
    assert await client_of(stage, stage.url, **FORWARDED) == "127.0.0.1"
    config = stage.gateway.config
    http = dataclasses.replace(config.http, trusted_proxies=("127.0.0.1",))
    stage.gateway._reconfigure(dataclasses.replace(config, http=http))
    assert await client_of(stage, stage.url, **FORWARDED) == "203.0.113.5"


async def test_a_long_word(corral: Corral) -> None:
    """As long as a header may be."""
    stage = await corral(simulated(), http={"trusted_proxies": ("127.0.0.1",)})
    said = ", ".join(["1.1.1.1"] * 600 + ["203.0.113.5"])
    assert await client_of(stage, stage.url, **{"X-Forwarded-For": said}) == "203.0.113.5"
