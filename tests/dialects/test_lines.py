"""The meter hands on what comes, whole lines at a time, and what it knows does not depend on how the bytes were cut."""

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects.lines import HEAD_BYTES, HOLD_LIMIT_BYTES, KEEP_BYTES, Framing, Meter, framing_of
from tests.dialects.streams import cuts
from tests.profiles import PROPERTY

TERMINATORS = {Framing.SINGLE: b"", Framing.NDJSON: b"\n", Framing.SSE: b"\n\n"}


def fed(framing: Framing, *reads: bytes) -> tuple[Meter, list[bytes]]:
    """A meter that was fed so, and what it handed on each time."""
    meter = Meter(framing)
    return meter, [meter.feed(data, 0.0) for data in reads]


@pytest.mark.parametrize(
    ("content_type", "framing"),
    [
        (b"application/x-ndjson", Framing.NDJSON),
        (b"application/x-ndjson; charset=utf-8", Framing.NDJSON),
        (b"text/event-stream", Framing.SSE),
        (b"text/event-stream; charset=utf-8", Framing.SSE),
        (b"application/json; charset=utf-8", Framing.SINGLE),
        (b"text/plain", Framing.SINGLE),
        (b"", Framing.SINGLE),
    ],
)
def test_framing(content_type: bytes, framing: Framing) -> None:
    """How an answer is cut is known from its Content-Type."""
    assert framing_of(content_type) is framing


# -- handing on -------------------------------------------------------------------------------------------------------------------

READS = {
    "one line": (Framing.NDJSON, [b"{}\n"], [b"{}\n"]),
    "two lines at once": (Framing.NDJSON, [b"{}\n[]\n"], [b"{}\n[]\n"]),
    "half a line": (Framing.NDJSON, [b"{", b"}\n"], [b"", b"{}\n"]),
    "a line and a half": (Framing.NDJSON, [b"{}\n[", b"]\n"], [b"{}\n", b"[]\n"]),
    "a line in three": (Framing.NDJSON, [b"{", b" ", b"}\n"], [b"", b"", b"{ }\n"]),
    "the rest and a new half": (Framing.NDJSON, [b"{", b"}\n[", b"]\n"], [b"", b"{}\n", b"[]\n"]),
    "one event": (Framing.SSE, [b"data: 1\n\n"], [b"data: 1\n\n"]),
    "an event cut between its newlines": (Framing.SSE, [b"data: 1\n", b"\ndata"], [b"", b"data: 1\n\n"]),
    "an event cut between its lines": (Framing.SSE, [b"event: x\n", b"data: 1\n\n"], [b"", b"event: x\ndata: 1\n\n"]),
    "no framing": (Framing.SINGLE, [b"{", b"}"], [b"{", b"}"]),
    "nothing": (Framing.NDJSON, [b""], [b""]),
}


@pytest.mark.parametrize(("framing", "reads", "expected"), READS.values(), ids=READS)
def test_whole_lines(framing: Framing, reads: list[bytes], expected: list[bytes]) -> None:
    """A cut piece is held until its rest arrives."""
    assert fed(framing, *reads)[1] == expected


def test_what_is_held_comes_at_the_end() -> None:
    """An answer that ends without its newline is handed on in full, once."""
    meter, _ = fed(Framing.NDJSON, b"{}\n[")
    assert (meter.flush(), meter.flush(), meter.tail, meter.size) == (b"[", b"", b"{}\n[", 4)
    assert meter.chunks == 1, "it came in one read"


def test_what_is_dropped_never_comes() -> None:
    """When a host breaks off, the piece of a line that nobody was sent is forgotten."""
    meter, _ = fed(Framing.NDJSON, b"{}\n[")
    meter.drop()
    assert (meter.flush(), meter.tail, meter.size, meter.newlines) == (b"", b"{}\n", 3, 1)
    assert meter.whole_lines


def test_a_line_without_end_passes() -> None:
    """What is longer than any line is not held for ever; afterwards nothing can be said on a line of its own."""
    big = b"x" * (HOLD_LIMIT_BYTES + 1)
    meter, out = fed(Framing.NDJSON, b"{}\n", big, b"\n")
    assert out == [b"{}\n", big, b"\n"]
    assert not meter.whole_lines
    assert fed(Framing.NDJSON, b"{}\n", big[:-1])[0].whole_lines


