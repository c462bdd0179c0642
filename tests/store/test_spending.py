"""What keys have used: kept, found again after a restart, and known at every gateway on the database."""

import time

import pytest

from gateway.access.keys import Key
from gateway.access.limits import Limits
from gateway.access.rights import KeyRole
from gateway.access.tallies import Tallies
from gateway.access.windows import DAY_SECONDS, Spent
from gateway.config import DatabaseConfig
from gateway.errors import StoreUnavailable
from gateway.store.engine import Database
from gateway.store.none import NoDatabase
from gateway.store.spending import KEPT_DAYS, WHOLE_EVERY, Spending
from tests.access.test_tallies import Streaming

NEW_YEAR = 1_798_761_600.0  # 2027-01-01
KEYS = [Key(name, KeyRole.USER, "", limits=Limits(rpm=10, day=1000)) for name in ("ann", "bob")]


class Replica:
    """One gateway's, with clocks that are set by hand."""

    def __init__(self, database: Database | NoDatabase, name: str, at: float = NEW_YEAR + 10 * DAY_SECONDS) -> None:
        self.now, self.at = 100.0, at
        self.tallies = Tallies(lambda: self.now, lambda: self.at, lambda _name, _limit: None)
        self.tallies.configure(KEYS)
        self.spending = Spending(database, name, self.tallies, lambda: self.at)

    def use(self, name: str, input_tokens: int = 0, output_tokens: int = 0) -> None:
        """One request, from its beginning to its end."""
        self.tallies.admit(name, "ollama")
        self.tallies.leave(self.tallies.enter(name, Streaming()), input_tokens, output_tokens)

    def go(self, seconds: float) -> None:
        """Time passes."""
        self.now += seconds
        self.at += seconds

    async def looks(self, number: int = 1) -> None:
        """So many seconds' looks, at once."""
        for _ in range(number):
            await self.spending.look()

    def day(self, name: str = "ann") -> Spent:
        """What a key has used today, everywhere."""
        return self.tallies.of(name).all_day

    def month(self, name: str = "ann") -> Spent:
        """And this month."""
        return self.tallies.of(name).all_month


async def test_it_outlives_a_restart(database: Database) -> None:
    """Whatever day it was; and what is written once more is not counted twice."""
    one = Replica(database, "one")
    one.use("ann", 10, 20)
    await one.looks(3)
    one.go(DAY_SECONDS)
    one.use("ann", 1, 2)
    one.use("bob", 5, 5)
    await one.looks(3)
    again = Replica(database, "again", one.at)
    await again.looks()
    assert (again.day(), again.month()) == (Spent(1, 1, 2), Spent(2, 11, 22))
    assert again.day("bob") == Spent(1, 5, 5)
    again.use("ann", 100, 200)
    await again.looks(WHOLE_EVERY + 1)
    third = Replica(database, "third", again.at)
    await third.looks()
    assert (third.day(), third.month()) == (again.day(), again.month()) == (Spent(2, 101, 202), Spent(3, 111, 222))


async def test_a_new_month_begins_with_nothing(database: Database) -> None:
    """And so does a new day; what came at its end is still written to the day before."""
    one = Replica(database, "one", NEW_YEAR + 31 * DAY_SECONDS - 1)
    one.use("ann", 10, 20)
    one.go(2)
    await one.looks()
    assert one.day() == one.month() == Spent()
    one.use("ann", 1, 1)
    await one.looks()
    before = Replica(database, "two", NEW_YEAR + 31 * DAY_SECONDS - 1)
    await before.looks()
    assert before.day() == Spent(1, 10, 20)


async def test_a_month_is_summed_up_over_its_days(database: Database) -> None:
    """By a gateway that runs all the time too, of what others used."""
    one, two = Replica(database, "one"), Replica(database, "two")
    for day in range(4):
        one.use("ann", 10, day)
        await one.looks()
        await two.looks()
        assert two.day() == Spent(1, 10, day)
        one.go(DAY_SECONDS)
        two.go(DAY_SECONDS)
        await two.looks()
    assert (two.day(), two.month()) == (Spent(), Spent(4, 40, 6))


async def test_what_is_old_is_forgotten(database: Database) -> None:
    """After two months."""
    one = Replica(database, "one")
    one.use("ann", 10, 20)
    await one.looks()
    one.go((KEPT_DAYS + 1) * DAY_SECONDS)
    await one.looks()
    past = Replica(database, "past")
    await past.looks()
    assert past.day() == Spent()


async def test_minutes_are_shared_on_postgresql(database: Database, kind: str) -> None:
    """What the others let in during this minute counts here, until it is a minute old; on SQLite there are no others."""
    one, two = Replica(database, "one"), Replica(database, "two")
    for _ in range(4):
        one.use("ann", 5, 5)
    stay = one.tallies.enter("ann", Streaming())
    await one.looks()
    await two.looks()
    tally = two.tallies.of("ann")
    shared = kind == "postgresql"
    assert tally.minute_requests.used(two.now) == (4 if shared else 0)
    assert tally.minute_tokens.used(two.now) == (40 if shared else 0)
    assert tally.all_running == (1 if shared else 0)
    one.tallies.leave(stay, 0, 0)
    one.go(62)
    await one.looks()
    await two.looks()
    assert (tally.minute_requests.used(two.now), tally.minute_tokens.used(two.now), tally.all_running) == (0, 0, 0)
    assert two.day() == Spent(4, 20, 20)


async def test_without_a_database() -> None:
    """There is nobody to tell, and nothing is known from before; what was used elsewhere of a budget was used."""
    one = Replica(NoDatabase(), "one")
    one.use("ann", 5, 5)
    with pytest.raises(StoreUnavailable):
        await one.looks()
    await one.spending.start(1.0)
    await one.spending.close()
    assert one.day() == Spent(1, 5, 5)


async def test_a_database_that_comes_back(url: str) -> None:
    """Gets all that was used meanwhile, once."""
    made = Database(DatabaseConfig(url), time.monotonic)
    one = Replica(made, "one")
    one.use("ann", 10, 20)
    with pytest.raises(StoreUnavailable):
        await one.looks()
    await made.start(30.0)
    await one.looks(2)
    again = Replica(made, "again")
    await again.looks()
    assert again.day() == Spent(1, 10, 20)
    await made.close()
