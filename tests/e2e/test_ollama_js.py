"""ollama-js, through Corral before two hosts: it does what people do with it, and cannot tell them from one Ollama.

Its scripts are in ``js/client.mjs``; ``make test`` installs the package where there is an npm, ``.ci/run`` always.
"""

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from simulator.host import SimulatedHost
from tests.builders import EMBEDDING, TEXT, simulated
from tests.conftest import Corral
from tests.stage import SECONDS, Stage

JS = Path(__file__).parent / "js"
NODE = shutil.which("node")
pytestmark = pytest.mark.skipif(
    NODE is None or not (JS / "node_modules" / "ollama").exists(),
    reason="needs node and npm: make js installs ollama-js",
)
NEW = "qwen2.5:0.5b"
SUCCESS = {"status": "success"}
NO_FILE = "pull model manifest: file does not exist"


async def node(stage: Stage, *behaviours: str) -> list[Any]:
    """What came of each of these."""
    process = await asyncio.create_subprocess_exec(
        *(str(NODE), "client.mjs", stage.url, *behaviours),
        cwd=JS,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(2 * SECONDS):
            said, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()
    assert process.returncode == 0, errors.decode()
    done: list[Any] = json.loads(said)
    return done


async def two(corral: Corral, **changes: Any) -> tuple[Stage, SimulatedHost, SimulatedHost]:
    """Corral before two hosts that have the same models."""
    a, b = (simulated(name, TEXT, EMBEDDING, **({"pull_bytes_per_second": 4e9} | changes)) for name in ("a", "b"))
    return await corral(a, b), a, b


def having(model: str, *hosts: SimulatedHost) -> list[str]:
    """Which hosts have a model on disk."""
    return [host.name for host in hosts if host.store.find(model) is not None]


async def outcome(stage: Stage) -> str:
    """How the one job ended."""
    await stage.gateway.jobs.idle()
    (job,) = (await stage.get("/api/jobs"))["jobs"]
    return str(job["outcome"])


async def test_pull(corral: Corral) -> None:
    """Progress comes part by part, ends in one success, and both hosts have the model; again at once, without progress."""
    stage, a, b = await two(corral)
    parts, again = await node(stage, "pull", "pull at once")
    assert [parts[0], parts[-1], parts.count(SUCCESS)] == [{"status": "pulling manifest"}, SUCCESS, 1]
    assert any(part["completed"] == part["total"] for part in parts if "completed" in part)
    assert having(NEW, a, b) == ["a", "b"]
    assert again == SUCCESS


async def test_pull_what_nobody_has(corral: Corral) -> None:
    """It raises, with each host's name and Ollama's words."""
    stage, a, b = await two(corral)
    (nobody,) = await node(stage, "pull what nobody has")
    assert nobody["message"] == f"a, b: {NO_FILE}"
    assert having("nobody-has-this", a, b) == []


async def test_aborting_a_pull(corral: Corral) -> None:
    """Both hosts stop."""
    stage, a, b = await two(corral, pull_bytes_per_second=1e6)
    (aborted,) = await node(stage, "abort a pull")
    assert aborted["error"]["name"] == "AbortError"
    for host in (a, b):
        await host.wait_until(lambda host=host: host.ledger.abandoned["/api/pull"] == 1)  # type: ignore[misc]
    await stage.gateway.jobs.idle()
    assert [job["outcome"] for job in (await stage.get("/api/jobs"))["jobs"]] == ["cancelled"]


async def test_create(corral: Corral) -> None:
    """From a model, on both hosts."""
    stage, a, b = await two(corral)
    (parts,) = await node(stage, "create")
    assert parts[-1] == SUCCESS
    assert having("mine", a, b) == ["a", "b"]


async def test_create_from_a_blob(corral: Corral) -> None:
    """The blob is not there, is stored on both hosts, is there, and need not be stored again."""
    stage, a, b = await two(corral)
    (made,) = await node(stage, "create from a blob")
    assert (made["statuses"], made["progress"]) == ([404, 201, 200, 200], SUCCESS)
    assert [host.store.blobs[made["digest"]] for host in (a, b)] == [3_000_000] * 2
    assert having("mine", a, b) == ["a", "b"]


async def test_copy_and_delete(corral: Corral) -> None:
    """On both hosts; what nobody has is a 404 in Ollama's words."""
    stage, a, b = await two(corral)
    *done, copied, deleted = await node(stage, "copy", "delete", "copy what nobody has", "delete what nobody has")
    assert done == [SUCCESS, SUCCESS]
    assert (having("mine", a, b), having(TEXT, a, b)) == (["a", "b"], [])
    missing = {"name": "ResponseError", "status": 404}
    assert copied == missing | {"message": 'model "nobody-has-this" not found'}
    assert deleted == missing | {"message": "model 'nobody-has-this' not found"}


async def test_push(corral: Corral) -> None:
    """By one host."""
    stage, a, b = await two(corral)
    (parts,) = await node(stage, "push")
    assert parts[-1] == SUCCESS
    assert a.ledger.requests["/api/push"] + b.ledger.requests["/api/push"] == 1


async def test_lists(corral: Corral) -> None:
    """list, ps, show and version speak for both hosts."""
    stage, a, b = await two(corral)
    await a.load(TEXT)
    await b.load(EMBEDDING)
    await stage.gateway.poller.refresh_changed(["a", "b"], SECONDS)
    listed, loaded, shown, missing, version = await node(stage, "list", "ps", "show", "show what nobody has", "version")
    assert {row["model"] for row in listed["models"]} == {row["model"] for row in loaded["models"]} == {TEXT, EMBEDDING}
    assert shown["model_info"]
    assert (missing["status"], missing["message"]) == (404, "model 'nobody-has-this:latest' not found")
    assert version == {"version": "0.33.0"}


@pytest.mark.parametrize(("whole", "streamed"), [("chat", "stream a chat"), ("generate", "stream a generation")])
async def test_inference(corral: Corral, whole: str, streamed: str) -> None:
    """The same words, streaming and not."""
    stage, _, _ = await two(corral)

    def text(part: Any) -> str:
        return str(part["message"]["content"] if whole == "chat" else part["response"])

    answer, parts = await node(stage, whole, streamed)
    assert "".join(map(text, parts)) == text(answer) != ""
    assert [part["done"] for part in parts] == [False] * (len(parts) - 1) + [True]
    assert parts[-1]["eval_count"] == answer["eval_count"] == 8


async def test_embeddings(corral: Corral) -> None:
    """Both forms."""
    stage, _, _ = await two(corral)
    found, old = await node(stage, "embed", "embeddings")
    assert [len(row) for row in found["embeddings"]] == [len(old["embedding"])] * 2


async def test_aborting_a_chat(corral: Corral) -> None:
    """The host stops, and nothing is held against it."""
    stage, a, b = await two(corral, tokens_per_second=100.0)
    (aborted,) = await node(stage, "abort a chat")
    assert aborted["error"]["name"] == "AbortError"
    assert 3 <= aborted["parts"] < 400, "what had come with the third part is still handed on, and no more"
    record = (await stage.records.until(1))[0]
    assert (record.outcome, record.cancelled_by) == ("cancelled", "client_disconnect")
    host = {"a": a, "b": b}[record.host]
    await host.wait_until(lambda: host.ledger.disconnected["generating"] == 1)


async def test_errors(corral: Corral) -> None:
    """A model that nobody has is told in Ollama's words; a host that breaks in the middle, in words that name it."""
    stage, a, b = await two(corral)
    for host in (a, b):
        host.faults.set("reset_mid_stream", after_chunks=2)
    nobody, broken = await node(stage, "chat with nobody", "break a chat")
    assert nobody == {"name": "ResponseError", "status": 404, "message": "model 'nobody-has-this' not found"}
    assert broken["message"].startswith(("host a broke the connection", "host b broke the connection"))
