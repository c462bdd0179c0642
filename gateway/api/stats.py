"""What was: sums over time, by model, by host, and what went wrong. All from sums: nothing here reads single requests."""

import asyncio
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
from aiohttp import web
from msgspec import UNSET, UnsetType

from gateway.access.gate import Principal
from gateway.api.handler import handler
from gateway.api.span import DURATION, Span, bucket_of, said, span, step_of
from gateway.dialects.names import canonical
from gateway.doc import doc
from gateway.errors import NotAllowed, NotFound, StoreSlow, StoreUnavailable
from gateway.record import Outcome
from gateway.store.stats import Percentiles, Stats, Total, Wanted

MOST_ROWS = 500
WHO = ("model", "host", "principal")
ERRORS = (NotFound, StoreUnavailable, StoreSlow)
_RENAMED = {"from_": "from"}
Ended = Literal[
    "failed", "ok", "client_error", "upstream_error", "timeout", "no_host", "rejected", "cancelled", "gateway_error"
]


class When(msgspec.Struct, frozen=True, rename=_RENAMED):
    """The time a question is about."""

    range: (
        Annotated[str, doc("like 15m, 24h, 7d or 2w; where from or to is not given", pattern=DURATION)] | UnsetType
    ) = UNSET
    from_: (
        Annotated[str, doc("ISO 8601, UTC where it names no zone, or Unix seconds; usually a day before `to`")]
        | UnsetType
    ) = UNSET
    to: Annotated[str, doc("idem; usually now")] | UnsetType = UNSET


class WhenAndWho(When, frozen=True, rename=_RENAMED):
    """And whom."""

    model: Annotated[str, doc("a model's name")] | UnsetType = UNSET
    host: Annotated[str, doc("a host's name")] | UnsetType = UNSET
    principal: Annotated[str, doc("whose requests")] | UnsetType = UNSET
    outcome: Annotated[Ended, doc("one of them, or `failed`: all but `ok`")] | UnsetType = UNSET


class InSteps(WhenAndWho, frozen=True, rename=_RENAMED):
    """And in what steps."""

    step: (
        Annotated[
            str,
            doc("like 1m, 5m or 1h, 1,000 points at most; usually so that there are some hundreds", pattern=DURATION),
        ]
        | UnsetType
    ) = UNSET


class Seconds(msgspec.Struct, frozen=True):
    """How long it took, in seconds; percentiles to within a few percent, null where too few requests stand behind them."""

    count: Annotated[int, doc("of how many requests")]
    mean: Annotated[float | None, doc("on average")]
    p50: Annotated[float | None, doc("the median")]
    p95: Annotated[float | None, doc("of 20 requests or more")]
    p99: Annotated[float | None, doc("of 100 requests or more")]


class Numbers(msgspec.Struct, frozen=True):
    """Sums over some requests."""

    requests: Annotated[int, doc("how many")]
    outcomes: Annotated[dict[str, int], doc("how many of each outcome")]
    cancelled: Annotated[int, doc("how many were cancelled")]
    attempts: Annotated[int, doc("tries on hosts")]
    cold_loads: Annotated[int, doc("requests whose host had to load the model")]
    input_tokens: Annotated[int, doc("tokens of prompts")]
    output_tokens: Annotated[int, doc("tokens of answers")]
    wasted_tokens: Annotated[int, doc("of answers that were cancelled, timed out or broke off")]
    tokens_per_second: Annotated[float | None, doc("of decoding, as hosts told it")]
    queue_seconds: Annotated[float | None, doc("wait for a slot, on average")]
    ttft: Annotated[Seconds, doc("to the first token, of streams")]
    duration: Annotated[Seconds, doc("of those that went well")]


class AskedTime(msgspec.Struct, frozen=True):
    """The time that was summed up."""

    since: Annotated[str, doc("from then, UTC: the time asked for in whole minutes, hours or steps")]
    until: Annotated[str, doc("until before then")]


class Summary(Numbers, frozen=True):
    """Sums over all requests of a time."""

    since: Annotated[str, doc("from then, UTC: the time asked for in whole minutes or hours")]
    until: Annotated[str, doc("until before then")]


class Point(Numbers, frozen=True):
    """Sums over one step."""

    at: Annotated[str, doc("when it begins, UTC")]


