"""Every fault does what its name says, as often as it was told, and to whom."""

import json
from typing import Any

import pytest

from simulator import clock
from simulator.faults import NAMES
from simulator.refusal import BUSY, LOAD_FAILED, RUNNER_DIED
from tests.contract.raw import Connection, Cut, ask
from tests.simulator.hosts import LARGE, SMALL, begun, chat, error, generate, get, lines, post, quick

MANY = 50


async def cut(host: Any, body: dict[str, Any], path: str = "/api/generate") -> tuple[int, str]:
    """How many chunks came before the connection broke, and how it did."""
    chunks = 0
    async with begun(host, path, body) as connection:
        with pytest.raises(Cut) as caught:  # noqa: PT012  the chunks before it are counted
            await connection.head()
            while await connection.chunk() is not None:
                chunks += 1
    return chunks, str(caught.value)


@pytest.mark.parametrize(
    ("name", "words"),
    [("reset_before_headers", "reset before the head"), ("close_before_headers", "closed before the head")],
)
async def test_no_answer_at_all(name: str, words: str) -> None:
    """The connection is reset or closed once the request is read; nothing is queued or loaded."""
    async with quick() as host:
        host.faults.set(name, times=1)
        assert (await cut(host, generate()))[1].startswith(words)
        assert host.ledger.entries[0].how == f"fault:{name}"
        assert host.ledger.loads == 0
        assert (await post(host, "/api/generate", generate())).status == 200


async def test_garbage() -> None:
    """Bytes that are not HTTP come in place of a head."""
    async with quick() as host:
        host.faults.set("garbage")
        assert (await cut(host, generate()))[1].startswith("not HTTP")


async def test_busy() -> None:
    """The queue is said to be full."""
    async with quick() as host:
        host.faults.set("busy")
        assert error(await post(host, "/api/chat", chat())) == (503, BUSY)
        answer = await post(host, "/v1/chat/completions", chat())
        assert (answer.status, json.loads(answer.body)["error"]["type"]) == (503, "api_error")
        answer = await post(host, "/v1/messages", chat(max_tokens=3))
        assert (answer.status, json.loads(answer.body)["error"]["type"]) == (503, "overloaded_error")


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("name", "word"),
    [("reset_mid_stream", "reset"), ("close_mid_stream", "closed"), ("garbage_mid_stream", "not a chunk")],
)
async def test_broken_in_the_middle(name: str, word: str, stream: bool) -> None:
    """After that many chunks the connection breaks; an answer that does not stream has not even a head."""
    async with quick() as host:
        host.faults.set(name, after_chunks=7, times=1)
        chunks, words = await cut(host, generate(tokens=MANY, stream=stream))
        assert chunks == (7 if stream else 0)
        assert words.startswith(word if stream or name != "garbage_mid_stream" else "not HTTP")
        assert host.ledger.entries[0].how == f"fault:{name}"
        assert host.ledger.entries[0].output_tokens == 7
        assert host.ledger.in_flight == 0
        assert (await post(host, "/api/generate", generate())).status == 200


async def test_error_in_the_middle_of_a_native_stream() -> None:
    """The last line is the error, and the stream ends cleanly."""
    async with quick() as host:
        host.faults.set("error_mid_stream", after_chunks=3)
        answer = await post(host, "/api/chat", chat(tokens=MANY))
        assert [*lines(answer)[3:]] == [{"error": RUNNER_DIED}]
        assert error(await post(host, "/api/chat", chat(tokens=MANY, stream=False))) == (500, RUNNER_DIED)


@pytest.mark.parametrize(
    ("path", "terminal"),
    [
        ("/v1/chat/completions", b"[DONE]"),
        ("/v1/completions", b"[DONE]"),
        ("/v1/messages", b"message_stop"),
        ("/v1/responses", b"response.completed"),
    ],
)
async def test_error_in_the_middle_is_swallowed_elsewhere(path: str, terminal: bytes) -> None:
    """The other dialects end cleanly and only lack their last words."""
    body = {**chat(stream=True, max_tokens=MANY), "input": "hi", "prompt": "hi", "max_output_tokens": MANY}
    async with quick() as host:
        assert terminal in (await post(host, path, body)).body
        host.faults.set("error_mid_stream", after_chunks=3)
        answer = await post(host, path, body)
    assert answer.framing == "chunked"
    assert terminal not in answer.body
    assert (b'"model":""' in answer.chunks[-1]) is path.endswith("completions")


