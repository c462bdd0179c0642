"""Turns on both kinds of database: what is said, the answer as it grows, its end, and what becomes of it in a crash."""

import asyncio
import random
import time
from pathlib import Path

import pytest
from sqlalchemy import insert

from gateway.config import DatabaseConfig
from gateway.errors import BadRequest, Conflict, NotFound, TooLarge
from gateway.messages import (
    CONTENT_MOST,
    CONVERSATION,
    MESSAGES_MOST,
    SESSION_MOST,
    Ending,
    MessageState,
    MessageUsage,
    NewMessage,
    NewSession,
    Role,
    Timings,
)
from gateway.store.engine import Database
from gateway.store.schema import messages, replicas, sessions
from gateway.store.session_store import SessionStore
from gateway.store.turns import ABSENT_SECONDS, BROKEN_OFF, CUT, Answering
from tests.processes import python
from tests.store.builders import ME, begun, contents, new_session, store_of, turn

TIMINGS = Timings(queue_seconds=0.5, ttft_seconds=1.25, total_seconds=3.0, load_seconds=0.25, decode_seconds=1.5)
ENDING = Ending(
    state=MessageState.DONE,
    content="Rayleigh scattering.",
    thinking="Light, then.",
    tool_calls=[{"function": {"name": "look", "arguments": {"where": "up"}}}],
    host="gpu1",
    usage=MessageUsage(input_tokens=7, output_tokens=3),
    timings=TIMINGS,
)


async def test_a_turn(database: Database) -> None:
    """Question and answer are there from the beginning; the end brings all that is known."""
    store = store_of(database)
    session = await new_session(store)
    question = NewMessage(content="Why is the sky blue?", images=["aGVsbG8="])
    made = await store.turns.begin_turn(
        ME, session.id, generation="g1", replica="r1", said=[question], model="llama3.2:1b"
    )
    assert (made.asked, made.parent, made.answer) == ((0,), 0, 1)
    assert (made.session.running, made.session.leaf, made.session.messages) == ("g1", 1, 2)
    asked, answer = await store.messages.history(ME, session.id)
    assert (asked.role, asked.content, asked.images, asked.state) == (
        Role.USER,
        "Why is the sky blue?",
        ["aGVsbG8="],
        MessageState.DONE,
    )
    assert (answer.role, answer.content, answer.state, answer.parent) == (Role.ASSISTANT, "", MessageState.STREAMING, 0)
    assert await store.turns.checkpoint(ME, session.id, 1, "g1", content="Rayl", thinking="Light")
    partial = (await store.messages.history(ME, session.id))[-1]
    assert (partial.content, partial.thinking, partial.state) == ("Rayl", "Light", MessageState.STREAMING)
    assert await store.turns.finish_turn(ME, session.id, 1, "g1", ENDING)
    answer = (await store.messages.history(ME, session.id))[-1]
    assert (answer.content, answer.thinking, answer.state) == (ENDING.content, ENDING.thinking, MessageState.DONE)
    assert (answer.tool_calls, answer.model, answer.host) == (ENDING.tool_calls, "llama3.2:1b", "gpu1")
    assert (answer.usage, answer.timings, answer.generation) == (ENDING.usage, TIMINGS, "g1")
    ended = await store.sessions.get(ME, session.id)
    assert (ended.running, ended.leaf) == (None, 1)
    assert ended.updated_at > session.updated_at


async def test_one_turn_at_a_time(database: Database) -> None:
    """Who comes second is told who is there, and nothing of theirs is kept."""
    store = store_of(database)
    id_ = (await new_session(store)).id
    await begun(store, id_, "first")
    with pytest.raises(Conflict, match="by generation g1"):
        await begun(store, id_, "second", generation="g2")
    assert await contents(store, id_) == ["first", ""]


