"""Which hosts drain: an operator's word, which outlives the gateway and reaches the others on the same PostgreSQL within a second.

What is asked counts here at once. Its row is written as soon as that is possible, dated back to when it was asked: of two who disagree,
whoever asked last is right, even if one of them could not write just then. A host that is not there may drain too: it may come back.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from sqlalchemy import Select, delete, literal_column, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.errors import StoreUnavailable
from gateway.store.bulk import INSERTS
from gateway.store.none import Store
from gateway.store.schema import host_states
from gateway.tasks import pause

BEAT_SECONDS = 1.0
HOSTS_LIMIT = 1000  # of which something is kept, those among them that are not there now
ATTEMPT_SECONDS = 5.0
KEPT_SECONDS = 1.0  # how long an operator waits for the row

log = logging.getLogger(__name__)
_CLOCK_US: Select[Any] = select(literal_column("(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"))


class Ask(NamedTuple):
    """What an operator wants of a host, since when (by the gateway's clock), and who waits until it is written."""

    draining: bool
    since: float
    waiting: tuple[asyncio.Event, ...]


class Draining:
    """``run`` as a task, where there is a database. ``tell`` is handed the names of all hosts that drain, whenever these are others."""

    def __init__(self, database: Store, clock: Callable[[], float], tell: Callable[[frozenset[str]], None]) -> None:
        self.hosts: frozenset[str] = frozenset()
        self._database = database
        self._clock = clock
        self._tell = tell
        self._asks: dict[str, Ask] = {}  # that are not written yet, by host
        self._kept: frozenset[str] = frozenset()
        self._asked = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Draining [{', '.join(sorted(self.hosts)) or 'none'} | {len(self._asks)} not written]>"

    async def drain(self, host: str, *, draining: bool) -> bool:
        """From now on this host drains, or does not; whether that is written. If it is not (yet), it will be as soon as it can."""
        written, up = asyncio.Event(), self._database.up
        before = self._asks.pop(host).waiting if host in self._asks else ()
        self._asks[host] = Ask(draining, self._clock(), (*before, written) if up else ())
        if len(self._asks) > HOSTS_LIMIT:
            del self._asks[next(iter(self._asks))]
        self._asked.set()
        self._settle("as an operator asks")
        return up and await pause(KEPT_SECONDS, written)

    async def start(self, seconds: float) -> None:
        """What is kept, before anything is sent anywhere; if the database does not tell it in this time, it counts as soon as it does."""
        try:
            async with asyncio.timeout(seconds):
                await self.look()
        except (StoreUnavailable, TimeoutError):
            log.warning("which hosts were draining is not known until the database is there")

    async def run(self) -> None:
        """Write and read, every second and whenever something is asked, for ever."""
        while True:
            self._asked.clear()
            try:
                await self.look()
            except StoreUnavailable:  # the database says so itself, once
                await pause(BEAT_SECONDS)
                continue
            await pause(BEAT_SECONDS, self._asked)

    async def look(self) -> None:
        """Write what was asked here, then take what stands there. Raises StoreUnavailable."""
        asks = dict(self._asks)
        async with self._database.writing(ATTEMPT_SECONDS) if asks else self._database.reading() as connection:
            if asks:
                await self._write(connection, asks)
            rows = await connection.execute(select(host_states.c.host).where(host_states.c.draining))
            self._kept = frozenset(rows.scalars())
        for host, ask in asks.items():
            for written in ask.waiting:
                written.set()
            if self._asks.get(host) is ask:
                del self._asks[host]
        self._settle("as was asked before, or elsewhere")

    async def _write(self, connection: AsyncConnection, asks: Mapping[str, Ask]) -> None:
        """Unless somebody asked for something else later; a row from the future is one of a clock that was set back."""
        now_us = int(time.time() * 1e6) if self._database.sqlite else (await connection.execute(_CLOCK_US)).scalar_one()
        for host, ask in sorted(asks.items()):
            asked_us = now_us - int((self._clock() - ask.since) * 1e6)
            row = {"host": host, "draining": ask.draining, "updated_us": asked_us}
            there = host_states.c.updated_us
            upsert = INSERTS[connection.dialect.name](host_states).values(row)
            older = or_(there <= asked_us, there > now_us)
            await connection.execute(upsert.on_conflict_do_update(index_elements=["host"], set_=row, where=older))

        newest = select(host_states.c.host).order_by(host_states.c.updated_us.desc()).limit(HOSTS_LIMIT)
        await connection.execute(delete(host_states).where(host_states.c.host.not_in(newest)))

    def _settle(self, why: str) -> None:
        asked = {host for host, ask in self._asks.items() if ask.draining}
        hosts = frozenset(self._kept.difference(self._asks) | asked)
        before, self.hosts = self.hosts, hosts
        for host in sorted(hosts - before):
            log.info("host %s is draining, %s", host, why)
        for host in sorted(before - hosts):
            log.info("host %s takes requests again, %s", host, why)
        if hosts != before:
            self._tell(hosts)
