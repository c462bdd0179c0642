"""What was, taken apart: by model and host at once, and over time by one of them, or by key. All from sums, as in ``stats.py``."""

from collections.abc import Callable
from typing import Annotated, Literal

import msgspec
from aiohttp import web

from gateway.access.gate import Principal
from gateway.api.handler import handler
from gateway.api.stats import (
    ERRORS,
    MOST_ROWS,
    AskedTime,
    InSteps,
    Numbers,
    WhenAndWho,
    iso,
    numbers,
    question,
    question_in_steps,
    when,
)
from gateway.doc import doc
from gateway.errors import NotFound
from gateway.store.stats import Counts, Stats

MOST_PARTS = 50


class PairNumbers(Numbers, frozen=True):
    """Sums over one model's requests on one host."""

    model: Annotated[str, doc("its name; `_unknown`: names that no host had")]
    host: Annotated[str | None, doc("its name; null: no host was reached")]


class ByPair(AskedTime, frozen=True):
    """Sums by model and host."""

    pairs: Annotated[list[PairNumbers], doc("the busiest first, 500 at most")]


class ByWhat(InSteps, frozen=True, rename={"from_": "from"}):
    """And by what they are told apart."""

    by: Annotated[Literal["model", "host", "principal"], doc("what they are told apart by")] = "model"
    parts: Annotated[int, doc("how many of them; what is left is summed up as one more", ge=1, le=MOST_PARTS)] = 8


class Part(msgspec.Struct, frozen=True):
    """One model, host or key over time: a number for each point."""

    name: Annotated[
        str | None,
        doc("its name; null: no host was reached, or there was no key; of models `_unknown`: names that no host had"),
    ]
    rest: Annotated[bool, doc("whether it is all that are not told one by one; then its name is empty")]
    requests: Annotated[list[int], doc("how many")]
    input_tokens: Annotated[list[int], doc("tokens of prompts")]
    output_tokens: Annotated[list[int], doc("tokens of answers")]


class Breakdown(AskedTime, frozen=True):
    """What is counted, over each step of a time, told apart."""

    step_seconds: Annotated[int, doc("from point to point")]
    at: Annotated[list[str], doc("when each point begins, UTC, oldest first")]
    parts: Annotated[list[Part], doc("most tokens first, the rest last")]


class BreakdownApi:
    """Handlers of ``/api/stats/pairs`` and ``/api/stats/breakdown``. ``minutes_days``: how long sums by the minute are kept; ``wall``: Unix seconds."""

    def __init__(self, stats: Stats | None, minutes_days: int, wall: Callable[[], float]) -> None:
        self._kept = stats
        self._minutes_days = minutes_days
        self._wall = wall

    def routes(self) -> list[web.RouteDef]:
        """Both GET."""
        return [web.get("/api/stats/pairs", self.pairs), web.get("/api/stats/breakdown", self.breakdown)]

    @property
    def _stats(self) -> Stats:
        if self._kept is None:
            raise NotFound("nothing is kept here: database.url is 'none'")
        return self._kept

    @handler(*ERRORS)
    async def pairs(self, query: WhenAndWho, who: Principal) -> ByPair:
        """Sums by model and host at once, the busiest first."""
        asked = question(query, who, self._wall(), self._minutes_days)
        found = await self._stats.totals(asked.wanted, asked.bucket, "model", "host")
        rows = sorted(found.items(), key=lambda item: (-item[1].requests, item[0]))[:MOST_ROWS]
        pairs = [PairNumbers(model=model, host=host or None, **numbers(total)) for (model, host), total in rows]
        return ByPair(**when(asked.span), pairs=pairs)

    @handler(*ERRORS)
    async def breakdown(self, query: ByWhat, who: Principal) -> Breakdown:
        """Requests and tokens over each step of a time, by model, host or key."""
        asked = question_in_steps(query, who, self._wall(), self._minutes_days)
        found = await self._stats.counts(asked.wanted, asked.bucket, query.by)
        times = range(int(asked.span.since), int(asked.span.until), asked.bucket)
        most = sorted(found, key=lambda name: (-_weight(found[name]), name))
        parts = [_part(name, [found[name]], times) for name in most[: query.parts]]
        if rest := most[query.parts :]:
            parts.append(_part("", [found[name] for name in rest], times, rest=True))
        at = [iso(one) for one in times]
        return Breakdown(**when(asked.span), step_seconds=asked.bucket, at=at, parts=parts)


def _weight(counts: dict[int, Counts]) -> int:
    return sum(one.input_tokens + one.output_tokens + one.requests for one in counts.values())


def _part(name: str, several: list[dict[int, Counts]], times: range, *, rest: bool = False) -> Part:
    nothing = Counts()
    points = [[one.get(at, nothing) for one in several] for at in times]
    sums = [[sum(column) for column in zip(*point, strict=True)] for point in points]
    requests, read, written = (list(column) for column in zip(*sums, strict=True))
    return Part(name if name or rest else None, rest, requests, read, written)
