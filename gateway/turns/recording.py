"""Plain chats that name a session are recorded into it: what is new of the question, and the answer as it comes.

The request itself waits for none of it: its answer is kept besides (``relay/tee.py``), and a task of the gateway's own looks whether there is
such a session, claims it, and writes. While somebody else writes to the session, or the database is away, it tries again for
PATIENCE_SECONDS. A word that is no session's id, or of none that exists, stays a mere word.
"""

import asyncio
import logging
import re
from collections.abc import Callable
from functools import partial

import msgspec

from gateway.dialects.read import plain
from gateway.dialects.request import InferenceRequest, Kind
from gateway.errors import Conflict, CorralError, NotFound, StoreUnavailable
from gateway.messages import NewMessage
from gateway.relay.chunks import Chunks
from gateway.relay.exchange import Sink
from gateway.relay.generations import Generation, Generations
from gateway.relay.headers import Inbound
from gateway.relay.kept import KeptAnswer
from gateway.relay.relay import Relay
from gateway.relay.tee import Tee
from gateway.store.session_store import SessionStore
from gateway.store.turns import Turn
from gateway.tasks import Tasks, pause
from gateway.turns.asked import asked, continued
from gateway.turns.busy import Busy
from gateway.turns.spoken import Spoken
from gateway.turns.writer import Place, Writer

RECORDED = frozenset(("/api/chat", "/v1/chat/completions"))
SESSION = re.compile(r"[0-9a-f]{24}\Z")
HELD_BYTES = 2 * 1024 * 1024  # of an answer, until it is written
AT_ONCE_MOST = 100
LOOK_BACK = 1_000  # messages among which a question is looked for
PATIENCE_SECONDS = 600.0
AGAIN_SECONDS = 0.5

log = logging.getLogger(__name__)


class Recorder:
    """``name`` is this gateway's; ``busy`` counts what is being recorded; ``answered(owner, session)`` is told of each answer that has ended."""

    def __init__(
        self,
        store: SessionStore,
        relay: Relay,
        generations: Generations,
        writer: Writer,
        tasks: Tasks,
        busy: Busy,
        name: str,
        answered: Callable[[str, str], None],
    ) -> None:
        self._store = store
        self._relay = relay
        self._generations = generations
        self._writer = writer
        self._tasks = tasks
        self._busy = busy
        self._name = name
        self._answered = answered
        self._count = 0

    def __repr__(self) -> str:
        return f"<Recorder [{self._count} at once]>"

    def wants(self, request: InferenceRequest) -> bool:
        """Whether it may be for a session that is kept."""
        return (
            request.endpoint.path in RECORDED
            and request.kind is Kind.INFER
            and request.kept
            and self._count < AT_ONCE_MOST
            and SESSION.match(request.session or "") is not None
        )

    async def relay(self, generation: Generation, headers: Inbound, query: str, sink: Sink) -> None:
        """As ``Relay.run``, for a generation that is wanted and that nobody has entered; recorded."""
        generations, error = self._generations, None
        kept = KeptAnswer(generations.loop, generation, HELD_BYTES, _any_size, _any_readers)
        tee = Tee(sink, kept)
        self.record(generation.request, headers.content_encoding, kept, partial(_forget, tee))
        generations.enter(generation)
        try:
            await self._relay.run(generation, headers, query, tee)
        except CorralError as refusal:
            error = refusal
            raise
        finally:
            kept.end(generations.leave(generation), generations.clock(), error)

    def record(
        self, request: InferenceRequest, encoding: str, answer: KeptAnswer, unwanted: Callable[[], None] | None = None
    ) -> None:
        """Record an answer that is kept, if ``wants`` says so. ``unwanted`` is called once nothing of it is needed (any more)."""
        if not self.wants(request):
            return
        self._count += 1
        self._tasks.spawn(f"recording {answer.id}", self._recorded(request, encoding, answer, unwanted))

    async def _recorded(
        self, request: InferenceRequest, encoding: str, answer: KeptAnswer, unwanted: Callable[[], None] | None
    ) -> None:
        try:
            with self._busy:
                turn = await self._begun(request, encoding)
                if turn is not None:
                    place = Place(request.principal, turn.session.id, request.id, turn.answer)
                    with self._writer.releasing(place):
                        await self._writer.write(place, answer, Spoken(request.endpoint.path))
                    self._answered(request.principal, turn.session.id)
        finally:
            self._count -= 1
            if unwanted is not None:
                unwanted()

    async def _begun(self, request: InferenceRequest, encoding: str) -> Turn | None:
        """None: it is not to be recorded."""
        until = self._generations.clock() + PATIENCE_SECONDS
        while True:
            try:
                return await self._claimed(request, encoding)
            except NotFound:
                return None  # a mere word
            except (CorralError, ValueError, msgspec.DecodeError) as error:
                if isinstance(error, StoreUnavailable) and error.retry_after is None:
                    return None  # nothing is kept at all
                if not isinstance(error, Conflict | StoreUnavailable) or self._generations.clock() >= until:
                    log.warning("generation %s is not recorded in session %s: %s", request.id, request.session, error)
                    return None
            await pause(AGAIN_SECONDS)

    async def _claimed(self, request: InferenceRequest, encoding: str) -> Turn | None:
        session = request.session or ""
        branch = await self._store.messages.history(request.principal, session, limit=LOOK_BACK)
        messages = await asyncio.to_thread(_asked, request, encoding)
        parent, said = continued(branch, messages)
        if not messages:
            return None
        try:
            return await self._store.turns.begin_turn(
                request.principal,
                session,
                generation=request.id,
                replica=self._name,
                said=said,
                parent=parent,
                model=request.requested_model,
            )
        except StoreUnavailable:  # perhaps it has begun, and only the word of it was lost
            await self._writer.end(Place(request.principal, session, request.id, None), None)
            raise


def _asked(request: InferenceRequest, encoding: str) -> list[NewMessage]:
    return asked(plain(request.endpoint, request.body, encoding))


def _forget(tee: Tee) -> None:
    kept, tee.kept = tee.kept, None
    if kept is not None:
        kept.forget()


def _any_size(_chunks: Chunks, _size: int) -> int:
    return 0


def _any_readers(_chunks: Chunks, _change: int) -> None:
    return None
