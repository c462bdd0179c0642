"""Detached generations: each runs as a task of the gateway's own, its answer is kept, and whoever wants to reads it.

They take the ordinary path (queue, routing, failover, cancel, record): only the sink is another one, and no caller's leaving ends
them. What stops one is what stops any (operator, session, deadline, shutdown), or that nobody reads it (``orphan_seconds``).
``ask`` is how Corral itself uses a model.
"""

import asyncio
import random
from collections.abc import Callable, Iterator

import msgspec

from gateway.config import GenerationsConfig
from gateway.dialects.endpoints import ENDPOINTS
from gateway.dialects.lines import Framing
from gateway.dialects.read import read
from gateway.dialects.request import InferenceRequest
from gateway.errors import CorralError, ShuttingDown
from gateway.record import CancelSource, new_id
from gateway.relay.failures import broken_off
from gateway.relay.generations import Generation, Generations
from gateway.relay.headers import Inbound
from gateway.relay.kept import KeptAnswer
from gateway.relay.relay import Relay
from gateway.tasks import Tasks

_JSON = "application/json"
_OF_OUR_OWN = Inbound(lines=b"Content-Type: application/json\r\n", content_type=_JSON)


class Detached:
    """All that run detached, and the last that ended. ``draining`` makes it refuse new ones; ``rejected`` is told an error's code,
    ``dropped`` how many chunks of an answer were too much."""

    def __init__(
        self,
        relay: Relay,
        generations: Generations,
        tasks: Tasks,
        config: GenerationsConfig,
        rng: random.Random,
        rejected: Callable[[str], None],
        dropped: Callable[[float], None],
    ) -> None:
        self._relay = relay
        self._generations = generations
        self._tasks = tasks
        self._config = config
        self._rng = rng
        self._rejected = rejected
        self._dropped = dropped
        self._running: dict[str, KeptAnswer] = {}
        self._ended: dict[str, KeptAnswer] = {}  # oldest end first
        self._refusable: set[str] = set()  # started this very moment: the caller may still be told that it cannot be
        self._orphans: dict[str, asyncio.TimerHandle] = {}
        self._tidying: asyncio.TimerHandle | None = None
        self._idle: asyncio.Future[None] | None = None
        self.draining = False
        self.size = 0  # bytes held
        self.readers = 0

    def __repr__(self) -> str:
        return f"<Detached [{len(self._running)} running, {len(self._ended)} ended, {self.size} bytes]>"

    def __len__(self) -> int:
        return len(self._running) + len(self._ended)

    @property
    def running(self) -> int:
        """How many have not ended."""
        return len(self._running)

    def ended(self) -> Iterator[KeptAnswer]:
        """Those that ended and can still be read, oldest first."""
        return iter(tuple(self._ended.values()))

    def get(self, id_: str) -> KeptAnswer | None:
        """The answer of the generation with this id, if it can be read."""
        return self._running.get(id_) or self._ended.get(id_)

    async def ask(
        self,
        path: str,
        body: bytes,
        *,
        session: str | None = None,
        pin: str = "",
        client: str = "",
        id_: str = "",
        background: bool = False,
    ) -> KeptAnswer:
        """Start a generation of Corral's own: ``body`` as a caller would post it to ``path``. Raises CorralError if it cannot be.

        ``id_``: one that was told before (``fresh_id``); ``client``: the address of whoever it is for; ``background``: it waits until nobody
        else does. ``with answer.reader() as reader: async for batch in reader`` follows it; ``answer.record`` has the facts at its end.
        """
        request = read(ENDPOINTS[path], body, id_ or self.fresh_id(), _JSON, "", session, client, pin)
        if background:
            request = msgspec.structs.replace(request, background=True)
        return await self.start(request, _OF_OUR_OWN, "", self._generations.clock())

    def fresh_id(self) -> str:
        """An id for a generation that is about to be."""
        return new_id(self._generations.wall(), self._rng.getrandbits(52))

    async def start(self, request: InferenceRequest, headers: Inbound, query: str, received: float) -> KeptAnswer:
        """Run it. Returns in a moment; raises CorralError if it is refused in that moment (the queue is full, no host)."""
        if self.draining:
            raise ShuttingDown("the gateway is shutting down", retry_after=5.0)
        generation = self._generations.track(request, received)
        generation.detached = True
        loop, limit = self._generations.loop, self._config.answer_bytes
        answer = KeptAnswer(loop, generation, limit, self._hold, self._attend)
        self._generations.enter(generation)
        intent = self._generations.intended(answer.id)
        if intent is not None and intent.stopped is not None:
            generation.stop(*intent.stopped)
        self._running[answer.id] = answer
        self._refusable.add(answer.id)
        self._watch(answer)
        self._tasks.spawn(f"generation {answer.id}", self._run(generation, answer, headers, query))
        try:
            await self._first_step()
        finally:
            self._refusable.discard(answer.id)
        if answer.ended is not None and answer.error is not None:
            raise answer.error
        return answer

    async def idle(self) -> None:
        """Wait until nobody reads. One caller at a time: the shutdown."""
        while self.readers:
            self._idle = self._generations.loop.create_future()
            await self._idle

    def close(self) -> None:
        """Forget all; no timer is left."""
        for timer in (*self._orphans.values(), self._tidying):
            if timer is not None:
                timer.cancel()
        self._orphans.clear()
        for answer in self.ended():
            self._forget(answer)

    # -- one generation --------------------------------------------------------------------------------------------------------

    async def _run(self, generation: Generation, answer: KeptAnswer, headers: Inbound, query: str) -> None:
        error: CorralError | None = CorralError("internal error; the log has the details")
        try:
            await self._relay.run(generation, headers, query, answer)
            error = None
        except CorralError as refusal:
            if answer.id not in self._refusable:  # else its caller is told so, and counts it
                self._rejected(refusal.code)
            error = refusal
        except asyncio.CancelledError:  # it outlasted the shutdown
            error = ShuttingDown("the gateway is shutting down", retry_after=5.0)
            raise
        finally:
            if error is not None and answer.started:
                answer.abort()
            record = self._generations.leave(generation)
            if answer.aborted and answer.head is not None and answer.head.framing is Framing.SINGLE:
                error = error or broken_off(record)
            answer.end(record, self._generations.clock(), error)
            self._end(answer)

    async def _first_step(self) -> None:
        """Let the task that was spawned last go as far as it can without waiting for anybody."""
        turn = self._generations.loop.create_future()
        self._generations.loop.call_soon(_come_round, turn)
        await turn

    def _end(self, answer: KeptAnswer) -> None:
        del self._running[answer.id]
        self._unwatch(answer)
        if answer.first:
            self._dropped(answer.first)
        if answer.id not in self._refusable or answer.error is None:
            self._ended[answer.id] = answer
            self._tidy()

    # -- what is held ----------------------------------------------------------------------------------------------------------

    def _hold(self, _answer: KeptAnswer, size: int) -> int:
        """An answer grew by ``size`` bytes, or shrank; how many are too much now, after ended ones that nobody reads have gone."""
        self.size += size
        if size > 0 and self.size > self._config.held_bytes:
            for ended in self.ended():
                if self.size <= self._config.held_bytes:
                    break
                if not ended.readers:
                    self._forget(ended)
        return self.size - self._config.held_bytes

    def _tidy(self) -> None:
        """Forget what ended too long ago, or is too many; not while somebody reads it."""
        config, now = self._config, self._generations.clock()
        surplus = len(self._ended) - config.keep_count
        oldest: float | None = None
        for answer in self.ended():
            assert answer.ended is not None
            if answer.readers:
                continue
            if surplus > 0 or now - answer.ended >= config.keep_seconds:
                self._forget(answer)
                surplus -= 1
            else:  # the others ended later
                oldest = answer.ended
                break
        if self._tidying is not None:
            self._tidying.cancel()
            self._tidying = None
        if oldest is not None:
            left = max(0.0, oldest + config.keep_seconds - now)
            self._tidying = self._generations.loop.call_later(left, self._tidy)

    def _forget(self, answer: KeptAnswer) -> None:
        del self._ended[answer.id]
        answer.forget()

    # -- readers ---------------------------------------------------------------------------------------------------------------

    def _attend(self, answer: KeptAnswer, change: int) -> None:
        self.readers += change
        if not self.readers and self._idle is not None and not self._idle.done():
            self._idle.set_result(None)
        if answer.ended is None:
            self._unwatch(answer)
            self._watch(answer)
        elif not answer.readers:
            self._tidy()

    def _watch(self, answer: KeptAnswer) -> None:
        """Stop it if nobody comes to read it."""
        seconds = self._config.orphan_seconds
        if seconds and not answer.readers and (generation := answer.generation) is not None:
            why = f"nobody read it for {seconds:g} s"
            self._orphans[answer.id] = self._generations.loop.call_later(
                seconds, generation.stop, CancelSource.ORPHAN, why
            )

    def _unwatch(self, answer: KeptAnswer) -> None:
        timer = self._orphans.pop(answer.id, None)
        if timer is not None:
            timer.cancel()


def _come_round(turn: "asyncio.Future[None]") -> None:
    if not turn.done():
        turn.set_result(None)
