"""How it is now: the state that a scrape shows, and each change of a host's health as a line in the log."""

import asyncio
import logging
import platform
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from gateway.config import PlacementConfig
from gateway.fleet.health import State
from gateway.fleet.jobs import Jobs
from gateway.fleet.keeps import Keep
from gateway.fleet.snapshot import FleetSnapshot, HostView
from gateway.process import build, package_version
from gateway.record import Phase
from gateway.relay.generations import Generations
from gateway.relay.shelf import Shelf
from gateway.routing.admission import Admission
from gateway.tasks import Tasks
from gateway.telemetry.gauges import Configured, Kept, Live, Shared, Stored, Turned
from gateway.telemetry.metrics import Metrics
from gateway.turns.busy import Busy
from gateway.turns.writer import Writer

LAG_EVERY_SECONDS = 0.5

log = logging.getLogger(__name__)


def live(
    fleet: FleetSnapshot,
    placement: Sequence[PlacementConfig],
    admission: Admission,
    generations: Generations,
    shelf: Shelf,
    jobs: Jobs,
    label: Callable[[str], str],
    turns: tuple[Busy, Writer],
    tasks: Tasks,
    configured: Configured,
    store: Stored | None,
    shared: Shared | None,
    keeps: Mapping[str, Sequence[Keep]],
) -> Live:
    """At the moment of the snapshot. ``label`` bounds the models' names."""
    waiting = admission.waiting()
    running = [generation for generation in generations if generation.phase is not Phase.QUEUED]
    return Live(
        fleet=fleet,
        placement=placement,
        wall=time.time(),
        queued=dict(Counter(label(waiter.request.model) for waiter in waiting)),
        queue_limit=admission.limit,
        oldest_seconds=fleet.taken_at - min((waiter.since for waiter in waiting), default=fleet.taken_at),
        jobs=jobs.running(),
        kept=Kept(shelf.running, len(shelf) - shelf.running, shelf.size, shelf.readers),
        in_flight=dict(Counter((generation.host or "", label(generation.request.model)) for generation in running)),
        turns=Turned(len(turns[0]), turns[1].ended),
        task_failures=tasks.failures,
        configured=configured,
        build=(package_version(), build(), platform.python_version()),
        store=store,
        shared=shared,
        keeps=keeps,
    )


async def watch_lag(clock: Callable[[], float], metrics: Metrics) -> None:
    """Measure for ever how late the event loop is."""
    while True:
        due = clock() + LAG_EVERY_SECONDS
        await asyncio.sleep(LAG_EVERY_SECONDS)  # noqa: TID251 - the lateness of a timer is what is measured
        metrics.loop_lag.labels().observe(max(0.0, clock() - due))


class HealthTeller:
    """Logs what has changed since it was told last."""

    def __init__(self) -> None:
        self._told: dict[str, State] = {}

    def tell(self, fleet: FleetSnapshot) -> None:
        """A line for each host whose health is another than before."""
        before, self._told = self._told, {view.name: view.health.state for view in fleet.hosts}
        for view in fleet.hosts:
            if before.get(view.name) != view.health.state:
                self._tell(view, new=view.name not in before)

    def _tell(self, view: HostView, *, new: bool) -> None:
        if view.health.state is not State.HEALTHY:
            log.warning("host %s is %s: %s", view.name, view.health.state, view.health.why)
        elif new:
            log.info("host %s is healthy: Ollama %s", view.name, view.version)
        else:
            log.info("host %s is healthy again", view.name)
