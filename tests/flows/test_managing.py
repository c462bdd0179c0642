"""Managing models over the fleet: every host does it, and the caller sees one Ollama.

Hosts that are killed: test_killed.py. Real clients: tests/e2e.
"""

import asyncio
import contextlib
import dataclasses
import hashlib
import json
import tracemalloc
from collections.abc import AsyncIterator
from typing import Any

import pytest

from gateway.config import PlacementConfig
from simulator.host import SimulatedHost
from tests.builders import OTHER, TEXT, Call, simulated
from tests.conftest import Corral
from tests.contract.cases import CASES, Case, answer_differences, prepare, recorded_host, send
from tests.contract.conformance import events_of
from tests.contract.raw import Answer, ask
from tests.flows.test_relay import event_by_event
from tests.scripted import Asked, ScriptedHost
from tests.sockets import http
from tests.stage import PADDING, SECONDS, Client, Stage

NEW = "qwen2.5:0.5b"
NOWHERE = "nobody-has-this"
NO_FILE = "pull model manifest: file does not exist"
SLOW = {"pull_bytes_per_second": 1e6}
"""At which no pull ends within a test."""
BLOB = bytes(range(256)) * 4096
DIGEST = f"sha256:{hashlib.sha256(BLOB).hexdigest()}"
SUCCESS = {"status": "success"}
MANAGING = ("/api/pull", "/api/push", "/api/create", "/api/copy", "/api/delete")


def manage(path: str, headers: dict[str, str] | None = None, **body: Any) -> Call:
    """A managing request."""
    return Call(path, json.dumps(body).encode(), {"Content-Type": "application/json"} | (headers or {}))


def on(*hosts: str) -> dict[str, str]:
    """The header that names hosts."""
    return {"X-Corral-Hosts": ",".join(hosts)}


def lines(answer: Answer) -> list[dict[str, Any]]:
    """The JSON lines of an answer."""
    return [json.loads(line) for line in answer.body.splitlines()]


def error(answer: Answer) -> tuple[int, str]:
    """Status and text of an error."""
    return answer.status, json.loads(answer.body)["error"]


async def delete(stage: Stage, model: str, **headers: str) -> Answer:
    """DELETE has a body."""
    return await ask(stage.url, "DELETE", "/api/delete", json.dumps({"model": model}).encode(), headers)


async def upload(stage: Stage, data: bytes = BLOB, digest: str = DIGEST, **headers: str) -> Answer:
    """A blob in one piece."""
    return await ask(stage.url, "POST", f"/api/blobs/{digest}", data, headers)


async def names(stage: Stage) -> set[str]:
    """What the gateway lists."""
    return {row["name"] for row in (await stage.get("/api/tags"))["models"]}


def having(model: str, *hosts: SimulatedHost) -> list[str]:
    """Which hosts have a model on disk."""
    return [host.name for host in hosts if host.store.find(model) is not None]


async def jobs(stage: Stage) -> list[dict[str, Any]]:
    """All jobs that are known."""
    found: list[dict[str, Any]] = (await stage.get("/api/jobs"))["jobs"]
    return found


def states(job: dict[str, Any]) -> dict[str, str]:
    """Each host's state."""
    return {host["host"]: host["state"] for host in job["hosts"]}


async def ended(stage: Stage) -> dict[str, Any]:
    """The one job, once it has ended."""
    await stage.gateway.jobs.idle()
    (job,) = await jobs(stage)
    assert job["outcome"] is not None
    return job


async def rest(client: Client) -> bytes:
    """All that is still to come of an answer."""
    parts = []
    while (chunk := await client.chunk()) is not None:
        parts.append(chunk)
    return b"".join(parts)


@contextlib.asynccontextmanager
async def pulling(stage: Stage, **body: Any) -> AsyncIterator[Client]:
    """A pull whose first bar has been seen."""
    async with stage.begun(manage("/api/pull", model=NEW, **body)) as client:
        await client.head()
        while b"digest" not in (await client.chunk() or b""):
            pass
        yield client


# -- as one Ollama ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=name)
        for name, case in CASES.items()
        if case.path in MANAGING or case.path.startswith("/api/blobs/")
    ],
)
async def test_recorded_answers(corral: Corral, case: Case) -> None:
    """With one host, a real Ollama's recorded answer is also Corral's."""
    host = recorded_host()
    stage = await corral(host)
    await prepare(case, host, stage.url)
    answer = await send(case, stage.url)
    assert answer_differences(event_by_event(case), dataclasses.replace(answer, chunks=events_of(answer.chunks))) == []


