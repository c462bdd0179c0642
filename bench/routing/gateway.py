"""A gateway as ``corral serve`` runs it, but that ties go to the first by name, as in virtual time beside it: else chance would make each run another.
Says its URL, and ends when its input does. ``python -m bench.routing.gateway CONFIG``; sockets.py starts it.
"""

import asyncio
import sys
from pathlib import Path

from gateway.app import running
from gateway.loader import load
from gateway.loop import LOOP


class First:
    """Chance that always picks the first."""

    def randrange(self, _stop: int, /) -> int:
        """Zero."""
        return 0


async def main(file: Path) -> None:
    """Until nobody is there any more."""
    async with running(load(file, {})) as gateway:
        gateway.admission._rng = First()
        print(gateway.url, flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=LOOP) as runner:
        runner.run(main(Path(sys.argv[1])))
