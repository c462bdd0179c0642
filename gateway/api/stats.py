"""What was: sums over time, by model, by host, and what went wrong. All from sums: nothing here reads single requests."""

import asyncio
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import NamedTuple

import msgspec
from aiohttp import web

from gateway.api.answers import json_answer
from gateway.api.span import Span, bucket_of, known, said, span, step_of
from gateway.dialects.names import canonical
from gateway.errors import NotFound
from gateway.record import Outcome
from gateway.store.stats import Percentiles, Stats, Total, Wanted

MOST_ROWS = 500
WHO = ("model", "host", "principal")
WHEN = ("range", "from", "to")


class Seconds(msgspec.Struct, frozen=True):
    """How long it took, in seconds; percentiles to within a few percent, null where too few requests stand behind them."""

    count: int
    mean: float | None
    p50: float | None
    p95: float | None
    p99: float | None


class Numbers(msgspec.Struct, frozen=True):
    """Sums over some requests."""

    requests: int
    outcomes: dict[str, int]
    cancelled: int
    attempts: int
    cold_loads: int
    input_tokens: int
    output_tokens: int
    wasted_tokens: int  # generated for requests that were cancelled, timed out or broke off
    tokens_per_second: float | None  # of decoding, as hosts told it
    queue_seconds: float | None  # mean
    ttft: Seconds  # to the first token, of streams
    duration: Seconds  # of those that went well


class _Question(NamedTuple):
    span: Span
    wanted: Wanted
    bucket: int


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
            web.get("/api/stats/errors", self.errors),
        ]

    @property
    def _stats(self) -> Stats:
        if self._kept is None:
            raise NotFound("nothing is kept here: database.url is 'none'")
        return self._kept

    async def summary(self, request: web.Request) -> web.Response:
        """Everything summed up."""
        asked = self._asked(request.query)
        totals = await self._stats.totals(asked.wanted, asked.bucket)
        return json_answer(_when(asked.span) | msgspec.to_builtins(numbers(totals.get("", Total()))))

    async def timeseries(self, request: web.Request) -> web.Response:
        """The same for each step, those included in which nothing happened."""
        query, now = request.query, self._wall()
        known(query, (*WHEN, "step", *WHO))
        asked = span(query, now)
        step = step_of(query, asked, now, self._minutes_days)
        asked = asked.widened(step)
        found = await self._stats.series(_wanted(query, asked), step)
        points = await asyncio.to_thread(_points, found, asked, step)
        return json_answer(_when(asked) | {"step_seconds": step, "points": points})

    async def models(self, request: web.Request) -> web.Response:
        """The same for each model, the busiest first; ``_unknown`` are names that no host had."""
        return await self._by(request, "model")

    async def hosts(self, request: web.Request) -> web.Response:
        """The same for each host, the busiest first; null for requests that reached none."""
        return await self._by(request, "host")

    async def errors(self, request: web.Request) -> web.Response:
        """What did not go well: how often, by outcome, model and host."""
        asked = self._asked(request.query)
        rows = await self._stats.errors(asked.wanted, asked.bucket, MOST_ROWS)
        keys = ("outcome", "model", "host", "requests", "output_tokens")
        errors = [dict(zip(keys, row, strict=True)) | {"host": row[2] or None} for row in rows]
        return json_answer(_when(asked.span) | {"errors": errors})

    async def _by(self, request: web.Request, column: str) -> web.Response:
        asked = self._asked(request.query)
        found = await self._stats.totals(asked.wanted, asked.bucket, column)
        busiest = sorted(found.items(), key=lambda item: (-item[1].requests, item[0]))[:MOST_ROWS]
        rows = [{column: name or None} | msgspec.to_builtins(numbers(total)) for name, total in busiest]
        return json_answer(_when(asked.span) | {f"{column}s": rows})

    def _asked(self, query: Mapping[str, str]) -> _Question:
        known(query, (*WHEN, *WHO))
        now = self._wall()
        asked = span(query, now)
        bucket = bucket_of(asked, now, self._minutes_days)
        asked = asked.widened(bucket)
        return _Question(asked, _wanted(query, asked), bucket)


_NOTHING = Total()


def _points(found: Mapping[int, Total], asked: Span, step: int) -> list[dict[str, object]]:
    times = range(int(asked.since), int(asked.until), step)
    return [{"at": _iso(at)} | msgspec.to_builtins(numbers(found.get(at, _NOTHING))) for at in times]


def numbers(total: Total) -> Numbers:
    """As it is told: three digits of what is not counted."""
    sums = total.sums
    return Numbers(
        requests=total.requests,
        outcomes=dict(sorted(total.outcomes.items())),
        cancelled=total.outcomes[Outcome.CANCELLED],
        attempts=int(sums[3]),
        cold_loads=int(sums[1]),
        input_tokens=int(sums[4]),
        output_tokens=int(sums[5]),
        wasted_tokens=total.wasted_tokens,
        tokens_per_second=_short(total.tokens_per_second),
        queue_seconds=_short(total.queue_seconds),
        ttft=_seconds(total.ttft),
        duration=_seconds(total.total),
    )


def _seconds(told: Percentiles) -> Seconds:
    return Seconds(told.n, *map(_short, told[1:]))


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.3g}")


def _wanted(query: Mapping[str, str], asked: Span) -> Wanted:
    model, host, principal = (said(query, name) for name in WHO)
    if model and not model.startswith("_"):
        model = canonical(model)
    return Wanted(int(asked.since), int(asked.until), model, host, principal)


def _when(asked: Span) -> dict[str, object]:
    return {"from": _iso(asked.since), "to": _iso(asked.until)}


def _iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat()
