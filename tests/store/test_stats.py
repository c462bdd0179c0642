"""Sums are those of the records, percentiles lie where the records' own do, and questions take their turns."""

import asyncio
import random
import statistics
import time
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import StoreUnavailable
from gateway.record import Accounting, Attempt, AttemptOutcome, GenerationRecord, Outcome, Usage
from gateway.store import stats as stats_module
from gateway.store.engine import Database
from gateway.store.entries import Entry, bucket, minutes, row
from gateway.store.schema import HISTOGRAM_BUCKETS
from gateway.store.stats import READERS, Percentiles, Stats, Total, Wanted, percentiles, quantile
from tests.store.recorded import NOW, numbered
from tests.store.test_retention import write
from tests.telemetry.builders import cancelled, unserved

HOUR = int(NOW // 3600 * 3600)
ALL = Wanted(HOUR, HOUR + 2 * 3600)


def histogram(values_ms: Iterable[float]) -> list[int]:
    """As the sums have it."""
    counts = [0] * HISTOGRAM_BUCKETS
    for value in values_ms:
        counts[bucket(value)] += 1
    return counts


@pytest.mark.parametrize("share", [0.5, 0.95, 0.99])
def test_percentiles_are_close(share: float) -> None:
    """Within a few percent on the kind of numbers that durations are."""
    rng = random.Random(1)
    values = sorted(rng.lognormvariate(7.0, 1.0) for _ in range(20_000))
    exact = values[int(share * len(values))] / 1000
    assert quantile(histogram(values), share) == pytest.approx(exact, rel=0.06)


@given(st.lists(st.floats(0, 1e7), min_size=1, max_size=200), st.floats(0.01, 1))
def test_percentiles_lie_in_their_bucket(values: list[float], share: float) -> None:
    """Whatever the numbers: never outside of what the bucket of the exact one spans, or 1.41 times that."""
    counts = histogram(values)
    found = quantile(counts, share) * 1000
    used = [number for number, count in enumerate(counts) if count]
    assert 0 <= found <= stats_module.ENDS_MS[used[-1]] * 1.0000001
    if used[0]:
        assert found >= stats_module.ENDS_MS[used[0] - 1] * 0.9999999


def test_too_few_for_a_percentile() -> None:
    """The 99th of ten requests is only the slowest one."""
    assert percentiles([0] * HISTOGRAM_BUCKETS, 0.0) == Percentiles(0, None, None, None, None)
    few = percentiles(histogram([100.0] * 19), 1900.0)
    assert (few.n, few.mean, few.p95, few.p99) == (19, 0.1, None, None)
    assert few.p50 is not None
    assert percentiles(histogram([100.0] * 99), 0.0).p99 is None
    assert percentiles(histogram([100.0] * 100), 0.0).p99 is not None


def mixed() -> list[GenerationRecord]:
    """An afternoon: two models, two hosts, every kind of end."""
    there = {"attempts": (Attempt("gpu2", AttemptOutcome.OK, 0.1, 1.0, 200),), "host": "gpu2"}
    return [
        *numbered(30, model="a"),
        *numbered(10, model="b", **there, received_at=NOW + 90, cold=True),
        *[cancelled(id=f"c{n}", received_at=NOW + 30, model="a") for n in range(3)],
        *[unserved(Outcome.NO_HOST, 503, id=f"n{n}", received_at=NOW + 3600, model="b") for n in range(2)],
        *numbered(1, model="a", outcome=Outcome.UPSTREAM_ERROR, usage=Usage(3, 5, Accounting.COUNTED)),
    ]


@pytest.fixture
async def asked(database: Database) -> Stats:
    """The afternoon, in the database."""
    await write(database, mixed())
    return Stats(database)


async def test_a_summary(asked: Stats) -> None:
    """The same from minutes and from hours, and the same as the records say."""
    by_hand = Total()
    for (_, _, _, _, outcome), sums in minutes(Entry(row(one, "r"), one.model) for one in mixed()).items():
        by_hand.add(outcome, sums)
    for bucket_seconds in (60, 3600):
        total = (await asked.totals(ALL, bucket_seconds))[""]
        assert total.sums == pytest.approx(by_hand.sums)
        assert (total.outcomes, total.first_token, total.duration) == (
            by_hand.outcomes,
            by_hand.first_token,
            by_hand.duration,
        )
    assert total.requests == 46
    assert total.outcomes == {"ok": 40, "cancelled": 3, "no_host": 2, "upstream_error": 1}
    assert total.wasted_tokens == 3 * 7 + 5
    assert total.tokens_per_second == pytest.approx(25 / 2.5)
    assert total.queue_seconds == pytest.approx(0.25)
    assert (total.ttft.n, total.total.n) == (44, 40)
    assert total.ttft.mean == pytest.approx(1.5)
    assert total.total.mean == pytest.approx(statistics.mean(one.duration_seconds for one in mixed()[:40]))


async def test_by_model_and_host(asked: Stats) -> None:
    """And filtered by the other."""
    assert {name: one.requests for name, one in (await asked.totals(ALL, 60, "model")).items()} == {"a": 34, "b": 12}
    hosts = {name: one.requests for name, one in (await asked.totals(ALL, 3600, "host")).items()}
    assert hosts == {"gpu1": 34, "gpu2": 10, "": 2}
    assert (await asked.totals(ALL._replace(model="b", host="gpu2"), 60))[""].sums[1] == 10
    assert await asked.totals(ALL._replace(principal="nobody"), 60) == {}


async def test_by_both(asked: Stats) -> None:
    """Each pair there is; and what ended so alone."""
    pairs = await asked.totals(ALL, 60, "model", "host")
    assert {pair: one.requests for pair, one in pairs.items()} == {("a", "gpu1"): 34, ("b", "gpu2"): 10, ("b", ""): 2}
    assert (await asked.totals(ALL._replace(outcome="cancelled"), 60))[""].requests == 3
    assert (await asked.totals(ALL._replace(outcome="failed"), 3600))[""].requests == 6


async def test_counts(asked: Stats) -> None:
    """Of each model or host, for each step that had any."""
    found = await asked.counts(ALL, 60, "model")
    assert {name: {at: one.requests for at, one in by.items()} for name, by in found.items()} == {
        "a": {int(NOW): 34},
        "b": {int(NOW) + 60: 10, int(NOW) + 3600: 2},
    }
    hosts = await asked.counts(ALL, 3600, "host")
    whole = (await asked.totals(ALL, 60))[""]
    assert sum(one.output_tokens for by in hosts.values() for one in by.values()) == whole.sums[5]
    assert sum(one.input_tokens for by in hosts.values() for one in by.values()) == whole.sums[4]


async def test_series(asked: Stats) -> None:
    """Each step that had requests, by when it begins; steps of hours come from the hours."""
    found = await asked.series(ALL, 60)
    assert {at: one.requests for at, one in found.items()} == {int(NOW): 34, int(NOW) + 60: 10, int(NOW) + 3600: 2}
    assert sum(one.requests for one in (await asked.series(ALL, 300)).values()) == 46
    assert {at: one.requests for at, one in (await asked.series(ALL, 3600)).items()} == {HOUR: 44, HOUR + 3600: 2}
    assert {at: one.requests for at, one in (await asked.series(ALL._replace(until=HOUR + 3600), 60)).items()} == {
        int(NOW): 34,
        int(NOW) + 60: 10,
    }


async def test_errors(asked: Stats) -> None:
    """Most first."""
    assert await asked.errors(ALL, 60, 10) == [
        ("cancelled", "a", "gpu1", 3, 21),
        ("no_host", "b", "", 2, 0),
        ("upstream_error", "a", "gpu1", 1, 5),
    ]
    assert len(await asked.errors(ALL, 3600, 2)) == 2


async def test_questions_take_turns(asked: Stats, monkeypatch: pytest.MonkeyPatch) -> None:
    """So many at a time; who waits too long is told so, and the database is not blamed."""
    monkeypatch.setattr(stats_module, "READ_SECONDS", 0.05)
    began = time.monotonic()
    async with asyncio.TaskGroup() as group:
        inside, done = asyncio.Semaphore(0), asyncio.Event()

        async def hold() -> None:
            async with asked.reading():
                inside.release()
                await done.wait()

        for _ in range(READERS):
            group.create_task(hold())
        for _ in range(READERS):
            await inside.acquire()
        with pytest.raises(StoreUnavailable, match="too many questions"):
            await asked.totals(ALL, 60)
        done.set()
    assert time.monotonic() - began < 5
    assert (await asked.totals(ALL, 60))[""].requests == 46
