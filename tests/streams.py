"""Streams as clients of each dialect read them."""

import json
from typing import Any

from tests.builders import NATIVE


def events(path: str, body: bytes) -> list[Any]:
    """Every event of a stream, parsed as a client of that path would: NDJSON lines, or SSE as (event, data)."""
    if path in NATIVE:
        assert body.endswith(b"\n")
        return [json.loads(line) for line in body.decode().split("\n")[:-1]]
    assert body.endswith(b"\n\n")
    found = []
    for block in body.decode().split("\n\n")[:-1]:
        fields = dict(line.split(": ", 1) for line in block.split("\n"))
        assert set(fields) <= {"event", "data"}
        data = fields["data"]
        found.append((fields.get("event"), data if data == "[DONE]" else json.loads(data)))
    return found


def last_error(path: str, parsed: list[Any]) -> str | None:
    """The message with which a stream says that it failed, where its client looks for it."""
    last = parsed[-1]
    if path in NATIVE:
        return last.get("error")
    event, data = last
    if path == "/v1/responses":
        return data["response"]["error"]["message"] if event == data.get("type") == "response.failed" else None
    if path == "/v1/messages":
        return data["error"]["message"] if event == data.get("type") == "error" else None
    return data["error"]["message"] if isinstance(data, dict) and "error" in data else None


def complete(path: str, parsed: list[Any]) -> bool:
    """Whether a stream claims to be whole."""
    if path in NATIVE:
        return any(line.get("done") for line in parsed)
    return any(data == "[DONE]" or event in ("message_stop", "response.completed") for event, data in parsed)


def text_of(path: str, parsed: list[Any]) -> str:
    """The text that came."""
    if path == "/api/generate":
        return "".join(line.get("response", "") for line in parsed)
    if path == "/api/chat":
        return "".join(line.get("message", {}).get("content", "") for line in parsed)
    if path == "/v1/chat/completions":
        deltas = [choice["delta"] for _, data in parsed if data != "[DONE]" for choice in data.get("choices", ())]
        return "".join(delta.get("content") or "" for delta in deltas)
    if path == "/v1/completions":
        return "".join(c["text"] for _, data in parsed if data != "[DONE]" for c in data.get("choices", ()))
    if path == "/v1/messages":
        return "".join(data["delta"]["text"] for event, data in parsed if event == "content_block_delta")
    return "".join(data["delta"] for event, data in parsed if event == "response.output_text.delta")


def cancelled(path: str, parsed: list[Any]) -> bool:
    """Whether a stream ends in the words of its dialect for a stop that somebody asked for."""
    last = parsed[-1]
    if path in NATIVE:
        return last.get("done") is True and last.get("done_reason") == "cancelled"
    event, data = last
    if path == "/v1/responses":
        if event != "response.incomplete":
            return False
        return (data["type"], data["response"]["incomplete_details"]) == (event, {"reason": "cancelled"})
    if path == "/v1/messages":
        opened = [one["index"] for name, one in parsed if name == "content_block_start"]
        closed = [one["index"] for name, one in parsed if name == "content_block_stop"]
        stops = [one["delta"]["stop_reason"] for name, one in parsed if name == "message_delta"]
        return event == "message_stop" and opened == closed and stops == ["cancelled"]
    if data != "[DONE]" or len(parsed) < 2 or not parsed[-2][1].get("choices"):
        return False
    return bool(parsed[-2][1]["choices"][0]["finish_reason"] == "cancelled")
