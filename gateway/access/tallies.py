"""What each key has used, and whether it may go on. Decisions only; times are passed in.

A request is counted when it is let in; what is refused is not. Output tokens count as they come: who asks finds what all running streams have
said until then. Prompts, and what the host tells instead of our own count, follow when a generation ends; a prompt is free for nobody whose answer
had begun: where the host does not tell its tokens, they are estimated. Nothing that runs is cut: the next request is refused.
"""

from collections.abc import Callable, Iterable, Mapping
from math import inf
from typing import Final, NamedTuple, Protocol

from gateway.access.keys import Key, of_key
from gateway.access.limits import NO_LIMITS, Limit, Limits
from gateway.access.standings import AGAIN_SECONDS, Headers, Standing, headers, refusal
from gateway.access.windows import DAY_SECONDS, NOTHING, Calendar, Minute, Spent, calendar

SETTLE_SECONDS: Final = 0.001  # for each stream: so often they are looked at, at most
DAYS_MOST: Final = 62  # of which the last word may not be kept yet
_NO_DAY: Final = Calendar(-1, 0, 0)
_ONE_MORE: Final = Spent(1)


class Stream(Protocol):
    """What is under way."""

    @property
    def tokens(self) -> int:
        """Output tokens until now."""


class Elsewhere(NamedTuple):
    """What other gateways know of a key; ``day`` and ``month`` of a certain day. ``minute`` and ``running``: of those that are there now."""

    day: Spent = NOTHING
    month: Spent = NOTHING
    minute_requests: int = 0
    minute_tokens: int = 0
    running: int = 0


NOWHERE: Final = Elsewhere()


