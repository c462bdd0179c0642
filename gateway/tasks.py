"""Background tasks: each has a name and an owner, and none dies unheard."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

log = logging.getLogger(__name__)


class Tasks:
    """Owns named tasks. A task that fails is logged and counted in ``failures``; ``close`` cancels what still runs."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[None]] = set()
        self.failures = 0

    def __len__(self) -> int:
        return len(self._running)

    def spawn(self, name: str, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run ``coroutine`` as a task called ``name`` that lives no longer than its owner."""
        task = asyncio.get_running_loop().create_task(coroutine, name=name)
        self._running.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.failures += 1
            log.error("task %s failed", task.get_name(), exc_info=error)

    async def close(self) -> None:
        """Cancel all tasks and wait until they are gone."""
        for task in tuple(self._running):
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)


async def supervise(
    name: str, step: Callable[[], Coroutine[Any, Any, None]], pause: Callable[[], Coroutine[Any, Any, None]]
) -> None:
    """Run ``step`` for ever with ``pause`` between; a step that raises is logged and tried again after the pause.

    This is the one place where any exception is caught: a loop that must survive the night.
    """
    while True:
        try:
            await step()
        except Exception:
            log.exception("%s failed; trying again", name)
        await pause()


async def pause(seconds: float, event: asyncio.Event | None = None) -> bool:
    """Wait for so long, or until ``event``; whether that came."""
    try:
        async with asyncio.timeout(seconds):
            await (event or asyncio.Event()).wait()
    except TimeoutError:
        return False
    return True
