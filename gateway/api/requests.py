"""Single requests of the past, newest first, and one with all that explains it."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec
import orjson
from aiohttp import web

from gateway.api.answers import json_answer
from gateway.api.span import known, said, span
from gateway.dialects.names import canonical
from gateway.errors import BadRequest, NotFound
from gateway.record import Outcome
from gateway.store.entries import Row, clean
from gateway.store.history import FAILED, Filter, Position, one, page
from gateway.store.stats import Stats

LIMIT, MOST = 50, 500
PARAMETERS = ("range", "from", "to", "model", "host", "principal", "session", "outcome", "limit", "before")
ID_LENGTH = 32


class RequestRow(msgspec.Struct, frozen=True):
    """One request that ended. Times in seconds; what they mean is said of the log line in docs/operations.md."""

    id: str
    received_at: str
    replica: str
    session: str | None
    principal: str
    client: str
    dialect: str
    endpoint: str
    operation: str
    requested_model: str
    model: str
    stream: bool
    outcome: str
    reason: str
    phase: str
    cancelled_by: str | None
    status: int
    host: str | None
    cold: bool
    queue_seconds: float
    ttft_seconds: float | None
    duration_seconds: float
    max_gap_seconds: float
    load_seconds: float
    prefill_seconds: float
    decode_seconds: float
    input_tokens: int
    output_tokens: int
    accounting: str
    chunks: int
    bytes_in: int
    bytes_out: int
    attempts: int
    route_reason: str | None
    predicted_seconds: float | None
    runner_up: str | None
    detail: dict[str, Any] | None


class RequestsApi:
    """Handlers of ``/api/requests``. ``days``: how long rows are kept; ``wall``: Unix seconds."""

    def __init__(self, stats: Stats | None, days: int, wall: Callable[[], float]) -> None:
        self._kept = stats
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

    async def all(self, request: web.Request) -> web.Response:
        """A page, newest first; ``next`` is ``before`` of the one that follows, null at the end."""
        query = request.query
        known(query, PARAMETERS)
        wanted, limit = self._wanted(query), _limit(query)
        before = _position(query["before"]) if "before" in query else None
        async with self._stats.reading() as connection:
            found = await connection.execute(page(wanted, newest_first=True, after=before, limit=limit))
            rows = [Row(*row) for row in found]
        following = f"{rows[-1].ts_us}-{rows[-1].id}" if len(rows) == limit else None
        return json_answer({"requests": [msgspec.to_builtins(told(row)) for row in rows], "next": following})

    async def one(self, request: web.Request) -> web.Response:
        """One, by its id."""
        id_ = clean(request.match_info["id"])
        async with self._stats.reading() as connection:
            found = (await connection.execute(one(id_[:ID_LENGTH]))).first()
        if found is None or len(id_) > ID_LENGTH:
            raise NotFound(f"no request {id_[:64]!r} is kept")
        return json_answer(msgspec.to_builtins(told(Row(*found))))

    def _wanted(self, query: Mapping[str, str]) -> Filter:
        usual = {"range": f"{self._days}d"} if not {"range", "from"} & set(query) else {}
        asked = span({**query, **usual}, self._wall())
        outcome = query.get("outcome")
        if outcome is not None and outcome not in (FAILED, *Outcome):
            raise BadRequest(f"outcome={outcome[:64]!r}: it is {FAILED}, or one of {', '.join(Outcome)}")
        model, host, principal, session = (said(query, name) for name in ("model", "host", "principal", "session"))
        return Filter(*asked, None if model is None else canonical(model), host, principal, session, outcome)


def told(row: Row) -> RequestRow:
    """A row as it is answered."""
    return RequestRow(
        id=row.id,
        received_at=datetime.fromtimestamp(row.ts_us / 1e6, UTC).isoformat(timespec="milliseconds"),
        **{name: getattr(row, name) for name in _AS_THEY_ARE},
        **{f"{name}_seconds": _seconds(getattr(row, f"{name}_ms")) for name in _TIMES},
        duration_seconds=_seconds(row.total_ms),
        accounting="reported" if row.reported else "counted",
        detail=None if row.detail is None else orjson.loads(row.detail),
    )


_AS_THEY_ARE = [name for name in RequestRow.__struct_fields__ if name in Row._fields and name not in ("id", "detail")]
_TIMES = ("queue", "ttft", "max_gap", "load", "prefill", "decode", "predicted")


def _seconds(ms: float | None) -> Any:
    return None if ms is None else round(ms / 1000, 6)


def _limit(query: Mapping[str, str]) -> int:
    text = query.get("limit", str(LIMIT))
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:9]) <= MOST:
        raise BadRequest(f"limit={text[:64]!r}: a number from 1 to {MOST}")
    return int(text)


def _position(text: str) -> Position:
    at, _, id_ = text.partition("-")
    if not at.isascii() or not at.isdigit() or len(at) > 18 or not id_ or len(id_) > ID_LENGTH or id_ != clean(id_):
        raise BadRequest(f"before={text[:64]!r}: take it from next in an answer")
    return Position(int(at), id_)
