"""Rows of generations: in flight, ended, or kept in the database; and what explains them."""

from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec

from gateway.api.queue import PLACE, WAIT, WAITS_FOR, rounded
from gateway.doc import doc
from gateway.record import Costs, GenerationRecord, Outcome, Phase, Rejected, Route, RouteReason
from gateway.relay.generations import Generation
from gateway.relay.kept import KeptAnswer
from gateway.routing.outlook import Outlook, WaitsFor
from gateway.store.entries import Row

REQUEST_ID = "its `X-Request-Id`: the caller's name for it, of a turn that of the request that began it; else its id"
TRACE_ID = "its trace; empty where nobody traces"


class GenerationRow(msgspec.Struct, frozen=True):
    """One generation in flight, or a detached one that ended and can still be read."""

    id: Annotated[str, doc("unique, sortable by time")]
    session: Annotated[str | None, doc("the caller's word in `X-Corral-Session`")]
    model: Annotated[str, doc("the model's full name")]
    host: Annotated[str | None, doc("where it runs; null while it is queued")]
    phase: Annotated[
        Phase,
        doc(
            "`queued`; `connecting`; `prefill`: sent, nothing back yet: the host queues, loads or reads the prompt; "
            "`streaming`; `done`: the host is, the caller has not taken it all; or it has ended"
        ),
    ]
    dialect: Annotated[str, doc("`ollama`, `openai` or `anthropic`")]
    endpoint: Annotated[str, doc("the path that was called")]
    stream: Annotated[bool, doc("whether the answer comes in pieces")]
    client: Annotated[str, doc("the caller's address")]
    principal: Annotated[str, doc("whose key it came with; empty without one")]
    request_id: Annotated[str, doc(REQUEST_ID)]
    trace_id: Annotated[str, doc(TRACE_ID)]
    received_at: Annotated[str, doc("in UTC, ISO 8601", extra_json_schema={"format": "date-time"})]
    age_seconds: Annotated[float, doc("since it was received; how long it took once it has ended")]
    tokens: Annotated[int, doc("output tokens so far, as counted in passing", ge=0)]
    attempts: Annotated[int, doc("how many hosts were tried, with the present one", ge=0)]
    queue_place: Annotated[int | None, doc(PLACE)]
    queue_seconds: Annotated[float | None, doc(WAIT)]
    waits_for: Annotated[WaitsFor | None, doc(WAITS_FOR)]
    route_reason: Annotated[RouteReason | None, doc("why it went to this host; null while it is queued")]
    predicted_seconds: Annotated[
        float | None, doc("to the first token, as routing thought when it chose the host; null while it is queued")
    ]
    predicted_load_seconds: Annotated[float | None, doc("of these, to load the model, and the harm of evicting others")]
    detached: Annotated[
        bool, doc("whether it runs on without its caller; only then what follows can be other than null")
    ]
    readers: Annotated[int | None, doc("who read its answer now")]
    chunks: Annotated[int | None, doc("lines or events that have come")]
    first_chunk: Annotated[int | None, doc("number of the oldest that is still held")]
    outcome: Annotated[Outcome | None, doc("how it ended; null while it runs")]
    reason: Annotated[str | None, doc("why it ended so; null while it runs")]


class Cost(msgspec.Struct, frozen=True):
    """What one host would have cost a request, in seconds."""

    host: Annotated[str, doc("the host's name")]
    total: Annotated[float, doc("the sum of what follows but `held`, by which hosts compare")]
    queue_wait: Annotated[float, doc("until a slot is free")]
    load_time: Annotated[float, doc("to load the model")]
    prefill: Annotated[float, doc("to read the prompt")]
    affinity: Annotated[float, doc("what is saved where the conversation is cached; zero or negative", le=0)]
    penalty: Annotated[float, doc("for recent failures")]
    harm: Annotated[float, doc("half of what others will wait, who find their model or their prompt gone")]
    decode: Annotated[float, doc("a quarter of an answer of usual length: slow hosts are dearer")]
    held: Annotated[float, doc("beside the sum: how long the slot would be taken")]


class GenerationDetail(GenerationRow, frozen=True):
    """One generation, and why it went where it went."""

    runner_up: Annotated[str | None, doc("the second cheapest host")]
    costs: Annotated[
        list[Cost],
        doc(
            "what each host would have cost when it was chosen, cheapest first; empty where none was, or where only the row above is kept"
        ),
    ]
    rejected: Annotated[list[Rejected], doc("hosts that were left out then, and why")]


class _Kept(msgspec.Struct, frozen=True):
    """What a row's ``detail`` has of the route, and the ids that are not the row's own."""

    costs: tuple[Costs, ...] = ()
    rejected: tuple[Rejected, ...] = ()
    request_id: str = ""
    trace_id: str = ""


