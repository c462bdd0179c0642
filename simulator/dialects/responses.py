"""OpenAI's newer path: /v1/responses. Named SSE events when it streams, each one HTTP chunk, keys sorted as Go maps are."""

import random
import time
from collections.abc import Sequence
from typing import Any, ClassVar

from simulator.dialects.fields import Fields, decode, encode
from simulator.dialects.inference import Answer, Body, Dialect, Done, Inference, Sent, Token, joined
from simulator.dialects.ollama import read_think
from simulator.dialects.openai import JSON_LINE, error, tool_calls
from simulator.refusal import Refusal
from simulator.text import rendered

_TEXT_KINDS = ("input_text", "output_text", "text")


def read_responses(sent: Sent) -> tuple[Inference, Answer]:
    """A request for /v1/responses."""
    fields = Fields(decode(sent.body), "ResponsesRequest")
    inference = _read(fields)
    echo = {
        "max_output_tokens": fields.integer("max_output_tokens"),
        "instructions": fields.text("instructions") or None,
        "tools": fields.items("tools"),
        "temperature": fields.raw("temperature") or 1,
        "top_p": fields.raw("top_p") or 1,
    }
    return inference, ResponsesAnswer(inference.model, sent.ids, echo)


def _read(fields: Fields) -> Inference:
    given = fields.raw("input")
    items = [{"role": "user", "content": given}] if isinstance(given, str) else given or []
    if not isinstance(items, list):
        raise Refusal(400, "input must be a string or array")
    instructions = fields.text("instructions")
    messages = [("system", instructions)] if instructions else []
    for item in items:
        inner = Fields(item, "ResponsesRequest.input")
        role = "tool" if inner.text("type") == "function_call_output" else inner.text("role").lower() or "assistant"
        messages.append((role, _text(inner.raw("content") or inner.raw("output") or inner.raw("arguments"))))
    effort = fields.inner("reasoning").raw("effort")
    most = fields.integer("max_output_tokens")
    tools = [(tool.text("name"), tool.mapping("parameters")) for tool in fields.each("tools")]
    return Inference(
        model=fields.text("model"),
        prompt=rendered(messages),
        stream=bool(fields.flag("stream")),
        kind="chat",
        load=not messages,
        options={} if most is None else {"num_predict": most},
        think=None if effort is None else read_think(effort if effort != "none" else False),
        tools=() if messages and messages[-1][0] == "tool" else tools,
        needs=("tools",) if tools else (),
    )


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return "".join(part.get("text", "") for part in parts if isinstance(part, dict) and part.get("type") in _TEXT_KINDS)


