"""Two hundred faults that strike, in a row, with clients that leave and an operator who stops: nothing is left, and every count is true."""

import asyncio
import itertools
import json
import random
from collections import Counter
from dataclasses import dataclass
from typing import Literal

import pytest

from gateway.record import Attempt, GenerationRecord
from simulator.host import SimulatedHost
from simulator.ledger import Entry
from tests.builders import PATHS, STREAMING, TEXT, call, simulated
from tests.conftest import Corral
from tests.contract.raw import Cut
from tests.stage import Client, Stage
from tests.streams import cancelled, complete, events

STRIKES, WAVE = 200, 4
SHORT = 0.02
"""Seconds that a host hangs, loads or does not listen."""

FAULTS = {
    "refuse": {},
    "listening_off": {"seconds": SHORT},
    "reset_before_headers": {},
    "close_before_headers": {},
    "garbage": {},
    "busy": {},
    "load_error": {},
    "ghost_model": {"model": TEXT},
    "slow_load": {"seconds": SHORT},
    "hang_before_headers": {"seconds": SHORT},
    "slow_first_byte": {"seconds": SHORT},
    "reset_mid_stream": {"after_chunks": 3},
    "close_mid_stream": {"after_chunks": 3},
    "garbage_mid_stream": {"after_chunks": 3},
    "error_mid_stream": {"after_chunks": 3},
    "end_without_done": {"after_chunks": 3},
    "hang_mid_stream": {"after_chunks": 3, "seconds": SHORT},
    "slow_ps": {"seconds": SHORT},
    "ps_error": {},
    "tags_error": {},
    "version_error": {},
    "kill": {},
}
Manner = Literal["stay", "leave when seen", "leave at the head", "leave at a chunk", "be stopped"]
MANNERS: tuple[Manner, ...] = (
    "stay",
    "stay",
    "stay",
    "leave when seen",
    "leave at the head",
    "leave at a chunk",
    "be stopped",
)

ALLOWED = {
    "completed": {"ok"},
    "disconnected": {"cancelled"},
    "killed": {"reset", "midstream_error"},
    "fault:reset_before_headers": {"reset"},
    "fault:close_before_headers": {"reset"},
    "fault:garbage": {"protocol_error"},
    "fault:reset_mid_stream": {"midstream_error", "reset"},
    "fault:close_mid_stream": {"midstream_error", "reset"},
    "fault:garbage_mid_stream": {"protocol_error"},
    "fault:error_mid_stream": {"midstream_error", "http_5xx"},
    "fault:end_without_done": {"midstream_error", "reset"},
    "error:500": {"http_5xx"},
    "error:503": {"http_5xx"},
    "error:404": {"http_4xx"},
}
"""How an inference ended, as the host says it → as Corral may call it."""

UNHEARD = {"connect_error", "reset"}
"""What an attempt is called of which the host knows nothing: nobody listened, or the connection was closed at once."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What a client saw of its request."""

    how: Literal["whole", "failed", "left", "stopped"]
    status: int = 0


def read(path: str, stream: bool, status: int, body: bytes) -> Seen:
    """What an answer means to the client; whatever it is, it can be parsed."""
    if status == 499:
        return Seen("stopped", status)
    if status != 200:
        assert json.loads(body)["error"]
        return Seen("failed", status)
    if not stream:
        assert json.loads(body)
        return Seen("whole", status)
    parsed = events(path, body)
    if cancelled(path, parsed):
        return Seen("stopped", status)
    return Seen("whole" if complete(path, parsed) else "failed", status)


