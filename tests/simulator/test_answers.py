"""What a host says: the same for the same seed, in numbers that agree, in each dialect, for every kind of model."""

import base64
import json
import struct
from typing import Any

import pytest
import zstandard

from simulator.fleet import SimulatedFleet
from simulator.host import HostProfile, SimulatedHost
from tests.contract.raw import Answer, ask
from tests.contract.shapes import events
from tests.simulator.hosts import LARGE, SMALL, chat, error, generate, get, lines, post, quick, said

THINKER = "qwen3:0.6b"
EMBEDDER = "all-minilm"
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}},
    },
}
ARGUMENTS = {"city": "llama", "days": 1}


def sse(answer: Answer) -> list[Any]:
    """The data of each event."""
    return [event[1]["data"] for chunk in answer.chunks for event in events(chunk)]


async def test_the_same_seed_says_the_same() -> None:
    """Text depends on seed, model and prompt, and on nothing else; not on the host either."""
    profile = HostProfile(tokens_per_second=5000.0, load_bytes_per_second=1e13)
    async with SimulatedFleet.of(2, profile, seed=7) as fleet:
        texts = [said(await post(host, "/api/generate", generate(tokens=20))) for host in fleet for _ in range(2)]
        other = said(await post(fleet["sim1"], "/api/generate", generate(prompt="else", tokens=20)))
        seeded = said(await post(fleet["sim1"], "/api/generate", generate(tokens=20, options={"seed": 3})))
    async with SimulatedHost("x", profile, seed=8) as host:
        reseeded = said(await post(host, "/api/generate", generate(tokens=20)))
    assert len(set(texts)) == 1
    assert len({texts[0], other, seeded, reseeded}) == 4


async def test_streaming_says_what_not_streaming_says() -> None:
    """Both forms of an answer hold the same text and the same counts."""
    async with quick() as host:
        stream = await post(host, "/api/generate", generate(tokens=9))
        whole = lines(await post(host, "/api/generate", generate(tokens=9, stream=False)))[0]
    assert said(stream) == whole["response"]
    assert len(stream.chunks) == 10
    assert (lines(stream)[-1]["eval_count"], lines(stream)[-1]["context"]) == (9, whole["context"])


async def test_paragraphs() -> None:
    """As models write; what is JSON stays JSON."""
    async with quick() as host:
        whole = said(await post(host, "/api/generate", generate(tokens=200)))
        form = said(await post(host, "/api/generate", generate(tokens=200, format="json")))
    assert [len(text.split()) for text in whole.split("\n\n")] == [80, 80, 40]
    assert "\n" not in form
    assert json.loads(form)["answer"]


@pytest.mark.parametrize(
    ("asked", "reason"), [({"num_predict": 8}, "length"), ({}, "stop"), ({"num_predict": -1}, "stop")]
)
async def test_how_much_is_said(asked: dict[str, int], reason: str) -> None:
    """As many tokens as asked for, or a number by the seed that ends with a token of its own."""
    async with quick() as host:
        answers = [lines(await post(host, "/api/generate", {**generate(), "options": asked})) for _ in range(2)]
    assert [len(answer) for answer in answers] == [len(answers[0])] * 2
    last = answers[0][-1]
    assert last["done_reason"] == reason
    assert last["eval_count"] == (8 if reason == "length" else len(answers[0]))


async def test_the_numbers_agree_with_what_was_simulated() -> None:
    """Durations are those of load, prefill and generation, and their sum is the total."""
    async with quick(
        tokens_per_second=500.0, prefill_tokens_per_second=1000.0, load_bytes_per_second=98.361e6 / 0.05
    ) as host:
        last = lines(await post(host, "/api/generate", generate(prompt="word " * 41, tokens=26)))[-1]
    assert last["prompt_eval_count"] == 50
    parts = (last["load_duration"], last["prompt_eval_duration"], last["eval_duration"])
    assert all(duration >= 50e6 for duration in parts)
    assert last["total_duration"] >= sum(parts)


