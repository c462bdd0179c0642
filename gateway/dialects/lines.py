"""The meter: reads an answer as it passes, without parsing it.

Sans-IO. Bytes go in as they were read from the host and come out unchanged, in the same order, but never end in the middle of an
NDJSON line or an SSE event: a cut piece is held until its rest arrives. So when a host breaks off, whatever we then say stands on
a line of its own. All that is known of an answer comes from three cheap things: how many newlines passed (framing says how many
make an event), when, and the last two kilobytes, where every dialect puts its usage and its ending; and the first half, which has a stream's
id. None depends on how the bytes were cut into reads.
"""

from enum import StrEnum
from math import inf
from typing import Final

KEEP_BYTES: Final = 2048
HEAD_BYTES: Final = 512
HOLD_LIMIT_BYTES: Final = 1024 * 1024
_COMPACT_AFTER: Final = 16
_LARGE_BYTES: Final = 8192  # such a read is not kept whole


class Framing(StrEnum):
    """How an answer is cut: known from its Content-Type, never from the request."""

    SINGLE = "single"
    NDJSON = "ndjson"
    SSE = "sse"


_NDJSON: Final = Framing.NDJSON
_SSE: Final = Framing.SSE
_SINGLE: Final = Framing.SINGLE
_TERMINATORS: Final = {_SINGLE: b"", _NDJSON: b"\n", _SSE: b"\n\n"}


def framing_of(content_type: bytes) -> Framing:
    """The framing that a Content-Type announces."""
    if content_type.startswith(b"application/x-ndjson"):
        return _NDJSON
    if content_type.startswith(b"text/event-stream"):
        return _SSE
    return _SINGLE


def _newlines(data: bytes) -> int:
    """How many there are. Not by ``count``, which in Python 3.11 looks at each byte by itself and takes six times as long."""
    return len(data) - len(data.replace(b"\n", b""))


class Meter:
    """Counts and remembers one answer. ``held``: a piece of a line that waits for its rest. Times are monotonic seconds. Per read it does next to nothing; sums are made when asked."""

    __slots__ = (
        "_bytes",
        "_head",
        "_newlines",
        "_past",
        "_reads",
        "framing",
        "held",
        "last_at",
        "max_gap",
        "terminator",
        "whole_lines",
    )

    def __init__(self, framing: Framing) -> None:
        self.framing = framing
        self.terminator = _TERMINATORS[framing]
        self.held = b""
        self._reads: list[bytes] = []
        self._head = b""  # once it is not in the reads any more
        self._past = self._newlines = self._bytes = 0  # of reads that are no longer kept one by one
        self.whole_lines = True
        self.last_at = inf  # so that the first gap is none
        self.max_gap = 0.0

    def feed(self, data: bytes, now: float) -> bytes:
        """Take one read; return what may be sent on now (perhaps nothing, perhaps with what was held before)."""
        gap = now - self.last_at
        if gap > self.max_gap:  # noqa: PLR1730 - a call a chunk
            self.max_gap = gap
        self.last_at = now
        if self.held or not data.endswith(self.terminator):
            data = self._whole(data)
        reads = self._reads
        reads.append(data)
        if len(reads) > _COMPACT_AFTER or len(data) > _LARGE_BYTES:
            self._compact()
        return data

    def passed(self, data: bytes, now: float) -> None:
        """Take a read that is known to end a line while nothing is held: the steady state of ``feed``."""
        gap = now - self.last_at
        if gap > self.max_gap:  # noqa: PLR1730 - a call a chunk
            self.max_gap = gap
        self.last_at = now
        reads = self._reads
        reads.append(data)  # at most 4 KB: only short chunks are passed whole
        if len(reads) > _COMPACT_AFTER:
            self._compact()

    def _compact(self) -> None:
        """Sum up what was kept and keep only its end."""
        reads = self._reads
        whole = b"".join(reads)
        past, kept = whole[:-KEEP_BYTES], whole[-KEEP_BYTES:]
        if len(self._head) < HEAD_BYTES:  # then nothing was let go yet
            self._head = whole[:HEAD_BYTES]
        self._past += len(reads) - 1
        self._bytes += len(past)
        self._newlines += _newlines(past)
        self._reads = [kept]

    @property
    def chunks(self) -> int:
        """Reads that passed."""
        return self._past + len(self._reads)

    @property
    def size(self) -> int:
        """Bytes that passed."""
        return self._bytes + sum(map(len, self._reads))

    @property
    def newlines(self) -> int:
        """Newlines that passed."""
        return self._newlines + sum(map(_newlines, self._reads))

    def flush(self) -> bytes:
        """The answer has ended on the wire: return what is still held."""
        data, self.held = self.held, b""
        if data:  # its read was counted when it came
            self._reads[-1] += data
        return data

    def drop(self) -> None:
        """The host broke off: forget the piece of a line that nobody was sent."""
        self.held = b""

    @property
    def head(self) -> bytes:
        """At most the first HEAD_BYTES of what was handed on."""
        if len(self._head) == HEAD_BYTES:
            return self._head
        return b"".join(self._reads)[:HEAD_BYTES]

    @property
    def tail(self) -> bytes:
        """At most the last KEEP_BYTES of what was handed on."""
        return b"".join(self._reads)[-KEEP_BYTES:]

    @property
    def last_line(self) -> bytes:
        """The last NDJSON line, as far as it was kept."""
        return self.tail.rstrip(b"\n").rpartition(b"\n")[2]

    def _whole(self, data: bytes) -> bytes:
        if self.held:
            data = self.held + data
        cut = data.rfind(self.terminator) + len(self.terminator)
        if cut < len(self.terminator):
            cut = 0
        if (
            len(data) - cut > HOLD_LIMIT_BYTES
        ):  # no such line is a token: let it pass, and know that we cannot speak after it
            self.whole_lines = False
            cut = len(data)
        self.held = data[cut:]
        return data[:cut]
