"""Records that wait are written before the end, and nothing is left running."""

import asyncio
import time
from collections.abc import Callable

from gateway.config import DatabaseConfig
from gateway.store.engine import Database, State
from gateway.store.keeper import Keeper
from gateway.store.measured import Measurements
from gateway.store.records import Fate
from tests.store.recorded import Fates, all_of, kept, numbered


def keeper(url: str, fates: Fates) -> Keeper:
    """One that is not started."""
    config = DatabaseConfig(url)
    database = Database(config, time.monotonic)
    nothing = Measurements(database, time.monotonic, list, list, list)
    told = {"counted": fates, "flushed": lambda _seconds: None, "deleted": lambda _table, _rows: None}
    return Keeper(database, config, "r", time.monotonic, time.time, label=str, measurements=nothing, **told)


async def test_what_waits_is_written_before_the_end(url: str, database: Database) -> None:
    """However short the time was."""
    fates = Fates()
    made = keeper(url, fates)
    await made.start(30.0)
    for one in numbered(700):
        made.put(one)
    await made.close()
    assert fates == {Fate.WRITTEN: 700}
    assert {**await kept(database), "batches": 0} == all_of(700, 0)
    assert [task.get_name() for task in asyncio.all_tasks() if task.get_name() in ("database", "records")] == []


async def test_an_end_without_the_database(fresh_url: Callable[[], str]) -> None:
    """Does not wait for it: what is left is counted."""
    fates = Fates()
    made = keeper(fresh_url(), fates)
    made.records.start()
    for one in numbered(3):
        made.put(one)
    assert made.database.state is State.DOWN
    await made.close()
    assert fates == {Fate.DROPPED_SHUTDOWN: 3}
