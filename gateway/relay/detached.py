"""Detached generations: each runs as a task of the gateway's own, its answer is kept, and whoever wants to reads it.

They take the ordinary path (queue, routing, failover, cancel, record): only the sink is another one, and no caller's leaving ends
them. What stops one is what stops any (operator, session, deadline, shutdown), or that nobody reads it (``orphan_seconds``).
``ask`` is how Corral itself uses a model.
"""

import asyncio
import random
from collections.abc import Callable
from typing import Final

from gateway.access.gate import EVERYBODY, Principal, asked_by, permit
from gateway.access.tallies import Tallies
from gateway.config import GenerationsConfig
from gateway.dialects.endpoints import ENDPOINTS
from gateway.dialects.lines import Framing
from gateway.dialects.read import read
from gateway.dialects.request import InferenceRequest, Priority
from gateway.errors import CorralError, ShuttingDown, internal
from gateway.ids import new_id
from gateway.relay.failures import broken_off
from gateway.relay.generations import Generation, Generations
from gateway.relay.headers import Inbound, inbound
from gateway.relay.kept import KeptAnswer
from gateway.relay.relay import Relay
from gateway.relay.shelf import Shelf
from gateway.tasks import Tasks
from gateway.telemetry.context import Contexts

_JSON: Final = "application/json"
_OF_OUR_OWN: Final = inbound([(b"Content-Type", _JSON.encode())])


class Detached:
    """All that run detached, on a ``shelf`` with the last that ended. ``draining`` makes it refuse new ones; ``named``: the
    principal of that name; ``rejected`` is told an error's code, ``dropped`` how many chunks of an answer were too much."""

    def __init__(
        self,
        relay: Relay,
        generations: Generations,
        tasks: Tasks,
        config: GenerationsConfig,
        rng: random.Random,
        contexts: Contexts,
        named: Callable[[str], Principal],
        tallies: Tallies,
        rejected: Callable[[str], None],
        dropped: Callable[[float], None],
    ) -> None:
        self._relay = relay
        self._generations = generations
        self._tasks = tasks
        self._rng = rng
        self._contexts = contexts
        self._named = named
        self._tallies = tallies
        self._rejected = rejected
        self._refusable: set[str] = set()  # started this very moment: the caller may still be told that it cannot be
        self.shelf = Shelf(generations.loop, generations.clock, config, dropped)
        self.draining = False

    def __repr__(self) -> str:
        return f"<Detached {self.shelf}>"

    async def ask(
        self,
        path: str,
        body: bytes,
        *,
        session: str | None = None,
        pin: str = "",
        client: str = "",
        id_: str = "",
        principal: str = "",
        background: bool = False,
        keep: bool = True,
    ) -> KeptAnswer:
        """Start a generation of Corral's own: ``body`` as a caller would post it to ``path``. Raises CorralError if it cannot be.

        ``id_``: one that was told before (``fresh_id``); ``principal`` and ``client``: whoever it is for, and their address; ``background``: it waits until nobody
        else does; not ``keep``: nobody reads it after its end. ``with answer.reader() as reader: async for batch in reader`` follows it; ``answer.record`` has the facts at its end.
        """
        id_ = id_ or self.fresh_id()
        trace = self._contexts.follow(id_)
        priority = Priority.BACKGROUND if background else Priority.NORMAL
        request = read(ENDPOINTS[path], body, id_, _JSON, "", session, client, pin, trace=trace, priority=priority)
        who = self._named(principal)
        permit(who, request.model, pin)
        if who.name:
            self._tallies.admit(who.name, request.endpoint.dialect)
        if who is not EVERYBODY:
            request = asked_by(who, request)
        return await self.start(request, _OF_OUR_OWN, "", self._generations.clock(), keep=keep)

    def fresh_id(self) -> str:
        """An id for a generation that is about to be."""
        return new_id(self._generations.wall(), self._rng.getrandbits(52))

    async def start(
        self,
        request: InferenceRequest,
        headers: Inbound,
        query: str,
        received: float,
        *,
        keep: bool = True,
        began: "Callable[[asyncio.Task[None]], None] | None" = None,
    ) -> KeptAnswer:
        """Run it, and tell ``began`` its task. Returns in a moment; raises CorralError if it is refused in that moment (the queue is full, no host)."""
        if self.draining:
            raise ShuttingDown("the gateway is shutting down", retry_after=5.0)
        generation = self._generations.track(request, received)
        generation.detached = True
        shelf = self.shelf
        answer = KeptAnswer(shelf.loop, generation, shelf.limit_bytes, shelf.hold, shelf.attend)
        self._generations.enter(generation)
        intent = self._generations.intended(answer.id)
        if intent is not None and intent.stopped is not None:
            generation.stop(*intent.stopped)
        shelf.put(answer, generation.stop)
        self._refusable.add(answer.id)
        task = self._tasks.spawn(f"generation {answer.id}", self._run(generation, answer, headers, query, keep=keep))
        if began is not None:
            began(task)
        try:
            await self._first_step()
        finally:
            self._refusable.discard(answer.id)
        if answer.ended is not None and answer.error is not None:
            raise answer.error
        return answer

    # -- one generation --------------------------------------------------------------------------------------------------------

    async def _run(
        self, generation: Generation, answer: KeptAnswer, headers: Inbound, query: str, *, keep: bool
    ) -> None:
        error: CorralError | None = internal()
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
            self.shelf.ends(answer, keep=keep and (answer.id not in self._refusable or answer.error is None))

    async def _first_step(self) -> None:
        """Let the task that was spawned last go as far as it can without waiting for anybody."""
        turn = self._generations.loop.create_future()
        self._generations.loop.call_soon(_come_round, turn)
        await turn


def _come_round(turn: "asyncio.Future[None]") -> None:
    if not turn.done():
        turn.set_result(None)
