"""The matrix of cancellation: whenever a generation ends early and whoever ends it, nothing of it is left, and one record tells.

When: queued, connecting, loading, prefill, streaming, stalled (the client reads nothing), done (after the last byte).
Why: the client left (politely or by a reset), an operator stopped it (by either path), its deadline passed, the gateway shut down.
"""

import asyncio
import contextlib
import json
import socket
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import pytest

from gateway.record import GenerationRecord
from simulator.host import SimulatedHost
from tests.builders import PATHS, STREAMING, TEXT, Call, call, simulated
from tests.conftest import Corral
from tests.contract.raw import ask
from tests.stage import PADDING, Client, Stage, nobody_listens
from tests.streams import cancelled, complete, events, last_error

MANY = 20_000
TARGET = {"X-Corral-Session": "target"}


@dataclass(frozen=True, slots=True)
class Moment:
    """The target in its phase: its client, its id, and the text of the answer that has been read so far."""

    client: Client
    id: str
    read: bytes = b""


async def _sent(stage: Stage, stack: contextlib.AsyncExitStack, request: Call, receive_bytes: int = 0) -> Client:
    """The target, sent."""
    return await stack.enter_async_context(stage.begun(request, "target", receive_bytes))


async def queued(stage: Stage, stack: contextlib.AsyncExitStack) -> Moment:
    """The one slot is taken. The target is received first, so that its deadline is the first, and read only after that."""
    host: SimulatedHost = stage["gpu1"]
    host.faults.set("hang_before_headers")
    request = call("/api/generate")
    client = await stack.enter_async_context(Client.to(stage.url))
    length = {"Content-Length": str(len(request.body))}
    await client.send("POST", request.path, None, TARGET | length)
    await stage.operate("GET", "/healthz")
    await stack.enter_async_context(stage.begun(request, "holder"))
    await stage.row("holder", "prefill")
    await client.write(request.body)
    return Moment(client, (await stage.row("target", "queued"))["id"])


async def connecting(stage: Stage, stack: contextlib.AsyncExitStack) -> Moment:
    """The host's address takes no connection in, and refuses none."""
    host: SimulatedHost = stage["gpu1"]
    host.faults.set("listening_off")
    await nobody_listens(host.url)
    hole = stack.enter_context(socket.create_server(("127.0.0.1", host.port), backlog=0))
    stack.enter_context(socket.create_connection(hole.getsockname()))  # the backlog is full now
    client = await _sent(stage, stack, call("/api/generate"))
    return Moment(client, (await stage.row("target", "connecting"))["id"])


async def loading(stage: Stage, stack: contextlib.AsyncExitStack) -> Moment:
    """The host loads the model for the target."""
    host: SimulatedHost = stage["gpu1"]
    host.faults.set("slow_load", seconds=60.0)
    client = await _sent(stage, stack, call("/api/generate"))
    await host.wait_until(lambda: host.ledger.loading == 1)
    return Moment(client, (await stage.row("target", "prefill"))["id"])


async def prefill(stage: Stage, stack: contextlib.AsyncExitStack) -> Moment:
    """The host holds a slot for the target and has said nothing."""
    host: SimulatedHost = stage["gpu1"]
    host.faults.set("hang_before_headers")
    client = await _sent(stage, stack, call("/api/generate"))
    await host.wait_until(lambda: host.ledger.prefill == 1)
    return Moment(client, (await stage.row("target", "prefill"))["id"])


async def streaming(stage: Stage, stack: contextlib.AsyncExitStack) -> Moment:
    """The client has read three tokens."""
    host: SimulatedHost = stage["gpu1"]
    host.faults.set("hang_mid_stream", after_chunks=3)
    client = await _sent(stage, stack, call("/api/generate", tokens=10))
    assert (await client.head()).status == 200
    read = b""
    while read.count(b"\n") < 3:
        read += await client.chunk() or b""
    return Moment(client, (await stage.row("target", "streaming"))["id"], read)