@pytest.mark.parametrize(
    "body",
    [
        {"model": NEW},
        {"name": NEW},
        {"model": NEW, "stream": False},
        {"model": NOWHERE, "stream": False},
        {},
        {"model": "a b"},
    ],
)
async def test_one_host_is_as_it_is(corral: Corral, body: dict[str, Any]) -> None:
    """With one host, an answer through Corral equals one straight from the host, errors included, but for the bars' pace."""
    stage = await corral(simulated(pull_bytes_per_second=1e12))
    request = manage("/api/pull", **body)
    async with simulated("direct", pull_bytes_per_second=1e12) as direct:
        straight = await ask(direct.url, "POST", request.path, request.body, request.headers)
    relayed = await stage.ask(request)
    assert (relayed.status, relayed.framing) == (straight.status, straight.framing)
    said, wanted = lines(relayed), lines(straight)
    assert [line for line in said if "digest" not in line] == [line for line in wanted if "digest" not in line]
    assert {line["digest"] for line in said if "digest" in line} == {
        line["digest"] for line in wanted if "digest" in line
    }
    if said[-1] != SUCCESS:
        assert relayed.body == straight.body


# -- where -----------------------------------------------------------------------------------------------------------------------


async def test_a_pull_is_for_all(corral: Corral) -> None:
    """Every host has it at the end, there was one `success`, and a list right after it shows the model."""
    a, b = simulated("a", pull_bytes_per_second=4e9), simulated("b", pull_bytes_per_second=2e9)
    stage = await corral(a, b)
    answer = await stage.ask(manage("/api/pull", model=NEW))
    assert NEW in await names(stage)
    assert having(NEW, a, b) == ["a", "b"]
    assert (answer.status, answer.get("Content-Type"), answer.get("X-Corral-Hosts")) == (
        200,
        "application/x-ndjson",
        "a,b",
    )
    said = lines(answer)
    assert [said[0], said[-1]] == [{"status": "pulling manifest"}, SUCCESS]
    assert said.count(SUCCESS) == 1
    bar = [line.get("completed", 0) for line in said if line.get("total", 0) > 10**6]
    assert bar == sorted(set(bar))
    assert len(bar) > 2
    assert [line["status"] for line in said if "digest" not in line] == [
        "pulling manifest",
        "verifying sha256 digest",
        "writing manifest",
        "success",
    ]
    assert all("digest" not in line for line in said[said.index({"status": "verifying sha256 digest"}) :])
    job = await ended(stage)
    assert (job["id"], job["kind"], job["model"], job["outcome"]) == (
        answer.get("X-Corral-Job"),
        "pull",
        NEW,
        "succeeded",
    )
    assert states(job) == {"a": "succeeded", "b": "succeeded"}


async def test_the_caller_names_hosts(corral: Corral) -> None:
    """X-Corral-Hosts narrows, in any order; an unknown name is told, with the known ones."""
    a, b, c = simulated("a"), simulated("b"), simulated("c")
    stage = await corral(a, b, c)
    answer = await stage.ask(manage("/api/pull", on("c", "a"), model=NEW))
    assert (lines(answer)[-1], answer.get("X-Corral-Hosts")) == (SUCCESS, "a,c")
    assert having(NEW, a, b, c) == ["a", "c"]
    refused = await stage.ask(manage("/api/pull", on("a", "z"), model=NEW))
    assert error(refused) == (400, "X-Corral-Hosts: no host is named 'z'; known: a, b, c")
    for empty in ("", " , "):  # a script's variable that was not set: all hosts would be a surprise
        nobody = await ask(stage.url, "DELETE", "/api/delete", b'{"model":"m"}', {"X-Corral-Hosts": empty})
        assert error(nobody) == (400, "X-Corral-Hosts names no host: leave the header out where all are meant")


async def test_the_header_comes_twice(corral: Corral) -> None:
    """As HTTP has it, that is one list; and where one host is to be named, a list is no host."""
    a, b, c = simulated("a"), simulated("b"), simulated("c")
    stage = await corral(a, b, c)
    twice = {"X-Corral-Hosts": "a", "x-corral-hosts": "c"}
    answer = await stage.ask(manage("/api/pull", twice, model=NEW))
    assert (lines(answer)[-1], answer.get("X-Corral-Hosts"), having(NEW, a, b, c)) == (SUCCESS, "a,c", ["a", "c"])
    for path in ("/api/show", "/api/me", "/api/generate"):
        refused = await stage.ask(manage(path, {"X-Corral-Host": "a", "x-corral-host": "c"}, model=TEXT))
        assert error(refused) == (400, "no host is named 'a,c'; there are: a, b, c")


async def test_a_placement_rule(corral: Corral) -> None:
    """The configuration says where a model goes, unless the caller does."""
    a, b = simulated("a"), simulated("b")
    rule = PlacementConfig(("qwen*",), ("b",))
    stage = await corral(a, b, placement=(rule,))
    for path, body in (("/api/pull", {"model": NEW}), ("/api/create", {"model": "qwen-mine", "from": TEXT})):
        answer = await stage.ask(manage(path, **body))
        assert (lines(answer)[-1], answer.get("X-Corral-Hosts")) == (SUCCESS, "b")
        assert having(body["model"], a, b) == ["b"]
    assert "few_copies" not in json.dumps((await stage.get("/api/fleet"))["findings"])
    assert await stage.totals("corral_fleet_findings", "kind") == {}
    await stage.ask(manage("/api/pull", on("a"), model=NEW))
    assert having(NEW, a, b) == ["a", "b"]


