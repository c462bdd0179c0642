"""Log lines in words: JSON for machines, one line each for people. All that is in a line is said here; no prompt, answer or credential is."""

import json
import re
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final, NamedTuple

import msgspec

from gateway.fleet.jobs import Job
from gateway.record import GenerationRecord, Outcome
from gateway.telemetry.context import current

COSTS_LIMIT: Final = 3  # the cheapest hosts of a decision; all are in the route explainer
PATH_MOST: Final = 200  # characters of a path that anybody may ask for
CALM: Final = frozenset((Outcome.OK, Outcome.CANCELLED, Outcome.CLIENT_ERROR))
"""Outcomes that are nothing to warn of."""


class Visit(NamedTuple):
    """A request that is no generation, and its answer. ``at`` Unix seconds; ``status`` 499: the client left before there was one; ``error``: the
    code of what became of inference."""

    at: float
    seconds: float
    method: str
    path: str  # without its query
    route: str
    status: int
    client: str
    error: str = ""


def whose() -> dict[str, str]:
    """The ids of the request on whose behalf this is said, if it is for one."""
    trace = current.get()
    if trace is None:
        return {}
    return {"request_id": trace.request_id, "trace_id": trace.trace_id, "span_id": trace.span_id}


def generation_json(record: GenerationRecord, lines: bytearray) -> None:
    """The record's own JSON behind ``ts``, ``level`` and ``event``, at the end of ``lines``."""
    route = record.route
    if route is not None and len(route.costs) > COSTS_LIMIT:
        record = msgspec.structs.replace(record, route=msgspec.structs.replace(route, costs=route.costs[:COSTS_LIMIT]))
    level = b"info" if record.outcome in CALM else b"warning"
    lines += b'{"ts":"%b","level":"%b","event":"generation"' % (timestamp(record.received_at).encode(), level)
    brace = len(lines)
    try:
        _encode_into(record, lines, brace)
    except ValueError:
        del lines[brace:]
        lines += _encode(record)
    lines[brace] = _COMMA
    lines += b"\n"


def visit_fields(visit: Visit, level: str) -> dict[str, Any]:
    """A request that is no generation, and words for people."""
    path, seconds = visit.path[:PATH_MOST], round(visit.seconds, 6)
    return {
        "ts": timestamp(visit.at),
        "level": level,
        "event": "access",
        "message": f"{visit.method} {path}: {visit.status} after {seconds:.3f} s",
        "method": visit.method,
        "path": path,
        "route": visit.route,
        "status": visit.status,
        "duration_seconds": seconds,
        "client": visit.client,
        **({"error": visit.error} if visit.error else {}),
        **whose(),
    }


def job_fields(job: Job, level: str) -> dict[str, Any]:
    """What ``GET /api/jobs`` tells of it, and words for people."""
    seconds = round(job.seconds(0.0), 3)
    hosts = ", ".join(f"{name} {part.state}" for name, part in job.parts.items())
    return {
        "ts": timestamp(job.started),
        "level": level,
        "event": "job",
        "message": f"{job.kind} {job.model}: {job.outcome} after {seconds:.1f} s ({hosts})",
        "id": job.id,
        "kind": job.kind,
        "model": job.model,
        "outcome": job.outcome,
        "reason": job.reason,
        "started_at": round(job.started, 3),
        "duration_seconds": seconds,
        "hosts": [
            {"host": name, "state": part.state, "completed_bytes": part.completed, "error": part.error}
            for name, part in job.parts.items()
        ],
        "left_out": dict(job.left_out),
        **whose(),
    }


def _shown(text: str) -> bytes:
    """One line for a terminal: what a caller or a host named can neither end it nor command the terminal."""
    if not text[:-1].isprintable():
        text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text[:-1]) + "\n"
    return text.encode(errors="backslashreplace")


def generation_pretty(record: GenerationRecord, lines: bytearray) -> None:
    """What it was, where it went, how long it took, and why it failed, at the end of ``lines``."""
    ttft = "" if record.ttft_seconds is None else f" first {record.ttft_seconds:.2f}s"
    why = f" ({record.reason})" if record.reason else ""
    route = record.route.reason if record.route else "-"
    text = (
        f"{timestamp(record.received_at)[11:23]} {record.outcome:14} {record.model} -> {record.host or '-'} [{route}]"
        f" queue {record.queue_seconds:.2f}s{ttft} total {record.duration_seconds:.2f}s {record.usage.output_tokens} tokens {record.id}{why}\n"
    )
    lines += _shown(text)


_FRACTIONS: Final = [f".{milliseconds:03d}Z" for milliseconds in range(1000)]


@lru_cache(maxsize=64)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def timestamp(seconds: float) -> str:
    """RFC 3339 with milliseconds, UTC."""
    milliseconds = int(seconds * 1000)
    return _second(milliseconds // 1000) + _FRACTIONS[milliseconds % 1000]


_encoder: Final = msgspec.json.Encoder(enc_hook=str)
_encode_into: Final = _encoder.encode_into  # copies nothing
_COMMA: Final = 0x2C
_COMMANDS: Final = re.compile(
    rb"\xc2[\x80-\x9f]|\xd8\x9c|\xe2\x80[\x8e\x8f\xa8-\xae]|\xe2\x81[\xa6-\xa9]"
)  # C1, separators of lines, turns of direction


def _encode(value: object) -> bytes:
    try:
        return _encoder.encode(value)
    except ValueError:  # half a character, from a client's \\ud800: JSON can still say it
        return json.dumps(msgspec.to_builtins(value, enc_hook=str)).encode()


def unspoken(lines: bytearray) -> bytearray:
    """JSON lines without what commands a terminal or turns text around, though JSON allows it in a string: such characters escaped."""
    return bytearray(_COMMANDS.sub(lambda found: b"\\u%04x" % ord(found[0].decode()), lines))


def message_json(fields: dict[str, Any], lines: bytearray) -> None:
    """Any other line, at the end of ``lines``."""
    lines += _encode(fields)
    lines += b"\n"


def message_pretty(fields: dict[str, Any], lines: bytearray) -> None:
    """Any other line: its words, and an exception below."""
    lines += _shown(f"{fields['ts'][11:23]} {fields['level']:14} {fields['message']}\n")
    lines += str(fields.get("exception", "")).encode(errors="backslashreplace")
