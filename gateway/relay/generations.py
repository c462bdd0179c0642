"""What is in flight. A Generation is one tracked inference, from receipt to record, and its cancellation scope.

However it ends, leaving ``with generations.track(…)`` makes exactly one GenerationRecord, synchronously; the sinks are handed what
finished every FLUSH_SECONDS, and before anybody looks (a scrape, the end).
Operator, session, deadline and shutdown end a generation through its scope: ``stop`` cancels the task that opened it, and
``close_scope`` tells that cancellation from a client that left, which cancels the task from outside.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextvars import Context
from types import TracebackType
from typing import Final, Self

import msgspec

from gateway.access.tallies import Stay, Tallies
from gateway.dialects.lines import Meter
from gateway.dialects.request import InferenceRequest
from gateway.dialects.urgency import in_words
from gateway.record import Accounting, Attempt, CancelSource, GenerationRecord, Outcome, Phase, Route, Usage
from gateway.relay.intents import Intent
from gateway.routing.waiting import NEVER
from gateway.telemetry.tracing import Tracer

_QUEUED: Final = Phase.QUEUED
_DONE: Final = Phase.DONE
_OK: Final = Outcome.OK

Sink = Callable[[GenerationRecord], None]
log = logging.getLogger(__name__)
_NOTHING_USED: Final = Usage()
FLUSH_SECONDS: Final = 0.02
PAST: Final = 256  # records that can be looked at after their end, with all that the database keeps of few


class Generation:
    """One tracked inference. Mutable, owned by the task that runs it; others only look, or call ``stop``. Monotonic seconds."""

    # What has not happened yet is read from the class: most generations set few of these.
    route: Route | None = None
    meter: Meter | None = None
    status = 0
    outcome: Outcome | None = None
    reason = ""
    first_byte: float | None = None
    queue_seconds = 0.0
    cold = False
    bytes_out = 0
    cancelled_by: CancelSource | None = None
    cancel_noticed: float | None = None
    delivering = False  # the host is done, but the client has not taken it all
    said = b""  # the beginning of the answer, where spans shall hold it
    own_deadline = False  # the deadline that its caller set has passed, or could not be met
    detached = False  # its caller has gone on: its answer is kept
    stay: Stay | None = None  # where its key's use is counted
    _over = False
    _task: "asyncio.Task[object] | None" = None
    _cancelling = 0
    _deadline: asyncio.TimerHandle | None = None
    _first_byte_due: asyncio.TimerHandle | None = None

    def __init__(self, owner: "Generations", request: InferenceRequest, received: float) -> None:
        self._owner = owner
        self.request = request
        self.received = received
        self.phase = _QUEUED
        self.usage = _NOTHING_USED
        self.attempts: tuple[Attempt, ...] = ()

    def __repr__(self) -> str:
        return f"<Generation {self.request.id} [{self.request.model} | {self.phase}]>"

    def __enter__(self) -> Self:
        self._owner.enter(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._owner.leave(self)

    @property
    def id(self) -> str:
        """The id, unique and sortable by time."""
        return self.request.id

    @property
    def principal(self) -> str:
        """Whose it is; empty: somebody without a key."""
        return self.request.principal

    @property
    def host(self) -> str | None:
        """Where it runs now."""
        return self.route.host if self.route and self.phase is not _QUEUED else None

    @property
    def received_at(self) -> float:
        """Unix seconds."""
        return self._owner.wall() - (self._owner.clock() - self.received)

    @property
    def due(self) -> float:
        """When its first byte has to be there."""
        seconds = self.request.deadline_seconds
        return self.received + seconds if seconds else NEVER

    @property
    def tokens(self) -> int:
        """Output tokens that have passed so far, as counted."""
        endpoint = self.request.endpoint
        return max(0, self.meter.newlines // endpoint.lines_per_event - endpoint.preamble_events) if self.meter else 0

    @property
    def prompt_tokens(self) -> int:
        """Those that limits count. A host has read the prompt once it answers: where it does not tell how long that was, most of all as nobody
        waited for its last words, it is as estimated."""
        told = self.usage
        if told.accounting is Accounting.REPORTED or self.first_byte is None or self.status >= 400:
            return told.input_tokens
        return self.request.prompt_tokens

    @property
    def stopped(self) -> Outcome:
        """How it ends if it is stopped: who asks for little time, and does not get it, has given up like one who leaves."""
        if self.cancelled_by is CancelSource.SHUTDOWN:
            return Outcome.GATEWAY_ERROR
        ours = self.cancelled_by is CancelSource.DEADLINE and not self.own_deadline
        return Outcome.TIMEOUT if ours else Outcome.CANCELLED

    def future(self) -> "asyncio.Future[None]":
        """A future of the loop that runs this."""
        return self._owner.loop.create_future()

    def ended(self, outcome: Outcome, reason: str = "") -> None:
        """Say how it ended. The first word counts."""
        if self.outcome is None:
            self.outcome, self.reason = outcome, reason

    # -- the scope -------------------------------------------------------------------------------------------------------------

    def open_scope(self) -> None:
        """From now on ``stop`` reaches the running task."""
        task = self._task = asyncio.current_task(self._owner.loop)
        assert task is not None
        self._cancelling = task.cancelling()
        if seconds := self._owner.deadline_seconds:
            left = max(0.0, seconds - (self._owner.clock() - self.received))
            self._deadline = self._owner.loop.call_later(
                left, self.stop, CancelSource.DEADLINE, f"took longer than {seconds:g} s"
            )
        if self.request.deadline_seconds:
            left = max(0.0, self.due - self._owner.clock())
            self._first_byte_due = self._owner.loop.call_later(left, self._too_late)

    def _too_late(self) -> None:
        if self.first_byte is None:
            why = f"no first byte within {self.request.deadline_seconds:g} s"
            self.own_deadline = self.stop(CancelSource.DEADLINE, why) and self.request.own_deadline

    def stop(self, source: CancelSource, why: str) -> bool:
        """End the scope, as soon as it is open. Idempotent; False if it had ended or was being stopped already."""
        if self.cancelled_by is not None or self._over or (self.outcome is not None and not self.delivering):
            return False
        self.cancelled_by, self.reason = source, why
        self.cancel_noticed = self._owner.clock()
        if self._task is not None:
            self._task.cancel()
        return True

    def close_scope(self, *, cancelled: bool) -> bool:
        """The work is over. ``cancelled``: by a CancelledError. True if that was ``stop``'s doing and ends here."""
        task, self._task = self._task, None
        assert task is not None
        self._over = True
        if self._deadline is not None:
            self._deadline.cancel()
        if self._first_byte_due is not None:
            self._first_byte_due.cancel()
        if self.cancelled_by is not None:
            return task.uncancel() <= self._cancelling and cancelled
        if cancelled:
            self.cancelled_by = CancelSource.CLIENT
            self.reason = "the client left"
        return False

    def record(self, now: float, wall: float) -> GenerationRecord:
        """The frozen facts at the end."""
        outcome = self.outcome
        if outcome is None:
            outcome = Outcome.GATEWAY_ERROR if self.cancelled_by is None else self.stopped
        request, endpoint, meter, duration = self.request, self.request.endpoint, self.meter, now - self.received
        trace = request.trace
        cancelled = self.cancelled_by is not None and outcome is self.stopped
        closed = self.received + self.attempts[-1].at_seconds + self.attempts[-1].seconds if self.attempts else None
        return GenerationRecord(  # in the order of its fields: naming 34 of them costs a microsecond
            wall - duration,
            request.id,
            endpoint.dialect,
            endpoint.path,
            endpoint.operation,
            request.requested_model,
            request.model,
            request.stream,
            request.session,
            request.client,
            outcome,
            self.reason,
            _DONE if outcome is _OK else self.phase,
            self.cancelled_by if cancelled else None,
            self.status,
            self.attempts[-1].host if self.attempts else None,
            self.cold,
            self.queue_seconds,
            None if self.first_byte is None or self.status >= 400 else self.first_byte - self.received,
            duration,
            meter.max_gap if meter else 0.0,
            max(0.0, closed - self.cancel_noticed) if cancelled and closed and self.cancel_noticed else None,
            self.usage,
            meter.chunks if meter else 0,
            len(request.body),
            self.bytes_out,
            self.attempts,
            self.route,
            self.detached,
            request.clamped_from,
            trace.request_id,
            trace.trace_id,
            trace.span_id,
            False,  # trace_kept: it is not known yet
            request.principal,
            in_words(request.priority),
        )