async def use(stage: Stage, path: str, stream: bool, manner: Manner, session: str) -> Seen:
    """One client's whole life."""
    options = {"stream": stream, "tokens": 8} if path in STREAMING else {}
    async with stage.begun(call(path, **options), session) as client:
        if manner in ("leave when seen", "be stopped"):
            id_ = await seen(stage, session)
            if manner == "leave when seen":
                await client.leave("reset")
                return Seen("left")
            await client_stops(stage, id_)
        try:
            head = await client.head()
            if manner == "leave at the head":
                await client.leave("close")
                return Seen("left")
            body = b""
            while (chunk := await client.chunk()) is not None:
                body += chunk
                if manner == "leave at a chunk":
                    await client.leave("reset")
                    return Seen("left")
        except Cut:
            return Seen("failed")
        return read(path, stream, head.status, body)


async def seen(stage: Stage, session: str) -> str:
    """The id of a session's generation, once it is or was in flight."""
    async with asyncio.timeout(10):
        while True:
            running = [one.id for one in stage.gateway.generations if one.request.session == session]
            over = [record.id for record in stage.records if record.session == session]
            if running or over:
                return (running + over)[0]
            async with Client.to(stage.url) as operator:
                await operator.send("GET", "/healthz")
                await operator.answer()


async def client_stops(stage: Stage, id_: str) -> None:
    """An operator stops a generation, if it still runs."""
    async with Client.to(stage.url) as operator:
        await operator.send("DELETE", f"/api/generations/{id_}")
        assert (await operator.answer()).status in (200, 404)


async def break_(host: SimulatedHost, name: str) -> None:
    """Switch a fault on, for one time."""
    if name == "kill":
        await host.kill()
        await host.start()
    else:
        host.faults.set(name, **FAULTS[name], times=1)


@pytest.mark.every_loop
@pytest.mark.parametrize("seed", [1])
async def test_chaos(corral: Corral, seed: int) -> None:
    """Whatever happens, each request has one record; attempts, cancellations and tokens are those of the hosts' own ledgers."""
    rng = random.Random(seed)
    hosts = [simulated(f"gpu{number}", seed=seed) for number in (1, 2, 3)]
    stage = await corral(*hosts, queue={"limit": 2}, health={"eject_seconds": 0.01, "eject_max_seconds": 0.02})
    names = itertools.cycle(rng.sample(sorted(FAULTS), len(FAULTS)))
    views: dict[str, Seen] = {}
    kills = 0
    for wave in itertools.count():
        if kills + sum(host.ledger.faults.total() for host in hosts) >= STRIKES:
            break
        plans = [(rng.choice(PATHS), rng.random() < 0.7, rng.choice(MANNERS)) for _ in range(WAVE)]
        sessions = [f"{wave}.{number}" for number in range(WAVE)]
        for _ in range(WAVE):
            fault = next(names)
            kills += fault == "kill"
            await break_(rng.choice(hosts), fault)
        lives = [
            use(stage, path, stream and path in STREAMING, manner, session)
            for (path, stream, manner), session in zip(plans, sessions, strict=True)
        ]
        views |= zip(sessions, await asyncio.gather(*lives), strict=True)
        for host in hosts:
            host.faults.clear()
    records = await stage.records.until(len(views))
    await stage.quiet()
    assert sorted(record.session or "" for record in records) == sorted(views)
    for record in records:
        check_record(record, views[record.session or ""])
    await check_counters(stage, views, check_ledgers(stage))


def check_record(record: GenerationRecord, view: Seen) -> None:
    """The record says of a request what its client saw."""
    match view.how:
        case "whole":
            assert (record.outcome, record.status) == ("ok", 200)
        case "failed":
            assert record.outcome in ("upstream_error", "no_host", "rejected", "client_error")
            assert view.status in (0, record.status)
        case "stopped":
            assert (record.outcome, record.cancelled_by, record.status) == ("cancelled", "api", view.status)
        case "left":
            assert record.cancelled_by in (None, "client_disconnect")
            assert (record.outcome == "cancelled") is (record.cancelled_by is not None)
    assert record.reason or record.outcome == "ok"


def tells_usage(record: GenerationRecord) -> bool:
    """Whether the host told the tokens of a whole answer: two paths never do."""
    silent = ("/api/embeddings", "/v1/audio/transcriptions")
    return record.outcome == "ok" and record.usage.accounting == "reported" and record.endpoint not in silent


