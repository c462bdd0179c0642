"""OpenAI's paths: /v1/chat/completions, /v1/completions, /v1/embeddings. SSE when it streams."""

import base64
import struct
import time
from collections.abc import Sequence
from typing import Any

from simulator.dialects.fields import Fields, decode, encode
from simulator.dialects.inference import Answer, Body, Dialect, Done, Inference, Sent, Token, ToolCall, Vectors, joined
from simulator.dialects.ollama import JSON, read_think, read_tools
from simulator.refusal import Refusal
from simulator.text import rendered, tokens

JSON_LINE = "application/json"
_TYPES = {400: "invalid_request_error", 404: "not_found_error"}
_DONE = b"data: [DONE]\n\n"
_IMAGES = ("data:;base64,", *(f"data:image/{kind};base64," for kind in ("jpeg", "jpg", "png", "webp")))


def error(refusal: Refusal) -> Body:
    """`{"error":{"message","type","param","code"}}`; as a line of its own once the handler has run."""
    kind = _TYPES.get(refusal.status, "api_error")
    text = encode({"error": {"message": refusal.message, "type": kind, "param": None, "code": None}})
    return Body(JSON, text) if refusal.early else Body(JSON_LINE, text + b"\n")


def read_content(content: Any) -> str:
    """The text of a message's content, a string or a list of parts; Refusal 400 for what Ollama cannot take."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise Refusal(400, f"invalid message content type: {'<nil>' if content is None else 'float64'}")
    texts = []
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind == "text" and isinstance(part.get("text"), str):
            texts.append(part["text"])
        elif kind == "image_url":
            url = part["image_url"].get("url") if isinstance(part.get("image_url"), dict) else part.get("image_url")
            if not isinstance(url, str) or not url.startswith(_IMAGES):
                raise Refusal(400, "invalid image input")
        else:
            raise Refusal(400, "invalid message format")
    return "\n".join(texts)


def _common(fields: Fields) -> dict[str, Any]:
    given = {"num_predict": fields.integer("max_tokens"), "seed": fields.integer("seed")}
    return {
        "model": fields.text("model"),
        "stream": bool(fields.flag("stream")),
        "options": {key: value for key, value in given.items() if value is not None},
        "top_logprobs": (fields.integer("top_logprobs") or 0) if fields.flag("logprobs") else None,
    }


def read_chat(sent: Sent) -> tuple[Inference, Answer]:
    """A request for /v1/chat/completions."""
    fields = Fields(decode(sent.body), "ChatCompletionRequest")
    messages = list(fields.each("messages"))
    if not messages:
        raise Refusal(400, "[] is too short - 'messages'")
    effort = fields.inner("reasoning").raw("effort") or fields.raw("reasoning_effort")
    tools = read_tools(fields.items("tools"), "ChatCompletionRequest")
    inference = Inference(
        **_common(fields),
        prompt=rendered((message.text("role").lower(), _content(message)) for message in messages),
        kind="chat",
        think=None if effort is None else read_think(effort if effort != "none" else False),
        tools=() if messages[-1].text("role").lower() == "tool" else tools,
        needs=("tools",) if tools else (),
        as_json=fields.inner("response_format").text("type") in ("json_object", "json_schema"),
    )
    usage = bool(fields.inner("stream_options").flag("include_usage"))
    return inference, ChatAnswer(inference.model, f"chatcmpl-{sent.ids.randrange(999)}", usage=usage)


def _content(message: Fields) -> str:
    content = message.raw("content")
    return "" if content is None and message.items("tool_calls") else read_content(content)


def read_completion(sent: Sent) -> tuple[Inference, Answer]:
    """A request for /v1/completions."""
    fields = Fields(decode(sent.body), "CompletionRequest")
    prompt = fields.text("prompt")
    inference = Inference(
        **(_common(fields) | {"top_logprobs": None}),
        prompt=rendered([("user", prompt)]),
        kind="generate",
        load=not prompt,
        needs=("insert",) if fields.text("suffix") else (),
    )
    usage = bool(fields.inner("stream_options").flag("include_usage"))
    return inference, CompletionAnswer(inference.model, f"cmpl-{sent.ids.randrange(999)}", usage=usage)


def read_embeddings(sent: Sent) -> tuple[Inference, Vectors]:
    """A request for /v1/embeddings."""
    fields = Fields(decode(sent.body), "EmbedRequest")
    given = fields.raw("input")
    texts = [given] if isinstance(given, str) else given
    if not texts or not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise Refusal(400, "invalid input")
    inference = Inference(
        model=fields.text("model"),
        prompt=[],
        stream=False,
        kind="embed",
        inputs=[tokens(text) for text in texts],
        dimensions=fields.integer("dimensions") or 0,
    )
    return inference, EmbeddingsAnswer(inference.model, in_base64=fields.text("encoding_format").lower() == "base64")


def tool_calls(calls: Sequence[ToolCall]) -> list[dict[str, Any]]:
    """Tool calls in OpenAI's shape: the arguments are a string."""
    return [
        {
            "id": call.id,
            "index": index,
            "type": "function",
            "function": {"name": call.name, "arguments": encode(call.arguments).decode()},
        }
        for index, call in enumerate(calls)
    ]


def _usage(done: Done) -> dict[str, int]:
    both = done.prompt_tokens + done.output_tokens
    return {"prompt_tokens": done.prompt_tokens, "completion_tokens": done.output_tokens, "total_tokens": both}


