"""What a host said of an error, without what its caller asked or was answered: for records, logs, spans and the hosts' health.

Hosts quote. So whatever stands in a host's error and in the request alike is left out, but for the model's name; and what is quoted at
length, as answers are.
"""

import contextlib
import re
from typing import Final

import msgspec

from gateway.dialects.request import InferenceRequest

LEFT_OUT: Final = "[left out]"
SHARED_LEAST: Final = 12  # characters in a row that are no coincidence
SAID_MOST: Final = 2000
SEARCHED_BYTES: Final = 1024 * 1024  # of a request; of a longer one its beginning and its end
_STEP: Final = SHARED_LEAST // 2  # a shared run has a window of so many that begins at a multiple of it
# Ollama quotes an answer in "error parsing tool call: raw='…'". Names and paths are shorter.
_QUOTED: Final = re.compile(r"(?<!\w)(['\"`])(?:(?!\1).){80,}(?:\1|\Z)|raw=.*", re.DOTALL)


def discreet(said: str, request: InferenceRequest) -> str:
    """``said`` less what may be a prompt or an answer in it."""
    said = _QUOTED.sub(LEFT_OUT, said[:SAID_MOST])
    names = {name for name in (request.requested_model, request.model) if name}
    named = "|".join(map(re.escape, sorted(names, key=len, reverse=True)))
    parts = re.split(f"({named})", said) if named else [said]
    if all(len(part) < SHARED_LEAST for part in parts[::2]):
        return said
    body = _searched(request.body)
    parts[::2] = [_less(part, body) for part in parts[::2]]
    return "".join(parts)


def _searched(body: bytes) -> str:
    """A request's text as hosts would say it: JSON without escapes where none is needed."""
    if len(body) > SEARCHED_BYTES:
        half = SEARCHED_BYTES // 2
        body = body[:half] + b"\n" + body[-half:]
    else:
        with contextlib.suppress(msgspec.DecodeError, UnicodeError, RecursionError):  # a form, or something packed
            body = msgspec.json.encode(msgspec.json.decode(body))
    return body.decode(errors="replace")


def _less(said: str, body: str) -> str:
    """``said`` without the runs of SHARED_LEAST characters or more that ``body`` has too."""
    kept: list[str] = []
    past = at = 0
    while at + _STEP <= len(said):
        begin, end = _shared(said, past, at, body)
        if end - begin < SHARED_LEAST:
            at += _STEP
            continue
        kept += said[past:begin], LEFT_OUT
        past = at = end
    return "".join((*kept, said[past:]))


def _shared(said: str, past: int, at: int, body: str) -> tuple[int, int]:
    """Where the run that begins at or after ``past``, holds the window at ``at`` and is in ``body`` begins and ends."""
    begin, end = at, at + _STEP
    if said[begin:end] not in body:
        return begin, begin
    while end < len(said) and said[begin : end + 1] in body:
        end += 1
    while begin > past and said[begin - 1 : end] in body:
        begin -= 1
    return begin, end
