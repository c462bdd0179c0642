"""ollama-python, through Corral before two hosts: it does what people do with it, and cannot tell them from one Ollama."""

import asyncio
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ollama
import pytest

from simulator.host import SimulatedHost
from tests.builders import EMBEDDING, TEXT, simulated
from tests.conftest import Corral
from tests.e2e.test_real_clients import ollama_at, talk
from tests.stage import Stage

NEW = "qwen2.5:0.5b"
NOBODY = "nobody-has-this"
NO_FILE = "pull model manifest: file does not exist"
BLOB = bytes(range(256)) * 8192
DIGEST = f"sha256:{hashlib.sha256(BLOB).hexdigest()}"
BRIEF = {"num_predict": 4}


async def two(corral: Corral) -> tuple[Stage, SimulatedHost, SimulatedHost]:
    """Corral before two hosts that have the same models; one is quicker to pull."""
    a, b = simulated("a", TEXT, EMBEDDING, pull_bytes_per_second=4e9), simulated("b", TEXT, EMBEDDING)
    return await corral(a, b), a, b


@pytest.fixture
def gguf(tmp_path: Path) -> Path:
    """A file that a model can be made from."""
    file = tmp_path / "a.gguf"
    file.write_bytes(BLOB)
    return file


async def test_the_asynchronous_client(corral: Corral, gguf: Path) -> None:
    """Pull, create from a file (sent chunked), copy, show, list, ps, delete, push, chat and embed."""
    stage, a, b = await two(corral)
    async with ollama_at(stage.url) as client:
        progress = [one async for one in await client.pull(NEW, stream=True)]
        assert (progress[0].status, progress[-1].status) == ("pulling manifest", "success")
        assert any(one.completed == one.total for one in progress if one.total)
        assert (await client.pull(TEXT)).status == "success"
        assert await client.create_blob(gguf) == await client.create_blob(gguf) == DIGEST
        made = [one.status async for one in await client.create("mine", files={"a.gguf": DIGEST}, stream=True)]
        assert made[-1] == "success"
        assert (await client.create("terse", from_=TEXT, system="Be terse.")).status == "success"
        assert (await client.copy("mine", "yours")).status == "success"
        assert (await client.show("yours")).modelinfo
        assert [one.status async for one in await client.push("mine", stream=True)][-1] == "success"
        assert (await client.delete("mine")).status == "success"
        names = {TEXT, EMBEDDING, NEW, "terse:latest", "yours:latest"}
        assert {model.model for model in (await client.list()).models} == names
        assert all({model.name.short for model in host.store.newest_first()} == names for host in (a, b))
        whole = await client.chat(TEXT, talk(), options=BRIEF)
        parts = [part async for part in await client.chat(TEXT, talk(), stream=True, options=BRIEF)]
        assert "".join(part.message.content or "" for part in parts) == whole.message.content
        found = await client.embed(EMBEDDING, ["a", "b"])
        assert [len(row) for row in found.embeddings] == [384, 384]
        await stage.gateway.poller.refresh_changed(["a", "b"], 5.0)
        assert {model.model for model in (await client.ps()).models} == {TEXT, EMBEDDING}


async def test_the_synchronous_client(corral: Corral, gguf: Path) -> None:
    """The same from a script, which sends files with their length."""
    stage, a, b = await two(corral)

    def script() -> list[Any]:
        client = ollama.Client(host=stage.url)
        try:
            assert list(client.pull(NEW, stream=True))[-1].status == "success"
            assert client.create_blob(gguf) == DIGEST
            assert client.create("mine", files={"a.gguf": DIGEST}).status == "success"
            client.copy("mine", "yours")
            assert client.show("yours").modelinfo
            client.delete("mine")
            assert client.ps().models == []
            assert list(client.chat(TEXT, talk(), stream=True, options=BRIEF))[-1].done
            assert len(client.embed(EMBEDDING, "a").embeddings) == 1
            return [model.model for model in client.list().models]
        finally:
            client._client.close()

    names = {TEXT, EMBEDDING, NEW, "yours:latest"}
    assert set(await asyncio.to_thread(script)) == names
    assert all({model.name.short for model in host.store.newest_first()} == names for host in (a, b))
    assert [host.store.blobs.get(DIGEST) for host in (a, b)] == [len(BLOB)] * 2


ERRORS: dict[str, tuple[Callable[[ollama.AsyncClient], Any], int, str]] = {
    "pull": (lambda client: client.pull(NOBODY), 500, f"a, b: {NO_FILE}"),
    "push": (lambda client: client.push("a b"), 400, "invalid model name"),
    "create": (lambda client: client.create("mine"), 400, "neither 'from' or 'files' was specified"),
    "copy": (lambda client: client.copy(NOBODY, "mine"), 404, f'model "{NOBODY}" not found'),
    "delete": (lambda client: client.delete(NOBODY), 404, f"model '{NOBODY}' not found"),
    "show": (lambda client: client.show(NOBODY), 404, f"model '{NOBODY}:latest' not found"),
    "chat": (lambda client: client.chat(NOBODY, talk()), 404, f"model '{NOBODY}' not found"),
    "embed": (lambda client: client.embed(NOBODY, "a"), 404, f'model "{NOBODY}" not found, try pulling it first'),
}


@pytest.mark.parametrize(("ask", "status", "text"), ERRORS.values(), ids=ERRORS)
async def test_errors(corral: Corral, ask: Callable[[ollama.AsyncClient], Any], status: int, text: str) -> None:
    """Ollama's own, with the names of hosts where each was asked for its part."""
    stage, _, _ = await two(corral)
    async with ollama_at(stage.url) as client:
        with pytest.raises(ollama.ResponseError) as caught:
            await ask(client)
    assert (caught.value.status_code, caught.value.error) == (status, text)


async def test_a_stream_that_fails(corral: Corral) -> None:
    """It raises what the last line says."""
    stage, a, b = await two(corral)
    a.faults.set("pull_error", model=NEW)
    async with ollama_at(stage.url) as client:
        with pytest.raises(ollama.ResponseError, match=rf"^a: {NO_FILE} \(succeeded on b\)"):
            _ = [one async for one in await client.pull(NEW, stream=True)]
    assert (a.store.find(NEW), b.store.find(NEW) is None) == (None, False)
