"""Who waits for a host, in which order, for how long and for what."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated

import msgspec
from aiohttp import web

from gateway.access.gate import Principal
from gateway.api.handler import handler
from gateway.dialects.urgency import in_words
from gateway.doc import doc
from gateway.keyconfig import PriorityWord
from gateway.routing.admission import Admission
from gateway.routing.outlook import Outlook, WaitsFor
from gateway.routing.waiting import NEVER, Waiter

PLACE = "its place among all that wait, from 1; null: it does not wait"
WAIT = "how much longer it will wait, as far as can be told; null: nobody knows, or it does not wait"
WAITS_FOR = (
    "`slot`: until one is free; `load`: until the host has loaded what it loads for somebody else; `host`: nobody can take it now; "
    "null: it does not wait"
)


class WaitingRow(msgspec.Struct, frozen=True):
    """One request that waits."""

    id: Annotated[str, doc("the generation's id")]
    queue_place: Annotated[int, doc("from 1: the one that is looked at first", ge=1)]
    model: Annotated[str, doc("the model's full name")]
    priority: Annotated[PriorityWord, doc("as the caller said, or as the body tells")]
    principal: Annotated[str, doc("with whom it shares, and is bounded: the key's name, or the caller's address")]
    session: Annotated[str | None, doc("the caller's word in `X-Corral-Session`")]
    since: Annotated[str, doc("in UTC, ISO 8601", extra_json_schema={"format": "date-time"})]
    waited_seconds: Annotated[float, doc("since then", ge=0)]
    queue_seconds: Annotated[float | None, doc("how much longer, as far as can be told; null: nobody knows")]
    first_token_seconds: Annotated[float | None, doc("until its first token, idem")]
    deadline_seconds: Annotated[float | None, doc("until its first byte has to be there; null: its caller waits")]
    waits_for: Annotated[WaitsFor, doc(WAITS_FOR.rpartition(";")[0])]
    host: Annotated[str | None, doc("where it would go, as things are; it is bound when a slot is free")]


class WaitingModel(msgspec.Struct, frozen=True):
    """What waits of one model."""

    model: Annotated[str, doc("the model's full name")]
    waiting: Annotated[int, doc("requests", ge=1)]
    oldest_seconds: Annotated[float, doc("for how long the eldest has waited", ge=0)]
    queue_seconds: Annotated[float | None, doc("how long the last of them will, as far as can be told")]


class Queue(msgspec.Struct, frozen=True):
    """All that waits at this gateway."""

    limit: Annotated[int, doc("how many may wait, in all: `queue.limit`", ge=1)]
    per_principal: Annotated[int, doc("and of one caller: `queue.per_principal`; 0: as many", ge=0)]
    waiting: Annotated[list[WaitingRow], doc("in the order in which they would be served, as things are")]
    models: Annotated[list[WaitingModel], doc("the most wanted first")]


class QueueApi:
    """The handler of ``/api/queue``. ``wall``: Unix seconds."""

    def __init__(self, admission: Admission, clock: Callable[[], float], wall: Callable[[], float]) -> None:
        self._admission = admission
        self._clock = clock
        self._wall = wall

    def routes(self) -> list[web.RouteDef]:
        """The one path."""
        return [web.get("/api/queue", self.all)]

    @handler()
    async def all(self, who: Principal) -> Queue:
        """Who waits for a host at this gateway, in the order in which they would be served. Times are forecasts: who comes later may pass."""
        now = self._clock()
        began = self._wall() - now
        rows = [
            _row(waiter, told, now, began)
            for waiter, told in self._admission.outlook(now)
            if who.sees(waiter.request.principal)
        ]
        return Queue(self._admission.limit, self._admission.per_principal, rows, _models(rows))


def _row(waiter: Waiter, told: Outlook, now: float, began: float) -> WaitingRow:
    request = waiter.request
    return WaitingRow(
        id=request.id,
        queue_place=told.place,
        model=request.model,
        priority=in_words(request.priority),
        principal=request.principal or request.client,
        session=request.session,
        since=datetime.fromtimestamp(began + waiter.since, UTC).isoformat(timespec="milliseconds"),
        waited_seconds=round(max(0.0, now - waiter.since), 3),
        queue_seconds=rounded(told.wait_seconds),
        first_token_seconds=rounded(told.first_token_seconds),
        deadline_seconds=None if waiter.due == NEVER else round(max(0.0, waiter.due - now), 3),
        waits_for=told.waits_for,
        host=told.host,
    )


def _models(rows: list[WaitingRow]) -> list[WaitingModel]:
    by_model: dict[str, list[WaitingRow]] = {}
    for row in rows:
        by_model.setdefault(row.model, []).append(row)
    return [
        WaitingModel(
            model,
            len(those),
            max(row.waited_seconds for row in those),
            max((row.queue_seconds for row in those if row.queue_seconds is not None), default=None),
        )
        for model, those in sorted(by_model.items(), key=lambda item: (-len(item[1]), item[0]))
    ]


def rounded(seconds: float | None) -> float | None:
    """To milliseconds."""
    return None if seconds is None else round(seconds, 3)
