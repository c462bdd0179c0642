"""The clients that people use: the ``ollama``, ``openai`` and ``anthropic`` packages speak to Corral as they would to one Ollama.

They speak to simulated hosts. With ``CORRAL_TEST_OLLAMA=url,url`` they speak to those hosts instead, and what needs a host that
breaks on purpose is skipped.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import anthropic
import ollama
import openai
import pytest

from tests.builders import AUDIO, EMBEDDING, TEXT, call, simulated
from tests.conftest import Corral
from tests.real import REAL, real_hosts, smallest
from tests.stage import Stage

needs_faults = pytest.mark.skipif(
    bool(REAL), reason="needs hosts that break on purpose; CORRAL_TEST_OLLAMA names real ones"
)
pytestmark = pytest.mark.real
LONG = 400
"""Tokens that take a while: long enough to be stopped."""
SAY = "Count from one to a hundred, in words."


@dataclass(frozen=True, slots=True)
class Here:
    """A gateway, with models for text and for embeddings that its hosts have."""

    stage: Stage
    text: str
    embedding: str

    @property
    def host(self) -> Any:
        """The first host."""
        return self.stage.hosts[0]

    @property
    def url(self) -> str:
        """The gateway's address."""
        return self.stage.url


async def before(corral: Corral, **profile: Any) -> Here:
    """Corral before simulated hosts of that profile, or before the real ones and the smallest models that they have."""
    if not REAL:
        return Here(await corral(simulated("gpu1", **profile)), TEXT, EMBEDDING)
    stage = await corral(*real_hosts())
    names = smallest((await stage.get("/api/tags"))["models"])
    if "completion" not in names:
        pytest.skip("the hosts in CORRAL_TEST_OLLAMA have no model that completes text")
    return Here(stage, names["completion"], names.get("embedding", ""))


@pytest.fixture
async def here(corral: Corral) -> Here:
    """Hosts that answer at once."""
    return await before(corral)


@pytest.fixture
async def slow(corral: Corral) -> Here:
    """A host that generates slowly enough to be caught in the act."""
    return await before(corral, tokens_per_second=100.0)


@contextlib.asynccontextmanager
async def openai_at(url: str) -> AsyncIterator[openai.AsyncOpenAI]:
    """The OpenAI client; it tries nothing twice."""
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="secret", max_retries=0) as client:
        yield client


@contextlib.asynccontextmanager
async def anthropic_at(url: str) -> AsyncIterator[anthropic.AsyncAnthropic]:
    """The Anthropic client; it tries nothing twice."""
    async with anthropic.AsyncAnthropic(base_url=url, api_key="secret", max_retries=0) as client:
        yield client


@contextlib.asynccontextmanager
async def ollama_at(url: str) -> AsyncIterator[ollama.AsyncClient]:
    """The Ollama client."""
    client = ollama.AsyncClient(host=url)
    try:
        yield client
    finally:
        await client._client.aclose()


def talk(text: str = SAY) -> list[Any]:
    """One question."""
    return [{"role": "user", "content": text}]


# -- streaming and not --------------------------------------------------------------------------------------------------------


async def test_ollama_chat(here: Here) -> None:
    """chat and generate, streaming and not, with the counts of the last chunk."""
    options = {"num_predict": 8, "seed": 1, "temperature": 0.0}
    async with ollama_at(here.url) as client:
        whole = await client.chat(here.text, talk(), options=options)
        parts = [part async for part in await client.chat(here.text, talk(), stream=True, options=options)]
        assert "".join(part.message.content or "" for part in parts) == whole.message.content
        assert [part.done for part in parts] == [False] * (len(parts) - 1) + [True]
        assert (parts[-1].eval_count, parts[-1].done_reason) == (8, "length")
        said = await client.generate(here.text, SAY, options=options)
        pieces = [part async for part in await client.generate(here.text, SAY, stream=True, options=options)]
        assert "".join(part.response for part in pieces) == said.response
        assert pieces[-1].context