async def test_two_at_once(database: Database, url: str) -> None:
    """Of many that begin at the same moment, through two connections to the database, one does."""
    other = Database(DatabaseConfig(url), time.monotonic)
    await other.start(30.0)
    store, second = store_of(database), store_of(other)
    id_ = (await new_session(store)).id
    tries = [begun((store, second)[n % 2], id_, f"q{n}", generation=f"g{n}") for n in range(12)]
    ended = await asyncio.gather(*tries, return_exceptions=True)
    refused = [error for error in ended if isinstance(error, Conflict)]
    assert len(refused) == 11, ended
    session = await store.sessions.get(ME, id_)
    assert session.messages == 2
    assert f"q{str(session.running)[1:]}" == (await contents(store, id_))[0]
    await other.close()


async def test_many_sessions_at_once(database: Database) -> None:
    """Each has its own numbers, without a gap."""
    store = store_of(database)
    ids = [(await new_session(store)).id for _ in range(8)]

    async def talk(id_: str) -> None:
        for number in range(4):
            await turn(store, id_, f"q{number}", f"a{number}")

    await asyncio.gather(*map(talk, ids))
    for id_ in ids:
        history = await store.messages.history(ME, id_)
        assert [message.seq for message in history] == list(range(8))
        assert [message.content for message in history] == [f"{kind}{n}" for n in range(4) for kind in "qa"]


async def test_another_answer_makes_a_branch(database: Database) -> None:
    """Beside the first one, below the same question; then the new one is shown."""
    store = store_of(database)
    id_ = (await new_session(store)).id
    await turn(store, id_, "q", "a")
    again = await turn(store, id_, None, "b", parent=0)
    assert (again.asked, again.parent, again.answer) == ((), 0, 2)
    assert await contents(store, id_) == ["q", "b"]


@pytest.mark.parametrize(("parent", "expected"), [(None, ["x", "y"]), (1, ["q0", "a0", "x", "y"])])
async def test_another_question_makes_a_branch(database: Database, parent: int | None, expected: list[str]) -> None:
    """From where it is asked, which may be the very beginning; the old ones stay."""
    store = store_of(database)
    id_ = (await new_session(store)).id
    for number in range(2):
        await turn(store, id_, f"q{number}", f"a{number}")
    await turn(store, id_, "x", "y", parent=parent)
    assert await contents(store, id_) == expected
    old = await store.messages.history(ME, id_, leaf=3)
    assert [message.content for message in old] == ["q0", "a0", "q1", "a1"]


async def test_several_things_are_said(database: Database) -> None:
    """What two tools answer, say; in their order, then the answer. Nothing need be said."""
    store = store_of(database)
    id_ = (await new_session(store)).id
    said = [NewMessage(role=Role.TOOL, name=name, content=name) for name in ("look", "listen")]
    made = await store.turns.begin_turn(ME, id_, generation="g1", replica="r1", said=said)
    assert (made.asked, made.parent, made.answer) == ((0, 1), 1, 2)
    history = await store.messages.history(ME, id_)
    assert [(message.role, message.name, message.parent) for message in history] == [
        (Role.TOOL, "look", None),
        (Role.TOOL, "listen", 0),
        (Role.ASSISTANT, None, 1),
    ]
    empty = (await new_session(store)).id
    first = await begun(store, empty)
    assert (first.asked, first.parent, first.answer) == ((), None, 0)


async def test_what_cannot_begin(database: Database) -> None:
    """Clear errors, and nothing is kept of it."""
    store = store_of(database)
    id_ = (await new_session(store)).id
    with pytest.raises(NotFound, match="no session 'nobody'"):
        await begun(store, "nobody", "q")
    theirs = await new_session(store, owner="them")
    with pytest.raises(NotFound):
        await begun(store, theirs.id, "q")
    with pytest.raises(BadRequest, match="no message 5"):
        await begun(store, id_, "q", parent=5)
    session = await store.sessions.get(ME, id_)
    assert (session.messages, session.running, session.leaf) == (0, None, None)


