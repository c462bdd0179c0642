"""The composition root: builds every part from the configuration, wires the routes, starts and stops in order.

The only file that knows all parts. ``Gateway`` is what the command line runs and what the tests run: the same server, the same
switches (aiohttp cancels a handler when its client leaves only if told so).
"""

import asyncio
import logging
import os
import random
import secrets
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

from gateway.admitting import Admitting
from gateway.api.account import Account
from gateway.api.breakdown import BreakdownApi
from gateway.api.explain import Explain
from gateway.api.fleet import FleetViews
from gateway.api.following import FollowingApi
from gateway.api.generations import GenerationsApi
from gateway.api.handler import Part
from gateway.api.hosts import HostsApi
from gateway.api.inference import Inference
from gateway.api.jobs import JobsApi
from gateway.api.models import Models
from gateway.api.ops import Ops
from gateway.api.queue import QueueApi
from gateway.api.requests import RequestsApi
from gateway.api.show import Show
from gateway.api.site import CUT_SECONDS
from gateway.api.stats import StatsApi
from gateway.api.stopping import Stopping
from gateway.chance import Unguessable
from gateway.config import Config
from gateway.fleet.client import HostClient
from gateway.fleet.discovery import Discovery, configured, tell_changes
from gateway.fleet.host import Host
from gateway.fleet.jobs import Jobs
from gateway.fleet.manage import Unloader
from gateway.fleet.poller import Poller
from gateway.fleet.residence import Load, Unload
from gateway.fleet.tls import Contexts as LinkContexts
from gateway.keeping import keeper, stored
from gateway.listeners import Listeners
from gateway.live import HealthTeller, live, watch_lag
from gateway.lookout import Lookout
from gateway.observing import Messages, poll_news, tracer, turned_away
from gateway.plural import counted
from gateway.record import CancelSource, GenerationRecord
from gateway.relay.connections import Connections
from gateway.relay.detached import Detached
from gateway.relay.generations import Generations
from gateway.relay.relay import Relay
from gateway.routing.admission import Admission
from gateway.sharing import draining, shared, sharing
from gateway.store.engine import Database
from gateway.store.entries import Row
from gateway.store.session_store import SessionStore
from gateway.store.stats import Stats
from gateway.talking import talking
from gateway.tasks import Tasks
from gateway.telemetry.context import Contexts
from gateway.telemetry.gauges import Live
from gateway.telemetry.logs import LogWriter
from gateway.telemetry.metrics import Metrics
from gateway.warming import Warming

log = logging.getLogger(__name__)

FIRST_ROUND_SECONDS = 2.0  # how long a start waits for the hosts' first word
DATABASE_SECONDS = 5.0  # how long a start waits for the database; migrations go on after it
REFRESH_SECONDS = 1.0  # how long an unknown model waits for fresh inventories