async def stalled(stage: Stage, stack: contextlib.AsyncExitStack) -> Moment:
    """The client reads nothing, and the host cannot send any more."""
    host: SimulatedHost = stage["gpu1"]
    client = await _sent(stage, stack, call("/api/generate", TEXT + PADDING, tokens=MANY), receive_bytes=4096)
    id_ = (await stage.row("target", "streaming"))["id"]
    assert 0 < await stage.held_up(lambda: host.ledger.tokens_generated) < MANY
    return Moment(client, id_)


async def done(stage: Stage, stack: contextlib.AsyncExitStack) -> Moment:
    """The client has read the whole answer."""
    client = await _sent(stage, stack, call("/api/generate"))
    answer = await client.answer()
    await stage.records.of("target")
    return Moment(client, answer.get("X-Corral-Generation") or "", answer.body)


@dataclass(frozen=True, slots=True)
class When:
    """A phase: how to get there, how Corral calls it, how the host calls it (None: it knows nothing of the target)."""

    come: Callable[[Stage, contextlib.AsyncExitStack], Awaitable[Moment]]
    phase: str
    at_host: str | None
    sent: bool = False


@dataclass(frozen=True, slots=True)
class Why:
    """A cause: what is done, and how the record calls it. ``status`` and ``words`` are what the client is told."""

    act: Callable[[Stage, Moment], Awaitable[None]]
    source: str
    outcome: str = "cancelled"
    status: int = 0
    words: str = ""


WHEN = {
    "queued": When(queued, "queued", None),
    "connecting": When(connecting, "connecting", None),
    "loading": When(loading, "prefill", "loading"),
    "prefill": When(prefill, "prefill", "prefill"),
    "streaming": When(streaming, "streaming", "generating", sent=True),
    "stalled": When(stalled, "streaming", "generating", sent=True),
    "done": When(done, "done", None, sent=True),
}


async def _close(_stage: Stage, moment: Moment) -> None:
    await moment.client.leave("close")


async def _reset(_stage: Stage, moment: Moment) -> None:
    await moment.client.leave("reset")


async def _delete(stage: Stage, moment: Moment) -> None:
    await _stop(stage, moment, "DELETE", f"/api/generations/{moment.id}")


async def _cancel(stage: Stage, moment: Moment) -> None:
    await _stop(stage, moment, "POST", f"/api/chat/cancel/{moment.id}")


async def _stop(stage: Stage, moment: Moment, method: str, path: str) -> None:
    """As an operator, twice: the second time is harmless."""
    running = stage.gateway.generations.get(moment.id) is not None
    first = await stage.operate(method, path)
    assert first.status == (200 if running else 404)
    if running:
        assert json.loads(first.body)["cancelled"] is True
        assert json.loads(first.body)["id"] == moment.id
    await stage.records.of("target")
    assert (await stage.operate(method, path)).status == 404


async def _deadline(_stage: Stage, _moment: Moment) -> None:
    """Time does it."""


async def _shutdown(stage: Stage, _moment: Moment) -> None:
    await stage.stop()


WHY = {
    "left": Why(_close, "client_disconnect"),
    "reset": Why(_reset, "client_disconnect"),
    "operator": Why(_delete, "api", status=499, words="stopped by an operator"),
    "chat-cancel": Why(_cancel, "api", status=499, words="stopped by an operator"),
    "deadline": Why(_deadline, "timeout", "timeout", status=504, words="took longer than"),
    "shutdown": Why(_shutdown, "shutdown", "gateway_error", status=503, words="the gateway is shutting down"),
}