async def test_end_without_done() -> None:
    """The stream ends cleanly with no final object."""
    async with quick() as host:
        host.faults.set("end_without_done", after_chunks=4)
        answer = await post(host, "/api/generate", generate(tokens=MANY))
    assert [line["done"] for line in lines(answer)] == [False] * 4


@pytest.mark.parametrize("name", ["hang_before_headers", "hang_mid_stream"])
async def test_hanging_ends_when_the_fault_is_cleared(name: str) -> None:
    """A host that hangs keeps its slot, and goes on where it was when the fault is cleared."""
    async with quick() as host:
        host.faults.set(name, times=1)
        async with begun(host, "/api/generate", generate(tokens=3)) as connection:
            await host.wait_until(lambda: host.ledger.faults[name] == 1)
            assert host.ledger.in_flight == host.ledger.prefill + host.ledger.generating == 1
            host.faults.clear(name)
            answer = await connection.answer()
    assert len(lines(answer)) == 4
    assert host.ledger.completed == 1


@pytest.mark.parametrize("name", ["hang_before_headers", "slow_first_byte", "hang_mid_stream"])
async def test_hanging_for_a_time(name: str) -> None:
    """With seconds, the silence ends by itself."""
    async with quick() as host:
        host.faults.set(name, seconds=0.05, times=1)
        before = clock.now()
        assert (await post(host, "/api/generate", generate())).status == 200
        assert clock.now() - before >= 0.05


async def test_load_error() -> None:
    """Loading fails with the words of a dead runner, even when the model was in memory."""
    async with quick() as host:
        await host.load(SMALL)
        host.faults.set("load_error", model="SmolLM2:135M", times=1)
        assert error(await post(host, "/api/generate", generate())) == (500, LOAD_FAILED)
        assert host.ledger.entries[-1].phase == "loading"
        assert (await post(host, "/api/generate", generate())).status == 200


async def test_slow_load() -> None:
    """Loading takes the factor longer."""
    async with quick(load_bytes_per_second=98.361e6 / 0.01) as host:
        host.faults.set("slow_load", factor=6)
        answer = lines(await post(host, "/api/generate", generate(stream=False)))[0]
    assert answer["load_duration"] >= 0.06e9


async def test_faults_of_the_reading_endpoints() -> None:
    """Polls are slow or fail, each by its own fault; inference goes on."""
    async with quick() as host:
        for name, path in (("ps_error", "/api/ps"), ("tags_error", "/api/tags"), ("version_error", "/api/version")):
            host.faults.set(name, times=1)
            assert (await ask(host.url, "GET", path)).status == 500
            assert (await ask(host.url, "GET", path)).status == 200
        host.faults.set("slow_ps", seconds=0.05, times=1)
        before = clock.now()
        assert await get(host, "/api/ps") == {"models": []}
        assert clock.now() - before >= 0.05


@pytest.mark.parametrize("name", ["ghost:1b", SMALL])
async def test_ghost_model(name: str) -> None:
    """Tags lists a model, and inference does not know it."""
    async with quick() as host:
        host.faults.set("ghost_model", model=name)
        assert name in [row["name"] for row in (await get(host, "/api/tags"))["models"]]
        assert error(await post(host, "/api/generate", generate(name))) == (404, f"model '{name}' not found")
        assert (await post(host, "/api/generate", generate(LARGE))).status == 200


async def test_refuse() -> None:
    """Connections are closed as soon as they are accepted."""
    async with quick() as host:
        host.faults.set("refuse", times=2)
        for _ in range(2):
            with pytest.raises((Cut, ConnectionError)):
                await ask(host.url, "GET", "/api/version")
        assert await get(host, "/api/version") == {"version": host.profile.version}


