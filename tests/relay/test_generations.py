"""What is in flight: each generation leaves one record, and ends by whoever stops it first."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from gateway.dialects.lines import Framing, Meter
from gateway.record import Attempt, AttemptOutcome, CancelSource, GenerationRecord, Outcome, Phase, Trace, Usage
from gateway.relay.generations import Generation, Generations
from tests.builders import TEXT
from tests.fleet.builders import request
from tests.sockets import until
from tests.telemetry.builders import ROUTE

SECONDS = 5.0
WALL = 1_795_354_517.0
Work = Callable[[Generation], Awaitable[object]]


class Flight:
    """Generations with hand-made clocks, and what their sinks were told."""

    def __init__(self, deadline_seconds: float = 0.0) -> None:
        self.now = 100.0
        self.records: list[GenerationRecord] = []
        self.told: list[tuple[str, str]] = []
        sinks = (self._first, self._second)
        loop = asyncio.get_running_loop()
        self.generations = Generations(loop, lambda: self.now, lambda: WALL + self.now, sinks, deadline_seconds)

    def _first(self, record: GenerationRecord) -> None:
        self.records.append(record)
        self.told.append(("first", record.id))

    def _second(self, record: GenerationRecord) -> None:
        self.told.append(("second", record.id))

    def track(self, id_: str = "g1", ago: float = 0.0, **changes: Any) -> Generation:
        """A generation that was received some seconds ago."""
        return self.generations.track(request(id_=id_, **changes), self.now - ago)

    @property
    def record(self) -> GenerationRecord:
        """The one record."""
        self.generations.flush()
        (record,) = self.records
        return record

    async def run(self, work: Work, id_: str = "g1", ago: float = 0.0) -> bool:
        """Do ``work`` in the scope of a generation, as the relay does; whether it was stopped."""
        with self.track(id_, ago) as generation:
            cancelled = stopped = False
            generation.open_scope()
            try:
                await work(generation)
                generation.ended(Outcome.OK)
            except asyncio.CancelledError:
                cancelled = True
            finally:
                stopped = generation.close_scope(cancelled=cancelled)
            if cancelled and not stopped:
                raise asyncio.CancelledError
        return stopped


class Waiting:
    """Work that waits to be told. ``begun`` when it has begun."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.told: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def __call__(self, _generation: Generation) -> None:
        """Wait."""
        self.begun.set()
        await self.told


@contextlib.asynccontextmanager
async def running(flight: Flight, work: Waiting) -> Any:
    """A task that waits in the scope of a generation; both are handed out."""
    task = asyncio.get_running_loop().create_task(flight.run(work), name="target")
    await work.begun.wait()
    generation = flight.generations.get("g1")
    assert generation is not None
    try:
        yield task, generation
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


# -- the live view --------------------------------------------------------------------------------------------------------------------


async def test_what_is_in_flight_can_be_seen() -> None:
    """From its receipt to its record, by id and in order."""
    flight = Flight()
    with flight.track("g1") as first:
        with flight.track("g2") as second:
            assert list(flight.generations) == [first, second]
            assert (flight.generations.get("g2"), len(flight.generations)) == (second, 2)
        assert list(flight.generations) == [first]
        assert flight.generations.get("g2") is None
    assert len(flight.generations) == 0
    assert repr(first) == f"<Generation g1 [{TEXT} | queued]>"


async def test_a_generation_tells_where_it_is() -> None:
    """It has no host while it waits, and its times are those of the wall."""
    flight = Flight()
    with flight.track(ago=3.0) as generation:
        generation.route = ROUTE
        assert (generation.host, generation.tokens) == (None, 0)
        generation.phase = Phase.PREFILL
        assert generation.host == "gpu1"
        flight.now += 5.0
        assert generation.received_at == pytest.approx(WALL + 97.0)