class ResponsesAnswer(Answer):
    """/v1/responses; `echo` holds what an answer repeats of its request."""

    stream_headers: ClassVar = {"Cache-Control": "no-cache", "Connection": "keep-alive"}

    def __init__(self, model: str, ids: random.Random, echo: dict[str, Any]) -> None:
        self._model = model
        self._ids = ids
        self._echo = echo
        self._id = f"resp_{ids.randrange(999_999)}"
        self._item = f"msg_{ids.randrange(999_999)}"
        self._reasoning = f"rs_{ids.randrange(999_999)}"
        self._sequence = 0
        self._index = 0
        self._thought = ""
        self._said = ""
        self._open: str | None = None

    def token(self, token: Token) -> list[bytes]:
        return self._start() + (self._think(token) if token.thinking else self._say(token))

    def last(self, done: Done) -> list[bytes]:
        events = self._start()
        output: list[dict[str, Any]] = []
        if self._thought:
            output.append(self._reasoning_item())
        events += self._finish_open()
        for call, said in zip(done.tool_calls, tool_calls(done.tool_calls), strict=True):
            item = _call_item(f"fc_{self._ids.randrange(999_999)}_{said['index']}", call.id, said["function"])
            events += self._call(item)
            output.append(item)
        if self._said and not done.tool_calls:
            output.append(self._message_item("completed", [_part(self._said)]))
        response = {**self._response("completed", output, _usage(done)), "completed_at": int(time.time())}
        events.append(self._event("response.completed", {"response": response}))
        return events

    def whole(self, tokens: Sequence[Token], done: Done) -> Body:
        self._thought = joined(tokens, thinking=True)
        output = [{**self._reasoning_item(), "id": f"rs_{self._id}"}] if self._thought else []
        for said in tool_calls(done.tool_calls):
            output += [_call_item(f"fc_{self._id}_{said['index']}", said["id"], said["function"])]
        if not done.tool_calls:
            output.append(self._message_item("completed", [_part(joined(tokens))]))
        value = self._response("completed", output, _usage(done))
        return Body(JSON_LINE, encode({**value, "completed_at": int(time.time())}) + b"\n")

    def broken(self) -> list[bytes]:
        return []

    def _event(self, name: str, value: dict[str, Any]) -> bytes:
        text = encode({**value, "type": name, "sequence_number": self._sequence}, sort_keys=True)
        self._sequence += 1
        return b"event: %b\ndata: %b\n\n" % (name.encode(), text)

    def _start(self) -> list[bytes]:
        if self._sequence:
            return []
        names = ("response.created", "response.in_progress")
        return [self._event(name, {"response": self._response("in_progress", [], None)}) for name in names]

    def _think(self, token: Token) -> list[bytes]:
        events = []
        if self._open is None:
            self._open = "thinking"
            item = {"id": self._reasoning, "type": "reasoning", "summary": []}
            events.append(self._event("response.output_item.added", {"output_index": self._index, "item": item}))
        self._thought += token.piece.text
        events.append(self._event("response.reasoning_summary_text.delta", self._summary(delta=token.piece.text)))
        return events

    def _say(self, token: Token) -> list[bytes]:
        events = []
        if self._open != "text":
            events += self._finish_open()
            self._open = "text"
            item = self._message_item("in_progress", [])
            events.append(self._event("response.output_item.added", {"output_index": self._index, "item": item}))
            events.append(self._event("response.content_part.added", self._content(part=_part(""))))
        self._said += token.piece.text
        delta = self._content(delta=token.piece.text, logprobs=[])
        events.append(self._event("response.output_text.delta", delta))
        return events

    def _finish_open(self) -> list[bytes]:
        kind, self._open = self._open, None
        if kind is None:
            return []
        if kind == "thinking":
            item = self._reasoning_item()
            events = [self._event("response.reasoning_summary_text.done", self._summary(text=self._thought))]
        else:
            item = self._message_item("completed", [_part(self._said)])
            events = [
                self._event("response.output_text.done", self._content(text=self._said, logprobs=[])),
                self._event("response.content_part.done", self._content(part=_part(self._said))),
            ]
        events.append(self._event("response.output_item.done", {"output_index": self._index, "item": item}))
        self._index += 1
        return events

    def _call(self, item: dict[str, Any]) -> list[bytes]:
        where = {"item_id": item["id"], "output_index": self._index}
        begun = {**item, "status": "in_progress", "arguments": ""}
        events = [
            self._event("response.output_item.added", {"output_index": self._index, "item": begun}),
            self._event("response.function_call_arguments.delta", {**where, "delta": item["arguments"]}),
            self._event("response.function_call_arguments.done", {**where, "arguments": item["arguments"]}),
            self._event("response.output_item.done", {"output_index": self._index, "item": item}),
        ]
        self._index += 1
        return events

    def _summary(self, **values: Any) -> dict[str, Any]:
        return {"item_id": self._reasoning, "output_index": self._index, "summary_index": 0, **values}

    def _content(self, **values: Any) -> dict[str, Any]:
        return {"item_id": self._item, "output_index": self._index, "content_index": 0, **values}

    def _reasoning_item(self) -> dict[str, Any]:
        summary = [{"type": "summary_text", "text": self._thought}]
        return {"id": self._reasoning, "type": "reasoning", "summary": summary, "encrypted_content": self._thought}

    def _message_item(self, status: str, content: list[dict[str, Any]]) -> dict[str, Any]:
        return {"id": self._item, "type": "message", "status": status, "role": "assistant", "content": content}

    def _response(self, status: str, output: list[dict[str, Any]], usage: dict[str, Any] | None) -> dict[str, Any]:
        return {
            "id": self._id,
            "object": "response",
            "created_at": int(time.time()),
            "completed_at": None,
            "status": status,
            "incomplete_details": None,
            "model": self._model,
            "previous_response_id": None,
            "instructions": self._echo["instructions"],
            "output": output,
            "error": None,
            "tools": self._echo["tools"],
            "tool_choice": "auto",
            "truncation": "disabled",
            "parallel_tool_calls": True,
            "text": {"format": {"type": "text"}},
            "top_p": self._echo["top_p"],
            "presence_penalty": 0,
            "frequency_penalty": 0,
            "top_logprobs": 0,
            "temperature": self._echo["temperature"],
            "reasoning": None,
            "usage": usage,
            "max_output_tokens": self._echo["max_output_tokens"],
            "max_tool_calls": None,
            "store": False,
            "background": False,
            "service_tier": "default",
            "metadata": {},
            "safety_identifier": None,
            "prompt_cache_key": None,
        }


def _part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _call_item(id_: str, call_id: str, function: dict[str, str]) -> dict[str, Any]:
    return {"id": id_, "type": "function_call", "status": "completed", "call_id": call_id, **function}


def _usage(done: Done) -> dict[str, Any]:
    return {
        "input_tokens": done.prompt_tokens,
        "output_tokens": done.output_tokens,
        "total_tokens": done.prompt_tokens + done.output_tokens,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens_details": {"reasoning_tokens": 0},
    }


RESPONSES = Dialect(read_responses, error)
