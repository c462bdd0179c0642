"""Titles of sessions: asked for, or made by themselves, never before anybody who waits."""

import asyncio
import json

import pytest

from gateway.errors import HostsFailed
from gateway.turns import titles as module
from gateway.turns.titles import LONGEST, title_of
from tests.builders import OTHER, TEXT, call, simulated
from tests.conftest import Corral
from tests.contract.raw import Answer, ask
from tests.sockets import until
from tests.stage import Client, Stage
from tests.turns.talking import Talk

SHORT = {"options": {"num_predict": 3}}


async def entitled(talk: Talk) -> str:
    """The title, once there is one."""
    while not (title := (await talk.session())["title"]):
        pass
    return str(title)


async def titled(talk: Talk, body: bytes = b"{}") -> Answer:
    """What is answered to who asks for a title."""
    return await ask(talk.stage.url, "POST", f"{talk.path}/title", body)


async def test_asked_for(corral: Corral, url: str) -> None:
    """By the session's model or another; the session has it then."""
    stage = await corral(simulated(), database={"url": url})
    talk = await Talk.new(stage)
    assert "say something first" in json.loads((await titled(talk)).body)["error"]
    await talk.say("Why?", **SHORT)
    await talk.free()
    answer = await titled(talk)
    told = json.loads(answer.body)
    assert answer.status == 200, told
    assert 0 < len(told["title"]) <= LONGEST
    assert await talk.session() == told
    assert (await titled(talk, json.dumps({"model": OTHER}).encode())).status == 200
    records = await stage.records.until(3)
    assert [record.model for record in records] == [TEXT, TEXT, OTHER]
    assert len(await talk.free()) == 2


async def test_what_is_refused(corral: Corral, url: str) -> None:
    """Sessions and models that are not there, and none named at all."""
    stage = await corral(simulated(), database={"url": url})
    talk = await Talk.new(stage, model=None)
    assert (await titled(talk)).status == 400
    await talk.say("Why?", model=TEXT, **SHORT)
    await talk.free()
    assert (await titled(talk, b'{"model": "nobody"}')).status == 404
    stage["gpu1"].faults.set("reset_mid_stream")
    assert (await titled(talk, json.dumps({"model": TEXT}).encode())).status == 502
    talk.path = "/api/sessions/nobody"
    assert (await titled(talk)).status == 404


async def test_by_itself(corral: Corral, url: str) -> None:
    """After the first answer, of a turn or of a plain chat; a title that somebody gave stays."""
    stage = await corral(simulated(), database={"url": url}, sessions={"title_model": OTHER})
    talk, plain, named = await Talk.new(stage), await Talk.new(stage), await Talk.new(stage, title="Mine")
    assert repr(stage.gateway.talking.titles) == "<Titles [0 waiting]>"
    for one in (named, talk):
        assert (await one.say("Why?", **SHORT)).status == 200
    request = call("/api/chat", headers={"X-Corral-Session": plain.id})
    assert (await stage.ask(request)).status == 200
    async with asyncio.timeout(10.0):
        assert await entitled(talk)
        assert await entitled(plain)
    await until(lambda: not stage.gateway.talking.titles._running)
    assert (await named.session())["title"] == "Mine"
    records = await stage.records.until(5)
    assert sorted(record.model for record in records) == sorted([TEXT, TEXT, TEXT, OTHER, OTHER])


async def test_nobody_waits_for_a_title(corral: Corral, url: str) -> None:
    """Who came later goes first; who asked for it and leaves stops it."""
    host = simulated(tokens_per_second=200.0)
    stage = await corral(host, database={"url": url})
    talk = await Talk.new(stage)
    await talk.say("Why?", **SHORT)
    await talk.free()
    host.faults.set("hang_before_headers")
    async with stage.begun(call("/api/chat"), "holder"), Client.to(stage.url) as first:
        await stage.row("holder", "prefill")
        await first.send("POST", f"{talk.path}/title", b"{}")
        await stage.row(talk.id, "queued")
        async with stage.begun(call("/api/chat"), "later") as later:
            await stage.row("later", "queued")
            host.faults.clear()
            assert (await later.answer()).status == 200
            assert (await first.answer()).status == 200
    order = [record.session for record in await stage.records.until(4)]
    assert order == [talk.id, "holder", "later", talk.id]
    host.faults.set("hang_before_headers")
    async with Client.to(stage.url) as leaving:
        await leaving.send("POST", f"{talk.path}/title", b"{}")
        await stage.row(talk.id, "prefill")
        await leaving.leave("reset")
        assert (await stage.records.until(5))[-1].cancelled_by == "client_disconnect"
    host.faults.clear()


async def test_no_patience(corral: Corral, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that takes too long is left; the next answer is another chance. Nor do too many wait."""
    monkeypatch.setattr(module, "PATIENCE_SECONDS", 0.1)
    monkeypatch.setattr(module, "WAITING_MOST", 1)
    stage: Stage = await corral(
        simulated("gpu1", TEXT), simulated("gpu2", OTHER), database={"url": url}, sessions={"title_model": OTHER}
    )
    talk = await Talk.new(stage)
    stage["gpu2"].faults.set("hang_before_headers")
    await talk.say("Why?", **SHORT)
    records = await stage.records.until(2)
    assert records[1].cancelled_by == "timeout"
    stage["gpu2"].faults.clear()
    titles = stage.gateway.talking.titles
    for session in ("a", "a", "b"):
        titles.answered("", session)
    assert repr(titles) == "<Titles [1 waiting]>"
    await until(lambda: not titles._running)
    await talk.say("And?", **SHORT)
    async with asyncio.timeout(10.0):
        assert await entitled(talk)


@pytest.mark.parametrize(
    ("said", "title"),
    [
        ("Why the sky is blue", "Why the sky is blue"),
        ('<think>hm\nhm</think>\n\n**Title: "The  Sky"**\nmore', "The Sky"),
        ("# Небо.\n", "Небо"),
        ("«Почему небо синее»", "Почему небо синее"),
        ("a" * 1000, "a" * LONGEST),
    ],
)
def test_what_models_say(said: str, title: str) -> None:
    """Marks, labels and thoughts are no title."""
    assert title_of(said) == title


@pytest.mark.parametrize("said", ["", "<think>and so on", '""\n', "Title:"])
def test_no_title(said: str) -> None:
    """Then there is none."""
    with pytest.raises(HostsFailed):
        title_of(said)
