"""What keys have used of their limits and budgets, and what is left."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated

import msgspec
from aiohttp import web

from gateway.access.gate import Gate, Principal
from gateway.access.keys import Key
from gateway.access.limits import Limit
from gateway.access.rights import KeyRole
from gateway.access.standings import Standing
from gateway.access.tallies import Tallies, Tally
from gateway.access.windows import DAY_SECONDS, Spent, calendar
from gateway.api.handler import handler
from gateway.dialects.urgency import in_words
from gateway.doc import doc
from gateway.keyconfig import PriorityWord


class Used(msgspec.Struct, frozen=True):
    """What requests took."""

    requests: Annotated[int, doc("those that were let in")]
    input_tokens: Annotated[int, doc("of prompts, once their answer has ended")]
    output_tokens: Annotated[int, doc("of answers, those included that are being said")]


class LimitRow(msgspec.Struct, frozen=True):
    """One limit, and how it is with it."""

    limit: Annotated[
        Limit, doc("`rpm`, `tpm`: requests and tokens of a minute; `concurrency`; `day`, `month`: tokens of a budget")
    ]
    quota: Annotated[int, doc("how much there is")]
    used: Annotated[int, doc("how much of it is used now, at all gateways")]
    left: Annotated[int, doc("how much is left")]
    renews_at: Annotated[
        str | None,
        doc("when all of it is there again if nothing comes, in UTC, ISO 8601; null: it is, or nobody knows"),
    ]


class KeyUsage(msgspec.Struct, frozen=True):
    """What one key has used, at all gateways on the database."""

    name: Annotated[str, doc("whose key it is")]
    role: Annotated[KeyRole | None, doc("what it is for; null: it is there no more")]
    priority: Annotated[PriorityWord, doc("the most urgent that its requests can be")]
    share: Annotated[float, doc("its weight in the waiting room")]
    running: Annotated[int, doc("requests that wait or run")]
    minute_requests: Annotated[int, doc("in the last 60 seconds")]
    minute_tokens: Annotated[int, doc("in the last 60 seconds")]
    day: Annotated[Used, doc("of this day, of UTC")]
    month: Annotated[Used, doc("of this month, of UTC")]
    limits: Annotated[list[LimitRow], doc("those that it has, the widest first")]


class KeyUsages(msgspec.Struct, frozen=True):
    """What keys have used."""

    at: Annotated[str, doc("now, in UTC, ISO 8601")]
    day_since: Annotated[str, doc("when this day began")]
    month_since: Annotated[str, doc("when this month began")]
    keys: Annotated[list[KeyUsage], doc("by name")]


class UsageApi:
    """The handler of ``/api/usage``. ``wall``: Unix seconds."""

    def __init__(self, gate: Gate, tallies: Tallies, wall: Callable[[], float]) -> None:
        self._gate = gate
        self._tallies = tallies
        self._wall = wall

    def routes(self) -> list[web.RouteDef]:
        """The one path."""
        return [web.get("/api/usage", self.all)]

    @handler()
    async def all(self, who: Principal) -> KeyUsages:
        """What keys have used of their limits and budgets, and what is left: one's own, or everybody's for operators. It is counted from memory: at once what
        this gateway let in, within a second what others did."""
        at, keys = self._wall(), {key.name: key for key in self._gate.keys}
        today = calendar(at)
        rows = [
            _row(tally, keys.get(tally.name), self._tallies.standings(tally.name), at)
            for tally in sorted(self._tallies.all(), key=lambda one: one.name)
            if who.sees(tally.name) or tally.name == who.key
        ]
        return KeyUsages(_moment(at), _moment(today.day * DAY_SECONDS), _moment(today.first * DAY_SECONDS), rows)


def _row(tally: Tally, key: Key | None, standings: list[Standing], at: float) -> KeyUsage:
    return KeyUsage(
        tally.name,
        key.role if key else None,
        in_words(tally.limits.priority),
        tally.limits.share,
        tally.all_running,
        tally.minute_requests.all,
        tally.minute_tokens.all,
        _used(tally.all_day),
        _used(tally.all_month),
        [_limit(each, at) for each in standings],
    )


def _limit(each: Standing, at: float) -> LimitRow:
    limit, quota, used, renews_seconds = each
    renews = _moment(round(at + renews_seconds)) if renews_seconds else None
    return LimitRow(limit, quota, used, max(0, quota - used), renews)


def _used(spent: Spent) -> Used:
    return Used(spent.requests, max(0, spent.input_tokens), max(0, spent.output_tokens))


def _moment(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")