@pytest.mark.every_loop
@pytest.mark.parametrize("why", WHY)
@pytest.mark.parametrize("when", WHEN)
async def test_matrix(corral: Corral, when: str, why: str) -> None:
    """The host is free, the slot is back, one record has the facts, and the client was told what there is to tell."""
    phase, cause = WHEN[when], WHY[why]
    host = simulated(tokens_per_second=1e9)
    stage = await corral(
        host,
        relay={
            "connect_timeout_seconds": 60.0,
            "deadline_seconds": {"stalled": 3.0}.get(when, 0.5) if why == "deadline" else 0.0,
        },
        shutdown={"grace_seconds": 0.0},
    )
    async with contextlib.AsyncExitStack() as stack:
        moment = await phase.come(stage, stack)
        await cause.act(stage, moment)
        record = await stage.records.of("target")
        if when == "done":
            if why == "deadline":  # when the next one's has passed, the first one's has too
                host.faults.set("hang_before_headers")
                late = await stage.ask(call("/api/generate"))
                assert (late.status, late.get("x-should-retry")) == (504, "false")
            assert (record.outcome, record.phase, record.cancelled_by) == ("ok", "done", None)
            assert host.ledger.completed == 1
            assert not host.ledger.disconnected or why == "deadline"
            return
        _check_record(record, phase, cause)
        await _check_host(stage, phase, moment)
        if why not in ("left", "reset"):
            await _check_client(phase, cause, moment, stalled=when == "stalled")
        assert len(stage.gateway.admission) == 0  # also while the slot for which it waited is still taken
        host.faults.clear("hang_before_headers")
    if why != "shutdown":
        await stage.quiet()
        assert await stage.in_flight() == []


def _check_record(record: GenerationRecord, phase: When, cause: Why) -> None:
    assert record.outcome == cause.outcome
    assert record.cancelled_by == cause.source
    assert record.phase == phase.phase
    assert cause.words in record.reason
    assert record.reason
    if cause.status:
        assert record.status == (200 if phase.sent else cause.status)
    attempts = [attempt.outcome for attempt in record.attempts]
    assert attempts == ([] if phase.phase == "queued" else ["cancelled"])
    assert (record.usage.output_tokens > 0) is phase.sent


async def _check_host(stage: Stage, phase: When, moment: Moment) -> None:
    """The host has noticed, in the phase in which it was, and is free; or it has never heard of the request."""
    ledger = stage["gpu1"].ledger
    mine = [entry for entry in ledger.entries if entry.request_id == moment.id]
    if phase.at_host is None:
        assert mine == []
        return
    await ledger.wait_until(lambda: mine[0].ended is not None, 5.0)
    assert [(entry.how, entry.phase) for entry in mine] == [("disconnected", phase.at_host)]
    assert (ledger.loading, ledger.prefill, ledger.generating, ledger.queued) == (0, 0, 0, 0)
    assert stage.gateway.fleet.lease_count == 0


async def _check_client(phase: When, cause: Why, moment: Moment, *, stalled: bool) -> None:
    if not phase.sent:
        answer = await moment.client.answer()
        assert answer.status == cause.status
        assert cause.words in json.loads(answer.body)["error"]
        assert answer.get("X-Corral-Generation") == moment.id
        return
    if stalled:
        assert (await moment.client.head()).status == 200
    body = moment.read
    while (chunk := await moment.client.chunk()) is not None:
        body += chunk
    parsed = events("/api/generate", body)
    if cause.source == "api":
        assert cancelled("/api/generate", parsed)
        assert parsed[-1]["model"] == parsed[0]["model"]
        assert parsed[-1]["eval_count"] == len(parsed) - 1
    else:
        assert cause.words in (last_error("/api/generate", parsed) or "")
        assert not complete("/api/generate", parsed)


# -- what the client is told --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("why", ["operator", "deadline", "shutdown"])
@pytest.mark.parametrize("path", STREAMING)
async def test_last_words(corral: Corral, path: str, why: str) -> None:
    """Once something was sent, the stream ends in its dialect: as stopped for an operator, as failed for anybody else."""
    host = simulated()
    stage = await corral(
        host,
        relay={"deadline_seconds": 0.3 if why == "deadline" else 0.0},
        shutdown={"grace_seconds": 0.0},
    )
    host.faults.set("hang_mid_stream", after_chunks=4)
    async with stage.begun(call(path, stream=True, tokens=20), "target") as client:
        await client.head()
        row = await stage.until(lambda rows: next((row for row in rows if row["tokens"] == 4), None))
        await WHY[why].act(stage, Moment(client, row["id"]))
        body = b""
        while (chunk := await client.chunk()) is not None:
            body += chunk
    parsed = events(path, body)
    if why == "operator":
        assert cancelled(path, parsed)
    else:
        assert WHY[why].words in (last_error(path, parsed) or "")
        assert not complete(path, parsed)
    record = await stage.records.of("target")
    assert (record.outcome, record.usage.output_tokens) == (WHY[why].outcome, 4)


