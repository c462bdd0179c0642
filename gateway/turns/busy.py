"""How much is still being kept: the shutdown waits for it."""

import asyncio
from types import TracebackType
from typing import Self


class Busy:
    """``with busy:`` around what has to end before the gateway does."""

    def __init__(self) -> None:
        self._count = 0
        self._idle = asyncio.Event()
        self._idle.set()

    def __len__(self) -> int:
        return self._count

    def __enter__(self) -> Self:
        self._count += 1
        self._idle.clear()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._count -= 1
        if not self._count:
            self._idle.set()

    async def idle(self) -> None:
        """Wait until nothing is left."""
        await self._idle.wait()
