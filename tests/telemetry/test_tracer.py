"""Traces on their way: how many may wait."""

import asyncio
import threading
from collections import Counter
from collections.abc import Sequence

from gateway.config import TracingConfig
from gateway.record import Trace
from gateway.telemetry.spans import Span
from gateway.telemetry.tracing import TRACES_LIMIT, Tracer
from tests.fleet.builders import request
from tests.telemetry.builders import RECORD

SPANS = 1 + len(RECORD.attempts)


class Hanging:
    """A collector that takes nothing until ``go_on`` is set. ``holds``: the thread waits for it; ``full``: it took TRACES_LIMIT."""

    why = ""

    def __init__(self) -> None:
        self.holds, self.go_on, self.full = threading.Event(), threading.Event(), threading.Event()
        self.spans = 0

    def export(self, spans: Sequence[Span]) -> bool:
        """Once it may."""
        self.holds.set()
        self.go_on.wait()
        self.spans += len(spans)
        if self.spans >= TRACES_LIMIT * SPANS:
            self.full.set()
        return True

    def close(self) -> None:
        """Nothing is left to give up."""

    def unhush(self) -> None:
        """Nothing was hushed."""


async def test_so_many_wait_and_no_more() -> None:
    """With those that the thread has taken, however often it was handed some; what is sent makes room again."""
    loop, collector, dropped = asyncio.get_running_loop(), Hanging(), Counter[str]()

    def drop(reason: str, spans: int) -> None:
        dropped[reason] += spans

    tracer = Tracer(TracingConfig(mode="all"), collector, loop, lambda _: "http://gpu1:11434", drop)
    asked = request(trace=Trace("a" * 32, "b" * 16))
    for number in range(3 * TRACES_LIMIT):
        tracer.put(RECORD, asked, "all", b"", b"")
        if number % 1000 == 0:
            tracer.flush()
    assert dropped == {"queue_full": 2 * TRACES_LIMIT * SPANS}
    assert await asyncio.to_thread(collector.holds.wait, 10.0)
    collector.go_on.set()
    tracer.flush()
    assert await asyncio.to_thread(collector.full.wait, 10.0)
    await tracer.close()
    assert collector.spans == TRACES_LIMIT * SPANS
    tracer.put(RECORD, asked, "all", b"", b"")
    assert dropped == {"queue_full": 2 * TRACES_LIMIT * SPANS}
