"""The context that a native request asks for, in its body: how long an answer may get, and the same body with another ``num_ctx``."""

from typing import Any

import msgspec

from gateway.dialects.read import SMALL_BYTES, fields_of

_decode = msgspec.json.Decoder(dict[str, msgspec.Raw] | None).decode


def output_limit(body: bytes) -> int:
    """``num_predict``; 0 where there is no limit of the caller's, or none that is a number."""
    raw = _options(fields_of(body)).get("num_predict", b"0")
    try:
        limit = msgspec.json.decode(raw) if len(raw) <= SMALL_BYTES else 0
    except (msgspec.DecodeError, UnicodeDecodeError):  # Ollama will refuse it
        return 0
    return int(limit) if isinstance(limit, (int, float)) and 0 < limit < 2**31 else 0


def with_context(body: bytes, tokens: int) -> bytes:
    """The same request, but for its ``num_ctx``. ``body``: one that was read already and has options."""
    fields: dict[str, Any] = fields_of(body)
    options = _options(fields)
    options["num_ctx"] = msgspec.Raw(msgspec.json.encode(tokens))
    fields["options"] = msgspec.Raw(msgspec.json.encode(options))
    return msgspec.json.encode(fields)


def _options(fields: dict[str, Any]) -> dict[str, Any]:
    return _decode(fields["options"]) or {} if "options" in fields else {}
