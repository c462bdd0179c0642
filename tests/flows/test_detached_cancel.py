"""The matrix of cancellation for detached generations: whenever one ends early and whoever ends it, its readers are told, and one record tells.

When: queued, connecting, loading, prefill, streaming, ended. Why: an operator (by either path), its session, its deadline, a
shutdown, that nobody reads it. A reader who leaves ends nothing.
"""

import asyncio
import contextlib
import json
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import pytest

from simulator.host import SimulatedHost
from tests.builders import Call, call, simulated
from tests.conftest import Corral
from tests.contract.raw import Answer
from tests.flows.detaching import detach, lines, read, reading
from tests.stage import Client, Stage, nobody_listens

ORPHAN_SECONDS = 0.4
DEADLINE_SECONDS = 0.5


async def _sent(stage: Stage, _stack: contextlib.AsyncExitStack) -> str:
    return await detach(stage, call("/api/generate", tokens=10), "target")


async def queued(stage: Stage, stack: contextlib.AsyncExitStack) -> str:
    """The one slot is taken. The target is received first, so that its deadline is the first."""
    stage["gpu1"].faults.set("hang_before_headers")
    request = call("/api/generate")
    client = await stack.enter_async_context(Client.to(stage.url))
    headers = {"X-Corral-Session": "target", "Content-Length": str(len(request.body)), "X-Corral-Detach": "true"}
    await client.send("POST", request.path, None, headers)
    await stage.operate("GET", "/healthz")
    await stack.enter_async_context(stage.begun(request, "holder"))
    await stage.row("holder", "prefill")
    await client.write(request.body)
    return str(json.loads((await client.answer()).body)["id"])


async def connecting(stage: Stage, stack: contextlib.AsyncExitStack) -> str:
    """The host's address takes no connection in, and refuses none."""
    host: SimulatedHost = stage["gpu1"]
    host.faults.set("listening_off")
    await nobody_listens(host.url)
    hole = stack.enter_context(socket.create_server(("127.0.0.1", host.port), backlog=0))
    stack.enter_context(socket.create_connection(hole.getsockname()))  # the backlog is full now
    return await _sent(stage, stack)


async def loading(stage: Stage, stack: contextlib.AsyncExitStack) -> str:
    """The host loads the model."""
    host: SimulatedHost = stage["gpu1"]
    host.faults.set("slow_load", seconds=60.0)
    id_ = await _sent(stage, stack)
    await host.wait_until(lambda: host.ledger.loading == 1)
    return id_


async def prefill(stage: Stage, stack: contextlib.AsyncExitStack) -> str:
    """The host has said nothing."""
    stage["gpu1"].faults.set("hang_before_headers")
    return await _sent(stage, stack)


async def streaming(stage: Stage, stack: contextlib.AsyncExitStack) -> str:
    """Three chunks have come."""
    stage["gpu1"].faults.set("hang_mid_stream", after_chunks=3)
    id_ = await _sent(stage, stack)
    await stage.until(lambda rows: rows[0]["chunks"] == 3)
    return id_


@dataclass(frozen=True, slots=True)
class When:
    """A phase: how to get there, how Corral calls it, how the host calls it (None: it knows nothing)."""

    come: Callable[[Stage, contextlib.AsyncExitStack], Awaitable[str]]
    phase: str
    at_host: str | None


@dataclass(frozen=True, slots=True)
class Why:
    """A cause: the request that stops it, if one does; how the record calls it; what readers are told."""

    source: str
    outcome: str
    status: int
    words: str
    stop: tuple[str, str] | None = None


WHEN = {
    "queued": When(queued, "queued", None),
    "connecting": When(connecting, "connecting", None),
    "loading": When(loading, "prefill", "loading"),
    "prefill": When(prefill, "prefill", "prefill"),
    "streaming": When(streaming, "streaming", "generating"),
}
BY_HAND = "stopped by an operator"
WHY = {
    "operator": Why("api", "cancelled", 499, BY_HAND, ("DELETE", "/api/generations/{}")),
    "chat-cancel": Why("api", "cancelled", 499, BY_HAND, ("POST", "/api/chat/cancel/{}")),
    "session": Why("api", "cancelled", 499, BY_HAND, ("POST", "/api/chat/cancel/target")),
    "deadline": Why("timeout", "timeout", 504, "took longer than"),
    "shutdown": Why("shutdown", "gateway_error", 503, "the gateway is shutting down"),
    "orphan": Why("orphan", "cancelled", 499, "nobody read it for 0.4 s"),
}


@pytest.mark.every_loop
@pytest.mark.parametrize("why", WHY)
@pytest.mark.parametrize("when", WHEN)
async def test_matrix(corral: Corral, when: str, why: str) -> None:
    """The host is free, one record has the facts, and a reader is told, now and later."""
    phase, cause = WHEN[when], WHY[why]
    host = simulated(tokens_per_second=1e9)
    stage = await corral(
        host,
        relay={"connect_timeout_seconds": 60.0, "deadline_seconds": DEADLINE_SECONDS if why == "deadline" else 0.0},
        generations={"orphan_seconds": ORPHAN_SECONDS if why == "orphan" else 0.0},
        shutdown={"grace_seconds": 0.0},
    )
    async with contextlib.AsyncExitStack() as stack:
        id_ = await phase.come(stage, stack)
        reader = await stack.enter_async_context(reading(stage, id_))
        if why != "deadline":  # which may be over before anybody looks
            await stage.until(lambda rows: _is(rows, id_, phase.phase, readers=1))
        await _act(stage, cause, reader, id_)
        record = await stage.records.of("target")
        assert (record.outcome, record.cancelled_by, record.phase) == (cause.outcome, cause.source, phase.phase)
        assert record.detached
        assert cause.words in record.reason
        assert [one.outcome for one in record.attempts] == ([] if when == "queued" else ["cancelled"])
        mine = [entry for entry in host.ledger.entries if entry.request_id == id_]
        if phase.at_host is None:
            assert mine == []
        else:
            await host.ledger.wait_until(lambda: mine[0].ended is not None, 5.0)
            assert [(entry.how, entry.phase) for entry in mine] == [("disconnected", phase.at_host)]
        told = [] if why == "orphan" else [await reader.answer()]
        if why != "shutdown":
            told.append(await read(stage, id_))
        for answer in told:
            _check(answer, phase, cause)
        assert len({answer.body for answer in told}) == 1
        host.faults.clear("hang_before_headers")
    if why != "shutdown":
        await stage.quiet()