async def test_listening_off() -> None:
    """Nobody listens until the fault is cleared; connections that are open stay."""
    async with quick(tokens_per_second=100.0) as host:
        async with begun(host, "/api/generate", generate(tokens=3)) as connection:
            await host.wait_until(lambda: host.ledger.generating == 1)
            host.faults.set("listening_off")
            with pytest.raises(ConnectionRefusedError):
                await ask(host.url, "GET", "/api/version")
            assert (await connection.answer()).status == 200
        host.faults.clear()
        assert (await get(host, "/api/version"))["version"]


async def test_listening_off_for_a_time() -> None:
    """With seconds, the host listens again by itself."""
    async with quick() as host:
        host.faults.set("listening_off", seconds=0.02)
        with pytest.raises(ConnectionRefusedError):
            await ask(host.url, "GET", "/api/version")
        await host.wait_until(lambda: host.faults.as_list() == [])
        assert (await get(host, "/api/version"))["version"]


async def test_a_fault_of_one_model_leaves_the_others() -> None:
    """`model` names the only one that breaks."""
    async with quick() as host:
        host.faults.set("close_before_headers", model=LARGE)
        assert (await post(host, "/api/generate", generate(SMALL))).status == 200
        assert (await cut(host, generate(LARGE)))[0] == 0


async def test_times_count_down() -> None:
    """A fault is over after its times, and the ledger has counted them."""
    async with quick() as host:
        host.faults.set("busy", times=2)
        statuses = [(await post(host, "/api/generate", generate())).status for _ in range(4)]
        assert statuses == [503, 503, 200, 200]
        assert host.ledger.faults["busy"] == 2


async def test_over_http() -> None:
    """Faults are set, listed and cleared, and the ledger read, from outside."""
    async with quick() as host:
        set_ = await post(host, "/_sim/faults", {"name": "busy", "model": SMALL, "times": 3})
        assert json.loads(set_.body) | {"times": 3} == (await get(host, "/_sim/faults"))[0]
        assert (await post(host, "/api/generate", generate())).status == 503
        assert (await get(host, "/_sim/ledger"))["faults"] == {"busy": 1}
        assert (await ask(host.url, "DELETE", "/_sim/faults?name=busy")).body == b"[]"
        assert (await post(host, "/api/generate", generate())).status == 200
        assert (await post(host, "/_sim/faults", {"name": "nonsense"})).status == 400


@pytest.mark.parametrize(
    ("fault", "method", "path", "body"),
    [
        ("create_error", "POST", "/api/create", {"model": "mine", "from": SMALL, "stream": False}),
        ("copy_error", "POST", "/api/copy", {"source": SMALL, "destination": "mine"}),
        ("delete_error", "DELETE", "/api/delete", {"model": SMALL}),
        ("pull_error", "POST", "/api/pull", {"model": SMALL, "stream": False}),
    ],
)
async def test_managing(fault: str, method: str, path: str, body: dict[str, Any]) -> None:
    """A host that cannot change its models says why, and has changed nothing."""
    words = "pull model manifest: file does not exist" if fault == "pull_error" else "no space left on device"
    async with quick() as host:
        before = await get(host, "/api/tags")
        host.faults.set(fault, times=1)
        assert error(await ask(host.url, method, path, json.dumps(body).encode())) == (500, words)
        assert await get(host, "/api/tags") == before
        assert (await ask(host.url, method, path, json.dumps(body).encode())).status == 200


@pytest.mark.parametrize("how", ["cleared", "killed"])
async def test_managing_waits(how: str) -> None:
    """A host that hangs has begun nothing; it goes on once it may, and can be killed meanwhile."""
    async with quick() as host, Connection.to(host.url) as client:
        host.faults.set("hang_managing")
        await client.send("POST", "/api/copy", json.dumps({"source": SMALL, "destination": "mine"}).encode())
        await host.wait_until(lambda: host.ledger.faults["hang_managing"] == 1)
        assert host.store.find("mine") is None
        if how == "killed":
            await host.kill()
            with pytest.raises(Cut):
                await client.answer()
        else:
            host.faults.clear()
            assert (await client.answer()).status == 200
        assert (host.store.find("mine") is None) is (how == "killed")


def test_every_fault_is_tested() -> None:
    """No fault exists that this file does not name."""
    with open(__file__, encoding="utf-8") as file:
        text = file.read()
    assert {name for name in NAMES if f'"{name}"' not in text} == set()
