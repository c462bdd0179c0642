"""The meter: reads an answer as it passes, without parsing it.

Sans-IO. Bytes go in as they were read from the host and come out unchanged, in the same order, but never end in the middle of an
NDJSON line or an SSE event: a cut piece is held until its rest arrives. So when a host breaks off, whatever we then say stands on
a line of its own. All that is known of an answer comes from three cheap things: how many newlines passed (framing says how many
make an event), when, and the last two kilobytes, where every dialect puts its usage and its ending. None depends on how the
bytes were cut into reads.
"""

import re
from dataclasses import dataclass
from enum import StrEnum

from gateway.record import Accounting, Usage

KEEP_BYTES = 2048
HOLD_LIMIT_BYTES = 1024 * 1024
_COMPACT_AFTER = 16
_NANO = 1e-9

# Keys are preceded by `{` or `,`: inside a JSON string their quotes would be escaped, so text cannot pretend to be usage.
_USAGE = re.compile(
    rb'[{,]\s*"(load_duration|prompt_eval_count|prompt_eval_duration|eval_count|eval_duration'
    rb'|prompt_tokens|completion_tokens|input_tokens|output_tokens)":\s*(\d{1,18})'
)


class Framing(StrEnum):
    """How an answer is cut: known from its Content-Type, never from the request."""

    SINGLE = "single"
    NDJSON = "ndjson"
    SSE = "sse"


_TERMINATORS = {Framing.SINGLE: b"", Framing.NDJSON: b"\n", Framing.SSE: b"\n\n"}


def framing_of(content_type: bytes) -> Framing:
    """The framing that a Content-Type announces."""
    if content_type.startswith(b"application/x-ndjson"):
        return Framing.NDJSON
    if content_type.startswith(b"text/event-stream"):
        return Framing.SSE
    return Framing.SINGLE


class Ended(StrEnum):
    """How an answer ended, by its own last words."""

    COMPLETE = "complete"
    ERROR = "error"  # the host said, inside a 200, that it failed
    UNFINISHED = "unfinished"  # clean on the wire, but without the dialect's last event


@dataclass(frozen=True, slots=True)
class Ending:
    """The verdict of a dialect on an answer's tail. ``extra_events`` are those that carry no token."""

    ended: Ended
    message: str = ""
    extra_events: int = 0


class Meter:
    """Counts and remembers one answer. Times are monotonic seconds; ``bytes`` counts what was handed on."""

    __slots__ = (
        "_held",
        "_reads",
        "_terminator",
        "bytes",
        "first_at",
        "framing",
        "last_at",
        "max_gap",
        "newlines",
        "reads",
        "whole_lines",
    )

    def __init__(self, framing: Framing) -> None:
        self.framing = framing
        self._terminator = _TERMINATORS[framing]
        self._held = b""
        self._reads: list[bytes] = []
        self.whole_lines = True
        self.newlines = 0
        self.reads = 0
        self.bytes = 0
        self.first_at: float | None = None
        self.last_at = 0.0
        self.max_gap = 0.0

    def feed(self, data: bytes, now: float) -> bytes:
        """Take one read; return what may be sent on now (perhaps nothing, perhaps with what was held before)."""
        if self.first_at is None:
            self.first_at = now
        elif (gap := now - self.last_at) > self.max_gap:
            self.max_gap = gap
        self.last_at = now
        if self._held or not data.endswith(self._terminator):
            data = self._whole(data)
        self.newlines += data.count(b"\n")
        self.reads += 1
        self.bytes += len(data)
        reads = self._reads
        reads.append(data)
        if len(reads) > _COMPACT_AFTER:
            self._reads = [b"".join(reads)[-KEEP_BYTES:]]
        return data

    def flush(self) -> bytes:
        """The answer has ended on the wire: return what is still held."""
        data, self._held = self._held, b""
        if data:
            self.newlines += data.count(b"\n")
            self.bytes += len(data)
            self._reads.append(data)
        return data

    def drop(self) -> None:
        """The host broke off: forget the piece of a line that nobody was sent."""
        self._held = b""

    @property
    def tail(self) -> bytes:
        """At most the last KEEP_BYTES of what was handed on."""
        return b"".join(self._reads)[-KEEP_BYTES:]

    def _whole(self, data: bytes) -> bytes:
        if self._held:
            data = self._held + data
        cut = data.rfind(self._terminator) + len(self._terminator)
        if cut < len(self._terminator):
            cut = 0
        if (
            len(data) - cut > HOLD_LIMIT_BYTES
        ):  # no such line is a token: let it pass, and know that we cannot speak after it
            self.whole_lines = False
            cut = len(data)
        self._held = data[cut:]
        return data[:cut]


def usage_of(tail: bytes, events: int, *, complete: bool) -> Usage:
    """Usage from an answer's tail; without one, ``events`` output tokens as counted.

    Ollama's durations are nanoseconds and vanish at zero. The last value of a key wins: Anthropic's first is an estimate.
    """
    found = dict(_USAGE.findall(tail)) if complete else {}
    if not found:
        return Usage(output_tokens=events)
    number = {key: int(value) for key, value in found.items()}
    return Usage(
        input_tokens=number.get(b"prompt_eval_count", number.get(b"prompt_tokens", number.get(b"input_tokens", 0))),
        output_tokens=number.get(b"eval_count", number.get(b"completion_tokens", number.get(b"output_tokens", 0))),
        accounting=Accounting.REPORTED,
        load_seconds=number.get(b"load_duration", 0) * _NANO,
        prefill_seconds=number.get(b"prompt_eval_duration", 0) * _NANO,
        decode_seconds=number.get(b"eval_duration", 0) * _NANO,
    )
