"""The Anthropic dialect as Ollama serves it at /v1/messages: SSE with named events, the last one ``message_stop``."""

import json
import re
from typing import Any, Final

from gateway.dialects.ending import Ended, Ending
from gateway.dialects.openai import error_end
from gateway.dialects.request import Endpoint, Farewell

_TYPES: Final = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    529: "overloaded_error",
}
_BLOCK: Final = re.compile(rb'"type":"content_block_(?:start|delta|stop)","index":(\d{1,6})')


def error_body(status: int, message: str, _code: str, id_: str) -> bytes:
    """``{"type":"error","error":{"type","message"},"request_id"}``."""
    return _json(_error(status, message) | {"request_id": f"req_{id_}"}) + error_end(status)


def ending(tail: bytes) -> Ending:
    """Complete with ``message_stop``."""
    last = tail.rstrip(b"\n").rpartition(b"\n\n")[2]
    if b'"type":"message_stop"' in last:
        return Ending(Ended.COMPLETE)
    if last.startswith(b"event: error"):
        return Ending(Ended.ERROR, "the host ended the stream with an error event")
    return Ending(Ended.UNFINISHED)


def failed(words: Farewell) -> bytes:
    """An ``error`` event: the SDKs raise it."""
    return _event("error", _error(502, words.message))


def cancelled(words: Farewell) -> bytes:
    """Close the open block and the message with the stop reason ``cancelled``."""
    said = b""
    if (found := _BLOCK.findall(words.tail)) and not words.tail.rstrip().endswith(b'"index":' + found[-1] + b"}"):
        said = _event("content_block_stop", {"type": "content_block_stop", "index": int(found[-1])})
    delta = {
        "type": "message_delta",
        "delta": {"stop_reason": "cancelled", "stop_sequence": None},
        "usage": {"output_tokens": words.tokens},
    }
    return said + _event("message_delta", delta) + _event("message_stop", {"type": "message_stop"})


def _error(status: int, message: str) -> dict[str, Any]:
    return {"type": "error", "error": {"type": _TYPES.get(status, "api_error"), "message": message}}


def _event(name: str, value: dict[str, Any]) -> bytes:
    return f"event: {name}\n".encode() + b"data: " + _json(value) + b"\n\n"


def _json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


ENDPOINTS: tuple[Endpoint, ...] = (
    Endpoint(
        path="/v1/messages",
        dialect="anthropic",
        operation="chat",
        streams_by_default=False,
        prompt_keys=("system", "messages"),
        lines_per_event=3,
        preamble_events=2,
        not_found="model '{}' not found",
        missing_model=(400, "model is required"),
        error=error_body,
        ending=ending,
        failed=failed,
        cancelled=cancelled,
    ),
)