@pytest.mark.parametrize(
    ("path", "answer", "tokens"),
    [
        ("/api/generate", b"{}\n" * 5, 5),
        ("/v1/chat/completions", b"data: {}\n\n" * 5, 5),
        ("/v1/messages", b"event: x\ndata: {}\n\n" * 5, 3),
        ("/v1/messages", b"event: x\ndata: {}\n\n", 0),
        ("/v1/responses", b"event: x\ndata: {}\n\n" * 5, 1),
    ],
)
async def test_tokens_are_counted_as_they_pass(path: str, answer: bytes, tokens: int) -> None:
    """Events of the stream, less those that come before the first token."""
    with Flight().track(path=path) as generation:
        generation.meter = Meter(Framing.NDJSON)
        generation.meter.feed(answer, 0.0)
        assert generation.tokens == tokens


async def test_idle() -> None:
    """The shutdown waits until the last has ended, and not at all if there is none."""
    flight = Flight()
    await flight.generations.idle()
    first, second = Waiting(), Waiting()
    tasks = [
        asyncio.get_running_loop().create_task(flight.run(work, id_), name=id_)
        for id_, work in (("g1", first), ("g2", second))
    ]
    idle = asyncio.get_running_loop().create_task(flight.generations.idle(), name="idle")
    await first.begun.wait()
    await second.begun.wait()
    first.told.set_result(None)
    await tasks[0]
    assert not idle.done()
    second.told.set_result(None)
    async with asyncio.timeout(SECONDS):
        await idle
    await tasks[1]


# -- records --------------------------------------------------------------------------------------------------------------------------


async def test_each_leaves_one_record() -> None:
    """Every sink is told of each, in order, without anybody asking."""
    flight = Flight()
    for id_ in ("g1", "g2"):
        with flight.track(id_) as generation:
            generation.ended(Outcome.OK)
    assert flight.told == []
    await until(lambda: flight.told)
    assert flight.told == [("first", "g1"), ("second", "g1"), ("first", "g2"), ("second", "g2")]
    flight.generations.flush()
    assert len(flight.records) == 2


async def test_a_record_that_a_sink_cannot_take(caplog: pytest.LogCaptureFixture) -> None:
    """Costs neither the other records nor the other sinks, and is told of."""
    flight = Flight()
    taken: list[str] = []

    def choosy(record: GenerationRecord) -> None:
        if record.id == "g2":
            raise OverflowError("too large")
        taken.append(record.id)

    loop = asyncio.get_running_loop()
    both = Generations(loop, lambda: 0.0, lambda: WALL, (choosy, flight.records.append))
    for id_ in ("g1", "g2", "g3"):
        with both.track(request(id_=id_), 0.0) as generation:
            generation.ended(Outcome.OK)
    both.flush()
    assert taken == ["g1", "g3"]
    assert [record.id for record in flight.records] == ["g1", "g2", "g3"]
    assert [told.getMessage() for told in caplog.records] == ["a record of g2 was lost"]


async def test_a_record_holds_what_happened() -> None:
    """Durations are counted from the receipt; the receipt itself is the wall's."""
    flight = Flight()
    asked = {
        "path": "/api/chat",
        "body": b"x" * 10,
        "session": "talk",
        "client": "10.0.0.9",
        "trace": Trace("ab" * 16, "00000000000000cd", request_id="r1"),
    }
    with flight.track(model="SmolLM2:135M", **asked) as generation:
        generation.route, generation.status, generation.bytes_out, generation.cold = ROUTE, 200, 99, True
        generation.queue_seconds, generation.first_byte = 0.5, 102.0
        generation.usage = usage = Usage(1, 2)
        generation.attempts = attempts = (Attempt("gpu1", AttemptOutcome.OK, 1.0, 3.0, 200),)
        generation.meter = meter = Meter(Framing.NDJSON)
        meter.feed(b"{}\n", 102.0)
        meter.feed(b"{}\n", 103.5)
        generation.ended(Outcome.OK)
        flight.now += 4.0
    assert flight.record == GenerationRecord(
        received_at=WALL + 100.0,
        id="g1",
        dialect="ollama",
        endpoint="/api/chat",
        operation="chat",
        requested_model="SmolLM2:135M",
        model=TEXT,
        stream=True,
        session="talk",
        client="10.0.0.9",
        outcome=Outcome.OK,
        reason="",
        phase=Phase.DONE,
        cancelled_by=None,
        status=200,
        host="gpu1",
        cold=True,
        queue_seconds=0.5,
        ttft_seconds=2.0,
        duration_seconds=4.0,
        max_gap_seconds=1.5,
        cancel_seconds=None,
        usage=usage,
        chunks=2,
        bytes_in=10,
        bytes_out=99,
        attempts=attempts,
        route=ROUTE,
        request_id="r1",
        trace_id="ab" * 16,
        span_id="00000000000000cd",
    )