def running(generation: Generation, now: float, told: Outlook | None, answer: KeptAnswer | None) -> GenerationRow:
    """One in flight. ``told``: what it can expect that waits; ``answer`` of a detached one."""
    request = generation.request
    return GenerationRow(
        id=generation.id,
        session=request.session,
        model=request.model,
        host=generation.host,
        phase=generation.phase,
        dialect=request.endpoint.dialect,
        endpoint=request.endpoint.path,
        stream=request.stream,
        client=request.client,
        principal=request.principal,
        request_id=request.trace.request_id,
        trace_id=request.trace.trace_id,
        received_at=_moment(generation.received_at),
        age_seconds=round(now - generation.received, 3),
        tokens=generation.tokens,
        attempts=len(generation.attempts) + (generation.phase is not Phase.QUEUED),
        queue_place=told.place if told else None,
        queue_seconds=rounded(told.wait_seconds) if told else None,
        waits_for=told.waits_for if told else None,
        **_routed(generation.route),
        detached=answer is not None,
        **_read(answer),
        outcome=None,
        reason=None,
    )


def ended(record: GenerationRecord, answer: KeptAnswer | None = None) -> GenerationRow:
    """One that has ended. ``answer``: if it can still be read."""
    return GenerationRow(
        id=record.id,
        session=record.session,
        model=record.model,
        host=record.host,
        phase=Phase.DONE,
        dialect=record.dialect,
        endpoint=record.endpoint,
        stream=record.stream,
        client=record.client,
        principal=record.principal,
        request_id=record.request_id,
        trace_id=record.trace_id,
        received_at=_moment(record.received_at),
        age_seconds=round(record.duration_seconds, 3),
        tokens=record.usage.output_tokens,
        attempts=len(record.attempts),
        **_NOT_WAITING,
        **_routed(record.route),
        detached=record.detached,
        **_read(answer),
        outcome=record.outcome,
        reason=record.reason,
    )


def kept(row: Row) -> GenerationDetail:
    """One of the database."""
    detail = _Kept() if row.detail is None else msgspec.json.decode(row.detail, type=_Kept)
    words: dict[str, Any] = {"outcome": row.outcome, "reason": row.reason, "route_reason": row.route_reason}
    return GenerationDetail(
        id=row.id,
        session=row.session,
        model=row.model,
        host=row.host,
        phase=Phase.DONE,
        dialect=row.dialect,
        endpoint=row.endpoint,
        stream=row.stream,
        client=row.client,
        principal=row.principal,
        request_id=detail.request_id or row.id,
        trace_id=detail.trace_id,
        received_at=_moment(row.ts_us / 1e6),
        age_seconds=round(row.total_ms / 1000, 3),
        tokens=row.output_tokens,
        attempts=row.attempts,
        **_NOT_WAITING,
        predicted_seconds=None if row.predicted_ms is None else round(row.predicted_ms / 1000, 3),
        predicted_load_seconds=round(detail.costs[0].load_time, 3) if detail.costs else None,
        detached=row.detached,
        **_read(None),
        **words,
        runner_up=row.runner_up,
        costs=[cost(one) for one in detail.costs],
        rejected=list(detail.rejected),
    )


def explained(row: GenerationRow, route: Route | None) -> GenerationDetail:
    """The row, and why it went where it went."""
    fields = msgspec.structs.asdict(row)
    if route is None:
        return GenerationDetail(**fields, runner_up=None, costs=[], rejected=[])
    costs = [cost(one) for one in route.costs]
    return GenerationDetail(**fields, runner_up=route.runner_up, costs=costs, rejected=list(route.rejected))


def cost(costs: Costs) -> Cost:
    """Rounded to a tenth of a millisecond."""
    seconds = {key: round(value, 4) for key, value in msgspec.structs.asdict(costs).items() if key != "host"}
    return Cost(costs.host, **seconds)


_NOT_WAITING: dict[str, Any] = {"queue_place": None, "queue_seconds": None, "waits_for": None}


def _read(answer: KeptAnswer | None) -> dict[str, Any]:
    if answer is None:
        return {"readers": None, "chunks": None, "first_chunk": None}
    return {"readers": answer.readers, "chunks": answer.count, "first_chunk": answer.first}


def _routed(route: Route | None) -> dict[str, Any]:
    """Rounded to milliseconds."""
    if route is None:
        return {"route_reason": None, "predicted_seconds": None, "predicted_load_seconds": None}
    seconds, load = route.predicted_seconds, route.costs[0].load_time
    return {
        "route_reason": route.reason,
        "predicted_seconds": round(seconds, 3),
        "predicted_load_seconds": round(load, 3),
    }


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
