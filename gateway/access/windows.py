"""How much of something there was in the last minute, this day, this month. Times are passed in."""

from datetime import UTC, datetime
from typing import Final, NamedTuple

MINUTE_SECONDS: Final = 60
DAY_SECONDS: Final = 86400
_SLOTS: Final = MINUTE_SECONDS + 1


class Spent(NamedTuple):
    """What generations took."""

    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0

    @property
    def tokens(self) -> int:
        """In and out."""
        return self.input_tokens + self.output_tokens

    def plus(self, more: "Spent") -> "Spent":
        """Both."""
        return Spent(self[0] + more[0], self[1] + more[1], self[2] + more[2])


NOTHING: Final = Spent()


class Minute:
    """A sliding minute, counted by whole seconds: this second and the 60 before it. So whatever 60 seconds one looks at, no more is in them than was ever
    counted at once. ``elsewhere``: what other gateways counted in theirs. Monotonic seconds.
    """

    __slots__ = ("_last", "_second", "_slots", "elsewhere", "here")

    def __init__(self) -> None:
        self._slots = [0] * _SLOTS
        self._second = 0
        self._last = -_SLOTS  # the second in which something came last
        self.here = 0
        self.elsewhere = 0

    def used(self, now: float) -> int:
        """Everywhere, until now."""
        second = int(now)
        if second > self._second:
            self._pass(second)
        return self.all

    @property
    def all(self) -> int:
        """Everywhere, when it was last looked at."""
        used = self.here + self.elsewhere
        return used if used > 0 else 0  # noqa: FURB136 - a call a request

    def add(self, number: int, now: float) -> None:
        """Count so many more; less than nothing is a correction."""
        second = int(now)
        if second > self._second:
            self._pass(second)
        self._slots[self._second % _SLOTS] += number
        self._last = self._second
        self.here += number

    def over_seconds(self, now: float) -> float:
        """How long until nothing is counted any more, if nothing comes."""
        last = self._second if self.elsewhere else self._last
        return max(0.0, last + _SLOTS - now)

    def seconds_until(self, most: int, now: float) -> float:
        """How long until no more than ``most`` are counted, if nothing comes. What is elsewhere is taken to have come evenly."""
        here, elsewhere = self.here, self.elsewhere
        for step in range(1, _SLOTS):
            here -= self._slots[(self._second + step) % _SLOTS]
            if here + elsewhere * (_SLOTS - step) / _SLOTS <= most:
                return max(0.0, self._second + step - now)
        return max(0.0, self._second + _SLOTS - now)

    def _pass(self, second: int) -> None:
        if second - self._second >= _SLOTS:
            self._slots = [0] * _SLOTS
            self.here = 0
        else:
            for each in range(self._second + 1, second + 1):
                self.here -= self._slots[each % _SLOTS]
                self._slots[each % _SLOTS] = 0
        self._second = second


class Calendar(NamedTuple):
    """A day of UTC and its month. ``day``: days since 1970; ``first``: the month's first day; ``next_month``: the first day of the next."""

    day: int
    first: int
    next_month: int


def calendar(at: float) -> Calendar:
    """Of Unix seconds."""
    moment = datetime.fromtimestamp(at, UTC)
    day = int(at // DAY_SECONDS)
    year, month = (moment.year, moment.month + 1) if moment.month < 12 else (moment.year + 1, 1)
    after = datetime(year, month, 1, tzinfo=UTC).timestamp()
    return Calendar(day, day - moment.day + 1, int(after // DAY_SECONDS))
