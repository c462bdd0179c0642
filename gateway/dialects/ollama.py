"""Ollama's native dialect: NDJSON, errors as ``{"error": text}``, the last line with ``"done": true``."""

import json
import re
from functools import partial
from typing import Any, Final

import msgspec

from gateway.dialects.ending import Ended, Ending, LastLine
from gateway.dialects.request import Endpoint, Farewell

_COMPLETE: Final = Ended.COMPLETE

_DURATIONS: Final = re.compile(rb'[\],]\s*"total_duration"\s*:\s*\d+')
_decode_last: Final = msgspec.json.Decoder(LastLine).decode


def error_body(_status: int, message: str, _code: str, _id: str) -> bytes:
    """``{"error":"text"}``, as Ollama spells it."""
    return compact({"error": message})


def ending(tail: bytes) -> Ending:
    """Complete with ``"done":true`` in the last line; an error where the last line is one."""
    line = tail.rstrip(b"\n").rpartition(b"\n")[2]
    # The last `done` counts: a tool's arguments may have one of their own. A long context stands between it and the durations, and
    # may have pushed it out of the tail; only a last line has durations.
    _, found, after = line.rpartition(b'"done":')
    if after.startswith(b"true") if found else _DURATIONS.search(line[-300:]):
        return Ending(_COMPLETE, extra_events=1)
    if line.startswith(b'{"error":'):
        return Ending(Ended.ERROR, message_of(line), extra_events=1)
    return _as_json(line)


def _as_json(line: bytes) -> Ending:
    """The same of a line that is not spelled as Ollama spells it: some servers write ``"done": true``."""
    try:
        last = _decode_last(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Ending(Ended.UNFINISHED)
    if last.done:
        return Ending(_COMPLETE, extra_events=1)
    return Ending(Ended.ERROR, message_of(line), extra_events=1) if last.error else Ending(Ended.UNFINISHED)


def message_of(body: bytes) -> str:
    """The text of an error body in any dialect; the raw text where it is none."""
    try:
        error = json.loads(body)["error"]
        text = error["message"] if isinstance(error, dict) else error
    except (ValueError, KeyError, TypeError, RecursionError):
        text = body.decode("utf-8", errors="replace")
    return str(text).strip()[:500]


def failed(words: Farewell) -> bytes:
    """The line that Ollama itself would end a broken stream with."""
    return compact({"error": words.message}) + b"\n"


def cancelled(words: Farewell, *, empty: dict[str, Any]) -> bytes:
    """A last line that every client takes for the end: ``done`` with the reason ``cancelled``."""
    line = {"model": words.model, "created_at": words.now, **empty, "done": True, "done_reason": "cancelled"}
    return compact(line | ({"eval_count": words.tokens} if words.tokens else {})) + b"\n"


def compact(value: dict[str, Any]) -> bytes:
    """JSON in one line and in ASCII: clients split lines at more than newlines."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=True).encode()


def _endpoint(path: str, operation: str, prompt_keys: tuple[str, ...], empty: dict[str, Any], **more: Any) -> Endpoint:
    return Endpoint(
        path=path,
        dialect="ollama",
        operation=operation,
        prompt_keys=prompt_keys,
        lines_per_event=1,
        preamble_events=0,
        error=error_body,
        ending=ending,
        failed=failed,
        cancelled=partial(cancelled, empty=empty),
        **more,
    )


QUOTED: Final = 'model "{}" not found, try pulling it first'
PLAIN: Final = "model '{}' not found"

ENDPOINTS: tuple[Endpoint, ...] = (
    _endpoint(
        "/api/generate",
        "text_completion",
        ("system", "prompt", "suffix", "images", "context"),
        {"response": ""},
        streams_by_default=True,
        not_found=PLAIN,
        missing_model=(404, "model '' not found"),
        load_key="prompt",
    ),
    _endpoint(
        "/api/chat",
        "chat",
        ("messages",),
        {"message": {"role": "assistant", "content": ""}},
        streams_by_default=True,
        not_found=PLAIN,
        missing_model=(400, "model is required"),
        load_key="messages",
    ),
    _endpoint(
        "/api/embed",
        "embeddings",
        ("input",),
        {},
        streams_by_default=False,
        not_found=QUOTED,
        missing_model=(404, 'model "" not found, try pulling it first'),
    ),
    _endpoint(
        "/api/embeddings",
        "embeddings",
        ("prompt",),
        {},
        streams_by_default=False,
        not_found=QUOTED,
        missing_model=(404, 'model "" not found, try pulling it first'),
    ),
)
