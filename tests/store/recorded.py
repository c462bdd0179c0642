"""Short ways to records in a row, and to what the database made of them."""

import itertools
import sqlite3
from collections import Counter
from pathlib import Path
from typing import Any

from sqlalchemy import func, select

from gateway.record import GenerationRecord
from gateway.store.engine import Database
from gateway.store.records import Fate
from gateway.store.schema import ingest_batches, requests, rollup_1h, rollup_1m
from tests.sockets import until
from tests.telemetry.builders import record

NOW = 1_795_354_500.0
"""Unix seconds: a minute begins, 35 of the hour are over."""

_numbers = itertools.count()


def numbered(count: int, **changes: Any) -> list[GenerationRecord]:
    """Records that differ in their id and, by a millisecond each, in their time."""
    return [
        record(**({"id": f"{next(_numbers):024x}", "received_at": NOW + number / 1000} | changes))
        for number in range(count)
    ]


def file_of(url: str) -> Path:
    """Of an SQLite database."""
    return Path(url.removeprefix("sqlite:///"))


async def hold(path: Path) -> sqlite3.Connection:
    """Another process's hold on a file: nobody writes until its ROLLBACK. Not waited for in SQLite, which would hold up who has it."""
    other = sqlite3.connect(path, isolation_level=None, timeout=0)

    def held() -> bool:
        try:
            other.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return False
        return True

    await until(held, 20.0)
    return other


class Fates(Counter[str]):
    """What became of records, as the writer tells it."""

    def __call__(self, fate: Fate, number: int) -> None:
        self[fate] += number


async def kept(database: Database) -> dict[str, int]:
    """How many rows there are, how many requests the sums have, how many batches the ledger."""
    async with database.reading() as connection:
        counts = {
            "rows": select(func.count()).select_from(requests),
            "minutes": select(func.coalesce(func.sum(rollup_1m.c.n), 0)),
            "hours": select(func.coalesce(func.sum(rollup_1h.c.n), 0)),
            "batches": select(func.count()).select_from(ingest_batches),
        }
        return {name: int((await connection.execute(query)).scalar_one()) for name, query in counts.items()}


def all_of(count: int, batches: int) -> dict[str, int]:
    """What ``kept`` says of so many records, all stored once."""
    return {"rows": count, "minutes": count, "hours": count, "batches": batches}
