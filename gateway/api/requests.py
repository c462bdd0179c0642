"""Single requests of the past, newest first, and one with all that explains it."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
import orjson
from aiohttp import web
from msgspec import UNSET, UnsetType

from gateway.access.gate import Principal
from gateway.api.handler import handler
from gateway.api.rows import REQUEST_ID, TRACE_ID
from gateway.api.span import said, span
from gateway.api.stats import Ended, When, theirs
from gateway.dialects.names import canonical
from gateway.doc import doc
from gateway.errors import NotFound, StoreSlow, StoreUnavailable
from gateway.keyconfig import PriorityWord
from gateway.store.entries import Row, clean
from gateway.store.history import Filter, Position, one, page
from gateway.store.stats import Stats

ID_LENGTH = 32


class RequestRow(msgspec.Struct, frozen=True):
    """One request that ended. Times in seconds; what they mean is said of the log line in docs/operations.md."""

    id: Annotated[str, doc("unique, sortable by time")]
    received_at: Annotated[str, doc("in UTC, ISO 8601")]
    replica: Annotated[str, doc("the gateway that took it")]
    session: Annotated[str | None, doc("the caller's word in `X-Corral-Session`")]
    principal: Annotated[str, doc("whose request it was; empty where nobody has to say")]
    client: Annotated[str, doc("the caller's address")]
    request_id: Annotated[str, doc(REQUEST_ID)]
    trace_id: Annotated[str, doc(TRACE_ID)]
    dialect: Annotated[str, doc("`ollama`, `openai` or `anthropic`")]
    endpoint: Annotated[str, doc("the path that was called")]
    operation: Annotated[str, doc("what kind of inference")]
    requested_model: Annotated[str, doc("the model as it was named")]
    model: Annotated[str, doc("its full name")]
    stream: Annotated[bool, doc("whether the answer came in pieces")]
    detached: Annotated[bool, doc("whether it ran on without its caller: `?detach=true`, or a turn of a session")]
    outcome: Annotated[str, doc("how it ended")]
    reason: Annotated[str, doc("why, for people")]
    phase: Annotated[str, doc("where it was then")]
    cancelled_by: Annotated[str | None, doc("who stopped it")]
    status: Annotated[int, doc("of the answer")]
    host: Annotated[str | None, doc("where it ran last; null: no host was reached")]
    cold: Annotated[bool, doc("whether the host had to load the model")]
    priority: Annotated[str, doc("by which it waited: `interactive`, `normal` or `background`")]
    queue_seconds: Annotated[float, doc("wait for a slot")]
    ttft_seconds: Annotated[float | None, doc("to the first byte of an answer that is no error")]
    duration_seconds: Annotated[float, doc("in all")]
    max_gap_seconds: Annotated[float, doc("the longest silence after the first byte")]
    load_seconds: Annotated[float, doc("as the host told it")]
    prefill_seconds: Annotated[float, doc("idem")]
    decode_seconds: Annotated[float, doc("idem")]
    input_tokens: Annotated[int, doc("of the prompt")]
    output_tokens: Annotated[int, doc("of the answer")]
    accounting: Annotated[str, doc("`reported` by the host, or `counted` in passing")]
    chunks: Annotated[int, doc("as read from the host")]
    bytes_in: Annotated[int, doc("of the request's body")]
    bytes_out: Annotated[int, doc("of the answer's")]
    attempts: Annotated[int, doc("tries on hosts")]
    route_reason: Annotated[str | None, doc("why it went to this host")]
    predicted_seconds: Annotated[float | None, doc("to the first token, as routing thought")]
    runner_up: Annotated[str | None, doc("the second cheapest host")]
    detail: Annotated[
        dict[str, Any] | None,
        doc(
            "attempts, costs and hosts left out, where it was detached, or not one plain attempt; null where there is no more to say"
        ),
    ]


class RequestsPage(msgspec.Struct, frozen=True):
    """Requests that ended."""

    requests: Annotated[list[RequestRow], doc("newest first")]
    next: Annotated[str | None, doc("`before` of the page that follows; null at the end")]


class OneRequest(msgspec.Struct, frozen=True):
    """Names a request."""

    id: Annotated[str, doc("its id, as `X-Corral-Generation` told it")]


class RequestsQuery(When, frozen=True, rename={"from_": "from"}):
    """Which requests."""

    model: Annotated[str, doc("a model's name")] | UnsetType = UNSET
    host: Annotated[str, doc("a host's name")] | UnsetType = UNSET
    principal: Annotated[str, doc("whose requests")] | UnsetType = UNSET
    session: Annotated[str, doc("of one session")] | UnsetType = UNSET
    outcome: Annotated[Ended, doc("one of them, or `failed`: all but `ok`")] | UnsetType = UNSET
    priority: Annotated[PriorityWord, doc("by which it waited")] | UnsetType = UNSET
    limit: Annotated[int, doc("rows of a page", ge=1, le=500)] = 50
    before: Annotated[str, doc("`next` of the page before", pattern="^[0-9]{1,18}-[0-9a-f]{1,32}$")] | UnsetType = UNSET


class RequestsApi:
    """Handlers of ``/api/requests``. ``waiting``: the row of a request that is not written yet, by id; ``days``: how long rows are kept; ``wall``: Unix seconds."""

    def __init__(
        self, stats: Stats | None, waiting: Callable[[str], Row | None], days: int, wall: Callable[[], float]
    ) -> None:
        self._kept = stats
        self._waiting = waiting
        self._days = days
        self._wall = wall

    def routes(self) -> list[web.RouteDef]:
        """Both GET."""
        return [web.get("/api/requests", self.all), web.get("/api/requests/{id}", self.one)]

    @property
    def _stats(self) -> Stats:
        if self._kept is None:
            raise NotFound("nothing is kept here: database.url is 'none'")
        return self._kept

    @handler(NotFound, StoreUnavailable, StoreSlow)
    async def all(self, query: RequestsQuery, who: Principal) -> RequestsPage:
        """Single requests, newest first. All that are kept, where nothing is said."""
        wanted = self._wanted(query, who)
        before = _position(query.before) if query.before else None
        async with self._stats.reading() as connection:
            found = await connection.execute(page(wanted, newest_first=True, after=before, limit=query.limit))
            rows = [Row(*row) for row in found]
        following = f"{rows[-1].ts_us}-{rows[-1].id}" if len(rows) == query.limit else None
        return RequestsPage([told(row) for row in rows], following)

    @handler(NotFound, StoreUnavailable, StoreSlow)
    async def one(self, path: OneRequest, who: Principal) -> RequestRow:
        """One request, with what explains it."""
        found = await self.row(path.id)
        if not who.sees(found.principal):
            raise NotFound(f"no request {path.id[:64]!r} is kept")
        return told(found)

    async def row(self, id_: str) -> Row:
        """The row of one request. Raises NotFound, StoreUnavailable, StoreSlow."""
        id_ = clean(id_)
        stats = self._stats
        if row := self._waiting(id_):  # asked as soon as the answer ended
            return row
        async with stats.reading() as connection:
            found = (await connection.execute(one(id_[:ID_LENGTH]))).first()
        if found is None or len(id_) > ID_LENGTH:
            raise NotFound(f"no request {id_[:64]!r} is kept")
        return Row(*found)

    def _wanted(self, query: RequestsQuery, who: Principal) -> Filter:
        given = theirs(who, msgspec.to_builtins(query))
        usual = {} if query.range or query.from_ else {"range": f"{self._days}d"}
        asked = span({**given, **usual}, self._wall())
        model, host, principal, session = (said(given, name) for name in ("model", "host", "principal", "session"))
        return Filter(
            *asked,
            None if model is None else canonical(model),
            host,
            principal,
            session,
            query.outcome or None,
            query.priority or None,
        )


def told(row: Row) -> RequestRow:
    """A row as it is answered."""
    detail = {} if row.detail is None else orjson.loads(row.detail)
    return RequestRow(
        id=row.id,
        received_at=datetime.fromtimestamp(row.ts_us / 1e6, UTC).isoformat(timespec="milliseconds"),
        **{name: getattr(row, name) for name in _AS_THEY_ARE},
        **{f"{name}_seconds": _seconds(getattr(row, f"{name}_ms")) for name in _TIMES},
        duration_seconds=_seconds(row.total_ms),
        accounting="reported" if row.reported else "counted",
        request_id=detail.pop("request_id", row.id),
        trace_id=detail.pop("trace_id", ""),
        detail=detail or None,
    )


_AS_THEY_ARE = [name for name in RequestRow.__struct_fields__ if name in Row._fields and name not in ("id", "detail")]
_TIMES = ("queue", "ttft", "max_gap", "load", "prefill", "decode", "predicted")


def _seconds(ms: float | None) -> Any:
    return None if ms is None else round(ms / 1000, 6)


def _position(text: str) -> Position:
    at, _, id_ = text.partition("-")
    return Position(int(at), id_)
