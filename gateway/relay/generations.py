"""What is in flight. A Generation is one tracked inference, from receipt to record, and its cancellation scope.

However it ends, leaving ``with generations.track(…)`` makes exactly one GenerationRecord, synchronously, and hands it to the sinks.
Operator, session, deadline and shutdown end a generation through its scope: ``stop`` cancels the task, and leaving the ``with``
turns that into Stopped. A client that leaves cancels the task itself, and that stays a CancelledError.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Self

from gateway.dialects.lines import Meter
from gateway.dialects.request import InferenceRequest
from gateway.record import Attempt, CancelSource, GenerationRecord, Outcome, Phase, Route, Usage

Sink = Callable[[GenerationRecord], None]
_STOPPED_OUTCOME = {CancelSource.DEADLINE: Outcome.TIMEOUT}


class Stopped(Exception):
    """The generation's scope was ended; ``source`` says by whom."""

    def __init__(self, source: CancelSource, why: str) -> None:
        super().__init__(why)
        self.source = source
        self.why = why


class Generation:
    """One tracked inference. Mutable, owned by the task that runs it; others only look, or call ``stop``."""

    __slots__ = (
        "_cancelling", "_deadline", "_owner", "_task", "attempts", "bytes_out", "cancel_noticed", "cancelled_by", "chunks", "cold",
        "first_byte", "last_byte", "leased", "max_gap", "meter", "outcome", "phase", "queued_seconds", "queued_since", "reason",
        "received", "received_at", "request", "route", "status", "usage",
    )  # fmt: skip

    def __init__(self, owner: "Generations", request: InferenceRequest, received: float, received_at: float) -> None:
        self._owner = owner
        self._task: asyncio.Task[object] | None = None
        self._cancelling = 0
        self._deadline: asyncio.TimerHandle | None = None
        self.request = request
        self.received = received
        self.received_at = received_at
        self.phase = Phase.QUEUED
        self.route: Route | None = None
        self.attempts: list[Attempt] = []
        self.meter: Meter | None = None
        self.cold = False
        self.queued_since = received
        self.queued_seconds = 0.0
        self.leased: float | None = None
        self.first_byte: float | None = None
        self.last_byte: float | None = None
        self.max_gap = 0.0
        self.chunks = 0
        self.bytes_out = 0
        self.status = 0
        self.usage = Usage()
        self.outcome: Outcome | None = None
        self.reason = ""
        self.cancelled_by: CancelSource | None = None
        self.cancel_noticed: float | None = None

    def __repr__(self) -> str:
        return f"<Generation {self.request.id} [{self.request.model} | {self.phase}]>"

    @property
    def id(self) -> str:
        """The id, unique and sortable by time."""
        return self.request.id

    @property
    def host(self) -> str | None:
        """Where it runs now."""
        return self.route.host if self.route and self.phase is not Phase.QUEUED else None

    @property
    def tokens(self) -> int:
        """Output tokens that have passed so far, as counted."""
        endpoint = self.request.endpoint
        return max(0, self.meter.newlines // endpoint.lines_per_event - endpoint.preamble_events) if self.meter else 0

    def ended(self, outcome: Outcome, reason: str = "") -> None:
        """Say how it ended. The first word counts."""
        if self.outcome is None:
            self.outcome, self.reason = outcome, reason

    def stop(self, source: CancelSource, why: str) -> bool:
        """End the scope. Idempotent; False if it had ended or was being stopped already."""
        if self.cancelled_by is not None or self._task is None or self.outcome is not None:
            return False
        self.cancelled_by, self.reason = source, why
        self.cancel_noticed = self._owner.clock()
        self._task.cancel()
        return True

    # -- the scope -------------------------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        self._task = asyncio.current_task()
        assert self._task is not None
        self._cancelling = self._task.cancelling()
        if seconds := self._owner.deadline_seconds:
            left = max(0.0, seconds - (self._owner.clock() - self.received))
            self._deadline = asyncio.get_running_loop().call_later(
                left, self.stop, CancelSource.DEADLINE, f"took longer than {seconds:g} s"
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        task, self._task = self._task, None
        if self._deadline is not None:
            self._deadline.cancel()
        if self.cancelled_by is None:
            if kind is not None and issubclass(kind, asyncio.CancelledError):
                self.cancelled_by, self.cancel_noticed = CancelSource.CLIENT, self._owner.clock()
            return
        assert task is not None
        if task.uncancel() <= self._cancelling and kind is not None and issubclass(kind, asyncio.CancelledError):
            raise Stopped(self.cancelled_by, self.reason) from None

    def record(self, now: float) -> GenerationRecord:
        """The frozen facts at the end."""
        outcome = self.outcome
        if outcome is None:
            outcome = Outcome.GATEWAY_ERROR
            if self.cancelled_by is not None:
                outcome = _STOPPED_OUTCOME.get(self.cancelled_by, Outcome.CANCELLED)
                self.reason = self.reason or "the client left"
        request = self.request
        cancelled = outcome in (Outcome.CANCELLED, Outcome.TIMEOUT)
        return GenerationRecord(
            id=request.id,
            dialect=request.endpoint.dialect,
            endpoint=request.endpoint.path,
            operation=request.endpoint.operation,
            requested_model=request.requested_model,
            model=request.model,
            stream=request.stream,
            session=request.session,
            client=request.client,
            outcome=outcome,
            reason=self.reason,
            phase=Phase.DONE if outcome is Outcome.OK else self.phase,
            cancelled_by=self.cancelled_by if cancelled else None,
            status=self.status,
            route=self.route,
            attempts=tuple(self.attempts),
            cold=self.cold,
            usage=self.usage,
            chunks=self.chunks,
            bytes_in=len(request.body),
            bytes_out=self.bytes_out,
            max_gap_seconds=self.max_gap,
            received_at=self.received_at,
            received=self.received,
            queued_seconds=self.queued_seconds,
            leased=self.leased,
            first_byte=self.first_byte,
            last_byte=self.last_byte,
            cancel_noticed=self.cancel_noticed if cancelled else None,
            ended=now,
        )


class Generations:
    """All that is in flight, by id. ``deadline_seconds``: the longest a generation may take; 0: no bound."""

    def __init__(
        self,
        clock: Callable[[], float],
        wall: Callable[[], float],
        sinks: Iterable[Sink],
        deadline_seconds: float = 0.0,
    ) -> None:
        self.clock = clock
        self.wall = wall
        self.deadline_seconds = deadline_seconds
        self._sinks = tuple(sinks)
        self._running: dict[str, Generation] = {}
        self._idle = asyncio.Event()
        self._idle.set()

    def __repr__(self) -> str:
        return f"<Generations [{len(self._running)} in flight]>"

    def __len__(self) -> int:
        return len(self._running)

    def __iter__(self) -> Iterator[Generation]:
        return iter(tuple(self._running.values()))

    def get(self, id_: str) -> Generation | None:
        """The generation in flight with this id."""
        return self._running.get(id_)

    def track(self, request: InferenceRequest, received: float) -> "_Tracking":
        """Follow one inference: ``with generations.track(request, t0) as generation``."""
        return _Tracking(self, Generation(self, request, received, self.wall() - (self.clock() - received)))

    async def idle(self) -> None:
        """Wait until nothing is in flight."""
        await self._idle.wait()

    def stop_all(self, source: CancelSource, why: str) -> int:
        """End every scope; how many there were."""
        return sum(generation.stop(source, why) for generation in self)

    def enter(self, generation: Generation) -> None:
        """Put into the live view."""
        self._running[generation.id] = generation
        self._idle.clear()

    def leave(self, generation: Generation) -> None:
        """Take out, make the record, tell the sinks."""
        del self._running[generation.id]
        if not self._running:
            self._idle.set()
        record = generation.record(self.clock())
        for sink in self._sinks:
            sink(record)


class _Tracking:
    __slots__ = ("_generation", "_owner")

    def __init__(self, owner: Generations, generation: Generation) -> None:
        self._owner = owner
        self._generation = generation

    def __enter__(self) -> Generation:
        self._owner.enter(self._generation)
        return self._generation

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._owner.leave(self._generation)
