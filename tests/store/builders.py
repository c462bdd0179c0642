"""Sessions for tests: a store over a database, with a clock that says another time each time, and turns that have ended."""

import itertools
import random
from collections.abc import Iterator

from gateway.messages import UNSET, Ending, MessageState, NewMessage, NewSession, Session, UnsetType
from gateway.store.engine import Database
from gateway.store.session_store import SessionStore
from gateway.store.turns import Turn

ME = "me"


def ticking(start: float = 1_760_000_000.0) -> Iterator[float]:
    """Seconds, one after the other."""
    return map(float, itertools.count(int(start)))


def store_of(database: Database) -> SessionStore:
    """Over a database that is up."""
    clock = ticking()
    return SessionStore(database, lambda: next(clock), random.Random(1))


async def new_session(store: SessionStore, title: str = "", owner: str = ME) -> Session:
    """An empty one."""
    return await store.sessions.create(owner, NewSession(title=title))


async def begun(
    store: SessionStore,
    id_: str,
    *said: str,
    parent: int | UnsetType | None = UNSET,
    generation: str = "g1",
    replica: str = "r1",
) -> Turn:
    """A turn whose answer is not there yet."""
    asked = [NewMessage(content=text) for text in said]
    return await store.turns.begin_turn(
        ME, id_, generation=generation, replica=replica, said=asked, parent=parent, model="llama3.2:1b"
    )


async def turn(
    store: SessionStore, id_: str, question: str | None, answer: str, parent: int | UnsetType | None = UNSET
) -> Turn:
    """A question (None: the one that is there) and its answer."""
    made = await begun(store, id_, *([] if question is None else [question]), parent=parent)
    ending = Ending(state=MessageState.DONE, content=answer)
    assert await store.turns.finish_turn(ME, id_, made.answer, "g1", ending)
    return made


async def contents(store: SessionStore, id_: str) -> list[str]:
    """What is said in the branch that is shown."""
    return [message.content for message in await store.messages.history(ME, id_)]
