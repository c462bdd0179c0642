"""A session that is deleted while something runs in it: that ends, and what was said can be read nowhere any more."""

import contextlib
import json

from tests.builders import call, simulated
from tests.conftest import Corral
from tests.contract.raw import Answer, ask
from tests.flows.detaching import detach, read, reading, rest_of
from tests.stage import Stage
from tests.turns.talking import Talk

LONG = {"options": {"num_predict": 1000}}


async def deleted(talk: Talk) -> dict[str, object]:
    """What the delete answers."""
    answer = await ask(talk.stage.url, "DELETE", talk.path)
    assert answer.status == 200, answer.body
    told: dict[str, object] = json.loads(answer.body)
    return told


async def gone(stage: Stage, id_: str) -> Answer:
    """A generation's stream, which is not there."""
    answer = await read(stage, id_)
    assert answer.status in (404, 410), answer
    return answer


async def test_all_that_runs_in_it_ends(corral: Corral, url: str) -> None:
    """A turn, a plain chat that names it, and one that waits; not what runs elsewhere. Who reads is told so, once."""
    host = simulated(parallel=2, tokens_per_second=5.0)
    stage = await corral(host, slots=2, database={"url": url})
    talk, other = await Talk.new(stage), await Talk.new(stage)
    async with contextlib.AsyncExitStack() as clients:
        turn = await clients.enter_async_context(talk.saying("Why?", **LONG))
        id_ = str((await turn.head()).get("X-Corral-Generation"))
        plain = await clients.enter_async_context(stage.begun(call("/api/chat", tokens=1000), talk.id))
        await plain.head()
        waits = await detach(stage, call("/api/generate", tokens=1000), talk.id)
        stays = await detach(stage, call("/api/generate", tokens=1), other.id)
        async with reading(stage, id_) as follower:
            await follower.head()
            assert await deleted(talk) == {"id": talk.id, "deleted": True, "cancelled": 3, "elsewhere": 0}
            for client in (turn, plain, follower):
                assert b'"done_reason":"cancelled"' in await rest_of(client)
    assert (await read(stage, stays)).status == 200
    records = {record.id: record for record in await stage.records.until(4)}
    assert {record.reason for record in records.values() if record.session == talk.id} == {"its session was deleted"}
    for each in (id_, waits):
        await gone(stage, each)
    kept = (await stage.get("/api/generations?kept=true"))["generations"]
    assert [row["id"] for row in kept] == [stays]
    await stage.gateway.talking.chats.busy.idle()
    assert stage.gateway.detached.shelf.size == stage.gateway.detached.shelf.get(stays).size  # type: ignore[union-attr]
    assert (await ask(stage.url, "DELETE", talk.path)).status == 404


async def test_restored(corral: Corral, url: str) -> None:
    """What runs ends as well; as far as it came it is there again, and the session can be spoken to."""
    stage = await corral(simulated(tokens_per_second=20.0), database={"url": url})
    talk = await Talk.new(stage)
    async with talk.saying("Why?", **LONG) as client:
        id_ = str((await client.head()).get("X-Corral-Generation"))
        await stage.row(talk.id, "streaming")
        assert (await ask(stage.url, "DELETE", f"{talk.path}?restorable_seconds=60")).status == 200
        assert b'"done_reason":"cancelled"' in await rest_of(client)
    await gone(stage, id_)
    await stage.gateway.talking.chats.busy.idle()
    assert (await ask(stage.url, "POST", f"{talk.path}/restore")).status == 200
    question, answer = await talk.messages()
    assert (question["content"], answer["state"]) == ("Why?", "stopped")
    assert answer["content"]
    assert (await ask(stage.url, "GET", talk.path)).status == 200


async def test_what_was_answered_is_forgotten(corral: Corral, url: str) -> None:
    """The answer of a turn can be read for a while, but not once its session is gone; who reads it just then may finish."""
    stage = await corral(simulated(), database={"url": url})
    talk = await Talk.new(stage)
    answer = await talk.say("Why?", options={"num_predict": 3})
    await talk.free()
    id_ = str(answer.get("X-Corral-Generation"))
    assert (await read(stage, id_)).body == answer.body
    shelf = stage.gateway.detached.shelf
    kept = shelf.get(id_)
    assert kept is not None
    with kept.reader() as reader:
        assert (await deleted(talk))["cancelled"] == 0
        await gone(stage, id_)
        batch = await anext(reader)
        assert b"".join(batch.chunks) == answer.body
    assert (shelf.size, len(shelf)) == (0, 0)


async def test_a_turn_that_is_about_to_begin(corral: Corral, url: str) -> None:
    """It finds its session gone, or ends with it; nothing is left either way."""
    host = simulated(tokens_per_second=5.0)
    stage = await corral(host, database={"url": url})
    for _ in range(20):
        talk = await Talk.new(stage)
        async with talk.saying("Why?", **LONG) as client:
            await deleted(talk)
            answer = await client.answer()
            cancelled = b'"done_reason":"cancelled"' in answer.body
            assert (answer.status, cancelled) in ((404, False), (499, False), (200, True)), answer
        await stage.gateway.talking.chats.busy.idle()
    await stage.gateway.idle()