class Generations:
    """All that is in flight, by id. ``deadline_seconds``: the longest a generation may take; 0: no bound."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        clock: Callable[[], float],
        wall: Callable[[], float],
        sinks: Iterable[Sink],
        deadline_seconds: float = 0.0,
        tracer: Tracer | None = None,
        tallies: Tallies | None = None,
    ) -> None:
        self.loop = loop  # asking asyncio for it costs a system call before Python 3.12
        self.clock = clock
        self.wall = wall
        self.deadline_seconds = deadline_seconds
        self._sinks = tuple(sinks)
        self._tracer = tracer
        self._tallies = tallies
        self._nobody = Context()  # what is said of many records is on nobody's behalf
        self._finished: list[GenerationRecord] = []
        self._past: deque[GenerationRecord] = deque(maxlen=PAST)
        self._running: dict[str, Generation] = {}
        self._intents: dict[str, Intent] = {}
        self._idle: asyncio.Future[None] | None = None

    def __repr__(self) -> str:
        return f"<Generations [{len(self._running)} in flight]>"

    def __len__(self) -> int:
        return len(self._running)

    def __iter__(self) -> Iterator[Generation]:
        return iter(tuple(self._running.values()))

    def get(self, id_: str) -> Generation | None:
        """The generation in flight with this id."""
        return self._running.get(id_)

    def past(self, id_: str) -> GenerationRecord | None:
        """The record with this id, if it is one of the last PAST."""
        return next((record for record in self._past if record.id == id_), None)

    def track(self, request: InferenceRequest, received: float) -> Generation:
        """Follow one inference: ``with generations.track(request, t0) as generation``."""
        return Generation(self, request, received)

    async def idle(self) -> None:
        """Wait until nothing is in flight. One caller at a time: the shutdown."""
        while self._running:
            self._idle = self.loop.create_future()
            await self._idle

    def named(self, name: str, whose: str | None = None) -> list[Generation | Intent]:
        """The generation with this id, or all of the session of this name, with those that are about to be. ``whose``: of this principal alone."""
        found: list[Generation | Intent] = []
        if (one := self._running.get(name)) is not None:
            found.append(one)
        else:
            found += [one for one in self._running.values() if one.request.session == name]
            waiting = [one for one in self._intents.values() if one.id not in self._running]
            found += [one for one in waiting if name in (one.id, one.session)]
        return found if whose is None else [one for one in found if one.principal == whose]

    def stop_named(
        self, name: str, source: CancelSource, why: str, *, older_than: float = 0.0, whose: str | None = None
    ) -> int:
        """End all that are ``named`` so and began at least ``older_than`` seconds ago; how many end, by this or before."""
        before = self.clock() - older_than
        meant = [one for one in self.named(name, whose) if one.received <= before]
        for one in meant:
            one.stop(source, why)
        return len(meant)

    def intend(self, id_: str, session: str, principal: str = "") -> Intent:
        """``with generations.intend(…)`` around all that comes before a generation of a session: what is said to the session is not lost."""
        return Intent(self._intents, id_, session, self.clock(), principal)

    def intended(self, id_: str) -> Intent | None:
        """Who is about to start the generation with this id."""
        return self._intents.get(id_)

    def stop_all(self, source: CancelSource, why: str) -> int:
        """End every scope; how many there were."""
        return sum(generation.stop(source, why) for generation in self)

    def enter(self, generation: Generation) -> None:
        """Put into the live view."""
        self._running[generation.request.id] = generation
        if generation.request.principal and self._tallies is not None:
            generation.stay = self._tallies.enter(generation.request.principal, generation)

    def leave(self, generation: Generation) -> GenerationRecord:
        """Take out and make the record; the sinks hear of it at the next flush."""
        del self._running[generation.request.id]
        if generation.stay is not None and self._tallies is not None:
            self._tallies.leave(generation.stay, generation.prompt_tokens, generation.usage.output_tokens)
        if self._idle is not None and not self._running and not self._idle.done():
            self._idle.set_result(None)
        if not self._finished:
            self.loop.call_later(FLUSH_SECONDS, self.flush, context=self._nobody)
        record = generation.record(self.clock(), self.wall())
        if self._tracer is not None:
            record = self._traced(self._tracer, generation, record)
        self._finished.append(record)
        self._past.append(record)
        return record

    @staticmethod
    def _traced(tracer: Tracer, generation: Generation, record: GenerationRecord) -> GenerationRecord:
        why = tracer.why(record, sampled=generation.request.trace.sampled)
        if not why:
            return record
        record = msgspec.structs.replace(record, trace_kept=True)
        tail = generation.meter.tail if generation.meter is not None else b""
        tracer.put(record, generation.request, why, tail, generation.said)
        return record

    def flush(self) -> None:
        """Tell the sinks of all that finished: together, which costs a third of telling them one by one."""
        finished, self._finished = self._finished, []
        for record in finished:
            for sink in self._sinks:
                try:
                    sink(record)
                except Exception:  # the records' supervisor: one that a sink cannot take must not cost the others
                    log.exception("a record of %s was lost", record.id)