class Gateway:
    """One running gateway, made inside the event loop. ``await start()``, then ``url`` answers; ``await stop()`` leaves nothing behind."""

    def __init__(self, config: Config, *, seed: int | None = None) -> None:
        self.config = config
        self.rng = random.Random(seed)
        self.chance = Unguessable()  # for ids, by which answers are read: nobody may guess one
        clock = self.clock = time.monotonic
        relay = config.relay
        self.metrics = Metrics(self._live, self._known_model, genai_semconv=config.metrics.genai_semconv)
        self.fleet = configured(config, self._moved)
        queue = config.queue
        self.admission = Admission(self.fleet, queue.limit, self.rng, config.routing.policy, queue.per_principal)
        self.log = LogWriter(config.log, self.metrics.log_dropped.labels().inc)
        self._records: list[GenerationRecord] | None = None
        self.replica = f"{socket.gethostname()[:23]}-{os.getpid() % 10**7}-{secrets.token_hex(4)}"
        self.database = Database(config.database, clock) if config.database.kept else None
        self.keeper = (
            keeper(self.database, config.database, self.replica, self.metrics, clock, self.fleet)
            if self.database
            else None
        )
        keeping = (self.keeper.put,) if self.keeper else ()
        sinks = (self.metrics.observe, self.log.generation, *keeping, self._keep)
        self.contexts = Contexts(config.tracing, self.rng)
        self.tracer = tracer(config.tracing, self.fleet, self.replica, self.metrics)
        loop = asyncio.get_running_loop()
        self.access = Admitting(config, self.database, self.replica, self.metrics.limit_refused)
        self.generations = Generations(
            *(loop, clock, time.time, sinks, relay.deadline_seconds, self.tracer, self.access.tallies)
        )
        self.jobs = Jobs(clock, time.time, self.rng, (self.metrics.job_ended, self.log.job))
        self.links = LinkContexts()
        self.connections = Connections(
            *(self.fleet.hosts, relay.connect_timeout_seconds, relay.idle_connection_seconds, clock),
            self.links,
        )
        self.listeners = Listeners(config, self.access, self.contexts, clock, self.log.visited, self.metrics)
        self.sessions = SessionStore(self.database, time.time, self.chance)
        self.tasks = Tasks()
        self.draining = draining(self.database, self.fleet, self.admission, clock)
        self._messages = Messages(self.log, config.log.level)
        self._told = HealthTeller()

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens, with the real port."""
        return self.listeners.address

    @property
    def url(self) -> str:
        """Base URL of the gateway."""
        return self.listeners.url

    # -- start and stop --------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Poll once, then listen. Raises OSError when the port is taken."""
        self._messages.attach(asyncio.get_running_loop())
        poll, relay = self.config.poll, self.config.relay
        self.client = HostClient(poll.timeout_seconds, relay.connect_timeout_seconds, self.replica, self.links)
        news = poll_news(self.tracer, self.contexts)
        self.poller = Poller(
            self.fleet, self.client, poll, self.clock, self.metrics, self._fleet_changed, self.rng, news=news
        )
        self.discovery = Discovery(self.config, self._configure)
        self._lookout = Lookout(self.config, self.discovery, self._reconfigure, self.listeners.certificate.look)
        self._make_relay()
        unloader = Unloader(self.fleet, self.client, self.clock)
        self.inference = Inference(
            self.relay,
            self.generations,
            self.detached,
            self.talking.recorder,
            unloader.unload,
            self.metrics.refused,
            turned_away(self.log, self.tracer),
            self.metrics.responded,
            self.chance,
            self.fleet,
            self.contexts,
            self.access.gate,
            self.access.tallies,
            self.access.audit.put,
            self.config.relay,
            self.config.queue,
        )
        self.warming = Warming(
            *(self.fleet, self.admission, self.client, self.metrics, self.clock, lambda: self.config, self.tasks)
        )
        self.account = Account(self.fleet, self.client, self.config)
        self.models = Models(self.fleet, self.jobs, self.client, self.poller, self.config, self.tasks)
        self.ops = Ops(self._exposition, self.fleet, self.clock, self.database)
        try:
            if self.keeper is not None:
                await self.keeper.start(DATABASE_SECONDS)
            await self.access.start(self.tasks, DATABASE_SECONDS)
            if self.database is not None:
                await self.draining.start(DATABASE_SECONDS)
                self.tasks.spawn("draining", self.draining.run())
                self.tasks.spawn("answers that were left unfinished", self.sessions.recover(self.database))
            if self.replicas is not None:
                self.tasks.spawn("bus", self.replicas.bus.run())
                self.tasks.spawn("replicas", self.replicas.run())
            await self._lookout.first()
            await self.poller.first_round(FIRST_ROUND_SECONDS)
            await self.listeners.open(self._parts(), self.inference)
        except BaseException:
            await self._close()
            raise
        self.tasks.spawn("loop lag", watch_lag(self.clock, self.metrics))
        self.tasks.spawn("lookout", self._lookout.run())
        self.tasks.spawn("models that are kept in memory", self.warming.run())

    def _make_relay(self) -> None:
        self.relay = Relay(
            self.fleet,
            self.admission,
            self.connections,
            self.clock,
            attempts=self.config.relay.attempts,
            refresh=self._refresh,
            poke=lambda host: self.poller.poke(host, inventory=True),
            overhear_bytes=self.tracer.said_bytes if self.tracer else 0,
        )
        self.detached = Detached(
            *(self.relay, self.generations, self.tasks, self.config.generations, self.chance, self.contexts),
            *(self.access.gate.named, self.access.tallies),
            *(self.metrics.refused, self.metrics.detached_dropped.labels().inc),
        )
        config, name, shelf = self.config.sessions, self.replica, self.detached.shelf
        generations, fleet = self.generations, self.fleet
        self.replicas = sharing(self.database, name, fleet, self.admission, generations, shelf, self.clock, self.tasks)
        self.stopping = Stopping(generations, shelf, self.replicas)
        self.talking = talking(
            config, self.sessions, self.relay, self.detached, generations, fleet, self.tasks, name, self.metrics
        )

    def _parts(self) -> tuple[Part, ...]:
        config = self.config
        stats = Stats(self.database) if self.database else None
        requests = RequestsApi(stats, self._unwritten, config.database.requests_days, time.time)
        return (
            self.inference,
            FleetViews(self.fleet, self.client, self.clock, config.poll.inventory_ttl_seconds),
            Explain(self.fleet, self.admission, self.clock, self.rng, config.relay, config.queue),
            Show(self.fleet, self.client, self.clock, self.rng, self._refresh, config.relay),
            self.account,
            HostsApi(self.fleet, self.clock, self.draining, lambda: self.config.placement, self.warming.kept),
            GenerationsApi(
                *(self.generations, self.detached.shelf, self.stopping, self.sessions.sessions),
                *(self.admission.outlook, requests.row),
            ),
            QueueApi(self.admission, self.clock, time.time),
            FollowingApi(self.detached.shelf, self.generations, config.generations.heartbeat_seconds),
            self.models,
            JobsApi(self.jobs),
            *self.access.parts(),
            *self.talking.parts(self.sessions, self.stopping, lambda: self.fleet.names),
            StatsApi(stats, config.database.minutes_days, time.time),
            BreakdownApi(stats, config.database.minutes_days, time.time),
            requests,
            self.ops,
        )

    async def stop(self) -> None:
        """Stop accepting, let streams finish for the grace period, cut the rest, close everything."""
        if self.listeners.opened:
            self.inference.draining = self.detached.draining = self.models.draining = self.ops.draining = True
            await self.listeners.shut()
            await self._drain()
        await self._close()

    async def _drain(self) -> None:
        try:
            async with asyncio.timeout(self.config.shutdown.grace_seconds):
                await self.idle()
                await self.detached.shelf.idle()
                await self.listeners.delivered()
        except TimeoutError:
            self.stop_all("that outlasted the grace period")
            try:
                async with asyncio.timeout(CUT_SECONDS):
                    await self.idle()
            except TimeoutError:
                log.warning("%s did not end in time", counted(len(self.generations), "generation"))
        try:
            async with asyncio.timeout(CUT_SECONDS):
                await self.talking.chats.busy.idle()
        except TimeoutError:
            log.warning("answers could not be kept before the end: the database is too slow")

    async def idle(self) -> None:
        """Return once no generation is in flight and no job runs."""
        await self.generations.idle()
        await self.jobs.idle()

    def stop_all(self, which: str) -> None:
        """Stop every generation and every job; ``which`` they were, for the log."""
        why = "the gateway is shutting down"
        cut, jobs = self.generations.stop_all(CancelSource.SHUTDOWN, why), self.jobs.stop_all(why)
        log.warning("cut %s %s, and %s", counted(cut, "generation"), which, counted(jobs, "job"))

    async def _close(self) -> None:
        await self.tasks.close()
        await self.listeners.close()
        await self.poller.close()
        await self.connections.close()
        await self.client.close()
        self.generations.flush()
        self.detached.shelf.close()
        if self.replicas is not None:
            await self.replicas.leave()
        if self.tracer is not None:
            await self.tracer.close()
        await self.access.close()
        if self.keeper is not None:
            await self.keeper.close()
        self._messages.detach()
        self.log.close()

    # -- glue ------------------------------------------------------------------------------------------------------------------

    def _refresh(self) -> Awaitable[None]:
        return self.poller.refresh_inventories(REFRESH_SECONDS)

    def _fleet_changed(self) -> None:
        self.admission.assign(self.clock())
        self._told.tell(self.fleet.snapshot(self.clock()))

    # -- hosts that come and go ------------------------------------------------------------------------------------------------

    def follow(self, load: Callable[[], Config], file: Path | None) -> None:
        """Reload the configuration whenever ``file`` changes, and on ``reload``."""
        self._lookout.follow(load, file)

    def _reconfigure(self, config: Config) -> None:
        """Take what can change while it runs (``reload.LIVE``); hosts come with the next look at their sources."""
        self.config = config
        self.listeners.configure(config.http)
        self.access.configure(config)
        self.account.named = config.account_host
        self.models.rules = config.placement

    def reload(self) -> None:
        """Read the configuration again, and look at every source of hosts now."""
        self._lookout.reload()

    def _moved(self, change: Load | Unload) -> None:
        self.metrics.moved(change)
        name = change.host  # which may have left the fleet
        if isinstance(change, Load) and name in self.fleet.names and self.fleet.view(name, self.clock()).leaving:
            self.poller.poke(name)  # what had to make room for it is a guess until somebody looks

    def _configure(self, hosts: tuple[Host, ...]) -> None:
        tell_changes(self.fleet.hosts, hosts)
        self.fleet.configure(hosts)
        self.connections.configure(hosts)
        self.poller.watch()
        self.admission.assign(self.clock())

    @property
    def records(self) -> list[GenerationRecord] | None:
        """Every record since a list was set here: for tests."""
        self.generations.flush()
        return self._records

    @records.setter
    def records(self, records: list[GenerationRecord]) -> None:
        self._records = records

    def _keep(self, record: GenerationRecord) -> None:
        if self._records is not None:
            self._records.append(record)

    def _exposition(self, openmetrics: bool) -> Iterator[bytes]:
        self.generations.flush()
        return self.metrics.pieces(openmetrics=openmetrics)

    def _unwritten(self, id_: str) -> Row | None:
        self.generations.flush()
        return self.keeper.records.waiting(id_) if self.keeper else None

    def _known_model(self, model: str) -> bool:
        return self.fleet.lists(model)

    def _live(self) -> Live:
        fleet, rules, label = self.fleet.snapshot(self.clock()), self.config.placement, self.metrics.model_label
        shelf, turns = self.detached.shelf, (self.talking.chats.busy, self.talking.chats.writer)
        return live(
            *(fleet, rules, self.admission, self.generations, shelf, self.jobs, label, turns, self.tasks),
            *(self._lookout.configured, stored(self.keeper), shared(self.replicas), self.warming.keeps),
        )


@asynccontextmanager
async def running(config: Config, *, seed: int | None = None) -> AsyncIterator[Gateway]:
    """A started gateway, stopped at the end."""
    gateway = Gateway(config, seed=seed)
    await gateway.start()
    try:
        yield gateway
    finally:
        await gateway.stop()
