"""Large bodies of many requests: bounded in all, without harm to small ones."""

import asyncio
import dataclasses
import hashlib
import json

import pytest

from tests.builders import Call, call, simulated
from tests.conftest import Corral
from tests.contract.raw import Answer, Connection, ask
from tests.stage import SECONDS, Stage

BOUND = {"relay": {"bodies_bytes": 1_000_000}}
LARGE = 700_000


def large(path: str, size: int = LARGE, **headers: str) -> Call:
    """A request with a body of that size."""
    sent = call(path, tokens=2, headers=headers)
    return dataclasses.replace(sent, body=sent.body[:-1] + b',"x":"' + b"x" * size + b'"}')


async def full(stage: Stage, path: str = "/api/generate") -> Answer:
    """The answer to a large request now."""
    sent = large(path)
    return await ask(stage.url, "POST", path, sent.body, sent.headers)


def told(path: str, answer: Answer) -> str:
    """The words of an error in the dialect of ``path``."""
    error = json.loads(answer.body)["error"]
    return str(error if path.startswith("/api") else error["message"])


async def test_what_would_be_too_much(corral: Corral) -> None:
    """Is a 503 in the caller's dialect that says when to come again; small ones are served, and large ones as soon as there is room."""
    host = simulated(parallel=2)
    stage = await corral(host, slots=2, **BOUND)
    host.faults.set("hang_mid_stream", after_chunks=1, times=1)
    async with stage.begun(large("/api/generate"), session="first") as first:
        await stage.row("first", "streaming")
        for path in ("/api/generate", "/v1/chat/completions", "/v1/messages"):
            answer = await full(stage, path)
            assert (answer.status, answer.get("X-Corral-Error"), answer.get("Retry-After")) == (503, "bodies_full", "1")
            assert "hold 700" in told(path, answer)
            assert (await stage.ask(call(path, tokens=2))).status == 200
        for path in ("/api/show", "/api/import"):
            answer = await ask(stage.url, "POST", path, large("/api/generate").body)
            assert (answer.status, answer.get("X-Corral-Error")) == (503, "bodies_full")
        host.faults.clear()
        assert (await first.answer()).status == 200
    assert (await full(stage)).status == 200
    assert (await stage.totals("corral_requests_rejected_total", "reason"))["bodies_full"] == 3
    assert not stage.gateway.inference.bodies.of


async def test_one_alone(corral: Corral) -> None:
    """May be larger than all that others may hold together; what its request does not come through with is let go of."""
    stage = await corral(simulated(), relay={"bodies_bytes": 100_000})
    for sent, status in (
        (large("/api/generate"), 200),
        (dataclasses.replace(large("/api/generate"), body=b"x" * LARGE), 400),
        (dataclasses.replace(large("/api/generate"), path="/api/show"), 200),
        (large("/api/generate"), 200),
    ):
        assert (await ask(stage.url, "POST", sent.path, sent.body)).status == status
        assert repr(stage.gateway.inference.bodies) == "<Bodies of 0 requests, 0 bytes>"


async def test_a_detached_one(corral: Corral) -> None:
    """Holds its own until it ends, though its caller was answered long ago."""
    host = simulated(parallel=2)
    stage = await corral(host, slots=2, **BOUND)
    host.faults.set("hang_mid_stream", after_chunks=1, times=1)
    sent = large("/api/generate", **{"X-Corral-Detach": "true"})
    answer = await stage.ask(sent)
    assert answer.status == 202
    assert (await full(stage)).status == 503
    host.faults.clear()
    await stage.records.until(1)
    assert (await full(stage)).status == 200
    assert repr(stage.gateway.inference.bodies) == "<Bodies of 0 requests, 0 bytes>"


@pytest.mark.every_loop
async def test_what_is_only_announced(corral: Corral) -> None:
    """Holds nothing; what has come does, until its sender leaves."""
    stage = await corral(simulated(), **BOUND)
    bodies = stage.gateway.inference.bodies
    head = b"POST /api/generate HTTP/1.1\r\nHost: localhost\r\nContent-Length: 60000000\r\n\r\n"
    async with Connection.to(stage.url) as slow:
        slow._writer.write(head)
        assert (await full(stage)).status == 200
        slow._writer.write(b" " * LARGE)
        async with asyncio.timeout(SECONDS):
            while not bodies.of or max(bodies.of.values()) < LARGE:
                await stage.get("/api/version")
        assert (await full(stage)).status == 503
        slow._writer.transport.abort()
        async with asyncio.timeout(SECONDS):
            while bodies.of:
                await stage.get("/api/version")
    assert (await full(stage)).status == 200


async def test_blobs(corral: Corral) -> None:
    """Are passed on as they come, and held nowhere."""
    stage = await corral(simulated(), relay={"bodies_bytes": 1})
    blob = b"b" * 2_000_000
    answer = await ask(stage.url, "POST", f"/api/blobs/sha256:{hashlib.sha256(blob).hexdigest()}", blob)
    assert answer.status == 201
