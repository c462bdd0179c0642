"""A gateway that relays, and gets a thousand records a second more than it makes, while its database fares ill; and the account at the end."""

import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator

from gateway.app import Gateway
from gateway.record import GenerationRecord
from gateway.store.engine import Database, State
from gateway.store.records import Fate, Records
from gateway.tasks import Tasks, pause
from tests.builders import call, simulated
from tests.conftest import Corral
from tests.contract.raw import ask
from tests.sockets import until
from tests.store.lag import LIMIT_SECONDS, Lag
from tests.store.recorded import kept, numbered

PER_SECOND = 1000
TICK_SECONDS = 0.01
ANSWERS = 5  # during a storm, at least
CATCHING_UP = 50  # records at once, where the test itself has held up the loop
CALM_SECONDS = 0.5
TIMES = 3
"""How much later than in calm weather, without a record, the loop may be, where even that is beyond LIMIT_SECONDS."""


class Storm:
    """Puts records from its start to its end, and asks for answers, one after the other. ``fates`` are as /metrics has them."""

    def __init__(self, gateway: Gateway) -> None:
        assert gateway.database is not None
        assert gateway.keeper is not None
        self.database: Database = gateway.database
        self.records: Records = gateway.keeper.records
        self.put = self.blown = 0
        self.answers: Counter[int] = Counter()
        self.lag = Lag()
        self._gateway = gateway
        self._tasks = Tasks()

    @property
    def fates(self) -> Counter[str]:
        """What became of how many records."""
        counters = self._gateway.metrics.db_records
        return Counter({fate: int(value) for fate in Fate if (value := counters.labels(fate).value)})

    def start(self) -> None:
        """It blows."""
        self._tasks.spawn("storm", self._blow())

    async def calm(self) -> float:
        """How late the loop is before, with somebody who asks: a 99th percentile in seconds. From now on both go on."""
        self._tasks.spawn("lag", self.lag.run())
        self._tasks.spawn("client", self._ask())
        await pause(CALM_SECONDS)
        await until(lambda: self.lag.enough)
        return self.lag.told()

    async def _blow(self) -> None:
        began = time.monotonic()
        while True:
            await pause(TICK_SECONDS)
            due = int((time.monotonic() - began) * PER_SECOND) - self.blown
            self.blown += min(due, CATCHING_UP)
            for one in numbered(min(due, CATCHING_UP), received_at=time.time()):
                self.give(one)

    async def _ask(self) -> None:
        while True:
            one = call("/api/chat", tokens=3, stream=bool(self.answers.total() % 2))
            answer = await ask(self._gateway.url, "POST", one.path, one.body, one.headers)
            assert b'"done":true' in answer.body, answer
            self.answers[answer.status] += 1
            await pause(TICK_SECONDS)

    def give(self, record: GenerationRecord) -> None:
        """One more."""
        self.records.put(record)
        self.put += 1

    async def blow(self, seconds: float) -> None:
        """For so long."""
        await pause(seconds)

    async def written(self, more: int = 1) -> None:
        """Until so many more are."""
        enough = self.fates["written"] + more
        await until(lambda: self.fates["written"] >= enough, 30.0)

    async def over(self) -> None:
        """It blows no more, and nobody asks."""
        await self._tasks.close()
        assert self._tasks.failures == 0

    async def settled(self, requests: int) -> None:
        """Once the database is there again: what was put in, and what ``requests`` left, is accounted for; what was written is there, once."""
        await until(lambda: self.database.state is State.UP and not self.records.depth, 30.0)
        assert self.fates.total() == self.put + requests
        found = await kept(self.database)
        assert found["rows"] == found["minutes"] == found["hours"] == self.fates["written"]


@contextlib.asynccontextmanager
async def storm(corral: Corral, url: str, capacity: int | None = None) -> AsyncIterator[Storm]:
    """A storm that has begun. Whatever befalls the database then, every answer is whole, and the loop is hardly later for it."""
    stage = await corral(simulated(), database={"url": url})
    wind = Storm(stage.gateway)
    wind.records.capacity = capacity or wind.records.capacity
    try:
        calm = await wind.calm()
        wind.start()
        before = wind.answers.total()
        yield wind
        stormy = wind.lag.told()
    finally:
        await wind.over()
    assert wind.answers.total() - before >= ANSWERS
    assert wind.answers.keys() == {200}
    assert stormy < max(LIMIT_SECONDS, TIMES * calm), f"{stormy * 1e3:.1f} ms late, {calm * 1e3:.1f} in calm weather"
    await stage.gateway.generations.idle()
    stage.gateway.generations.flush()
    await wind.settled(len(stage.records))
