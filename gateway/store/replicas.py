"""The gateways that share a PostgreSQL: who is there, how many leases each holds on which host, and how one asks the others to stop something.

Once a second each writes what it holds and reads what the others hold, by the server's clock; what is older than STALE_SECONDS does not
count. It only ever makes a busy host look busy: no request waits for another gateway.

To stop something that runs elsewhere, a row says so, and a word on the bus with it; each of the others answers with how many it stopped. Who
could not hear the word reads the row when it listens again, and stops only what was there when it was asked.
"""

import asyncio
import contextlib
import itertools
import json
import logging
from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import Column, Integer, delete, literal_column, select
from sqlalchemy.dialects.postgresql import insert as upsert

from gateway.errors import StoreUnavailable
from gateway.store.bus import CHANNEL, Bus
from gateway.store.engine import Database
from gateway.store.schema import cancellations, replica_leases, replicas
from gateway.tasks import Tasks, pause

BEAT_SECONDS = 1.0
STALE_SECONDS = 5.0
FORGOTTEN_SECONDS = 60.0
ANSWER_SECONDS = 1.0
REMEMBERED = 10_000

log = logging.getLogger(__name__)
_NOW_US: Column[int] = literal_column("(extract(epoch FROM clock_timestamp()) * 1000000)::bigint", Integer)  # type: ignore[assignment]
Stop = Callable[[str, float, bool, str | None], int]

# In one go, as somebody waits: NOTIFY in a transaction that writes holds up others that do so too, but these are rare.
_ASK = """WITH asked AS (
    INSERT INTO cancellations (target, erased, asked_by, whose, asked_us)
    VALUES ($1, $2, $3, $6, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint) RETURNING *)
SELECT pg_notify($5, json_build_object('cancel', target, 'erased', erased, 'whose', whose, 'by', asked_by, 'number', id, 'key', $4::text)::text)
FROM asked"""
TARGET_MOST = 128


