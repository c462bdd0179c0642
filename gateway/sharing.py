"""Joins what runs here to the gateways that share the database: what each holds, what another one wants stopped,
and which hosts drain."""

from collections.abc import Callable, Mapping

from gateway.fleet.registry import Fleet
from gateway.record import CancelSource
from gateway.relay.generations import Generations
from gateway.relay.shelf import Shelf
from gateway.routing.admission import Admission
from gateway.store.draining import Draining
from gateway.store.engine import Database
from gateway.store.none import NoDatabase
from gateway.store.replicas import Replicas
from gateway.tasks import Tasks
from gateway.telemetry.gauges import Shared
from gateway.turns.writer import ERASED


def sharing(
    database: Database | None,
    name: str,
    fleet: Fleet,
    admission: Admission,
    generations: Generations,
    shelf: Shelf,
    clock: Callable[[], float],
    tasks: Tasks,
) -> Replicas | None:
    """This gateway among those on one PostgreSQL; None where nothing can be shared. ``name`` is its own."""
    if database is None or database.sqlite:
        return None

    def stop(target: str, seconds: float, erased: bool, whose: str | None) -> int:
        why = ERASED if erased else "stopped by an operator at another gateway"
        if erased:
            shelf.erase(target)
        return generations.stop_named(target, CancelSource.OPERATOR, why, older_than=seconds, whose=whose)

    def leases() -> dict[str, int]:
        return {view.name: view.leases for view in fleet.snapshot(clock()).hosts}

    def elsewhere(counts: Mapping[str, int]) -> None:
        fleet.leased_elsewhere(counts)
        admission.assign(clock())

    return Replicas(database, name, stop, leases, elsewhere, tasks)


def draining(database: Database | None, fleet: Fleet, admission: Admission, clock: Callable[[], float]) -> Draining:
    """Which hosts drain, told to the fleet and to who waits for a host."""

    def tell(names: frozenset[str]) -> None:
        fleet.drain(names)
        admission.assign(clock())

    return Draining(database or NoDatabase(), clock, tell)


def shared(replicas: Replicas | None) -> Shared | None:
    """How it is with the others now, for a scrape."""
    if replicas is None:
        return None
    return Shared(1 + len(replicas.others), replicas.bus.up, replicas.bus.reconnects)