async def test_a_rule_is_for_what_arrives(corral: Corral) -> None:
    """A blob has no model's name, and a model is copied and deleted wherever it is."""
    a, b = simulated("a"), simulated("b")
    stage = await corral(a, b, placement=(PlacementConfig(("*",), ("b",)),))
    assert (await upload(stage)).get("X-Corral-Hosts") == "a,b"
    assert (await delete(stage, TEXT)).get("X-Corral-Hosts") == "a,b"
    assert having(TEXT, a, b) == []
    assert (await stage.ask(manage("/api/push", model=OTHER))).get("X-Corral-Hosts") == "a"


async def test_a_push_is_for_one(corral: Corral) -> None:
    """The first host that has the model, whoever is asked."""
    a, b, c = simulated("a", OTHER), simulated("b", TEXT), simulated("c", TEXT)
    stage = await corral(a, b, c)
    answer = await stage.ask(manage("/api/push", model=TEXT))
    assert (lines(answer)[-1], answer.get("X-Corral-Hosts")) == (SUCCESS, "b")
    assert [host.ledger.requests["/api/push"] for host in (a, b, c)] == [0, 1, 0]
    unknown = await stage.ask(manage("/api/push", model=NOWHERE))
    assert lines(unknown)[1] == {"status": "couldn't retrieve manifest"}
    assert lines(unknown)[-1]["error"].startswith("a: open /")


async def test_copy_and_delete_are_for_who_has_it(corral: Corral) -> None:
    """Hosts without the model are not asked, and the list is right at once, after a change behind Corral's back too."""
    a, b, c = simulated("a", TEXT), simulated("b", TEXT), simulated("c", OTHER)
    stage = await corral(a, b, c)
    copied = await stage.ask(manage("/api/copy", source=TEXT.upper(), destination="mine"))
    assert (copied.status, copied.body, copied.get("Content-Length")) == (200, b"", "0")
    assert having("mine", a, b, c) == ["a", "b"]
    assert "mine:latest" in await names(stage)
    deleted = await delete(stage, "library/mine")
    assert (deleted.status, deleted.body) == (200, b"")
    assert having("mine", a, b, c) == []
    assert "mine:latest" not in await names(stage)
    assert c.ledger.requests["/api/copy"] + c.ledger.requests["/api/delete"] == 0


async def test_what_nobody_has(corral: Corral) -> None:
    """Ollama's own words, which are not the same for all paths."""
    stage = await corral(simulated("a"), simulated("b"))
    assert error(await stage.ask(manage("/api/copy", source="nope", destination="x"))) == (
        404,
        'model "nope" not found',
    )
    assert error(await delete(stage, "nope")) == (404, "model 'nope' not found")
    assert error(await delete(stage, "a b")) == (400, 'name "a b" is invalid')
    assert error(await stage.ask(manage("/api/copy", source=TEXT, destination=""))) == (
        400,
        'destination "" is invalid',
    )


# -- when something fails -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [True, False])
async def test_one_host_fails(corral: Corral, stream: bool) -> None:
    """The others do it; the last word names who failed, in words that the command line knows, and who did not."""
    a, b = simulated("a"), simulated("b")
    stage = await corral(a, b)
    a.faults.set("pull_error", model=NEW)
    answer = await stage.ask(manage("/api/pull", model=NEW, stream=stream))
    assert lines(answer)[-1] == {"error": f"a: {NO_FILE} (succeeded on b)"}
    assert answer.status == (200 if stream else 500)
    assert SUCCESS not in lines(answer)
    assert having(NEW, a, b) == ["b"]
    assert NEW in await names(stage)
    job = await ended(stage)
    assert (job["outcome"], states(job), job["hosts"][0]["error"]) == (
        "partial",
        {"a": "failed", "b": "succeeded"},
        NO_FILE,
    )


async def test_every_host_fails(corral: Corral) -> None:
    """Each is named, the same words are said once; nobody is said to have succeeded."""
    stage = await corral(simulated("a"), simulated("b"))
    answer = await stage.ask(manage("/api/pull", model=NOWHERE))
    assert (answer.status, lines(answer)[-1]) == (200, {"error": f"a, b: {NO_FILE}"})
    assert (await ended(stage))["outcome"] == "failed"


@pytest.mark.parametrize("stream", [True, False])
async def test_every_host_refuses(corral: Corral, stream: bool) -> None:
    """A status that all hosts answer before any progress goes to the caller as it is."""
    stage = await corral(simulated("a"), simulated("b"))
    answer = await stage.ask(manage("/api/pull", model="a b", stream=stream))
    assert error(answer) == (400, "invalid model name")
    assert (await ended(stage))["outcome"] == "failed"


@pytest.mark.parametrize("stream", [True, False])
async def test_no_host_is_there(corral: Corral, stream: bool) -> None:
    """Then it is a status, not a stream."""
    a, b = simulated("a"), simulated("b")
    stage = await corral(a, b)
    await a.kill()
    await b.kill()
    answer = await stage.ask(manage("/api/pull", model=NEW, stream=stream))
    assert answer.status == 502
    assert error(answer)[1] == "a, b: cannot connect: Connection refused"