class Replicas:
    """``run`` and ``bus.run`` as tasks. ``name`` is this gateway's.

    ``stop(target, seconds, erased, whose)`` stops what runs here under an id and is at least so old, and tells how much that was (``erased``: nobody
    may read what it said any more; ``whose``: of that principal alone); ``leases()`` are this gateway's by
    host; ``elsewhere`` is handed the sums of the others'.
    """

    def __init__(
        self,
        database: Database,
        name: str,
        stop: Stop,
        leases: Callable[[], Mapping[str, int]],
        elsewhere: Callable[[Mapping[str, int]], None],
        tasks: Tasks,
    ) -> None:
        self.name = name
        self.others: frozenset[str] = frozenset()
        self.bus = Bus(database.direct, name, self._heard, self._read_again)
        self._database = database
        self._stop = stop
        self._leases = leases
        self._elsewhere = elsewhere
        # Cancellations that were seen to, oldest first, and how much each stopped. A server that crashed may give a number once more.
        self._done: dict[tuple[int, str], int] = {}
        self._keys = itertools.count()
        self._asking: dict[str, dict[str, int]] = {}  # cancellation → who has answered, and how many each stopped
        self._answered = asyncio.Event()
        self._tasks = tasks

    # -- who is there, and how busy --------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Tell and be told, every second, for ever."""
        beats = 0
        while True:
            with contextlib.suppress(StoreUnavailable):  # the database says so itself, once
                await self.beat()
                if beats % int(FORGOTTEN_SECONDS / BEAT_SECONDS) == 0:
                    await self._forget()
                beats += 1
            await pause(BEAT_SECONDS)

    async def beat(self) -> None:
        """Write what is held here, read what is held elsewhere. Raises StoreUnavailable: also where a server has fallen silent, which
        else only a gateway with requests to keep would notice soon."""
        held = {host: count for host, count in self._leases().items() if count}
        recent = _NOW_US - int(STALE_SECONDS * 1e6)
        async with self._database.writing(STALE_SECONDS) as connection:
            row = {"id": self.name, "started_us": _NOW_US, "seen_us": _NOW_US}
            seen = upsert(replicas).values(row)
            await connection.execute(seen.on_conflict_do_update(index_elements=["id"], set_={"seen_us": _NOW_US}))
            await connection.execute(
                delete(replica_leases).where(replica_leases.c.replica == self.name, replica_leases.c.host.not_in(held))
            )
            if held:
                mine = upsert(replica_leases).values(
                    [
                        {"replica": self.name, "host": host, "leases": held[host], "seen_us": _NOW_US}
                        for host in sorted(held)
                    ]
                )
                update = {"leases": mine.excluded.leases, "seen_us": _NOW_US}
                await connection.execute(mine.on_conflict_do_update(index_elements=["replica", "host"], set_=update))
            others = await connection.execute(
                select(replicas.c.id).where(replicas.c.id != self.name, replicas.c.seen_us > recent)
            )
            self.others = frozenset(others.scalars())
            theirs = await connection.execute(
                select(replica_leases.c.host, replica_leases.c.leases).where(
                    replica_leases.c.replica.in_(self.others), replica_leases.c.seen_us > recent
                )
            )
            sums: dict[str, int] = {}
            for host, count in theirs:
                sums[host] = sums.get(host, 0) + count
        self._elsewhere(sums)

    async def leave(self) -> None:
        """Take this gateway off the lists, if that is possible: the others need not wait until it is stale."""
        with contextlib.suppress(StoreUnavailable):
            async with self._database.writing() as connection:
                await connection.execute(delete(replica_leases).where(replica_leases.c.replica == self.name))
                await connection.execute(delete(replicas).where(replicas.c.id == self.name))

    async def _forget(self) -> None:
        before = _NOW_US - int(FORGOTTEN_SECONDS * 1e6)
        async with self._database.writing() as connection:
            for table, column in (
                (replica_leases, replica_leases.c.seen_us),
                (replicas, replicas.c.seen_us),
                (cancellations, cancellations.c.asked_us),
            ):
                await connection.execute(delete(table).where(column < before))

    # -- stopping what runs elsewhere ------------------------------------------------------------------------------------------

    async def cancel(self, target: str, *, erased: bool = False, whose: str | None = None) -> int:
        """Ask the others to stop ``target`` (of one principal, or of all); how many generations they stopped. Raises StoreUnavailable if one cannot be asked.

        What another one has been asked and does not answer in ANSWER_SECONDS, it still does once it can.
        """
        if (not self.others and self._database.up) or not _can_be_told(target):
            return 0
        key = f"{self.name} {next(self._keys)}"
        answers = self._asking[key] = {}
        try:
            await self.bus.write(_ASK, target, erased, self.name, key, CHANNEL, whose)
            async with asyncio.timeout(ANSWER_SECONDS):
                while not self.others <= answers.keys():
                    self._answered.clear()
                    await self._answered.wait()
        except TimeoutError:
            silent = ", ".join(sorted(self.others - answers.keys()))
            log.warning("asked to stop %s; no answer from %s in %g s", target, silent, ANSWER_SECONDS)
        finally:
            del self._asking[key]
        return sum(answers.values())

    def _heard(self, word: str) -> None:
        said: dict[str, Any] = json.loads(word)
        if "stopped" in said:
            if (answers := self._asking.get(said["key"])) is not None:
                answers[said["by"]] = said["stopped"]
                self._answered.set()
        elif said["by"] != self.name:
            count = self._see_to(said["number"], said["cancel"], 0.0, erased=said["erased"], whose=said.get("whose"))
            self._answer({"stopped": count, "key": said["key"], "by": self.name})

    def _answer(self, said: dict[str, Any]) -> None:
        self._tasks.spawn("answer to a cancellation", self._said(json.dumps(said)))

    async def _said(self, word: str) -> None:
        with contextlib.suppress(StoreUnavailable):  # whoever asked stops waiting soon
            await self.bus.say(word)

    async def _read_again(self) -> None:
        """Words may have been lost: see to what was asked meanwhile."""
        age = (_NOW_US - cancellations.c.asked_us) / 1e6
        columns = (
            cancellations.c.id,
            cancellations.c.target,
            age.label("age"),
            cancellations.c.erased,
            cancellations.c.whose,
        )
        wanted = select(*columns).where(cancellations.c.asked_by != self.name, age < FORGOTTEN_SECONDS)
        try:
            async with self._database.reading() as connection:
                rows = (await connection.execute(wanted.order_by(cancellations.c.id))).all()
        except StoreUnavailable as error:
            raise TimeoutError(error.message) from error  # then the bus is no use either, and tries again
        for number, target, seconds, erased, whose in rows:
            self._see_to(number, target, float(seconds), erased=erased, whose=whose)

    def _see_to(self, number: int, target: str, seconds: float, *, erased: bool, whose: str | None) -> int:
        """Once each. ``seconds``: how long ago it was asked."""
        if (number, target) not in self._done:
            self._done[number, target] = self._stop(target, seconds, erased, whose)
            while len(self._done) > REMEMBERED:
                del self._done[next(iter(self._done))]
        return self._done[number, target]


def _can_be_told(target: str) -> bool:
    """Whether PostgreSQL takes it. A session's word that it does not take is known to its own gateway alone."""
    return len(target) <= TARGET_MOST and "\0" not in target and target.isprintable()
