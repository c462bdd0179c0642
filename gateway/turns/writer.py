"""Writes answers into their sessions: about once a second as far as they are, and once as they end.

The database may be away meanwhile: the answer goes on, and its end waits here until it can be written. What waits is bounded: beyond
WAITING_CHARACTERS an answer stays as it was last written, and only its session is freed.
"""

import asyncio
import contextlib
import logging
from collections import Counter, deque
from collections.abc import Callable, Iterator
from typing import NamedTuple

from gateway.errors import CorralError, NotFound, StoreUnavailable
from gateway.messages import Ending, MessageState
from gateway.record import CancelSource
from gateway.relay.chunks import Batch, Reader
from gateway.relay.kept import KeptAnswer
from gateway.store.turns import Turns
from gateway.tasks import Tasks, pause
from gateway.turns.spoken import Spoken

CHECKPOINT_SECONDS = 1.0
AGAIN_SECONDS = 0.5
WAITING_MOST = 1_000
WAITING_CHARACTERS = 32 * 1024 * 1024
ERASED = "its session was deleted"
UNWRITTEN = "unkept"
UNKEPT = "broken off: the database was away when it ended"

log = logging.getLogger(__name__)
_SILENCE = Batch(0, 0, [])


class Place(NamedTuple):
    """Where an answer is written. ``answer``: the message's number; None: whether the turn has begun at all is not known. ``claim``: of the
    conversation that it is a turn of; else it has the session's claim itself."""

    owner: str
    session: str
    generation: str
    answer: int | None
    claim: str = ""


class Writer:
    """``clock``: monotonic seconds; ``tasks`` owns the one that tries again. ``ended``: how many answers were kept, by how they ended."""

    def __init__(self, turns: Turns, clock: Callable[[], float], tasks: Tasks) -> None:
        self._turns = turns
        self._clock = clock
        self._tasks = tasks
        self._waiting: deque[tuple[Place, Ending | None]] = deque()
        self._characters = 0
        self.ended = Counter(dict.fromkeys((MessageState.DONE, MessageState.STOPPED, MessageState.ERROR, UNWRITTEN), 0))

    def __repr__(self) -> str:
        return f"<Writer [{len(self._waiting)} waiting]>"

    async def write(self, place: Place, answer: KeptAnswer, spoken: Spoken) -> bool:
        """Follow an answer to its end, and keep it; as ``end``. One whose session is gone ends, however that came to be known."""
        with answer.reader(counted=False) as reader:
            try:
                await self._follow(place, reader, spoken)
            except NotFound:
                if answer.generation is not None:  # else it has ended anyway
                    answer.generation.stop(CancelSource.OPERATOR, ERASED)
                return True  # there is nothing to keep
        assert answer.record is not None
        return await self.end(place, spoken.ending(answer.record))

    async def _follow(self, place: Place, reader: Reader, spoken: Spoken) -> None:
        due: float | None = None  # when what is new has to be written
        while True:
            try:
                async with asyncio.timeout(None if due is None else max(0.0, due - self._clock())):
                    batch = await anext(reader, None)
            except TimeoutError:
                batch = _SILENCE
            if batch is None:
                return
            spoken.lost = spoken.lost or batch.gone > 0
            for chunk in batch.chunks:
                spoken.take(chunk)
            due = due or self._clock() + CHECKPOINT_SECONDS
            if self._clock() >= due:
                await self._checkpoint(place, spoken)
                due = None

    async def _checkpoint(self, place: Place, spoken: Spoken) -> None:
        assert place.answer is not None
        try:
            await self._turns.checkpoint(
                place.owner,
                place.session,
                place.answer,
                place.generation,
                content=spoken.content,
                thinking=spoken.thinking,
                claim=place.claim,
            )
        except StoreUnavailable as error:  # the database says so itself, once
            log.debug("the answer of generation %s waits: %s", place.generation, error.message)

    async def end(self, place: Place, ending: Ending | None) -> bool:
        """Write how it ended, now or as soon as that is possible; whether it was now. None: only free the session."""
        if not self._waiting and await self._ended(place, ending):
            return True
        self._put(place, ending)  # in order: to free a session must not come before what was said in it
        return False

    async def _ended(self, place: Place, ending: Ending | None) -> bool:
        try:
            await self._end(place, ending)
        except StoreUnavailable:
            return False
        return True

    @contextlib.contextmanager
    def releasing(self, place: Place) -> Iterator[None]:
        """Whatever goes wrong inside that nobody has thought of: the session is free again."""
        try:
            yield
        except CorralError:
            raise
        except Exception:
            self._tasks.spawn(f"claim {place.generation}", self._release(place))
            raise

    async def _release(self, place: Place) -> None:
        await self.end(place, None)

    async def _end(self, place: Place, ending: Ending | None) -> None:
        if ending is None or place.answer is None:
            await self._turns.give_up(place.owner, place.session, place.claim or place.generation, UNKEPT)
        else:
            await self._turns.finish_turn(place.owner, place.session, place.answer, place.generation, ending)
            self.ended[ending.state] += 1

    def _put(self, place: Place, ending: Ending | None) -> None:
        if len(self._waiting) >= WAITING_MOST:
            log.error("the end of generation %s could not be kept: too many wait for the database", place.generation)
            self.ended[UNWRITTEN] += ending is not None
            return
        if ending is not None and self._characters + _size(ending) > WAITING_CHARACTERS:
            log.error(
                "the answer of generation %s could not be kept: too much waits for the database", place.generation
            )
            self.ended[UNWRITTEN] += 1
            ending = None
        self._characters += _size(ending)
        self._waiting.append((place, ending))
        if len(self._waiting) == 1:
            self._tasks.spawn("ends of answers", self._again())

    async def _again(self) -> None:
        while self._waiting:
            place, ending = self._waiting[0]
            if await self._ended(place, ending):
                self._waiting.popleft()
                self._characters -= _size(ending)
            else:
                await pause(AGAIN_SECONDS)


def _size(ending: Ending | None) -> int:
    return 0 if ending is None else len(ending.content) + len(ending.thinking or "")
