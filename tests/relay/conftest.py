"""Connections lean on their event loop: they are tested on that of production and on asyncio's own."""

import asyncio
from collections.abc import Callable

import pytest

from gateway.loop import LOOP


def pytest_asyncio_loop_factories(item: pytest.Item) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Both loops."""
    return {"production": LOOP, "asyncio": asyncio.new_event_loop}
