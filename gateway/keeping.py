"""Joins the store to the metrics and the fleet: siblings that do not know each other."""

import time
from collections.abc import Callable

from gateway.config import DatabaseConfig
from gateway.fleet.registry import Fleet
from gateway.store.engine import Database
from gateway.store.keeper import Keeper
from gateway.store.measured import Measurements
from gateway.telemetry.gauges import Stored
from gateway.telemetry.metrics import Metrics


def keeper(
    database: Database, config: DatabaseConfig, replica: str, metrics: Metrics, clock: Callable[[], float], fleet: Fleet
) -> Keeper:
    """A keeper whose doings are counted, of what ``fleet`` has measured as well."""
    memory = fleet.memory
    return Keeper(
        database,
        config,
        replica,
        clock,
        time.time,
        label=metrics.model_label,
        counted=lambda fate, number: metrics.db_records.labels(fate).inc(number),
        flushed=metrics.db_flush.labels().observe,
        deleted=lambda table, rows: metrics.db_deleted.labels(table).inc(rows),
        measurements=Measurements(database, clock, memory.new, memory.written, fleet.recall),
    )


def stored(keeper: Keeper | None) -> Stored | None:
    """How the store is now, for a scrape."""
    if keeper is None:
        return None
    records, space = keeper.records, keeper.janitor.space
    free = space.free if space and space.free else None
    return Stored(
        keeper.database.up, records.depth, records.capacity, records.written_at, keeper.janitor.oldest_at, free
    )