class ChatAnswer(Answer):
    """/v1/chat/completions."""

    def __init__(self, model: str, id_: str, *, usage: bool) -> None:
        self._model = model
        self._usage = usage
        self._id = id_
        self._first = True

    def token(self, token: Token) -> list[bytes]:
        delta = b'"content":' + (b'"","reasoning":' if token.thinking else b"") + token.piece.json
        logprobs = b"" if token.logprobs is None else b',"logprobs":' + encode({"content": token.logprobs})
        return [self._chunk(self._model, delta, b"null", logprobs)]

    def last(self, done: Done) -> list[bytes]:
        reason = done.reason
        text = b""
        if done.tool_calls:
            reason_json = b'"tool_calls"'
            text = self._chunk(
                self._model, b'"content":"","tool_calls":' + encode(tool_calls(done.tool_calls)), b"null"
            )
        else:
            reason_json = encode(reason)
        text += self._finish(reason_json)
        if self._usage:
            counts = encode({"choices": [], "usage": _usage(done)})[1:]
            text += b"data: " + self._head(self._model) + counts + b"\n\n"
        return [text + _DONE]

    def whole(self, tokens: Sequence[Token], done: Done) -> Body:
        message: dict[str, Any] = {"role": "assistant", "content": joined(tokens)}
        if thinking := joined(tokens, thinking=True):
            message["reasoning"] = thinking
        if done.tool_calls:
            message["tool_calls"] = tool_calls(done.tool_calls)
        reason = "tool_calls" if done.tool_calls else done.reason
        choice: dict[str, Any] = {"index": 0, "message": message, "finish_reason": reason}
        rows = [row for token in tokens for row in token.logprobs or ()]
        if rows:
            choice["logprobs"] = {"content": rows}
        value = {
            "id": self._id,
            "object": "chat.completion",
            "created": int(time.time()),
            "model": self._model,
            "system_fingerprint": "fp_ollama",
            "choices": [choice],
            "usage": _usage(done),
        }
        return Body(JSON_LINE, encode(value) + b"\n")

    def broken(self) -> list[bytes]:
        return [self._chunk("", b'"content":""', b"null")]

    def _head(self, model: str) -> bytes:
        return (
            b'{"id":"%b","object":"chat.completion.chunk","created":%d,"model":%b,"system_fingerprint":"fp_ollama",'
            % (
                self._id.encode(),
                int(time.time()),
                encode(model),
            )
        )

    def _chunk(self, model: str, delta: bytes, reason: bytes, logprobs: bytes = b"") -> bytes:
        role = b'"role":"assistant",' if self._first else b""
        self._first = False
        return b'data: %b"choices":[{"index":0,"delta":{%b%b},"finish_reason":%b%b}]}\n\n' % (
            self._head(model),
            role,
            delta,
            reason,
            logprobs,
        )

    def _finish(self, reason: bytes) -> bytes:
        head = self._head(self._model)
        return b'data: %b"choices":[{"index":0,"delta":{},"finish_reason":%b}]}\n\n' % (head, reason)


class CompletionAnswer(Answer):
    """/v1/completions."""

    def __init__(self, model: str, id_: str, *, usage: bool) -> None:
        self._model = model
        self._id = id_
        self._usage = usage

    def token(self, token: Token) -> list[bytes]:
        return [self._chunk(self._model, "" if token.thinking else token.piece.text, None)]

    def last(self, done: Done) -> list[bytes]:
        text = self._chunk(self._model, "", done.reason)
        if self._usage:
            value = {**self._head(), "choices": [], **self._tail(self._model), "usage": _usage(done)}
            text += b"data: " + encode(value) + b"\n\n"
        return [text + _DONE]

    def whole(self, tokens: Sequence[Token], done: Done) -> Body:
        choice = {"text": joined(tokens), "index": 0, "finish_reason": done.reason}
        value = {**self._head(), **self._tail(self._model), "choices": [choice], "usage": _usage(done)}
        return Body(JSON_LINE, encode(value) + b"\n")

    def broken(self) -> list[bytes]:
        return [self._chunk("", "", None)]

    def _head(self) -> dict[str, Any]:
        return {"id": self._id, "object": "text_completion", "created": int(time.time())}

    def _tail(self, model: str) -> dict[str, Any]:
        return {"model": model, "system_fingerprint": "fp_ollama"}

    def _chunk(self, model: str, text: str, reason: str | None) -> bytes:
        choice = {"text": text, "index": 0, "finish_reason": reason}
        nothing = {"usage": _usage(Done(reason="stop"))} if self._usage else {}
        return b"data: " + encode({**self._head(), "choices": [choice], **self._tail(model), **nothing}) + b"\n\n"


class EmbeddingsAnswer(Vectors):
    """/v1/embeddings."""

    def __init__(self, model: str, *, in_base64: bool) -> None:
        self._model = model
        self._in_base64 = in_base64

    def embedded(self, vectors: Sequence[list[float]], done: Done) -> Body:
        rows = [
            {"object": "embedding", "embedding": self._vector(vector), "index": index}
            for index, vector in enumerate(vectors)
        ]
        usage = {"prompt_tokens": done.prompt_tokens, "total_tokens": done.prompt_tokens}
        value = {"object": "list", "data": rows, "model": self._model, "usage": usage}
        return Body(JSON_LINE, encode(value) + b"\n")

    def _vector(self, vector: list[float]) -> list[float] | str:
        if not self._in_base64:
            return vector
        return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


CHAT = Dialect(read_chat, error)
COMPLETION = Dialect(read_completion, error)
EMBEDDINGS = Dialect(read_embeddings, error)