class Tally:
    """Of one key. ``now``: monotonic seconds; ``at``: Unix seconds."""

    __slots__ = (
        "_calendar",
        "_elsewhere",
        "_limits",
        "_month_before",
        "_policy",
        "_running",
        "_settled",
        "day",
        "days",
        "minute_requests",
        "minute_tokens",
        "name",
    )

    def __init__(self, name: str) -> None:
        self.name = name
        self.minute_requests = Minute()
        self.minute_tokens = Minute()
        self.day = NOTHING  # here
        self._month_before = NOTHING  # on the days of this month before today
        self._settled = -inf
        self._limits, self._policy = NO_LIMITS, ""
        self.days: dict[
            int, Spent
        ] = {}  # here, by day, as long as ``written`` has not said that the last word of it is kept
        self._calendar = _NO_DAY
        self._elsewhere = NOWHERE
        self._running: dict[Stay, None] = {}

    def __repr__(self) -> str:
        return f"<Tally {self.name} [{len(self._running)} under way | {self.day} today]>"

    @property
    def running(self) -> int:
        """Generations that wait or run, here."""
        return len(self._running)

    @property
    def all_running(self) -> int:
        """And elsewhere."""
        return len(self._running) + self._elsewhere.running

    @property
    def all_day(self) -> Spent:
        """This day, everywhere."""
        return self.day.plus(self._elsewhere.day)

    @property
    def all_month(self) -> Spent:
        """This month, everywhere."""
        return self.month.plus(self._elsewhere.month)

    @property
    def month(self) -> Spent:
        """This month, here."""
        return self._month_before.plus(self.day)

    @property
    def limits(self) -> Limits:
        """What may be used."""
        return self._limits

    @limits.setter
    def limits(self, limits: Limits) -> None:
        self._limits, self._policy = limits, limits.policy

    def told(self, dialect: str, now: float, at: float) -> Headers:
        """How it is with the limits, in headers."""
        return headers(self._policy, self.standings(now, at), dialect, at)

    def _day_tokens(self) -> int:
        here, there = self.day, self._elsewhere.day
        return here[1] + here[2] + there[1] + there[2]

    def _month_tokens(self) -> int:
        before, there = self._month_before, self._elsewhere.month
        return before[1] + before[2] + self.day[1] + self.day[2] + there[1] + there[2]

    def enter(self, stream: Stream) -> "Stay":
        """A generation begins; ``end`` it."""
        stay = Stay(self, stream)
        self._running[stay] = None
        return stay

    def leave(self, stay: "Stay", spent: Spent, now: float, at: float) -> None:
        """It is over; ``spent``: what is not counted yet."""
        self._running.pop(stay, None)
        self.charge(spent, now, at)

    def charge(self, spent: Spent, now: float, at: float) -> None:
        """Count what was used."""
        today = self.turn(at)
        requests, input_tokens, output_tokens = spent
        if requests:
            self.minute_requests.add(requests, now)
        if input_tokens or output_tokens:
            self.minute_tokens.add(input_tokens + output_tokens, now)
        day = self.day
        self.day = Spent(day[0] + requests, day[1] + input_tokens, day[2] + output_tokens)
        self.days[today.day] = self.day

    def settle(self, now: float, at: float) -> None:
        """Count what running streams have said until now, or until a moment ago: many streams are not looked at all the time."""
        self.turn(at)
        if not self._running or now - self._settled < len(self._running) * SETTLE_SECONDS:
            return
        self._settled = now
        said = 0
        for stay in self._running:
            said += stay.said()
        if said:
            self.charge(Spent(0, 0, said), now, at)

    def turn(self, at: float) -> Calendar:
        """The day that it is; a new one begins with nothing."""
        before = self._calendar
        if int(at // DAY_SECONDS) == before.day:
            return before
        today = self._calendar = calendar(at)
        self._month_before = self.month
        self.day = NOTHING
        self._elsewhere = self._elsewhere._replace(day=NOTHING)
        while len(self.days) > DAYS_MOST:
            del self.days[min(self.days)]
        if today.first != before.first:
            self._month_before = NOTHING
            self._elsewhere = self._elsewhere._replace(month=NOTHING)
        return today

    def hear(self, elsewhere: Elsewhere, day: int) -> None:
        """What other gateways know, as of a ``day``."""
        if day != self._calendar.day:
            elsewhere = elsewhere._replace(day=NOTHING, month=NOTHING)
        self._elsewhere = elsewhere
        self.minute_requests.elsewhere = elsewhere.minute_requests
        self.minute_tokens.elsewhere = elsewhere.minute_tokens

    def alone(self) -> None:
        """Nobody knows what others do now."""
        self.hear(Elsewhere(self._elsewhere.day, self._elsewhere.month), self._calendar.day)

    @property
    def live(self) -> tuple[int, int, int]:
        """Requests and tokens of this minute, and what waits or runs: here."""
        return self.minute_requests.here, self.minute_tokens.here, self.running

    def written(self, day: int, spent: Spent) -> None:
        """So much of a day is kept."""
        if self.days.get(day) == spent:
            del self.days[day]

    def exceeded(self, now: float, at: float) -> Limit | None:
        """The widest limit of which nothing is left."""
        limits = self.limits
        if limits.tpm or limits.day or limits.month:
            self.settle(now, at)
            if limits.month and self._month_tokens() >= limits.month:
                return "month"
            if limits.day and self._day_tokens() >= limits.day:
                return "day"
            if limits.tpm and self.minute_tokens.used(now) >= limits.tpm:
                return "tpm"
        if limits.rpm and self.minute_requests.used(now) >= limits.rpm:
            return "rpm"
        if limits.concurrency and self.all_running >= limits.concurrency:
            return "concurrency"
        return None

    def again_seconds(self, limit: Limit, now: float, at: float) -> float:
        """When there is some of a limit again of which nothing is left, as far as can be told."""
        if limit == "tpm":
            return self.minute_tokens.seconds_until(self.limits.tpm - 1, now)
        if limit == "rpm":
            return self.minute_requests.seconds_until(self.limits.rpm - 1, now)
        if limit == "concurrency":
            return AGAIN_SECONDS
        return self._renews_seconds(limit, at)

    def standings(self, now: float, at: float) -> list[Standing]:
        """How it is with each limit, the widest first."""
        limits = self._limits
        told: list[Standing] = []
        self.settle(now, at)
        if limits.month:
            told.append(("month", limits.month, self._month_tokens(), self._renews_seconds("month", at)))
        if limits.day:
            told.append(("day", limits.day, self._day_tokens(), self._renews_seconds("day", at)))
        if limits.tpm:
            told.append(("tpm", limits.tpm, self.minute_tokens.used(now), self.minute_tokens.over_seconds(now)))
        if limits.rpm:
            told.append(("rpm", limits.rpm, self.minute_requests.used(now), self.minute_requests.over_seconds(now)))
        if limits.concurrency:
            told.append(("concurrency", limits.concurrency, self.all_running, 0.0))
        return told

    def _renews_seconds(self, budget: Limit, at: float) -> float:
        today = self.turn(at)
        return (today.next_month if budget == "month" else today.day + 1) * DAY_SECONDS - at


class Stay:
    """One generation of a key, from when it is let in to its end."""

    __slots__ = ("_counted", "_stream", "_tally")

    def __init__(self, tally: Tally, stream: Stream) -> None:
        self._tally = tally
        self._stream = stream
        self._counted = 0

    def said(self) -> int:
        """Output tokens since this was asked last."""
        more = max(0, self._stream.tokens - self._counted)
        self._counted += more
        return more

    def end(self, input_tokens: int, output_tokens: int, now: float, at: float) -> None:
        """It took so much, all in all."""
        self._tally.leave(self, Spent(0, input_tokens, output_tokens - self._counted), now, at)


class Tallies:
    """Of all keys, by name. ``clock``: monotonic seconds; ``wall``: Unix seconds; ``refused`` is told whose request was, and by which limit."""

    def __init__(
        self, clock: Callable[[], float], wall: Callable[[], float], refused: Callable[[str, str], None]
    ) -> None:
        self._clock = clock
        self._wall = wall
        self._refused = refused
        self._tallies: dict[str, Tally] = {}

    def __repr__(self) -> str:
        return f"<Tallies [{len(self._tallies)} keys]>"

    def configure(self, keys: Iterable[Key]) -> None:
        """These keys and their limits from now on; of several of one name, the last one's. What is not kept yet of others stays until it is."""
        limits = {key.name: key.limits for key in keys}
        self._tallies = {
            name: tally for name, tally in self._tallies.items() if name in limits or tally.running or tally.days
        }
        for name in {*limits, *self._tallies}:
            self.of(name).limits = limits.get(name, NO_LIMITS)

    def of(self, name: str) -> Tally:
        """A key's; also of a person's name behind it (``app/ann``)."""
        tally = self._tallies.get(name)
        if tally is None:
            key = of_key(name)
            tally = self._tallies.get(key)
            if tally is None:
                tally = self._tallies[key] = Tally(key)
        return tally

    def all(self) -> list[Tally]:
        """Everybody's, as it is now."""
        now, at = self._clock(), self._wall()
        for tally in self._tallies.values():
            tally.settle(now, at)
            tally.minute_requests.used(now)
            tally.minute_tokens.used(now)
        return list(self._tallies.values())

    def admit(self, name: str, dialect: str) -> None:
        """Let one request in, and count it. Raises RateLimited, in whose headers a ``dialect`` says how it is."""
        now, at = self._clock(), self._wall()
        tally = self.of(name)
        limit = tally.exceeded(now, at)
        if limit is not None:
            self._refused(tally.name, limit)
            again_seconds = tally.again_seconds(limit, now, at)
            raise refusal(tally.name, limit, tally.limits.quota(limit), again_seconds, tally.told(dialect, now, at))
        tally.charge(_ONE_MORE, now, at)

    def told(self, name: str, dialect: str) -> Headers:
        """How it is with its limits, in headers; none without limits."""
        tally = self.of(name)
        if not tally.limits.limited:
            return ()
        return tally.told(dialect, self._clock(), self._wall())

    def standings(self, name: str) -> list[Standing]:
        """How it is with each limit of a key."""
        return self.of(name).standings(self._clock(), self._wall())

    def enter(self, name: str, stream: Stream) -> Stay:
        """A generation of this key begins."""
        return self.of(name).enter(stream)

    def leave(self, stay: Stay, input_tokens: int, output_tokens: int) -> None:
        """It is over, and took so much."""
        stay.end(input_tokens, output_tokens, self._clock(), self._wall())

    def hear(self, told: Mapping[str, Elsewhere], day: int) -> None:
        """What other gateways know of each key, as of a ``day``; nothing of those that are not named."""
        for name, tally in self._tallies.items():
            tally.hear(told.get(name, NOWHERE), day)

    def alone(self) -> None:
        """Nobody knows what others do now; what they had used of budgets they have used."""
        for tally in self._tallies.values():
            tally.alone()