async def _act(stage: Stage, cause: Why, reader: Client, id_: str) -> None:
    if cause.stop is not None:
        method, path = cause.stop
        answer = json.loads((await stage.operate(method, path.format(id_))).body)
        assert answer["cancelled"] == 1
        assert answer["already"] is False
    elif cause.source == "shutdown":
        await stage.stop()
    elif cause.source == "orphan":
        await reader.leave("close")


def _check(answer: Answer, phase: When, cause: Why) -> None:
    if phase.phase != "streaming":
        assert answer.status == cause.status
        assert cause.words in json.loads(answer.body)["error"]
        return
    said = lines(answer.body)
    assert (answer.status, len(said)) == (200, 4)
    if cause.status == 499:
        assert (said[-1]["done"], said[-1]["done_reason"]) == (True, "cancelled")
    else:
        assert cause.words in said[-1]["error"]


def _is(rows: list[dict[str, object]], id_: str, phase: str, readers: int) -> bool:
    return any(row["id"] == id_ and row["phase"] == phase and row["readers"] == readers for row in rows)


@pytest.mark.parametrize("why", ["operator", "chat-cancel", "session"])
async def test_after_its_end(corral: Corral, why: str) -> None:
    """There is nothing to stop: 404, and its answer stays."""
    stage = await corral(simulated())
    id_ = await detach(stage, call("/api/generate"), "target")
    await stage.records.of("target")
    assert WHY[why].stop is not None
    method, path = WHY[why].stop
    assert (await stage.operate(method, path.format(id_))).status == 404
    assert lines((await read(stage, id_)).body)[-1]["done"] is True


async def test_twice(corral: Corral) -> None:
    """The second time is harmless, and says so as long as it winds down."""
    stage = await corral(simulated())
    stage["gpu1"].faults.set("hang_before_headers")
    id_ = await detach(stage, call("/api/generate"), "target")
    generation = stage.gateway.generations.get(id_)
    assert generation is not None
    first = await stage.operate("POST", f"/api/chat/cancel/{id_}")
    assert json.loads(first.body) == {"id": id_, "cancelled": True, "phase": "prefill", "already": False}
    await stage.records.of("target")
    assert (await stage.operate("POST", f"/api/chat/cancel/{id_}")).status == 404


async def test_a_whole_session(corral: Corral) -> None:
    """All that carry its word are stopped, detached or not, whatever their phase; no other one."""
    stage = await corral(simulated(parallel=2), slots=2)
    host: SimulatedHost = stage["gpu1"]
    host.faults.set("hang_before_headers")
    other = await detach(stage, call("/api/generate"), "my talk/2")
    async with stage.begun(call("/api/chat"), "my talk") as attached:
        row = await stage.row("my talk", "prefill")
        ids = [row["id"], *[await detach(stage, call("/api/chat"), "my talk") for _ in range(3)]]
        answer = await stage.operate("POST", "/api/chat/cancel/my%20talk")
        told = {"id": "my talk", "cancelled": 4, "already": False, "generations": ids, "elsewhere": 0}
        assert json.loads(answer.body) == told
        assert (await attached.answer()).status == 499
    assert {record.cancelled_by for record in await stage.records.until(4)} == {"api"}
    assert [row["id"] for row in await stage.in_flight()] == [other]
    await stage.operate("POST", "/api/sessions/my%20talk%2F2/cancel")
    missing = await stage.operate("POST", "/api/chat/cancel/my%20talk")
    assert missing.status == 404
    host.faults.clear("hang_before_headers")


async def test_read_is_not_orphaned(corral: Corral) -> None:
    """As long as anybody reads, it runs; also one who came back in time."""
    stage = await corral(simulated(), generations={"orphan_seconds": ORPHAN_SECONDS})
    host: SimulatedHost = stage["gpu1"]
    host.faults.set("hang_mid_stream", after_chunks=2)
    read_by, nobodys = [await detach(stage, call("/api/generate"), name) for name in ("read", "nobody")]
    async with reading(stage, read_by) as first:
        await first.head()
        async with reading(stage, read_by) as second:
            await second.head()
            await first.leave("close")
            record = await stage.records.of("nobody")  # by then it would have been stopped as well
            assert (record.id, record.cancelled_by) == (nobodys, "orphan")
            host.faults.clear("hang_mid_stream")
            while await second.chunk():
                pass
    assert (await stage.records.of("read")).outcome == "ok"


async def test_a_caller_who_leaves_at_once(corral: Corral) -> None:
    """Has asked all the same: it runs, and can be found by its session."""
    stage = await corral(simulated())
    request = call("/api/generate")
    async with stage.begun(Call(f"{request.path}?detach=1", request.body, request.headers), "target") as client:
        await stage.records.of("target")
        await client.leave("reset")
    (row,) = (await stage.get("/api/generations?session=target&kept=true"))["generations"]
    assert row["outcome"] == "ok"
    await asyncio.gather(*(read(stage, row["id"]) for _ in range(3)))
