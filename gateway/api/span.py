"""The time that a question is about, as its query says it: ``range``, ``from``, ``to``, ``step``. Pure."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import NamedTuple

from gateway.errors import BadRequest
from gateway.store.entries import clean

UNITS = {"m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
STEPS = (60, 300, 900, 3600, 6 * 3600, 86400)
DEFAULT_RANGE = 86400
USUAL_POINTS, MOST_POINTS = 300, 1000
BY_MINUTE_SECONDS = 6 * 3600  # longer ones are summed from hours
LAST = 10**11
DURATION = "^[1-9][0-9]{0,6}[mhdw]$"
_DURATION = re.compile(r"([1-9][0-9]{0,6})([mhdw])\Z")


class Span(NamedTuple):
    """From ``since`` until before ``until``, Unix seconds."""

    since: float
    until: float

    def widened(self, step: int) -> "Span":
        """To whole steps."""
        return Span(self.since // step * step, -(-self.until // step) * step)


def said(query: Mapping[str, str], name: str) -> str | None:
    """A word to look for, as the database can take it."""
    return clean(query[name]) if name in query else None


def span(query: Mapping[str, str], now: float) -> Span:
    """The last day where nothing is said; a range counts where from or to is missing. Raises BadRequest."""
    given = seconds(query["range"], "range") if "range" in query else None
    since = moment(query["from"], "from") if "from" in query else None
    until = moment(query["to"], "to") if "to" in query else None
    if until is None:
        until = now if since is None or given is None else since + given
    if since is None:
        since = until - (given or DEFAULT_RANGE)
    until = min(until, now)
    if since >= until:
        raise BadRequest("there is no time between from and to")
    return Span(max(0.0, since), until)


def seconds(text: str, name: str) -> int:
    """``15m``, ``24h``, ``7d``, ``2w``."""
    found = _DURATION.match(text)
    if found is None:
        raise BadRequest(f"{name}={text[:64]!r}: write it like 15m, 24h, 7d or 2w")
    return int(found[1]) * UNITS[found[2]]


def moment(text: str, name: str) -> float:
    """Unix seconds, or ISO 8601; UTC where it names no zone."""
    try:
        if re.fullmatch(r"[0-9]{1,11}(\.[0-9]{1,9})?", text):
            return float(text)
        made = datetime.fromisoformat(text.replace(" ", "+") if "T" in text else text)  # a + in a query is a space
        at = (made if made.tzinfo else made.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        raise BadRequest(f"{name}={text[:64]!r}: write it like 2026-11-22T14:00:00Z, or in Unix seconds") from None
    if not 0 <= at < LAST:
        raise BadRequest(f"{name}={text[:64]!r} is before 1970 or too far away")
    return at


def bucket_of(asked: Span, now: float, minutes_days: int) -> int:
    """60 or 3600: the buckets that a whole span is summed from."""
    short = asked.until - asked.since <= BY_MINUTE_SECONDS
    return 60 if short and asked.since >= now - minutes_days * 86400 else 3600


def step_of(query: Mapping[str, str], asked: Span, now: float, minutes_days: int) -> int:
    """Seconds between points: as asked, or so that there are some hundreds at most. Raises BadRequest."""
    length = asked.until - asked.since
    old = asked.since < now - minutes_days * 86400
    if "step" not in query:
        usual = [step for step in STEPS if length / step <= USUAL_POINTS and (step >= 3600 or not old)]
        return usual[0] if usual else -(-int(length) // (USUAL_POINTS * 86400)) * 86400
    step = seconds(query["step"], "step")
    if step > LAST:
        raise BadRequest(f"step={query['step']} is too long")
    if step > 3600 and step % 3600:
        raise BadRequest(f"step={query['step']}: over an hour, whole hours")
    if step < 3600 and old:
        raise BadRequest(f"sums by the minute are kept for {minutes_days} days: ask with step=1h or more, or for later")
    if length / step > MOST_POINTS:
        raise BadRequest(
            f"that would be {int(length / step):,} points, and {MOST_POINTS:,} are the most: a longer step, or a shorter range"
        )
    return step
