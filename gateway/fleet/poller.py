"""The poller: one task a host keeps the fleet's facts fresh. Nothing waits for it but the start and an unknown model's last chance."""

import asyncio
import random
import time
from collections.abc import Callable, Collection, Iterable
from functools import partial
from typing import NamedTuple, Protocol

from gateway.config import PollConfig
from gateway.fleet.client import HostClient, HostError
from gateway.fleet.health import Event, State
from gateway.fleet.host import Host, LoadedModel, Observation
from gateway.fleet.registry import Fleet
from gateway.tasks import Tasks, supervise

JITTER = 0.2
REFRESH_EVERY_SECONDS = 1.0


class PollSink(Protocol):
    """Who is told of polls: the metrics."""

    def polled(self, host: str, seconds: float) -> None:
        """A poll succeeded."""

    def poll_failed(self, host: str, endpoint: str, reason: str) -> None:
        """A call of a poll failed."""


class PollNews(NamedTuple):
    """A poll that went otherwise than the one before it. ``reason``: a bounded word for what failed, empty where all is well again; ``why``: in
    words; ``health``: what the host is now. ``began_at`` Unix seconds."""

    host: Host
    endpoint: str
    reason: str
    why: str
    health: State
    began_at: float
    seconds: float


class _Watch:
    """What the poller keeps of one host. Monotonic seconds."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.task: asyncio.Task[None] | None = None
        self.poke = asyncio.Event()
        self.polled = asyncio.Event()  # once
        self.inventory_at = float("-inf")
        self.failures = 0
        self.failed: tuple[str, str] | None = None  # endpoint and reason of the last poll, if it did


class Poller:
    """Polls every host: /api/version for liveness, /api/ps, and /api/tags less often. ``changed`` is called after each poll, ``news`` after one that
    fails otherwise than the last one, or after one that failed does not.
    """

    def __init__(
        self,
        fleet: Fleet,
        client: HostClient,
        config: PollConfig,
        clock: Callable[[], float],
        sink: PollSink,
        changed: Callable[[], None],
        rng: random.Random,
        wall: Callable[[], float] = time.time,
        news: Callable[[PollNews], None] | None = None,
    ) -> None:
        self._news = news
        self._wall = wall
        self._fleet = fleet
        self._client = client
        self._config = config
        self._clock = clock
        self._sink = sink
        self._changed = changed
        self._rng = rng
        self._watches: dict[str, _Watch] = {}
        self._refreshed_at = float("-inf")
        self._refreshing: asyncio.Task[None] | None = None
        self._tasks = Tasks()

    def watch(self) -> None:
        """Poll the fleet's hosts as they are configured now: begin with new ones, end with those that are gone."""
        before, self._watches = self._watches, {}
        for host in self._fleet.hosts:
            watch = before.get(host.name)
            if watch is not None and watch.host.url == host.url:
                del before[host.name]
                if watch.host.link != host.link:  # what it is known by is tried now
                    watch.poke.set()
                watch.host = host
            else:
                watch = _Watch(host)
                name = f"poller {host.name}"
                step = supervise(name, partial(self._step, watch), partial(self._pause, watch))
                watch.task = self._tasks.spawn(name, step)
            self._watches[host.name] = watch
        for watch in before.values():
            if watch.task is not None:
                watch.task.cancel()

    async def close(self) -> None:
        """Stop polling."""
        await self._tasks.close()

    async def first_round(self, seconds: float) -> bool:
        """Wait until every host was polled once, at most ``seconds``; False if time ran out."""
        try:
            async with asyncio.timeout(seconds):
                for watch in tuple(self._watches.values()):
                    await watch.polled.wait()
        except TimeoutError:
            return False
        return True

    def poke(self, host: str, *, inventory: bool = False) -> None:
        """Poll ``host`` now."""
        watch = self._watches.get(host)
        if watch is None:
            return
        if inventory:
            watch.inventory_at = float("-inf")
        watch.poke.set()

    async def refresh_inventories(self, seconds: float) -> None:
        """Ask all hosts that answer for their models now, for one that nobody knows. At most once a second, however many ask."""
        if self._refreshing is None or self._refreshing.done():
            if self._clock() - self._refreshed_at < REFRESH_EVERY_SECONDS:
                return
            self._refreshed_at = self._clock()
            self._refreshing = self._tasks.spawn("inventory refresh", self._refresh_all())
        await asyncio.wait((self._refreshing,), timeout=seconds)

    async def refresh_changed(self, hosts: Collection[str], seconds: float) -> None:
        """Ask these hosts for their models now: they were changed. After ``seconds`` it goes on without the caller."""
        if hosts:
            refreshing = self._tasks.spawn("inventory refresh", self._refresh(hosts))
            await asyncio.wait((refreshing,), timeout=seconds)

    async def _refresh_all(self) -> None:
        views = self._fleet.snapshot(self._clock()).hosts
        await self._refresh([view.name for view in views if view.health.state != "ejected"])

    async def _refresh(self, hosts: Iterable[str]) -> None:
        watched = [self._watches[name] for name in hosts if name in self._watches]
        await asyncio.gather(*(self._poll(watch, inventory=True) for watch in watched))

    async def _step(self, watch: _Watch) -> None:
        due = self._clock() - watch.inventory_at >= self._config.inventory_seconds
        await self._poll(watch, inventory=due)

    async def _pause(self, watch: _Watch) -> None:
        wait = min(self._config.interval_seconds * 2.0 ** min(watch.failures, 8), self._config.backoff_seconds)
        poke = watch.poke
        try:
            async with asyncio.timeout(wait * (1 + JITTER * (self._rng.random() - 0.5))):
                await poke.wait()
        except TimeoutError:
            return
        finally:
            poke.clear()

    async def _poll(self, watch: _Watch, *, inventory: bool) -> None:
        host, started = watch.host, self._clock()
        endpoint = "version"
        try:
            version = await self._client.version(host)
            latency = self._clock() - started
        except HostError as error:
            self._failed(watch, endpoint, error, started)
            return
        watch.failures = 0
        if self._watches.get(host.name) is not watch:  # it was removed meanwhile, or moved
            return
        self._fleet.observe(host.name, Observation(self._clock(), version, latency))
        loaded: tuple[LoadedModel, ...] | None = None
        available, began = None, self._clock()
        failure: HostError | None = None
        try:  # a slow or failing list is no sign of a dead host: Ollama answers /api/ps under locks
            endpoint = "ps"
            loaded = await self._client.loaded(host)
            if inventory:
                endpoint = "tags"
                available = await self._client.available(host)
                watch.inventory_at = self._clock()
        except HostError as error:
            failure = error
            self._sink.poll_failed(host.name, endpoint, error.reason)
        if self._watches.get(host.name) is not watch:
            return
        self._fleet.observe(
            host.name, Observation(self._clock(), version, latency, loaded, available, began, self._wall())
        )
        self._sink.polled(host.name, self._clock() - started)
        self._tell(watch, endpoint, failure, started)
        watch.polled.set()
        self._changed()

    def _failed(self, watch: _Watch, endpoint: str, error: HostError, started: float) -> None:
        host = watch.host
        watch.failures += 1
        self._sink.poll_failed(host.name, endpoint, error.reason)
        event = Event.UNREACHABLE if error.unreachable else Event.POLL_FAILED
        self._fleet.note(host.name, event, self._clock(), str(error))
        self._tell(watch, endpoint, error, started)
        watch.polled.set()
        self._changed()

    def _tell(self, watch: _Watch, endpoint: str, error: HostError | None, started: float) -> None:
        before, watch.failed = watch.failed, None if error is None else (endpoint, error.reason)
        if self._news is None or watch.failed == before or self._watches.get(watch.host.name) is not watch:
            return
        now = self._clock()
        health, seconds = self._fleet.view(watch.host.name, now).health.state, now - started
        reason, why = ("", "") if error is None else (error.reason, str(error))
        self._news(PollNews(watch.host, endpoint, reason, why, health, self._wall() - seconds, seconds))