@pytest.mark.parametrize("full", [{"next_seq": MESSAGES_MOST - 1}, {"size": SESSION_MOST}])
async def test_a_session_that_is_full(database: Database, full: dict[str, int]) -> None:
    """So many messages, or so much in them."""
    store = store_of(database)
    id_ = (await new_session(store)).id
    async with database.writing() as connection:
        await connection.execute(sessions.update().values(**full))
    with pytest.raises(TooLarge, match="Begin another one"):
        await begun(store, id_, "q")


async def test_what_is_said_counts(database: Database) -> None:
    """Contents, thinking, images and tool calls, of questions and answers."""
    store = store_of(database)
    id_ = (await new_session(store)).id
    await begun(store, id_, "12345")
    await store.turns.finish_turn(ME, id_, 1, "g1", Ending(state=MessageState.DONE, content="123", thinking="12"))
    async with database.reading() as connection:
        assert (await connection.execute(sessions.select())).one().size == 10


async def test_finishing_again(database: Database) -> None:
    """Nothing changes, whether or not the first time was known to work; a foreign generation finishes nothing."""
    store = store_of(database)
    id_ = (await new_session(store)).id
    await begun(store, id_, "q")
    assert not await store.turns.finish_turn(ME, id_, 1, "g2", ENDING)
    assert not await store.turns.finish_turn("them", id_, 1, "g1", ENDING)
    assert (await store.sessions.get(ME, id_)).running == "g1"
    assert await store.turns.finish_turn(ME, id_, 1, "g1", ENDING)
    other = Ending(state=MessageState.ERROR, content="other")
    assert not await store.turns.finish_turn(ME, id_, 1, "g1", other)
    assert await contents(store, id_) == ["q", ENDING.content]


async def test_an_answer_without_bounds(database: Database) -> None:
    """As much as fits is kept, and it says so."""
    store = store_of(database)
    id_ = (await new_session(store)).id
    await begun(store, id_, "q")
    long = Ending(state=MessageState.DONE, content="x" * (CONTENT_MOST + 1))
    assert await store.turns.finish_turn(ME, id_, 1, "g1", long)
    answer = (await store.messages.history(ME, id_))[-1]
    assert (len(answer.content), answer.error, answer.state) == (CONTENT_MOST, CUT, MessageState.DONE)


async def test_what_no_database_takes(database: Database) -> None:
    """NUL and halves of characters, from wherever they come."""
    store = store_of(database)
    bad = "a\x00b\ud800c"
    new = NewSession(title=bad, system=bad, options={bad: bad})
    id_ = (await store.sessions.create(ME, new)).id
    await begun(store, id_, bad)
    assert await store.turns.checkpoint(ME, id_, 1, "g1", content=bad, thinking=bad)
    ending = Ending(state=MessageState.ERROR, content=bad, thinking=bad, error=bad, tool_calls=[{bad: bad}])
    assert await store.turns.finish_turn(ME, id_, 1, "g1", ending)
    session, (question, answer) = await store.sessions.get(ME, id_), await store.messages.history(ME, id_)
    good = "a\ufffdb\ufffdc"
    assert [session.title, session.system, question.content, answer.content, answer.thinking, answer.error] == [
        good
    ] * 6
    assert (session.options, answer.tool_calls) == ({good: good}, [{good: good}])


async def test_deleted_while_it_is_answered(database: Database) -> None:
    """The turn finds it gone, and leaves nothing behind."""
    store = store_of(database)
    id_ = (await new_session(store)).id
    await begun(store, id_, "q")
    await store.sessions.delete(ME, id_)
    with pytest.raises(NotFound):
        await store.turns.checkpoint(ME, id_, 1, "g1", content="half")
    assert not await store.turns.finish_turn(ME, id_, 1, "g1", ENDING)
    async with database.reading() as connection:
        assert (await connection.execute(messages.select())).all() == []