@pytest.mark.parametrize("why", ["operator", "deadline", "shutdown"])
@pytest.mark.parametrize("path", [path for path in PATHS if "embed" not in path])
async def test_status_before_the_first_byte(corral: Corral, path: str, why: str) -> None:
    """As long as nothing was sent, an error status in the dialect says who stopped it, also for answers in one piece."""
    host = simulated()
    stage = await corral(
        host,
        relay={"deadline_seconds": 0.3 if why == "deadline" else 0.0},
        shutdown={"grace_seconds": 0.0},
    )
    host.faults.set("hang_mid_stream", after_chunks=2)
    request = call(path, **({} if "audio" in path else {"stream": False}), tokens=20)
    async with stage.begun(request, "target") as client:
        await host.wait_until(lambda: host.ledger.faults["hang_mid_stream"] == 1)
        row = await stage.row("target", "prefill")
        await WHY[why].act(stage, Moment(client, row["id"]))
        answer = await client.answer()
    assert answer.status == WHY[why].status
    error = json.loads(answer.body)["error"]
    if path.startswith("/api/"):
        assert WHY[why].words in error
    else:
        assert WHY[why].words in error["message"]
        assert error["type"] == ("overloaded_error" if (path, why) == ("/v1/messages", "shutdown") else "api_error")
    assert (answer.get("Retry-After") is not None) is (why == "shutdown")
    record = await stage.records.of("target")
    assert (record.outcome, record.phase, record.status) == (WHY[why].outcome, "prefill", WHY[why].status)


async def test_the_connection_survives_a_stop(corral: Corral) -> None:
    """After an operator's stop, queued or streaming, the client's connection takes the next request."""
    host = simulated()
    stage = await corral(host)
    host.faults.set("hang_mid_stream", after_chunks=2)
    request = call("/api/chat")
    async with Client.to(stage.url) as client:
        for number in range(3):
            await client.send("POST", request.path, request.body, {"X-Corral-Session": str(number)})
            await stage.operate("DELETE", "/api/generations/" + (await stage.row(str(number), "streaming"))["id"])
            assert cancelled(request.path, events(request.path, (await client.answer()).body))
        host.faults.clear()
        await client.send("POST", request.path, request.body)
        assert (await client.answer()).status == 200


# -- who may be stopped -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path"),
    [("DELETE", "/api/generations/{}"), ("POST", "/api/chat/cancel/{}"), ("POST", "/api/sessions/{}/cancel")],
)
async def test_stopping_what_is_not_there(corral: Corral, method: str, path: str) -> None:
    """An id that is not in flight is 404, and nothing else happens."""
    stage = await corral(simulated())
    for id_ in ("nobody", "0" * 24, "%2e%2e"):
        answer = await stage.operate(method, path.format(id_))
        assert answer.status == 404
        assert "error" in json.loads(answer.body)
    assert (await stage.ask(call("/api/chat"))).status == 200


@pytest.mark.parametrize("when", ["queued", "prefill", "streaming"])
async def test_stopping_twice_at_once(corral: Corral, when: str) -> None:
    """Of two stops that arrive together the first counts, and the second finds it stopped or gone."""
    stage = await corral(simulated())
    async with contextlib.AsyncExitStack() as stack:
        moment = await WHEN[when].come(stage, stack)
        head = f"DELETE /api/generations/{moment.id} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
        async with Client.to(stage.url) as operator:
            await operator.write(head * 2, "DELETE")
            first, second = await operator.answer(), await operator.answer()
        assert (first.status, json.loads(first.body)["already"]) == (200, False)
        assert second.status == 404 or json.loads(second.body)["already"]
        assert (await stage.records.of("target")).cancelled_by == "api"
        stage["gpu1"].faults.clear()