async def test_ollama_lists(here: Here) -> None:
    """list, ps and embed."""
    async with ollama_at(here.url) as client:
        assert here.text in [row.model for row in (await client.list()).models]
        await client.generate(here.text, "hi", options={"num_predict": 1})
        here.stage.gateway.poller.poke(here.stage.records[-1].host if here.stage.records else here.host.name)
        assert isinstance((await client.ps()).models, list)
        if here.embedding:
            found = await client.embed(here.embedding, ["a", "b"])
            assert [len(row) for row in found.embeddings] == [len(found.embeddings[0])] * 2
            old = await client.embeddings(here.embedding, "a")
            assert len(old.embedding) == len(found.embeddings[0])


async def test_the_synchronous_ollama_client(here: Here) -> None:
    """The client of most scripts, from a thread of its own."""

    def script() -> list[Any]:
        client = ollama.Client(host=here.url)
        try:
            return list(client.chat(here.text, talk(), stream=True, options={"num_predict": 4}))
        finally:
            client._client.close()

    parts = await asyncio.to_thread(script)
    assert parts[-1].done


async def test_openai_chat(here: Here) -> None:
    """Chat completions, streaming and not, with usage."""
    async with openai_at(here.url) as client:
        ask_ = {"model": here.text, "messages": talk(), "max_tokens": 8, "seed": 1, "temperature": 0.0}
        whole = await client.chat.completions.create(**ask_)
        stream = await client.chat.completions.create(**ask_, stream=True, stream_options={"include_usage": True})
        chunks = [chunk async for chunk in stream]
        deltas = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
        assert "".join(deltas) == whole.choices[0].message.content
        assert chunks[-1].usage is not None
        assert whole.usage is not None
        assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens == 8


async def test_openai_others(here: Here) -> None:
    """Completions, responses, embeddings and the list of models."""
    async with openai_at(here.url) as client:
        completion = await client.completions.create(model=here.text, prompt=SAY, max_tokens=5)
        assert completion.choices[0].text
        pieces = [
            p async for p in await client.completions.create(model=here.text, prompt=SAY, max_tokens=5, stream=True)
        ]
        assert pieces[-1].choices[0].finish_reason == "length"
        response = await client.responses.create(model=here.text, input=SAY, max_output_tokens=5)
        assert response.output_text
        events = [
            e async for e in await client.responses.create(model=here.text, input=SAY, max_output_tokens=5, stream=True)
        ]
        assert [events[0].type, events[-1].type] == ["response.created", "response.completed"]
        assert here.text in [model.id async for model in client.models.list()]
        if here.embedding:
            vectors = await client.embeddings.create(model=here.embedding, input=["a", "b"])
            assert len(vectors.data) == 2


@needs_faults
async def test_openai_transcription(here: Here) -> None:
    """A file of sound goes up, a text comes down."""
    async with openai_at(here.url) as client:
        said = await client.audio.transcriptions.create(model=AUDIO, file=("said.wav", b"RIFF....WAVE"))
        assert said.text


async def test_anthropic_messages(here: Here) -> None:
    """Messages, streaming and not, with usage."""
    async with anthropic_at(here.url) as client:
        ask_ = {"model": here.text, "messages": talk(), "max_tokens": 8, "extra_body": {"temperature": 0.0}}
        whole = await client.messages.create(**ask_)
        async with client.messages.stream(**ask_) as stream:
            text = "".join([piece async for piece in stream.text_stream])
            final = await stream.get_final_message()
        assert text == "".join(block.text for block in whole.content if block.type == "text")
        assert (final.stop_reason, final.usage.output_tokens) == ("max_tokens", 8)
        assert text


# -- errors -------------------------------------------------------------------------------------------------------------------


