"""Who did what: written down in its order, also what was done while the database was away, and never too much of it."""

import asyncio
import logging

import pytest

from gateway.errors import StoreUnavailable
from gateway.store.audit import WAITING_MOST, Audit, Deed
from gateway.store.engine import Database
from gateway.store.none import NoDatabase
from gateway.tasks import Tasks

PULL = Deed(1_800_000_000.25, "ann", "operator", "10.0.0.1", "POST /api/pull", "llama3", 200)
MADE = Deed(1_800_000_001.0, "", "", "", "corral keys create", "ann", 200)


async def test_it_is_kept_as_it_was(database: Database) -> None:
    """The newest first, page by page."""
    audit = Audit(database)
    audit.put(PULL)
    audit.put(MADE)
    await audit.write()
    ((second, made),) = await audit.page(None, 1)
    ((_, pulled),) = await audit.page(second, 5)
    assert (made, pulled) == (MADE, PULL)


async def test_it_is_written_as_it_comes(database: Database, caplog: pytest.LogCaptureFixture) -> None:
    """By a task; the log has it at once. What would not fit a column is cut."""
    audit, tasks = Audit(database), Tasks()
    tasks.spawn("audit", audit.run())
    with caplog.at_level(logging.INFO):
        audit.put(PULL._replace(target="x\0" * 500))
        assert "ann (operator) from 10.0.0.1: POST /api/pull xxx" in caplog.text
        audit.put(MADE)
        assert "somebody without a key from the command line: corral keys create ann: 200" in caplog.text
    async with asyncio.timeout(5.0):
        while len(rows := await audit.page(None, 5)) < 2:
            pass
    assert rows[1][1].target == "x" * 256
    await tasks.close()


async def test_what_came_last_is_written_at_the_end(database: Database) -> None:
    """More than fits into one statement, in its order."""
    audit = Audit(database)
    for number in range(250):
        audit.put(PULL._replace(target=str(number)))
    await audit.close()
    assert [deed.target for _, deed in await audit.page(None, 3)] == ["249", "248", "247"]


async def test_without_a_database() -> None:
    """It stands in the log alone, and nothing piles up."""
    audit = Audit(NoDatabase())
    for _ in range(2 * WAITING_MOST):
        audit.put(PULL)
    await audit.close()
    with pytest.raises(StoreUnavailable):
        await audit.page(None, 1)
