"""Writes what generations leave behind them, a little after the fact: nobody waits for it, and what is lost is counted.

A record is handed in by ``put`` and waits in a bounded queue. Batches go out when BATCH of them wait, or after FLUSH_SECONDS; in one
transaction with each go its name (the ledger) and its share of the sums. What becomes of a batch:

1. it is stored: counted as written;
2. the database is not there, locked, full or slow: the same batch is tried again, later each time. If it was stored after all and only
   the word of it was lost, its name is in the ledger, and it counts once;
3. the database refuses a row: halves are tried, and halves of halves; the one row is dropped.
"""

import asyncio
import logging
import random
from collections import deque
from collections.abc import Callable, Sequence
from enum import StrEnum
from itertools import islice

from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError

from gateway.errors import StoreUnavailable
from gateway.record import GenerationRecord
from gateway.store import bulk
from gateway.store.engine import REFUSED, TELL_AGAIN_SECONDS, Database, State
from gateway.store.entries import Entry, Row, hours, minutes, ordered, row
from gateway.store.entries import text as clean_text
from gateway.store.schema import requests, rollup_1h, rollup_1m
from gateway.tasks import Tasks, pause

CAPACITY = 50_000  # about 100 MB at most
MODEL_LENGTH = 256
BATCH = 500  # more at a time would hold up streams
FLUSH_SECONDS = 0.5
ATTEMPT_SECONDS = 5.0
RETRY_SECONDS, RETRY_MOST_SECONDS = 0.25, 10.0
_POISON = (*REFUSED, UnicodeEncodeError, OverflowError)
_LEDGER = text("INSERT INTO ingest_batches (id, at_us) VALUES (:id, :at_us) ON CONFLICT DO NOTHING")

log = logging.getLogger(__name__)


class Fate(StrEnum):
    """What became of a record. They add up to all that were handed in."""

    WRITTEN = "written"
    SUMMED = "summed"  # only in the sums: the disk is nearly full
    DROPPED_FULL = "dropped_full"
    DROPPED_POISON = "dropped_poison"
    DROPPED_SHUTDOWN = "dropped_shutdown"


