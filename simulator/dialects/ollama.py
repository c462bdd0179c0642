"""Ollama's own dialect: /api/generate, /api/chat, /api/embed, /api/embeddings. NDJSON when it streams, as by default."""

from collections.abc import Sequence
from typing import Any, ClassVar

from simulator.clock import Stamps
from simulator.dialects.fields import Fields, decode, encode, keep_alive
from simulator.dialects.inference import Answer, Body, Dialect, Done, Inference, Sent, Token, ToolCall, Vectors, joined
from simulator.refusal import RUNNER_DIED, Refusal
from simulator.scheduler import FOREVER
from simulator.text import rendered, tokens

JSON = "application/json; charset=utf-8"
NDJSON = "application/x-ndjson"
_THINK_LEVELS = ("high", "medium", "low", "max")


def error(refusal: Refusal) -> Body:
    """`{"error":"…"}`."""
    return Body(JSON, encode({"error": refusal.message}))


def _fields(body: bytes, struct: str) -> Fields:
    if not body:
        raise Refusal(400, "missing request body")
    return Fields(decode(body), struct)


def read_think(value: Any) -> bool | None:
    """Whether to think, None when left open; Refusal 400 for what is neither a boolean nor a level."""
    if value is None or isinstance(value, bool):
        return value
    if value in _THINK_LEVELS:
        return True
    raise Refusal(400, 'think must be a boolean or string ("high", "medium", "low", "max", true, or false)')


def read_tools(tools: Sequence[Any], struct: str) -> list[tuple[str, dict[str, Any]]]:
    """The functions among `tools`, as (name, parameters)."""
    functions = [Fields(tool, struct).inner("function") for tool in tools]
    return [(function.text("name"), function.mapping("parameters")) for function in functions]


def _top_logprobs(fields: Fields) -> int | None:
    most = fields.integer("top_logprobs") or 0
    if not 0 <= most <= 20:
        raise Refusal(400, "top_logprobs must be between 0 and 20")
    return most if fields.flag("logprobs") else None


def _common(fields: Fields) -> dict[str, Any]:
    return {
        "model": fields.text("model"),
        "stream": fields.flag("stream") is not False,
        "options": fields.mapping("options"),
        "shift": fields.flag("shift") is not False,
        "keep_alive": keep_alive(fields.raw("keep_alive"), FOREVER),
        "think": read_think(fields.raw("think")),
        "as_json": fields.raw("format") not in (None, ""),
        "top_logprobs": _top_logprobs(fields),
    }


def read_generate(sent: Sent) -> tuple[Inference, Answer]:
    """A request for /api/generate."""
    fields = _fields(sent.body, "GenerateRequest")
    prompt, raw = fields.text("prompt"), bool(fields.flag("raw"))
    before = [number for number in fields.items("context") if isinstance(number, int)]
    system = [("system", fields.text("system"))] if fields.text("system") else []
    inference = Inference(
        **_common(fields),
        prompt=tokens(prompt) if raw else before + rendered([*system, ("user", prompt)]),
        kind="generate",
        load=not prompt,
        needs=("insert",) if fields.text("suffix") else (),
        raw=raw,
    )
    return inference, GenerateAnswer(inference.model)


def read_chat(sent: Sent) -> tuple[Inference, Answer]:
    """A request for /api/chat."""
    fields = _fields(sent.body, "ChatRequest")
    messages = [(message.text("role").lower(), message.text("content")) for message in fields.each("messages")]
    common = _common(fields)
    if not common["model"]:
        raise Refusal(400, "model is required")
    answered = bool(messages) and messages[-1][0] == "tool"
    tools = read_tools(fields.items("tools"), "ChatRequest")
    inference = Inference(
        **common,
        prompt=rendered(messages),
        kind="chat",
        load=not messages,
        tools=() if answered else tools,
        needs=("tools",) if tools else (),
    )
    return inference, ChatAnswer(inference.model)


def read_embed(sent: Sent) -> tuple[Inference, Vectors]:
    """A request for /api/embed."""
    fields = _fields(sent.body, "EmbedRequest")
    given = fields.raw("input")
    texts = [given] if isinstance(given, str) else given or []
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise Refusal(400, "invalid input type")
    return _embedding(fields, texts, "embed"), EmbedAnswer(fields.text("model"))


def read_embeddings(sent: Sent) -> tuple[Inference, Vectors]:
    """A request for /api/embeddings, the older one."""
    fields = _fields(sent.body, "EmbeddingRequest")
    prompt = fields.text("prompt")
    return _embedding(fields, [prompt] if prompt else [], "embeddings"), EmbeddingsAnswer()