async def test_the_live_view(corral: Corral) -> None:
    """GET /api/generations tells of each generation what an operator needs to choose, and of one by its id."""
    host = simulated()
    stage = await corral(host)
    host.faults.set("hang_mid_stream", after_chunks=3)
    async with (
        stage.begun(call("/v1/chat/completions", stream=True), "one") as one,
        stage.begun(call("/api/chat"), "two"),
    ):
        first = await stage.until(lambda rows: next((row for row in rows if row["tokens"] == 3), None))
        second = await stage.row("two", "queued")
        assert [row["id"] for row in await stage.in_flight()] == [first["id"], second["id"]]
        facts = {"session": "one", "model": TEXT, "host": "gpu1", "phase": "streaming", "dialect": "openai"}
        assert first.items() >= facts.items()
        assert first["endpoint"] == "/v1/chat/completions"
        assert min(first["age_seconds"], second["age_seconds"]) >= 0
        assert first["received_at"] <= second["received_at"]
        assert (second["host"], second["tokens"]) == (None, 0)
        alone = json.loads((await stage.operate("GET", f"/api/generations/{first['id']}")).body)
        assert (alone | {"age_seconds": 0}).items() >= (first | {"age_seconds": 0}).items()
        assert [cost["host"] for cost in alone["costs"]] == ["gpu1"]
        assert (await one.head()).get("X-Corral-Generation") == first["id"]


async def test_stopping_one_leaves_the_others(corral: Corral) -> None:
    """The slot of a generation that was stopped goes to the next in line, who is served."""
    host = simulated()
    stage = await corral(host)
    host.faults.set("hang_before_headers", times=1)
    async with stage.begun(call("/api/chat"), "first") as first, stage.begun(call("/api/chat"), "second") as second:
        row = await stage.row("first", "prefill")
        await stage.row("second", "queued")
        assert (await stage.operate("DELETE", f"/api/generations/{row['id']}")).status == 200
        assert (await first.answer()).status == 499
        assert (await second.answer()).status == 200


async def test_a_client_that_leaves_during_the_second_attempt(corral: Corral) -> None:
    """The record has the attempt that failed and the one that was left; neither host is blamed for the leaving."""
    bad, good = simulated("bad"), simulated("good")
    await bad.load(TEXT)
    stage = await corral(bad, good)
    bad.faults.set("close_before_headers", times=1)
    good.faults.set("slow_load", seconds=60.0)
    async with stage.begun(call("/api/chat"), "target") as client:
        await good.wait_until(lambda: good.ledger.loading == 1)
        await client.leave("reset")
        record = await stage.records.of("target")
    assert [(attempt.host, attempt.outcome) for attempt in record.attempts] == [("bad", "reset"), ("good", "cancelled")]
    assert (record.outcome, record.cancelled_by, record.phase) == ("cancelled", "client_disconnect", "prefill")
    await good.wait_until(lambda: good.ledger.disconnected["loading"] == 1)
    states = await stage.totals("corral_host_state", "host", "state")
    assert (states["good", "healthy"], states["bad", "suspect"]) == (1, 1)


async def test_leaving_is_never_held_against_a_host(corral: Corral) -> None:
    """However many clients leave, in whatever phase, the host stays healthy and unpunished."""
    host = simulated()
    stage = await corral(host)
    for name in ("hang_before_headers", "hang_mid_stream") * 5:
        host.faults.set(name, times=1)
        async with stage.begun(call("/api/chat"), "") as client:
            await host.wait_until(lambda: host.ledger.prefill + host.ledger.generating == 1)
            await client.leave("reset")
        await host.wait_until(lambda: host.ledger.in_flight == 0)
        host.faults.clear()
    await stage.records.until(10)
    assert await stage.totals("corral_host_state", "state") == {"healthy": 1}
    assert await stage.totals("corral_cancellations_total", "source") == {"client_disconnect": 10}
    answer = await ask(stage.url, "POST", "/api/route/explain?path=/api/chat", call("/api/chat").body)
    assert json.loads(answer.body)["costs"][0]["penalty"] == 0