async def test_no_pace_is_kept_by_timers_alone() -> None:
    """Ten thousand tokens at a hundred thousand a second take far less than a timer for each would."""
    async with quick(tokens_per_second=100_000.0) as host:
        last = lines(await post(host, "/api/generate", generate(tokens=10_000)))[-1]
    assert 0.0999e9 <= last["eval_duration"] < 3e9


async def test_the_head_comes_with_the_first_token() -> None:
    """Until then nothing is written, so an error still has its status."""
    async with quick() as host:
        host.faults.set("load_error")
        answer = await post(host, "/api/generate", generate())
    assert error(answer)[0] == 500


async def test_context_continues_a_conversation() -> None:
    """The context of one answer, sent back, is the beginning of the next prompt."""
    async with quick() as host:
        first = lines(await post(host, "/api/generate", generate()))[-1]
        await post(host, "/api/generate", generate(prompt="And then?", context=first["context"]))
        assert host.ledger.entries[-1].cached_tokens == len(first["context"])


async def test_thinking() -> None:
    """A thinking model thinks first, unless told not to; each dialect has its own place for it."""
    async with quick(models=(THINKER,)) as host:
        answer = lines(await post(host, "/api/chat", chat(THINKER, tokens=9)))
        thoughts = [line["message"].get("thinking") for line in answer[:-1]]
        assert all(thoughts[:3])
        assert not any(thoughts[3:])
        assert [bool(line["message"]["content"]) for line in answer] == [False] * 3 + [True] * 6 + [False]
        whole = lines(await post(host, "/api/chat", chat(THINKER, tokens=9, stream=False)))[0]["message"]
        assert whole["thinking"] == "".join(thoughts[:3])
        quiet = lines(await post(host, "/api/chat", chat(THINKER, tokens=9, think=False, stream=False)))[0]["message"]
        assert "thinking" not in quiet
        generated = lines(await post(host, "/api/generate", generate(THINKER, tokens=9, stream=False)))[0]
        assert generated["thinking"]
        v1 = sse(await post(host, "/v1/chat/completions", chat(THINKER, stream=True, max_tokens=9)))
        assert [list(event["choices"][0]["delta"]) for event in v1[:4]] == [
            ["role", "content", "reasoning"],
            ["content", "reasoning"],
            ["content", "reasoning"],
            ["content"],
        ]
        messages = sse(await post(host, "/v1/messages", chat(THINKER, stream=True, max_tokens=9)))
        blocks = [event["content_block"]["type"] for event in messages if event["type"] == "content_block_start"]
        assert blocks == ["thinking", "text"]
        responses = sse(await post(host, "/v1/responses", {"model": THINKER, "input": "x", "stream": True}))
        assert [item["type"] for item in responses[-1]["response"]["output"]] == ["reasoning", "message"]


async def test_tools() -> None:
    """A model with tools calls the first one at the end of its answer; after the tool's result it talks."""
    async with quick() as host:
        answer = lines(await post(host, "/api/chat", chat(LARGE, tools=[TOOL])))
        assert len(answer) == 1
        call = answer[0]["message"]["tool_calls"][0]
        assert call["function"] == {"index": 0, "name": "weather", "arguments": ARGUMENTS}
        assert answer[0]["eval_count"] == 5
        result = [{"role": "user", "content": "x"}, {"role": "tool", "content": "sun"}]
        after = lines(await post(host, "/api/chat", {"model": LARGE, "messages": result, "tools": [TOOL]}))
        assert len(after) > 1

        v1 = sse(await post(host, "/v1/chat/completions", chat(LARGE, tools=[TOOL], stream=True)))
        function = v1[0]["choices"][0]["delta"]["tool_calls"][0]["function"]
        assert json.loads(function["arguments"]) == ARGUMENTS
        assert [event["choices"][0]["finish_reason"] for event in v1[:2]] == [None, "tool_calls"]
        whole = lines(await post(host, "/v1/chat/completions", chat(LARGE, tools=[TOOL])))[0]["choices"][0]
        assert whole["finish_reason"] == "tool_calls"

        tool = {"name": "weather", "input_schema": TOOL["function"]["parameters"]}  # type: ignore[index]
        messages = sse(await post(host, "/v1/messages", chat(LARGE, tools=[tool], stream=True, max_tokens=9)))
        assert messages[1]["content_block"]["name"] == "weather"
        assert messages[-2]["delta"]["stop_reason"] == "tool_use"
        function = {"type": "function", **TOOL["function"]}  # type: ignore[dict-item]
        ask_ = {"model": LARGE, "input": "x", "tools": [function]}
        responses = sse(await post(host, "/v1/responses", {**ask_, "stream": True}))
        assert responses[-1]["response"]["output"][0]["arguments"] == json.dumps(ARGUMENTS, separators=(",", ":"))
        whole = lines(await post(host, "/v1/responses", ask_))[0]
        assert whole["output"][0]["type"] == "function_call"


