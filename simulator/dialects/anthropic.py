"""Anthropic's path: /v1/messages. Named SSE events when it streams, each one HTTP chunk."""

import random
from collections.abc import Sequence
from typing import Any, ClassVar

from simulator.dialects.fields import Fields, decode, encode
from simulator.dialects.inference import Answer, Body, Dialect, Done, Inference, Sent, Token, joined
from simulator.dialects.ollama import JSON, read_think
from simulator.dialects.openai import JSON_LINE
from simulator.refusal import Refusal
from simulator.text import rendered

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
    503: "overloaded_error",
    529: "overloaded_error",
}
_STOP_REASONS = {"stop": "end_turn", "length": "max_tokens"}


def error(refusal: Refusal) -> Body:
    """`{"type":"error","error":{"type","message"},"request_id"}`; as a line of its own once the handler has run."""
    kind = _TYPES.get(refusal.status, "api_error")
    value = {
        "type": "error",
        "error": {"type": kind, "message": refusal.message},
        "request_id": f"req_{random.getrandbits(96):024x}",
    }
    return Body(JSON, encode(value)) if refusal.early else Body(JSON_LINE, encode(value) + b"\n")


def read_messages(sent: Sent) -> tuple[Inference, Answer]:
    """A request for /v1/messages."""
    inference, size = _read(Fields(decode(sent.body), "MessagesRequest"))
    return inference, MessagesAnswer(inference.model, f"msg_{sent.ids.getrandbits(96):024x}", max(1, size // 4))


def _read(fields: Fields) -> tuple[Inference, int]:
    if not fields.text("model"):
        raise Refusal(400, "model is required")
    most = fields.integer("max_tokens") or 0
    if most <= 0:
        raise Refusal(400, "max_tokens is required and must be positive")
    if not fields.items("messages"):
        raise Refusal(400, "messages is required")
    messages = [(m.text("role").lower(), m.raw("content")) for m in fields.each("messages")]
    texts = [(role, _text(content)) for role, content in messages]
    system = _text(fields.raw("system"))
    thinking, effort = fields.inner("thinking").text("type"), fields.inner("output_config").text("effort").lower()
    think = {"enabled": True, "disabled": False}.get(thinking)
    if think is None and effort in ("high", "medium", "low", "max", "xhigh"):
        think = read_think("high")
    tools = [(tool.text("name"), tool.mapping("input_schema")) for tool in fields.each("tools")]
    last = messages[-1][1]
    answered = isinstance(last, list) and any(isinstance(b, dict) and b.get("type") == "tool_result" for b in last)
    inference = Inference(
        model=fields.text("model"),
        prompt=rendered(([("system", system)] if system else []) + texts),
        stream=bool(fields.flag("stream")),
        kind="chat",
        options={"num_predict": most},
        think=think,
        must_think=False,
        tools=() if answered else tools,
        needs=("tools",) if tools else (),
    )
    return inference, len(system) + sum(len(role) + len(text) for role, text in texts)


def _text(content: Any) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    blocks = [block for block in content if isinstance(block, dict)] if isinstance(content, list) else []
    return "".join(_block_text(block) for block in blocks)


def _block_text(block: dict[str, Any]) -> str:
    if block.get("type") == "tool_result":
        return _text(block.get("content"))
    text = block.get("text")
    return text if isinstance(text, str) else ""


def _event(name: str, value: dict[str, Any]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name.encode(), encode({"type": name, **value}))


class MessagesAnswer(Answer):
    """/v1/messages."""

    stream_headers: ClassVar = {"Cache-Control": "no-cache", "Connection": "keep-alive"}

    def __init__(self, model: str, id_: str, estimated_tokens: int) -> None:
        self._model = model
        self._id = id_
        self._estimated = estimated_tokens
        self._block = -1
        self._open: str | None = None
        self._started = False

    def token(self, token: Token) -> list[bytes]:
        kind = "thinking" if token.thinking else "text"
        events = self._start() + self._switch(kind, {"type": kind, kind: ""})
        head = b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,"delta":{"type":"%b_delta","%b":'
        kind_bytes = kind.encode()
        events.append(head % (self._block, kind_bytes, kind_bytes) + token.piece.json + b"}}\n\n")
        return events

    def last(self, done: Done) -> list[bytes]:
        events = self._start()
        for call in done.tool_calls:
            block = {"type": "tool_use", "id": call.id, "name": call.name, "input": {}}
            events += self._switch("tool_use", block)
            delta = {"type": "input_json_delta", "partial_json": encode(call.arguments).decode()}
            events.append(_event("content_block_delta", {"index": self._block, "delta": delta}))
            events += self._close()
        events += self._close()
        usage = {"input_tokens": done.prompt_tokens, "output_tokens": done.output_tokens}
        events.append(_event("message_delta", {"delta": {"stop_reason": _stop_reason(done)}, "usage": usage}))
        events.append(_event("message_stop", {}))
        return events

    def whole(self, tokens: Sequence[Token], done: Done) -> Body:
        content: list[dict[str, Any]] = []
        if thinking := joined(tokens, thinking=True):
            content.append({"type": "thinking", "thinking": thinking})
        if text := joined(tokens):
            content.append({"type": "text", "text": text})
        for call in done.tool_calls:
            content += [{"type": "tool_use", "id": call.id, "name": call.name, "input": call.arguments}]
        value = {
            **self._message(content),
            "stop_reason": _stop_reason(done),
            "usage": {"input_tokens": done.prompt_tokens, "output_tokens": done.output_tokens},
        }
        return Body(JSON_LINE, encode(value) + b"\n")

    def broken(self) -> list[bytes]:
        return []

    def _message(self, content: list[dict[str, Any]]) -> dict[str, Any]:
        return {"id": self._id, "type": "message", "role": "assistant", "model": self._model, "content": content}

    def _start(self) -> list[bytes]:
        if self._started:
            return []
        self._started = True
        usage = {"input_tokens": self._estimated, "output_tokens": 0}
        return [_event("message_start", {"message": {**self._message([]), "usage": usage}})]

    def _switch(self, kind: str, block: dict[str, Any]) -> list[bytes]:
        if self._open == kind:
            return []
        events = self._close()
        self._open = kind
        self._block += 1
        events.append(_event("content_block_start", {"index": self._block, "content_block": block}))
        return events

    def _close(self) -> list[bytes]:
        if self._open is None:
            return []
        self._open = None
        return [_event("content_block_stop", {"index": self._block})]


def _stop_reason(done: Done) -> str:
    return "tool_use" if done.tool_calls else _STOP_REASONS.get(done.reason, "stop_sequence")


MESSAGES = Dialect(read_messages, error)