class Series(AskedTime, frozen=True):
    """Sums over each step of a time."""

    step_seconds: Annotated[int, doc("from point to point")]
    points: Annotated[list[Point], doc("oldest first, those included in which nothing happened")]


class ModelNumbers(Numbers, frozen=True):
    """Sums over one model's requests."""

    model: Annotated[str, doc("its name; `_unknown`: names that no host had")]


class ByModel(AskedTime, frozen=True):
    """Sums by model."""

    models: Annotated[list[ModelNumbers], doc("the busiest first, 500 at most")]


class HostNumbers(Numbers, frozen=True):
    """Sums over the requests that one host served."""

    host: Annotated[str | None, doc("its name; null: no host was reached")]


class ByHost(AskedTime, frozen=True):
    """Sums by host."""

    hosts: Annotated[list[HostNumbers], doc("the busiest first, 500 at most")]


class PrincipalNumbers(Numbers, frozen=True):
    """Sums over the requests of one key."""

    principal: Annotated[str, doc("whose key it was; empty: there was none")]


class ByPrincipal(AskedTime, frozen=True):
    """Sums by key."""

    principals: Annotated[list[PrincipalNumbers], doc("the busiest first, 500 at most")]


class Failure(msgspec.Struct, frozen=True):
    """What did not go well, how often."""

    outcome: Annotated[str, doc("how it ended")]
    model: Annotated[str, doc("the model; `_unknown`: names that no host had")]
    host: Annotated[str | None, doc("the host; null: none was reached")]
    requests: Annotated[int, doc("how many")]
    output_tokens: Annotated[int, doc("generated all the same")]


class Failures(AskedTime, frozen=True):
    """All that did not go well."""

    errors: Annotated[list[Failure], doc("most first, 500 at most")]


class Question(NamedTuple):
    """A question as it is put to the database: ``bucket`` seconds, which ``span`` is whole ones of."""

    span: Span
    wanted: Wanted
    bucket: int


def question(query: WhenAndWho, who: Principal, now: float, minutes_days: int) -> Question:
    """What is asked about a whole span. Raises BadRequest."""
    given = theirs(who, _given(query))
    asked = span(given, now)
    bucket = bucket_of(asked, now, minutes_days)
    asked = asked.widened(bucket)
    return Question(asked, _wanted(given, asked), bucket)


def question_in_steps(query: InSteps, who: Principal, now: float, minutes_days: int) -> Question:
    """What is asked about each step of a span: ``bucket`` is the step. Raises BadRequest."""
    given = theirs(who, _given(query))
    asked = span(given, now)
    step = step_of(given, asked, now, minutes_days)
    asked = asked.widened(step)
    return Question(asked, _wanted(given, asked), step)


