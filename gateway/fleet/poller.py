"""The poller: one task a host keeps the fleet's facts fresh. Nothing waits for it but the start and an unknown model's last chance."""

import asyncio
import random
from collections.abc import Callable
from functools import partial
from typing import Protocol

from gateway.config import PollConfig
from gateway.fleet.client import HostClient, HostError
from gateway.fleet.health import Event
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


class Poller:
    """Polls every host: /api/version for liveness, /api/ps, and /api/tags less often. ``changed`` is called after each poll."""

    def __init__(
        self,
        fleet: Fleet,
        client: HostClient,
        config: PollConfig,
        clock: Callable[[], float],
        sink: PollSink,
        changed: Callable[[], None],
        rng: random.Random,
    ) -> None:
        self._fleet = fleet
        self._client = client
        self._config = config
        self._clock = clock
        self._sink = sink
        self._changed = changed
        self._rng = rng
        self._pokes = {host.name: asyncio.Event() for host in fleet.hosts}
        self._inventory_at = {host.name: float("-inf") for host in fleet.hosts}
        self._failures = {host.name: 0 for host in fleet.hosts}
        self._first_round = {host.name: asyncio.Event() for host in fleet.hosts}
        self._refreshed_at = float("-inf")
        self._refreshing: asyncio.Task[None] | None = None
        self._tasks = Tasks()

    def start(self) -> None:
        """Begin polling."""
        for host in self._fleet.hosts:
            name = f"poller {host.name}"
            self._tasks.spawn(name, supervise(name, partial(self._step, host), partial(self._pause, host)))

    async def close(self) -> None:
        """Stop polling."""
        await self._tasks.close()

    async def first_round(self, seconds: float) -> bool:
        """Wait until every host was polled once, at most ``seconds``; False if time ran out."""
        try:
            async with asyncio.timeout(seconds):
                for event in self._first_round.values():
                    await event.wait()
        except TimeoutError:
            return False
        return True

    def poke(self, host: str, *, inventory: bool = False) -> None:
        """Poll ``host`` now."""
        if inventory:
            self._inventory_at[host] = float("-inf")
        self._pokes[host].set()

    async def refresh_inventories(self, seconds: float) -> None:
        """Ask all hosts that answer for their models now, for one that nobody knows. At most once a second, however many ask."""
        if self._refreshing is None or self._refreshing.done():
            if self._clock() - self._refreshed_at < REFRESH_EVERY_SECONDS:
                return
            self._refreshed_at = self._clock()
            self._refreshing = self._tasks.spawn("inventory refresh", self._refresh_all())
        await asyncio.wait((self._refreshing,), timeout=seconds)

    async def _refresh_all(self) -> None:
        views = self._fleet.snapshot(self._clock()).hosts
        up = [view.host for view in views if view.health.state != "ejected"]
        await asyncio.gather(*(self._poll(host, inventory=True) for host in up))

    async def _step(self, host: Host) -> None:
        due = self._clock() - self._inventory_at[host.name] >= self._config.inventory_seconds
        await self._poll(host, inventory=due)

    async def _pause(self, host: Host) -> None:
        wait = min(
            self._config.interval_seconds * 2.0 ** min(self._failures[host.name], 8), self._config.backoff_seconds
        )
        poke = self._pokes[host.name]
        try:
            async with asyncio.timeout(wait * (1 + JITTER * (self._rng.random() - 0.5))):
                await poke.wait()
        except TimeoutError:
            return
        finally:
            poke.clear()

    async def _poll(self, host: Host, *, inventory: bool) -> None:
        started = self._clock()
        endpoint = "version"
        try:
            version = await self._client.version(host)
            latency = self._clock() - started
        except HostError as error:
            self._failed(host, endpoint, error)
            return
        self._failures[host.name] = 0
        self._fleet.observe(host.name, Observation(self._clock(), version, latency))
        loaded: tuple[LoadedModel, ...] | None = None
        available = None
        try:  # a slow or failing list is no sign of a dead host: Ollama answers /api/ps under locks
            endpoint = "ps"
            loaded = await self._client.loaded(host)
            if inventory:
                endpoint = "tags"
                available = await self._client.available(host)
                self._inventory_at[host.name] = self._clock()
        except HostError as error:
            self._sink.poll_failed(host.name, endpoint, error.reason)
        self._fleet.observe(host.name, Observation(self._clock(), version, latency, loaded, available))
        self._sink.polled(host.name, self._clock() - started)
        self._first_round[host.name].set()
        self._changed()

    def _failed(self, host: Host, endpoint: str, error: HostError) -> None:
        self._failures[host.name] += 1
        self._sink.poll_failed(host.name, endpoint, error.reason)
        event = Event.UNREACHABLE if error.unreachable else Event.POLL_FAILED
        self._fleet.note(host.name, event, self._clock(), str(error))
        self._first_round[host.name].set()
        self._changed()