async def test_gateways_that_are_there(database: Database) -> None:
    """Keep what they have begun; those that have not been seen for long lose it, but not what began only now."""
    store = store_of(database)
    there, gone, never, late = [(await new_session(store)).id for _ in range(4)]
    now, clock = time.time(), time.time() + 10.0
    async with database.writing() as connection:
        for name, seen in (("r1", now), ("r2", now - ABSENT_SECONDS - 1)):
            await connection.execute(insert(replicas).values(id=name, started_us=0, seen_us=int(seen * 1e6)))
    for number, (id_, replica) in enumerate([(there, "r1"), (gone, "r2"), (never, "r3"), (late, "r3")]):
        await begun(store, id_, "q", replica=replica, generation=f"g{number}")
    async with database.writing() as connection:
        later = sessions.update().where(sessions.c.id == late)
        await connection.execute(later.values(updated_us=int((clock + 1) * 1e6)))
    today = SessionStore(database, time.time, random.Random(1))
    assert await today.turns.break_off(clock) == 2
    running = [(await store.sessions.get(ME, id_)).running for id_ in (there, gone, never, late)]
    assert running == ["g0", None, None, "g3"]


async def test_a_conversation(database: Database) -> None:
    """It claims the session once, and keeps it over all its turns: several answers at a time, one behind the other; the user may speak between them."""
    store, me = store_of(database), {"claim": "c1", "replica": "r1"}
    id_ = (await store.sessions.create(ME, NewSession(), kind=CONVERSATION)).id
    said = await store.turns.begin(ME, id_, **me, said=[NewMessage(content="q")])
    assert (said.asked, said.parent, said.answers, said.session.running) == ((0,), 0, (), "c1")
    with pytest.raises(Conflict, match="by conversation c1"):
        await begun(store, id_, "too", generation="g9")
    with pytest.raises(Conflict):
        await store.turns.begin(ME, id_, **me)
    answers = [Answering("g1", "m", "Ann"), Answering("g2", "m", "Bob")]
    both = await store.turns.begin(ME, id_, **me, held=True, answers=answers)
    assert (both.asked, both.parent, both.answers) == ((), 0, (1, 2))
    assert not await store.turns.checkpoint(ME, id_, 1, "g1", content="half")
    assert await store.turns.checkpoint(ME, id_, 1, "g1", content="half", claim="c1")
    told = await store.turns.say(ME, id_, NewMessage(content="wait"))
    assert (told.seq, told.parent, told.role, told.state) == (3, 2, Role.USER, MessageState.DONE)
    assert await store.turns.finish_turn(ME, id_, 2, "g2", ENDING)
    assert (await store.sessions.get(ME, id_)).running == "c1"
    assert not await store.turns.give_up(ME, id_, "c2", "gone")
    assert await store.turns.give_up(ME, id_, "c1", "gone")
    history = await store.messages.history(ME, id_)
    assert [(one.name, one.content, one.state, one.error) for one in history] == [
        (None, "q", MessageState.DONE, None),
        ("Ann", "half", MessageState.ERROR, "gone"),
        ("Bob", ENDING.content, MessageState.DONE, None),
        (None, "wait", MessageState.DONE, None),
    ]
    assert (await store.sessions.get(ME, id_)).running is None
    await store.turns.begin(ME, id_, **me, answers=[Answering("g3", "m", "Ann")])
    assert await store.turns.break_off(time.time() + 10, alone=True) == 1
    last = (await store.messages.history(ME, id_))[-1]
    assert (last.parent, last.state, last.error) == (3, MessageState.ERROR, BROKEN_OFF)
    assert await store.turns.finish_turn(ME, id_, last.seq, "g3", ENDING)


async def test_between_two_turns_of_a_conversation(database: Database) -> None:
    """Nothing is being written, but what a dead gateway claimed is released all the same."""
    store = store_of(database)
    id_ = (await new_session(store)).id
    await store.turns.begin(ME, id_, claim="c1", replica="r1", said=[NewMessage(content="q")])
    assert await store.turns.break_off(time.time() + 10, alone=True) == 1
    assert (await store.sessions.get(ME, id_)).running is None


