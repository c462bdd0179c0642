"""What changes a host's disk, where the recordings do not already say it."""

import hashlib

import pytest

from simulator.host import SimulatedHost
from tests.contract.raw import Connection, ask
from tests.simulator.hosts import SMALL, begun, error, generate, get, lines, post, quick

NEW = "qwen2.5:0.5b"


async def names(host: SimulatedHost) -> list[str]:
    return [row["name"] for row in (await get(host, "/api/tags"))["models"]]


async def test_pull() -> None:
    """Progress rises to the whole size, one `success` ends it, and the model can be used."""
    async with quick(pull_bytes_per_second=4e9) as host:
        answer = lines(await post(host, "/api/pull", {"model": NEW}))
        assert (await names(host))[0] == NEW
        assert (await post(host, "/api/generate", generate(NEW))).status == 200
    assert [answer[0]["status"], answer[-1]["status"]] == ["pulling manifest", "success"]
    blob = [line for line in answer if line["status"].startswith("pulling ") and line.get("total", 0) > 10**6]
    completed = [line.get("completed", 0) for line in blob]
    assert completed == sorted(completed)
    assert (completed[0], completed[-1]) == (0, blob[0]["total"])
    assert len(blob) > 2
    assert blob[0]["digest"][7:19] == blob[0]["status"].removeprefix("pulling ")


async def test_pull_without_streaming() -> None:
    """Only the last line comes, as one object; what is there already is not fetched again."""
    async with quick() as host:
        assert lines(await post(host, "/api/pull", {"name": SMALL, "stream": False})) == [{"status": "success"}]


async def test_pull_of_what_nobody_has() -> None:
    """An error comes as the last line with status 200, or as 500 when it does not stream."""
    words = "pull model manifest: file does not exist"
    async with quick() as host:
        streamed = await post(host, "/api/pull", {"model": "nobody-has-this"})
        assert (streamed.status, lines(streamed)[-1]) == (200, {"error": words})
        assert error(await post(host, "/api/pull", {"model": "nobody-has-this", "stream": False})) == (500, words)


async def test_leaving_a_pull_ends_it() -> None:
    """A client that goes away ends the transfer."""
    async with quick(pull_bytes_per_second=1e6) as host:
        async with begun(host, "/api/pull", {"model": NEW}) as connection:
            await connection.head()
        await host.wait_until(lambda: host.ledger.abandoned["/api/pull"] == 1)
        await host.wait_until(lambda: host.ledger.connections_open == 0)
        assert NEW not in await names(host)


async def test_push() -> None:
    """Each layer is told, and success."""
    async with quick() as host:
        answer = lines(await post(host, "/api/push", {"model": SMALL}))
    assert [answer[0]["status"], answer[-1]["status"]] == ["retrieving manifest", "success"]
    assert all(line["digest"].startswith("sha256:") for line in answer[1:-2])


async def test_create_from_another_model() -> None:
    """The new model has its own digest, shares the blob, and is pulled first when its base is not there."""
    async with quick() as host:
        answer = await post(host, "/api/create", {"model": "mine", "from": NEW, "system": "Be terse."})
        assert lines(answer)[-1] == {"status": "success"}
        assert (await names(host))[:2] == ["mine:latest", NEW]
        mine, base = (await get(host, "/api/tags"))["models"][:2]
        assert mine["digest"] != base["digest"]
        shown = lines(await post(host, "/api/show", {"model": "mine"}))[0]
        assert shown["system"] == "Be terse."
        await post(host, "/api/generate", generate("mine"))
        await post(host, "/api/generate", generate(NEW))
        assert host.ledger.loads == 1


async def test_create_from_a_blob() -> None:
    """A blob is uploaded once, found by HEAD, and made into a model."""
    data = b"GGUF" * 1000
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    async with quick() as host:
        assert (await ask(host.url, "HEAD", f"/api/blobs/{digest}")).status == 404
        assert (await ask(host.url, "POST", f"/api/blobs/{digest}", data)).status == 201
        assert (await ask(host.url, "POST", f"/api/blobs/{digest}", data)).status == 200
        assert (await ask(host.url, "HEAD", f"/api/blobs/{digest}")).status == 200
        answer = await post(host, "/api/create", {"model": "mine:1b", "files": {"a.gguf": digest}})
        assert lines(answer)[-1] == {"status": "success"}
        assert (await post(host, "/api/generate", generate("mine:1b"))).status == 200


@pytest.mark.parametrize("how", ["close", "reset"])
async def test_leaving_an_upload(how: str) -> None:
    """Half a blob is none."""
    digest = f"sha256:{hashlib.sha256(b'abc').hexdigest()}"
    async with quick() as host:
        async with Connection.to(host.url) as connection:
            await connection.send("POST", f"/api/blobs/{digest}", b"abc", {"Content-Length": "6"})
            await host.wait_until(lambda: host.ledger.body_bytes == 3)
            await connection.close() if how == "close" else connection.reset()
        await host.wait_until(lambda: host.ledger.abandoned["/api/blobs/:"] == 1)
        assert digest not in host.store.blobs


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/api/create", {"model": "x", "stream": False}, 400),
        ("/api/create", {"model": "a b", "from": SMALL}, 400),
        ("/api/pull", {}, 400),
        ("/api/copy", {"source": "a b", "destination": "x"}, 400),
        ("/api/copy", {"source": SMALL, "destination": ""}, 400),
    ],
)
async def test_names_that_are_none(path: str, body: dict[str, object], status: int) -> None:
    """A request that names nothing is the client's fault."""
    async with quick() as host:
        assert (await post(host, path, body)).status == status


async def test_deleting_the_last_name_removes_the_blob() -> None:
    """Layers stay as long as a model uses them."""
    async with quick() as host:
        model = host.store.find(SMALL)
        assert model is not None
        await post(host, "/api/copy", {"source": SMALL, "destination": "twin"})
        for name, kept in (("twin", True), (SMALL, False)):
            await ask(host.url, "DELETE", "/api/delete", b'{"name":"%b"}' % name.encode())
            assert (model.blob in host.store.blobs) is kept