def check_ledgers(stage: Stage) -> Counter[str]:
    """Attempts and the hosts' entries are one to one, with the same end and the same tokens; the outcomes that the hosts tell of."""
    told: Counter[str] = Counter()
    entries: dict[tuple[str | None, str], list[Entry]] = {}
    for host in stage.hosts:
        for entry in host.ledger.entries:
            entries.setdefault((entry.request_id, host.name), []).append(entry)
    for record in stage.records:
        for attempt in record.attempts:
            heard = entries.get((record.id, attempt.host), [])
            entry = heard.pop(0) if heard and not unheard(attempt, heard, record) else None
            allowed = ALLOWED[entry.how or ""] if entry else UNHEARD
            if attempt is record.attempts[-1]:
                allowed = allowed | ({"cancelled"} if record.outcome == "cancelled" else set())
                check_tokens(record, entry)
            assert attempt.outcome in allowed, (attempt, entry)
            told[next(iter(allowed)) if len(allowed) == 1 else attempt.outcome] += 1
        hosts = Counter(attempt.host for attempt in record.attempts)
        again = [one.host for one, other in itertools.pairwise(record.attempts) if one.host == other.host]
        assert hosts == Counter(hosts.keys()) + Counter(again)
        assert max(hosts.values(), default=0) <= 2
    assert [left for left in entries.values() if left] == []
    return told


def unheard(attempt: Attempt, heard: list[Entry], record: GenerationRecord) -> bool:
    """Whether an attempt is one that its host did not hear of, though there is an entry: that of another attempt."""
    if attempt.outcome == "connect_error":
        return True
    same = [one.outcome for one in record.attempts if one.host == attempt.host]
    return len(same) > len(heard) and attempt.outcome in UNHEARD and attempt.outcome not in ALLOWED[heard[0].how or ""]


def check_tokens(record: GenerationRecord, entry: Entry | None) -> None:
    """The record's tokens are the host's, and of an answer that broke off no more than that."""
    if entry is None:
        assert record.usage.output_tokens == 0
    elif entry.how == "completed" and tells_usage(record):
        assert (record.usage.input_tokens, record.usage.output_tokens) == (entry.prompt_tokens, entry.output_tokens)
    else:
        assert record.usage.output_tokens <= entry.output_tokens


async def check_counters(stage: Stage, views: dict[str, Seen], told: Counter[str]) -> None:
    """The counters at /metrics are what the clients saw and the hosts wrote down."""
    outcomes = await stage.totals("corral_requests_total", "outcome")
    left = Counter(record.outcome for record in stage.records if views[record.session or ""].how == "left")
    saw = Counter(view.how for view in views.values())
    assert outcomes.total() == len(views)
    assert outcomes["ok"] == saw["whole"] + left["ok"]
    assert outcomes["cancelled"] == saw["stopped"] + left["cancelled"]
    assert outcomes["gateway_error"] == outcomes["timeout"] == 0
    assert await stage.totals("corral_upstream_attempts_total", "outcome") == told
    assert await stage.totals("corral_cancellations_total", "source") == +Counter(
        {"api": saw["stopped"], "client_disconnect": left["cancelled"]}
    )
    entries = [entry for host in stage.hosts for entry in host.ledger.entries]
    whole = {record.id for record in stage.records if tells_usage(record)}
    reported = await stage.totals("corral_tokens_total", "type", "accounting")
    for kind, name in (("input", "prompt_tokens"), ("output", "output_tokens")):
        said = [getattr(entry, name) for entry in entries if entry.request_id in whole and entry.how == "completed"]
        assert reported[kind, "reported"] == sum(said)
    noticed = sum(host.ledger.outcomes["disconnected"] for host in stage.hosts)
    assert noticed <= (await stage.totals("corral_upstream_attempts_total", "outcome"))["cancelled"]