streamed = st.sampled_from([Framing.NDJSON, Framing.SSE])
texts = st.lists(
    st.sampled_from([b"\n", b"\n\n", b"a", b'{"x":1}', b"data: ", "é".encode(), b"x" * 700]), max_size=40
).map(b"".join)


@given(data=st.data(), framing=st.sampled_from(Framing), whole=texts)
@PROPERTY
def test_cutting_changes_nothing(data: st.DataObject, framing: Framing, whole: bytes) -> None:
    """The same bytes in any pieces: the same output, head, tail, size and number of newlines, and never half a line before the end."""
    reads = data.draw(cuts(whole))
    meter, out = fed(framing, *reads)
    for piece in out:
        assert piece.endswith(TERMINATORS[framing]) or not piece
    assert b"".join(out) + meter.flush() == whole
    assert (meter.head, meter.tail) == (whole[:HEAD_BYTES], whole[-KEEP_BYTES:])
    assert (meter.size, meter.newlines) == (len(whole), whole.count(b"\n"))
    assert meter.last_line == meter.tail.rstrip(b"\n").rpartition(b"\n")[2]


@given(data=st.data(), framing=streamed, whole=texts)
@PROPERTY
def test_dropping_leaves_whole_lines(data: st.DataObject, framing: Framing, whole: bytes) -> None:
    """Wherever a host breaks off, what was handed on are whole lines, and nothing is missing that was whole."""
    meter, out = fed(framing, *data.draw(cuts(whole)))
    meter.drop()
    said = b"".join(out)
    assert whole.startswith(said)
    assert said.endswith(TERMINATORS[framing]) or not said
    assert TERMINATORS[framing] not in whole[len(said) :]
    assert (meter.head, meter.tail) == (said[:HEAD_BYTES], said[-KEEP_BYTES:])
    assert (meter.size, meter.newlines) == (len(said), said.count(b"\n"))


@given(lines=st.lists(st.sampled_from([b"{}\n", b'{"a":1}\n', b"x" * 900 + b"\n"]), max_size=40), data=st.data())
@PROPERTY
def test_the_shortcut_is_the_same(lines: list[bytes], data: st.DataObject) -> None:
    """A read that is known to end a line may be noted without being looked at."""
    long, short = Meter(Framing.NDJSON), Meter(Framing.NDJSON)
    for index, read in enumerate(lines):
        assert long.feed(read, index * 0.5) == read
        if data.draw(st.booleans()):
            short.passed(read, index * 0.5)
        else:
            short.feed(read, index * 0.5)
    for meter in (long, short):
        assert meter.flush() == b""
    seen = [
        (meter.chunks, meter.size, meter.newlines, meter.tail, meter.max_gap, meter.whole_lines)
        for meter in (long, short)
    ]
    assert seen[0] == seen[1]


# -- counting ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 15, 16, 17, 40, 1000])
def test_counts(count: int) -> None:
    """Reads, bytes and newlines are counted, however many there are."""
    meter, _ = fed(Framing.NDJSON, *[b'{"a":1}\n'] * count)
    assert (meter.chunks, meter.size, meter.newlines) == (count, 8 * count, count)
    assert meter.tail == (b'{"a":1}\n' * count)[-KEEP_BYTES:]


@pytest.mark.parametrize(
    ("times", "gap"), [([], 0.0), ([5.0], 0.0), ([5.0, 5.5], 0.5), ([0.0, 1.0, 4.0, 4.5], 3.0), ([1.0, 1.0], 0.0)]
)
def test_gaps(times: list[float], gap: float) -> None:
    """The longest silence is between two reads; what passed before the first is none."""
    meter = Meter(Framing.NDJSON)
    for now in times:
        meter.feed(b"{}\n", now)
    assert meter.max_gap == gap


def test_large_reads_are_not_kept() -> None:
    """What has passed is counted, and only its end remembered."""
    meter = Meter(Framing.NDJSON)
    tracemalloc.start()
    try:
        for number in range(40):
            meter.feed(b"{" + bytes([number + 48]) * 262_141 + b"}\n", 0.0)
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 100_000
    assert meter.size == 40 * 262_144
