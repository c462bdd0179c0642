"""The OpenAI dialect as Ollama serves it under /v1: chat completions, completions, embeddings, responses, transcriptions.

Ollama swallows a failure in the middle of a stream: it looks like a clean end, only the terminal event is missing
(``[DONE]``, ``response.completed``). That is how it is told from an answer.
"""

import json
import re
from typing import Any, Final

from gateway.dialects.ending import Ended, Ending
from gateway.dialects.request import Endpoint, Farewell

_TYPES: Final = {400: "invalid_request_error", 404: "not_found_error", 429: "rate_limit_error"}
_STREAM_ID: Final = re.compile(rb'"id":"((?:chatcmpl-|cmpl-|resp_)[^"]{1,64})"')
_SEQUENCE: Final = re.compile(rb'"sequence_number":(\d{1,9})')
_OUR_CODES: Final = (
    "queue_full",
    "deadline_unmet",
    "no_host",
    "hosts_failed",
    "cancelled",
    "deadline",
    "shutting_down",
    "too_large",
    "bodies_full",
    "rate_limit_exceeded",
    "insufficient_quota",
)


def error_end(status: int) -> bytes:
    """What Ollama's /v1 refuses to read has no newline at its end, all that its handlers say has (v1_chat_bad, v1_chat_404)."""
    return b"" if status == 400 else b"\n"


def error_body(status: int, message: str, code: str, _id: str) -> bytes:
    """``{"error":{"message","type","param","code"}}``; ``code`` is null where Ollama could have said the same."""
    error = {
        "message": message,
        "type": _TYPES.get(status, "api_error"),
        "param": None,
        "code": code if code in _OUR_CODES else None,
    }
    return json.dumps({"error": error}, separators=(",", ":")).encode() + error_end(status)


def chat_ending(tail: bytes) -> Ending:
    """Complete with ``[DONE]``; a chunk with an empty model is Ollama's swallowed error."""
    if tail.endswith(b"data: [DONE]\n\n"):
        usage = b'"choices":[],' in tail.rpartition(b"data: [DONE]")[0].rstrip(b"\n").rpartition(b"\n\n")[2]
        return Ending(Ended.COMPLETE, extra_events=3 if usage else 2)
    last = tail.rstrip(b"\n").rpartition(b"\n\n")[2]
    if last.startswith(b'data: {"error":'):
        return Ending(Ended.ERROR, "the host ended the stream with an error event", extra_events=1)
    if b'"model":"",' in last:
        return Ending(Ended.ERROR, "the host ended the stream with an empty chunk: its runner failed", extra_events=1)
    return Ending(Ended.UNFINISHED)


def responses_ending(tail: bytes) -> Ending:
    """Complete with ``response.completed`` (or ``.incomplete``), an error with ``response.failed``."""
    last = tail.rstrip(b"\n")[-80:]
    if b'"response.completed"' in last or b'"response.incomplete"' in last:
        return Ending(Ended.COMPLETE)
    if b'"response.failed"' in last or b'"type":"error"' in last:
        return Ending(Ended.ERROR, "the host ended the response as failed")
    return Ending(Ended.UNFINISHED)


def chat_failed(words: Farewell) -> bytes:
    """An error event: the SDKs raise it. No ``[DONE]`` follows, for the answer is not whole."""
    error = {"message": words.message, "type": "api_error", "param": None, "code": words.code}
    return _event({"error": error})


def chat_cancelled(words: Farewell) -> bytes:
    """A finish chunk with the reason ``cancelled`` and ``[DONE]``."""
    choice = {"index": 0, "delta": {}, "finish_reason": "cancelled"}
    return _event(_chunk(words, "chatcmpl", "chat.completion.chunk") | {"choices": [choice]}) + b"data: [DONE]\n\n"


def completion_cancelled(words: Farewell) -> bytes:
    """The same for /v1/completions."""
    choice = {"text": "", "index": 0, "finish_reason": "cancelled"}
    return _event(_chunk(words, "cmpl", "text_completion") | {"choices": [choice]}) + b"data: [DONE]\n\n"


def responses_failed(words: Farewell) -> bytes:
    """``response.failed`` with the error inside."""
    return _response_event(
        words, "failed", {"error": {"code": "server_error", "message": words.message}, "incomplete_details": None}
    )


def responses_cancelled(words: Farewell) -> bytes:
    """``response.incomplete`` with the reason ``cancelled``."""
    return _response_event(words, "incomplete", {"error": None, "incomplete_details": {"reason": "cancelled"}})


def _chunk(words: Farewell, prefix: str, kind: str) -> dict[str, Any]:
    return {
        "id": _id(words, f"{prefix}-"),
        "object": kind,
        "created": words.unix,
        "model": words.model,
        "system_fingerprint": "fp_ollama",
    }


def _id(words: Farewell, prefix: str) -> str:
    """The stream's own, which clients hold its last event against; it stands in its first."""
    found = _STREAM_ID.search(words.head)
    return found[1].decode() if found else prefix + words.id


def _response_event(words: Farewell, status: str, more: dict[str, Any]) -> bytes:
    numbers = _SEQUENCE.findall(words.tail)
    response = {
        "id": _id(words, "resp_"),
        "object": "response",
        "created_at": words.unix,
        "status": status,
        "model": words.model,
        "output": [],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": None,
        **more,
    }
    event = {
        "response": response,
        "sequence_number": int(numbers[-1]) + 1 if numbers else 0,
        "type": f"response.{status}",
    }
    return f"event: response.{status}\n".encode() + _event(event)


def _event(value: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(value, separators=(",", ":")).encode() + b"\n\n"


PLAIN: Final = "model '{}' not found"


def _endpoint(
    path: str, operation: str, prompt_keys: tuple[str, ...], cancelled: Any = chat_cancelled, **more: Any
) -> Endpoint:
    shape: dict[str, Any] = {
        "lines_per_event": 2,
        "preamble_events": 0,
        "not_found": PLAIN,
        "missing_model": (400, "model is required"),
        "ending": chat_ending,
        "failed": chat_failed,
    }
    return Endpoint(
        path=path,
        dialect="openai",
        operation=operation,
        streams_by_default=False,
        prompt_keys=prompt_keys,
        error=error_body,
        cancelled=cancelled,
        **(shape | more),
    )


ENDPOINTS: tuple[Endpoint, ...] = (
    _endpoint("/v1/chat/completions", "chat", ("messages",)),
    _endpoint(
        "/v1/completions",
        "text_completion",
        ("prompt",),
        completion_cancelled,
        missing_model=(404, "model '' not found"),
    ),
    _endpoint("/v1/embeddings", "embeddings", ("input",), not_found='model "{}" not found, try pulling it first'),
    _endpoint(
        "/v1/responses",
        "chat",
        ("instructions", "input"),
        responses_cancelled,
        lines_per_event=3,
        preamble_events=4,
        ending=responses_ending,
        failed=responses_failed,
    ),
    _endpoint("/v1/audio/transcriptions", "transcription", (), multipart=True),
)
