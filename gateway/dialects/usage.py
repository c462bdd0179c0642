"""What an answer's last words tell of what it used."""

import re
from typing import Any

import msgspec

from gateway.dialects.ending import Final, V1Usage
from gateway.record import Accounting, Usage

_NANO = 1e-9

# Keys are preceded by `{` or `,`: inside a JSON string their quotes would be escaped, so text cannot pretend to be usage.
_USAGE = re.compile(
    rb'[{,]\s*"(total_duration|load_duration|prompt_eval_count|prompt_eval_duration|eval_count|eval_duration'
    rb'|prompt_tokens|completion_tokens|input_tokens|output_tokens)":\s*(\d{1,18})(?![\d.eE])'
)

_SILENT = Final()
_decode_final = msgspec.json.Decoder(Final).decode


def usage_of(tail: bytes, events: int, *, complete: bool) -> Usage:
    """Usage from an answer's tail; without one, ``events`` output tokens as counted.

    Ollama's durations are nanoseconds and vanish at zero. A tail that is no JSON (an SSE stream, the end of a long answer) is
    searched, and there the last value of a key wins: Anthropic's first is an estimate.
    """
    if not complete:
        return Usage(output_tokens=events)
    try:
        final = _decode_final(tail)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        found: dict[str, Any] = {key.decode(): int(value) for key, value in _USAGE.findall(tail)}
        if not found:
            return Usage(output_tokens=events)
        usage = {key: found.pop(key) for key in V1Usage.__struct_fields__ if key in found}
        final = Final(**found, usage=V1Usage(**usage) if usage else None)
    if final == _SILENT:
        return Usage(output_tokens=events)
    v1 = final.usage
    if v1 is not None and not final.prompt_eval_count:
        return Usage(v1.prompt_tokens or v1.input_tokens, v1.completion_tokens or v1.output_tokens, Accounting.REPORTED)
    return Usage(
        final.prompt_eval_count,
        final.eval_count,
        Accounting.REPORTED,
        final.load_duration * _NANO,
        final.prompt_eval_duration * _NANO,
        final.eval_duration * _NANO,
        final.total_duration * _NANO,
    )
