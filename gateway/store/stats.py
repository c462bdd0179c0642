"""Questions about the past, answered from the sums alone: however many requests there were, a day is read in milliseconds.

Percentiles are read off summed histograms, never averaged: to within a bucket, a few percent. Those that rest on too few requests are
left out.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from sqlalchemy import Row, Select, Table, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.errors import StoreUnavailable
from gateway.record import Outcome
from gateway.store.engine import AGAIN_SECONDS, Database
from gateway.store.entries import BOUNDS_MS, KEYS, SUMS
from gateway.store.history import FAILED
from gateway.store.schema import HISTOGRAM_BUCKETS, rollup_1h, rollup_1m

READ_SECONDS = 5.0
READERS = 2  # questions at a time; a reader of SQLite's three is left for others
ENDS_MS = (*BOUNDS_MS, 2 ** ((HISTOGRAM_BUCKETS - 1) / 2))
NEEDED = {0.5: 1, 0.95: 20, 0.99: 100}
"""Percentile → how many requests it needs to mean anything."""
WASTED = (Outcome.CANCELLED, Outcome.TIMEOUT, Outcome.UPSTREAM_ERROR, Outcome.GATEWAY_ERROR)


class Wanted(NamedTuple):
    """Which requests: received from ``since`` until before ``until`` (Unix seconds, whole buckets), and of whom. ``outcome``: one of them, or
    FAILED."""

    since: int
    until: int
    model: str | None = None
    host: str | None = None
    principal: str | None = None
    outcome: str | None = None


class Counts(NamedTuple):
    """What needs no histogram."""

    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0


class Percentiles(NamedTuple):
    """Seconds of ``n`` requests. None where these are too few."""

    n: int
    mean: float | None
    p50: float | None
    p95: float | None
    p99: float | None


class Total:
    """Sums over some requests, of any outcome."""

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()
        self.sums: list[float] = [0] * SUMS
        self.first_token = [0] * HISTOGRAM_BUCKETS
        self.duration = [0] * HISTOGRAM_BUCKETS  # of those that went well: failing is quick, and says nothing of speed
        self.ok_ms = 0.0
        self.wasted_tokens = 0

    def add(self, outcome: str, numbers: Sequence[float]) -> None:
        """Add the sums of one outcome: numbers as in a table of sums."""
        self.outcomes[outcome] += int(numbers[0])
        self.sums = [a + b for a, b in zip(self.sums, numbers, strict=False)]
        first = numbers[SUMS : SUMS + HISTOGRAM_BUCKETS]
        self.first_token = [a + int(b) for a, b in zip(self.first_token, first, strict=True)]
        if outcome == Outcome.OK:
            whole = numbers[SUMS + HISTOGRAM_BUCKETS :]
            self.duration = [a + int(b) for a, b in zip(self.duration, whole, strict=True)]
            self.ok_ms += numbers[SUMS - 1]
        if outcome in WASTED:
            self.wasted_tokens += int(numbers[5])

    @property
    def requests(self) -> int:
        """How many."""
        return int(self.sums[0])

    @property
    def tokens_per_second(self) -> float | None:
        """Of decoding, as the hosts told it."""
        return self.sums[6] / self.sums[7] * 1000 if self.sums[7] else None

    @property
    def queue_seconds(self) -> float | None:
        """On average."""
        return self.sums[8] / self.sums[0] / 1000 if self.sums[0] else None

    @property
    def ttft(self) -> Percentiles:
        """To the first token, of streams."""
        return percentiles(self.first_token, self.sums[9])

    @property
    def total(self) -> Percentiles:
        """From receipt to the end, of those that went well."""
        return percentiles(self.duration, self.ok_ms)


def percentiles(counts: Sequence[int], sum_ms: float) -> Percentiles:
    """Of a histogram."""
    count = sum(counts)
    told = {share: quantile(counts, share) if count >= needed else None for share, needed in NEEDED.items()}
    return Percentiles(count, sum_ms / count / 1000 if count else None, told[0.5], told[0.95], told[0.99])


def quantile(counts: Sequence[int], share: float) -> float:
    """Seconds, between the ends of a bucket as far along on a logarithmic scale as the rank is. Not of an empty histogram."""
    rank = share * sum(counts)
    below = number = 0
    for number, count in enumerate(counts):  # noqa: B007 - the number is what is looked for
        if count and below + count >= rank:
            break
        below += count
    part = (rank - below) / counts[number]
    if number == 0:
        return part * ENDS_MS[0] / 1000
    low, high = ENDS_MS[number - 1], ENDS_MS[number]
    return float(low * (high / low) ** part) / 1000


class Stats:
    """Asks one database. Each question raises StoreUnavailable, and StoreSlow after READ_SECONDS."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._turn = asyncio.Semaphore(READERS)

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        """A connection, once it is this question's turn."""
        try:
            async with asyncio.timeout(READ_SECONDS):
                await self._turn.acquire()
        except TimeoutError:
            raise StoreUnavailable("too many questions at a time", retry_after=AGAIN_SECONDS) from None
        try:
            async with self._database.reading(READ_SECONDS) as connection:
                yield connection
        finally:
            self._turn.release()

    async def totals(self, wanted: Wanted, bucket_seconds: int, *by: str) -> dict[Any, Total]:
        """The sums of all that is wanted, or of each value of a column (``model``, ``host``), of each pair of two; read from the table of those
        buckets."""
        table = _table(bucket_seconds)
        key = [table.c[name] for name in by]
        return await self._folded(_summed(table, wanted, bucket_seconds, key), len(key))

    async def series(self, wanted: Wanted, step: int) -> dict[int, Total]:
        """The same for each ``step`` seconds that had any requests, by when it begins (Unix seconds)."""
        bucket_seconds = 3600 if step % 3600 == 0 else 60
        table = _table(bucket_seconds)
        key = table.c.bucket // (step // bucket_seconds)
        folded = await self._folded(_summed(table, wanted, bucket_seconds, [key]), 1)
        return {int(number) * step: total for number, total in folded.items()}

    async def counts(self, wanted: Wanted, step: int, by: str) -> dict[str, dict[int, Counts]]:
        """What is counted, of each value of a column, for each ``step`` seconds that had any requests, by when it begins (Unix seconds)."""
        bucket_seconds = 3600 if step % 3600 == 0 else 60
        table = _table(bucket_seconds)
        keys = (table.c[by], table.c.bucket // (step // bucket_seconds))
        numbers = [func.sum(column) for column in (table.c.n, table.c.input_tokens, table.c.output_tokens)]
        query = _filtered(select(*keys, *numbers), table, wanted, bucket_seconds).group_by(*keys)
        async with self.reading() as connection:
            rows = (await connection.execute(query)).all()
        found: dict[str, dict[int, Counts]] = {}
        for name, number, *sums in rows:
            found.setdefault(name, {})[int(number) * step] = Counts(*map(int, sums))
        return found

    async def errors(self, wanted: Wanted, bucket_seconds: int, most: int) -> list[tuple[str, str, str, int, int]]:
        """(outcome, model, host, requests, output tokens) of what did not go well, most first."""
        table = _table(bucket_seconds)
        keys = (table.c.outcome, table.c.model, table.c.host)
        n = func.sum(table.c.n)
        query = select(*keys, n, func.sum(table.c.output_tokens)).where(table.c.outcome != Outcome.OK.value)
        query = _filtered(query, table, wanted, bucket_seconds).group_by(*keys).order_by(n.desc(), *keys).limit(most)
        async with self.reading() as connection:
            rows = (await connection.execute(query)).all()
        return [(row[0], row[1], row[2], int(row[3]), int(row[4])) for row in rows]

    async def _folded(self, query: Select[Any], keys: int) -> dict[Any, Total]:
        async with self.reading() as connection:
            rows = (await connection.execute(query)).all()
        return await asyncio.to_thread(_fold, rows, keys)


def _table(bucket_seconds: int) -> Table:
    return {60: rollup_1m, 3600: rollup_1h}[bucket_seconds]


def _summed(table: Table, wanted: Wanted, bucket_seconds: int, key: Iterable[Any]) -> Select[Any]:
    keys = (*key, table.c.outcome)
    numbers = [func.sum(column) for column in list(table.columns)[KEYS:]]
    return _filtered(select(*keys, *numbers), table, wanted, bucket_seconds).group_by(*keys)


def _filtered(query: Select[Any], table: Table, wanted: Wanted, bucket_seconds: int) -> Select[Any]:
    query = query.where(
        table.c.bucket >= wanted.since // bucket_seconds, table.c.bucket < wanted.until // bucket_seconds
    )
    for name in ("model", "host", "principal"):
        value = getattr(wanted, name)
        if value is not None:
            query = query.where(table.c[name] == value)
    if wanted.outcome == FAILED:
        return query.where(table.c.outcome != Outcome.OK.value)
    return query if wanted.outcome is None else query.where(table.c.outcome == wanted.outcome)


def _fold(rows: Iterable[Row[Any]], keys: int) -> dict[Any, Total]:
    totals: dict[Any, Total] = {}
    for row in rows:
        key = row[0] if keys == 1 else tuple(row[:keys]) or ""
        totals.setdefault(key, Total()).add(row[keys], [float(number) for number in row[keys + 1 :]])
    return totals