async def test_the_first_word_counts() -> None:
    """How it ended is said once."""
    flight = Flight()
    with flight.track() as generation:
        generation.ended(Outcome.CLIENT_ERROR, "no such model")
        generation.ended(Outcome.OK)
    assert (flight.record.outcome, flight.record.reason) == (Outcome.CLIENT_ERROR, "no such model")


async def test_an_end_that_nobody_explained() -> None:
    """Is our own fault; and an exception on its way leaves a record too."""
    flight = Flight()
    with pytest.raises(ZeroDivisionError), flight.track():
        raise ZeroDivisionError
    assert (flight.record.outcome, flight.record.phase) == (Outcome.GATEWAY_ERROR, Phase.QUEUED)


# -- scopes ---------------------------------------------------------------------------------------------------------------------------


async def test_work_that_ends_by_itself() -> None:
    """Nobody stopped it, and nobody can any more."""
    flight = Flight()

    async def work(generation: Generation) -> None:
        held.append(generation)

    held: list[Generation] = []
    assert await flight.run(work) is False
    assert (flight.record.outcome, flight.record.cancelled_by) == (Outcome.OK, None)
    assert held[0].stop(CancelSource.OPERATOR, "late") is False


@pytest.mark.parametrize(
    ("source", "outcome"),
    [
        (CancelSource.OPERATOR, Outcome.CANCELLED),
        (CancelSource.SHUTDOWN, Outcome.GATEWAY_ERROR),
        (CancelSource.DEADLINE, Outcome.TIMEOUT),
    ],
)
async def test_stopping(source: CancelSource, outcome: Outcome) -> None:
    """Ends the scope and nothing else: the task goes on, and is as if it had never been cancelled."""
    flight = Flight()
    async with running(flight, Waiting()) as (task, generation):
        flight.now += 1.0
        assert generation.stop(source, "enough") is True
        flight.now += 1.0
        assert generation.stop(CancelSource.OPERATOR, "once more") is False
        assert await task is True
        assert task.cancelling() == 0
    record = flight.record
    assert (record.outcome, record.cancelled_by, record.reason, record.phase) == (
        outcome,
        source,
        "enough",
        Phase.QUEUED,
    )
    assert generation.cancel_noticed == 101.0


async def test_a_client_that_left() -> None:
    """Cancels the task from outside, which goes through."""
    flight = Flight()
    async with running(flight, Waiting()) as (task, _):
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    record = flight.record
    assert (record.outcome, record.cancelled_by, record.reason) == (
        Outcome.CANCELLED,
        CancelSource.CLIENT,
        "the client left",
    )


@pytest.mark.parametrize("stopped_first", [True, False])
async def test_a_client_that_left_while_it_was_stopped(stopped_first: bool) -> None:
    """The server's own cancellation is never swallowed; who came first is named."""
    flight = Flight()
    async with running(flight, Waiting()) as (task, generation):
        acts = [lambda: generation.stop(CancelSource.OPERATOR, "enough"), task.cancel]
        for act in acts if stopped_first else reversed(acts):
            act()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert flight.record.outcome is Outcome.CANCELLED


