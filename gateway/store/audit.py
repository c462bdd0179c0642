"""Who did what that changes models, hosts or keys: a line in the log at once, a row as soon as that is possible. Nobody waits for it."""

import asyncio
import contextlib
import itertools
import logging
from collections import deque
from typing import NamedTuple

from sqlalchemy import insert, select

from gateway.errors import StoreUnavailable
from gateway.store.entries import text
from gateway.store.none import NoDatabase, Store
from gateway.store.schema import audit
from gateway.tasks import pause

WAITING_MOST = 1000
BATCH = 100
AGAIN_SECONDS = 1.0
CLOSE_SECONDS = 2.0
_TEXTS = {"principal": 128, "role": 16, "client": 64, "operation": 64, "target": 256}

log = logging.getLogger(__name__)


class Deed(NamedTuple):
    """``at``: Unix seconds; ``principal`` and ``role`` are empty without a key, ``client`` (the address) on the command line; ``status``: the answer's."""

    at: float
    principal: str
    role: str
    client: str
    operation: str  # like `POST /api/pull`
    target: str  # what it was done to
    status: int


class Audit:
    """``put`` is told of each; ``run`` as a task, where there is a database."""

    def __init__(self, database: Store) -> None:
        self._database = database
        self._kept = not isinstance(database, NoDatabase)
        self._waiting: deque[Deed] = deque()
        self._came = asyncio.Event()
        self._turn = asyncio.Lock()

    def put(self, deed: Deed) -> None:
        """Say it, and keep it. What comes while WAITING_MOST could not be written yet is only in the log."""
        log.info(
            "%s from %s: %s: %d",
            f"{deed.principal} ({deed.role})" if deed.principal else "somebody without a key",
            deed.client or "the command line",
            f"{deed.operation} {text(deed.target, _TEXTS['target'])}".rstrip(),
            deed.status,
        )
        if self._kept and len(self._waiting) < WAITING_MOST:
            self._waiting.append(deed)
            self._came.set()

    async def run(self) -> None:
        """Write what comes, for ever."""
        while True:
            await self._came.wait()
            try:
                await self.write()
            except StoreUnavailable:  # the database says so itself, once
                await pause(AGAIN_SECONDS)

    async def write(self) -> None:
        """Write what waits. Raises StoreUnavailable."""
        async with self._turn:
            self._came.clear()
            while self._waiting:
                batch = list(itertools.islice(self._waiting, BATCH))
                try:
                    async with self._database.writing() as connection:
                        await connection.execute(insert(audit), [_row(deed) for deed in batch])
                except StoreUnavailable:
                    self._came.set()
                    raise
                for _ in batch:
                    self._waiting.popleft()

    async def close(self) -> None:
        """Write what waits, if that is possible soon."""
        with contextlib.suppress(StoreUnavailable, TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await self.write()

    async def page(self, before: int | None, limit: int) -> list[tuple[int, Deed]]:
        """With their numbers, the newest first; those before a number. Raises StoreUnavailable."""
        wanted = select(audit).order_by(audit.c.id.desc()).limit(limit)
        async with self._database.reading() as connection:
            rows = (await connection.execute(wanted if before is None else wanted.where(audit.c.id < before))).all()
        return [(row.id, Deed(row.at_us / 1e6, *row[2:])) for row in rows]


def _row(deed: Deed) -> dict[str, object]:
    texts = {name: text(str(getattr(deed, name)), length) for name, length in _TEXTS.items()}
    return {"at_us": int(deed.at * 1e6), "status": deed.status, **texts}