async def test_an_ejected_host_is_left_out(corral: Corral) -> None:
    """The others succeed; the caller is told in a line and a header, the job says failed. A delete cannot leave anybody out."""
    a, b = simulated("a"), simulated("b")
    stage = await corral(a, b)
    await b.kill()
    await stage.gateway.poller.refresh_changed(["b"], 5.0)
    answer = await stage.ask(manage("/api/pull", model=NEW))
    assert (answer.get("X-Corral-Hosts"), answer.get("X-Corral-Left-Out"), lines(answer)[-1]) == ("a", "b", SUCCESS)
    assert lines(answer)[0]["status"].startswith("b is left out: ejected: cannot connect")
    assert states(await ended(stage)) == {"a": "succeeded", "b": "failed"}
    status, text = error(await delete(stage, TEXT))
    assert status == 502
    assert text.startswith("b: ejected: cannot connect")
    assert text.endswith("(succeeded on a)")
    await b.start()


@pytest.mark.parametrize("stream", [True, False])
async def test_an_ejected_host_that_was_named(corral: Corral, stream: bool) -> None:
    """Whoever names it is not told success, whatever the others did; and it has no blob."""
    a, b = simulated("a"), simulated("b")
    stage = await corral(a, b)
    await b.kill()
    await stage.gateway.poller.refresh_changed(["b"], 5.0)
    answer = await stage.ask(manage("/api/pull", on("a", "b"), model=NEW, stream=stream))
    assert (answer.get("X-Corral-Hosts"), answer.get("X-Corral-Left-Out")) == ("a", "b")
    text = lines(answer)[-1]["error"]
    assert text.startswith("b: ejected: cannot connect")
    assert text.endswith("(succeeded on a)")
    assert answer.status == (200 if stream else 500)
    job = await ended(stage)
    assert (job["outcome"], states(job)) == ("partial", {"a": "succeeded", "b": "failed"})
    uploaded = await upload(stage, **on("a", "b"))
    assert (uploaded.status, error(uploaded)[1].endswith("(succeeded on a)")) == (502, True)
    path = f"/api/blobs/{DIGEST}"
    found = [(await ask(stage.url, "HEAD", path, None, headers)).status for headers in (on("a", "b"), on("a"), {})]
    assert found == [404, 200, 200]
    await b.start()


async def test_a_draining_host_gets_nothing_new(corral: Corral) -> None:
    """Unless the caller names it; but a delete is for it too."""
    a, b = simulated("a"), simulated("b")
    stage = await corral(a, b)
    await stage.operate("POST", "/api/hosts/b/drain")
    answer = await stage.ask(manage("/api/pull", model=NEW))
    assert (answer.get("X-Corral-Hosts"), answer.get("X-Corral-Left-Out"), lines(answer)[-1]) == ("a", "b", SUCCESS)
    assert lines(answer)[0] == {"status": "b is left out: draining"}
    assert having(NEW, a, b) == ["a"]
    assert (await upload(stage)).get("X-Corral-Left-Out") == "b"
    assert (await ask(stage.url, "HEAD", f"/api/blobs/{DIGEST}")).status == 200
    assert (await ask(stage.url, "HEAD", f"/api/blobs/{DIGEST}", None, on("b"))).status == 404
    assert (await stage.ask(manage("/api/create", model="mine", files={"a.gguf": DIGEST}))).get("X-Corral-Hosts") == "a"
    named = await stage.ask(manage("/api/pull", on("b"), model=NEW))
    assert (named.get("X-Corral-Hosts"), named.get("X-Corral-Left-Out"), having(NEW, a, b)) == ("b", None, ["a", "b"])
    assert (await delete(stage, NEW)).status == 200
    assert having(NEW, a, b) == []


async def test_every_host_is_draining(corral: Corral) -> None:
    """Nobody gets anything; whether they have a blob is not asked either."""
    stage = await corral(simulated("a"), simulated("b"))
    for name in "ab":
        await stage.operate("POST", f"/api/hosts/{name}/drain")
    for answer in (await stage.ask(manage("/api/pull", model=NEW)), await upload(stage)):
        status, text = error(answer)
        assert (status, answer.get("X-Corral-Error")) == (503, "no_host")
        assert text.startswith("every host that this concerns is draining: a, b; ")
    assert (await ask(stage.url, "HEAD", f"/api/blobs/{DIGEST}")).status == 503
    assert await jobs(stage) == []


async def test_a_job_ends_before_its_last_line_is_told(corral: Corral) -> None:
    """A caller who does not read does not keep it running: 100 kB are more than is written at once, less than is waited for."""

    async def answering(asked: Asked, writer: asyncio.StreamWriter) -> None:
        said = [{"status": f"{number:02}" + PADDING[:1950]} for number in range(50)]
        writer.write(http(b"".join(json.dumps(line).encode() + b"\n" for line in (*said, SUCCESS))))

    stage = await corral(ScriptedHost("a", answering))
    stage.narrow(4096)
    async with stage.begun(manage("/api/pull", model=NEW), receive_bytes=4096) as client:
        await client.head()
        async with asyncio.timeout(SECONDS):
            job = await ended(stage)
        assert job["outcome"] == "succeeded"
        assert json.loads((await rest(client)).splitlines()[-1]) == SUCCESS