async def test_json_format() -> None:
    """With `format` the answer is a JSON object, where the limit leaves room for it."""
    async with quick() as host:
        native = said(await post(host, "/api/generate", generate(tokens=9, format="json")))
        body = chat(max_tokens=9, response_format={"type": "json_object"})
        v1 = lines(await post(host, "/v1/chat/completions", body))[0]["choices"][0]["message"]["content"]
    assert json.loads(native).keys() == json.loads(v1).keys() == {"answer"}


async def test_logprobs() -> None:
    """Each token has its logprob and as many others as asked for, in every dialect that has them."""
    async with quick() as host:
        stream = lines(await post(host, "/api/chat", chat(logprobs=True, top_logprobs=2)))
        assert [len(line["logprobs"][0]["top_logprobs"]) for line in stream[:-1]] == [2] * 5
        whole = lines(await post(host, "/api/generate", generate(logprobs=True, stream=False)))[0]
        assert len(whole["logprobs"]) == 5
        v1 = lines(await post(host, "/v1/chat/completions", chat(logprobs=True, max_tokens=4)))[0]
        assert len(v1["choices"][0]["logprobs"]["content"]) == 4
        assert (await post(host, "/api/chat", chat(logprobs=True, top_logprobs=21))).status == 400


async def test_embeddings() -> None:
    """An embedding model gives unit vectors, the same for the same text, in three shapes; and no text."""
    async with quick(models=(EMBEDDER, SMALL)) as host:
        native = lines(await post(host, "/api/embed", {"model": EMBEDDER, "input": ["one", "two two"]}))[0]
        assert [len(vector) for vector in native["embeddings"]] == [384, 384]
        assert sum(value * value for value in native["embeddings"][0]) == pytest.approx(1, abs=1e-4)
        assert native["prompt_eval_count"] == 3
        old = lines(await post(host, "/api/embeddings", {"model": EMBEDDER, "prompt": "one"}))[0]
        assert old["embedding"] == native["embeddings"][0]
        v1 = lines(await post(host, "/v1/embeddings", {"model": EMBEDDER, "input": "one", "encoding_format": "base64"}))
        packed = base64.b64decode(v1[0]["data"][0]["embedding"])
        assert struct.unpack("<384f", packed) == pytest.approx(native["embeddings"][0])
        short = lines(await post(host, "/v1/embeddings", {"model": EMBEDDER, "input": "one", "dimensions": 8}))[0]
        assert len(short["data"][0]["embedding"]) == 8
        empty = lines(await post(host, "/api/embed", {"model": EMBEDDER, "input": []}))[0]
        assert empty == {"model": EMBEDDER, "embeddings": []}
        assert error(await post(host, "/api/chat", chat(EMBEDDER))) == (400, f'"{EMBEDDER}" does not support chat')
        upper = await post(host, "/api/embeddings", {"model": EMBEDDER.upper(), "prompt": "one"})
        assert upper.status == 404


