"""Answers as they are written: the database may be away, slow or gone while a model speaks."""

import asyncio
import json
import signal
from pathlib import Path
from typing import Any

import pytest

from gateway.messages import Ending, MessageState
from gateway.turns import writer as module
from gateway.turns.writer import Place
from tests.builders import simulated
from tests.conftest import Corral
from tests.contract.raw import ask
from tests.flows.detaching import rest_of
from tests.processes import corral as process
from tests.sockets import until
from tests.store.postgres import Postgres
from tests.turns.talking import Talk, text_of


async def checkpointed(talk: Talk) -> str:
    """What is kept of an answer that goes on, once anything is."""
    while not (content := (await talk.messages())[-1]["content"]):
        pass
    return str(content)


async def test_as_far_as_it_is(corral: Corral, url: str) -> None:
    """About once a second, also while the model is silent; then it goes on."""
    host = simulated()
    host.faults.set("hang_mid_stream", after_chunks=3)
    talk = await Talk.new(await corral(host, database={"url": url}))
    async with talk.saying("Why?", options={"num_predict": 9}) as client:
        await client.head()
        part = await checkpointed(talk)
        row = (await talk.messages())[-1]
        assert (row["state"], row["usage"]) == ("streaming", None)
        host.faults.clear()
        await rest_of(client)
    whole = (await talk.free())[-1]["content"]
    assert whole.startswith(part)
    assert len(whole) > len(part)


@pytest.mark.parametrize("kind", ["postgresql"], indirect=True)
async def test_the_database_goes_away(corral: Corral, url: str, postgres: Postgres) -> None:
    """The stream does not notice; its end is kept as soon as it can be, and the session is free then."""
    host = simulated()
    host.faults.set("hang_mid_stream", after_chunks=3)
    stage = await corral(host, database={"url": url})
    talk = await Talk.new(stage)
    async with talk.saying("Why?", options={"num_predict": 9}) as client:
        await client.head()
        await checkpointed(talk)
        postgres.stop(signal.SIGINT)  # as it crashes here, it forgets what it had just taken in
        host.faults.clear()
        body = await rest_of(client)
    assert b'"done":true' in body
    await stage.gateway.talking.chats.busy.idle()
    assert (await talk.say("more")).status == 503
    database, writer = stage.gateway.database, stage.gateway.talking.chats.writer
    assert repr(writer) in ("<Writer [1 waiting]>", "<Writer [2 waiting]>")
    postgres.start()
    await until(lambda: database and database.up and not writer._waiting, 30.0)
    answer = (await talk.free())[-1]
    assert (answer["state"], answer["content"]) == ("done", text_of(body))


@pytest.mark.parametrize("kind", ["postgresql"], indirect=True)
async def test_more_than_can_wait(
    corral: Corral, url: str, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is too much stays as it was last written; the session is free all the same."""
    monkeypatch.setattr(module, "WAITING_CHARACTERS", 5)
    monkeypatch.setattr(module, "WAITING_MOST", 2)
    host = simulated()
    host.faults.set("hang_mid_stream", after_chunks=3)
    stage = await corral(host, database={"url": url})
    talk = await Talk.new(stage)
    writer, database = stage.gateway.talking.chats.writer, stage.gateway.database
    async with talk.saying("Why?", options={"num_predict": 9}) as client:
        await client.head()
        part = await checkpointed(talk)
        postgres.stop(signal.SIGINT)  # as it crashes here, it forgets what it had just taken in
        for number in range(3):
            await writer.end(Place("", f"s{number}", "g", 1), Ending(state=MessageState.DONE, content="b"))
        assert len(writer._waiting) == 2
        writer._waiting.popleft()
        host.faults.clear()
        await rest_of(client)
    await stage.gateway.talking.chats.busy.idle()
    postgres.start()
    await until(lambda: database and database.up and not writer._waiting, 30.0)
    answer = (await talk.free())[-1]
    assert (answer["state"], answer["content"], answer["error"]) == ("error", part, module.UNKEPT)


async def test_a_session_that_vanishes_meanwhile(corral: Corral, url: str) -> None:
    """Deleted by a gateway that could tell nobody: the next checkpoint finds it gone, and the answer ends."""
    host = simulated(tokens_per_second=100.0)
    host.faults.set("hang_mid_stream", after_chunks=3)
    stage = await corral(host, database={"url": url})
    talk = await Talk.new(stage)
    async with talk.saying("Why?", options={"num_predict": 1000}) as client:
        await client.head()
        await checkpointed(talk)
        await stage.gateway.sessions.sessions.delete("", talk.id)
        host.faults.clear()
        assert b'"done_reason":"cancelled"' in await rest_of(client)
    (record,) = await stage.records.until(1)
    assert (record.cancelled_by, record.reason) == ("api", "its session was deleted")
    await stage.gateway.talking.chats.busy.idle()


class Address:
    """A gateway of which nothing is known but where it listens."""

    def __init__(self, url: str) -> None:
        self.url = url

    async def get(self, path: str) -> Any:
        """The JSON that a GET answers."""
        return json.loads((await ask(self.url, "GET", path)).body)


async def settled(talk: Talk) -> list[dict[str, Any]]:
    """The messages, once nobody writes to the session any more."""
    async with asyncio.timeout(20.0):
        while (await talk.session())["running"] is not None:
            pass
    return await talk.messages()


async def test_killed_in_the_middle(url: str, tmp_path: Path) -> None:
    """A gateway that dies in the middle of a stream: the next one shows what there was, marked as broken off; nothing else is lost."""
    async with simulated() as host:
        arguments = ("serve", "--listen", "127.0.0.1:0", "--host", f"gpu1={host.url}")
        async with process(tmp_path, *arguments, CORRAL_DATABASE_URL=url) as first:
            talk = await Talk.new(Address(await first.listens()))
            assert (await talk.say("q0", options={"num_predict": 3})).status == 200
            (_, before) = await settled(talk)
            host.faults.set("hang_mid_stream", after_chunks=3)
            async with talk.saying("q1") as client:
                await client.head()
                part = await checkpointed(talk)
                first.signal(signal.SIGKILL)
                await first.gone()
        host.faults.clear()
        async with process(tmp_path, *arguments, CORRAL_DATABASE_URL=url) as second:
            talk.stage = Address(await second.listens())
            rows = await settled(talk)
            assert [(row["content"], row["state"]) for row in rows[::2]] == [("q0", "done"), ("q1", "done")]
            assert (rows[1]["content"], rows[1]["state"]) == (before["content"], "done")
            assert (rows[3]["content"], rows[3]["state"]) == (part, "error")
            assert "broken off" in rows[3]["error"]
            assert (await talk.say(options={"num_predict": 3})).status == 200
            assert (await settled(talk))[-1]["siblings"] == [3, 4]
