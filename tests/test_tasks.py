"""Background tasks: named, owned, never lost, and never dying unheard."""

import asyncio
import logging

import pytest

from gateway.tasks import Tasks, supervise

SECONDS = 5.0


async def forever() -> None:
    """Wait until cancelled."""
    await asyncio.get_running_loop().create_future()


async def turn() -> None:
    """Let everything run that can run now."""
    loop = asyncio.get_running_loop()
    future = loop.create_future()
    loop.call_soon(future.set_result, None)
    await future


async def test_a_task_has_a_name_and_an_owner() -> None:
    """As long as it runs."""
    tasks = Tasks()
    done = asyncio.Event()

    async def work() -> None:
        done.set()

    task = tasks.spawn("work", work())
    assert (task.get_name(), len(tasks)) == ("work", 1)
    async with asyncio.timeout(SECONDS):
        await task
    assert done.is_set()
    assert (len(tasks), tasks.failures) == (0, 0)


async def test_closing_ends_what_runs() -> None:
    """And waits until it is gone, also if it takes its time; a cancellation is no failure."""
    tasks = Tasks()
    ended: list[str] = []

    async def slow() -> None:
        try:
            await forever()
        finally:
            await turn()
            ended.append("slow")

    running = [tasks.spawn("one", forever()), tasks.spawn("two", slow())]
    await turn()
    async with asyncio.timeout(SECONDS):
        await tasks.close()
    assert all(task.cancelled() for task in running)
    assert (ended, len(tasks), tasks.failures) == (["slow"], 0, 0)
    await tasks.close()


async def test_a_task_that_fails_is_heard(caplog: pytest.LogCaptureFixture) -> None:
    """It is logged with its name and its traceback, and counted; the others go on."""
    tasks = Tasks()

    async def fail() -> None:
        raise ZeroDivisionError("by nobody")

    other = tasks.spawn("other", forever())
    failing = tasks.spawn("failing", fail())
    await asyncio.wait([failing])
    assert (tasks.failures, len(tasks), other.done()) == (1, 1, False)
    (record,) = caplog.records
    assert (record.levelno, record.getMessage()) == (logging.ERROR, "task failing failed")
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], ZeroDivisionError)
    await tasks.close()


async def test_a_loop_survives_its_steps(caplog: pytest.LogCaptureFixture) -> None:
    """A step that raises is logged and tried again after the pause."""
    steps, pauses = 0, 0
    enough = asyncio.Event()

    async def step() -> None:
        nonlocal steps
        steps += 1
        if steps == 4:
            enough.set()
            await forever()
        if steps != 2:
            raise ZeroDivisionError

    async def pause() -> None:
        nonlocal pauses
        pauses += 1

    tasks = Tasks()
    tasks.spawn("loop", supervise("loop", step, pause))
    async with asyncio.timeout(SECONDS):
        await enough.wait()
    await tasks.close()
    assert (steps, pauses, tasks.failures) == (4, 3, 0)
    assert [record.getMessage() for record in caplog.records] == ["loop failed; trying again"] * 2


async def test_a_loop_ends_when_it_is_cancelled() -> None:
    """In its step or in its pause."""

    async def nothing() -> None:
        return

    for step, pause in ((forever, nothing), (nothing, forever)):
        tasks = Tasks()
        task = tasks.spawn("loop", supervise("loop", step, pause))
        await turn()
        async with asyncio.timeout(SECONDS):
            await tasks.close()
        assert task.cancelled()