@pytest.mark.parametrize(("form", "media_type"), [("json", "application/json"), ("text", "text/plain")])
async def test_transcription(form: str, media_type: str) -> None:
    """The model is named in a form's field, and the answer is text or JSON."""
    parts = {"model": "gemma3n:e4b", "response_format": form, 'file"; filename="a.wav': "RIFF…"}
    body = "".join(
        f'--x\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n' for name, value in parts.items()
    )
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    async with quick(models=("gemma3n:e4b",)) as host:
        answer = await ask(host.url, "POST", "/v1/audio/transcriptions", f"{body}--x--\r\n".encode(), headers)
        refused = await ask(host.url, "POST", "/v1/audio/transcriptions", b"{}", headers)
    assert (answer.status, answer.get("Content-Type")) == (200, media_type)
    assert refused.status == 400
    assert host.ledger.entries[0].model == "gemma3n:e4b"


async def test_v1_bodies_may_be_zstd() -> None:
    """The JSON paths under /v1 take zstd; the others do not."""
    body = zstandard.ZstdCompressor().compress(json.dumps(chat(max_tokens=3)).encode())
    headers = {"Content-Encoding": "zstd"}
    async with quick() as host:
        assert (await ask(host.url, "POST", "/v1/chat/completions", body, headers)).status == 200
        assert error(await ask(host.url, "POST", "/api/chat", body, headers)) == (
            400,
            "invalid character '(' looking for beginning of value",
        )
        broken = await ask(host.url, "POST", "/v1/chat/completions", b"nonsense", headers)
        assert json.loads(broken.body)["error"]["message"] == "failed to decompress zstd body"


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"", 400, "missing request body"),
        (b"[]", 400, "json: cannot unmarshal array into Go value of type GenerateRequest"),
        (
            b'{"model":3}',
            400,
            "json: cannot unmarshal number into Go struct field GenerateRequest.model of type string",
        ),
        (b'{"model":"smollm2:135m","stream":"no"}', 400, "of type bool"),
        (b'{"model":"a b"}', 404, "model 'a b' not found"),
        (b'{"model":"gpt-oss:120b-cloud","prompt":"x"}', 403, "ollama cloud is disabled: remote model is unavailable"),
        (b'{"model":"smollm2:135m","prompt":"x","suffix":"y"}', 400, "does not support insert"),
        (b'{"model":"smollm2:135m","think":"very"}', 400, "think must be a boolean"),
        (b'{"model":"smollm2:135m","keep_alive":"5"}', 400, 'time: missing unit in duration "5"'),
        (b'{"model":"smollm2:135m","keep_alive":true}', 400, "Unsupported type"),
        (b'{"model":"smollm2:135m","prompt":"x","options":{"use_mmap":1}}', 500, "must be of type boolean"),
        (b'{"model":"smollm2:135m","prompt":"x","options":{"top_p":"1"}}', 500, "must be of type float32"),
        (b'{"model":"nope","stream":false} trailing', 404, "model 'nope' not found"),
        (b'{"model":"smollm2:135m","model":"m","MODEL":"last"}', 404, "model 'last' not found"),
        (b'{"model":"smollm2:135m","MODEL":"m","model":"last"}', 404, "model 'last' not found"),
    ],
)
async def test_bodies_are_read_as_go_reads_them(body: bytes, status: int, words: str) -> None:
    """Keys in any case, the last one wins, what follows is ignored, and the errors are Go's."""
    async with quick() as host:
        answer = await ask(host.url, "POST", "/api/generate", body)
    assert answer.status == status
    assert words in error(answer)[1]


@pytest.mark.parametrize(
    "name", ["SMOLLM2:135M", "library/smollm2:135m", "registry.ollama.ai/library/smollm2:135m", " smollm2:135m:local "]
)
async def test_a_model_has_many_spellings(name: str) -> None:
    """Every spelling finds the model, and the answer repeats it as it was written."""
    async with quick() as host:
        answer = lines(await post(host, "/api/generate", generate(name, stream=False)))[0]
        assert answer["model"] == name
        assert (await get(host, "/api/ps"))["models"][0]["name"] == SMALL


async def test_what_html_and_python_could_misread_is_escaped() -> None:
    """As in Go's JSON, <, >, & and the two line separators never appear raw."""
    async with quick() as host:
        answer = await post(host, "/api/generate", {"model": "<&>\u2028"})
    assert answer.body == rb'{"error":"model ' + rb"'\u003c\u0026\u003e\u2028'" + rb' not found"}'