def _embedding(fields: Fields, texts: list[str], kind: Any) -> Inference:
    return Inference(
        model=fields.text("model"),
        prompt=[],
        stream=False,
        kind=kind,
        load=not texts,
        options=fields.mapping("options"),
        keep_alive=keep_alive(fields.raw("keep_alive"), FOREVER),
        inputs=[tokens(text) for text in texts],
        dimensions=fields.integer("dimensions") or 0,
    )


def _metrics(done: Done) -> dict[str, int]:
    values = {
        "total_duration": done.total_duration,
        "load_duration": done.load_duration,
        "prompt_eval_count": done.prompt_tokens,
        "prompt_eval_duration": done.prompt_duration,
        "eval_count": done.output_tokens,
        "eval_duration": done.output_duration,
    }
    return {key: value for key, value in values.items() if value}


def _tool_calls(calls: Sequence[ToolCall]) -> list[dict[str, Any]]:
    return [
        {"id": call.id, "function": {"index": index, "name": call.name, "arguments": call.arguments}}
        for index, call in enumerate(calls)
    ]


def _logprobs(tokens: Sequence[Token]) -> dict[str, Any]:
    rows = [row for token in tokens for row in token.logprobs or ()]
    return {"logprobs": rows} if rows else {}


class _NativeAnswer(Answer):
    stream_type: ClassVar = NDJSON

    def __init__(self, model: str) -> None:
        self._model = model
        self._stamps = Stamps()
        self._head = b'{"model":' + encode(model) + b',"created_at":"'

    def _opening(self) -> dict[str, Any]:
        return {"model": self._model, "created_at": self._stamps.now().decode()}

    def broken(self) -> list[bytes]:
        return [encode({"error": RUNNER_DIED}) + b"\n"]


class GenerateAnswer(_NativeAnswer):
    """/api/generate."""

    def token(self, token: Token) -> list[bytes]:
        text = b'"","thinking":' + token.piece.json if token.thinking else token.piece.json
        rest = b',"done":false'
        if token.logprobs is not None:
            rest += b',"logprobs":' + encode(token.logprobs)
        return [b"".join((self._head, self._stamps.now(), b'","response":', text, rest, b"}\n"))]

    def last(self, done: Done) -> list[bytes]:
        return [encode(self._final((), done)) + b"\n"]

    def whole(self, tokens: Sequence[Token], done: Done) -> Body:
        return Body(JSON, encode(self._final(tokens, done)))

    def _final(self, tokens: Sequence[Token], done: Done) -> dict[str, Any]:
        thinking = joined(tokens, thinking=True)
        return {
            **self._opening(),
            "response": joined(tokens),
            **({"thinking": thinking} if thinking else {}),
            "done": True,
            "done_reason": done.reason,
            **({"context": done.context} if done.context else {}),
            **_metrics(done),
            **_logprobs(tokens),
        }


class ChatAnswer(_NativeAnswer):
    """/api/chat."""

    def token(self, token: Token) -> list[bytes]:
        text = b'"","thinking":' + token.piece.json if token.thinking else token.piece.json
        rest = b'},"done":false'
        if token.logprobs is not None:
            rest += b',"logprobs":' + encode(token.logprobs)
        return [
            b"".join(
                (self._head, self._stamps.now(), b'","message":{"role":"assistant","content":', text, rest, b"}\n")
            )
        ]

    def last(self, done: Done) -> list[bytes]:
        return [encode(self._final((), done)) + b"\n"]

    def whole(self, tokens: Sequence[Token], done: Done) -> Body:
        return Body(JSON, encode(self._final(tokens, done)))

    def _final(self, tokens: Sequence[Token], done: Done) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": joined(tokens)}
        if thinking := joined(tokens, thinking=True):
            message["thinking"] = thinking
        if done.tool_calls:
            message["tool_calls"] = _tool_calls(done.tool_calls)
        return {
            **self._opening(),
            "message": message,
            "done": True,
            "done_reason": done.reason,
            **_logprobs(tokens),
            **_metrics(done),
        }


class EmbedAnswer(Vectors):
    """/api/embed."""

    def __init__(self, model: str) -> None:
        self._model = model

    def embedded(self, vectors: Sequence[list[float]], done: Done) -> Body:
        metrics = _metrics(done)
        names = ("total_duration", "load_duration", "prompt_eval_count")
        counted = {name: metrics[name] for name in names if name in metrics}
        return Body(JSON, encode({"model": self._model, "embeddings": list(vectors), **counted}))


class EmbeddingsAnswer(Vectors):
    """/api/embeddings."""

    def embedded(self, vectors: Sequence[list[float]], done: Done) -> Body:  # noqa: ARG002  it has no metrics
        return Body(JSON, encode({"embedding": vectors[0] if vectors else []}))


GENERATE = Dialect(read_generate, error)
CHAT = Dialect(read_chat, error)
EMBED = Dialect(read_embed, error)
EMBEDDINGS = Dialect(read_embeddings, error)