async def test_leaving_before_the_request_is_whole(corral: Corral) -> None:
    """A client that leaves in the middle of its body has started nothing."""
    stage = await corral(simulated())
    async with Client.to(stage.url) as client:
        await client.send("POST", "/api/chat", None, {"Content-Length": "1000"})
        await client.write(b'{"model":')
        await stage.operate("GET", "/healthz")
        await client.leave("reset")
    while (await stage.totals("corral_http_responses_total", "route", "code"))["/api/chat", "499"] == 0:
        pass
    assert list(stage.records) == []
    assert len(stage["gpu1"].ledger.entries) == 0


@pytest.mark.every_loop
async def test_a_grant_to_somebody_who_just_left(corral: Corral) -> None:
    """A slot that becomes free in the moment in which the next in line leaves is not lost."""
    host = simulated()
    stage = await corral(host)
    for number in range(40):
        host.faults.set("hang_before_headers", times=1)
        holder, target = f"holder{number}", f"target{number}"
        async with stage.begun(call("/api/chat"), holder) as first, stage.begun(call("/api/chat"), target) as second:
            await stage.row(holder, "prefill")
            await stage.row(target, "queued")
            if number % 2:
                second.reset()
                host.faults.clear()
            else:
                host.faults.clear()
                while number % 4 and len(stage.records) < 2 * number + 1:
                    await stage.records.until(2 * number + 1)
                second.reset()
            assert (await first.answer()).status == 200
        await stage.records.until(2 * number + 2)
        assert stage.gateway.fleet.lease_count == 0
    assert (await stage.ask(call("/api/chat"))).status == 200


# -- shutting down ------------------------------------------------------------------------------------------------------------


async def test_streams_may_finish(corral: Corral) -> None:
    """Within the grace period what runs ends by itself, what waits is served, and nothing new begins."""
    host = simulated()
    stage = await corral(host, shutdown={"grace_seconds": 10.0})
    host.faults.set("hang_mid_stream", after_chunks=2, times=1)
    async with (
        stage.begun(call("/api/chat"), "a") as one,
        stage.begun(call("/api/chat"), "b") as two,
        Client.to(stage.url) as late,
        asyncio.TaskGroup() as tasks,
    ):
        await stage.row("a", "streaming")
        await stage.row("b", "queued")
        await late.send("GET", "/readyz")
        assert (await late.answer()).status == 200
        tasks.create_task(stage.stop())
        await nobody_listens(stage.url)
        await late.send("POST", "/api/chat", call("/api/chat").body)
        refused = await late.answer()
        assert (refused.status, refused.get("Retry-After") is not None) == (503, True)
        await late.send("GET", "/readyz")
        ready = await late.answer()
        assert (ready.status, json.loads(ready.body)["draining"]) == (503, True)
        host.faults.clear()
        for client in (one, two):
            assert complete("/api/chat", events("/api/chat", (await client.answer()).body))
    assert Counter(record.outcome for record in stage.records) == {"ok": 2}


async def test_streams_are_cut_after_the_grace_period(corral: Corral) -> None:
    """What outlasts the grace period is told so, and the hosts are free."""
    host = simulated()
    stage = await corral(host, shutdown={"grace_seconds": 0.2})
    host.faults.set("hang_mid_stream", after_chunks=2)
    async with stage.begun(call("/api/chat"), "a") as one, stage.begun(call("/api/chat"), "b") as two:
        await stage.row("a", "streaming")
        await stage.row("b", "queued")
        await stage.stop()
        assert last_error("/api/chat", events("/api/chat", (await one.answer()).body)) == "the gateway is shutting down"
        assert (await two.answer()).status == 503
    await host.wait_until(lambda: host.ledger.disconnected["generating"] == 1)
    assert {record.cancelled_by for record in stage.records} == {"shutdown"}


async def test_a_stalled_client_does_not_hold_up_the_end(corral: Corral) -> None:
    """The gateway stops in a bounded time, though a client reads nothing."""
    host = simulated(tokens_per_second=1e9)
    stage = await corral(host, shutdown={"grace_seconds": 0.0})
    async with contextlib.AsyncExitStack() as stack:
        await stalled(stage, stack)
        async with asyncio.timeout(5):
            await stage.stop()
        await host.wait_until(lambda: host.ledger.in_flight == 0)
