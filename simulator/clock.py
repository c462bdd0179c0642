"""Time as a simulated host sees it, and the only place where one waits for it to pass."""

import asyncio
import time
from datetime import UTC, datetime

_TOKENS_PER_TURN = 32
"""How many late tokens may follow each other before the event loop gets a turn."""


def now() -> float:
    """Monotonic seconds."""
    return time.monotonic()


def now_ns() -> int:
    """Monotonic nanoseconds."""
    return time.monotonic_ns()


async def wait_until(deadline: float) -> None:
    """Return at `deadline` (monotonic seconds); when it has passed, after one turn of the event loop."""
    await asyncio.sleep(max(0.0, deadline - time.monotonic()))  # noqa: TID251  simulated work takes real time


class Pace:
    """Lets the k-th token go at start + k / rate, whatever was late before, with no timer for a token that is due."""

    def __init__(self, start: float, per_second: float) -> None:
        self._start = start
        self._per_second = per_second
        self._late = 0

    async def token(self, k: int) -> None:
        """Return when token `k` (from 0) is due."""
        due = self._start + k / self._per_second
        if due > time.monotonic():
            self._late = 0
            await wait_until(due)
            return
        self._late += 1
        if self._late >= _TOKENS_PER_TURN:
            self._late = 0
            await wait_until(due)


def rfc3339(nanoseconds: int) -> str:
    """A UTC time (nanoseconds since 1970) as Go prints it: trailing zeros of the fraction left out."""
    seconds, fraction = divmod(nanoseconds, 1_000_000_000)
    whole = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{whole}.{fraction:09d}".rstrip("0").rstrip(".") + "Z"


class Stamps:
    """`created_at` values, cheap enough for one per token: the text of a second is made once."""

    def __init__(self) -> None:
        self._second = -1
        self._text = b""

    def now(self) -> bytes:
        """The time now as RFC 3339 with nanoseconds, in bytes."""
        seconds, fraction = divmod(time.time_ns(), 1_000_000_000)
        if seconds != self._second:
            self._second = seconds
            self._text = rfc3339(seconds * 1_000_000_000)[:-1].encode()
        return b"%b.%09dZ" % (self._text, fraction or 1)
