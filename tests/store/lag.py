"""How late the event loop is by its own fault: the time in which others had the processor is taken off, as the kernel counts it."""

import time
from pathlib import Path

from gateway.tasks import pause

TICK_SECONDS = 0.005
LIMIT_SECONDS = 0.010  # a 99th percentile that streams do not feel
LEAST = 20  # delays, beside the longest
_THREADS = Path("/proc/self/task")


class Lag:
    """``run`` as a task of the loop that is watched. A delay is as many late ticks as it had room for: none is left out as none could be
    measured. The one longest delay does not count: once in a while a disk holds up anybody."""

    def __init__(self) -> None:
        self._delays: list[float] = []
        self._excused = False

    async def run(self) -> None:
        """Measure for ever."""
        while True:
            began, waited = time.monotonic(), queued()
            await pause(TICK_SECONDS)
            late = time.monotonic() - began - TICK_SECONDS
            if self._excused:
                self._excused = False
                continue
            self._delays.append(late - min(late, max(0.0, queued() - waited)))

    def excuse(self) -> None:
        """The test itself has held up the loop just now."""
        self._excused = True

    @property
    def enough(self) -> bool:
        """Whether it can be told."""
        return len(self._delays) > LEAST

    def told(self) -> float:
        """The 99th percentile in seconds since this was asked last."""
        delays, self._delays = sorted(self._delays)[:-1], []
        assert len(delays) >= LEAST, "too short a time to tell"
        late = sorted(each - TICK_SECONDS * n for each in delays for n in range(1 + int(each / TICK_SECONDS)))
        return late[int(len(late) * 0.99)]


def queued() -> float:
    """Seconds that all threads of this process have spent ready to run, with no processor to run on; 0 where the kernel does not tell."""
    total = 0
    for thread in _THREADS.iterdir() if _THREADS.exists() else ():
        try:
            total += int((thread / "schedstat").read_text().split()[1])
        except OSError:  # it has ended
            continue
    return total / 1e9