async def test_what_is_said_to_nobody(database: Database) -> None:
    """It follows what is shown, while nobody answers, and counts like any message."""
    store = store_of(database)
    id_ = (await new_session(store)).id
    with pytest.raises(NotFound):
        await store.turns.say("them", id_, NewMessage(content="q"))
    assert (await store.turns.say(ME, id_, NewMessage(content="q", images=["QQ=="]))).images == ["QQ=="]
    await begun(store, id_)
    with pytest.raises(Conflict, match="by generation g1"):
        await store.turns.say(ME, id_, NewMessage(content="too"))
    assert (await store.sessions.get(ME, id_)).messages == 2
    full = sessions.update().values(next_seq=MESSAGES_MOST, running=None)
    async with database.writing() as connection:
        await connection.execute(full)
    with pytest.raises(TooLarge):
        await store.turns.say(ME, id_, NewMessage(content="too"))


async def test_who_was_taken_for_dead(database: Database) -> None:
    """Writes no more, but the whole answer is kept when it comes, also while another turn is under way."""
    store = store_of(database)
    id_ = (await new_session(store)).id
    await begun(store, id_, "q")
    assert await store.turns.break_off(time.time() + 10) == 1
    assert not await store.turns.checkpoint(ME, id_, 1, "g1", content="half")
    await begun(store, id_, "again", generation="g2")
    assert await store.turns.finish_turn(ME, id_, 1, "g1", ENDING)
    answer = (await store.messages.history(ME, id_, leaf=1))[-1]
    assert (answer.content, answer.state, answer.error) == (ENDING.content, MessageState.DONE, None)
    assert (await store.sessions.get(ME, id_)).running == "g2"
    assert await store.turns.checkpoint(ME, id_, 3, "g2", content="")


DYING = """
import asyncio, random, sys, time
from gateway.config import DatabaseConfig
from gateway.messages import Ending, MessageState, NewMessage, NewSession
from gateway.store.engine import Database
from gateway.store.session_store import SessionStore

async def main():
    database = Database(DatabaseConfig(sys.argv[1]), time.monotonic)
    await database.start(30)
    store = SessionStore(database, time.time, random.Random(2))
    for generation in ("g1", "g2"):
        id_ = (await store.sessions.create("me", NewSession())).id
        said = [NewMessage(content="q")]
        turn = await store.turns.begin_turn("me", id_, generation=generation, replica="r1", said=said)
        await store.turns.checkpoint("me", id_, turn.answer, generation, content="half of it")
        if generation == "g1":
            await store.turns.finish_turn("me", id_, 1, "g1", Ending(state=MessageState.DONE, content="whole"))
        print("has", id_, flush=True)
    async with database.writing() as connection:  # in the middle of a step
        await connection.exec_driver_sql("UPDATE messages SET content = 'never committed'")
        print("dying", flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_killed_in_the_middle(database: Database, url: str, tmp_path: Path) -> None:
    """kill -9: what there was of the answer is there and says so; what had ended is whole; the session can be used again."""
    script = tmp_path / "dying.py"
    script.write_text(DYING)
    async with python(tmp_path, str(script), url) as dying:
        whole = (await dying.line(r"has (\w+)"))[1]
        half = (await dying.line(r"has (\w+)"))[1]
        await dying.line("dying")
        dying.signal(9)
        await dying.gone()
    store = store_of(database)
    assert await store.turns.break_off(time.time() + 1) == 1
    answer = (await store.messages.history(ME, half))[-1]
    assert (answer.content, answer.state, answer.error) == ("half of it", MessageState.ERROR, BROKEN_OFF)
    assert await contents(store, whole) == ["q", "whole"]
    await turn(store, half, None, "again", parent=0)
    assert await contents(store, half) == ["q", "again"]
