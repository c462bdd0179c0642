"""Virtual time: what happens next, and nothing in between."""

import heapq
from collections.abc import Callable


class Agenda:
    """Calls that are due at a time, in order; equal times in the order in which they were asked for."""

    def __init__(self) -> None:
        self.now = 0.0
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0

    def at(self, time: float, call: Callable[[], None]) -> None:
        """Have ``call`` made at ``time``, or now if that is over."""
        self._count += 1
        heapq.heappush(self._due, (max(time, self.now), self._count, call))

    def run(self) -> None:
        """Until nothing is due."""
        while self._due:
            self.now, _, call = heapq.heappop(self._due)
            call()