async def test_one_host_cannot_create(corral: Corral) -> None:
    """A host that refuses before any progress, while others succeed, is that host's failure."""
    a, b = simulated("a"), simulated("b")
    stage = await corral(a, b)
    a.faults.set("create_error")
    answer = await stage.ask(manage("/api/create", **{"model": "mine", "from": TEXT, "stream": False}))
    assert error(answer) == (500, "a: no space left on device (succeeded on b)")


async def test_a_change_fails_on_one_host(corral: Corral) -> None:
    """It is said who failed and where it worked."""
    a, b = simulated("a"), simulated("b")
    stage = await corral(a, b)
    a.faults.set("copy_error", times=1)
    answer = await stage.ask(manage("/api/copy", source=TEXT, destination="mine"))
    assert error(answer) == (502, "a: no space left on device (succeeded on b)")
    assert answer.get("X-Corral-Error") == "hosts_failed"
    a.faults.set("delete_error", times=1)
    assert error(await delete(stage, TEXT)) == (502, "a: no space left on device (succeeded on b)")
    assert (await delete(stage, TEXT)).status == 200
    assert having(TEXT, a, b) == []


async def test_one_host_lost_it_meanwhile(corral: Corral) -> None:
    """Its 404 is no failure."""
    a, b = simulated("a"), simulated("b")
    stage = await corral(a, b)
    a.faults.set("ghost_model", model="ghost:1b")
    await stage.ask(manage("/api/copy", on("b"), source=TEXT, destination="ghost:1b"))
    await stage.gateway.poller.refresh_changed(["a"], 5.0)
    assert (await delete(stage, "ghost:1b")).status == 200


# -- stopping -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("stream", [True, False])
async def test_a_caller_leaves(corral: Corral, how: str, stream: bool) -> None:
    """Every host's pull ends at once."""
    a, b = simulated("a", **SLOW), simulated("b", **SLOW)
    stage = await corral(a, b)
    async with stage.begun(manage("/api/pull", model=NEW, stream=stream)) as client:
        for host in (a, b):
            await host.wait_until(lambda host=host: host.ledger.requests["/api/pull"] == 1)
        await client.leave(how)
    for host in (a, b):
        await host.wait_until(lambda host=host: host.ledger.abandoned["/api/pull"] == 1)
    job = await ended(stage)
    assert (job["outcome"], states(job)) == ("cancelled", {"a": "stopped", "b": "stopped"})
    assert having(NEW, a, b) == []


async def test_an_operator_stops_a_job(corral: Corral) -> None:
    """The caller's stream ends in an error, the hosts' pulls end, and stopping twice is stopping once."""
    a, b = simulated("a", **SLOW), simulated("b", **SLOW)
    stage = await corral(a, b)
    async with pulling(stage) as client:
        (job,) = await jobs(stage)
        path = f"/api/jobs/{job['id']}"
        assert (job["outcome"], states(job)) == (None, {"a": "running", "b": "running"})
        assert job["hosts"][0]["status"].startswith("pulling ")
        assert job["hosts"][0]["digest"].startswith("sha256:")
        first, second = await stage.operate("DELETE", path), await stage.operate("DELETE", path)
        said = [json.loads(line) for line in (await rest(client)).splitlines()]
    assert (first.status, json.loads(first.body)["already"]) == (200, False)
    assert (second.status, json.loads(second.body)["already"]) == (200, True)
    assert said[-1] == {"error": "a, b: stopped by an operator"}
    for host in (a, b):
        await host.wait_until(lambda host=host: host.ledger.abandoned["/api/pull"] == 1)
    assert (await ended(stage))["outcome"] == "stopped"
    assert (await stage.get(path))["outcome"] == "stopped"
    assert json.loads((await stage.operate("DELETE", path)).body)["already"] is True
    unknown = await stage.operate("DELETE", "/api/jobs/nope")
    assert error(unknown) == (404, "no job 'nope' runs or ended lately")


async def test_stopping_what_does_not_stream(corral: Corral) -> None:
    """Nothing has been sent: it is a status."""
    a = simulated("a", **SLOW)
    stage = await corral(a)
    async with stage.begun(manage("/api/pull", model=NEW, stream=False)) as client:
        await a.wait_until(lambda: a.ledger.requests["/api/pull"] == 1)
        (job,) = await jobs(stage)
        await stage.operate("DELETE", f"/api/jobs/{job['id']}")
        answer = await client.answer()
    assert error(answer) == (499, "stopped by an operator")
    assert answer.get("X-Corral-Job") == job["id"]


