"""Prompts and answers as attributes of spans, for those who ask for that (``tracing.capture_content``): cut to length, redacted.

Shaped as OpenTelemetry's conventions have messages: ``[{"role": …, "parts": [{"type": "text", "content": …}]}]``. Images are left out.
"""

import importlib
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

MESSAGES_MOST = 64  # of a conversation, the last ones
SAID_FACTOR = 64  # bytes of an answer as it is sent, for one of what it says
SAID_MOST_BYTES = 1024 * 1024
RULE_SECONDS = 0.1  # for one rule and one message; what takes longer is not told at all
REDACTED, CUT = "[redacted]", "…"
Json = dict[str, Any]


class Content:
    """``limit`` characters of each message go into a span, less what ``rules`` (regular expressions) match."""

    def __init__(self, limit: int, rules: Iterable[str]) -> None:
        self._limit = limit
        self._rules = [importlib.import_module("regex").compile(rule) for rule in rules]  # unlike re it can be stopped

    @property
    def said_bytes(self) -> int:
        """How much of an answer has to be remembered."""
        return min(SAID_MOST_BYTES, self._limit * SAID_FACTOR)

    def prompt(self, fields: Mapping[str, msgspec.Raw]) -> dict[str, str]:
        """What the fields of a body ask."""
        told: dict[str, str] = {}
        system = [self._part(text) for text in _texts(_value(fields, "system") or _value(fields, "instructions"))]
        if system:
            told["gen_ai.system_instructions"] = _written(system)
        given = _value(fields, "messages")
        if given is None:
            given = _value(fields, "prompt") or _value(fields, "input")
        if messages := [self._message(one) for one in _messages(given)]:
            told["gen_ai.input.messages"] = _written(messages)
        return told

    def answer(self, said: bytes) -> dict[str, str]:
        """What an answer says, from its beginning as it was sent."""
        text = "".join(_said(said))
        if not text:
            return {}
        return {"gen_ai.output.messages": _written([{"role": "assistant", "parts": [self._part(text)]}])}

    def _message(self, message: Json) -> Json:
        parts = [self._part(text) for text in _texts(message.get("content"))]
        for call in _list(message.get("tool_calls")):
            function = call.get("function") if isinstance(call, dict) else None
            if isinstance(function, dict):
                name, arguments = str(function.get("name", ""))[:128], function.get("arguments", "")
                text = arguments if isinstance(arguments, str) else _written(arguments)
                parts.append({"type": "tool_call", "name": name, "arguments": self._clean(text)})
        return {"role": str(message.get("role", "user"))[:32], "parts": parts}

    def _part(self, text: str) -> Json:
        return {"type": "text", "content": self._clean(text)}

    def _clean(self, text: str) -> str:
        """Redacted before it is cut, lest a secret lose what it is known by; a rule sees twice what is told."""
        kept = text[: 2 * self._limit]
        for rule in self._rules:
            try:  # beside the interpreter, and not for ever: callers choose the words, and some expressions take years of some
                kept = rule.sub(REDACTED, kept, concurrent=True, timeout=RULE_SECONDS)
            except TimeoutError:
                return REDACTED
        return kept[: self._limit] + CUT if len(kept) > self._limit or len(text) > 2 * self._limit else kept


def _written(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _value(fields: Mapping[str, msgspec.Raw], key: str) -> Any:
    if key not in fields:
        return None
    try:
        return msgspec.json.decode(fields[key])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _messages(given: Any) -> Iterator[Json]:
    """A conversation, or a text or several: each what a user says."""
    if isinstance(given, str):
        yield {"role": "user", "content": given}
    for one in _list(given)[-MESSAGES_MOST:]:
        if isinstance(one, str):
            yield {"role": "user", "content": one}
        elif isinstance(one, dict):
            yield one


def _texts(content: Any) -> Iterator[str]:
    """The texts of a content: one, or parts of which some are texts."""
    if isinstance(content, str):
        yield content
    for part in _list(content):
        if isinstance(part, dict) and isinstance(part.get("text"), str):
            yield part["text"]


def _said(answer: bytes) -> Iterator[str]:
    """The pieces of text in lines of JSON or events, of every dialect; what cannot be read says nothing."""
    for line in answer.splitlines():
        try:
            value = msgspec.json.decode(line.removeprefix(b"data:"))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            continue
        if isinstance(value, dict):
            yield from _piece(value)


def _piece(value: Json) -> Iterator[str]:
    kind = value.get("type")
    if isinstance(kind, str) and kind.startswith("response."):  # /v1/responses: its other events say everything again
        if kind == "response.output_text.delta" and isinstance(value.get("delta"), str):
            yield value["delta"]
        return
    for choice in (value, *_list(value.get("choices")), *_list(value.get("output"))):
        if not isinstance(choice, dict):
            continue
        for key in ("response", "text", "content", "message", "delta"):
            said = choice.get(key)
            if isinstance(said, dict):
                said = said.get("content") or said.get("text")
            yield from _texts(said)
