"""What the shutdown waits for."""

import asyncio

from gateway.turns.busy import Busy


async def test_idle() -> None:
    """At once where nothing is under way, else once the last one has ended."""
    busy = Busy()
    await busy.idle()
    with busy:
        with busy:
            assert len(busy) == 2
            waiting = asyncio.ensure_future(busy.idle())  # noqa: TID251 - somebody who waits
        assert not waiting.done()
    await waiting
    assert len(busy) == 0
