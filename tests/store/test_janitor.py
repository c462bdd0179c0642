"""The house is kept by the hour, and the disk is watched."""

import logging
import random
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from gateway.messages import NewSession
from gateway.store.engine import Database
from gateway.store.janitor import ROUND_SECONDS, Janitor
from gateway.store.records import Records
from gateway.store.session_store import SessionStore
from gateway.store.space import GIB, Usage
from tests.store.recorded import NOW, kept, numbered
from tests.store.test_retention import CONFIG, DAY, write

Made = Callable[..., Janitor]


class Desk:
    """A janitor, and what it is told and tells."""

    def __init__(self, database: Database) -> None:
        self.deleted: Counter[str] = Counter()
        self.now = 1000.0
        self.free = 50 * GIB
        self.records = Records(database, "r", time.monotonic, lambda: NOW)
        self.janitor = Janitor(
            database, CONFIG, self.records, lambda: self.now, lambda: NOW, self._count, lambda _folder: self._usage()
        )

    @property
    def reserve(self) -> bool:
        """Whether it is there."""
        assert self.janitor.space is not None
        return self.janitor.space.reserve.exists()

    def _count(self, table: str, rows: int) -> None:
        self.deleted[table] += rows

    def _usage(self) -> Usage:
        return Usage(100 * GIB, 100 * GIB - int(self.free), int(self.free))


async def test_sessions_that_nobody_restored(database: Database) -> None:
    """Are erased when they are due, not by the hour."""
    desk, store = Desk(database), SessionStore(database, lambda: NOW - 60, random.Random(1))
    session = await store.sessions.create("me", NewSession())
    await desk.janitor.step()
    await store.sessions.delete("me", session.id, 61)
    await desk.janitor.step()
    assert desk.deleted == {}
    await store.sessions.delete("me", session.id, 59)
    await desk.janitor.step()
    assert desk.deleted == {"sessions": 1}


async def test_a_round_an_hour(database: Database) -> None:
    """The first one at once."""
    desk = Desk(database)
    await write(database, numbered(3, received_at=NOW - 9 * DAY))
    await write(database, numbered(2, received_at=NOW - DAY))
    await desk.janitor.step()
    assert desk.deleted == {"requests": 3}
    assert desk.janitor.oldest_at == pytest.approx(NOW - DAY)
    await write(database, numbered(1, received_at=NOW - 9 * DAY))
    desk.now += ROUND_SECONDS - 1
    await desk.janitor.step()
    assert desk.deleted == {"requests": 3}
    desk.now += 1
    await desk.janitor.step()
    assert desk.deleted == {"requests": 4}
    assert (await kept(database))["rows"] == 2


@pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
async def test_a_disk_that_fills_up(database: Database, caplog: pytest.LogCaptureFixture) -> None:
    """Requests leave only sums when room is scarce, until there is ample room again; each change is one line."""
    caplog.set_level(logging.INFO)
    desk = Desk(database)
    told: list[tuple[float, bool, bool]] = []
    for gib in (50, 4, 0.5, 0.5, 4, 50):
        desk.free = gib * GIB
        await desk.janitor.step()
        told.append((gib, desk.records.sums_only, desk.reserve))
    assert told == [
        (50, False, True),
        (4, False, True),
        (0.5, True, False),
        (0.5, True, False),
        (4, True, False),
        (50, False, True),
    ]
    said: list[Any] = [message for message in caplog.messages if "disk" in message]
    assert [("nearly full" in message, "fills up" in message, "room again" in message) for message in said] == [
        (False, True, False),
        (True, False, False),
        (False, False, True),
    ]


@pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
async def test_a_full_disk_is_cleaned_at_once(database: Database) -> None:
    """The next round is not waited for."""
    desk = Desk(database)
    await desk.janitor.step()
    await write(database, numbered(1, received_at=NOW - 9 * DAY))
    desk.free = 0
    await desk.janitor.step()
    assert desk.deleted == {"requests": 1}
