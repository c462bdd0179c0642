"""Hosts that are killed in the middle of what manages models or lists them: a correct partial answer, no hang, and a job that says so."""

import contextlib
import hashlib
import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest

from simulator.host import SimulatedHost
from tests.builders import TEXT, simulated
from tests.conftest import Corral
from tests.contract.raw import Answer
from tests.stage import Client, Stage

NEW = "qwen2.5:0.5b"
BLOB = bytes(range(256)) * 4096
DIGEST = f"sha256:{hashlib.sha256(BLOB).hexdigest()}"


@dataclass(frozen=True, slots=True)
class Change:
    """One managing call. ``done`` is the model that a host then has, or has no more; ``statuses`` if one host of two, or both, are killed.

    ``early``: it is killed before it says anything; else in the middle of its progress, or of what it is sent.
    """

    name: str
    path: str
    body: dict[str, Any] | bytes
    done: str = ""
    method: str = "POST"
    statuses: tuple[int, int] = (502, 502)
    early: bool = True

    @property
    def sent(self) -> bytes:
        """The body."""
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


CREATE = {"model": "mine", "from": TEXT}
FETCH = {"model": "mine", "from": NEW}
CHANGES = [
    Change("pull", "/api/pull", {"model": NEW}, NEW, statuses=(200, 502)),
    Change("pull at once", "/api/pull", {"model": NEW, "stream": False}, NEW, statuses=(500, 502)),
    Change("pull", "/api/pull", {"model": NEW}, NEW, statuses=(200, 200), early=False),
    Change("pull at once", "/api/pull", {"model": NEW, "stream": False}, NEW, statuses=(500, 500), early=False),
    Change("create", "/api/create", CREATE, "mine", statuses=(200, 502)),
    Change("create at once", "/api/create", CREATE | {"stream": False}, "mine", statuses=(500, 502)),
    Change("create, and pull", "/api/create", FETCH, "mine", statuses=(200, 200), early=False),
    Change(
        "create, and pull, at once", "/api/create", FETCH | {"stream": False}, "mine", statuses=(500, 500), early=False
    ),
    Change("blob", f"/api/blobs/{DIGEST}", BLOB),
    Change("blob", f"/api/blobs/{DIGEST}", BLOB, early=False),
    Change("copy", "/api/copy", {"source": TEXT, "destination": "mine"}, "mine"),
    Change("delete", "/api/delete", {"model": TEXT}, TEXT, method="DELETE"),
]
HOWS = {"killed": SimulatedHost.kill, "stopped": SimulatedHost.stop}


def did(host: SimulatedHost, change: Change) -> bool:
    """Whether a host has done it."""
    if change.path.startswith("/api/blobs/"):
        return DIGEST in host.store.blobs
    return (host.store.find(change.done) is not None) is (change.method != "DELETE")


@contextlib.asynccontextmanager
async def under_way(stage: Stage, change: Change, dying: list[SimulatedHost]) -> AsyncIterator[Client]:
    """The call, once those that are about to die are in the middle of it; a blob's end is still to be sent."""
    blob = change.path.startswith("/api/blobs/")
    async with Client.to(stage.url) as client:
        await client.send(change.method, change.path, headers={"Content-Length": str(len(change.sent))})
        await client.write(change.sent[:600_000], change.method)
        for host in dying:
            ledger = host.ledger
            if change.early:
                await host.wait_until(lambda ledger=ledger: ledger.faults["hang_managing"] == 1)  # type: ignore[misc]
            elif blob:
                await host.wait_until(lambda ledger=ledger: ledger.body_bytes > 0)  # type: ignore[misc]
            else:
                await host.wait_until(lambda ledger=ledger: ledger.requests[change.path] == 1)  # type: ignore[misc]
        if not change.early and not blob:
            await pulls(stage, [host.name for host in dying])
        yield client


async def pulls(stage: Stage, names: list[str]) -> None:
    """Return once these have told of a layer."""
    while True:
        (job,) = json.loads((await stage.operate("GET", "/api/jobs")).body)["jobs"]
        if all(host["digest"] for host in job["hosts"] if host["host"] in names):
            return