@pytest.mark.parametrize("operation", ["pull", "create"])
async def test_detached(corral: Corral, operation: str) -> None:
    """Who asks is told which job it is, and can leave; it goes on, and the fleet has the model at its end."""
    a, b = simulated("a"), simulated("b")
    stage = await corral(a, b)
    made = {"from": TEXT} if operation == "create" else {}
    answer = await stage.ask(manage(f"/api/{operation}?detach=true", model=NEW, **made))
    (told,) = lines(answer)
    assert (answer.status, answer.get("Location")) == (202, f"/api/jobs/{told['id']}")
    assert (answer.get("X-Corral-Job"), answer.get("X-Corral-Hosts")) == (told["id"], "a,b")
    job = await ended(stage)
    assert (job["id"], job["kind"], job["outcome"]) == (told["id"], operation, "succeeded")
    assert having(NEW, a, b) == ["a", "b"]
    assert NEW in await names(stage)


async def test_a_detached_one_that_fails(corral: Corral) -> None:
    """Its job says why; who asks for what cannot be is told at once."""
    a, b = simulated("a"), simulated("b")
    stage = await corral(a, b)
    b.faults.set("pull_error", model=NEW)
    await stage.ask(manage("/api/pull", {"X-Corral-Detach": "true"}, model=NEW))
    job = await ended(stage)
    assert (job["outcome"], states(job)) == ("partial", {"a": "succeeded", "b": "failed"})
    assert job["hosts"][1]["error"] == NO_FILE
    assert (await stage.ask(manage("/api/pull?detach=maybe", model=NEW))).status == 400
    assert (await stage.ask(manage("/api/pull?detach=true", on("c"), model=NEW))).status == 400


async def test_stopping_a_detached_one(corral: Corral) -> None:
    """As any other: every host's connection is closed."""
    a = simulated("a", **SLOW)
    stage = await corral(a)
    (told,) = lines(await stage.ask(manage("/api/pull?detach=true", model=NEW)))
    await a.wait_until(lambda: a.ledger.requests["/api/pull"] == 1)
    await stage.operate("DELETE", f"/api/jobs/{told['id']}")
    assert (await ended(stage))["outcome"] == "stopped"


@pytest.mark.parametrize("fails", [False, True])
async def test_stopping_what_is_done(corral: Corral, fails: bool) -> None:
    """Every host has ended, and only the lists are still read anew: nothing is stopped, and it ends as it would have."""
    a, b = simulated("a"), simulated("b")
    stage = await corral(a, b)
    if fails:
        b.faults.set("pull_error", model=NEW)
    a.faults.set("slow_ps", seconds=0.5, times=1)
    async with stage.begun(manage("/api/pull", model=NEW, stream=False)) as client:
        await a.wait_until(lambda: a.ledger.faults["slow_ps"] == 1)
        (job,) = await jobs(stage)
        said = [json.loads((await stage.operate("DELETE", f"/api/jobs/{job['id']}")).body) for _ in range(2)]
        assert said == [{"id": job["id"], "stopped": True, "already": True, "outcome": None}] * 2
        answer = await client.answer()
    wanted = {"error": f"b: {NO_FILE} (succeeded on a)"} if fails else SUCCESS
    assert (answer.status, lines(answer)) == (500 if fails else 200, [wanted])
    assert (await ended(stage))["outcome"] == ("partial" if fails else "succeeded")


async def test_a_shutdown_stops_jobs(corral: Corral) -> None:
    """After the grace period, in words."""
    a = simulated("a", **SLOW)
    stage = await corral(a, shutdown={"grace_seconds": 0.0})
    async with pulling(stage) as client:
        stopping = asyncio.get_running_loop().create_task(stage.stop(), name="stop")
        said = [json.loads(line) for line in (await rest(client)).splitlines()]
        await stopping
    assert said[-1] == {"error": "the gateway is shutting down"}


async def test_one_line_in_the_log(corral: Corral) -> None:
    """For each job that ended."""
    stage = await corral(simulated("a"), simulated("b"))
    await stage.ask(manage("/api/copy", source=TEXT, destination="mine"))
    (job,) = await jobs(stage)
    await stage.stop()
    logged = [json.loads(line) for line in stage.log.read_text(encoding="utf-8").splitlines()]
    (line,) = [line for line in logged if line["event"] == "job"]
    assert {key: line[key] for key in ("id", "kind", "model", "outcome")} == {
        key: job[key] for key in ("id", "kind", "model", "outcome")
    }
    assert [(host["host"], host["state"]) for host in line["hosts"]] == [("a", "succeeded"), ("b", "succeeded")]


async def test_jobs_are_counted(corral: Corral) -> None:
    """While they run, and by how they ended; uploads by bytes for each host."""
    stage = await corral(simulated("a", **SLOW), simulated("b", **SLOW))
    assert (await upload(stage)).status == 201
    async with pulling(stage):
        assert await stage.totals("corral_jobs_in_flight", "kind") == {"pull": 1}
    await stage.gateway.jobs.idle()
    assert await stage.totals("corral_jobs_in_flight", "kind") == {}
    assert await stage.totals("corral_jobs_total", "kind", "outcome") == {
        ("blob", "succeeded"): 1,
        ("pull", "cancelled"): 1,
    }
    assert await stage.totals("corral_job_duration_seconds_count", "kind") == {"blob": 1, "pull": 1}
    assert await stage.totals("corral_blob_bytes_total", "host") == {"a": len(BLOB), "b": len(BLOB)}