class StatsApi:
    """Handlers of ``/api/stats``. ``minutes_days``: how long sums by the minute are kept; ``wall``: Unix seconds."""

    def __init__(self, stats: Stats | None, minutes_days: int, wall: Callable[[], float]) -> None:
        self._kept = stats
        self._minutes_days = minutes_days
        self._wall = wall

    def routes(self) -> list[web.RouteDef]:
        """All GET."""
        return [
            web.get("/api/stats/summary", self.summary),
            web.get("/api/stats/timeseries", self.timeseries),
            web.get("/api/stats/models", self.models),
            web.get("/api/stats/hosts", self.hosts),
            web.get("/api/stats/principals", self.principals),
            web.get("/api/stats/errors", self.errors),
        ]

    @property
    def _stats(self) -> Stats:
        if self._kept is None:
            raise NotFound("nothing is kept here: database.url is 'none'")
        return self._kept

    @handler(*ERRORS)
    async def summary(self, query: WhenAndWho, who: Principal) -> Summary:
        """Everything summed up. From minutes up to six hours, from hours beyond: `since` and `until` say what that came to."""
        asked = self._asked(query, who)
        totals = await self._stats.totals(asked.wanted, asked.bucket)
        return Summary(**when(asked.span), **numbers(totals.get("", Total())))

    @handler(*ERRORS)
    async def timeseries(self, query: InSteps, who: Principal) -> Series:
        """Sums over each step of a time."""
        asked = question_in_steps(query, who, self._wall(), self._minutes_days)
        found = await self._stats.series(asked.wanted, asked.bucket)
        points = await asyncio.to_thread(_points, found, asked.span, asked.bucket)
        return Series(**when(asked.span), step_seconds=asked.bucket, points=points)

    @handler(*ERRORS)
    async def models(self, query: WhenAndWho, who: Principal) -> ByModel:
        """Sums by model, the busiest first."""
        asked, found = await self._by(query, who, "model")
        return ByModel(**when(asked), models=[ModelNumbers(model=name, **numbers(total)) for name, total in found])

    @handler(*ERRORS)
    async def hosts(self, query: WhenAndWho, who: Principal) -> ByHost:
        """Sums by host, the busiest first."""
        asked, found = await self._by(query, who, "host")
        return ByHost(**when(asked), hosts=[HostNumbers(host=name or None, **numbers(total)) for name, total in found])

    @handler(*ERRORS)
    async def principals(self, query: WhenAndWho, who: Principal) -> ByPrincipal:
        """Sums by key, the busiest first; its own for a user."""
        asked, found = await self._by(query, who, "principal")
        rows = [PrincipalNumbers(principal=name, **numbers(total)) for name, total in found]
        return ByPrincipal(**when(asked), principals=rows)

    @handler(*ERRORS)
    async def errors(self, query: WhenAndWho, who: Principal) -> Failures:
        """What did not go well: how often, by outcome, model and host."""
        asked = self._asked(query, who)
        rows = await self._stats.errors(asked.wanted, asked.bucket, MOST_ROWS)
        errors = [Failure(outcome, model, host or None, n, tokens) for outcome, model, host, n, tokens in rows]
        return Failures(**when(asked.span), errors=errors)

    async def _by(self, query: WhenAndWho, who: Principal, column: str) -> tuple[Span, list[tuple[str, Total]]]:
        asked = self._asked(query, who)
        found = await self._stats.totals(asked.wanted, asked.bucket, column)
        return asked.span, sorted(found.items(), key=lambda item: (-item[1].requests, item[0]))[:MOST_ROWS]

    def _asked(self, query: WhenAndWho, who: Principal) -> Question:
        return question(query, who, self._wall(), self._minutes_days)


def theirs(who: Principal, given: dict[str, str]) -> dict[str, str]:
    """What is asked, of the principal's own requests where they may know of no others. Raises NotAllowed where it names others."""
    if who.whose is None:
        return given
    if given.get("principal", who.name) != who.name:
        raise NotAllowed(f"{who.name!r} may know of its own requests alone: this takes the role operator")
    return given | {"principal": who.name}


def _given(query: msgspec.Struct) -> dict[str, str]:
    given: dict[str, str] = msgspec.to_builtins(query)  # without what is unset
    return given


def numbers(total: Total) -> dict[str, Any]:
    """The fields of Numbers: three digits of what is not counted."""
    sums = total.sums
    return {
        "requests": total.requests,
        "outcomes": dict(sorted(total.outcomes.items())),
        "cancelled": total.outcomes[Outcome.CANCELLED],
        "attempts": int(sums[3]),
        "cold_loads": int(sums[1]),
        "input_tokens": int(sums[4]),
        "output_tokens": int(sums[5]),
        "wasted_tokens": total.wasted_tokens,
        "tokens_per_second": _short(total.tokens_per_second),
        "queue_seconds": _short(total.queue_seconds),
        "ttft": _seconds(total.ttft),
        "duration": _seconds(total.total),
    }


def _points(found: Mapping[int, Total], asked: Span, step: int) -> list[Point]:
    nothing, times = Total(), range(int(asked.since), int(asked.until), step)
    return [Point(at=iso(at), **numbers(found.get(at, nothing))) for at in times]


def _seconds(told: Percentiles) -> Seconds:
    return Seconds(told.n, *map(_short, told[1:]))


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.3g}")


def _wanted(given: Mapping[str, str], asked: Span) -> Wanted:
    model, host, principal = (said(given, name) for name in WHO)
    if model and not model.startswith("_"):
        model = canonical(model)
    return Wanted(int(asked.since), int(asked.until), model, host, principal, given.get("outcome"))


def when(asked: Span) -> dict[str, Any]:
    """The fields of AskedTime."""
    return {"since": iso(asked.since), "until": iso(asked.until)}


def iso(at: float) -> str:
    """Unix seconds as they are told."""
    return datetime.fromtimestamp(at, UTC).isoformat()
