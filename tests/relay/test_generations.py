"""What is in flight: each generation leaves one record, and ends by whoever stops it first."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from gateway.dialects.lines import Framing, Meter
from gateway.record import Attempt, AttemptOutcome, CancelSource, GenerationRecord, Outcome, Phase, Usage
from gateway.relay.generations import Generation, Generations
from tests.builders import TEXT
from tests.fleet.builders import request
from tests.telemetry.builders import ROUTE

SECONDS = 5.0
WALL = 1_795_354_517.0


class Flight:
    """Generations with hand-made clocks, and what their sinks were told."""

    def __init__(self, deadline_seconds: float = 0.0) -> None:
        self.now = 100.0
        self.records: list[GenerationRecord] = []
        self.told: list[str] = []
        sinks = (self.records.append, lambda record: self.told.append(record.id))
        self.generations = Generations(
            asyncio.get_running_loop(), lambda: self.now, lambda: WALL + self.now, sinks, deadline_seconds
        )

    def track(self, id_: str = "g1", **changes: Any) -> Generation:
        """A generation received now."""
        tracked = self.generations.track(request(**changes), self.now)
        object.__setattr__(tracked, "request", _named(tracked, id_))
        return tracked

    @property
    def record(self) -> GenerationRecord:
        """The one record."""
        self.generations.flush()
        (record,) = self.records
        return record

    async def run(self, work: Callable[[Generation], Awaitable[None]], id_: str = "g1") -> bool:
        """A generation whose scope holds ``work``, as the relay runs one; whether it was stopped."""
        with self.track(id_) as generation:
            cancelled = False
            generation.open_scope()
            try:
                await work(generation)
                generation.ended(Outcome.OK)
            except asyncio.CancelledError:
                cancelled = True
            finally:
                stopped = generation.close_scope(cancelled=cancelled)
            if cancelled and not stopped:
                raise asyncio.CancelledError
            return stopped


def _named(generation: Generation, id_: str) -> Any:
    import msgspec

    return msgspec.structs.replace(generation.request, id=id_)