# -- blobs --------------------------------------------------------------------------------------------------------------------------


async def test_a_blob_is_for_all(corral: Corral) -> None:
    """It is stored everywhere, once; then HEAD finds it, and a second upload is a 200."""
    a, b = simulated("a"), simulated("b")
    stage = await corral(a, b)
    a.store.blobs[DIGEST] = len(BLOB)
    assert (await ask(stage.url, "HEAD", f"/api/blobs/{DIGEST}")).status == 404
    assert (await upload(stage)).status == 201
    assert (await ask(stage.url, "HEAD", f"/api/blobs/{DIGEST}")).status == 200
    assert b.store.blobs[DIGEST] == len(BLOB)
    again = await upload(stage)
    assert (again.status, again.body, again.get("X-Corral-Hosts")) == (200, b"", "a,b")
    first, second = await jobs(stage)
    assert (first["kind"], first["model"], first["outcome"], second["outcome"]) == (
        "blob",
        DIGEST,
        "succeeded",
        "succeeded",
    )
    assert first["hosts"][1]["completed"] == first["hosts"][1]["total"] == len(BLOB)


async def test_a_blob_for_named_hosts(corral: Corral) -> None:
    """X-Corral-Hosts narrows here too."""
    a, b = simulated("a"), simulated("b")
    stage = await corral(a, b)
    assert (await upload(stage, **on("b"))).status == 201
    assert [DIGEST in host.store.blobs for host in (a, b)] == [False, True]
    assert (await ask(stage.url, "HEAD", f"/api/blobs/{DIGEST}", headers=on("b"))).status == 200
    created = await stage.ask(manage("/api/create", model="mine", files={"a.gguf": DIGEST}))
    path = f"blobs/sha256-{DIGEST[7:]}: no such file or directory (succeeded on b)"
    assert lines(created)[-1]["error"].startswith("a: open /")
    assert lines(created)[-1]["error"].endswith(path)


async def test_every_host_has_it(corral: Corral) -> None:
    """The answer comes at once, whatever is still to be sent."""
    a, b = simulated("a"), simulated("b")
    stage = await corral(a, b)
    a.store.blobs[DIGEST] = b.store.blobs[DIGEST] = len(BLOB)
    async with Client.to(stage.url) as client:
        await client.send("POST", f"/api/blobs/{DIGEST}", headers={"Content-Length": str(len(BLOB))})
        await client.write(BLOB[:600_000])
        assert (await client.head()).status == 200


async def test_chunked_after_a_question(corral: Corral) -> None:
    """A body of unknown length, sent when it is asked for."""
    a, b = simulated("a"), simulated("b")
    stage = await corral(a, b)
    headers = {"Transfer-Encoding": "chunked", "Expect": "100-continue"}
    async with Client.to(stage.url) as client:
        await client.send("POST", f"/api/blobs/{DIGEST}", headers=headers)
        assert (await client.head()).status == 100
        for start in range(0, len(BLOB), 300_000):
            piece = BLOB[start : start + 300_000]
            await client.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        await client.write(b"0\r\n\r\n")
        assert (await client.answer()).status == 201
    assert [host.store.blobs[DIGEST] for host in (a, b)] == [len(BLOB)] * 2


@pytest.mark.parametrize("data", [BLOB + b"x", BLOB[:-1], b"", b"x"])
async def test_a_blob_that_is_another(corral: Corral, data: bytes) -> None:
    """It is refused in Ollama's words, and no host has stored anything."""
    a, b = simulated("a"), simulated("b")
    stage = await corral(a, b)
    before = [dict(host.store.blobs) for host in (a, b)]
    found = f"sha256:{hashlib.sha256(data).hexdigest()}"
    answer = await upload(stage, data)
    assert error(answer) == (400, f'digest mismatch, expected "{DIGEST}", got "{found}"')
    for host in (a, b):
        await host.wait_until(
            lambda host=host: host.ledger.abandoned["/api/blobs/:"] == host.ledger.requests["/api/blobs/:"]
        )
    assert [host.store.blobs for host in (a, b)] == before
    assert (await ended(stage))["outcome"] == "failed"


async def test_a_blob_over_the_body_limit(corral: Corral) -> None:
    """The limit is for what is held in memory; a blob is not."""
    a, b = simulated("a"), simulated("b")
    stage = await corral(a, b, relay={"body_limit_bytes": 1000})
    assert (await upload(stage)).status == 201