async def test_stopping_just_when_the_work_was_done() -> None:
    """The cancellation ends with the scope, whatever came of it."""
    flight = Flight()
    work = Waiting()
    async with running(flight, work) as (task, generation):
        work.told.set_result(None)
        generation.stop(CancelSource.OPERATOR, "enough")
        async with asyncio.timeout(SECONDS):
            await task
        assert task.cancelling() == 0
    assert len(flight.generations) == 0
    assert flight.record.outcome in (Outcome.OK, Outcome.CANCELLED)


async def test_stopping_what_has_ended_already() -> None:
    """After its last byte, it is too late."""
    flight = Flight()

    async def work(generation: Generation) -> None:
        generation.ended(Outcome.OK)
        assert generation.stop(CancelSource.OPERATOR, "late") is False

    assert await flight.run(work) is False
    assert (flight.record.outcome, flight.record.cancelled_by, flight.record.reason) == (Outcome.OK, None, "")


async def test_stopping_before_the_scope_is_open() -> None:
    """It is known by the time it opens: nothing is cancelled, the relay looks."""
    with Flight().track() as generation:
        assert generation.stop(CancelSource.OPERATOR, "early") is True
        assert generation.stop(CancelSource.DEADLINE, "later") is False
        generation.open_scope()
        assert generation.cancelled_by is CancelSource.OPERATOR
        assert generation.close_scope(cancelled=True) is True


async def test_stopping_all() -> None:
    """Every scope that is open, each once."""
    flight = Flight()
    works = {f"g{number}": Waiting() for number in range(3)}
    tasks = [asyncio.get_running_loop().create_task(flight.run(work, id_), name=id_) for id_, work in works.items()]
    for work in works.values():
        await work.begun.wait()
    assert flight.generations.stop_all(CancelSource.SHUTDOWN, "over") == 3
    assert flight.generations.stop_all(CancelSource.SHUTDOWN, "over") == 0
    assert await asyncio.gather(*tasks) == [True] * 3
    flight.generations.flush()
    assert {record.cancelled_by for record in flight.records} == {CancelSource.SHUTDOWN}


async def test_how_long_a_cancellation_takes() -> None:
    """From its being noticed to the host's connection closed."""
    flight = Flight()

    async def work(generation: Generation) -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            flight.now += 0.5
            generation.attempts = (Attempt("gpu1", AttemptOutcome.CANCELLED, 1.0, flight.now - 101.0),)
            flight.now += 9.0

    task = asyncio.get_running_loop().create_task(flight.run(work), name="target")
    await until(lambda: flight.generations.get("g1"))
    (generation,) = flight.generations
    flight.now += 3.0
    generation.stop(CancelSource.OPERATOR, "enough")
    await task
    assert flight.record.cancel_seconds == pytest.approx(0.5)


# -- deadlines ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("deadline", "ago"), [(0.01, 0.0), (600.0, 600.0), (600.0, 9999.0)])
async def test_a_deadline(deadline: float, ago: float) -> None:
    """It counts from the receipt, and ends the scope."""
    flight = Flight(deadline)
    async with asyncio.timeout(SECONDS):
        assert await flight.run(Waiting(), ago=ago) is True
    record = flight.record
    assert (record.outcome, record.cancelled_by) == (Outcome.TIMEOUT, CancelSource.DEADLINE)
    assert record.reason == f"took longer than {deadline:g} s"


async def test_a_deadline_that_is_kept() -> None:
    """Stops nobody, least of all what its task does next."""
    flight = Flight(0.01)

    async def nothing(_generation: Generation) -> None:
        return

    later = asyncio.Event()
    assert await flight.run(nothing) is False
    flight.generations.loop.call_later(0.03, later.set)
    await later.wait()
    assert flight.record.outcome is Outcome.OK