class Records:
    """The writer. ``start`` once; ``put`` from the event loop's thread; ``close`` at the end.

    ``label``: a model's name in the sums; ``counted``: told of each fate and how many; ``flushed``: seconds of each transaction.
    """

    def __init__(
        self,
        database: Database,
        replica: str,
        clock: Callable[[], float],
        wall: Callable[[], float],
        *,
        label: Callable[[str], str] = str,
        counted: Callable[[Fate, int], None] = lambda _fate, _number: None,
        flushed: Callable[[float], None] = lambda _seconds: None,
        capacity: int = CAPACITY,
    ) -> None:
        self._database = database
        self._replica = replica
        self._clock, self._wall = clock, wall
        self._label, self._counted, self._flushed = label, counted, flushed
        self.capacity = capacity
        self.sums_only = False  # set by who watches the disk
        self.written_at: float | None = None  # Unix seconds of the last good transaction
        self._queue: deque[Entry] = deque()
        self._parts: list[list[Entry]] = []  # the batch that is being written, the next part last
        self._full = asyncio.Event()  # BATCH wait, or no more will come
        self._closing = False
        self._dropped = 0
        self._told_at: float | None = None  # when the log had a line of records that are being dropped
        self._tasks = Tasks()
        self._running: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<Records [{self.depth} of {self.capacity} waiting]>"

    @property
    def depth(self) -> int:
        """How many wait, those included that are being written."""
        return len(self._queue) + sum(map(len, self._parts))

    def put(self, record: GenerationRecord) -> None:
        """Take one in. Never waits; the newest are dropped while the queue is full."""
        if len(self._queue) >= self.capacity or self._closing:
            self._drop(Fate.DROPPED_SHUTDOWN if self._closing else Fate.DROPPED_FULL, 1)
            return
        self._queue.append(Entry(row(record, self._replica), clean_text(self._label(record.model), MODEL_LENGTH)))
        if len(self._queue) >= BATCH:
            self._full.set()

    def waiting(self, id_: str) -> Row | None:
        """The row of a request that ended just now and is not written yet."""
        parts = (self._queue, *self._parts)
        return next((entry.row for part in parts for entry in part if entry.row.id == id_), None)

    def start(self) -> None:
        """Begin to write."""
        self._running = self._tasks.spawn("records", self._run())

    async def close(self, seconds: float) -> None:
        """Write what waits, for so long at most, if the database is there; what is left is dropped and counted."""
        self._closing = True
        self._full.set()
        if self._running is not None and self._database.state is State.UP:
            await asyncio.wait((self._running,), timeout=seconds)
        await self._tasks.close()
        if left := self.depth:
            self._queue.clear()
            self._parts.clear()
            self._drop(Fate.DROPPED_SHUTDOWN, left)
            log.warning("%d records of requests were not written before the end", left)

    # -- writing ---------------------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        while not self._closing or self._queue:
            if not self._closing:
                await pause(FLUSH_SECONDS, self._full)
            while self._queue:
                self._take()
                await self._store()
                if len(self._queue) < BATCH and not self._closing:
                    break
            if not self._closing:
                self._full.clear()

    def _take(self) -> None:
        size = min(BATCH, len(self._queue))
        self._parts.append(list(islice(self._queue, size)))
        for _ in range(size):
            self._queue.popleft()

    async def _store(self) -> None:
        """Until nothing is left of the batch."""
        seconds = RETRY_SECONDS
        while self._parts:
            part = self._parts[-1]
            try:
                await self._write(part)
            except (StoreUnavailable, ProgrammingError) as error:
                if isinstance(error, ProgrammingError):
                    log.error("records wait: a table is not as it should be: %s", error.orig)  # noqa: TRY400 - its words say it
                await pause(seconds * (0.75 + random.random() / 2))
                await self._database.until_up()
                seconds = min(RETRY_MOST_SECONDS, 2 * seconds)
            except _POISON as error:
                self._parts.pop()
                self._split(part, error)
            else:
                self._parts.pop()
                seconds = RETRY_SECONDS

    async def _write(self, part: Sequence[Entry]) -> None:
        began, sums_only = self._clock(), self.sums_only
        of_minutes = minutes(part)
        async with self._database.writing(ATTEMPT_SECONDS) as connection:
            name = {"id": batch_name(part), "at_us": int(self._wall() * 1e6)}
            if (await connection.execute(_LEDGER, name)).rowcount:
                if not sums_only:
                    await bulk.insert(connection, requests, [entry.row for entry in part])
                await bulk.add(connection, rollup_1m, ordered(of_minutes))
                await bulk.add(connection, rollup_1h, ordered(hours(of_minutes)))
        self._flushed(self._clock() - began)
        self._counted(Fate.SUMMED if sums_only else Fate.WRITTEN, len(part))
        self.written_at = self._wall()
        if self._told_at is not None and len(self._queue) < self.capacity // 2:
            self._told_at = None
            log.info("records of requests are taken in again; %d were dropped so far", self._dropped)

    def _split(self, part: list[Entry], error: BaseException) -> None:
        if len(part) > 1:
            middle = len(part) // 2
            self._parts += [part[middle:], part[:middle]]
            return
        log.warning("the record of %s is dropped: the database refuses it (%s)", part[0].row.id, type(error).__name__)
        self._drop(Fate.DROPPED_POISON, 1)

    def _drop(self, fate: Fate, number: int) -> None:
        self._counted(fate, number)
        if fate is not Fate.DROPPED_FULL:
            return
        self._dropped += number
        now = self._clock()
        if self._told_at is None or now - self._told_at >= TELL_AGAIN_SECONDS:
            self._told_at = now
            log.warning("%d wait to be written: records of requests are dropped, %d so far", self.depth, self._dropped)


def batch_name(part: Sequence[Entry]) -> str:
    """The same for the same rows in the same order, whoever tries to write them."""
    return f"{part[0].row.id[:28]}-{part[-1].row.id[:28]}-{len(part)}"