@pytest.mark.parametrize("how", ["close", "reset"])
async def test_a_caller_leaves_an_upload(corral: Corral, how: str) -> None:
    """No host stores the half that came."""
    a, b = simulated("a"), simulated("b")
    stage = await corral(a, b)
    async with Client.to(stage.url) as client:
        await client.send("POST", f"/api/blobs/{DIGEST}", headers={"Content-Length": str(len(BLOB))})
        await client.write(BLOB[:600_000])
        for host in (a, b):
            await host.wait_until(lambda host=host: host.ledger.body_bytes > 0)
        await client.leave(how)
    for host in (a, b):
        await host.wait_until(lambda host=host: host.ledger.abandoned["/api/blobs/:"] == 1)
    assert [DIGEST in host.store.blobs for host in (a, b)] == [False, False]
    assert (await ended(stage))["outcome"] == "cancelled"


async def test_an_upload_in_constant_memory(corral: Corral) -> None:
    """However large it is, only a few pieces for each host are held."""
    size, piece = 64 * 2**20, bytes(2**16)
    sha256 = hashlib.sha256()
    for _ in range(size // len(piece)):
        sha256.update(piece)
    digest = f"sha256:{sha256.hexdigest()}"
    a, b = simulated("a"), simulated("b")
    stage = await corral(a, b)
    tracemalloc.start()
    try:
        async with Client.to(stage.url) as client:
            await client.send("POST", f"/api/blobs/{digest}", headers={"Content-Length": str(size)})
            for _ in range(size // len(piece)):
                await client.write(piece)
            assert (await client.answer()).status == 201
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert [host.store.blobs[digest] for host in (a, b)] == [size] * 2
    assert peak < 8 * 2**20


@pytest.mark.parametrize("stream", [True, False])
async def test_a_web_page(corral: Corral, stream: bool) -> None:
    """A page that may call reads the answer, and which job and hosts it was, below the prefix too."""
    stage = await corral(simulated("a"), http={"prefix": "/corral"})
    request = manage("/corral/api/pull", {"Origin": "http://localhost:3000"}, model=TEXT, stream=stream)
    answer = await stage.ask(request)
    assert lines(answer)[-1] == SUCCESS
    assert answer.all("Access-Control-Allow-Origin") == ["http://localhost:3000"]
    assert answer.get("Access-Control-Expose-Headers") == "X-Corral-Job,X-Corral-Hosts,X-Request-Id"
    refused = await stage.ask(manage("/api/pull", {"Origin": "http://elsewhere.example"}, model=NEW))
    assert refused.status == 403
    assert len(await jobs(stage)) == 1


# -- hosts that say anything ---------------------------------------------------------------------------------------------------------


def always(answer: bytes) -> ScriptedHost:
    """A host with one answer."""

    async def answering(_asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)

    return ScriptedHost("a", answering)


async def test_a_content_type_that_cannot_be_written(corral: Corral) -> None:
    """It is left out; the answer is told."""
    stage = await corral(always(http(b"{}", content_type="a\x01b")))
    for call in (manage("/api/copy", source=TEXT, destination="x"), manage("/api/show", model=TEXT), manage("/api/me")):
        answer = await stage.ask(call)
        assert (answer.status, answer.body) == (200, b"{}")


@pytest.mark.parametrize("status", [0, 99, 101, 600, 999])
async def test_a_status_that_is_none(corral: Corral, status: int) -> None:
    """It is a host's failure, not an answer."""
    stage = await corral(always(b"HTTP/1.1 %03d X\r\nContent-Length: 0\r\n\r\n" % status))
    for call, wanted in ((manage("/api/show", model=TEXT), 503), (manage("/api/me"), 503), (manage("/api/pull"), 502)):
        answer = await stage.ask(call)
        assert answer.status == wanted
        assert f"answered {status}" in error(answer)[1]


async def test_an_error_without_a_bottom(corral: Corral) -> None:
    """It fails that host's part alone."""
    deep = b'{"error":' + b"[" * 1000 + b"]" * 1000 + b"}"
    b = simulated("b")
    stage = await corral(always(http(deep)), b)
    said = lines(await stage.ask(manage("/api/pull", model=NEW)))
    assert said[-1] == {"error": "a: an error that is nested too deeply (succeeded on b)"}
    assert having(NEW, b) == ["b"]


async def test_progress_to_an_old_client(corral: Corral) -> None:
    """HTTP/1.0 has no chunks: the end of the connection is the end, whatever the client asked for."""
    stage = await corral(simulated())
    async with Client.to(stage.url) as client:
        body = json.dumps({"model": NEW}).encode()
        head = b"POST /api/pull HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: %d\r\n\r\n" % len(body)
        await client.write(head + body)
        async with asyncio.timeout(SECONDS):
            said = await client._reader.read()
    assert json.loads(said.splitlines()[-1]) == SUCCESS


async def test_a_prefix_that_begins_as_paths_do(corral: Corral) -> None:
    """`/a` is not cut off `/api/me`."""
    stage = await corral(always(http(b"{}")), http={"prefix": "/a"})
    for path in ("/api/me", "/a/api/me"):
        assert (await ask(stage.url, "POST", path, b"{}")).status == 200
    assert await stage.totals("corral_http_responses_total", "route") == {"/api/me": 2}
