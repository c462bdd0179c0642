"""The poller against simulated hosts: what it finds out, what it makes of silence, and when it asks."""

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable

import pytest

from gateway.config import PollConfig
from gateway.fleet.client import HostClient
from gateway.fleet.health import BreakerPolicy, State
from gateway.fleet.host import Host
from gateway.fleet.poller import REFRESH_EVERY_SECONDS, Poller, PollNews
from gateway.fleet.registry import Fleet
from gateway.fleet.snapshot import HostView
from simulator.host import SimulatedHost
from simulator.models import model_named
from tests.builders import OTHER, TEXT, simulated
from tests.sockets import nobody

SECONDS = 5.0


class Watched:
    """A poller of some hosts with a hand-made clock; ``until`` waits for what its polls bring about."""

    def __init__(self, *hosts: Host, interval: float = 60.0, backoff: float = 60.0) -> None:
        self.now = 100.0
        self.seconds: Counter[str] = Counter()
        self.failures: list[tuple[str, str, str]] = []
        self.news: list[PollNews] = []
        self.fleet = Fleet(hosts, BreakerPolicy(failures=2))
        self.client = HostClient(0.2, 1.0)
        config = PollConfig(interval, inventory_seconds=10.0, backoff_seconds=backoff)
        sinks = (self, self._changed, random.Random(1), lambda: 1e9 + self.now, self.news.append)
        self.poller = Poller(self.fleet, self.client, config, lambda: self.now, *sinks)
        self._polled = asyncio.Event()

    def polled(self, host: str, seconds: float) -> None:
        """A poll succeeded."""
        self.seconds[host] += 1
        assert seconds >= 0.0

    def poll_failed(self, host: str, endpoint: str, reason: str) -> None:
        """A call of a poll failed."""
        self.failures.append((host, endpoint, reason))

    def _changed(self) -> None:
        self._polled.set()

    def view(self, name: str = "gpu1") -> HostView:
        """A host as it is now."""
        return self.fleet.view(name, self.now)

    async def until(self, true: Callable[[HostView], bool], name: str = "gpu1") -> HostView:
        """A host, once this is so."""
        async with asyncio.timeout(SECONDS):
            while not true(self.view(name)):
                self._polled.clear()
                await self._polled.wait()
        return self.view(name)

    async def poll(self, name: str = "gpu1", *, inventory: bool = False) -> None:
        """One more poll of a host, to its end."""
        self._polled.clear()
        self.poller.poke(name, inventory=inventory)
        async with asyncio.timeout(SECONDS):
            await self._polled.wait()


@contextlib.asynccontextmanager
async def watching(*hosts: SimulatedHost | Host, **changes: float) -> AsyncIterator[Watched]:
    """A running poller of hosts that were polled once, closed at the end with nothing left."""
    watched = Watched(*(host if isinstance(host, Host) else Host(host.name, host.url) for host in hosts), **changes)
    watched.poller.watch()
    try:
        assert await watched.poller.first_round(SECONDS)
        yield watched
    finally:
        await watched.poller.close()
        await watched.client.close()
    assert [task for task in asyncio.all_tasks() if task.get_name().startswith(("poller", "inventory"))] == []


async def test_the_first_round_tells_all() -> None:
    """One poll finds out what a host has, what it holds, its version, and that it is healthy."""
    async with simulated(version="0.33.7") as host:
        await host.load(TEXT)
        async with watching(host) as watched:
            view = watched.view()
            assert {TEXT, OTHER} <= set(view.available or ())
            assert [model.name for model in view.loaded.values()] == [TEXT]
            assert (view.version, view.seen_at, view.health.state) == ("0.33.7", 100.0, State.HEALTHY)
            assert watched.seconds == {"gpu1": 1}


async def test_a_dead_host_ends_the_first_round_too() -> None:
    """A host where nobody listens is ejected at once, and nobody waits for it."""
    with nobody() as url:
        async with simulated() as host, watching(host, Host("gpu2", url)) as watched:
            assert watched.view("gpu2").health.state is State.EJECTED
            assert "cannot connect" in watched.view("gpu2").health.why
            assert watched.failures == [("gpu2", "version", "connect_error")]
            assert watched.view("gpu1").health.state is State.HEALTHY


