"""The writer: nothing twice, nothing silently lost, and nobody waits for it."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, text

from gateway.config import DatabaseConfig
from gateway.record import GenerationRecord, Usage
from gateway.store.engine import Database, State
from gateway.store.records import BATCH, Fate, Records
from gateway.store.schema import requests
from tests.sockets import until
from tests.store.recorded import Fates, all_of, kept, numbered
from tests.telemetry.builders import record

Written = Callable[..., Awaitable[Fates]]


def writer(database: Database, fates: Fates, **options: Any) -> Records:
    """One that is not started."""
    return Records(database, "r", time.monotonic, time.time, counted=fates, **options)


@pytest.fixture
def written(database: Database) -> Written:
    """Hands records to a writer of its own, and lets it come to its end."""

    async def write(*records: GenerationRecord, **options: Any) -> Fates:
        fates = Fates()
        records_ = writer(database, fates, **options)
        for one in records:
            records_.put(one)
        records_.start()
        await records_.close(30.0)
        assert records_.depth == 0
        assert fates.total() == len(records)
        return fates

    return write


async def test_all_is_written(database: Database, written: Written) -> None:
    """The row of each, and its share in the sums, in batches."""
    assert await written(*numbered(2 * BATCH + 10)) == {Fate.WRITTEN: 2 * BATCH + 10}
    assert await kept(database) == all_of(2 * BATCH + 10, 3)


async def test_one_that_waits_can_be_looked_at(database: Database) -> None:
    """Until it is in the database, where it is the same."""
    records = writer(database, Fates())
    ended = numbered(BATCH + 2)
    ids = [one.id for one in ended]
    for one in ended:
        records.put(one)
    assert [row and row.id for row in map(records.waiting, (ids[0], ids[-1], "another"))] == [ids[0], ids[-1], None]
    waited = records.waiting(ids[-1])
    records.start()
    await records.close(30.0)
    assert records.waiting(ids[-1]) is None
    async with database.reading() as connection:
        assert (await connection.execute(select(requests).where(requests.c.id == ids[-1]))).one() == waited


async def test_a_batch_counts_once(database: Database, written: Written) -> None:
    """One that is written again, because nobody knew whether it had been, changes nothing."""
    records = numbered(BATCH)
    await written(*records)
    assert await written(*records) == {Fate.WRITTEN: BATCH}
    assert await kept(database) == all_of(BATCH, 1)


async def test_only_what_is_refused_is_dropped(
    database: Database, written: Written, caplog: pytest.LogCaptureFixture
) -> None:
    """Here two that are there already, among others that are not; the log names them."""
    records = numbered(100)
    await written(records[10], records[77])
    fates = await written(*records)
    assert fates == {Fate.WRITTEN: 98, Fate.DROPPED_POISON: 2}
    assert {**await kept(database), "batches": 0} == all_of(100, 0)
    lost = [message for message in caplog.messages if "dropped" in message]
    assert len(lost) == 2
    assert records[10].id in lost[0]


async def test_whatever_is_said_can_be_written(database: Database, written: Written) -> None:
    """No client and no host can make a database refuse a batch."""
    odd = numbered(
        1,
        requested_model="a\0b\ud800" * 200,
        model="\ud800\0m" * 200,
        reason="\0" * 900,
        usage=Usage(2**70, -1, load_seconds=float("nan")),
        bytes_in=2**80,
        chunks=2**40,
        attempts=(),
    )
    assert await written(*odd) == {Fate.WRITTEN: 1}
    assert await kept(database) == all_of(1, 1)


async def test_names_in_the_sums_are_the_callers(database: Database, written: Written) -> None:
    """What clients make up stays out of them; the row has it."""
    await written(*numbered(2, model="made-up:latest"), label=lambda _model: "_unknown")
    async with database.reading() as connection:
        models = "SELECT (SELECT min(model) FROM rollup_1m), (SELECT min(model) FROM requests)"
        assert tuple((await connection.execute(text(models))).one()) == ("_unknown", "made-up:latest")


async def test_only_sums_when_the_disk_is_nearly_full(database: Database) -> None:
    """They take next to nothing."""
    fates = Fates()
    records = writer(database, fates)
    records.sums_only = True
    for one in numbered(10):
        records.put(one)
    records.start()
    await records.close(30.0)
    assert fates == {Fate.SUMMED: 10}
    assert await kept(database) == all_of(10, 1) | {"rows": 0}


async def test_a_few_do_not_wait_for_many(database: Database) -> None:
    """They are written after half a second, whoever comes after them."""
    fates = Fates()
    records = writer(database, fates)
    records.start()
    for one in numbered(3):
        records.put(one)
    assert records.depth == 3
    await until(lambda: fates[Fate.WRITTEN] == 3)
    assert records.written_at is not None
    await records.close(5.0)


@pytest.fixture
async def away(tmp_path: Path) -> AsyncIterator[Database]:
    """A database that is not there, and nothing brings it back."""
    (tmp_path / "file").write_text("where a folder should be")
    database = Database(DatabaseConfig(f"sqlite:///{tmp_path}/file/corral.db"), time.monotonic)
    await database.start(5.0)
    yield database
    await database.close()


async def test_a_queue_that_is_full(away: Database, caplog: pytest.LogCaptureFixture) -> None:
    """The newest are dropped, counted, and told of in one line, not in one each; at the end the rest."""
    fates = Fates()
    records = writer(away, fates, capacity=100)
    records.start()
    for one in numbered(150):
        records.put(one)
    assert (records.depth, fates) == (100, {Fate.DROPPED_FULL: 50})
    await records.close(5.0)
    records.put(record())
    assert fates == {Fate.DROPPED_FULL: 50, Fate.DROPPED_SHUTDOWN: 101}
    assert (
        len([entry for entry in caplog.records if entry.levelno >= logging.WARNING and "dropped" in entry.message]) == 1
    )


async def test_the_log_says_when_it_is_over(database: Database, caplog: pytest.LogCaptureFixture) -> None:
    """With how many were dropped."""
    caplog.set_level(logging.INFO)
    fates = Fates()
    records = writer(database, fates, capacity=10)
    for one in numbered(12):
        records.put(one)
    records.start()
    await records.close(30.0)
    assert fates == {Fate.WRITTEN: 10, Fate.DROPPED_FULL: 2}
    assert "2 were dropped" in caplog.text


async def test_waiting_records_are_written_when_it_is_there(tmp_path: Path) -> None:
    """In their order, each once."""
    blocked = tmp_path / "folder"
    blocked.write_text("a file where the folder should be")
    database = Database(DatabaseConfig(f"sqlite:///{blocked}/corral.db"), time.monotonic)
    await database.start(5.0)
    fates = Fates()
    records = writer(database, fates)
    records.start()
    for one in numbered(BATCH + 1):
        records.put(one)
    running = asyncio.get_running_loop().create_task(database.run())
    blocked.unlink()
    await until(lambda: fates[Fate.WRITTEN] == BATCH + 1, 20.0)
    assert await kept(database) == all_of(BATCH + 1, 2)
    await records.close(5.0)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert database.state is State.UP
    await database.close()