async def test_unknown_model(here: Here) -> None:
    """Every client raises what it raises for a model that is not there."""
    async with ollama_at(here.url) as client:
        with pytest.raises(ollama.ResponseError, match="not found") as native:
            await client.chat("nobody:1b", talk())
        assert native.value.status_code == 404
        with pytest.raises(ollama.ResponseError, match="not found"):
            _ = [part async for part in await client.generate("nobody:1b", "hi", stream=True)]
    async with openai_at(here.url) as client:
        with pytest.raises(openai.NotFoundError, match="not found") as found:
            await client.chat.completions.create(model="nobody:1b", messages=talk())
        assert found.value.type == "not_found_error"
        with pytest.raises(openai.NotFoundError):
            await client.responses.create(model="nobody:1b", input="hi", stream=True)
    async with anthropic_at(here.url) as client:
        with pytest.raises(anthropic.NotFoundError, match="not found"):
            await client.messages.create(model="nobody:1b", messages=talk(), max_tokens=5)


@needs_faults
async def test_queue_full(corral: Corral) -> None:
    """Every client raises what it raises for a server that is overloaded, and can read when to come again."""
    host = simulated()
    stage = await corral(host, queue={"limit": 1})
    host.faults.set("hang_before_headers")
    async with stage.begun(call("/api/chat"), "a") as first, stage.begun(call("/api/chat"), "b") as second:
        await stage.row("a", "prefill")
        await stage.row("b", "queued")
        async with ollama_at(stage.url) as client:
            with pytest.raises(ollama.ResponseError, match="queue is full") as native:
                await client.chat(TEXT, talk())
            assert native.value.status_code == 503
        async with openai_at(stage.url) as client:
            with pytest.raises(openai.InternalServerError, match="queue is full") as busy:
                await client.chat.completions.create(model=TEXT, messages=talk())
            assert busy.value.code == "queue_full"
            assert int(busy.value.response.headers["Retry-After"]) >= 1
        async with anthropic_at(stage.url) as client:
            with pytest.raises(anthropic.APIStatusError, match="queue is full") as full:
                await client.messages.create(model=TEXT, messages=talk(), max_tokens=5)
            assert full.value.status_code == 503
        host.faults.clear()
        assert [(await client.answer()).status for client in (first, second)] == [200, 200]


@needs_faults
async def test_no_host_answers(corral: Corral) -> None:
    """A fleet that fails is told with the name of each host."""
    hosts = [simulated("gpu1"), simulated("gpu2")]
    stage = await corral(*hosts)
    for host in hosts:
        host.faults.set("close_before_headers")
    async with ollama_at(stage.url) as client:
        with pytest.raises(ollama.ResponseError, match=r"gpu. closed|gpu.: closed"):
            await client.chat(TEXT, talk())
    async with openai_at(stage.url) as client:
        with pytest.raises(openai.APIStatusError, match="gpu"):
            await client.chat.completions.create(model=TEXT, messages=talk())
    async with anthropic_at(stage.url) as client:
        with pytest.raises(anthropic.APIStatusError, match="gpu"):
            await client.messages.create(model=TEXT, messages=talk(), max_tokens=5)


# -- breaking off -------------------------------------------------------------------------------------------------------------

Consumer = Callable[[str, str, "Stop"], Awaitable[list[Any]]]


class Stop:
    """Called after the second piece of a stream: says whether to leave."""

    def __init__(self, stage: Stage, operator: str) -> None:
        self._stage = stage
        self._operator = operator
        self._seen = 0

    async def __call__(self) -> bool:
        self._seen += 1
        if self._seen != 2:
            return False
        if not self._operator:
            return True
        (row,) = await self._stage.in_flight()
        assert (await self._stage.operate("DELETE", self._operator.format(row["id"]))).status == 200
        return False


async def with_ollama(url: str, model: str, stop: Stop) -> list[Any]:
    """Pieces of a chat."""
    parts = []
    async with ollama_at(url) as client:
        stream = await client.chat(model, talk(), stream=True, options={"num_predict": LONG})
        async for part in stream:
            parts.append(part)
            if await stop():
                break
    return parts