async def answer_to(client: Client, change: Change) -> Answer:
    """What is answered, once all is sent."""
    if rest := change.sent[600_000:]:
        await client.write(rest, change.method)
    return await client.answer()


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("both", [False, True], ids=["one of two", "both"])
@pytest.mark.parametrize(
    "change", [pytest.param(one, id=f"{one.name}{'' if one.early else ', midway'}") for one in CHANGES]
)
async def test_a_change(corral: Corral, change: Change, both: bool, how: str) -> None:
    """Who was killed failed, the others did it to the end; the last word and the job name both, as a status where nothing was said yet."""
    slow = {"pull_bytes_per_second": 1e6}
    a = simulated("a", TEXT, **slow)
    b = simulated("b", TEXT, **(slow if both else {"pull_bytes_per_second": 4e9}))
    stage = await corral(a, b)
    dying = [a, b] if both else [a]
    if change.early:
        for host in dying:
            host.faults.set("hang_managing", times=1)
    async with under_way(stage, change, dying) as client:
        if not both and not change.path.startswith("/api/blobs/"):
            await b.wait_until(lambda: did(b, change))
        for host in dying:
            await HOWS[how](host)
        answer = await answer_to(client, change)
    assert answer.status == change.statuses[both]
    error = json.loads(answer.body.splitlines()[-1])["error"]
    assert error.startswith(("a: ", "a, b: "))
    assert ("; b: " in error or "a, b: " in error, error.endswith(" (succeeded on b)")) == (both, not both)
    assert [did(host, change) for host in (a, b)] == [False, not both]
    await stage.gateway.jobs.idle()
    (job,) = (await stage.get("/api/jobs"))["jobs"]
    states = {host["host"]: host["state"] for host in job["hosts"]}
    assert (job["outcome"], states) == (
        ("failed", {"a": "failed", "b": "failed"}) if both else ("partial", {"a": "failed", "b": "succeeded"})
    )
    for host in dying:
        await host.start()


@pytest.mark.parametrize("how", HOWS)
async def test_a_push(corral: Corral, how: str) -> None:
    """It is one host's: that is named, and nobody else is asked."""
    a, b = simulated("a", TEXT), simulated("b", TEXT)
    stage = await corral(a, b)
    a.faults.set("hang_managing")
    push = Change("push", "/api/push", {"model": TEXT})
    async with under_way(stage, push, [a]) as client:
        await HOWS[how](a)
        answer = await client.answer()
    assert (answer.status, json.loads(answer.body)["error"][:3]) == (502, "a: ")
    assert b.ledger.requests["/api/push"] == 0
    await stage.gateway.jobs.idle()
    assert [job["outcome"] for job in (await stage.get("/api/jobs"))["jobs"]] == ["failed"]
    await a.start()


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("both", [False, True], ids=["one of two", "both"])
async def test_show(corral: Corral, both: bool, how: str) -> None:
    """The other host tells; if that is killed too, 503 names both: a 404 would make the CLI pull."""
    a, b = simulated("a", TEXT), simulated("b", TEXT)
    await a.load(TEXT)
    stage = await corral(a, b)
    for host in [a, b] if both else [a]:
        host.faults.set("hang_managing")
    show = Change("show", "/api/show", {"model": TEXT})
    async with under_way(stage, show, [a]) as client:
        await HOWS[how](a)
        if both:
            await b.wait_until(lambda: b.ledger.faults["hang_managing"] == 1)
            await HOWS[how](b)
        answer = await client.answer()
    if both:
        assert answer.status == 503
        assert all(re.search(rf" {name}[,:] ", json.loads(answer.body)["error"]) for name in ("a", "b"))
        await b.start()
    else:
        assert (answer.status, answer.get("X-Corral-Host")) == (200, "b")
    await a.start()


@pytest.mark.parametrize("how", HOWS)
async def test_whether_a_blob_is_there(corral: Corral, how: str) -> None:
    """A host that does not say has it not: it is sent."""
    a, b = simulated("a"), simulated("b")
    stage = await corral(a, b)
    for host in (a, b):
        host.store.blobs[DIGEST] = len(BLOB)
    a.faults.set("hang_managing")
    async with Client.to(stage.url) as client:
        await client.send("HEAD", f"/api/blobs/{DIGEST}")
        await a.wait_until(lambda: a.ledger.faults["hang_managing"] == 1)
        await HOWS[how](a)
        assert (await client.answer()).status == 404
    await a.start()


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("path", ["/api/tags", "/api/ps", "/v1/models", f"/v1/models/{TEXT}", "/api/version"])
async def test_a_list(corral: Corral, path: str, how: str) -> None:
    """It is told from what is known, whoever is killed while a host is asked anew; then the poll's verdict counts."""
    a, b = simulated("a", TEXT), simulated("b", TEXT)
    await b.load(TEXT)
    stage = await corral(a, b)
    before = (await stage.operate("GET", path)).body
    a.faults.set("slow_ps", seconds=60.0)
    stage.gateway.poller.poke("a", inventory=True)
    await a.wait_until(lambda: a.ledger.faults["slow_ps"] == 1)
    await HOWS[how](a)
    during = await stage.operate("GET", path)
    assert (during.status, during.body) == (200, before)
    a.faults.clear()
    await stage.gateway.poller.refresh_changed(["a"], 5.0)
    then = await stage.operate("GET", path)
    assert (then.status, then.body) == (200, before)
    await a.start()
