"""Work on whole histories, beside the event loop: what a session of 20 MB takes would be seen in everybody else's stream."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class Aside:
    """One thread at a time: several would take each other's turn, and the loop's."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()

    async def do(self, work: Callable[[], T]) -> T:
        """What ``work`` returns; it shares nothing with the loop while it runs."""
        async with self._turn:
            return await asyncio.to_thread(work)
