"""Work beside the event loop."""

import asyncio
import threading

import pytest

from gateway.turns.aside import Aside


async def test_one_at_a_time_and_not_on_the_loop() -> None:
    """While one works the loop goes on and the next one waits; what goes wrong is the caller's to know."""
    aside, began, go_on = Aside(), threading.Event(), threading.Event()
    threads: list[int] = []

    def first() -> str:
        threads.append(threading.get_ident())
        began.set()
        assert go_on.wait(10)
        return "first"

    def second() -> None:
        threads.append(threading.get_ident())
        assert go_on.is_set()
        raise ValueError("second")

    one = asyncio.get_running_loop().create_task(aside.do(first))
    two = asyncio.get_running_loop().create_task(aside.do(second))
    await asyncio.to_thread(began.wait, 10)
    assert len(threads) == 1
    go_on.set()
    assert await one == "first"
    with pytest.raises(ValueError, match="second"):
        await two
    assert threading.get_ident() not in threads
