"""The event loop that everything of Corral's runs on."""

import asyncio
from collections.abc import Callable

LOOP: Callable[[], asyncio.AbstractEventLoop]
try:
    import uvloop

    LOOP = uvloop.new_event_loop
except ImportError:  # Windows, PyPy: asyncio's own loop serves as well, only slower
    LOOP = asyncio.new_event_loop