async def test_a_first_round_that_takes_too_long() -> None:
    """A start waits no longer than it said."""
    async with simulated() as host:
        watched = Watched(Host("gpu1", host.url))
        watched.poller.watch()
        assert not await watched.poller.first_round(0.0)
        await watched.poller.close()
        await watched.client.close()


@pytest.mark.parametrize(("fault", "endpoint"), [("ps_error", "ps"), ("tags_error", "tags")])
async def test_a_failing_list_is_no_sign_of_a_dead_host(fault: str, endpoint: str) -> None:
    """It is counted, what was known stays, and the host stays healthy."""
    async with simulated() as host, watching(host) as watched:
        before = watched.view()
        host.faults.set(fault)
        await watched.poll(inventory=True)
        view = watched.view()
        assert watched.failures == [("gpu1", endpoint, "http_error")]
        assert (view.available, view.loaded, view.health.state) == (before.available, before.loaded, State.HEALTHY)
        assert watched.seconds == {"gpu1": 2}


async def test_an_inventory_that_failed_is_asked_for_again() -> None:
    """At the next poll, not after the whole inventory interval."""
    async with simulated() as host:
        host.faults.set("tags_error", times=1)
        async with watching(host) as watched:
            assert watched.view().available is None
            await watched.poll()
            assert TEXT in (watched.view().available or {})


async def test_a_slow_list_is_no_sign_of_a_dead_host_either() -> None:
    """Ollama answers /api/ps under locks, up to ten seconds."""
    async with simulated() as host, watching(host) as watched:
        host.faults.set("slow_ps", seconds=30.0)
        await watched.poll()
        assert watched.failures == [("gpu1", "ps", "timeout")]
        assert watched.view().health.state is State.HEALTHY
        host.faults.clear()


async def test_failing_polls_eject() -> None:
    """One is suspicious, so many in a row eject, and one good poll brings the host back."""
    async with simulated() as host, watching(host) as watched:
        host.faults.set("version_error", times=2)
        states = []
        for _ in range(3):
            await watched.poll()
            states.append(watched.view().health.state)
        assert states[:2] == [State.SUSPECT, State.EJECTED]
        await watched.until(lambda view: view.health.state is State.HEALTHY)
        assert watched.failures == [("gpu1", "version", "http_error")] * 2


async def test_a_host_that_dies_and_returns() -> None:
    """It holds nothing while it is gone, and is healthy when it answers again."""
    async with simulated() as host:
        await host.load(TEXT)
        async with watching(host) as watched:
            await host.kill()
            await watched.poll()
            assert (watched.view().health.state, watched.view().loaded) == (State.EJECTED, {})
            await host.start()
            await watched.poll()
            assert watched.view().health.state is State.HEALTHY


async def test_news_is_what_was_not_so_before() -> None:
    """The first failure of its kind, and that all is well again; neither the same once more nor an ordinary poll."""
    async with simulated() as host, watching(host) as watched:
        await watched.poll()
        for fault in ("ps_error", "tags_error"):
            host.faults.set(fault)
            for _ in range(3):
                await watched.poll(inventory=True)
            host.faults.clear()
        await host.kill()
        for _ in range(3):
            await watched.poll()
        await host.start()
        await watched.poll()
        told = [(news.endpoint, news.reason, news.health) for news in watched.news]
        assert told == [
            ("ps", "http_error", State.HEALTHY),
            ("tags", "http_error", State.HEALTHY),
            ("version", "connect_error", State.EJECTED),
            ("tags", "", State.HEALTHY),
        ]
        assert [bool(news.why) for news in watched.news] == [True, True, True, False]
        assert {(news.host.url, news.began_at, news.seconds) for news in watched.news} == {(host.url, 1e9 + 100.0, 0.0)}


# -- when -----------------------------------------------------------------------------------------------------------------------------


