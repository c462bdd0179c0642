"""Compares an answer of Corral with that of one Ollama, and says what a caller could tell them apart by.

`unlike` is strict, for hosts that say the same: everything but times and ids counts. `misshapen` is for hosts that say what they like: the
keys, their order, the types and the framing count. Neither looks at Date, at Corral's own headers, or at what is for one hop.
"""

import re
from collections.abc import Iterable

from tests.contract.raw import Answer
from tests.contract.shapes import differences, events, stream_differences

DIFFERS = re.compile(
    rb'"(created_at|created|completed_at|modified_at|expires_at|\w+_duration)":("[^"]*"|\d+)|req_[0-9a-f]{24}'
)
"""Times and durations, and the request id of Anthropic's errors."""

_DRAWN = re.compile(rb'(?<=")(cmpl-|chatcmpl-|resp_|msg_|rs_|fc_)[0-9a-f]+')
"""Ids that a host draws: each has its own, and which host behind Corral answers is the router's to say. tests/flows/test_relay.py holds them."""

_NOT_COMPARED = ("date", "connection", "x-corral-", "x-request-id", "access-control-expose-headers")
"""Prefixes. Connection is for one hop; the last one lets scripts read the headers before it, and names nothing else."""

STREAMS = ("application/x-ndjson", "text/event-stream")


def aside(body: bytes) -> bytes:
    """A body with the values that must differ put aside."""
    return DIFFERS.sub(rb"\1", body)


def events_of(chunks: Iterable[bytes]) -> list[bytes]:
    """The lines or events of an answer, whatever chunks they came in."""
    body = b"".join(chunks)
    separator = b"\n\n" if b"\n\n" in body else b"\n"
    return [part + separator for part in body.split(separator) if part] if body.endswith(b"\n") else [body]


def unlike(straight: Answer, relayed: Answer) -> list[str]:
    """What differs between a host's answer and Corral's; [] when only times and ids do."""
    lines = _heads_unlike(straight, relayed)
    wanted, found = ([_DRAWN.sub(rb"\1", aside(one)) for one in events_of(each.chunks)] for each in (straight, relayed))
    lines += [f"{one!r} became {other!r}" for one, other in zip(wanted, found, strict=False) if one != other]
    if len(wanted) != len(found):
        lines.append(f"{len(wanted)} events became {len(found)}, from {min(wanted, found, key=len)[-1]!r} on")
    if not lines and (cut := _ends(relayed) - _ends(straight)):
        lines.append(f"chunks end after {sorted(cut)} events, which the host's do not")
    return lines


def misshapen(straight: Answer, relayed: Answer) -> list[str]:
    """What differs in shape between two answers to the same question, whose words and numbers may be others."""
    lines = _heads_unlike(straight, relayed)
    if straight.get("Content-Type") in STREAMS:
        wanted, found = events_of(straight.chunks), events_of(relayed.chunks)
        return lines + stream_differences(wanted, found)
    return lines + differences(events(straight.body), events(relayed.body))


def _heads_unlike(straight: Answer, relayed: Answer) -> list[str]:
    lines = []
    for what in ("status", "reason", "framing"):
        if getattr(straight, what) != getattr(relayed, what):
            lines.append(
                f"{what} {getattr(straight, what)!r} became {getattr(relayed, what)!r}: {relayed.body[:200]!r}"
            )
    wanted, found = _comparable(straight), _comparable(relayed)
    return lines if wanted == found else [*lines, f"headers {wanted} became {found}"]


def _comparable(answer: Answer) -> list[tuple[str, str]]:
    """Names and values; of Content-Length the name alone: what it says is how long the body is, which was read by it."""
    pairs = [pair for pair in answer.headers if not pair[0].lower().startswith(_NOT_COMPARED)]
    return sorted((name.title(), "" if name.lower() == "content-length" else value) for name, value in pairs)


def _ends(answer: Answer) -> set[float]:
    """After how many events a chunk ends; one that ends within an event counts as half of it."""
    if answer.get("Content-Type") not in STREAMS:
        return set()
    separator = b"\n\n" if answer.get("Content-Type") == "text/event-stream" else b"\n"
    ends, done = set(), 0
    for chunk in answer.chunks:
        done += chunk.count(separator)
        ends.add(done if chunk.endswith(separator) else done + 0.5)
    return ends
