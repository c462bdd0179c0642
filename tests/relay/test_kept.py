"""Kept answers: cut into chunks whatever the reads, bounded, and the same for every reader."""

import asyncio
import itertools
from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects.lines import Framing, Meter
from gateway.record import Outcome
from gateway.relay.chunks import BATCH_BYTES, CHUNK_COST_BYTES, Batch, Chunks
from gateway.relay.generations import Generations
from gateway.relay.kept import KeptAnswer
from tests.fleet.builders import request

PLENTY = 10**9
ENDS = {Framing.NDJSON: b"\n", Framing.SSE: b"\n\n"}


class Held:
    """One answer, and the bytes that all answers together may hold."""

    def __init__(self, framing: Framing, limit: int = PLENTY, in_all: int = PLENTY) -> None:
        loop = asyncio.new_event_loop()
        loop.close()  # nobody waits here
        self.generations = Generations(loop, lambda: 5.0, lambda: 1000.0, ())
        self.generation = self.generations.track(request(id_="g1", session="talk"), 1.0)
        self.size = 0
        self.in_all = in_all
        self.came: list[int] = []
        self.answer = KeptAnswer(loop, self.generation, limit, self._hold, lambda _, change: self.came.append(change))
        self.answer.begin(200, (), framing, "gpu1")

    def _hold(self, answer: Chunks, size: int) -> int:
        self.size += size
        assert self.size == answer.size >= 0
        return self.size - self.in_all

    def write(self, *pieces: bytes) -> None:
        """What the relay does."""
        for piece in pieces:
            assert self.answer.write(piece) is True

    def end(self) -> None:
        """Its generation has ended."""
        self.generation.ended(Outcome.OK)
        self.answer.end(self.generation.record(5.0, 1000.0), 5.0, None)

    def chunks(self, at: int = 0) -> tuple[int, list[bytes]]:
        """The number of the first that a reader gets, and all of them."""
        first, found = -1, []
        while (batch := self.answer.batch(at)) is not None:
            assert batch.gone == batch.at - at
            first = batch.at if first < 0 else first
            found += batch.chunks
            at = batch.at + len(batch.chunks)
        return first, found


def cut(data: bytes, at: Iterable[int]) -> list[bytes]:
    """The same bytes in pieces."""
    places = [0, *sorted(place % (len(data) + 1) for place in at), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(places)]


framings = st.sampled_from([Framing.NDJSON, Framing.SSE])
texts = st.lists(st.text(alphabet="ab{}", max_size=8), max_size=8)


@given(
    framing=framings, texts=texts, tail=st.text(alphabet="xy", max_size=3), at=st.lists(st.integers(0, 200), max_size=6)
)
def test_any_cut_gives_the_same_chunks(framing: Framing, texts: list[str], tail: str, at: list[int]) -> None:
    """A line or event is one chunk; what is left at the end is one as well; nothing is added or lost."""
    whole = [b"data:" + text.encode() + ENDS[framing] for text in texts] + ([tail.encode()] if tail else [])
    held = Held(framing)
    held.write(b"", *cut(b"".join(whole), at))
    held.end()
    assert held.chunks() == (0 if whole else -1, whole)
    assert held.answer.count == len(whole)
    assert held.size == sum(map(len, whole)) + len(whole) * CHUNK_COST_BYTES


@given(framing=framings, texts=texts, at=st.lists(st.integers(0, 200), max_size=6))
def test_as_the_meter_hands_them_on(framing: Framing, texts: list[str], at: list[int]) -> None:
    """Between the host and here stands the meter."""
    whole = [b"data:" + text.encode() + ENDS[framing] for text in texts]
    meter, held = Meter(framing), Held(framing)
    for piece in cut(b"".join(whole), at):
        held.write(meter.feed(piece, 0.0))
    held.write(meter.flush())
    held.end()
    assert held.chunks()[1] == whole


@given(
    framing=framings,
    lengths=st.lists(st.integers(0, 300), max_size=30),
    at=st.lists(st.integers(0, 5000), max_size=8),
    limit=st.integers(50, 1500),
    in_all=st.integers(50, 1500),
)
def test_bounded(framing: Framing, lengths: list[int], at: list[int], limit: int, in_all: int) -> None:
    """Never more than the bound but for the newest chunk; numbers have no gaps, and what is there is right."""
    whole = [b"%d:" % number + b"x" * length + ENDS[framing] for number, length in enumerate(lengths)]
    held = Held(framing, limit, in_all)
    for piece in cut(b"".join(whole), at):
        held.write(piece)
        newest = held.answer.batch(held.answer.count - 1)
        spared = len(newest.chunks[0]) + CHUNK_COST_BYTES if newest and newest.chunks else 0
        assert held.size <= max(min(limit, in_all), spared) + 1  # perhaps half a terminator
    held.end()
    first, found = held.chunks()
    assert held.answer.count == len(whole)
    assert found == whole[len(whole) - len(found) :]
    assert first in (-1, held.answer.first)
    held.answer.forget()
    assert (held.size, held.answer.first) == (0, len(whole))
    assert held.answer.batch(0) == (Batch(len(whole), len(whole), []) if whole else None)


def test_one_piece() -> None:
    """Is one chunk, at the end; an empty one too; one that is too large is gone."""
    held = Held(Framing.SINGLE)
    held.write(b"[1,", b"2]")
    assert held.answer.batch(0) is None
    held.end()
    assert held.chunks() == (0, [b"[1,2]"])
    empty = Held(Framing.SINGLE)
    empty.write(b"")
    empty.end()
    assert empty.chunks() == (0, [b""])
    large = Held(Framing.SINGLE, limit=10)
    large.write(b"x" * 6, b"x" * 6, b"x" * 6)
    assert large.size <= 10
    large.end()
    assert large.answer.batch(0) == Batch(1, 1, [])


def test_one_piece_that_broke_off() -> None:
    """Is no chunk."""
    held = Held(Framing.SINGLE)
    held.write(b"[1,")
    held.answer.abort()
    held.end()
    assert held.answer.count == 0


def test_a_batch_is_bounded() -> None:
    """However much there is; a chunk that is larger comes alone."""
    held = Held(Framing.NDJSON)
    line = b"x" * 999 + b"\n"
    held.write(*[line] * 200, b"y" * 2 * BATCH_BYTES + b"\n", line)
    first = held.answer.batch(0)
    assert first is not None
    assert len(first.chunks) == BATCH_BYTES // 1000
    large = held.answer.batch(200)
    assert large is not None
    assert len(large.chunks) == 1
    assert len(held.chunks()[1]) == 202


def test_a_head_counts_with_its_first_byte() -> None:
    """Until then another host may begin anew."""
    held = Held(Framing.SSE)
    assert (held.answer.head, held.answer.started) == (None, False)
    held.answer.begin(200, (), Framing.NDJSON, "gpu2")
    held.write(b"{}\n")
    assert held.answer.head is not None
    assert (held.answer.head.host, held.answer.head.framing, held.answer.started) == ("gpu2", Framing.NDJSON, True)


def test_who_is_counted() -> None:
    """Readers are, unless they say that they are none."""
    held = Held(Framing.NDJSON)
    with held.answer.reader(), held.answer.reader(counted=False), held.answer.reader():
        assert held.answer.readers == 2
    assert (held.answer.readers, held.came) == (0, [1, 1, -1, -1])
    assert held.answer.session == "talk"
    held.end()
    assert (held.answer.session, held.answer.generation) == ("talk", None)