async def with_openai(url: str, model: str, stop: Stop) -> list[Any]:
    """Pieces of a chat completion."""
    parts = []
    async with openai_at(url) as client:
        stream = await client.chat.completions.create(model=model, messages=talk(), max_tokens=LONG, stream=True)
        async with stream:
            async for part in stream:
                parts.append(part)
                if await stop():
                    break
    return parts


async def with_responses(url: str, model: str, stop: Stop) -> list[Any]:
    """Events of a response, as the helper tells them that holds each against those before it."""
    parts = []
    async with (
        openai_at(url) as client,
        client.responses.stream(model=model, input=SAY, max_output_tokens=LONG) as stream,
    ):
        async for part in stream:
            parts.append(part)
            if part.type == "response.output_text.delta" and await stop():
                break
    return parts


async def with_anthropic(url: str, model: str, stop: Stop) -> list[Any]:
    """Events of a message."""
    parts = []
    async with anthropic_at(url) as client:
        stream = await client.messages.create(model=model, messages=talk(), max_tokens=LONG, stream=True)
        async with stream:
            async for part in stream:
                parts.append(part)
                if part.type == "content_block_delta" and await stop():
                    break
    return parts


CONSUMERS: dict[str, Consumer] = {
    "ollama": with_ollama,
    "openai": with_openai,
    "responses": with_responses,
    "anthropic": with_anthropic,
}


@pytest.mark.parametrize("name", CONSUMERS)
async def test_closing_the_stream_frees_the_host(slow: Here, name: str) -> None:
    """A client that stops reading and closes its stream ends the generation, and the host stops."""
    await CONSUMERS[name](slow.url, slow.text, Stop(slow.stage, ""))
    record = (await slow.stage.records.until(1))[0]
    assert (record.outcome, record.cancelled_by, record.phase) == ("cancelled", "client_disconnect", "streaming")
    if not REAL:
        ledger = slow.host.ledger
        await ledger.wait_until(lambda: ledger.disconnected["generating"] == 1, 5.0)
        assert ledger.tokens_generated < LONG


@pytest.mark.parametrize("name", CONSUMERS)
async def test_an_operator_stops_the_stream(slow: Here, name: str) -> None:
    """A client whose generation is stopped sees its stream end as its dialect ends, and raises nothing."""
    parts = await CONSUMERS[name](slow.url, slow.text, Stop(slow.stage, "/api/generations/{}"))
    last = parts[-1]
    if name == "ollama":
        assert (last.done, last.done_reason) == (True, "cancelled")
    elif name == "openai":
        assert last.choices[0].finish_reason == "cancelled"
    elif name == "responses":
        assert (last.type, last.response.incomplete_details.reason) == ("response.incomplete", "cancelled")
    else:
        assert (last.type, parts[-2].delta.stop_reason) == ("message_stop", "cancelled")
    record = (await slow.stage.records.until(1))[0]
    assert (record.outcome, record.cancelled_by) == ("cancelled", "api")


@needs_faults
@pytest.mark.parametrize("name", CONSUMERS)
async def test_a_host_that_dies_is_an_error(slow: Here, name: str) -> None:
    """A client whose host is killed in the middle raises an error that names the host: it takes no half answer for a whole one."""
    slow.host.faults.set("reset_mid_stream", after_chunks=5)
    never = Never(slow.stage, "")
    if name == "responses":  # this client hands the failure on as the last event
        last = (await CONSUMERS[name](slow.url, slow.text, never))[-1]
        assert (last.type, "gpu1" in last.response.error.message) == ("response.failed", True)
        return
    with pytest.raises((ollama.ResponseError, openai.APIError, anthropic.APIError), match="gpu1"):
        await CONSUMERS[name](slow.url, slow.text, never)


class Never(Stop):
    """Reads to the end."""

    async def __call__(self) -> bool:
        return False