async def test_polls_go_on_by_themselves() -> None:
    """Every interval, without anybody asking."""
    async with simulated() as host, watching(host, interval=0.001):
        await host.wait_until(lambda: host.ledger.requests["/api/version"] >= 5)


async def test_a_dead_host_is_asked_ever_less_often() -> None:
    """Up to the longest pause; and it is found again when it comes back."""
    async with simulated() as host, watching(host, interval=0.001, backoff=0.004) as watched:
        await host.kill()
        await watched.until(lambda view: view.health.state is State.EJECTED)
        await host.start()
        await watched.until(lambda view: view.health.state is State.HEALTHY)


async def test_changed_hosts_are_asked_at_once() -> None:
    """For their models, as often as it is said; the others are left alone."""
    async with simulated() as host, simulated("gpu2") as other, watching(host, other) as watched:
        for model in ("mine:1b", "yours:1b"):
            host.store.add(model_named(model))
            await watched.poller.refresh_changed(["gpu1"], SECONDS)
            assert model in (watched.view().available or ())
        assert other.ledger.requests["/api/tags"] == 1
        await watched.poller.refresh_changed([], SECONDS)
        assert host.ledger.requests["/api/tags"] == 3


async def test_a_changed_host_that_is_silent_is_not_waited_for() -> None:
    """Longer than was said; the poll goes on."""
    async with simulated() as host, watching(host) as watched:
        host.faults.set("slow_ps", seconds=60.0)
        await watched.poller.refresh_changed(["gpu1"], 0.0)
        assert host.ledger.requests["/api/tags"] == 1


async def test_the_inventory_is_asked_for_less_often() -> None:
    """/api/tags is asked when its interval is over, or when told to."""
    async with simulated() as host, watching(host) as watched:
        asked = [host.ledger.requests["/api/tags"]]
        for seconds, inventory in ((1.0, False), (8.9, False), (0.1, False), (1.0, False), (0.0, True)):
            watched.now += seconds
            await watched.poll(inventory=inventory)
            asked.append(host.ledger.requests["/api/tags"])
        assert asked == [1, 1, 1, 2, 2, 3]
        assert host.ledger.requests["/api/version"] == host.ledger.requests["/api/ps"] == 6


async def test_a_refresh_finds_what_was_pulled_a_moment_ago() -> None:
    """All hosts that answer are asked for their models, and the caller waits for it."""
    with nobody() as url:
        async with simulated("gpu1", TEXT) as host, watching(host, Host("gpu2", url)) as watched:
            model = host.store.find(TEXT)
            assert model is not None
            await host.load(TEXT)
            host.store.copy(model, type(model.name).parse("new:1b"))  # type: ignore[arg-type]
            await watched.poller.refresh_inventories(SECONDS)
            assert "new:1b" in (watched.view().available or {})
            assert len(watched.failures) == 1, "the ejected host was left alone"


async def test_a_storm_of_refreshes_is_one() -> None:
    """However many ask for models that nobody has, the hosts are asked once a second."""
    async with simulated() as host, watching(host) as watched:
        await asyncio.gather(*(watched.poller.refresh_inventories(SECONDS) for _ in range(20)))
        assert host.ledger.requests["/api/tags"] == 2
        watched.now += REFRESH_EVERY_SECONDS * 0.99
        await watched.poller.refresh_inventories(SECONDS)
        assert host.ledger.requests["/api/tags"] == 2
        watched.now += REFRESH_EVERY_SECONDS
        await watched.poller.refresh_inventories(SECONDS)
        assert host.ledger.requests["/api/tags"] == 3


async def test_a_refresh_waits_no_longer_than_it_said() -> None:
    """A host that is slow delays nobody for longer."""
    async with simulated() as host, watching(host) as watched:
        host.faults.set("slow_ps", seconds=30.0)
        await watched.poller.refresh_inventories(0.01)
        assert host.ledger.requests["/api/tags"] == 1
        host.faults.clear()


async def test_poking_a_host_that_is_gone() -> None:
    """Does nothing: it may have been removed a moment ago."""
    async with simulated() as host, watching(host) as watched:
        watched.poller.poke("gpu9")
